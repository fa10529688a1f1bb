//! What can be wrong with a request for frames.

use core::fmt;

use crate::error::Errno;
use crate::ledger::OverLimit;

/// Why a request for frames failed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame is free, or no such run of frames.
    Exhausted,
    /// The owner's account may not hold more.
    OverLimit(OverLimit),
    /// The frame is not one that can be given out.
    NotOurs,
    /// The frame is free, or somebody has it alone: there is no reference to it by number (any more).
    NotAllocated,
    /// The frame has as many references as can be counted, or more owners were added than can be told apart.
    TooManyReferences,
    /// No frames were asked for, an alignment is not a power of two, or a memory map has more ranges than it can hold.
    InvalidRange,
}

impl FrameError {
    /// The error number for it.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Exhausted | Self::OverLimit(_) => Errno::NoMem,
            Self::NotOurs | Self::NotAllocated | Self::InvalidRange => Errno::Inval,
            Self::TooManyReferences => Errno::Busy,
        }
    }
}

impl From<OverLimit> for FrameError {
    fn from(limit: OverLimit) -> Self {
        Self::OverLimit(limit)
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted => f.write_str("no free frames"),
            Self::OverLimit(limit) => fmt::Display::fmt(limit, f),
            Self::NotOurs => f.write_str("not a frame of usable memory"),
            Self::NotAllocated => f.write_str("the frame is free"),
            Self::TooManyReferences => f.write_str("too many references"),
            Self::InvalidRange => f.write_str("not a range of frames"),
        }
    }
}

impl core::error::Error for FrameError {}
