//! Changing what is there: leaf by leaf, or all of a range at once.

use core::ops::Range;

use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, BY_PROCESSOR, Family, Table};
use crate::page_table::{Entry, Gather, Level, PageTable, Root, TableOwner};

/// What is going to happen to a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Each leaf may change.
    Edit,
    /// All of it goes.
    Clear,
}

/// A range, and what for.
#[derive(Clone, Copy)]
struct Wanted {
    range: PageRange,
    purpose: Purpose,
}

/// What an edit does with shared tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shared {
    /// There are none.
    Unexpected,
    /// They stay as they are.
    Kept,
}

/// An edit under way.
struct Edit<'e, 'a, M: PhysMem + Mmu, O: TableOwner, C> {
    gather: &'e mut Gather<'a, M, O>,
    change: C,
    shared: Shared,
}

/// What has become of a table.
struct Edited {
    /// How many entries are left.
    used: u32,
    /// From the first leaf to the last one that is present and shows the same as before, otherwise.
    changed: Range<u64>,
}

impl<'a, M: PhysMem + Mmu, O: TableOwner> PageTable<'a, M, O> {
    /// Makes every table that holds a part of `range` exclusive and splits the 2 MiB leaves that its edges cut, so that
    /// [`edit`](Self::edit) cannot fail.
    ///
    /// # Errors
    /// What the owner says who is asked for tables and references; nothing that can be seen has changed.
    /// [`Errno::Inval`] if the range lies across the hole between the halves.
    pub fn make_exclusive(&self, root: &mut Root, range: PageRange) -> Result<(), Errno> {
        self.prepare(root, Wanted { range, purpose: Purpose::Edit })
    }

    /// The same for [`clear`](Self::clear): tables and leaves that lie in the range as a whole stay as they are.
    ///
    /// # Errors
    /// As [`make_exclusive`](Self::make_exclusive).
    pub fn make_clearable(&self, root: &mut Root, range: PageRange) -> Result<(), Errno> {
        self.prepare(root, Wanted { range, purpose: Purpose::Clear })
    }

    fn prepare(&self, root: &mut Root, wanted: Wanted) -> Result<(), Errno> {
        table::check(root, wanted.range)?;
        let mut gather = Gather::new(*self, root);
        self.prepare_in(root, Table::root(root), wanted, &mut gather)
    }

    /// Goes down no deeper than there are levels.
    fn prepare_in(
        &self,
        root: &Root,
        table: Table,
        wanted: Wanted,
        gather: &mut Gather<'a, M, O>,
    ) -> Result<(), Errno> {
        let indices = table.indices(wanted.range);
        let whole = table.whole(wanted.range, &indices);
        // Between the edges there can only be shared tables to do something about.
        let passed_over = match root.family {
            Family::None => indices.start + 1..(indices.end - 1).max(indices.start + 1),
            Family::Some => indices.end..indices.end,
        };
        for index in (indices.start..passed_over.start).chain(passed_over.end..indices.end) {
            let mut entry = self.read(table.place(index));
            if entry.is_empty() {
                continue;
            }
            if !table::is_exclusive(entry) {
                if whole.contains(&index) && (wanted.purpose == Purpose::Clear || !entry.is_table(table.level)) {
                    continue;
                }
                self.reshape(root, table, index, gather)?;
                entry = self.read(table.place(index));
            }
            let child = table.child(index, entry);
            let is_needed = wanted.purpose == Purpose::Edit || !whole.contains(&index);
            if child.level != Level::One && is_needed {
                self.prepare_in(root, child, wanted, gather)?;
            }
        }
        Ok(())
    }

    /// Replaces each leaf in `range` by what `change` makes of it. [`make_exclusive`](Self::make_exclusive) came before.
    /// A leaf that becomes empty or shows another frame than before is released after the flush, and so is a table that
    /// becomes empty.
    ///
    /// # Panics
    /// If a table in the range is shared, or an edge of the range cuts a leaf.
    pub fn edit(
        &self,
        root: &mut Root,
        range: PageRange,
        gather: &mut Gather<'a, M, O>,
        change: &mut dyn FnMut(VirtAddr, Entry, Level) -> Entry,
    ) {
        self.edit_with(root, range, gather, change);
    }

