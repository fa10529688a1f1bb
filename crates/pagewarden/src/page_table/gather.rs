//! What must not be reused before the processors have forgotten it.

use arrayvec::ArrayVec;

use crate::addr::PageRange;
use crate::frame::FrameNumber;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::table::Table;
use crate::page_table::{Entry, Level, PageTable, Root, TableOwner};

/// Spans that are kept apart; more of them are joined.
const SPANS: usize = 8;
/// What waits for a flush; when there is more, there is a flush more.
const ITEMS: usize = 128;
/// The lower half ends here.
const HALF: u64 = 1 << 35;

/// Something to release after the flush.
#[derive(Clone, Copy, Debug)]
enum Item {
    Leaf(Entry, Level),
    /// A reference to a table of that level.
    Table(FrameNumber, Level),
}

/// A page that was unmapped or protected. Processors may know what was there until [`Gather::stale`] has seen to it.
#[must_use = "processors may know what was there, and it is not released, until a gather is told"]
#[derive(Debug)]
pub struct Stale {
    page: u64,
    entry: Entry,
    is_gone: bool,
}

impl Stale {
    #[inline]
    pub(super) fn unmapped(page: u64, entry: Entry) -> Self {
        Self { page, entry, is_gone: true }
    }

    #[inline]
    pub(super) fn protected(page: u64, entry: Entry) -> Self {
        Self { page, entry, is_gone: false }
    }

    /// What was there at last.
    #[inline]
    pub fn entry(&self) -> Entry {
        self.entry
    }
}

/// Collects spans to flush, and leaves and tables to release after that. It is of a fixed size: when it is full it
/// flushes and releases what it has and goes on. Dropping it does the rest, so it is dropped before the lock of the
/// space is.
pub struct Gather<'a, M: PhysMem + Mmu, O: TableOwner> {
    tables: PageTable<'a, M, O>,
    root: FrameNumber,
    spans: ArrayVec<PageRange, SPANS>,
    /// Everything in the lower half; spans there are not kept then.
    whole_lower_half: bool,
    items: ArrayVec<Item, ITEMS>,
}

impl<'a, M: PhysMem + Mmu, O: TableOwner> Gather<'a, M, O> {
    /// Nothing yet, of the space of `root`.
    #[inline]
    pub fn new(tables: PageTable<'a, M, O>, root: &Root) -> Self {
        Self { tables, root: root.frame(), spans: ArrayVec::new(), whole_lower_half: false, items: ArrayVec::new() }
    }

    /// What processors know of `range` is to be forgotten.
    #[inline]
    pub fn flush(&mut self, range: PageRange) {
        if self.spans.is_empty() && !self.whole_lower_half {
            self.spans.push(range);
        } else {
            self.flush_too(range);
        }
    }

    /// The same where something else is to be forgotten too.
    fn flush_too(&mut self, range: PageRange) {
        // Most often ranges come lowest first.
        if let Some(last) = self.spans.last_mut()
            && (range.start() == last.end() || last.contains_range(range))
        {
            *last = hull(*last, range);
            return;
        }
        self.flush_apart(range);
    }

    /// The same for a range that does not begin where the last one ends. What overlaps becomes one: a table that goes
    /// spans what went of it before.
    fn flush_apart(&mut self, mut range: PageRange) {
        self.spans.retain(|span| {
            let joined = join(*span, range);
            range = joined.unwrap_or(range);
            joined.is_none()
        });
        let is_lower = range.end_page() <= HALF;
        if is_lower && self.whole_lower_half {
            return;
        }
        if self.spans.is_full() {
            self.join_all();
            if is_lower && self.whole_lower_half {
                return;
            }
        }
        self.spans.push(range);
    }

    /// The leaf `entry` of a table of `level` at `span` was shown and is no more: it is released after the flush.
    #[inline]
    pub fn leaf(&mut self, span: PageRange, entry: Entry, level: Level) {
        if entry.is_present() {
            self.flush(span);
        }
        self.push(Item::Leaf(entry, level));
    }

    /// What processors know of a page is to be forgotten, and what was there released if it was unmapped.
    #[inline]
    pub fn stale(&mut self, Stale { page, entry, is_gone }: Stale) {
        let page = PageRange::of_page(page);
        if is_gone {
            self.leaf(page, entry, Level::One);
        } else if entry.is_present() {
            self.flush(page);
        }
    }

    /// As [`leaf`](Self::leaf), for the entry of `table` at `index`, whose span is made out here and in no loop.
    #[inline(never)]
    pub(super) fn leaf_of(&mut self, table: Table, index: u64, entry: Entry) {
        self.leaf(table.span(index), entry, table.level);
    }

    /// As [`leaf`](Self::leaf), for a reference to a table of `level` that spanned `span`, with all that is below.
    pub(super) fn table(&mut self, span: PageRange, table: FrameNumber, level: Level) {
        self.flush(span);
        self.push(Item::Table(table, level));
    }

    /// Flushes and releases everything so far.
    #[inline]
    pub fn finish(&mut self) {
        let memory = self.tables.memory;
        if core::mem::take(&mut self.whole_lower_half) {
            memory.flush_all(self.root);
        }
        while let Some(span) = self.spans.pop() {
            memory.flush(self.root, span);
        }
        while let Some(item) = self.items.pop() {
            match item {
                Item::Leaf(entry, level) => self.tables.owner.release_leaf(entry, level),
                Item::Table(table, level) => self.tables.release_tree(table, level),
            }
        }
        self.items.clear();
    }

    #[inline]
    fn push(&mut self, item: Item) {
        // What is full is flushed together with the span of this item, which is not in any table any more.
        if self.items.is_full() {
            self.finish();
        }
        self.items.push(item);
    }

    /// Makes room for spans: the lower half becomes one, the upper half another.
    fn join_all(&mut self) {
        let mut upper: Option<PageRange> = None;
        for span in self.spans.drain(..) {
            if span.end_page() <= HALF {
                self.whole_lower_half = true;
            } else {
                upper = Some(upper.map_or(span, |joined| hull(joined, span)));
            }
        }
        self.spans.extend(upper);
    }
}

impl<M: PhysMem + Mmu, O: TableOwner> Drop for Gather<'_, M, O> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Both as one, if nothing lies between.
#[inline]
fn join(one: PageRange, other: PageRange) -> Option<PageRange> {
    (one.first_page() <= other.end_page() && other.first_page() <= one.end_page()).then(|| hull(one, other))
}

/// The least range that holds both.
fn hull(one: PageRange, other: PageRange) -> PageRange {
    let start = one.start().min(other.start());
    PageRange::new(start, one.end().max(other.end())).unwrap_or(one)
}
