//! What changed between two versions of a map.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;

use super::Vmmap;
use super::loose::current;
use super::node::{Leaf, Node, page_range};
use super::spans::{Span, Spans};
use crate::addr::PageRange;
use crate::region::Region;

/// Pages that two versions of a map show differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The pages.
    pub range: PageRange,
    /// What is there in the older version.
    pub before: Option<&'a Region>,
    /// What is there in the newer version.
    pub after: Option<&'a Region>,
}

/// Something of one version that is not compared yet.
#[derive(Clone, Copy)]
struct Item<'a> {
    first: u64,
    end: u64,
    what: What<'a>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Region(&'a Region),
    /// A node with its height; that of a leaf is 1.
    Subtree(&'a Node, usize),
}

impl<'a> Item<'a> {
    const fn height(&self) -> usize {
        match self.what {
            What::Region(_) => 0,
            What::Subtree(_, height) => height,
        }
    }

    const fn region(&self) -> Option<&'a Region> {
        match self.what {
            What::Region(region) => Some(region),
            What::Subtree(..) => None,
        }
    }

    fn is_same_subtree(&self, other: &Self) -> bool {
        match (self.what, other.what) {
            (What::Subtree(Node::Leaf(a), _), What::Subtree(Node::Leaf(b), _)) => Arc::ptr_eq(a, b),
            (What::Subtree(Node::Inner(a), _), What::Subtree(Node::Inner(b), _)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// What is left to compare of one version.
struct Rest<'a> {
    /// The lowest last.
    items: Vec<Item<'a>>,
    loose: Option<&'a Leaf>,
}

impl<'a> Rest<'a> {
    fn of(map: &'a Vmmap) -> Self {
        let loose = map.loose.as_deref();
        let Some(root) = &map.root else { return Self { items: Vec::new(), loose } };
        let Span { first, end, .. } = map.whole.span;
        Self { items: Vec::from([Item { first, end, what: What::Subtree(root, root.height()) }]), loose }
    }

    fn lowest(&self) -> Option<Item<'a>> {
        self.items.last().copied()
    }

    /// Puts what is in the lowest item, a subtree, in its place.
    fn open(&mut self) {
        let Some(Item { what: What::Subtree(node, height), .. }) = self.items.pop() else { return };
        match node {
            Node::Leaf(leaf) => {
                let leaf = current(leaf, self.loose);
                self.push(&leaf.spans, |slot| What::Region(&leaf.regions[slot]));
            }
            Node::Inner(inner) => {
                self.push(&inner.spans, |slot| What::Subtree(&inner.children[slot], height - 1));
            }
        }
    }

    fn push<const N: usize>(&mut self, spans: &Spans<N>, what: impl Fn(usize) -> What<'a>) {
        let item = |slot| Item { first: spans.first(slot), end: spans.end(slot), what: what(slot) };
        self.items.extend((0..spans.len()).rev().map(item));
    }

    /// Drops what the lowest item has below `page`.
    fn advance(&mut self, page: u64) {
        if let Some(item) = self.items.last_mut() {
            item.first = item.first.max(page);
            if item.first >= item.end {
                self.items.pop();
            }
        }
    }
}

/// Two versions, compared from the lowest page on.
struct Comparison<'a> {
    older: Rest<'a>,
    newer: Rest<'a>,
    changes: Vec<Change<'a>>,
}

impl<'a> Comparison<'a> {
    /// Compares the lowest items, or opens what must be opened first. Gives whether there was anything.
    fn step(&mut self) -> bool {
        match (self.older.lowest(), self.newer.lowest()) {
            (None, None) => return false,
            (Some(older), Some(newer)) if older.is_same_subtree(&newer) && !self.has_loose(&older) => {
                self.older.advance(older.end);
                self.newer.advance(newer.end);
            }
            // The taller first: a subtree that both have shows up in both at its own height.
            (Some(older), Some(newer)) if older.first < newer.end && newer.first < older.end => {
                let tallest = older.height().max(newer.height());
                if tallest == 0 {
                    self.compare(&older, &newer);
                    return true;
                }
                if older.height() == tallest {
                    self.older.open();
                }
                if newer.height() == tallest {
                    self.newer.open();
                }
            }
            (Some(older), newer) if newer.is_none_or(|newer| older.end <= newer.first) => match older.region() {
                None => self.older.open(),
                Some(_) => self.gone(&older, older.end),
            },
            (_, Some(newer)) => match newer.region() {
                None => self.newer.open(),
                Some(_) => self.come(&newer, newer.end),
            },
            (Some(_), None) => unreachable!("the arm before the last takes it"),
        }
        true
    }

