//! A space's root, the view of its tables, and tables as places.

use core::ops::Range;

use crate::addr::{PageCount, PageRange, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::FrameNumber;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, Level, Released, TableOwner};
use crate::sync::{Mutex, Ordering};

/// What an entry that leads to an exclusive table says.
pub(super) const TABLE: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);
/// What processors set by themselves.
pub(super) const BY_PROCESSOR: EntryFlags = EntryFlags::ACCESSED.union(EntryFlags::DIRTY);

/// Entries that are read at once.
const LINE: u64 = 8;

/// Page numbers are below this; the last page is never part of a range.
const PAGES: u64 = 1 << 52;
/// Pages of either half of what four levels reach.
const HALF: u64 = 1 << 35;

/// Whether there may be spaces that share tables with another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    /// It has never been forked, nor is it a fork's child.
    None,
    /// There may be.
    Some,
}

/// The root of one space's tables. Not to be cloned: shared access to it is shared access to the tables, exclusive
/// access to it is exclusive access to all of them that are not shared with other spaces.
///
/// It owns the tables only in the hands of [`PageTable::destroy`].
#[derive(Debug)]
pub struct Root {
    frame: FrameNumber,
    /// Held by the one thread of the space that makes a table exclusive or splits an entry.
    pub(super) reshaping: Mutex<()>,
    /// Whether a table may have been shared, by a fork from or to this space.
    pub(super) family: Family,
    /// The root whose upper half this one has, if it has none of its own.
    upper: Option<FrameNumber>,
}

impl Root {
    /// An empty root table.
    ///
    /// # Errors
    /// What [`TableOwner::allocate_table`] says.
    #[inline]
    pub fn new(owner: &impl TableOwner) -> Result<Self, Errno> {
        Ok(Self { frame: owner.allocate_table()?, reshaping: Mutex::new(()), family: Family::None, upper: None })
    }

    /// The frame of the root table, which processors are given.
    #[inline]
    pub fn frame(&self) -> FrameNumber {
        self.frame
    }

    /// The root whose upper half this one has, if it has none of its own.
    pub(super) fn upper(&self) -> Option<FrameNumber> {
        self.upper
    }

    /// The entries of the root table that are this space's: in these lies all that it can be asked to change.
    pub(super) fn own(&self) -> Range<u64> {
        let halves = if self.upper.is_some() { 1 } else { 2 };
        0..halves * Entry::PER_TABLE / 2
    }
}

/// The tables of spaces, with what it takes to read and change them. The space is chosen by the [`Root`] that each
/// method is given. Addresses may lie in either half of the canonical space; the last page of all cannot be used.
#[derive(Debug)]
pub struct PageTable<'a, M, O> {
    pub(super) memory: &'a M,
    pub(super) owner: &'a O,
}

impl<M, O> Clone for PageTable<'_, M, O> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, O> Copy for PageTable<'_, M, O> {}

impl<'a, M: PhysMem + Mmu, O: TableOwner> PageTable<'a, M, O> {
    /// Tables in `memory` that come from `owner`.
    #[inline]
    pub fn new(memory: &'a M, owner: &'a O) -> Self {
        Self { memory, owner }
    }

    /// A root table with nothing in its lower half, whose upper half is that of `upper`: the tables below it are both
    /// roots', and through the new one alone nothing there is seen, changed, counted or released. The entries of `upper`
    /// stay as they are for as long as the new root is there.
    ///
    /// # Errors
    /// What [`TableOwner::allocate_table`] says.
    pub fn root_below(&self, upper: &Root) -> Result<Root, Errno> {
        let root = Root { upper: Some(upper.frame), ..Root::new(self.owner)? };
        for index in root.own().end..Entry::PER_TABLE {
            let entry = self.read(place_in(upper.frame, index));
            self.write(place_in(root.frame, index), entry.without(EntryFlags::ACCESSED));
        }
        Ok(root)
    }

