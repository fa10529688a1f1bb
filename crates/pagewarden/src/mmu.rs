//! The lower seam: physical memory, and the unit that translates addresses.
//!
//! Whoever owns memory of its own (a kernel, a test machine, an arena whose RAM is a memfd) implements both; everything
//! above is the same code. Both are safe traits: an address that is not there is the platform's to refuse, by a panic,
//! since the core never makes one up. See docs/soundness.md for what a platform's unsafe code relies on the core for.

use crate::addr::{PageRange, PhysAddr};
use crate::frame::FrameNumber;

/// Physical memory, reached by address and never by reference: somebody else may be writing to it.
pub trait PhysMem: Send + Sync {
    /// The word at `address`, which is a multiple of 8; whole, and with everything before its store (acquire).
    fn load(&self, address: PhysAddr) -> u64;

    /// The eight words from `address` on, a multiple of 64: each of them as [`load`](Self::load) gives it.
    #[inline]
    fn load_line(&self, address: PhysAddr) -> [u64; 8] {
        let frame = FrameNumber::containing(address);
        core::array::from_fn(|word| self.load(frame.at(address.as_u64() + (word as u64) * 8)))
    }

    /// Stores the word at `address`, whole, after everything before (release).
    fn store(&self, address: PhysAddr, word: u64);

    /// Replaces the word at `address` by `new` if it is `current`, in one step. What is there, if it is not.
    ///
    /// # Errors
    /// The word that is there instead.
    fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64>;

    /// Copies bytes out of memory. They lie inside one frame.
    fn read(&self, from: PhysAddr, to: &mut [u8]);

    /// Copies bytes into memory. They lie inside one frame.
    fn write(&self, to: PhysAddr, from: &[u8]);

    /// Makes every byte of the frame 0.
    fn zero(&self, frame: FrameNumber);

    /// Copies a whole frame.
    fn copy(&self, from: FrameNumber, to: FrameNumber);
}

/// The unit that translates virtual addresses by page tables, and remembers translations until it is told to forget.
pub trait Mmu: Send + Sync {
    /// Makes every processor forget what it knows of `range` in the space whose root table is `root`: translations,
    /// global ones too, and the tables above them. Returns when none of them knows it any more.
    ///
    /// A range in the upper half is forgotten in all spaces, whatever their roots: they may have these tables in common
    /// ([`KernelSpace`](crate::pager::KernelSpace)), and `root` is that of the space whose tables they are.
    fn flush(&self, root: FrameNumber, range: PageRange);

    /// The same for the whole lower half of the space.
    fn flush_all(&self, root: FrameNumber);

    /// Which processor this is, from 0 on; a hint for whose stock of frames to take from.
    fn processor(&self) -> usize {
        0
    }
}