    /// The same for what lies in tables of this space alone; shared ones stay as they are.
    ///
    /// # Panics
    /// If an edge of the range cuts a leaf.
    pub fn edit_own(
        &self,
        root: &mut Root,
        range: PageRange,
        gather: &mut Gather<'a, M, O>,
        change: &mut dyn FnMut(VirtAddr, Entry, Level) -> Entry,
    ) {
        self.edit_parts(root, range, Edit { gather, change, shared: Shared::Kept });
    }

    /// The same where the change is known to the compiler.
    pub(super) fn edit_with(
        &self,
        root: &Root,
        range: PageRange,
        gather: &mut Gather<'a, M, O>,
        change: impl FnMut(VirtAddr, Entry, Level) -> Entry,
    ) {
        self.edit_parts(root, range, Edit { gather, change, shared: Shared::Unexpected });
    }

    fn edit_parts<C>(&self, root: &Root, range: PageRange, mut edit: Edit<'_, 'a, M, O, C>)
    where
        C: FnMut(VirtAddr, Entry, Level) -> Entry,
    {
        for part in table::parts(root, range) {
            self.edit_in(Table::root(root), part, &mut edit);
        }
    }

    /// How many entries of `table` are left. Goes down no deeper than there are levels.
    fn edit_in<C>(&self, table: Table, range: PageRange, edit: &mut Edit<'_, 'a, M, O, C>) -> u32
    where
        C: FnMut(VirtAddr, Entry, Level) -> Entry,
    {
        let before = self.used(table.frame);
        let indices = table.indices(range);
        let whole = table.whole(range, &indices);
        let edited = Edited { used: before, changed: indices.end..0 };
        let edited = if table.level == Level::One {
            // As below, where the compiler need not think of tables.
            let table = Table { level: Level::One, ..table };
            self.fold(table, indices, edited, |edited, index, entry| {
                self.edit_leaf((table, index), entry, edit, edited)
            })
        } else {
            self.fold(table, indices, edited, |mut edited, index, entry| {
                if entry.is_table(table.level) {
                    edited.used -= self.edit_below((table, index), entry, range, edit);
                    return edited;
                }
                assert!(whole.contains(&index), "leaves at the edges have been split");
                self.edit_leaf((table, index), entry, edit, edited)
            })
        };
        if !edited.changed.is_empty() {
            edit.gather.flush(table.spans(edited.changed.start, edited.changed.end - 1));
        }
        if edited.used != before {
            self.set_used(table.frame, edited.used);
        }
        edited.used
    }

    /// Edits the table that `entry`, of `table` at `index`, leads to; how many entries of `table` have gone: 1 if it has
    /// become empty. Kept out of the loop over leaves, which then stays in registers.
    #[inline(never)]
    fn edit_below<C>(
        &self,
        (table, index): (Table, u64),
        entry: Entry,
        range: PageRange,
        edit: &mut Edit<'_, 'a, M, O, C>,
    ) -> u32
    where
        C: FnMut(VirtAddr, Entry, Level) -> Entry,
    {
        if !table::is_exclusive(entry) {
            assert!(edit.shared == Shared::Kept, "what is edited has been made exclusive");
            return 0;
        }
        let child = table.child(index, entry);
        if self.edit_in(child, range, edit) > 0 {
            return 0;
        }
        self.unlink(table, index, child, edit.gather);
        1
    }

    #[inline]
    fn edit_leaf<C>(
        &self,
        (table, index): (Table, u64),
        entry: Entry,
        edit: &mut Edit<'_, 'a, M, O, C>,
        mut edited: Edited,
    ) -> Edited
    where
        C: FnMut(VirtAddr, Entry, Level) -> Entry,
    {
        let new = (edit.change)(table.address(index), entry, table.level);
        if new == entry {
            return edited;
        }
        let old = self.replace(table.place(index), entry, new);
        if new.is_empty() || !new.shows_same(old) {
            edit.gather.leaf_of(table, index, old);
            edited.used -= u32::from(new.is_empty());
        } else if old.is_present() {
            edited.changed = edited.changed.start.min(index)..index + 1;
        }
        edited
    }

    /// Takes away everything in `range`. [`make_clearable`](Self::make_clearable) came before.
    ///
    /// # Panics
    /// If an edge of the range lies in a shared table or cuts a leaf.
    pub fn clear(&self, root: &mut Root, range: PageRange, gather: &mut Gather<'a, M, O>) {
        for part in table::parts(root, range) {
            self.clear_in(Table::root(root), part, gather);
        }
    }

