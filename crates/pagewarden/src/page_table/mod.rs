//! Page tables in physical memory: who leads where, and what must be forgotten before it is used again.
//!
//! Owned here: the tables of a space, how many of their entries are in use, and the order in which entries are changed,
//! flushed and released. Outside: where tables come from and what a leaf means ([`TableOwner`]), memory and the unit
//! that translates ([`crate::mmu`]), and the lock of a space. Four levels, entries as in [`Entry`]; 4 KiB and 2 MiB leaves.
//!
//! # Two ways in
//!
//! [`Root`] cannot be cloned; whoever has a space keeps it inside of a lock of readers and writers. `&Root` means that
//! others may be at work on the same tables: entries are only added or replaced, by compare-and-exchange, and no table
//! goes away but for a shared one that is copied. `&mut Root` means that nobody else is, but for processors that set
//! [`EntryFlags::ACCESSED`] and [`EntryFlags::DIRTY`].
//!
//! # Shared tables
//!
//! A fork lets two entries lead to one table. Then:
//!
//! * A table with more than one reference is never changed (but for accessed bits, which processors set).
//! * An entry that leads to a table and has [`EntryFlags::WRITABLE`], reached by such entries alone, leads to a table
//!   with one reference: it is **exclusive** and may be changed. Without the bit the table may be shared, or its
//!   entries may allow more than they should because it once was.
//! * Inside of a table that is not exclusive the bit says nothing: whoever makes the table exclusive clears it in all
//!   entries that lead to tables, and asks [`TableOwner::protect_leaf`] or [`TableOwner::share_leaf`] for each leaf.
//! * What a space refers to directly or through its tables stays as long as the entry that leads there. One thread of a
//!   space at a time makes tables exclusive (a lock in [`Root`]); readers of a shared table look again whether the way
//!   to it still stands before they believe what they read.
//!
//! # An upper half in common
//!
//! A kernel is seen by all spaces: the upper half of their roots may be that of one root ([`PageTable::root_below`]).
//! Their entries are copies of its entries, which do not change any more; the tables below are that one's. Pages up there
//! are no places of the others' spaces: through their roots nothing is found, changed, forked or released there.
//!
//! # Invariants
//!
//! * [`TableOwner::used_entries`] is the number of entries of a table that are not empty; of a root without an upper half
//!   of its own, of those in the lower half.
//! * No table above level 1 is empty but for the root. One of level 1 is empty only after a [`PageTable::slot`] that
//!   nothing was put into, until its place is next edited or cleared.
//! * A leaf or table is released only after the flush that makes processors forget the way to it ([`Gather`]).
//! * An entry that comes to allow more is not flushed when a table becomes exclusive: processors look again before
//!   they fault, or forget what they knew of the address when they do (Intel SDM volume 3, 5.10.4).
//!
//! Lock order: the space's lock, the lock in [`Root`], whatever the owner takes.

mod check;
mod edit;
mod entry;
mod fork;
mod gather;
mod moves;
mod path;
mod plain;
mod read;
mod release;
mod size;
mod table;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use crate::frame::Released;
pub use check::Census;
pub use entry::{Entry, EntryFlags, Level};
pub use fork::{ForkPolicy, Share};
pub use gather::{Gather, Stale};
pub use moves::Move;
pub use path::Slot;
pub use read::Mapped;
pub use table::{PageTable, Root};

use crate::error::Errno;
use crate::frame::FrameNumber;
use crate::sync::AtomicU32;

/// Who provides the frames of tables, and counts what leaves refer to.
///
/// Called with a space locked, so what it locks itself comes after that.
pub trait TableOwner {
    /// A frame for a table: every word 0, one reference, [`used_entries`](Self::used_entries) 0.
    ///
    /// # Errors
    /// [`Errno::NoMem`] if there is none, or no budget.
    fn allocate_table(&self) -> Result<FrameNumber, Errno>;

    /// Gives back one reference. With [`Released::Last`] the table is the caller's, who releases what is in it and then
    /// calls [`free_table`](Self::free_table). Everything done through other references comes before (acquire, release).
    fn release_table(&self, table: FrameNumber) -> Released;

    /// Frees a table whose last reference was given back; nothing in it counts any more.
    fn free_table(&self, table: FrameNumber);

    /// Takes one more reference.
    ///
    /// # Errors
    /// [`Errno::NoMem`] if there are too many, or no budget.
    fn share_table(&self, table: FrameNumber) -> Result<(), Errno>;

    /// How many references a table has (acquire).
    fn table_references(&self, table: FrameNumber) -> u32;

    /// How many entries of a table are not empty. Kept here, stored there.
    fn used_entries(&self, table: FrameNumber) -> &AtomicU32;

    /// One more table shows `leaf`, an entry of a table of `level`. What all of them show from now on: without
    /// [`EntryFlags::WRITABLE`] if what it shows is private.
    ///
    /// # Errors
    /// [`Errno::NoMem`] if that cannot be counted. Nothing has changed.
    fn share_leaf(&self, leaf: Entry, level: Level) -> Result<Entry, Errno>;

    /// What a table that was shared and is exclusive now shows: not writable while what it shows is shared.
    fn protect_leaf(&self, leaf: Entry, level: Level) -> Entry;

    /// A table that showed `leaf` does so no more. Called after the flush; for entries that are not present too.
    fn release_leaf(&self, leaf: Entry, level: Level);

    /// A leaf of `level` is about to become 512 leaves of the level below that show the same. For owners that count by
    /// entry; those that count by frame have nothing to do.
    fn leaf_split(&self, leaf: Entry, level: Level) {
        let _ = (leaf, level);
    }

    /// The opposite: 512 leaves have become `leaf`, an entry of `level`.
    fn leaf_joined(&self, leaf: Entry, level: Level) {
        let _ = (leaf, level);
    }
}
