//! Random operations over some chunks, with holes and far away memory, against the naive set.

use alloc::boxed::Box;
use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert, proptest};

use super::{FrameAllocator, FrameNumber, FrameRange, MemoryMap, Naive, bitmap, chunks, frame, usable};
use crate::frame::chunks::ChunkAllocator;

#[derive(Clone, Debug)]
enum Operation {
    /// So many single frames.
    Allocate(usize),
    /// So many of those that are allocated, from a place on.
    Free(usize, usize),
    Run(u64, u64),
    /// One of the runs.
    FreeRun(usize),
    /// A frame that may be free, or not ours.
    FreeAny(u64),
    /// A run of which some may be free, or not ours.
    FreeAnyRun(u64, u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let align = || (0_u32..11).prop_map(|shift| 1_u64 << shift);
    prop_oneof![
        3 => (0_usize..700).prop_map(Operation::Allocate),
        4 => (any::<usize>(), 0_usize..700).prop_map(|(at, frames)| Operation::Free(at, frames)),
        3 => (1_u64..1400, align()).prop_map(|(frames, align)| Operation::Run(frames, align)),
        2 => (1_u64..20, 0_u32..4).prop_map(|(frames, shift)| Operation::Run(frames, 1 << shift)),
        2 => align().prop_map(|size| Operation::Run(size, size)),
        2 => (1_u64..4).prop_map(|chunks| Operation::Run(chunks * 512, 512)),
        3 => any::<usize>().prop_map(Operation::FreeRun),
        1 => (0_u64..4096).prop_map(Operation::FreeAny),
        1 => (0_u64..4096, 1_u64..600).prop_map(|(first, frames)| Operation::FreeAnyRun(first, frames)),
    ]
}

/// 10 chunks, some of them with holes, and one at 1 TiB.
fn map() -> MemoryMap {
    let far = 1 << 28;
    usable(&[(0, 700), (720, 1530), (1536, 4096), (6000, 6007), (far, far + 512), (far + 600, far + 610)])
}

fn check(allocator: &dyn FrameAllocator, map: &MemoryMap, operations: &[Operation]) {
    let mut naive = Naive::new(map);
    let (mut singles, mut runs): (Vec<FrameNumber>, Vec<FrameRange>) = (Vec::new(), Vec::new());
    for (step, operation) in operations.iter().enumerate() {
        match *operation {
            Operation::Allocate(frames) => singles.extend(naive.allocate(allocator, frames)),
            Operation::Free(at, frames) => {
                let first = at.checked_rem(singles.len()).unwrap_or(0);
                let end = (first + frames).min(singles.len());
                let mut batch: Vec<FrameNumber> = singles.drain(first..end).collect();
                batch.sort_by_key(|frame| frame.get().wrapping_mul(0x9e37_79b9_7f4a_7c15));
                naive.free(allocator, &batch);
            }
            Operation::Run(frames, align) => runs.extend(naive.allocate_run(allocator, frames, align)),
            Operation::FreeRun(at) if !runs.is_empty() => {
                naive.free_run(allocator, runs.swap_remove(at % runs.len()));
            }
            Operation::FreeRun(_) => {}
            Operation::FreeAny(number) => naive.free(allocator, &[frame(number)]),
            Operation::FreeAnyRun(first, frames) => naive.free_run(allocator, super::run(first, first + frames)),
        }
        // What was freed by number is nobody's any more.
        singles.retain(|frame| !naive.free.contains(&frame.get()));
        runs.retain(|run| run.iter().all(|frame| !naive.free.contains(&frame.get())));
        naive.check_count(allocator);
        if step % 8 == 0 {
            naive.check(allocator);
        }
    }
    let left: Vec<FrameNumber> = naive.allocate(allocator, 8192);
    assert_eq!(allocator.available(), 0, "every free frame can be taken");
    naive.free(allocator, &left);
    naive.check(allocator);
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]

    #[test]
    fn a_bitmap_does_what_a_set_does(operations in vec(operation(), 1..40)) {
        let map = map();
        check(&*bitmap(&map), &map, &operations);
    }

    #[test]
    fn chunks_do_what_a_set_does(operations in vec(operation(), 1..60)) {
        let map = map();
        check(&*chunks(&map), &map, &operations);
    }

    /// Zones of one or two chunks, so that most runs cross from one into another.
    #[test]
    fn small_zones_do_what_a_set_does(operations in vec(operation(), 1..60), shift in 0_u32..2) {
        let map = map();
        let allocator: Box<dyn FrameAllocator> = Box::new(ChunkAllocator::with_zones(&map, shift).unwrap());
        prop_assert!(allocator.total() > 0);
        check(&*allocator, &map, &operations);
    }
}
