//! Moving entries, and not what they show.

use crate::addr::PageRange;
use crate::error::Errno;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::{self, Table};
use crate::page_table::{Entry, Gather, Level, PageTable, Root, TableOwner};

/// From where to where entries move: ranges of one length that share no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// Where they are.
    pub from: PageRange,
    /// Where they go. Nothing is there.
    pub to: PageRange,
}

impl<'a, M: PhysMem + Mmu, O: TableOwner> PageTable<'a, M, O> {
    /// Moves all entries of a range to another, each as `change` makes it if that is given. Without it a table of level 1
    /// that both sides span as a whole moves by the entry that leads to it, shared or not. Nothing is released but for
    /// what `change` makes empty.
    ///
    /// # Errors
    /// What the owner says who is asked for tables and references; nothing that can be seen has changed then.
    /// [`Errno::Exist`] if the target is not empty, [`Errno::Inval`] if the ranges differ in length, share a page or lie across the hole between the halves.
    pub fn move_entries(
        &self,
        root: &mut Root,
        which: Move,
        gather: &mut Gather<'a, M, O>,
        mut change: Option<&mut dyn FnMut(Entry) -> Entry>,
    ) -> Result<(), Errno> {
        let Move { from, to } = which;
        table::check(root, from)?;
        table::check(root, to)?;
        if from.pages() != to.pages() || from.intersects(to) {
            return Err(Errno::Inval);
        }
        if !self.is_vacant(root, to) {
            return Err(Errno::Exist);
        }
        // Only empty tables are there; they would be in the way of those that move.
        self.make_clearable(root, to)?;
        self.clear(root, to, gather);
        let inside = Inside::of(&change);
        let mut done = 0;
        while let Some(piece) = self.next_piece(root, which, done) {
            done = piece.end(which);
            let level = piece.level(inside);
            let made = self.path(root, piece.from, level).and_then(|_| self.path(root, piece.to, level));
            if let Err(error) = made {
                self.prune(root, to, gather);
                return Err(error);
            }
        }
        done = 0;
        while let Some(piece) = self.next_piece(root, which, done) {
            done = piece.end(which);
            self.move_piece(root, piece, gather, change.as_deref_mut());
        }
        self.prune(root, from, gather);
        self.prune(root, to, gather);
        Ok(())
    }

    /// The first piece of a move with something in it, from the page `done` on.
    fn next_piece(&self, root: &mut Root, which: Move, mut done: u64) -> Option<Piece> {
        let pages = which.from.pages().get();
        while done < pages {
            let (from, to) = (which.from.first_page() + done, which.to.first_page() + done);
            let (level, entry) = self.lowest(root, from);
            // A table of level 1 is a piece whatever is in it: looking is as dear as moving.
            if !entry.is_empty() || level == Level::One {
                let left = |page: u64| Entry::PER_TABLE - (page & (Entry::PER_TABLE - 1));
                let is_leaf = level != Level::One;
                return Some(Piece { from, to, pages: left(from).min(left(to)).min(pages - done), is_leaf });
            }
            done = (from | (level.pages() - 1)) + 1 - which.from.first_page();
        }
        None
    }

    /// The level of the lowest table for `page`, and its entry there.
    fn lowest(&self, root: &mut Root, page: u64) -> (Level, Entry) {
        let mut table = Table::root(root);
        loop {
            let index = table.index_of(page);
            let entry = self.read(table.place(index));
            if !entry.is_table(table.level) {
                return (table.level, entry);
            }
            table = table.child(index, entry);
        }
    }

    /// Moves a piece for which there are exclusive tables on both sides.
    fn move_piece(
        &self,
        root: &mut Root,
        piece: Piece,
        gather: &mut Gather<'a, M, O>,
        mut change: Option<&mut (dyn FnMut(Entry) -> Entry + '_)>,
    ) {
        let level = piece.level(Inside::of(&change));
        let tables = (self.existing(root, piece.from, level), self.existing(root, piece.to, level));
        let (Some(source), Some(target)) = tables else { return };
        let (first, start) = (source.index_of(piece.from), target.index_of(piece.to));
        let entries = piece.pages >> level.page_shift();
        let (mut taken, mut given) = (0, 0);
        for offset in 0..entries {
            let at = source.place(first + offset);
            let entry = self.read(at);
            if entry.is_empty() {
                continue;
            }
            taken += 1;
            let old = self.replace(at, entry, Entry::EMPTY);
            let new = change.as_deref_mut().map_or(old, |change| change(old));
            if new.is_empty() {
                gather.leaf(source.span(first + offset), old, level);
            } else {
                self.write(target.place(start + offset), new);
                given += 1;
            }
        }
        if taken > 0 {
            gather.flush(source.spans(first, first + entries - 1));
            self.set_used(source.frame, self.used(source.frame) - taken);
            self.set_used(target.frame, self.used(target.frame) + given);
        }
    }
}

/// Pages that one table holds on either side.
#[derive(Clone, Copy)]
struct Piece {
    from: u64,
    to: u64,
    pages: u64,
    /// Whether they are, or are a part of, one leaf.
    is_leaf: bool,
}

impl Piece {
    /// How much of the move is done with it.
    fn end(self, which: Move) -> u64 {
        self.from + self.pages - which.from.first_page()
    }

    /// The level of the tables whose entries move: a leaf of 2 MiB can always move as one, a table if nothing in it
    /// changes.
    fn level(self, inside: Inside) -> Level {
        let is_one = self.pages == Entry::PER_TABLE && (self.is_leaf || inside == Inside::Kept);
        if is_one { Level::Two } else { Level::One }
    }
}

/// What becomes of the entries of a table in a move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Kept,
    Changed,
}

impl Inside {
    fn of<T>(change: &Option<T>) -> Self {
        if change.is_some() { Self::Changed } else { Self::Kept }
    }
}
