//! Why an access to foreign memory, a window or a reservation failed.

use core::fmt;

use crate::error::Errno;
use crate::frame::FrameNumber;
use crate::phys::PhysRange;

/// Why a request was refused. Nothing has changed then, but for a copy that stopped in the middle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PhysError {
    /// An argument makes no sense: no bytes, no pages, an offset beyond the first page, somebody else's reservation.
    Invalid,
    /// A word that is to be exchanged is not aligned.
    Unaligned,
    /// The access leaves what the pointer or the mapping is for.
    OutOfBounds,
    /// Address plus length is past the end of physical memory.
    Overflow,
    /// One request names this page twice.
    DuplicatePage(FrameNumber),
    /// There is a mapping already where there should be none.
    AlreadyMapped,
    /// Somebody has reserved this range, or protected it.
    Reserved(PhysRange),
    /// Somebody had reserved this range until the time was over.
    TimedOut(PhysRange),
    /// The page is our own allocator's, or no memory of the other world.
    Owned(FrameNumber),
    /// No run of addresses is left for a window.
    WindowSpaceExhausted,
    /// There is no frame, or no budget, for a page table.
    OutOfTableFrames,
    /// There is no memory for what the manager has to remember.
    OutOfMemory,
    /// Memory was gone in the middle of an access.
    CopyFault(CopyFault),
    /// A store through a window that is for loads.
    ReadOnly,
    /// The platform cannot do that.
    Unsupported,
    /// The platform failed.
    Platform(Errno),
}

/// An access that ended in a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyFault {
    /// So many bytes were copied before it.
    pub copied: usize,
}

impl PhysError {
    /// The number for callers who speak Linux (errno(3)).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Invalid | Self::Unaligned | Self::DuplicatePage(_) => Errno::Inval,
            Self::OutOfBounds | Self::CopyFault(_) => Errno::Fault,
            Self::Overflow => Errno::Overflow,
            Self::AlreadyMapped => Errno::Exist,
            Self::Reserved(_) => Errno::Busy,
            Self::TimedOut(_) => Errno::TimedOut,
            Self::Owned(_) => Errno::Perm,
            Self::WindowSpaceExhausted | Self::OutOfTableFrames | Self::OutOfMemory => Errno::NoMem,
            Self::ReadOnly => Errno::Acces,
            Self::Unsupported => Errno::OpNotSupp,
            Self::Platform(errno) => errno,
        }
    }
}

impl From<PhysError> for Errno {
    fn from(error: PhysError) -> Self {
        error.errno()
    }
}

impl From<CopyFault> for PhysError {
    fn from(fault: CopyFault) -> Self {
        Self::CopyFault(fault)
    }
}

impl fmt::Display for PhysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("the request makes no sense"),
            Self::Unaligned => f.write_str("the word is not aligned"),
            Self::OutOfBounds => f.write_str("the access is out of bounds"),
            Self::Overflow => f.write_str("address and length are past the end of physical memory"),
            Self::DuplicatePage(frame) => write!(f, "{frame} is named twice"),
            Self::AlreadyMapped => f.write_str("there is a mapping already"),
            Self::Reserved(range) => write!(f, "{range} is reserved"),
            Self::TimedOut(range) => write!(f, "{range} was reserved for too long"),
            Self::Owned(frame) => write!(f, "{frame} is not the other world's"),
            Self::WindowSpaceExhausted => f.write_str("no addresses are left for a window"),
            Self::OutOfTableFrames => f.write_str("no frame is left for a page table"),
            Self::OutOfMemory => f.write_str("no memory is left to remember a mapping"),
            Self::CopyFault(fault) => fmt::Display::fmt(fault, f),
            Self::ReadOnly => f.write_str("the window is for loads alone"),
            Self::Unsupported => f.write_str("the platform cannot do that"),
            Self::Platform(errno) => write!(f, "the platform failed: {errno}"),
        }
    }
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory was gone after {} bytes", self.copied)
    }
}

impl core::error::Error for PhysError {}
impl core::error::Error for CopyFault {}
