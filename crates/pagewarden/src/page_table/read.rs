//! Reading: what is at a page, and what is in a range.
//!
//! Both may run while another thread of the space copies a table that it shared. The old table is another space's then
//! and may change. So what was read through entries that are not exclusive counts only if these still lead to the same
//! tables afterwards: a table stays as it is for as long as an entry of this space leads to it, and an entry that has
//! led elsewhere never leads back while the space is locked for reading.

use arrayvec::ArrayVec;

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, Table};
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

impl<M: PhysMem + Mmu, O: TableOwner> PageTable<'_, M, O> {
    /// What is at `page`.
    #[inline]
    pub fn query(&self, root: &Root, page: VirtAddr) -> Mapped {
        let Ok(page) = table::page_of(page) else { return Mapped::Nothing(Level::ROOT) };
        let mut table = Table::root(root);
        loop {
            let entry = self.read(table.place(table.index_of(page)));
            if table.level != Level::One && table::is_exclusive(entry) {
                // Such a table stays while the space is locked.
                table = table.child(table.index_of(page), entry);
            } else if entry.is_empty() {
                return Mapped::Nothing(table.level);
            } else if entry.is_table(table.level) {
                return self.query_shared(root, page);
            } else {
                return Mapped::Leaf { entry, level: table.level, above_writable: true };
            }
        }
    }

    /// The same where a table above may be led elsewhere meanwhile.
    #[cold]
    fn query_shared(&self, root: &Root, page: u64) -> Mapped {
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
    pub fn entries(&self, root: &Root, range: PageRange, each: &mut (impl FnMut(PageRange, Entry, Level) + ?Sized)) {
        for part in table::parts(range) {
            let mut page = part.first_page();
            while page < part.end_page() {
                let way = self.way(root, page);
                page = if way.shared.is_empty() {
                    self.entries_of_exclusive(way.table, page, part.end_page(), each)
                } else {
                    self.entries_of(&way, page, part.end_page(), each)
                };
            }
        }
    }

    /// Those that `table`, which stays, has between `page` and `end`, until it leads to another table. Where to go on.
    #[inline]
    fn entries_of_exclusive(
        &self,
        table: Table,
        page: u64,
        end: u64,
        each: &mut (impl FnMut(PageRange, Entry, Level) + ?Sized),
    ) -> u64 {
        if table.level == Level::One {
            return self.leaves_of_exclusive(table, page, end, each);
        }
        for index in table.index_of(page)..Entry::PER_TABLE {
            let start = table.first_page(index);
            if start >= end {
                return end;
            }
            let entry = self.read(table.place(index));
            if entry.is_empty() {
                continue;
            }
            if entry.is_table(table.level) {
                return start.max(page);
            }
            each(table.span(index), entry, table.level);
        }
        table.first_page(Entry::PER_TABLE - 1) + table.level.pages()
    }

    /// The same for a table of level 1.
    #[inline]
    fn leaves_of_exclusive(
        &self,
        table: Table,
        page: u64,
        end: u64,
        each: &mut (impl FnMut(PageRange, Entry, Level) + ?Sized),
    ) -> u64 {
        let end = end.min(table.first + Entry::PER_TABLE);
        for index in page - table.first..end - table.first {
            let entry = self.read(table.frame.at(index << 3));
            if !entry.is_empty() {
                each(PageRange::of_page(table.first + index), entry, Level::One);
            }
        }
        end
    }

    /// Those that the table at the end of `way` has between `page` and `end`, until it leads to another table or turns
    /// out to be stale. Where to go on.
    fn entries_of(
        &self,
        way: &Way,
        mut page: u64,
        end: u64,
        each: &mut (impl FnMut(PageRange, Entry, Level) + ?Sized),
    ) -> u64 {
        let table = way.table;
        let mut known = page;
        for index in table.index_of(page)..Entry::PER_TABLE {
            if page >= end {
                break;
            }
            let entry = self.read(table.place(index));
            if !entry.is_empty() {
                if !self.stands(way) {
                    return known;
                }
                if entry.is_table(table.level) {
                    return page;
                }
                let span = table.span(index);
                each(span, entry, table.level);
                known = span.end_page();
            }
            page = (page | (table.level.pages() - 1)) + 1;
        }
        if self.stands(way) { page } else { known }
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

    /// Whether the tables on `way` were still this space's when what they hold was read.
    #[inline]
    fn stands(&self, way: &Way) -> bool {
        way.shared.iter().all(|(at, entry)| {
            let now = self.read(*at);
            now.is_present() && now.frame() == entry.frame()
        })
    }
}