    /// How many entries of `table` are left. Goes down no deeper than there are levels.
    fn clear_in(&self, table: Table, range: PageRange, gather: &mut Gather<'a, M, O>) -> u32 {
        let before = self.used(table.frame);
        let indices = table.indices(range);
        let whole = table.whole(range, &indices);
        let used = self.fold(table, indices, before, |used, index, entry| {
            let child = table.child(index, entry);
            if !entry.is_table(table.level) {
                assert!(whole.contains(&index), "leaves at the edges have been split");
                let old = self.replace(table.place(index), entry, Entry::EMPTY);
                gather.leaf(table.span(index), old, table.level);
            } else if whole.contains(&index) {
                self.unlink(table, index, child, gather);
            } else {
                assert!(table::is_exclusive(entry), "tables at the edges have been made exclusive");
                if self.clear_in(child, range, gather) > 0 {
                    return used;
                }
                self.unlink(table, index, child, gather);
            }
            used - 1
        });
        if used != before {
            self.set_used(table.frame, used);
        }
        used
    }

    /// Takes `child` out of `table`; the caller counts. Its reference goes after the flush, and so does what is in it:
    /// only then have processors set their last bits there.
    fn unlink(&self, table: Table, index: u64, child: Table, gather: &mut Gather<'a, M, O>) {
        self.write(table.place(index), Entry::EMPTY);
        gather.table(table.span(index), child.frame, child.level);
    }

    /// Takes out the exclusive tables in `range`, which lies in one half, that are empty.
    pub(super) fn prune(&self, root: &Root, range: PageRange, gather: &mut Gather<'a, M, O>) {
        self.prune_in(Table::root(root), range, gather);
    }

    fn prune_in(&self, table: Table, range: PageRange, gather: &mut Gather<'a, M, O>) -> u32 {
        let before = self.used(table.frame);
        let mut used = before;
        if table.level == Level::One || used == 0 {
            return used;
        }
        for index in table.indices(range) {
            let entry = self.read(table.place(index));
            if !table::is_exclusive(entry) {
                continue;
            }
            let child = table.child(index, entry);
            if self.prune_in(child, range, gather) == 0 {
                self.unlink(table, index, child, gather);
                used -= 1;
            }
        }
        if used != before {
            self.set_used(table.frame, used);
        }
        used
    }

    /// Whether there is no leaf in `range`, which lies in one half.
    pub(super) fn is_vacant(&self, root: &mut Root, range: PageRange) -> bool {
        self.is_vacant_in(Table::root(root), range)
    }

    fn is_vacant_in(&self, table: Table, range: PageRange) -> bool {
        self.used(table.frame) == 0
            || table.indices(range).all(|index| {
                let entry = self.read(table.place(index));
                entry.is_empty() || entry.is_table(table.level) && self.is_vacant_in(table.child(index, entry), range)
            })
    }

    /// Tells of each present leaf in `range` that has the accessed or the dirty bit, and clears both. In a table that is
    /// shared they stay, and so do those of a 2 MiB leaf that reaches out of the range.
    pub fn harvest(
        &self,
        root: &mut Root,
        range: PageRange,
        gather: &mut Gather<'a, M, O>,
        each: &mut dyn FnMut(VirtAddr, Entry),
    ) {
        for part in table::parts(root, range) {
            self.harvest_in(Table::root(root), part, Some(gather), each);
        }
    }

    /// Without a `gather` the bits stay.
    fn harvest_in(
        &self,
        table: Table,
        range: PageRange,
        mut gather: Option<&mut Gather<'a, M, O>>,
        each: &mut dyn FnMut(VirtAddr, Entry),
    ) {
        let mut changed: Option<(u64, u64)> = None;
        for index in table.indices(range) {
            let entry = self.read(table.place(index));
            if entry.is_table(table.level) {
                let gather = gather.as_deref_mut().filter(|_| table::is_exclusive(entry));
                self.harvest_in(table.child(index, entry), range, gather, each);
                continue;
            }
            if !entry.is_present() || !entry.flags().intersects(BY_PROCESSOR) {
                continue;
            }
            each(table.address(index), entry);
            if gather.is_some() && range.contains_range(table.span(index)) {
                self.replace(table.place(index), entry, entry.without(BY_PROCESSOR));
                changed = Some((changed.map_or(index, |(first, _)| first), index));
            }
        }
        if let (Some((first, last)), Some(gather)) = (changed, gather) {
            gather.flush(table.spans(first, last));
        }
    }
}
