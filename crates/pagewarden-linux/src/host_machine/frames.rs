//! Which frames are free: those that are give their memory back to the host.

use std::fmt;
use std::sync::Arc;

use pagewarden::PageCount;
use pagewarden::frame::{ChunkAllocator, FrameAllocator, FrameError, FrameNumber, FrameRange};

use super::HostMachine;

/// [`ChunkAllocator`] for frames of a machine whose free ones are holes. What lies in a stock of the core's is not free yet:
/// so frames that are soon used again need no memory anew, and many are given back at once.
pub(super) struct PunchingAllocator {
    machine: Arc<HostMachine>,
    free: ChunkAllocator,
}

impl PunchingAllocator {
    pub(super) fn new(machine: &Arc<HostMachine>, free: ChunkAllocator) -> Self {
        Self { machine: Arc::clone(machine), free }
    }

    fn give_back(&self, run: FrameRange) {
        // What nobody has ever given out is none of ours.
        if self.machine.ram.has(run.first()) && run.end() <= self.machine.ram.frames() {
            self.machine.ram.give_back(run);
        }
    }
}

impl fmt::Debug for PunchingAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.free, f)
    }
}

/// Frames are given back before they are free: afterwards they may be somebody's.
impl FrameAllocator for PunchingAllocator {
    fn allocate(&self, batch: &mut [FrameNumber]) -> usize {
        self.free.allocate(batch)
    }

    fn free(&self, batch: &[FrameNumber]) -> Result<(), FrameError> {
        let mut sorted = batch.to_vec();
        sorted.sort_unstable();
        for run in sorted.chunk_by(|one, next| one.get() + 1 == next.get()) {
            if let Some(run) = FrameRange::new(run[0], PageCount::new(run.len() as u64)) {
                self.give_back(run);
            }
        }
        self.free.free(batch)
    }

    fn allocate_run(&self, frames: PageCount, align: PageCount) -> Result<FrameRange, FrameError> {
        self.free.allocate_run(frames, align)
    }

    fn free_run(&self, run: FrameRange) -> Result<(), FrameError> {
        self.give_back(run);
        self.free.free_run(run)
    }

    fn available(&self) -> u64 {
        self.free.available()
    }

    fn total(&self) -> u64 {
        self.free.total()
    }

    fn is_free(&self, frame: FrameNumber) -> bool {
        self.free.is_free(frame)
    }

    fn check_invariants(&self) {
        self.free.check_invariants();
    }
}
