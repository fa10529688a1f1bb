//! The tables of one space, and what their entries refer to.
//!
//! Owned here: the root, and the references that entries have on frames. Entries of a space that has ended are gone,
//! and its views of objects with them; whoever still finds it in a list finds no root. Tables that only show frames
//! ([`SpaceTables::uncounted`]) have no references on them: whoever maps a frame there keeps it.

use alloc::sync::Arc;
use core::fmt;

use super::Pager;
use super::leaf::{self, is_dirty};
use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameError, FrameNumber, FrameRange, FrameUse, Owner};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::object::memory::{Copies, DIRTY};
use crate::object::views::SpaceId;
use crate::page_table::{Entry, EntryFlags, Gather, Level, PageTable, Released, Root, TableOwner};
use crate::prot::Prot;
use crate::sync::{AtomicU32, Ordering, RwLock};
use crate::vmmap::Vmmap;

/// Whether entries keep the frames that they show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaves {
    /// Each has a reference.
    Counted,
    /// Whoever maps a frame keeps it until it is unmapped.
    Uncounted,
}

/// The tables of a space.
pub(crate) struct SpaceTables<M: PhysMem + Mmu> {
    pager: Arc<Pager<M>>,
    id: SpaceId,
    /// Pays for its tables and private pages.
    owner: Owner,
    /// The frame of the root, as long as there is one.
    frame: FrameNumber,
    /// Gone when the space has ended.
    root: RwLock<Option<Root>>,
    leaves: Leaves,
    /// Whose upper half this has: there for as long as a root leads to it.
    kernel: Option<Arc<Self>>,
    /// Not 0 once there were pages that may be dropped.
    droppable: AtomicU32,
}

impl<M: PhysMem + Mmu> fmt::Debug for SpaceTables<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceTables({} at {})", self.id, self.frame)
    }
}

/// Gathers what a space shows no more.
pub(crate) type SpaceGather<'a, M> = Gather<'a, M, SpaceTables<M>>;

impl<M: PhysMem + Mmu> SpaceTables<M> {
    /// Tables of a process in which there is nothing, paid by `account`. If the pager has a kernel space, the upper half
    /// is that one's.
    ///
    /// # Errors
    /// No frame for the root, or a limit; [`Errno::Srch`] if the kernel space is gone.
    pub(super) fn new(pager: &Arc<Pager<M>>, account: &Account) -> Result<Self, Errno> {
        let kernel = pager.kernel()?;
        Self::with(pager, account, Leaves::Counted, kernel)
    }

    /// Tables in which there is nothing, paid by `account`, whose entries keep no frames and whose halves are both their
    /// own.
    ///
    /// # Errors
    /// No frame for the root, or a limit.
    pub(crate) fn uncounted(pager: &Arc<Pager<M>>, account: &Account) -> Result<Self, Errno> {
        Self::with(pager, account, Leaves::Uncounted, None)
    }

    fn with(
        pager: &Arc<Pager<M>>,
        account: &Account,
        leaves: Leaves,
        kernel: Option<Arc<Self>>,
    ) -> Result<Self, Errno> {
        let owner = pager.frames().add_owner(account).map_err(|error| error.errno())?;
        let mut space = Self {
            pager: Arc::clone(pager),
            id: pager.next_space(),
            owner,
            frame: pager.zero,
            root: RwLock::new(None),
            leaves,
            kernel,
            droppable: AtomicU32::new(0),
        };
        let root = match &space.kernel {
            Some(kernel) => kernel.with_root(|upper| space.tables().root_below(upper)).unwrap_or(Err(Errno::Srch))?,
            None => Root::new(&space)?,
        };
        space.frame = root.frame();
        *space.root.get_mut() = Some(root);
        Ok(space)
    }

    pub(super) const fn id(&self) -> SpaceId {
        self.id
    }

    pub(crate) const fn pager(&self) -> &Arc<Pager<M>> {
        &self.pager
    }

    pub(super) const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whose upper half this has.
    #[cfg(test)]
    pub(super) const fn kernel(&self) -> Option<&Arc<Self>> {
        self.kernel.as_ref()
    }

    /// What processors are given.
    pub(crate) const fn frame(&self) -> FrameNumber {
        self.frame
    }

