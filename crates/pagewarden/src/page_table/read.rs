//! Reading: what is at a page, and what is in a range.
//!
//! Both may run while another thread of the space copies a table that it shared. The old table is another space's then
//! and may change. So what was read through entries that are not exclusive counts only if these are the same afterwards:
//! a table stays as it is for as long as such an entry of this space leads to it, and an entry that has led elsewhere, or
//! has become exclusive, is never as it was again while the space is locked for reading.

use arrayvec::ArrayVec;

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, BY_PROCESSOR, Table};
use crate::page_table::{Entry, EntryFlags, Level, PageTable, Root, TableOwner};

/// What the tables say of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapped {
    /// A leaf, present or not.
    Leaf {
        /// Its entry.
        entry: Entry,
        /// The level of the table that it is in.
        level: Level,
        /// Whether all entries above allow stores.
        above_writable: bool,
    },
    /// Nothing; the table of this level has an empty entry.
    Nothing(Level),
}

impl Mapped {
    /// Whether stores go through.
    pub fn allows_store(self) -> bool {
        const ALLOWED: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE);
        matches!(self, Self::Leaf { entry, above_writable: true, .. } if entry.contains(ALLOWED))
    }

    /// The leaf, if there is one.
    pub fn leaf(self) -> Option<Entry> {
        match self {
            Self::Leaf { entry, .. } => Some(entry),
            Self::Nothing(_) => None,
        }
    }
}

/// The tables above a place: the last of them, and the entries that may be led elsewhere meanwhile.
struct Way {
    table: Table,
    /// From the first entry on that is not exclusive.
    shared: ArrayVec<(PhysAddr, Entry), 3>,
}

/// Pages that are asked for: from one on, up to another.
#[derive(Clone, Copy)]
struct Wanted {
    page: u64,
    end: u64,
}

