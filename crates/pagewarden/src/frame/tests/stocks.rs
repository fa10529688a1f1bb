//! Magazines and the pool of zeroed frames; what happens when frames run out, and when the allocator fails.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use std::sync::Mutex;
use std::thread;

use super::{bitmap, usable};
use crate::addr::{PageCount, PhysAddr};
use crate::frame::{
    ChunkAllocator, FrameAllocator, FrameError, FrameNumber, FrameRange, FrameUse, Frames, FramesConfig, MemoryMap,
};
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::mmu::PhysMem;
use crate::sync::{AtomicU64, Ordering};

use FrameUse::{Anonymous, Table};

/// Memory of which only is known what was zeroed.
#[derive(Default)]
struct Zeroed(Mutex<Vec<FrameNumber>>);

impl PhysMem for Zeroed {
    fn load(&self, _: PhysAddr) -> u64 {
        unreachable!("frames do not read memory")
    }

    fn store(&self, _: PhysAddr, _: u64) {
        unreachable!("frames do not write memory")
    }

    fn compare_exchange(&self, _: PhysAddr, _: u64, _: u64) -> Result<(), u64> {
        unreachable!("frames do not write memory")
    }

    fn read(&self, _: PhysAddr, _: &mut [u8]) {
        unreachable!("frames do not read memory")
    }

    fn write(&self, _: PhysAddr, _: &[u8]) {
        unreachable!("frames do not write memory")
    }

    fn zero(&self, frame: FrameNumber) {
        self.0.lock().unwrap().push(frame);
    }

    fn copy(&self, _: FrameNumber, _: FrameNumber) {
        unreachable!("frames do not write memory")
    }
}

/// An allocator whose k-th call finds nothing.
#[derive(Debug)]
struct Failing(ChunkAllocator, AtomicU64);

impl Failing {
    fn fails(&self) -> bool {
        self.1.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

impl FrameAllocator for Failing {
    fn allocate(&self, batch: &mut [FrameNumber]) -> usize {
        if self.fails() { 0 } else { self.0.allocate(batch) }
    }

    fn free(&self, batch: &[FrameNumber]) -> Result<(), FrameError> {
        self.0.free(batch)
    }

    fn allocate_run(&self, frames: PageCount, align: PageCount) -> Result<FrameRange, FrameError> {
        if self.fails() { Err(FrameError::Exhausted) } else { self.0.allocate_run(frames, align) }
    }

    fn free_run(&self, run: FrameRange) -> Result<(), FrameError> {
        self.0.free_run(run)
    }

    fn available(&self) -> u64 {
        self.0.available()
    }

    fn total(&self) -> u64 {
        self.0.total()
    }

    fn is_free(&self, frame: FrameNumber) -> bool {
        self.0.is_free(frame)
    }

    fn check_invariants(&self) {
        self.0.check_invariants();
    }
}

const CONFIG: FramesConfig = FramesConfig { processors: 3, magazine_frames: 8, zeroed_frames: 4 };

fn map() -> MemoryMap {
    usable(&[(1, 65)])
}

#[test]
fn the_last_frames_are_found_in_every_stock() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let (frames, memory) = (Frames::new(&map(), CONFIG).unwrap(), Zeroed::default());
    let owner = frames.add_owner(ledger.root()).unwrap();
    // Something in every magazine and in the pool.
    for processor in 0..3 {
        let frame = frames.allocate(processor, &owner, Anonymous).unwrap();
        frames.release(processor, frame).unwrap();
    }
    assert_eq!(frames.fill_zeroed(&memory), 4);
    assert_eq!((frames.available(), frames.allocator().available()), (64, 64 - 3 * 4 - 4));
    frames.check_invariants();
    let all: Vec<_> = (0..64).map(|_| frames.allocate(1, &owner, Anonymous).unwrap()).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 64, "each once");
    assert_eq!(frames.allocate(1, &owner, Anonymous), Err(FrameError::Exhausted));
    assert_eq!(frames.allocate_zeroed(&memory, 0, &owner, Table), Err(FrameError::Exhausted));
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (0, 64));
    assert_eq!((frames.fill_zeroed(&memory), ledger.root().used(Resource::TableFrames)), (0, 0));
    for (processor, frame) in all.into_iter().enumerate() {
        frames.release(processor, frame).unwrap();
    }
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (64, 0));
    frames.check_invariants();
    frames.drain();
    assert_eq!(frames.allocator().available(), 64);
    frames.check_invariants();
}

#[test]
fn a_run_is_put_together_from_what_lies_in_stocks() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let (frames, memory) = (Frames::new(&map(), CONFIG).unwrap(), Zeroed::default());
    let owner = frames.add_owner(ledger.root()).unwrap();
    let frame = frames.allocate(0, &owner, Anonymous).unwrap();
    frames.release(0, frame).unwrap();
    frames.fill_zeroed(&memory);
    let all = frames.allocate_run(PageCount::new(64), PageCount::new(1), &owner, Anonymous);
    assert_eq!(all, Ok(super::run(1, 65)));
}

