//! Releasing tables with all that is in them.

use arrayvec::ArrayVec;

use crate::frame::FrameNumber;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::Table;
use crate::page_table::{Entry, Gather, Level, PageTable, Released, Root, TableOwner};
use crate::sync::Ordering;

/// A table that is being released.
struct Releasing {
    frame: FrameNumber,
    level: Level,
    /// The next entry to look at.
    next: u64,
    /// Entries that are not empty from there on.
    left: u32,
}

impl<M: PhysMem + Mmu, O: TableOwner> PageTable<'_, M, O> {
    /// Releases everything in a space, and the root. No processor uses the space. An upper half that is another root's
    /// stays: its entries are not among those that are counted as used, and come last.
    pub fn destroy(&self, root: Root) {
        let table = Table::root(&root);
        let mut gather = Gather::new(*self, &root);
        let mut left = self.used(table.frame);
        for index in root.own() {
            if left == 0 {
                break;
            }
            let entry = self.read(table.place(index));
            if !entry.is_empty() {
                left -= 1;
                gather.flush(table.span(index));
            }
        }
        gather.finish();
        self.release_tree(table.frame, Level::ROOT);
    }

    /// Gives back one reference to a table. If it was the last, what is in it goes too. Everything in it has been
    /// flushed.
    pub(super) fn release_tree(&self, table: FrameNumber, level: Level) {
        let mut path: ArrayVec<Releasing, 4> = ArrayVec::new();
        path.extend(self.last_of(table, level));
        while let Some(top) = path.last_mut() {
            if top.left == 0 || top.next == Entry::PER_TABLE {
                self.owner.free_table(top.frame);
                path.pop();
                continue;
            }
            let entry = self.read(top.frame.at(top.next << 3));
            top.next += 1;
            if entry.is_empty() {
                continue;
            }
            top.left -= 1;
            match top.level.below() {
                Some(below) if entry.is_table(top.level) => {
                    let child = self.last_of(entry.frame(), below);
                    path.extend(child);
                }
                _ => self.owner.release_leaf(entry, top.level),
            }
        }
    }

    /// The table as one to release, if this reference was the last.
    fn last_of(&self, frame: FrameNumber, level: Level) -> Option<Releasing> {
        if self.owner.release_table(frame) == Released::StillUsed {
            return None;
        }
        let left = self.owner.used_entries(frame).load(Ordering::Relaxed);
        Some(Releasing { frame, level, next: 0, left })
    }
}
