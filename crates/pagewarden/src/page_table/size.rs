//! Splitting and joining of 2 MiB leaves.

use crate::addr::VirtAddr;
use crate::error::Errno;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, BY_PROCESSOR, Table};
use crate::page_table::{Entry, EntryFlags, Level, Mapped, PageTable, Root, TableOwner};

impl<M: PhysMem + Mmu, O: TableOwner> PageTable<'_, M, O> {
    /// Makes the 2 MiB leaf at `page`, if there is one, 512 leaves that show the same. Nothing is flushed: what
    /// processors know stays true.
    ///
    /// # Errors
    /// What the owner says who is asked for a table.
    pub fn split(&self, root: &mut Root, page: VirtAddr) -> Result<(), Errno> {
        match self.query(root, page) {
            Mapped::Leaf { level, .. } if level > Level::One => {
                self.path(root, table::page_of(root, page)?, Level::One).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Makes the 512 leaves of the 2 MiB around `page` one, if they are present in an exclusive table, show frames that
    /// follow each other from an aligned one on, and have the same flags but for accessed and dirty, which are merged.
    /// Whether that is so. Flushes by itself: two sizes for one address are never seen.
    pub fn promote(&self, root: &mut Root, page: VirtAddr) -> bool {
        let Ok(page) = table::page_of(root, page) else { return false };
        let Some(above) = self.existing(root, page, Level::Two) else { return false };
        let index = above.index_of(page);
        let entry = self.read(above.place(index));
        if !table::is_exclusive(entry) {
            return false;
        }
        let small = above.child(index, entry);
        if self.used(small.frame) != 512 || self.joined(small).is_none() {
            return false;
        }
        self.write(above.place(index), Entry::EMPTY);
        self.memory.flush(root.frame(), above.span(index));
        // No processor can set bits any more.
        let Some(leaf) = self.joined(small) else {
            self.write(above.place(index), entry);
            return false;
        };
        self.write(above.place(index), leaf);
        self.owner.leaf_joined(leaf, above.level);
        self.discard(small.frame);
        true
    }

    /// The one leaf that shows what all of `small` do, if there can be one.
    fn joined(&self, small: Table) -> Option<Entry> {
        let first = self.read(small.place(0));
        let is_aligned = first.frame().get() & (Level::Two.pages() - 1) == 0;
        if !first.is_present() || first.contains(EntryFlags::HUGE) || !is_aligned {
            return None;
        }
        let mut set = EntryFlags::empty();
        for index in 0..Entry::PER_TABLE {
            let entry = self.read(small.place(index));
            set |= entry.flags() & BY_PROCESSOR;
            if entry.without(BY_PROCESSOR).word() != first.without(BY_PROCESSOR).word() + (index << 12) {
                return None;
            }
        }
        Some(first.with(set | EntryFlags::HUGE))
    }
}
