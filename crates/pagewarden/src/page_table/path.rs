//! Ways down through exclusive tables: made where there are none, and made exclusive where they are shared.

use core::marker::PhantomData;

use arrayvec::ArrayVec;

use crate::addr::{PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::FrameNumber;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, TABLE, Table};
use crate::page_table::{Entry, EntryFlags, Gather, Level, PageTable, Root, TableOwner};
use crate::sync::Ordering;

/// The place of a leaf of level 1 in an exclusive table. Good for as long as the space stays locked: a fork may make
/// the table a shared one.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'r> {
    at: PhysAddr,
    root: PhantomData<&'r Root>,
}

impl<'a, M: PhysMem + Mmu, O: TableOwner> PageTable<'a, M, O> {
    /// The place of the leaf of level 1 for `page`, with all tables above present and exclusive to this space; a 2 MiB
    /// leaf that is in the way is split.
    ///
    /// # Errors
    /// What the owner says who is asked for a table or for one more reference to a leaf; nothing has changed then.
    /// [`Errno::Inval`] if there is no place for such a page.
    #[inline]
    pub fn slot<'r>(&self, root: &'r Root, page: VirtAddr) -> Result<Slot<'r>, Errno> {
        let page = table::page_of(root, page)?;
        let table = match self.leaf_table(root, page) {
            Some(table) => table,
            None => self.path(root, page, Level::One)?.frame,
        };
        Ok(Slot { at: table::place_in(table, page), root: PhantomData })
    }

    /// What is there.
    #[inline]
    pub fn load(&self, slot: &Slot<'_>) -> Entry {
        self.read(slot.at)
    }

    /// Puts `new` there, which is not empty, if `current` is what is there. What processors are to forget of `current`
    /// is the caller's business ([`Gather::leaf`]).
    ///
    /// # Errors
    /// What is there instead.
    #[inline]
    pub fn install(&self, root: &Root, slot: &Slot<'_>, current: Entry, new: Entry) -> Result<(), Entry> {
        debug_assert!(!new.is_empty(), "an entry becomes empty only where nobody else is at work: {root:?}");
        self.memory.compare_exchange(slot.at, current.word(), new.word()).map_err(Entry::from_word)?;
        if current.is_empty() {
            self.owner.used_entries(FrameNumber::containing(slot.at)).fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The table of level `to` that holds `page`, exclusive.
    #[inline]
    pub(super) fn path(&self, root: &Root, page: u64, to: Level) -> Result<Table, Errno> {
        let mut table = Table::root(root);
        while table.level > to {
            let index = table.index_of(page);
            let entry = self.read(table.place(index));
            if table::is_exclusive(entry) {
                table = table.child(index, entry);
            } else if entry.is_empty() {
                self.grow(table, page, to)?;
            } else {
                let mut gather = Gather::new(*self, root);
                self.reshape(root, table, index, &mut gather)?;
            }
        }
        Ok(table)
    }

    /// The table of level 1 that holds `page`, if it and all above it are exclusive. Step by step, with levels that the
    /// compiler knows, and in registers: a processor has the next walk under way while this one waits for memory.
    #[inline]
    pub(super) fn leaf_table(&self, root: &Root, page: u64) -> Option<FrameNumber> {
        let table = self.exclusive_child(root.frame(), Level::Four, page)?;
        let table = self.exclusive_child(table, Level::Three, page)?;
        self.exclusive_child(table, Level::Two, page)
    }

    /// The table below `table`, exclusive, that holds `page`, if it is exclusive.
    #[inline]
    fn exclusive_child(&self, table: FrameNumber, level: Level, page: u64) -> Option<FrameNumber> {
        let entry = self.read(table::place_in(table, page >> level.page_shift()));
        table::is_exclusive(entry).then(|| entry.frame())
    }

    /// The table of level `to` that holds `page`, if all above it is exclusive; `None` if there is none.
    #[inline]
    pub(super) fn existing(&self, root: &Root, page: u64, to: Level) -> Option<Table> {
        let mut table = Table::root(root);
        while table.level > to {
            let below = self.exclusive_child(table.frame, table.level, page)?;
            table = table.child_at(table.index_of(page), below);
        }
        Some(table)
    }

    /// Puts tables down to level `to` where `table`, exclusive, has nothing for `page`. They appear all at once, or not
    /// at all if somebody else was faster.
    #[cold]
    fn grow(&self, table: Table, page: u64, to: Level) -> Result<(), Errno> {
        let mut chain: ArrayVec<Table, 3> = ArrayVec::new();
        let mut above = table;
        while above.level > to {
            let new = match self.owner.allocate_table() {
                Ok(frame) => above.child_at(above.index_of(page), frame),
                Err(error) => {
                    chain.iter().for_each(|table| self.discard(table.frame));
                    return Err(error);
                }
            };
            chain.push(new);
            above = new;
        }
        for pair in chain.windows(2) {
            self.write(pair[0].place(pair[0].index_of(page)), Entry::new(pair[1].frame, TABLE));
            self.set_used(pair[0].frame, 1);
        }
        let Some(first) = chain.first() else { return Ok(()) };
        let entry = Entry::new(first.frame, TABLE);
        match self.memory.compare_exchange(table.place(table.index_of(page)), Entry::EMPTY.word(), entry.word()) {
            Ok(()) => {
                self.owner.used_entries(table.frame).fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.release_tree(first.frame, first.level),
        }
        Ok(())
    }

    /// Makes the entry of `table`, exclusive, at `index` lead to an exclusive table: makes a shared one exclusive, splits
    /// a leaf. Does nothing if somebody else has.
    #[cold]
    pub(super) fn reshape(
        &self,
        root: &Root,
        table: Table,
        index: u64,
        gather: &mut Gather<'a, M, O>,
    ) -> Result<(), Errno> {
        let _guard = root.reshaping.lock();
        let entry = self.read(table.place(index));
        if entry.is_empty() || table::is_exclusive(entry) {
            Ok(())
        } else if entry.is_table(table.level) {
            self.unshare(table, index, entry, gather)
        } else {
            self.split_leaf(table, index, entry)
        }
    }

    /// Makes the table that `entry`, of `table` at `index`, leads to exclusive. The lock in the root is held, or the
    /// root itself exclusively.
    fn unshare(&self, table: Table, index: u64, entry: Entry, gather: &mut Gather<'a, M, O>) -> Result<(), Errno> {
        let old = table.child(index, entry);
        if self.owner.table_references(old.frame) == 1 {
            self.adopt(old);
            self.set_flags(table.place(index), entry, entry.with(EntryFlags::WRITABLE));
            return Ok(());
        }
        let new = Table { frame: self.owner.allocate_table()?, ..old };
        if let Err(error) = self.copy_table(old, new) {
            self.release_tree(new.frame, new.level);
            return Err(error);
        }
        self.set_flags(table.place(index), entry, Entry::new(new.frame, TABLE));
        gather.table(table.span(index), old.frame, old.level);
        Ok(())
    }

    /// Corrects the entries of a table that was shared and has one reference left.
    fn adopt(&self, table: Table) {
        let mut left = self.used(table.frame);
        for index in 0..Entry::PER_TABLE {
            if left == 0 {
                break;
            }
            let entry = self.read(table.place(index));
            if entry.is_empty() {
                continue;
            }
            left -= 1;
            let right = if entry.is_table(table.level) {
                entry.without(EntryFlags::WRITABLE)
            } else {
                self.owner.protect_leaf(entry, table.level)
            };
            if right != entry {
                self.set_flags(table.place(index), entry, right);
            }
        }
    }

    /// Fills `new`, which nobody has seen, with what `old`, which does not change, shows. If that fails, `new` counts as
    /// many entries as it has.
    fn copy_table(&self, old: Table, new: Table) -> Result<(), Errno> {
        let used = self.used(old.frame);
        let mut copied = 0;
        for index in 0..Entry::PER_TABLE {
            if copied == used {
                break;
            }
            let entry = self.read(old.place(index));
            if entry.is_empty() {
                continue;
            }
            let shown = if entry.is_table(old.level) {
                self.owner.share_table(entry.frame()).map(|()| entry.without(EntryFlags::WRITABLE))
            } else {
                self.owner.share_leaf(entry, old.level)
            };
            match shown {
                Ok(shown) => self.write(new.place(index), shown),
                Err(error) => {
                    self.set_used(new.frame, copied);
                    return Err(error);
                }
            }
            copied += 1;
        }
        self.set_used(new.frame, copied);
        Ok(())
    }

    /// Puts a table of smaller leaves that show the same in the place of `leaf`.
    fn split_leaf(&self, table: Table, index: u64, leaf: Entry) -> Result<(), Errno> {
        let new = table.child_at(index, self.owner.allocate_table()?);
        self.owner.leaf_split(leaf, table.level);
        let mut leaf = leaf;
        loop {
            self.fill_split(new, leaf);
            let entry = Entry::new(new.frame, TABLE);
            match self.memory.compare_exchange(table.place(index), leaf.word(), entry.word()) {
                Ok(()) => return Ok(()),
                // The processor has set accessed or dirty: nobody else changes it.
                Err(word) => leaf = Entry::from_word(word),
            }
        }
    }

    fn fill_split(&self, new: Table, leaf: Entry) {
        let keeps_huge = new.level != Level::One;
        for index in 0..Entry::PER_TABLE {
            let offset = index << new.level.page_shift();
            let frame = FrameNumber::new(leaf.frame().get() + offset).unwrap_or_else(|| leaf.frame());
            let small = leaf.with_frame(frame);
            self.write(new.place(index), if keeps_huge { small } else { small.without(EntryFlags::HUGE) });
        }
        self.set_used(new.frame, 512);
    }

    /// Replaces an entry that nobody but processors changes, under the lock in the root, by one that differs in its flags
    /// or leads to another table. What processors set meanwhile is kept.
    fn set_flags(&self, at: PhysAddr, old: Entry, new: Entry) {
        let (mut old, mut new) = (old, new);
        while let Err(word) = self.memory.compare_exchange(at, old.word(), new.word()) {
            let found = Entry::from_word(word);
            new = new.with(found.flags() - old.flags());
            old = found;
        }
    }
}
