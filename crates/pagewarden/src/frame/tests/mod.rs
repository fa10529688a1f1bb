//! What the tests of frames share: short ways to write maps and runs, and the naive allocator that the others are
//! compared with.

mod exhaustive;
mod held;
mod maps;
mod ownership;
mod random;
mod stocks;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::chunks::ChunkAllocator;
use super::{BitmapAllocator, FrameAllocator, FrameError, FrameNumber, FrameRange, MemoryKind, MemoryMap};
use crate::addr::PageCount;

pub(super) fn frame(number: u64) -> FrameNumber {
    FrameNumber::new(number).unwrap()
}

pub(super) fn run(first: u64, end: u64) -> FrameRange {
    FrameRange::new(frame(first), PageCount::new(end - first)).unwrap()
}

/// A map with these ranges of usable memory.
pub(super) fn usable(ranges: &[(u64, u64)]) -> MemoryMap {
    let mut map = MemoryMap::new();
    for (first, end) in ranges {
        map.add(run(*first, *end), MemoryKind::Usable).unwrap();
    }
    map
}

pub(super) type Make = fn(&MemoryMap) -> Box<dyn FrameAllocator>;

pub(super) fn bitmap(map: &MemoryMap) -> Box<dyn FrameAllocator> {
    Box::new(BitmapAllocator::new(map).unwrap())
}

pub(super) fn chunks(map: &MemoryMap) -> Box<dyn FrameAllocator> {
    Box::new(ChunkAllocator::new(map).unwrap())
}

/// A set of free frames.
#[derive(Clone, Debug)]
pub(super) struct Naive {
    usable: BTreeSet<u64>,
    pub(super) free: BTreeSet<u64>,
}

impl Naive {
    pub(super) fn new(map: &MemoryMap) -> Self {
        let usable: BTreeSet<u64> = map.usable().flat_map(|range| range.iter().map(FrameNumber::get)).collect();
        assert!(!usable.contains(&0));
        Self { free: usable.clone(), usable }
    }

    /// `allocator` takes a batch out, and it is one that it may give.
    pub(super) fn allocate(&mut self, allocator: &dyn FrameAllocator, most: usize) -> Vec<FrameNumber> {
        let mut batch = alloc::vec![frame(0); most];
        let taken = allocator.allocate(&mut batch);
        assert_eq!(taken, most.min(self.free.len()), "as many as there are");
        batch.truncate(taken);
        for frame in &batch {
            assert!(self.free.remove(&frame.get()), "{frame} was not free");
        }
        batch
    }

    fn may_free(&self, number: u64) -> Result<(), FrameError> {
        match number {
            foreign if !self.usable.contains(&foreign) => Err(FrameError::NotOurs),
            free if self.free.contains(&free) => Err(FrameError::NotAllocated),
            _ => Ok(()),
        }
    }

    pub(super) fn free(&mut self, allocator: &dyn FrameAllocator, batch: &[FrameNumber]) {
        let mut expected = Ok(());
        for frame in batch {
            expected = expected.and(self.may_free(frame.get()));
            if self.usable.contains(&frame.get()) {
                self.free.insert(frame.get());
            }
        }
        assert_eq!(allocator.free(batch), expected, "freeing {batch:?}");
    }

    pub(super) fn free_run(&mut self, allocator: &dyn FrameAllocator, run: FrameRange) {
        let frames = || run.iter().map(FrameNumber::get);
        let outcome = allocator.free_run(run);
        if frames().all(|number| self.may_free(number).is_ok()) {
            assert_eq!(outcome, Ok(()), "freeing {run:?}");
            self.free.extend(frames());
        } else {
            assert!(outcome.is_err(), "freeing {run:?}");
        }
    }

    /// Whether there is a run like this.
    fn has_run(&self, frames: u64, align: u64) -> bool {
        let mut length = 0;
        let mut last = None;
        self.free.iter().any(|&number| {
            length = if last == number.checked_sub(1) { length + 1 } else { 1 };
            last = Some(number);
            length >= frames && (number + 1 - frames).is_multiple_of(align)
        })
    }

    /// `allocator` takes a run, and it is one that it may give; it finds one if it has to.
    pub(super) fn allocate_run(
        &mut self,
        allocator: &dyn FrameAllocator,
        frames: u64,
        align: u64,
    ) -> Option<FrameRange> {
        let outcome = allocator.allocate_run(PageCount::new(frames), PageCount::new(align));
        let Ok(run) = outcome else {
            assert_eq!(outcome, Err(FrameError::Exhausted));
            let is_exact =
                align == 1 || (frames == align && align <= 512) || (align == 512 && frames.is_multiple_of(512));
            let must = if is_exact { self.has_run(frames, align) } else { self.has_run(frames + align - 1, 1) };
            assert!(!must, "a run of {frames} at a multiple of {align} was not found");
            return None;
        };
        assert_eq!((run.frames().get(), run.first().get() % align), (frames, 0));
        for frame in run.iter() {
            assert!(self.free.remove(&frame.get()), "{frame} of {run:?} was not free");
        }
        Some(run)
    }

    pub(super) fn check(&self, allocator: &dyn FrameAllocator) {
        allocator.check_invariants();
        self.check_frames(allocator);
    }

    pub(super) fn check_count(&self, allocator: &dyn FrameAllocator) {
        assert_eq!((allocator.available(), allocator.total()), (self.free.len() as u64, self.usable.len() as u64));
    }

    /// The same without what the allocator says of itself.
    pub(super) fn check_frames(&self, allocator: &dyn FrameAllocator) {
        self.check_count(allocator);
        for number in &self.usable {
            assert_eq!(allocator.is_free(frame(*number)), self.free.contains(number), "frame {number:#x}");
        }
    }
}
