//! The platform of one space whose memory is the pager's: each operation of a plan as changes of tables and views.
//!
//! Each operation has two halves: first whatever may fail (memory for views, tables to be made exclusive, pages of
//! objects), then what cannot. So it is done completely or not at all. What only wants to make pages resident comes last
//! and may end half-way, as with Linux.

use alloc::sync::Arc;
use core::fmt;

use super::fault::{Touch, object_behind, populating_access};
use super::leaf::{self, Writable};
use super::{Fault, Pager, SpaceTables};
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::fallible::make_sure_of_tree_nodes;
use crate::ledger::Account;
use crate::linux::{LockAllFlags, SyncFlags};
use crate::manager::{Access, FaultSignal, Signal, SignalCode, parts};
use crate::mmu::{Mmu, PhysMem};
use crate::object::views::{Residency, Shown};
use crate::object::{MemoryObject, ObjectPages, Window};
use crate::page_table::Move;
use crate::prot::{Prot, ProtectionKey};
use crate::provider::{Lock, Maps, Op, PageManagementProvider, Populate, Source, Target};
use crate::region::{Region, RegionFlags};
use crate::vmmap::{Entry, Vmmap};

/// The platform of a space whose memory is a pager's.
pub struct SpacePager<M: PhysMem + Mmu> {
    tables: Arc<SpaceTables<M>>,
    /// Where an operation that was to replace something has failed after that was gone.
    lost: Option<PageRange>,
}

impl<M: PhysMem + Mmu> fmt::Debug for SpacePager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.tables, f)
    }
}

