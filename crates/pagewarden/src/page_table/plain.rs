//! The plain interface of a page table: map, unmap, protect.

use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, Table};
use crate::page_table::{Entry, EntryFlags, Gather, Level, Mapped, PageTable, Root, Stale, TableOwner};

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
        let number = table::page_of(root, page)?;
        let entry = Entry::new(frame, flags - EntryFlags::HUGE);
        if entry.is_empty() {
            return Err(Errno::Inval);
        }
        let table = match self.leaf_table(root, number) {
            Some(table) => table,
            // Nothing is split or copied for a page that turns out to be there.
            None if matches!(self.query(root, page), Mapped::Leaf { .. }) => return Err(Errno::Exist),
            None => self.path(root, number, Level::One)?.frame,
        };
        let at = table::place_in(table, number);
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
        table::check(root, range)?;
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
            self.add_used(table.frame, entered);
        }
    }

    fn add_used(&self, table: FrameNumber, entries: u64) {
        self.set_used(table, self.used(table) + u32::try_from(entries).unwrap_or_default());
    }

    /// Takes away what is at `page`, if there is something.
    ///
    /// # Errors
    /// What the owner says if a shared table has to be copied or a 2 MiB leaf split.
    #[inline]
    pub fn unmap(&self, root: &mut Root, page: VirtAddr) -> Result<Option<Stale>, Errno> {
        let number = table::page_of(root, page)?;
        let Some(table) = self.table_of_leaf(root, number)? else { return Ok(None) };
        let at = table::place_in(table, number);
        let entry = self.read(at);
        if entry.is_empty() {
            return Ok(None);
        }
        let entry = self.replace(at, entry, Entry::EMPTY);
        let used = self.used(table) - 1;
        self.set_used(table, used);
        if used == 0 {
            self.prune_page(root, number);
        }
        Ok(Some(Stale::unmapped(number, entry)))
    }

    /// Gives the leaf at `page`, if there is one, the rights of `flags`: present, writable, user, no execute. Else it
    /// stays as it is. `None` if nothing has changed.
    ///
    /// # Errors
    /// As [`unmap`](Self::unmap).
    #[inline]
    pub fn protect_page(&self, root: &mut Root, page: VirtAddr, flags: EntryFlags) -> Result<Option<Stale>, Errno> {
        let number = table::page_of(root, page)?;
        let Some(table) = self.table_of_leaf(root, number)? else { return Ok(None) };
        let at = table::place_in(table, number);
        let entry = self.read(at);
        let new = given(entry, flags & RIGHTS);
        if entry.is_empty() || new == entry {
            return Ok(None);
        }
        Ok(Some(Stale::protected(number, self.replace(at, entry, new))))
    }

    /// The same for every leaf in `range`.
    ///
    /// # Errors
    /// As [`make_exclusive`](Self::make_exclusive).
    pub fn protect(
        &self,
        root: &mut Root,
        range: PageRange,
        flags: EntryFlags,
        gather: &mut Gather<'a, M, O>,
    ) -> Result<(), Errno> {
        let rights = flags & RIGHTS;
        self.make_exclusive(root, range)?;
        self.edit_with(root, range, gather, move |_, entry, _| given(entry, rights));
        Ok(())
    }

    /// The table of level 1 for `page`, made exclusive if there is a leaf; `None` if there is none for sure.
    #[inline]
    fn table_of_leaf(&self, root: &Root, page: u64) -> Result<Option<FrameNumber>, Errno> {
        match self.leaf_table(root, page) {
            Some(table) => Ok(Some(table)),
            None => self.table_split_or_copied(root, page),
        }
    }

    #[cold]
    fn table_split_or_copied(&self, root: &Root, page: u64) -> Result<Option<FrameNumber>, Errno> {
        let address = PageRange::of_page(page).start();
        if self.query(root, address).leaf().is_none() {
            return Ok(None);
        }
        Ok(Some(self.path(root, page, Level::One)?.frame))
    }

    /// Takes out the table of `page`, which has become empty.
    #[cold]
    fn prune_page(&self, root: &Root, page: u64) {
        self.prune(root, PageRange::of_page(page), &mut Gather::new(*self, root));
    }
}

/// `entry` with these of the [`RIGHTS`].
#[inline]
fn given(entry: Entry, rights: EntryFlags) -> Entry {
    entry.without(RIGHTS).with(rights)
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
