//! Memory that somebody else also touches: windows, copies, reservations.
//!
//! Code in one world (a kernel, a service, a device model) reads and writes physical memory that another world (a guest,
//! a device) may change at any time.
//!
//! # Why that is safe
//!
//! No reference to foreign memory exists. It is shown in *windows*, addresses that are nobody else's, and every access
//! copies between a window and memory of our own ([`WindowAccess`]). What was copied does not change any more; what the
//! copy is when another changes the memory meanwhile, is some mixture of bytes that were there. Types that are copied
//! are plain data ([`Plain`]): any mixture of bytes is a value. The other world can harm what it tells us, and
//! nothing else.
//!
//! It follows that two may map or access the same page at once. Reservations ([`Reservations`]) keep an order among those
//! who ask for one; nothing relies on them.
//!
//! # Owned here
//!
//! Which addresses of the window space are in use ([`VmapManager`]), which ranges are reserved, what could not be
//! unmapped. Outside: how a window comes to show a page and how bytes are copied ([`VmapProvider`]), and what the other
//! world is.
//!
//! # Invariants
//!
//! * A window shows what its mapping says from when there is a [`Mapping`] until its last page is gone, and is in use that
//!   long: no two mappings share an address, and before and behind each window there is a page that is always empty.
//! * A mapping that could not be taken away keeps its window and its reservation, and is retained by the manager.
//! * No two reservations share a byte unless both are [`Mode::Shared`].
//!
//! Lock order: the lock of the window space and that of the reservations are never held together, and no other is taken
//! under them. The platform is called with neither.

mod error;
mod manager;
mod mapping;
mod pages;
mod plain;
mod pointer;
mod protection;
mod provider;
mod range;
mod reservation;
mod span;
mod tables;
mod windows;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use error::{CopyFault, PhysError};
pub use manager::{Claim, ManagerRef, VmapManager};
pub use mapping::Mapping;
pub use plain::{Plain, Word};
pub use pointer::{PhysConstPtr, PhysMutPtr};
pub use protection::Protection;
pub use provider::{EventCount, OtherAccess, Permission, VmapProvider, WindowAccess, WordWidth};
pub use range::PhysRange;
pub use reservation::{Mode, Reservation, Reservations};
pub use tables::{PageTableWindows, WindowProcessor};

/// How threads wait where a manager is kept in this way.
pub type Events<R> = <<R as ManagerRef>::Provider as VmapProvider>::Events;