impl<M: PhysMem + Mmu + 'static> SpacePager<M> {
    /// A space in which there is nothing; `account` pays for its frames.
    ///
    /// # Errors
    /// No frame for the root table, or a limit.
    pub fn new(pager: &Arc<Pager<M>>, account: &Account) -> Result<Self, Errno> {
        let tables = crate::fallible::try_arc(SpaceTables::new(pager, account)?)?;
        pager.note_space(&tables)?;
        Ok(Self { tables, lost: None })
    }

    pub(super) fn pager(&self) -> &Arc<Pager<M>> {
        self.tables.pager()
    }

    /// What the last operation has lost.
    #[cfg(test)]
    pub(super) const fn lost_range(&self) -> Option<PageRange> {
        self.lost
    }

    pub(super) fn tables(&self) -> &Arc<SpaceTables<M>> {
        &self.tables
    }

    /// Views of objects as `map` has them in `range`, and no others. Whoever calls has made sure of memory for what may
    /// have to be split at either end.
    fn forget_views(&self, range: PageRange, map: &Vmmap) {
        for (part, region) in parts(map, range) {
            if let Some(memory) = object_behind(region).and_then(|object| self.pager().memory_of(object).ok()) {
                memory.cut_view(self.tables.id(), part, region.delta);
            }
        }
    }

    /// Notes the views that `map` has in `range`.
    ///
    /// # Errors
    /// No memory, or an object that has no pages here; what was noted is forgotten.
    fn note_views(&self, range: PageRange, map: &Vmmap) -> Result<(), Errno> {
        for (part, region) in parts(map, range) {
            let noted = self.note_view(part, region);
            if noted.is_err() {
                if let Some(before) = range.below(part.start()) {
                    self.forget_views(before, map);
                }
                return noted;
            }
        }
        Ok(())
    }

    pub(super) fn note_view(&self, range: PageRange, region: &Region) -> Result<(), Errno> {
        let Some(object) = object_behind(region) else { return Ok(()) };
        let memory = self.pager().memory_of(object)?;
        if !memory.has_copies() && !region.is_shared() {
            return Err(Errno::Inval);
        }
        // The view, and where what it reaches begins and ends.
        make_sure_of_tree_nodes::<3>()?;
        let residency = if region.flags.contains(RegionFlags::LOCKED) { Residency::Locked } else { Residency::Any };
        let shown = Shown { range, delta: region.delta, residency };
        memory.write_state().views.add(self.tables.id(), &self.tables, shown);
        Ok(())
    }

    /// Makes [`Self::clear`] certain to succeed for `range`.
    fn prepare_to_clear(&self, range: PageRange) -> Result<(), Errno> {
        // A view at either end may fall in two, and with it what it reaches.
        make_sure_of_tree_nodes::<4>()?;
        self.pager().reclaiming(|| {
            let prepared = self.tables.with_root_mut(|root, _| self.tables.tables().make_clearable(root, range));
            prepared.unwrap_or(Ok(()))
        })
    }

    /// Takes away what is in `range`.
    fn clear(&self, range: PageRange, map: &Vmmap) {
        let _ = self.tables.with_root_mut(|root, gather| self.tables.tables().clear(root, range, gather));
        self.forget_views(range, map);
    }

    fn unmap(&self, range: PageRange, maps: Maps<'_>) -> Result<(), Errno> {
        self.prepare_to_clear(range)?;
        self.clear(range, maps.before);
        Ok(())
    }

    /// Puts what `maps` says in place of what is in `range`.
    fn map(&mut self, range: PageRange, maps: Maps<'_>, target: Target) -> Result<(), Errno> {
        // What is shown anew stays, even if nobody reaches it while the old views have gone.
        let _reached = if target == Target::Replace { self.reach(range, maps.after)? } else { None };
        if target == Target::Replace {
            self.unmap(range, maps)?;
        }
        self.note_views(range, maps.after).inspect_err(|_| {
            if target == Target::Replace {
                self.lost = Some(range);
            }
        })
    }

    /// Reaches what the region in `range` is going to show, if it is of an object whose pages need that.
    fn reach(&self, range: PageRange, map: &Vmmap) -> Result<Option<Window<M>>, Errno> {
        let Some((part, region)) = parts(map, range).next() else { return Ok(None) };
        let Some(object) = object_behind(region) else { return Ok(None) };
        let memory = self.pager().memory_of(object)?;
        if memory.read_state().views.reach().is_none() {
            return Ok(None);
        }
        let shown = ObjectPages::new(region.page_offset(part.start()), part.pages()).ok_or(Errno::Inval)?;
        memory.hold_window(shown).map(Some)
    }

    fn relocate(&mut self, from: PageRange, to: PageRange, maps: Maps<'_>) -> Result<(), Errno> {
        self.prepare_to_clear(from)?;
        self.unmap(to, maps)?;
        self.lost = Some(to);
        self.note_views(to, maps.after)?;
        let Some(target) = PageRange::from_pages(to.first_page(), from.pages()) else { return Err(Errno::Inval) };
        let moved = self.pager().reclaiming(|| {
            let moved = self.tables.with_root_mut(|root, gather| {
                self.tables.tables().move_entries(root, Move { from, to: target }, gather, None)
            });
            moved.unwrap_or(Err(Errno::NoMem))
        });
        if moved.is_err() {
            self.forget_views(to, maps.after);
            return moved;
        }
        self.lost = None;
        self.forget_views(from, maps.before);
        // What stays mapped there shows its object anew. There was memory for as much a moment ago.
        let _ = self.note_views(from, maps.after);
        Ok(())
    }

    fn protect(&self, range: PageRange, prot: Prot, key: Option<ProtectionKey>) -> Result<(), Errno> {
        let tables = self.tables.tables();
        self.pager().reclaiming(|| {
            let changed = self.tables.with_root_mut(|root, gather| {
                tables.make_exclusive(root, range)?;
                tables.edit(root, range, gather, &mut |_, entry, _| {
                    // What shows a frame that several objects have is clean (`object/snapshot`).
                    let is_ready = leaf::is_dirty(entry) && (leaf::is_shared(entry) || self.tables.is_own(entry));
                    let writable = if is_ready { Writable::Now } else { Writable::OnFault };
                    leaf::with_rights(entry, prot, key.unwrap_or_else(|| entry.key()), writable)
                });
                Ok(())
            });
            changed.unwrap_or(Ok(()))
        })
    }

    /// Makes the pages of `range` resident that their regions in `map` let be touched, up to the first that cannot be.
    pub(super) fn populate(&self, range: PageRange, map: &Vmmap, access: Option<Access>) -> Result<(), Fault> {
        for (part, region) in parts(map, range) {
            if region.flags.contains(RegionFlags::PFN_MAP) {
                continue;
            }
            if region.prot.is_empty() {
                return Err(unreachable_page(part.start()));
            }
            let access = access.unwrap_or_else(|| populating_access(region));
            for page in part.first_page()..part.end_page() {
                let Some(address) = VirtAddr::from_page_number(page) else { continue };
                let entry = Entry { range: part, region };
                self.touch(&Touch::new(&entry, address, access))?;
            }
        }
        Ok(())
    }

    /// Makes the pages of a new region resident if that was asked for. Linux does not mind what cannot be.
    fn populate_new(&self, range: PageRange, populate: Populate, map: &Vmmap) {
        let is_wanted = |region: &Region| !region.flags.contains(RegionFlags::LOCK_ON_FAULT);
        if populate == Populate::Now && parts(map, range).all(|(_, region)| is_wanted(region)) {
            let _ = self.populate(range, map, None);
        }
    }

    /// Makes those pages of `range` resident that `map` says are locked. Linux does not mind what cannot be.
    fn populate_locked(&self, range: PageRange, map: &Vmmap) {
        for (part, _) in parts(map, range).filter(|(_, region)| is_resident_when_locked(region)) {
            let _ = self.populate(part, map, None);
        }
    }

    /// Views in `range` are as locked as `map` says. Without memory for that some stay as they were.
    fn note_locks(&self, range: PageRange, map: &Vmmap) {
        for (part, region) in parts(map, range) {
            let _ = self.note_view(part, region);
        }
    }

    fn lock_all(&self, flags: LockAllFlags, mapped: &[PageRange], maps: Maps<'_>) {
        mapped.iter().for_each(|range| self.note_locks(*range, maps.after));
        if flags.contains(LockAllFlags::CURRENT) {
            for range in mapped {
                let _ = self.populate_for_lock(*range, maps.after);
            }
        }
    }

    /// Makes the pages of `range` resident, but for those that are locked as they are touched: of memory that is never
    /// locked, too (`mm/mlock.c`: what is made resident is decided by region, and not by call).
    fn populate_for_lock(&self, range: PageRange, map: &Vmmap) -> Result<(), Fault> {
        let mut wanted = parts(map, range).filter(|(_, region)| !region.flags.contains(RegionFlags::LOCK_ON_FAULT));
        wanted.try_for_each(|(part, _)| self.populate(part, map, None))
    }

    fn sync(&self, range: PageRange, flags: SyncFlags, map: &Vmmap) -> Result<(), Errno> {
        if !flags.contains(SyncFlags::SYNC) {
            return Ok(());
        }
        for (part, region) in parts(map, range).filter(|(_, region)| region.is_shared()) {
            let Some(object) = object_behind(region) else { continue };
            let first = region.page_offset(part.start());
            let written = self.pager().memory_of(object)?.write_back(first, first.saturating_add(part.pages().get()));
            written.map_err(|errno| if errno == Errno::NoMem { Errno::NoMem } else { Errno::Io })?;
        }
        Ok(())
    }

    /// The break has moved: what was below it goes, what comes is resident if it is locked.
    fn move_break(&self, from: VirtAddr, to: VirtAddr, maps: Maps<'_>) -> Result<(), Errno> {
        let (Some(old), Some(new)) = (from.page_up(), to.page_up()) else { return Err(Errno::NoMem) };
        if let Some(gone) = PageRange::new(new, old) {
            return self.unmap(gone, maps);
        }
        if let Some(added) = PageRange::new(old, new) {
            self.populate_locked(added, maps.after);
        }
        Ok(())
    }

    /// Whether the page at `address` is a guard.
    pub(super) fn has_guard(&self, address: VirtAddr) -> bool {
        let entry = self.tables.with_root(|root| self.tables.entry(root, address.page_down()));
        entry.is_some_and(leaf::is_guard)
    }

    /// Whether the page at `address` has a frame in the tables.
    fn is_resident(&self, address: VirtAddr, map: &Vmmap) -> bool {
        let entry = self.tables.with_root(|root| self.tables.entry(root, address));
        if entry.is_some_and(leaf::has_frame) {
            return true;
        }
        let Some(region) = map.get(address).map(|entry| entry.region) else { return false };
        let memory = object_behind(region).and_then(|object| self.pager().memory_of(object).ok());
        memory.is_some_and(|memory| memory.frame(&memory.read_state(), region.page_offset(address)).is_some())
    }

    /// Checks tables and objects against `map`.
    ///
    /// # Panics
    /// If something is wrong.
    pub(super) fn check_invariants(&self, map: &Vmmap) {
        self.tables.check_invariants(map);
        for entry in map.iter() {
            if let Some(memory) = object_behind(entry.region).and_then(|object| self.pager().memory_of(object).ok()) {
                memory.check_invariants();
            }
        }
    }

    /// Forgets that objects are shown: the space ends.
    pub(super) fn leave(&self, map: &Vmmap) {
        for entry in map.iter() {
            self.forget_views(entry.range, map);
        }
    }
}