    /// The entry at `at`.
    #[inline]
    pub(super) fn read(&self, at: PhysAddr) -> Entry {
        Entry::from_word(self.memory.load(at))
    }

    /// Stores an entry that no processor changes meanwhile, or whose accessed bit may be lost.
    #[inline]
    pub(super) fn write(&self, at: PhysAddr, entry: Entry) {
        self.memory.store(at, entry.word());
    }

    /// Replaces `old` by `new` where nobody but processors changes it. What was there at last: `old` with the bits that
    /// processors have set since; `new` gets them too if it shows the same frame.
    #[inline]
    pub(super) fn replace(&self, at: PhysAddr, old: Entry, new: Entry) -> Entry {
        let may_become_dirty =
            old.contains(EntryFlags::PRESENT | EntryFlags::WRITABLE) && !old.contains(EntryFlags::DIRTY);
        if !may_become_dirty {
            self.write(at, new);
            return old;
        }
        let (mut old, mut new) = (old, new);
        while let Err(word) = self.memory.compare_exchange(at, old.word(), new.word()) {
            let found = Entry::from_word(word);
            let set = found.flags() & (BY_PROCESSOR - old.flags());
            if !new.is_empty() && new.shows_same(found) {
                new = new.with(set);
            }
            old = found;
        }
        old
    }

    /// Goes through those of the entries `indices` of `table` that are not empty, as they are when their line is read.
    #[inline]
    pub(super) fn fold<S>(
        &self,
        table: Table,
        indices: Range<u64>,
        mut state: S,
        mut step: impl FnMut(S, u64, Entry) -> S,
    ) -> S {
        let mut first = indices.start & !(LINE - 1);
        while first < indices.end {
            let mut line = self.memory.load_line(table.place(first));
            if first < indices.start || indices.end - first < LINE {
                let is_asked_for = |at| indices.contains(&(first + at));
                (0..).zip(&mut line).filter(|(at, _)| !is_asked_for(*at)).for_each(|(_, word)| *word = 0);
            }
            for (at, word) in (0..).zip(line) {
                if word != 0 {
                    state = step(state, first + at, Entry::from_word(word));
                }
            }
            first += LINE;
        }
        state
    }

    /// How many entries of `table` are not empty.
    #[inline]
    pub(super) fn used(&self, table: FrameNumber) -> u32 {
        self.owner.used_entries(table).load(Ordering::Relaxed)
    }

    /// The same, stored by whoever has the table alone.
    #[inline]
    pub(super) fn set_used(&self, table: FrameNumber, used: u32) {
        self.owner.used_entries(table).store(used, Ordering::Relaxed);
    }

    /// Gives back a table that no processor and no other thread has seen.
    #[inline]
    pub(super) fn discard(&self, frame: FrameNumber) {
        if self.owner.release_table(frame) == Released::Last {
            self.owner.free_table(frame);
        }
    }
}

/// A table and where in the space it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) frame: FrameNumber,
    pub(super) level: Level,
    /// The number of the first page that it spans; 0 for a root.
    pub(super) first: u64,
}

impl Table {
    #[inline]
    pub(super) fn root(root: &Root) -> Self {
        Self { frame: root.frame, level: Level::ROOT, first: 0 }
    }

    /// The table that `entry`, this one's at `index`, leads to; itself if it is of level 1.
    #[inline]
    pub(super) fn child(self, index: u64, entry: Entry) -> Self {
        self.child_at(index, entry.frame())
    }

    #[inline]
    pub(super) fn child_at(self, index: u64, frame: FrameNumber) -> Self {
        let level = self.level.below().unwrap_or(Level::One);
        Self { frame, level, first: self.first_page(index) }
    }

    /// Where the entry at `index` is.
    #[inline]
    pub(super) fn place(self, index: u64) -> PhysAddr {
        place_in(self.frame, index)
    }

