//! What processes do, and what they are told.

use alloc::vec::Vec;

use super::Access;
use crate::cap::{CapError, Rights, TransferMode};
use crate::error::Errno;
use crate::ledger::Resource;
use crate::manager::{Refusal, Signal};
use crate::object::Placement;
use crate::pager::Fault;
use crate::prot::Prot;

/// A run of pages, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Run {
    pub(crate) const fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }

    /// After the last page.
    pub(crate) const fn end(self) -> u64 {
        self.first + self.count
    }

    pub(crate) fn pages(self) -> impl Iterator<Item = u64> {
        self.first..self.end()
    }
}

/// What a caller says is a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// The one that was given out to a process as its number `number`; it may be stale by now, or another process's.
    Given { process: usize, number: usize },
    /// Any word.
    Word(u64),
}

/// A number that no handle has.
pub(crate) const STALE: usize = usize::MAX;

/// Where something new goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Where {
    Anywhere,
    At(u64),
}

/// What becomes of what is there when something is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    /// It goes.
    Replaced,
    /// It stays, and the call fails.
    Kept,
}

/// Whether pages may go elsewhere to have room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MayMove {
    Yes,
    No,
}

/// What a process does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Call {
    Allocate {
        frames: Name,
        pages: u64,
        placement: Placement,
    },
    AllocateResizable {
        frames: Name,
        pages: u64,
        capacity: u64,
    },
    Info {
        memory: Name,
    },
    Map {
        memory: Name,
        part: Run,
        prot: Prot,
        place: Where,
    },
    UnmapBorrowed {
        memory: Name,
        range: Run,
    },
    ProtectBorrowed {
        memory: Name,
        range: Run,
        prot: Prot,
    },
    Slice {
        memory: Name,
        part: Run,
        rights: Rights,
    },
    Snapshot {
        memory: Name,
        part: Run,
    },
    Resize {
        memory: Name,
        pages: u64,
    },
    Read {
        memory: Name,
        part: Run,
    },
    Write {
        memory: Name,
        part: Run,
        byte: u8,
    },
    Duplicate {
        handle: Name,
        rights: Rights,
    },
    Release {
        handle: Name,
    },
    Send {
        handle: Name,
        mode: TransferMode,
        rights: Rights,
        to: usize,
    },
    Reserve {
        space: Name,
        pages: u64,
        place: Where,
    },
    Commit {
        space: Name,
        range: Run,
        prot: Prot,
    },
    Decommit {
        space: Name,
        range: Run,
    },
    Protect {
        space: Name,
        range: Run,
        prot: Prot,
    },
    UnmapReserved {
        space: Name,
        range: Run,
    },
    Mmap {
        range: Run,
        prot: Prot,
        over: Over,
    },
    Munmap {
        range: Run,
    },
    Mprotect {
        range: Run,
        prot: Prot,
    },
    /// mremap(2) to another size.
    Resized {
        range: Run,
        pages: u64,
        may_move: MayMove,
    },
    /// mremap(2) with `MREMAP_FIXED`.
    Moved {
        range: Run,
        to: u64,
    },
    /// madvise(2) with `MADV_DONTNEED`.
    Discard {
        range: Run,
    },
    Touch {
        page: u64,
        access: Access,
    },
    Fork,
    /// Its handles go.
    Exit,
    /// All of it goes.
    End,
    /// Nobody's call: a limit is set.
    Limit {
        account: usize,
        resource: Resource,
        most: u64,
    },
}

impl Call {
    /// The handle that it names.
    pub(crate) const fn name_mut(&mut self) -> Option<&mut Name> {
        match self {
            Self::Allocate { frames: name, .. }
            | Self::AllocateResizable { frames: name, .. }
            | Self::Info { memory: name }
            | Self::Map { memory: name, .. }
            | Self::UnmapBorrowed { memory: name, .. }
            | Self::ProtectBorrowed { memory: name, .. }
            | Self::Slice { memory: name, .. }
            | Self::Snapshot { memory: name, .. }
            | Self::Resize { memory: name, .. }
            | Self::Read { memory: name, .. }
            | Self::Write { memory: name, .. }
            | Self::Duplicate { handle: name, .. }
            | Self::Release { handle: name }
            | Self::Send { handle: name, .. }
            | Self::Reserve { space: name, .. }
            | Self::Commit { space: name, .. }
            | Self::Decommit { space: name, .. }
            | Self::Protect { space: name, .. }
            | Self::UnmapReserved { space: name, .. } => Some(name),
            _ => None,
        }
    }
}

/// A call and who makes it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Step {
    pub(crate) by: usize,
    pub(crate) call: Call,
}

/// What a call gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Nothing,
    /// The caller, or the receiver of a transfer, has one handle more.
    Handle,
    Page(u64),
    Bytes(Vec<u8>),
    Info {
        pages: u64,
        size: u64,
        rights: Rights,
    },
    /// There is one process more.
    Process,
}

/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Denial {
    BadHandle,
    WrongType,
    Rights,
    Bound,
    Closed,
    Errno(Errno),
    Signal(Signal),
    /// An access for which there was no frame.
    NoFrame,
}

/// A value, or all reasons why there is none.
pub(crate) type Answer = Result<Value, Vec<Denial>>;

impl From<CapError> for Denial {
    fn from(error: CapError) -> Self {
        match error {
            CapError::BadHandle => Self::BadHandle,
            CapError::WrongType => Self::WrongType,
            CapError::Rights => Self::Rights,
            CapError::Bound => Self::Bound,
            CapError::Closed => Self::Closed,
            CapError::InTransit | CapError::TableFull | CapError::Refused(_) => Self::Errno(error.errno()),
        }
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self::Errno(refusal.errno)
    }
}

impl From<Fault> for Denial {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Signal(signal) => Self::Signal(signal.signal),
            Fault::OutOfMemory => Self::NoFrame,
        }
    }
}