/// Whether the region is locked, and not only page by page as it is touched.
fn is_resident_when_locked(region: &Region) -> bool {
    region.flags.contains(RegionFlags::LOCKED) && !region.flags.contains(RegionFlags::LOCK_ON_FAULT)
}

/// A page without rights cannot be made resident.
pub(super) const fn unreachable_page(address: VirtAddr) -> Fault {
    Fault::Signal(FaultSignal { signal: Signal::Segv, code: SignalCode::AccErr, address })
}

/// What mlock(2) says (`mm/mlock.c:__mlock_posix_error_return`).
fn lock_error(fault: Fault) -> Errno {
    match fault {
        Fault::Signal(_) => Errno::NoMem,
        Fault::OutOfMemory => Errno::Again,
    }
}

impl<M: PhysMem + Mmu + 'static> PageManagementProvider for SpacePager<M> {
    fn run(&mut self, op: &Op, maps: Maps<'_>) -> Result<(), Errno> {
        self.lost = None;
        match op {
            Op::Map { range, target, populate, .. } => {
                self.map(*range, maps, *target)?;
                self.populate_new(*range, *populate, maps.after);
                Ok(())
            }
            Op::RemapPages { range, populate, .. } => {
                self.map(*range, maps, Target::Replace)?;
                self.populate_new(*range, *populate, maps.after);
                Ok(())
            }
            Op::Unmap { range, .. } => self.unmap(*range, maps),
            Op::Protect { range, to, .. } => {
                self.protect(*range, *to, None)?;
                self.populate_if_writable(*range, *to, maps);
                Ok(())
            }
            Op::ProtectKey { range, to, .. } => {
                self.protect(*range, to.prot, Some(to.key.key()))?;
                self.populate_if_writable(*range, to.prot, maps);
                Ok(())
            }
            Op::Move { from, to, source, .. } => {
                self.relocate(*from, *to, maps)?;
                // What has come along is as resident as it was (`mm/mremap.c:do_mremap`).
                let moved = PageRange::from_pages(to.first_page(), from.pages());
                let added = moved.filter(|_| *source == Source::Removed).and_then(|moved| to.from(moved.end()));
                if let Some(added) = added {
                    self.populate_locked(added, maps.after);
                }
                Ok(())
            }
            Op::Grow { from, to, .. } => self.grow(*from, *to, maps),
            Op::Duplicate { to, target, .. } => {
                self.map(*to, maps, *target)?;
                self.populate_locked(*to, maps.after);
                Ok(())
            }
            Op::Advise { range, advice } => self.advise(*range, *advice, maps),
            Op::Sync { range, flags } => self.sync(*range, *flags, maps.before),
            Op::Lock { range, mapped, lock } => {
                self.note_locks(*mapped, maps.after);
                // Behind a hole that it meets, the call does not come to making pages resident.
                if *lock != Lock::Released && mapped == range {
                    self.populate_for_lock(*mapped, maps.after).map_err(lock_error)?;
                }
                if mapped == range { Ok(()) } else { Err(Errno::NoMem) }
            }
            Op::LockAll { flags, mapped } => {
                self.lock_all(*flags, mapped, maps);
                Ok(())
            }
            Op::SetBreak { from, to, .. } => self.move_break(*from, *to, maps),
            // Nothing of these is in tables.
            Op::Name { .. }
            | Op::Seal { .. }
            | Op::AllocateKey { .. }
            | Op::FreeKey { .. }
            | Op::DenyExecGain { .. } => Ok(()),
            Op::Residency { .. } => Err(Errno::NoSys),
        }
    }

    fn has_kept(&self, range: PageRange) -> bool {
        self.lost != Some(range)
    }

    fn is_write_sealed(&self, range: PageRange, map: &Vmmap) -> bool {
        let object = map.get(range.start()).and_then(|entry| object_behind(entry.region));
        let memory = object.and_then(|object| self.pager().memory_of(object).ok());
        memory.is_some_and(|memory| memory.is_write_sealed())
    }

    fn residency(&mut self, range: PageRange, map: &Vmmap, each: &mut dyn FnMut(bool)) {
        for page in range.first_page()..range.end_page() {
            each(VirtAddr::from_page_number(page).is_some_and(|address| self.is_resident(address, map)));
        }
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], map: &Vmmap) -> Result<(), Errno> {
        self.copy_out(addr, bytes, map).map_err(|_| Errno::Fault)
    }

    fn object_pages(&self, object: &MemoryObject) -> Option<PageCount> {
        self.pager().pages(object)
    }
}

impl<M: PhysMem + Mmu + 'static> SpacePager<M> {
    fn grow(&self, from: PageRange, to: PageRange, maps: Maps<'_>) -> Result<(), Errno> {
        let Some(added) = to.from(from.end()) else { return Ok(()) };
        self.note_views(added, maps.after)?;
        self.populate_locked(added, maps.after);
        Ok(())
    }

    /// Locked private pages that become writable are made so at once (`mm/mprotect.c:mprotect_fixup`).
    fn populate_if_writable(&self, range: PageRange, to: Prot, maps: Maps<'_>) {
        for (part, region) in parts(maps.before, range) {
            let was_read_only = !region.prot.contains(Prot::WRITE) && !region.is_shared();
            if was_read_only && to.contains(Prot::WRITE) && is_resident_when_locked(region) {
                let _ = self.populate(part, maps.after, None);
            }
        }
    }
}

impl<M: PhysMem + Mmu> Drop for SpacePager<M> {
    fn drop(&mut self) {
        self.tables.end();
    }
}