    /// The tables as such.
    pub(crate) fn tables(&self) -> PageTable<'_, M, Self> {
        PageTable::new(&**self.pager.machine(), self)
    }

    /// Lets `look` at the tables, beside others that look or add; `None` if the space has ended.
    pub(super) fn with_root<T>(&self, look: impl FnOnce(&Root) -> T) -> Option<T> {
        self.root.read().as_ref().map(look)
    }

    /// Lets `change` have the tables alone; what it gathers is flushed and released before anybody else has them.
    /// `None` if the space has ended.
    pub(crate) fn with_root_mut<'s, T>(
        &'s self,
        change: impl FnOnce(&mut Root, &mut SpaceGather<'s, M>) -> T,
    ) -> Option<T> {
        let mut guard = self.root.write();
        let root = guard.as_mut()?;
        let mut gather = Gather::new(self.tables(), root);
        let changed = change(root, &mut gather);
        drop(gather);
        Some(changed)
    }

    /// Ends the space: gives back all that its tables refer to, and the tables.
    pub(super) fn end(&self) {
        let root = self.root.write().take();
        if let Some(root) = root {
            self.tables().destroy(root);
        }
    }

    /// Shows pages of an object no more, and private copies of them only if they are kept. They lie in one view; in tables
    /// that are shared there is none of them.
    pub(crate) fn drop_pages(&self, range: PageRange, copies: Copies) {
        let frames = self.pager.frames();
        let _ = self.with_root_mut(|root, gather| {
            self.tables().edit_own(root, range, gather, &mut |_, entry, _| {
                let is_copy = !leaf::is_shared(entry) && frames.used_as(entry.frame()) == Some(FrameUse::Anonymous);
                let stays = !leaf::has_frame(entry) || is_copy && copies == Copies::Kept;
                if stays { entry } else { Entry::EMPTY }
            });
        });
    }

    /// Notes which pages of an object were stored to, and that they are clean from now on.
    pub(crate) fn clean_pages(&self, range: PageRange) {
        let _ = self.with_root_mut(|root, gather| {
            self.tables().harvest(root, range, gather, &mut |_, entry| self.note_store(entry))
        });
    }

    /// Tells the owner of a frame that something was stored through `entry`.
    fn note_store(&self, entry: Entry) {
        if leaf::is_shared(entry) && is_dirty(entry) && self.pager.frames().is_ours(entry.frame()) {
            self.pager.frames().word(entry.frame()).fetch_or(DIRTY, Ordering::AcqRel);
        }
    }

    /// Shows `frames` from `first` on: all of them, or none if it fails.
    ///
    /// # Errors
    /// As [`PageTable::map_run`].
    pub(crate) fn map(&self, first: VirtAddr, frames: FrameRange, flags: EntryFlags) -> Result<(), Errno> {
        let mapped = self.with_root_mut(|root, _| self.tables().map_run(root, first, frames, flags));
        mapped.unwrap_or(Err(Errno::Srch))
    }

    /// Shows nothing in `range` any more.
    ///
    /// # Errors
    /// No frame for the table that an edge of the range needs where it cuts a large leaf; nothing has changed then.
    pub(crate) fn unmap(&self, range: PageRange) -> Result<(), Errno> {
        let cleared = self.with_root_mut(|root, gather| {
            self.tables().make_clearable(root, range)?;
            self.tables().clear(root, range, gather);
            Ok(())
        });
        cleared.unwrap_or(Err(Errno::Srch))
    }

    /// Whether frames that the entry shows are counted: neither guards nor the zero frame nor a device's are.
    fn is_counted(&self, entry: Entry) -> bool {
        let frame = entry.frame();
        self.leaves == Leaves::Counted
            && leaf::has_frame(entry)
            && frame != self.pager.zero
            && self.pager.frames().is_ours(frame)
    }

    /// Whether the frame of a private page is this space's alone.
    pub(super) fn is_own(&self, entry: Entry) -> bool {
        let (frame, frames) = (entry.frame(), self.pager.frames());
        !leaf::is_shared(entry)
            && frame != self.pager.zero
            && frames.used_as(frame) == Some(FrameUse::Anonymous)
            && frames.references(frame) == 1
    }

    /// One more entry shows the frame.
    ///
    /// # Errors
    /// It is shown too often.
    pub(super) fn share_frame(&self, frame: FrameNumber) -> Result<(), Errno> {
        if self.pager.frames().is_ours(frame) && frame != self.pager.zero {
            self.pager.frames().share(frame).map_err(FrameError::errno)?;
        }
        Ok(())
    }

    /// An entry that showed the frame, or was to show it, does not.
    pub(super) fn release_frame(&self, frame: FrameNumber) {
        if self.pager.frames().is_ours(frame) && frame != self.pager.zero {
            self.pager.release(frame);
        }
    }

    /// Some pages are about to be such that may be dropped.
    pub(super) fn note_droppable(&self) {
        self.droppable.store(1, Ordering::Relaxed);
    }

    /// Whether there may be some.
    pub(super) fn may_have_droppable(&self) -> bool {
        self.droppable.load(Ordering::Relaxed) != 0
    }

    /// Checks the tables, and that each entry lies in a region of `map` and allows no more than that.
    ///
    /// # Panics
    /// If something is wrong.
    pub(super) fn check_invariants(&self, map: &Vmmap) {
        let checked = self.with_root(|root| {
            self.tables().check_invariants(root);
            let Some(user) = PageRange::new(VirtAddr::new(0), VirtAddr::new(1 << 47)) else { return };
            self.tables().entries(root, user, &mut |span, entry, _| self.check_entry(span, entry, map));
        });
        assert!(checked.is_some(), "a space that has ended");
    }

    fn check_entry(&self, span: PageRange, entry: Entry, map: &Vmmap) {
        let region =
            map.get(span.start()).unwrap_or_else(|| panic!("{entry:?} at {span}, where nothing is mapped")).region;
        if leaf::is_guard(entry) {
            return;
        }
        assert!(leaf::has_frame(entry), "{entry:?} at {span}");
        assert_eq!(entry.is_present(), !region.prot.is_empty(), "{entry:?} at {span} of {region:?}");
        assert!(!leaf::is_writable(entry) || region.prot.contains(Prot::WRITE), "{entry:?} at {span} of {region:?}");
        let may_run = entry.is_present() && !entry.contains(EntryFlags::NO_EXECUTE);
        assert!(!may_run || region.prot.contains(Prot::EXEC), "{entry:?} at {span} of {region:?}");
        assert_eq!(leaf::is_shared(entry), region.is_shared(), "{entry:?} at {span} of {region:?}");
        if self.is_counted(entry) {
            assert!(self.pager.frames().references(entry.frame()) > 0, "{entry:?} at {span} shows a free frame");
        }
    }

    /// What the tables have at `page`.
    pub(super) fn entry(&self, root: &Root, page: VirtAddr) -> Entry {
        self.tables().query(root, page).leaf().unwrap_or(Entry::EMPTY)
    }
}

