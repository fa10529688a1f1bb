//! The plain interface of a page table: map, unmap, protect.

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, Table};
use crate::page_table::{Entry, EntryFlags, Gather, Level, Mapped, PageTable, Root, TableOwner};

/// What [`PageTable::protect`] sets.
const RIGHTS: EntryFlags =
    EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER).union(EntryFlags::NO_EXECUTE);

impl<'a, M: PhysMem + Mmu, O: TableOwner> PageTable<'a, M, O> {
    /// Shows `frame` at `page`.
    ///
    /// # Errors
    /// [`Errno::Exist`] if something is there, [`Errno::Inval`] if there is no such page, or what the owner says.
    #[inline]
    pub fn map(&self, root: &mut Root, page: VirtAddr, frame: FrameNumber, flags: EntryFlags) -> Result<(), Errno> {
        let number = table::page_of(page)?;
        let entry = Entry::new(frame, flags - EntryFlags::HUGE);
        if entry.is_empty() {
            return Err(Errno::Inval);
        }
        let table = match self.leaf_table(root, number) {
            Some(table) => table,
            // Nothing is split or copied for a page that turns out to be there.
            None if matches!(self.query(root, page), Mapped::Leaf { .. }) => return Err(Errno::Exist),
            None => Table { level: Level::One, ..self.path(root, number, Level::One)? },
        };
        let at = table.place(table.index_of(number));
        if !self.read(at).is_empty() {
            return Err(Errno::Exist);
        }
        self.write(at, entry);
        self.set_used(table, self.used(table) + 1);
        Ok(())
    }

    /// Shows `frames` from `first` on: all of them, or none if it fails. With [`EntryFlags::HUGE`] by 2 MiB leaves
    /// where addresses and frames are aligned.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_run(
        &self,
        root: &mut Root,
        first: VirtAddr,
        frames: FrameRange,
        flags: EntryFlags,
    ) -> Result<(), Errno> {
        let range = PageRange::from_pages(first.page_number(), frames.frames()).ok_or(Errno::Inval)?;
        table::check(range)?;
        if Entry::new(frames.first(), flags - EntryFlags::HUGE).is_empty() {
            return Err(Errno::Inval);
        }
        if !self.is_vacant(root, range) {
            return Err(Errno::Exist);
        }
        let mut gather = Gather::new(*self, root);
        if flags.contains(EntryFlags::HUGE) {
            // An empty table would be in the way of a large leaf.
            self.prune(root, range, &mut gather);
        }
        let run = Run { pages: range, frame: frames.first().get(), flags };
        let made = self.make_room(root, Table::root(root), run);
        if made.is_err() {
            self.prune(root, range, &mut gather);
            return made;
        }
        self.fill(Table::root(root), run);
        Ok(())
    }

    /// Makes the tables for what `table`, exclusive, holds of a run. Goes down no deeper than there are levels.
    fn make_room(&self, root: &Root, table: Table, run: Run) -> Result<(), Errno> {
        for index in table.indices(run.pages) {
            let mut entry = self.read(table.place(index));
            if !table::is_exclusive(entry) {
                if entry.is_empty() && run.has_large_leaf(table, index) {
                    continue;
                }
                let page = table.first_page(index).max(run.pages.first_page());
                self.path(root, page, table.child(index, entry).level)?;
                entry = self.read(table.place(index));
            }
            let child = table.child(index, entry);
            if child.level != Level::One {
                self.make_room(root, child, run)?;
            }
        }
        Ok(())
    }

    /// Enters what `table` holds of a run for which there are tables. Goes down no deeper than there are levels.
    fn fill(&self, table: Table, run: Run) {
        let mut entered = 0;
        for index in table.indices(run.pages) {
            let at = table.place(index);
            let page = table.first_page(index).max(run.pages.first_page());
            let frame = FrameNumber::new(run.frame + (page - run.pages.first_page()));
            let frame = frame.unwrap_or_else(|| unreachable!("a run ends where frames do"));
            if table.level == Level::One {
                self.write(at, Entry::new(frame, run.flags - EntryFlags::HUGE));
                entered += 1;
                continue;
            }
            let entry = self.read(at);
            if entry.is_empty() {
                self.write(at, Entry::new(frame, run.flags));
                entered += 1;
            } else {
                self.fill(table.child(index, entry), run);
            }
        }
        if entered > 0 {
            self.add_used(table, entered);
        }
    }

    fn add_used(&self, table: Table, entries: u64) {
        self.set_used(table, self.used(table) + u32::try_from(entries).unwrap_or_default());
    }

    /// Takes away what is at `page`, and says what it was. It is released after the flush, by the gather.
    ///
    /// # Errors
    /// What the owner says if a shared table has to be copied or a 2 MiB leaf split.
    #[inline]
    pub fn unmap(
        &self,
        root: &mut Root,
        page: VirtAddr,
        gather: &mut Gather<'a, M, O>,
    ) -> Result<Option<Entry>, Errno> {
        let number = table::page_of(page)?;
        let table = match self.leaf_table(root, number) {
            Some(table) => table,
            None if self.query(root, page).leaf().is_none() => return Ok(None),
            None => Table { level: Level::One, ..self.path(root, number, Level::One)? },
        };
        let index = table.index_of(number);
        let at = table.place(index);
        let entry = self.read(at);
        if entry.is_empty() {
            return Ok(None);
        }
        let old = self.replace(at, entry, Entry::EMPTY);
        let used = self.used(table) - 1;
        self.set_used(table, used);
        gather.leaf(table.span(index), old, Level::One);
        if used == 0 {
            self.prune(root, table.span(index), gather);
        }
        Ok(Some(old))
    }

    /// Gives every leaf in `range` the rights of `flags`: present, writable, user, no execute. Else it stays as it is.
    ///
    /// # Errors
    /// As [`make_exclusive`](Self::make_exclusive).
    #[inline]
    pub fn protect(
        &self,
        root: &mut Root,
        range: PageRange,
        flags: EntryFlags,
        gather: &mut Gather<'a, M, O>,
    ) -> Result<(), Errno> {
        let given = |entry: Entry| entry.without(RIGHTS).with(flags & RIGHTS);
        if range.pages().get() == 1
            && let Some(table) = table::page_of(range.start()).ok().and_then(|page| self.leaf_table(root, page))
        {
            self.protect_one(table.place(table.index_of(range.first_page())), range, gather, given);
            return Ok(());
        }
        self.make_exclusive(root, range)?;
        self.edit_with(root, range, gather, &mut |_, entry, _| given(entry));
        Ok(())
    }

    #[inline]
    fn protect_one(
        &self,
        at: PhysAddr,
        page: PageRange,
        gather: &mut Gather<'a, M, O>,
        given: impl Fn(Entry) -> Entry,
    ) {
        let entry = self.read(at);
        let new = given(entry);
        if entry.is_empty() || new == entry {
            return;
        }
        if self.replace(at, entry, new).is_present() {
            gather.flush(page);
        }
    }
}

/// Pages that are to show frames that follow each other.
#[derive(Clone, Copy)]
struct Run {
    pages: PageRange,
    frame: u64,
    flags: EntryFlags,
}

impl Run {
    /// Whether what the entry of `table` at `index` spans is to be one leaf of 2 MiB.
    fn has_large_leaf(self, table: Table, index: u64) -> bool {
        let first = table.first_page(index);
        table.level == Level::Two
            && self.flags.contains(EntryFlags::HUGE)
            && self.pages.contains_range(table.span(index))
            && (self.frame + (first - self.pages.first_page())) & (Level::Two.pages() - 1) == 0
    }
}