    /// The first page that the entry at `index` spans.
    #[inline]
    pub(super) fn first_page(self, index: u64) -> u64 {
        let page = self.first + (index << self.level.page_shift());
        if page >= HALF && self.level == Level::ROOT { page + (PAGES - 2 * HALF) } else { page }
    }

    /// Its address.
    #[inline]
    pub(super) fn address(self, index: u64) -> VirtAddr {
        VirtAddr::from_page_number(self.first_page(index)).unwrap_or_default()
    }

    /// What the entry at `index` spans, without the last page of all: level 1 has no entry for it, since no path leads
    /// there ([`page_of`]).
    #[inline]
    pub(super) fn span(self, index: u64) -> PageRange {
        PageRange::up_to_last(self.first_page(index), self.level.pages())
    }

    /// What the entries from `first` to `last` span.
    #[inline]
    pub(super) fn spans(self, first: u64, last: u64) -> PageRange {
        let (first, last) = (self.span(first), self.span(last));
        PageRange::new(first.start(), last.end()).unwrap_or(last)
    }

    /// The entries that hold a part of `range`, which lies in one half and shares a page with this table.
    #[inline]
    pub(super) fn indices(self, range: PageRange) -> Range<u64> {
        let is_root = self.level == Level::ROOT;
        let end = self.first + (Entry::PER_TABLE << self.level.page_shift());
        let from = if is_root || range.first_page() > self.first { self.index_of(range.first_page()) } else { 0 };
        let to =
            if is_root || range.end_page() < end { self.index_of(range.end_page() - 1) + 1 } else { Entry::PER_TABLE };
        from..to
    }

    /// Those of `indices`, the entries that hold a part of `range`, that hold nothing else.
    #[inline]
    pub(super) fn whole(self, range: PageRange, indices: &Range<u64>) -> Range<u64> {
        let cuts_first = range.first_page() > self.first_page(indices.start);
        let cuts_last = range.end_page() < self.span(indices.end - 1).end_page();
        indices.start + u64::from(cuts_first)..indices.end - u64::from(cuts_last)
    }

    /// Which entry page number `page` belongs to.
    #[inline]
    pub(super) fn index_of(self, page: u64) -> u64 {
        page >> self.level.page_shift() & (Entry::PER_TABLE - 1)
    }
}

/// Where the entry of the table in `frame` is whose index are the lowest bits of `index`.
#[inline]
pub(super) fn place_in(frame: FrameNumber, index: u64) -> PhysAddr {
    frame.at(index << 3)
}

/// Whether an entry of an exclusive table of `level` leads to an exclusive table.
#[inline]
pub(super) fn is_exclusive(entry: Entry) -> bool {
    const WANTED: u64 = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).bits();
    entry.word() & (WANTED | EntryFlags::HUGE.bits()) == WANTED
}

/// The number of the page at `address`, if the space has a place for it.
#[inline]
pub(super) fn page_of(root: &Root, address: VirtAddr) -> Result<u64, Errno> {
    let page = address.page_number();
    let is_upper = || root.upper.is_none() && (PAGES - HALF..PAGES - 1).contains(&page);
    if page < HALF || is_upper() { Ok(page) } else { Err(Errno::Inval) }
}

/// Whether all of `range` lies in one half, of the space's own.
#[inline]
pub(super) fn check(root: &Root, range: PageRange) -> Result<(), Errno> {
    let is_upper = || root.upper.is_none() && range.first_page() >= PAGES - HALF;
    if range.end_page() <= HALF || is_upper() { Ok(()) } else { Err(Errno::Inval) }
}

/// The parts of `range` that the space has places for, lowest first.
#[inline]
pub(super) fn parts(root: &Root, range: PageRange) -> impl Iterator<Item = PageRange> + use<> {
    let half = |first, pages| PageRange::from_pages(first, PageCount::new(pages));
    let upper = if root.upper.is_none() { half(PAGES - HALF, HALF - 1) } else { None };
    [half(0, HALF), upper].into_iter().flatten().filter_map(move |half| half.intersection(range))
}