    /// Whether the versions may differ in `item`, a subtree that both have, by a loose leaf.
    fn has_loose(&self, item: &Item<'a>) -> bool {
        let lies_in = |leaf: &Leaf| leaf.spans.first(0) < item.end && item.first < leaf.spans.whole().end;
        match (self.older.loose, self.newer.loose) {
            (Some(older), Some(newer)) if ptr::eq(older, newer) => false,
            (older, newer) => older.into_iter().chain(newer).any(lies_in),
        }
    }

    /// Compares two regions that share a page.
    fn compare(&mut self, older: &Item<'a>, newer: &Item<'a>) {
        if older.first < newer.first {
            return self.gone(older, newer.first);
        }
        if newer.first < older.first {
            return self.come(newer, older.first);
        }
        let end = older.end.min(newer.end);
        if older.region() != newer.region() {
            self.note(older.first, end, older.region(), newer.region());
        }
        self.older.advance(end);
        self.newer.advance(end);
    }

    fn gone(&mut self, item: &Item<'a>, end: u64) {
        self.note(item.first, end, item.region(), None);
        self.older.advance(end);
    }

    fn come(&mut self, item: &Item<'a>, end: u64) {
        self.note(item.first, end, None, item.region());
        self.newer.advance(end);
    }

    fn note(&mut self, first: u64, end: u64, before: Option<&'a Region>, after: Option<&'a Region>) {
        self.changes.push(Change { range: page_range(first, end), before, after });
    }
}

impl Vmmap {
    /// What is different in `newer`, lowest first. Parts that both versions share are not looked at, so the cost
    /// is that of the changes between them.
    pub fn diff<'a>(&'a self, newer: &'a Self) -> Vec<Change<'a>> {
        let (older, newer) = (Rest::of(self), Rest::of(newer));
        let mut comparison = Comparison { older, newer, changes: Vec::new() };
        while comparison.step() {}
        comparison.changes
    }
}

#[cfg(test)]
mod tests {
    use core::ops::Range;

    use super::*;
    use crate::addr::PageCount;
    use crate::prot::Prot;

    fn page(first: u64) -> PageRange {
        PageRange::from_pages(first, PageCount::new(1)).unwrap()
    }

    fn insert(map: &mut Vmmap, indices: Range<u64>) {
        for index in indices {
            map.insert(page(2 * index), Region::anonymous(Prot::READ)).unwrap();
        }
    }

    /// The changes, and the steps that they took.
    fn compare(older: &Vmmap, newer: &Vmmap) -> (usize, usize) {
        let mut comparison = Comparison { older: Rest::of(older), newer: Rest::of(newer), changes: Vec::new() };
        let steps = (0..).take_while(|_| comparison.step()).count();
        (comparison.changes.len(), steps)
    }

    #[test]
    fn what_both_share_is_not_looked_at() {
        let mut map = Vmmap::new(PageCount::ZERO);
        insert(&mut map, 0..5000);
        let older = map.clone();
        map.remove(page(5000)).unwrap();
        map.insert(page(10_001), Region::anonymous(Prot::EXEC)).unwrap();
        let (changes, steps) = compare(&older, &map);
        assert_eq!(changes, 2);
        assert!(steps < 300, "{steps} steps");
    }

    #[test]
    fn what_both_share_is_found_in_trees_of_different_height() {
        let mut map = Vmmap::new(PageCount::ZERO);
        insert(&mut map, 0..1200);
        let older = map.clone();
        insert(&mut map, 1200..2400);
        assert_ne!(older.root.as_ref().unwrap().height(), map.root.as_ref().unwrap().height());
        for (a, b) in [(&older, &map), (&map, &older)] {
            let (changes, steps) = compare(a, b);
            assert_eq!(changes, 1200);
            assert!(steps < 1200 + 300, "{steps} steps");
        }
    }
}
