//! Fork: two spaces that show the same.

use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, Family, TABLE, Table};
use crate::page_table::{Entry, EntryFlags, Gather, Level, PageTable, Root, TableOwner};

/// What becomes of a table in a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Both spaces refer to it. For tables with nothing but what may be copied on write.
    All,
    /// What is in it is looked at by itself.
    Inside,
    /// The child gets nothing of it.
    Nothing,
}

/// Who knows what a child gets.
pub trait ForkPolicy {
    /// What becomes of the table that spans `span`. Asked from the root down, about tables that are there.
    fn decide(&mut self, span: PageRange) -> Share;

    /// What parent and child show from now on where the parent shows `entry`, in a table of `level`; the child's is
    /// counted by now. `None` if the child gets nothing and the parent's stays. Processors may set accessed and dirty in
    /// the parent's meanwhile; these are kept.
    ///
    /// # Errors
    /// Whatever makes the fork fail. Nothing has been counted.
    fn copy_leaf(&mut self, page: VirtAddr, entry: Entry, level: Level) -> Result<Option<(Entry, Entry)>, Errno>;
}

impl<'a, M: PhysMem + Mmu, O: TableOwner> PageTable<'a, M, O> {
    /// Gives `child`, which is empty and which no processor uses, what `policy` says of `parent`, whose `gather` is
    /// finished before anybody may write through either.
    ///
    /// # Errors
    /// What the policy or the owner says. The child is empty then, and the parent shows what it did, though perhaps
    /// protected against stores that are then found to be allowed.
    pub fn fork(
        &self,
        parent: &mut Root,
        child: &mut Root,
        gather: &mut Gather<'a, M, O>,
        policy: &mut dyn ForkPolicy,
    ) -> Result<(), Errno> {
        parent.family = Family::Some;
        child.family = Family::Some;
        let mut fork = Fork { tables: *self, root: parent, gather, policy };
        let (from, to) = (Table::root(parent), Table::root(child));
        debug_assert_eq!(self.used(to.frame), 0, "a child starts empty");
        let result = fork.copy(from, to);
        if result.is_err() {
            self.abandon(child);
        }
        result
    }

    /// Releases everything that a space has whose root no processor has used.
    fn abandon(&self, root: &Root) {
        let table = Table::root(root);
        for index in root.own() {
            let entry = self.read(table.place(index));
            if entry.is_empty() {
                continue;
            }
            self.write(table.place(index), Entry::EMPTY);
            let child = table.child(index, entry);
            self.release_tree(child.frame, child.level);
        }
        self.set_used(table.frame, 0);
    }
}

/// A fork under way.
struct Fork<'f, 'a, M: PhysMem + Mmu, O: TableOwner> {
    tables: PageTable<'a, M, O>,
    /// The parent's.
    root: &'f Root,
    gather: &'f mut Gather<'a, M, O>,
    policy: &'f mut dyn ForkPolicy,
}

impl<M: PhysMem + Mmu, O: TableOwner> Fork<'_, '_, M, O> {
    /// Gives `child` what it gets of `parent`; both are exclusive. Goes down no deeper than there are levels.
    fn copy(&mut self, parent: Table, child: Table) -> Result<(), Errno> {
        let tables = self.tables;
        let (mut left, mut given) = (tables.used(parent.frame), 0);
        for index in 0..Entry::PER_TABLE {
            if left == 0 {
                break;
            }
            let entry = tables.read(parent.place(index));
            if entry.is_empty() {
                continue;
            }
            left -= 1;
            let new = if entry.is_table(parent.level) {
                self.table(parent, child, index, entry)?
            } else {
                self.leaf(parent, index, entry)?
            };
            if !new.is_empty() {
                tables.write(child.place(index), new);
                given += 1;
                tables.set_used(child.frame, given);
            }
        }
        Ok(())
    }

    /// What the child gets for an entry that leads to a table.
    fn table(&mut self, parent: Table, child: Table, index: u64, entry: Entry) -> Result<Entry, Errno> {
        let tables = self.tables;
        if tables.used(parent.child(index, entry).frame) == 0 {
            return Ok(Entry::EMPTY);
        }
        match self.policy.decide(parent.span(index)) {
            Share::Nothing => Ok(Entry::EMPTY),
            Share::All => {
                tables.owner.share_table(entry.frame())?;
                let shown = entry.without(EntryFlags::WRITABLE);
                if shown != entry {
                    tables.write(parent.place(index), shown);
                    self.gather.flush(parent.span(index));
                }
                Ok(shown)
            }
            Share::Inside => {
                if !table::is_exclusive(entry) {
                    tables.reshape(self.root, parent, index, self.gather)?;
                }
                let from = parent.child(index, tables.read(parent.place(index)));
                let to = child.child_at(index, tables.owner.allocate_table()?);
                let result = self.copy(from, to);
                if result.is_err() || tables.used(to.frame) == 0 {
                    tables.release_tree(to.frame, to.level);
                    return result.map(|()| Entry::EMPTY);
                }
                Ok(Entry::new(to.frame, TABLE))
            }
        }
    }

    /// What the child gets for a leaf.
    fn leaf(&mut self, parent: Table, index: u64, entry: Entry) -> Result<Entry, Errno> {
        let copied = self.policy.copy_leaf(parent.address(index), entry, parent.level)?;
        let Some((shown, new)) = copied else { return Ok(Entry::EMPTY) };
        if shown != entry {
            self.tables.replace(parent.place(index), entry, shown);
            if entry.is_present() {
                self.gather.flush(parent.span(index));
            }
        }
        Ok(new)
    }
}