#[test]
fn a_zeroed_frame_was_zeroed_since_it_was_used_last() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let (frames, memory) = (Frames::new(&map(), CONFIG).unwrap(), Zeroed::default());
    let owner = frames.add_owner(ledger.root()).unwrap();
    frames.fill_zeroed(&memory);
    let pooled = memory.0.lock().unwrap().len();
    let taken: Vec<_> = (0..6).map(|_| frames.allocate_zeroed(&memory, 0, &owner, Anonymous).unwrap()).collect();
    let zeroed = core::mem::take(&mut *memory.0.lock().unwrap());
    assert_eq!((pooled, zeroed.len()), (4, 6), "those of the pool only once");
    assert_eq!(taken.iter().collect::<BTreeSet<_>>(), zeroed.iter().collect());
    for frame in taken {
        frames.release(0, frame).unwrap();
    }
    let again = frames.allocate_zeroed(&memory, 0, &owner, Anonymous).unwrap();
    assert_eq!(*memory.0.lock().unwrap(), [again], "it has been used in between");
    frames.check_invariants();
}

#[test]
fn without_magazines_every_frame_goes_to_the_allocator() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let config = FramesConfig { processors: 0, magazine_frames: 0, zeroed_frames: 0 };
    let frames = Frames::with_allocator(&map(), config, bitmap(&map())).unwrap();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let frame = frames.allocate(9, &owner, Anonymous).unwrap();
    assert_eq!((frames.allocator().available(), frames.fill_zeroed(&Zeroed::default())), (63, 0));
    frames.release(5, frame).unwrap();
    assert_eq!(frames.allocator().available(), 64);
    let mut alone = frames.magazine(0).unwrap();
    let held = alone.allocate(&owner, Anonymous).unwrap();
    alone.release(held).unwrap();
    drop(alone);
    assert_eq!(frames.allocator().available(), 64);
    frames.check_invariants();
}

#[test]
fn an_allocator_of_other_memory_is_refused() {
    let other = bitmap(&usable(&[(1, 64)]));
    assert_eq!(Frames::with_allocator(&map(), CONFIG, other).unwrap_err(), FrameError::InvalidRange);
}

/// Whatever call of the allocator fails, nothing is lost and the ledger agrees.
#[test]
fn every_kth_call_of_the_allocator_may_fail() {
    let mut failures = 0;
    for fail_at in 1..60 {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let allocator = Failing(ChunkAllocator::new(&map()).unwrap(), AtomicU64::new(fail_at));
        let config = FramesConfig { processors: 2, magazine_frames: 2, zeroed_frames: 2 };
        let frames = Frames::with_allocator(&map(), config, Box::new(allocator)).unwrap();
        let (owner, memory) = (frames.add_owner(ledger.root()).unwrap(), Zeroed::default());
        let mut taken = Vec::new();
        for step in 0..12 {
            taken.extend(frames.allocate(step, &owner, Anonymous).inspect_err(|_| failures += 1));
            frames.fill_zeroed(&memory);
            taken.extend(frames.allocate_zeroed(&memory, step, &owner, Anonymous));
            let run = frames.allocate_run(PageCount::new(2), PageCount::new(2), &owner, Anonymous);
            taken.extend(run.inspect_err(|_| failures += 1).into_iter().flat_map(FrameRange::iter));
            if step % 2 == 0 {
                frames.release(step, taken.swap_remove(0)).unwrap();
            }
            assert_eq!(ledger.root().used(Resource::Frames), taken.len() as u64);
            assert_eq!(frames.available(), 64 - taken.len() as u64);
            frames.check_invariants();
        }
        for frame in taken {
            frames.release(0, frame).unwrap();
        }
        assert_eq!((ledger.root().used(Resource::Frames), frames.available()), (0, 64));
    }
    // A failure is made up for from the stocks, or by asking again: none is seen.
    assert_eq!(failures, 0);
}

#[test]
fn threads_take_and_give_back_without_losing_a_frame() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = Frames::new(&usable(&[(1, 400), (512, 1024)]), CONFIG).unwrap();
    let owners = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for processor in 0..4 {
            let (frames, ledger, owners) = (&frames, &ledger, &owners);
            scope.spawn(move || {
                let owner = frames.add_owner(&ledger.root().child(Limits::UNLIMITED)).unwrap();
                let mut taken = Vec::new();
                for step in 0..3000_u32 {
                    if step % 64 < 40 {
                        let frame = frames.allocate(processor, &owner, Anonymous).unwrap();
                        assert!(owners.lock().unwrap().insert(frame), "{frame} was given out twice");
                        taken.push(frame);
                    } else if !taken.is_empty() {
                        let frame = taken.swap_remove(step as usize * 7 % taken.len());
                        assert!(owners.lock().unwrap().remove(&frame));
                        frames.release(processor + step as usize, frame).unwrap();
                    }
                    if taken.len() > 150 {
                        for frame in taken.drain(..) {
                            owners.lock().unwrap().remove(&frame);
                            frames.release(processor, frame).unwrap();
                        }
                    }
                }
                for frame in taken {
                    owners.lock().unwrap().remove(&frame);
                    frames.release(processor, frame).unwrap();
                }
            });
        }
    });
    assert_eq!((ledger.root().used(Resource::Frames), frames.available()), (0, frames.total()));
    frames.check_invariants();
}
