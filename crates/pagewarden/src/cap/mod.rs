//! Capabilities: objects that a process reaches by handles of its own table, and by nothing else.
//!
//! A [`CapTable`] belongs to one process and one account. A [`Handle`] names a slot of it; the slot has an object, the
//! [`Rights`] that the handle gives, and the charges for both. Objects are of any type that is an [`Interface`]. Handles
//! pass from table to table by a [`Transfer`] and in no other way.
//!
//! ```text
//! Process ── every call by handle            space, table, account, the two pages shared with whoever runs it (fixed)
//!    |
//! CapTable ── slots ── Arc<dyn Interface>
//!    |-- FrameAllocatorCap   a pool of frames        allocate -> MemoryCap
//!    |-- MemoryCap           a window on an object   map, slice, snapshot, resize, read, write
//!    |-- VirtualMemory       one address space       reserve, commit, decommit, protect, unmap; bound to its process
//!    `-- whatever else implements Interface
//! ```
//!
//! Outside: what an object does and which rights it wants for it (each interface), who may talk to whom (the caller of
//! [`CapTable::offer`]), who the caller is (whoever hands in its table).
//!
//! # States of a slot
//!
//! | state | look-up | leaves it by | charged |
//! |---|---|---|---|
//! | free | stale | insert, duplicate: live; reserve: reserved | nothing |
//! | reserved | stale | fill, commit: live; drop of the [`Reservation`]: free | slot and pages, held by the reservation |
//! | live | found | release: free; offer of a move: in transit | slot and pages |
//! | in transit | [`CapError::InTransit`] | commit: free; drop of the [`Transfer`]: live, same handle | slot and pages, held by the transfer |
//!
//! Closing a table frees all of its slots, whatever their state, and the table stays closed.
//!
//! # Invariants
//!
//! * A handle fits one slot of one table, from when it is given out until the slot is free again (`handle.rs`).
//! * Rights never grow: duplicates and transfers have a subset of what they come from.
//! * What is in a slot is paid by the table's account before anybody sees it, and until nobody does. An operation that
//!   is refused leaves no trace.
//! * A capability that is moved is live in one table at most, and in exactly one when the transfer is over, if both are open.
//!
//! # Locks
//!
//! Each table has one lock, below all others of the crate: nothing is locked, called or dropped under it that could take
//! another, and never are two tables locked at once. Objects that leave a table are dropped after its lock is released,
//! for their end may take locks of address spaces, objects and frames. Charges are atomics and may be made under it.

mod fixed;
mod frames;
mod handle;
mod interface;
mod memory;
mod process;
mod rights;
mod slots;
mod table;
mod transfer;
mod virtual_memory;

#[cfg(test)]
mod tests;

pub use fixed::{CapabilitySet, FixedPage, FixedPlaces, GivenCapability};
pub use frames::FrameAllocatorCap;
pub use handle::Handle;
pub use interface::{Binding, Interface, InterfaceId};
pub use memory::{Mapping, MemoryCap, MemoryInfo};
pub use process::{OWN_MEMORY, Process};
pub use rights::Rights;
pub use slots::{HandleInfo, HandleState};
pub use table::{CapTable, Held, Reservation};
pub use transfer::{ReservedTransfer, Transfer, TransferMode};
pub use virtual_memory::VirtualMemory;

use core::fmt;

use crate::error::Errno;
use crate::ledger::{OverLimit, Resource};
use crate::manager::{Cause, Refusal};

/// Why a capability call failed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapError {
    /// The handle is stale, another table's, or nobody's.
    BadHandle,
    /// The handle is for an object of another interface.
    WrongType,
    /// The handle lacks a right that this needs, or a new one would have more rights than the old one.
    Rights,
    /// The handle is being moved to another table just now.
    InTransit,
    /// The object belongs to its process and cannot be transferred.
    Bound,
    /// The table's process has ended.
    Closed,
    /// The table has no slot left, or there are no serial numbers left.
    TableFull,
    /// An account, an address space or an object refused.
    Refused(Refusal),
}

impl CapError {
    /// What a guest that speaks Linux is told.
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadHandle => Errno::BadF,
            Self::WrongType => Errno::Inval,
            Self::Rights => Errno::Acces,
            Self::InTransit => Errno::Busy,
            Self::Bound => Errno::Perm,
            Self::Closed => Errno::Srch,
            Self::TableFull => Errno::MFile,
            Self::Refused(refusal) => refusal.errno,
        }
    }
}

impl From<Refusal> for CapError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Errno> for CapError {
    fn from(errno: Errno) -> Self {
        Self::Refused(Refusal { errno, cause: Cause::Platform })
    }
}

impl From<OverLimit> for CapError {
    /// `EMFILE` for slots, as when the limit of open files is reached; `ENOMEM` for anything else.
    fn from(over: OverLimit) -> Self {
        let errno = if over.resource == Resource::Capabilities { Errno::MFile } else { Errno::NoMem };
        Self::Refused(Refusal { errno, cause: Cause::Limit(over.resource) })
    }
}

impl fmt::Display for CapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::BadHandle => "no such handle",
            Self::WrongType => "a handle of another interface",
            Self::Rights => "not enough rights",
            Self::InTransit => "the handle is in transit",
            Self::Bound => "the object cannot be transferred",
            Self::Closed => "the table is closed",
            Self::TableFull => "no slot is left",
            Self::Refused(refusal) => return write!(f, "refused: {refusal}"),
        };
        write!(f, "{} ({text})", self.errno())
    }
}

impl core::error::Error for CapError {}
