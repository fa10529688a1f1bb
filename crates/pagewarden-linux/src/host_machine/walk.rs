//! Walks of page tables, as a processor makes them.
//!
//! A walk holds the lock of the view that it is for. Whoever takes a table or a page away flushes before it becomes
//! something else, and a flush takes that lock: so what a walk finds stays what it is until the lock is given back.

use pagewarden::frame::FrameNumber;
use pagewarden::page_table::{Entry, EntryFlags, Level};
use pagewarden::{PhysAddr, VirtAddr};

use super::ram::Ram;

/// Pages that a table of level 1 speaks of: 2 MiB.
pub(super) const CHUNK: usize = 512;
/// log2 of that.
pub(super) const CHUNK_SHIFT: u32 = 9;

/// What the tables say of the pages of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Leaves<'r> {
    ram: &'r Ram,
    at: Place,
    /// Whether the entries above allow stores.
    is_writable: bool,
}

#[derive(Clone, Copy)]
enum Place {
    /// No table leads there.
    Nowhere,
    /// A table of level 1.
    Table(FrameNumber),
    /// An entry of a table above, for all of them: its place, and which of its frames is the first.
    Large(PhysAddr, u64),
}

/// A page that is present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaf {
    pub(super) frame: FrameNumber,
    /// Whether stores may go through without anybody being told.
    pub(super) is_writable: bool,
}

impl<'r> Leaves<'r> {
    /// Those of the chunk numbered `chunk` in the space of `root`.
    pub(super) fn of(ram: &'r Ram, root: FrameNumber, chunk: u64) -> Self {
        let address = VirtAddr::from_page_number(chunk << CHUNK_SHIFT).unwrap_or_default();
        let mut all = Self { ram, at: Place::Nowhere, is_writable: true };
        let (mut table, mut level) = (root, Level::ROOT);
        while let Some(below) = level.below() {
            let place = table.at(level.index(address) * size_of::<u64>() as u64);
            let entry = all.follow(place);
            if !entry.contains(EntryFlags::PRESENT | EntryFlags::USER) {
                return all;
            }
            all.is_writable &= entry.contains(EntryFlags::WRITABLE) || !entry.is_table(level);
            if !entry.is_table(level) {
                all.at = Place::Large(place, address.page_number() & (level.pages() - 1));
                return all;
            }
            (table, level) = (entry.frame(), below);
        }
        all.at = Place::Table(table);
        all
    }

    /// The entry at `place`, marked as used if it is present.
    fn follow(&self, place: PhysAddr) -> Entry {
        self.marked(place, EntryFlags::ACCESSED, |entry| entry.is_present())
    }

    /// The entry at `place`. If it is `fit`, it gets `marks` in the same step.
    fn marked(&self, place: PhysAddr, marks: EntryFlags, fit: impl Fn(Entry) -> bool) -> Entry {
        let mut entry = Entry::from_word(self.ram.load(place));
        loop {
            let marked = entry.with(marks);
            if marked == entry || !fit(entry) {
                return entry;
            }
            match self.ram.compare_exchange(place, entry.word(), marked.word()) {
                Ok(()) => return marked,
                Err(word) => entry = Entry::from_word(word),
            }
        }
    }

    /// Where the entry of page `index` of the chunk is, and how far into a large page that is, if it is in one.
    fn place(&self, index: usize) -> Option<(PhysAddr, Option<u64>)> {
        match self.at {
            Place::Nowhere => None,
            Place::Table(table) => Some((table.at((index * size_of::<u64>()) as u64), None)),
            Place::Large(place, first) => Some((place, Some(first + index as u64))),
        }
    }

    /// What there is at page `index`, which is marked as used.
    pub(super) fn load(&self, index: usize) -> Option<Leaf> {
        let (place, within) = self.place(index)?;
        self.leaf(self.follow(place), within)
    }

    /// The same for a store, which marks the page as stored to, if it goes through.
    pub(super) fn store(&self, index: usize) -> Option<Leaf> {
        const NEEDED: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);
        let (place, within) = self.place(index)?;
        let marks = EntryFlags::ACCESSED | EntryFlags::DIRTY;
        let entry = self.marked(place, marks, |entry| self.is_writable && entry.contains(NEEDED));
        self.leaf(entry, within).filter(|leaf| leaf.is_writable)
    }

    fn leaf(&self, entry: Entry, within: Option<u64>) -> Option<Leaf> {
        const STORED: EntryFlags = EntryFlags::WRITABLE.union(EntryFlags::DIRTY);
        if !entry.contains(EntryFlags::PRESENT | EntryFlags::USER) {
            return None;
        }
        let frame = match within {
            None => entry.frame(),
            // The lowest bit of a large page's frame selects a memory type.
            Some(within) => FrameNumber::new((entry.frame().get() & !1) + within)?,
        };
        Some(Leaf { frame, is_writable: self.is_writable && entry.contains(STORED) })
    }
}
