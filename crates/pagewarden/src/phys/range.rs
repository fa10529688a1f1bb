//! Ranges of bytes of physical memory.

use core::fmt;

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::frame::{FrameNumber, FrameRange};
use crate::phys::PhysError;

/// Physical addresses are below this.
const END: u64 = 1 << PhysAddr::BITS;

/// A half-open range of bytes of physical memory with at least one in it; to the byte, so that two that lie in one page
/// need not meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysRange {
    start: u64,
    /// `start < end <= END`.
    end: u64,
}

impl PhysRange {
    /// `bytes` bytes from `start` on.
    ///
    /// # Errors
    /// [`PhysError::Invalid`] if there are none, [`PhysError::Overflow`] if not all of them can exist.
    pub const fn new(start: PhysAddr, bytes: u64) -> Result<Self, PhysError> {
        if bytes == 0 {
            return Err(PhysError::Invalid);
        }
        match start.as_u64().checked_add(bytes) {
            Some(end) if end <= END => Ok(Self { start: start.as_u64(), end }),
            _ => Err(PhysError::Overflow),
        }
    }

    /// The bytes from `start` up to `end`, which are known to make a range.
    #[inline]
    pub(super) const fn known(start: u64, end: u64) -> Self {
        debug_assert!(start < end && end <= END);
        Self { start, end }
    }

    /// The bytes of a frame.
    pub const fn of_frame(frame: FrameNumber) -> Self {
        let start = frame.get() * PAGE_SIZE;
        Self { start, end: start + PAGE_SIZE }
    }

    /// The bytes of a run of frames.
    pub const fn of_frames(frames: FrameRange) -> Self {
        Self { start: frames.first().get() * PAGE_SIZE, end: frames.end() * PAGE_SIZE }
    }

    /// The first byte, as a number.
    #[inline]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The number of the byte after the last: an address, but for the range that ends where physical memory does.
    #[inline]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes there are: at least one.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether the two share a byte.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phys {:#x}..{:#x}", self.start, self.end)
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}
