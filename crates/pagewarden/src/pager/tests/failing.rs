//! An allocator that fails on command.

use crate::addr::PageCount;
use crate::frame::{BitmapAllocator, FrameAllocator, FrameError, FrameNumber, FrameRange};
use crate::machine::FailPoint;

/// Asks before each allocation whether it fails.
#[derive(Debug)]
pub(super) struct FailingAllocator {
    pub(super) inner: BitmapAllocator,
    pub(super) taken: FailPoint,
}

impl FrameAllocator for FailingAllocator {
    fn allocate(&self, batch: &mut [FrameNumber]) -> usize {
        if self.taken.pass().is_err() { 0 } else { self.inner.allocate(batch) }
    }

    fn free(&self, batch: &[FrameNumber]) -> Result<(), FrameError> {
        self.inner.free(batch)
    }

    fn allocate_run(&self, frames: PageCount, align: PageCount) -> Result<FrameRange, FrameError> {
        self.taken.pass().map_err(|_| FrameError::Exhausted)?;
        self.inner.allocate_run(frames, align)
    }

    fn free_run(&self, run: FrameRange) -> Result<(), FrameError> {
        self.inner.free_run(run)
    }

    fn available(&self) -> u64 {
        self.inner.available()
    }

    fn total(&self) -> u64 {
        self.inner.total()
    }

    fn is_free(&self, frame: FrameNumber) -> bool {
        self.inner.is_free(frame)
    }

    fn check_invariants(&self) {
        self.inner.check_invariants();
    }
}
