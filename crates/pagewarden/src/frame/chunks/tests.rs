//! The parts of the production allocator against plain sets; that whole chunks stay whole; two zones at once.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::collection::{btree_set, vec};
use proptest::prelude::{any, prop_oneof};
use proptest::strategy::Strategy;
use proptest::{prop_assert_eq, proptest};

use super::field::Field;
use super::runs::Run;
use super::summary::Summary;
use super::{CHUNK, ChunkAllocator, FrameAllocator};
use crate::addr::PageCount;
use crate::frame::tests::{frame, run, usable};
use crate::frame::{FrameError, FrameNumber};

fn field(ranges: &[(usize, usize)]) -> (Field, BTreeSet<usize>) {
    let (mut field, mut set) = (Field::default(), BTreeSet::new());
    for &(first, length) in ranges {
        let end = (first + length).min(CHUNK);
        field.insert_range(first, end);
        set.extend(first..end);
    }
    (field, set)
}

/// The first bit of the lowest run of `length` at a multiple of `align`, found by looking at each.
fn lowest(set: &BTreeSet<usize>, length: usize, align: usize) -> Option<usize> {
    (0..=CHUNK - length).step_by(align).find(|first| (*first..first + length).all(|bit| set.contains(&bit)))
}

fn ranges() -> impl Strategy<Value = Vec<(usize, usize)>> {
    vec((0..CHUNK, prop_oneof![1_usize..9, 50_usize..300, 500_usize..513]), 0..12)
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn a_field_is_a_set_of_bits(ranges in ranges(), removed in (0..CHUNK, 1_usize..200), most in 0_usize..600) {
        let (mut field, mut set) = field(&ranges);
        let (first, end) = (removed.0, (removed.0 + removed.1).min(CHUNK));
        prop_assert_eq!(field.has_any(first, end), (first..end).any(|bit| set.contains(&bit)));
        prop_assert_eq!(field.has_all(first, end), (first..end).all(|bit| set.contains(&bit)));
        field.remove_range(first, end);
        set.retain(|bit| !(first..end).contains(bit));
        prop_assert_eq!(field.count(), set.len());
        let mut taken = Vec::new();
        field.split_lowest(most).drain(|bit| taken.push(bit));
        let expected: Vec<usize> = set.iter().copied().take(most).collect();
        prop_assert_eq!(taken, expected);
        prop_assert_eq!((0..CHUNK).filter(|&bit| field.contains(bit)).count(), set.len().saturating_sub(most));
    }

    #[test]
    fn the_summary_of_a_field_is_what_a_look_at_each_bit_says(ranges in ranges(), length in 1_usize..513) {
        let (field, set) = field(&ranges);
        prop_assert_eq!(field.find_run(length), lowest(&set, length, 1));
        for order in 0..10 {
            prop_assert_eq!(field.find_block(order), lowest(&set, 1 << order, 1 << order));
        }
        let longest = (1..=CHUNK).take_while(|length| lowest(&set, *length, 1).is_some()).count();
        let start = (0..CHUNK).take_while(|bit| set.contains(bit)).count();
        let end = (0..CHUNK).rev().take_while(|bit| set.contains(bit)).count();
        let orders = (0..10).take_while(|order| lowest(&set, 1 << order, 1 << order).is_some()).count();
        let [start, most, end, orders] = [start, longest, end, orders].map(|count| u32::try_from(count).unwrap());
        prop_assert_eq!(field.summarise(), Run { start, most, end, orders });
    }

    #[test]
    fn a_summary_is_a_set_of_numbers(
        numbers in btree_set(0_usize..5000, 0..40),
        changes in vec((any::<bool>(), 0_usize..5000), 0..60),
    ) {
        let (mut summary, mut set) = (Summary::new(5000).unwrap(), numbers);
        set.iter().for_each(|number| summary.insert(*number));
        for (is_there, number) in changes {
            let near = set.first().copied().filter(|_| number % 2 == 0).unwrap_or(number);
            if is_there {
                summary.insert(near);
                set.insert(near);
            } else {
                summary.remove(near);
                set.remove(&near);
            }
            prop_assert_eq!((summary.first(), summary.is_empty()), (set.first().copied(), set.is_empty()));
            prop_assert_eq!(summary.contains(near), set.contains(&near));
        }
    }
}

fn take(allocator: &ChunkAllocator, frames: usize) -> Vec<FrameNumber> {
    let mut batch = alloc::vec![frame(0); frames];
    assert_eq!(allocator.allocate(&mut batch), frames);
    batch
}

fn whole_chunk(allocator: &ChunkAllocator) -> Result<crate::frame::FrameRange, FrameError> {
    allocator.allocate_run(PageCount::new(512), PageCount::new(512))
}

