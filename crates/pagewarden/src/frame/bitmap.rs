//! The simple allocator: a bit a frame, one lock, every search from the start.
//!
//! It is what the other is compared with, and small enough to be checked in full: see its tests. Every operation but
//! freeing is linear in the number of frames; a run that exists is always found, for every alignment.

use alloc::vec::Vec;
use core::fmt;

use super::sections::Sections;
use super::{FrameAllocator, FrameError, FrameNumber, FrameRange, MemoryMap, run_request};
use crate::addr::PageCount;
use crate::sync::Mutex;

/// The simple allocator of frames: a bitmap.
pub struct BitmapAllocator {
    sections: Sections,
    bits: Mutex<Bits>,
}

struct Bits {
    /// By index: whether the frame is free.
    free: Vec<bool>,
    /// By index: whether the frame can be given out at all.
    usable: Vec<bool>,
    available: u64,
}

impl BitmapAllocator {
    /// An allocator of the usable memory of `map`.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for the bitmap.
    pub fn new(map: &MemoryMap) -> Result<Self, FrameError> {
        let sections = Sections::new(map)?;
        let mut usable = Vec::new();
        usable.try_reserve_exact(sections.frames()).map_err(|_| FrameError::Exhausted)?;
        usable.resize(sections.frames(), false);
        for range in map.usable() {
            let first = sections.range(range).ok_or(FrameError::NotOurs)?;
            usable[first..][..range.iter().len()].fill(true);
        }
        let mut free = Vec::new();
        free.try_reserve_exact(usable.len()).map_err(|_| FrameError::Exhausted)?;
        free.extend_from_slice(&usable);
        let available = sections.usable();
        Ok(Self { sections, bits: Mutex::new(Bits { free, usable, available }) })
    }
}

impl Bits {
    /// The index of a frame that may be freed.
    fn allocated(&self, index: Option<usize>) -> Result<usize, FrameError> {
        let index = index.filter(|&index| self.usable[index]).ok_or(FrameError::NotOurs)?;
        if self.free[index] { Err(FrameError::NotAllocated) } else { Ok(index) }
    }
}

impl FrameAllocator for BitmapAllocator {
    fn allocate(&self, batch: &mut [FrameNumber]) -> usize {
        let mut bits = self.bits.lock();
        let Bits { free, available, .. } = &mut *bits;
        let frames = free.iter_mut().enumerate().filter(|(_, free)| **free);
        let mut taken = 0;
        for (slot, (index, free)) in batch.iter_mut().zip(frames) {
            let Some(frame) = self.sections.frame(index) else { continue };
            (*slot, *free) = (frame, false);
            taken += 1;
        }
        *available -= taken as u64;
        taken
    }

    fn free(&self, batch: &[FrameNumber]) -> Result<(), FrameError> {
        let mut bits = self.bits.lock();
        let mut outcome = Ok(());
        for &frame in batch {
            match bits.allocated(self.sections.index(frame)) {
                Ok(index) => {
                    bits.free[index] = true;
                    bits.available += 1;
                }
                Err(wrong) => outcome = outcome.and(Err(wrong)),
            }
        }
        outcome
    }

    fn allocate_run(&self, frames: PageCount, align: PageCount) -> Result<FrameRange, FrameError> {
        let (count, align) = run_request(frames, align)?;
        let mut bits = self.bits.lock();
        let mut run = 0;
        for index in 0..bits.free.len() {
            run = if bits.free[index] { run + 1 } else { 0 };
            // Of a run that goes on, the last `count` frames are looked at in each step.
            let Some(first) = (index + 1).checked_sub(count).filter(|_| run >= count) else { continue };
            match self.sections.run(first, count) {
                Some(range) if range.first().get().is_multiple_of(align as u64) => {
                    bits.free[first..=index].fill(false);
                    bits.available -= count as u64;
                    return Ok(range);
                }
                _ => {}
            }
        }
        Err(FrameError::Exhausted)
    }

    fn free_run(&self, run: FrameRange) -> Result<(), FrameError> {
        let mut bits = self.bits.lock();
        let first = self.sections.range(run).ok_or(FrameError::NotOurs)?;
        let all = first..first + run.iter().len();
        for index in all.clone() {
            bits.allocated(Some(index))?;
        }
        bits.free[all].fill(true);
        bits.available += run.frames().get();
        Ok(())
    }

    fn available(&self) -> u64 {
        self.bits.lock().available
    }

    fn total(&self) -> u64 {
        self.sections.usable()
    }

    fn is_free(&self, frame: FrameNumber) -> bool {
        let bits = self.bits.lock();
        self.sections.index(frame).is_some_and(|index| bits.free[index])
    }

    fn check_invariants(&self) {
        let bits = self.bits.lock();
        let free = bits.free.iter().filter(|free| **free).count();
        assert_eq!(free as u64, bits.available, "the count of free frames");
        let all = bits.free.iter().zip(&bits.usable);
        assert!(all.clone().all(|(free, usable)| *usable || !free), "only usable frames are free");
        assert_eq!(all.filter(|(_, usable)| **usable).count() as u64, self.total(), "usable frames");
        let frames = (0..bits.usable.len()).filter(|&index| bits.usable[index]);
        assert!(frames.clone().all(|index| self.sections.frame(index).is_some_and(|frame| frame.get() != 0)));
    }
}

impl fmt::Debug for BitmapAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bitmap: {} of {} frames free", self.available(), self.total())
    }
}