impl<M: PhysMem + Mmu, O: TableOwner> PageTable<'_, M, O> {
    /// What is at `page`. Inlined, lest what it returns goes through memory.
    #[inline(always)]
    pub fn query(&self, root: &Root, page: VirtAddr) -> Mapped {
        let Ok(page) = table::page_of(root, page) else { return Mapped::Nothing(Level::ROOT) };
        // Tables that are exclusive stay while the space is locked.
        let Some(table) = self.leaf_table(root, page) else { return self.query_any(root, page) };
        let entry = self.read(table::place_in(table, page));
        if entry.is_empty() {
            return Mapped::Nothing(Level::One);
        }
        Mapped::Leaf { entry, level: Level::One, above_writable: true }
    }

    /// The same where it may lie anywhere, and a table above be led elsewhere meanwhile.
    fn query_any(&self, root: &Root, page: u64) -> Mapped {
        loop {
            let way = self.way(root, page);
            let entry = self.read(way.table.place(way.table.index_of(page)));
            if !self.stands(&way) {
                continue;
            }
            let level = way.table.level;
            if entry.is_empty() {
                return Mapped::Nothing(level);
            }
            return Mapped::Leaf { entry, level, above_writable: way.shared.is_empty() };
        }
    }

    /// Every leaf with a page in `range`, lowest first, with what it spans: more than lies in the range, for a 2 MiB
    /// leaf at its edge. What is not there is passed over a table at a time.
    #[inline]
    pub fn entries(&self, root: &Root, range: PageRange, each: &mut (impl FnMut(PageRange, Entry, Level) + ?Sized)) {
        self.fold_entries(root, range, (), &mut |(), span, entry, level| each(span, entry, level));
    }

    /// The same for what is made of one after the other, beginning with `state`: a sum, a count.
    #[inline]
    pub fn fold_entries<S>(
        &self,
        root: &Root,
        range: PageRange,
        state: S,
        step: &mut impl FnMut(S, PageRange, Entry, Level) -> S,
    ) -> S {
        let fold = |state, part| self.fold_exclusive((root, Table::root(root)), part, state, step);
        table::parts(root, range).fold(state, fold)
    }

    /// What `table` has of it, which is exclusive and so stays. Goes down no deeper than there are levels.
    fn fold_exclusive<S>(
        &self,
        (root, table): (&Root, Table),
        range: PageRange,
        state: S,
        step: &mut impl FnMut(S, PageRange, Entry, Level) -> S,
    ) -> S {
        let indices = table.indices(range);
        if table.level == Level::One {
            // As below, where the compiler need not think of tables.
            return self.fold(table, indices, state, |state, index, entry| {
                step(state, PageRange::of_page(table.first + index), entry, Level::One)
            });
        }
        self.fold(table, indices, state, |state, index, entry| {
            if entry.is_table(table.level) {
                return self.fold_below((root, table, index), entry, range, (state, step));
            }
            step(state, table.span(index), entry, table.level)
        })
    }

    /// What the table has of it that `entry`, of `table` at `index`, leads to. Kept out of the loop over leaves, which then
    /// stays in registers.
    #[inline(never)]
    fn fold_below<S>(
        &self,
        (root, table, index): (&Root, Table, u64),
        entry: Entry,
        range: PageRange,
        (state, step): (S, &mut impl FnMut(S, PageRange, Entry, Level) -> S),
    ) -> S {
        if table::is_exclusive(entry) {
            return self.fold_exclusive((root, table.child(index, entry)), range, state, step);
        }
        let part = table.span(index).intersection(range);
        part.into_iter().fold(state, |state, part| self.fold_shared(root, part, state, step))
    }

    /// What there is where tables may be led elsewhere meanwhile.
    fn fold_shared<S>(
        &self,
        root: &Root,
        range: PageRange,
        mut state: S,
        step: &mut impl FnMut(S, PageRange, Entry, Level) -> S,
    ) -> S {
        let mut page = range.first_page();
        while page < range.end_page() {
            let way = self.way(root, page);
            (page, state) = self.fold_table(&way, Wanted { page, end: range.end_page() }, state, step);
        }
        state
    }

    /// The leaves of the table at the end of `way`, until it leads to another table or turns out to be stale. Where to
    /// go on.
    fn fold_table<S>(
        &self,
        way: &Way,
        Wanted { mut page, end }: Wanted,
        mut state: S,
        step: &mut impl FnMut(S, PageRange, Entry, Level) -> S,
    ) -> (u64, S) {
        let table = way.table;
        let mut known = page;
        for index in table.index_of(page)..Entry::PER_TABLE {
            if page >= end {
                break;
            }
            let entry = self.read(table.place(index));
            if !entry.is_empty() {
                if !self.stands(way) {
                    return (known, state);
                }
                if entry.is_table(table.level) {
                    return (page, state);
                }
                let span = table.span(index);
                state = step(state, span, entry, table.level);
                known = span.end_page();
            }
            page = (page | (table.level.pages() - 1)) + 1;
        }
        (if self.stands(way) { page } else { known }, state)
    }

    /// The way to the lowest table for `page`.
    #[inline]
    fn way(&self, root: &Root, page: u64) -> Way {
        let mut way = Way { table: Table::root(root), shared: ArrayVec::new() };
        while way.table.level != Level::One {
            let index = way.table.index_of(page);
            let at = way.table.place(index);
            let entry = self.read(at);
            // What another space has made of a table that was ours need not even be a table.
            if !self.stands(&way) {
                way = Way { table: Table::root(root), shared: ArrayVec::new() };
                continue;
            }
            if !entry.is_table(way.table.level) {
                break;
            }
            if !way.shared.is_empty() || !entry.contains(EntryFlags::WRITABLE) {
                way.shared.push((at, entry));
            }
            way.table = way.table.child(index, entry);
        }
        way
    }

    /// Whether the tables on `way` were still this space's when what they hold was read, and as shared as before: who
    /// makes one exclusive changes what its entries mean.
    #[inline]
    fn stands(&self, way: &Way) -> bool {
        way.shared.iter().all(|(at, entry)| self.read(*at).without(BY_PROCESSOR) == entry.without(BY_PROCESSOR))
    }
}
