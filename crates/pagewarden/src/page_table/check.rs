//! Recomputing what must hold.

use core::ops::Range;

use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, BY_PROCESSOR, Table};
use crate::page_table::{Entry, EntryFlags, Level, PageTable, Root, TableOwner};

/// What a space has, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Tables that it leads to, with the root, each once for each way.
    pub tables: u64,
    /// Those of level 1 that are empty.
    pub empty_tables: u64,
    /// Leaves, present or not.
    pub leaves: u64,
}

impl<M: PhysMem + Mmu, O: TableOwner> PageTable<'_, M, O> {
    /// Recomputes everything that is written down about the tables of a space, and counts them; of an upper half that is
    /// another root's, whether it is still the same.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check_invariants(&self, root: &Root) -> Census {
        let mut census = Census::default();
        self.check_table(Table::root(root), root.own(), Way::Exclusive, &mut census);
        if let Some(upper) = root.upper() {
            for index in root.own().end..Entry::PER_TABLE {
                let [has, lent] =
                    [root.frame(), upper].map(|table| self.read(table::place_in(table, index)).without(BY_PROCESSOR));
                assert_eq!(has, lent, "entry {index} of a root whose upper half is that of {upper}");
            }
        }
        census
    }

    fn check_table(&self, table: Table, own: Range<u64>, way: Way, census: &mut Census) {
        let references = self.owner.table_references(table.frame);
        assert!(references > 0, "{table:?} is not referred to");
        assert!(way == Way::Shared || references == 1, "{table:?} is shared and may be written");
        census.tables += 1;
        let mut used = 0;
        for index in own {
            let entry = self.read(table.place(index));
            if entry.is_empty() {
                continue;
            }
            used += 1;
            if entry.is_table(table.level) {
                let is_open = way == Way::Exclusive && table::is_exclusive(entry);
                let way = if is_open { Way::Exclusive } else { Way::Shared };
                self.check_table(table.child(index, entry), 0..Entry::PER_TABLE, way, census);
                continue;
            }
            census.leaves += 1;
            if table.level != Level::One {
                assert!(entry.contains(EntryFlags::HUGE), "{entry:?} in {table:?} is no leaf");
                let offset = entry.frame().get() & (table.level.pages() - 1);
                assert_eq!(offset, 0, "{entry:?} in {table:?} is not aligned");
            }
        }
        assert_eq!(self.used(table.frame), used, "entries in use of {table:?}");
        match table.level {
            Level::One => census.empty_tables += u64::from(used == 0),
            Level::Two | Level::Three => assert!(used > 0, "{table:?} is empty"),
            Level::Four => {}
        }
    }
}

/// Whether all entries down to a table say that it is exclusive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Exclusive,
    Shared,
}
