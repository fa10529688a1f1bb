//! Frames: pages of physical memory, who uses them and who pays.
//!
//! [`MemoryMap`] says what there is, a [`FrameAllocator`] which frames are free, and [`Frames`] adds to that what each
//! frame is used for, how many use it and who pays for it, with a stock of free frames a processor and a pool of
//! zeroed ones. Contents are not ours: only [`Frames::allocate_zeroed`] and [`Frames::fill_zeroed`] touch memory,
//! through [`PhysMem`](crate::mmu::PhysMem).
//!
//! ```text
//! Frames ── records   a word of state and a word for the user, for every frame of the map's usable memory
//!    ├───── owners    an account each, for as long as a frame is charged to it
//!    ├───── magazines a stack of free frames a processor
//!    ├───── pool      zeroed frames
//!    └───── allocator ChunkAllocator (a lock a zone), or BitmapAllocator (one lock, simple enough to check in full)
//! ```
//!
//! Invariants: a usable frame is in exactly one place: free in the allocator, in a magazine, in the pool, or allocated
//! with a state that is not 0, held by a [`HeldFrame`] or [`HeldRun`], or in a magazine that a
//! [`MagazineGuard`] has out. Frame 0, frames outside of usable memory and what [`MemoryMap::take`] has carved out
//! are in none of them. Lock order: a magazine or the pool, then a zone of the allocator, in ascending order; the table
//! of owners is locked by itself.

mod bitmap;
mod chunks;
mod error;
mod frames;
mod held;
mod magazine;
mod memory_map;
mod number;
mod owner;
mod records;
mod sections;

#[cfg(test)]
mod tests;

use core::fmt::Debug;

use crate::addr::PageCount;

pub use bitmap::BitmapAllocator;
pub use chunks::ChunkAllocator;
pub use error::FrameError;
pub use frames::{Frames, FramesConfig, Released};
pub use held::{HeldFrame, HeldRun, MagazineGuard};
pub use memory_map::{MemoryKind, MemoryMap};
pub use number::{FrameNumber, FrameRange};
pub use owner::Owner;
pub use records::FrameUse;

/// Which frames are free. Nothing else is known of them here; see [`Frames`] for the rest.
pub trait FrameAllocator: Send + Sync + Debug {
    /// Takes frames out until `batch` is full or nothing is free; how many it took: the first so many of `batch`.
    fn allocate(&self, batch: &mut [FrameNumber]) -> usize;

    /// Gives frames back. A wrong one is left out and the others are freed.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] or [`FrameError::NotAllocated`], for the first wrong one.
    fn free(&self, batch: &[FrameNumber]) -> Result<(), FrameError>;

    /// Takes a run of `frames` frames whose first number is a multiple of `align`. Whether a run that exists is found
    /// for every `align` above 1 is the implementation's to say.
    ///
    /// # Errors
    /// [`FrameError::InvalidRange`] for no frames, or an `align` that is not a power of two;
    /// [`FrameError::Exhausted`] if there is no such run.
    fn allocate_run(&self, frames: PageCount, align: PageCount) -> Result<FrameRange, FrameError>;

    /// Gives a run back, all of it or nothing; it need not have been taken as one.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] or [`FrameError::NotAllocated`] if one of its frames is not to be freed.
    fn free_run(&self, run: FrameRange) -> Result<(), FrameError>;

    /// How many frames are free.
    fn available(&self) -> u64;

    /// How many frames there are, free or not.
    fn total(&self) -> u64;

    /// Whether `frame` is free here.
    fn is_free(&self, frame: FrameNumber) -> bool;

    /// Recomputes what is derived and compares.
    ///
    /// # Panics
    /// If anything differs.
    fn check_invariants(&self);
}

/// `frames` and `align` as numbers, if a run can be asked for like this.
fn run_request(frames: PageCount, align: PageCount) -> Result<(usize, usize), FrameError> {
    if frames == PageCount::ZERO || !align.get().is_power_of_two() {
        return Err(FrameError::InvalidRange);
    }
    if frames.get().max(align.get()) >= FrameNumber::END {
        return Err(FrameError::Exhausted);
    }
    let as_usize = |count: PageCount| usize::try_from(count.get()).map_err(|_| FrameError::Exhausted);
    Ok((as_usize(frames)?, as_usize(align)?))
}
