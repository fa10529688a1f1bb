//! The kernel's half: page tables that all address spaces have in common, above those of their own.
//!
//! Owned here: the tables below the upper half of the roots of all spaces. Outside: the frames that they show. The direct
//! map shows frames that are free, stacks show such that are somebody's; so no entry here keeps its frame, and whoever
//! maps one keeps it until it has been unmapped.
//!
//! Invariants:
//!
//! * The entries of the root never change after [`KernelSpace::new`]: each slot that was asked for has its table from
//!   then on, since one page of it, the last but one, holds an entry that is not present and never goes. So a root can
//!   have a copy of them, and whatever is mapped later is seen through all roots at once.
//! * The tables are there for as long as the kernel space, a space that has been made below it, or a window space in it:
//!   each of these keeps them.
//!
//! Locks: that of the tables, after that of the tables of a process, and before what is inside of
//! [`Frames`](crate::frame::Frames). A flush waits for all processors and happens under it, so whoever answers one takes
//! no lock.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{Pager, SpaceTables, leaf};
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::fallible::try_arc;
use crate::frame::{FrameNumber, FrameRange};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, Level};

/// The first page of the upper half.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000 >> crate::addr::PAGE_SHIFT;
/// The pages at the end of a slot that nothing can be mapped at: the one whose entry never goes, and the last of all,
/// which has none.
const RESERVED_PAGES: u64 = 2;
/// The bits that are for software.
const SOFTWARE: EntryFlags = EntryFlags::SOFT_0
    .union(EntryFlags::SOFT_1)
    .union(EntryFlags::SOFT_2)
    .union(EntryFlags::SOFT_3)
    .union(EntryFlags::SOFT_4);

/// What every address space shows in its upper half, once the pager was told so ([`Pager::set_kernel`]).
///
/// It is made of slots, each the 512 GiB below one entry of a root table. Its entries keep no frames: whoever maps
/// frames has them until they are unmapped, and frames of the pager's are not given back by being unmapped.
pub struct KernelSpace<M: PhysMem + Mmu> {
    tables: Arc<SpaceTables<M>>,
    /// What can be mapped at, of each slot.
    places: Vec<PageRange>,
}

impl<M: PhysMem + Mmu> fmt::Debug for KernelSpace<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelSpace({} slots, tables at {})", self.places.len(), self.root())
    }
}

impl<M: PhysMem + Mmu> KernelSpace<M> {
    /// A kernel space in which there is nothing, with the slots that `slots` lie in. `account` pays for its tables.
    ///
    /// # Errors
    /// [`Errno::Inval`] for a slot that is not in the upper half, [`Errno::Exist`] for one that is named twice,
    /// [`Errno::NoMem`] if there are no frames for its tables, or a limit.
    pub fn new(pager: &Arc<Pager<M>>, account: &Account, slots: &[VirtAddr]) -> Result<Arc<Self>, Errno> {
        let tables = try_arc(SpaceTables::uncounted(pager, account)?)?;
        let mut places = Vec::new();
        places.try_reserve_exact(slots.len()).map_err(|_| Errno::NoMem)?;
        for slot in slots {
            let place = place_in_slot(*slot)?;
            let marker = leaf::guard();
            let marked =
                tables.with_root_mut(|root, _| tables.tables().map(root, place.end(), marker.frame(), marker.flags()));
            marked.unwrap_or(Err(Errno::Srch))?;
            places.push(place);
        }
        try_arc(Self { tables, places })
    }

    /// The root table, for a processor that runs in no other space.
    pub fn root(&self) -> FrameNumber {
        self.tables.frame()
    }

    /// Shows `frames` from `first` on: all of them, or none if it fails. With [`EntryFlags::HUGE`] by 2 MiB leaves where
    /// addresses and frames are aligned. All spaces see them at once; user code does if `flags` have
    /// [`EntryFlags::USER`], which nothing of a kernel's should.
    ///
    /// # Errors
    /// [`Errno::Exist`] if something is there; [`Errno::Inval`] for pages outside of the slots or at the end of one
    /// (the last two of each are not to be had), for flags that are not present or a software's; [`Errno::NoMem`] if
    /// there are no frames for tables, or a limit.
    pub fn map(&self, first: VirtAddr, frames: FrameRange, flags: EntryFlags) -> Result<(), Errno> {
        let range = PageRange::from_len(first, frames.frames().bytes()).ok_or(Errno::Inval)?;
        self.check(range)?;
        if !flags.contains(EntryFlags::PRESENT) || flags.intersects(SOFTWARE) {
            return Err(Errno::Inval);
        }
        self.tables.map(first, frames, flags)
    }

    /// Shows nothing in `range` any more. No processor knows what was there when this returns.
    ///
    /// # Errors
    /// [`Errno::Inval`] for pages as in [`map`](Self::map); [`Errno::NoMem`] if the range cuts a 2 MiB leaf and there is
    /// no frame for the table that takes its place. Nothing has changed then.
    pub fn unmap(&self, range: PageRange) -> Result<(), Errno> {
        self.check(range)?;
        self.tables.unmap(range)
    }

    /// Gives everything in `range` the rights of `flags`: present, writable, user, no execute.
    ///
    /// # Errors
    /// As [`unmap`](Self::unmap).
    pub fn protect(&self, range: PageRange, flags: EntryFlags) -> Result<(), Errno> {
        self.check(range)?;
        let tables = self.tables.tables();
        let protected = self.tables.with_root_mut(|root, gather| tables.protect(root, range, flags, gather));
        protected.unwrap_or(Err(Errno::Srch))
    }

    /// Every leaf with a page in `range`, lowest first, with what it spans and the level of its table; present or not.
    /// Called with the tables locked: `each` maps nothing here, and makes no spaces.
    pub fn entries(&self, range: PageRange, each: &mut dyn FnMut(PageRange, Entry, Level)) {
        let visit = &mut |span, entry, level| {
            if !leaf::is_guard(entry) {
                each(span, entry, level);
            }
        };
        let _ = self.tables.with_root(|root| self.tables.tables().entries(root, range, visit));
    }

    /// Recomputes what is derived.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn check_invariants(&self) {
        let checked = self.tables.with_root(|root| {
            let tables = self.tables.tables();
            tables.check_invariants(root);
            let is_kept = |place: &PageRange| leaf::is_guard(self.tables.entry(root, place.end()));
            assert!(self.places.iter().all(is_kept), "a slot has lost the entry that keeps it");
            let used = self.tables.pager().frames().word(root.frame()).load(crate::sync::Ordering::Relaxed);
            assert_eq!(used as usize, self.places.len(), "slots that were not asked for");
        });
        assert!(checked.is_some(), "a space that has ended");
    }

    /// Whether all of `range` can be mapped at.
    pub(crate) fn has_place_for(&self, range: PageRange) -> bool {
        self.places.iter().any(|place| place.contains_range(range))
    }

    fn check(&self, range: PageRange) -> Result<(), Errno> {
        if self.has_place_for(range) { Ok(()) } else { Err(Errno::Inval) }
    }

    pub(crate) const fn tables(&self) -> &Arc<SpaceTables<M>> {
        &self.tables
    }
}

/// What can be mapped at, of the slot that `address` lies in.
fn place_in_slot(address: VirtAddr) -> Result<PageRange, Errno> {
    let slot = Level::ROOT.pages();
    let first = address.page_number() & !(slot - 1);
    if first < UPPER_HALF {
        return Err(Errno::Inval);
    }
    PageRange::from_pages(first, PageCount::new(slot - RESERVED_PAGES)).ok_or(Errno::Inval)
}