#[test]
fn single_frames_leave_whole_chunks_whole() {
    for shift in [0, 1, 9] {
        let map = usable(&[(512, 512 * 9)]);
        let allocator = ChunkAllocator::with_zones(&map, shift).unwrap();
        // 80 frames in use in four chunks, as many in each.
        let mut held = take(&allocator, 4 * 512);
        held.sort_unstable();
        let (kept, freed): (Vec<_>, Vec<_>) = held.into_iter().partition(|frame| frame.get() % 512 < 20);
        allocator.free(&freed).unwrap();
        let more: Vec<_> = (0..4 * 492).flat_map(|_| take(&allocator, 1)).collect();
        let whole: Vec<_> = (0..4).map(|_| whole_chunk(&allocator).unwrap()).collect();
        assert_eq!((whole_chunk(&allocator), allocator.available()), (Err(FrameError::Exhausted), 0));
        assert_eq!(kept.len(), 80);
        allocator.check_invariants();
        for chunk in whole {
            allocator.free_run(chunk).unwrap();
        }
        allocator.free(&more).unwrap();
        allocator.free(&kept).unwrap();
        allocator.check_invariants();
        assert_eq!((0..8).filter(|_| whole_chunk(&allocator).is_ok()).count(), 8);
    }
}

/// A batch takes what chunks in use have left in another zone before it breaks a whole one here.
#[test]
fn whole_chunks_stay_whole_while_another_zone_has_parts() {
    let allocator = ChunkAllocator::with_zones(&usable(&[(512, 512 * 5)]), 1).unwrap();
    // Zones of two chunks; of the first of each, 10 frames are free, and all of the second.
    assert_eq!(take(&allocator, 4 * 512).len(), 4 * 512);
    for first in [512, 1536] {
        allocator.free_run(run(first, first + 10)).unwrap();
        allocator.free_run(run(first + 512, first + 1024)).unwrap();
    }
    let mut batch = [frame(0); 20];
    assert_eq!(allocator.allocate(&mut batch), 20);
    assert_eq!((0..3).filter(|_| whole_chunk(&allocator).is_ok()).count(), 2);
}

#[test]
fn a_run_may_go_on_through_many_zones() {
    let map = usable(&[(512, 512 * 9)]);
    let allocator = ChunkAllocator::with_zones(&map, 0).unwrap();
    allocator.allocate_run(PageCount::new(100), PageCount::new(1)).unwrap();
    let long = allocator.allocate_run(PageCount::new(512 * 7 + 30), PageCount::new(1)).unwrap();
    assert_eq!(long, run(612, 612 + 512 * 7 + 30));
    allocator.check_invariants();
    assert_eq!(allocator.free_run(run(611, 5000)), Err(FrameError::NotOurs));
    assert_eq!(allocator.free_run(run(620, 512 * 9)), Err(FrameError::NotAllocated));
    allocator.check_invariants();
    allocator.free_run(long).unwrap();
    allocator.free_run(run(512, 612)).unwrap();
    assert_eq!(allocator.allocate_run(PageCount::new(512 * 8), PageCount::new(512)), Ok(run(512, 512 * 9)));
}

#[test]
fn a_chunk_with_a_hole_is_never_whole() {
    let allocator = ChunkAllocator::new(&usable(&[(513, 1024), (1024, 1030), (1031, 2048)])).unwrap();
    assert_eq!(whole_chunk(&allocator), Ok(run(1536, 2048)));
    assert_eq!(whole_chunk(&allocator), Err(FrameError::Exhausted));
    assert_eq!(allocator.free_run(run(512, 1024)), Err(FrameError::NotOurs));
    assert_eq!(allocator.free_run(run(1024, 1536)), Err(FrameError::NotOurs));
    assert_eq!(allocator.free_run(run(1536, 2048)), Ok(()));
    assert_eq!(allocator.free_run(run(1536, 2048)), Err(FrameError::NotAllocated));
    allocator.check_invariants();
}

/// A batch that is out of order, of several zones and sections, with frames among it that are free already, freed twice,
/// or not usable.
#[test]
fn of_a_batch_what_may_be_freed_is_freed() {
    let map = usable(&[(16, 1300), (2048, 3072), (3073, 4600)]);
    let total = map.usable().map(|range| range.frames().get()).sum();
    for shift in [0, 1, 9] {
        let allocator = ChunkAllocator::with_zones(&map, shift).unwrap();
        let mut held = take(&allocator, usize::try_from(total).unwrap());
        held.sort_unstable();
        let (kept, freed): (Vec<_>, Vec<_>) = held.iter().partition(|frame| frame.get() % 7 == 0);
        let mut batch: Vec<_> = (0..freed.len()).map(|at| freed[at * 1009 % freed.len()]).collect();
        let wrong = [2, 1301, 1800, 3072, 4600, 9999].map(frame);
        for (at, wrong) in wrong.iter().enumerate() {
            batch.insert((at + 1) * 400, *wrong);
        }
        batch.extend_from_within(1000..1040);
        assert_eq!(allocator.free(&batch), Err(FrameError::NotOurs));
        assert_eq!(allocator.available(), freed.len() as u64);
        assert!(freed.iter().all(|frame| allocator.is_free(*frame)));
        assert!(!kept.iter().chain(&wrong).any(|frame| allocator.is_free(*frame)));
        allocator.check_invariants();
        // After the chunks have been summarised.
        assert!(allocator.allocate_run(PageCount::new(7), PageCount::new(1)).is_err());
        let mut again = kept.clone();
        again.insert(3, freed[0]);
        assert_eq!(allocator.free(&again), Err(FrameError::NotAllocated));
        assert_eq!(allocator.available(), total);
        allocator.check_invariants();
        assert_eq!(whole_chunk(&allocator).map(|run| run.first()), Ok(frame(512)));
    }
}