impl<M: PhysMem + Mmu> Drop for SpaceTables<M> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<M: PhysMem + Mmu> TableOwner for SpaceTables<M> {
    fn allocate_table(&self) -> Result<FrameNumber, Errno> {
        self.pager.zeroed_frame(&self.owner, FrameUse::Table)
    }

    fn release_table(&self, table: FrameNumber) -> Released {
        let released = self.pager.frames().release_unless_last(table);
        debug_assert!(released.is_ok(), "{table}: {released:?}");
        released.unwrap_or(Released::StillUsed)
    }

    fn free_table(&self, table: FrameNumber) {
        self.pager.release(table);
    }

    fn share_table(&self, table: FrameNumber) -> Result<(), Errno> {
        self.pager.frames().share(table).map(drop).map_err(FrameError::errno)
    }

    fn table_references(&self, table: FrameNumber) -> u32 {
        self.pager.frames().references(table)
    }

    fn used_entries(&self, table: FrameNumber) -> &AtomicU32 {
        self.pager.frames().word(table)
    }

    fn share_leaf(&self, leaf: Entry, _level: Level) -> Result<Entry, Errno> {
        if self.is_counted(leaf) {
            self.pager.frames().share(leaf.frame()).map_err(FrameError::errno)?;
        }
        Ok(if leaf::is_shared(leaf) { leaf } else { leaf.without(EntryFlags::WRITABLE) })
    }

    fn protect_leaf(&self, leaf: Entry, _level: Level) -> Entry {
        if leaf::is_shared(leaf) || self.is_own(leaf) { leaf } else { leaf.without(EntryFlags::WRITABLE) }
    }

    fn release_leaf(&self, leaf: Entry, _level: Level) {
        self.note_store(leaf);
        if self.is_counted(leaf) {
            self.pager.release(leaf.frame());
        }
    }
}
