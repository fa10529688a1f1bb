//! Nodes of the tree, and the descents that only read.
//!
//! A node is a handful of parallel arrays with one slot per region (leaf) or per child (inner node).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use arrayvec::ArrayVec;

use super::Entry;
use super::children::Children;
use super::classes::{Classes, SizeClass};
use super::spans::{Span, Spans};
use crate::addr::{PageCount, PageRange};
use crate::error::Errno;
use crate::fallible::make_sure_of_memory;
use crate::region::{Region, RegionFlags};

/// Most regions of a leaf.
pub(super) const LEAF_LEN: usize = 32;
/// Most children of an inner node.
pub(super) const INNER_LEN: usize = 64;
/// Fewest regions of a leaf that is not the root.
pub(super) const LEAF_LEAST: usize = LEAF_LEN / 4;
/// Fewest children of an inner node that is not the root.
pub(super) const INNER_LEAST: usize = INNER_LEN / 4;

/// What a parent knows of a child: a pure function of the child and the guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) span: Span,
    /// Pages in the largest gap between two regions of the child, guards taken off.
    pub(super) gap: u64,
}

/// A region with its bounds, on its way into or out of a leaf.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) region: Region,
}

/// A node with its summary, on its way into or out of an inner node.
#[derive(Clone)]
pub(super) struct Child {
    pub(super) summary: Summary,
    pub(super) node: Node,
}

/// A leaf or an inner node, shared between versions.
#[derive(Clone)]
pub(super) enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

/// Regions and where they lie.
pub(super) struct Leaf {
    pub(super) spans: Spans<LEAF_LEN>,
    pub(super) regions: ArrayVec<Region, LEAF_LEN>,
}

impl Clone for Leaf {
    #[inline]
    fn clone(&self) -> Self {
        Self { spans: self.spans.clone(), regions: copy(&self.regions) }
    }
}

/// Nodes of one height, and what is known of them.
#[derive(Clone)]
pub(super) struct Inner {
    pub(super) spans: Spans<INNER_LEN>,
    /// [`Summary::gap`] of each child; 0 when unused.
    pub(super) gaps: [u64; INNER_LEN],
    /// The larger of that and the gap just below the child.
    pub(super) classes: Classes,
    pub(super) children: Children,
}

impl Leaf {
    /// A leaf of the next `len` of `pieces`.
    pub(super) fn collect(pieces: &mut impl Iterator<Item = Piece>, len: usize) -> Self {
        let mut spans = Spans::EMPTY;
        spans.open(0, len);
        let place = |(slot, Piece { first, end, region })| {
            spans.set(slot, Span { first, end, guarded: grows_down(&region) });
            region
        };
        let regions = pieces.take(len).enumerate().map(place).collect();
        Self { spans, regions }
    }

    #[inline]
    pub(super) fn entry(&self, slot: usize) -> Entry<'_> {
        Entry { range: page_range(self.spans.first(slot), self.spans.end(slot)), region: &self.regions[slot] }
    }

    pub(super) fn pieces(&self, slots: Range<usize>) -> impl ExactSizeIterator<Item = Piece> {
        slots.map(|slot| Piece {
            first: self.spans.first(slot),
            end: self.spans.end(slot),
            region: self.regions[slot].clone(),
        })
    }

    pub(super) fn summary(&self, guard: u64) -> Summary {
        Summary { span: self.spans.whole(), gap: self.spans.max_gap(guard) }
    }

    /// Puts a region at `slot`, below what is there; there must be room.
    #[inline]
    pub(super) fn insert(&mut self, slot: usize, span: Span, region: Region) {
        self.regions.insert(slot, region);
        self.spans.open(slot, 1);
        self.spans.set(slot, span);
    }

    /// [`Self::insert`] of two regions that follow each other.
    #[inline]
    pub(super) fn insert_both(&mut self, slot: usize, low: (Span, Region), high: (Span, Region)) {
        self.regions.insert(slot, high.1);
        self.regions.insert(slot, low.1);
        self.spans.open(slot, 2);
        self.spans.set(slot, low.0);
        self.spans.set(slot + 1, high.0);
    }

    /// Puts `region` in the place of that at `slot`.
    #[inline]
    pub(super) fn replace(&mut self, slot: usize, region: Region) {
        self.spans.set(slot, Span { guarded: grows_down(&region), ..self.spans.span(slot) });
        self.regions[slot] = region;
    }

    /// Takes the slots in `gone` out.
    #[inline]
    pub(super) fn close(&mut self, gone: Range<usize>) {
        if gone.len() == 1 {
            self.regions.remove(gone.start);
        } else {
            self.regions.drain(gone.clone());
        }
        self.spans.close(gone);
    }

    pub(super) fn check(&self) {
        let len = self.regions.len();
        assert_eq!(self.spans.len(), len, "bounds without regions");
        self.spans.check();
        for (slot, region) in self.regions.iter().enumerate() {
            assert_eq!(self.spans.span(slot).guarded, grows_down(region), "guard of slot {slot}");
        }
    }
}

impl Inner {
    /// An inner node over the next `len` of `list`.
    pub(super) fn collect(list: &mut impl Iterator<Item = Child>, len: usize, guard: u64) -> Result<Self, Errno> {
        let mut spans = Spans::EMPTY;
        spans.open(0, len);
        let (mut gaps, mut classes) = ([0; INNER_LEN], Classes::EMPTY);
        let place = |(slot, child): (usize, Child)| {
            spans.set(slot, child.summary.span);
            gaps[slot] = child.summary.gap;
            classes.set(slot, gaps[slot].max(spans.gap_below(slot, guard)));
            child.node
        };
        let children = Children::collect(list.take(len).enumerate().map(place))?;
        Ok(Self { spans, gaps, classes, children })
    }

    pub(super) fn child(&self, slot: usize) -> Child {
        let summary = Summary { span: self.spans.span(slot), gap: self.gaps[slot] };
        Child { summary, node: self.children[slot].clone() }
    }

    pub(super) fn children(&self, slots: Range<usize>) -> impl ExactSizeIterator<Item = Child> {
        slots.map(|slot| self.child(slot))
    }

    /// The child whose pages, or the gap before them, hold `page`; the last child for all pages above.
    pub(super) fn route(&self, page: u64) -> usize {
        self.spans.rank_end(page).min(self.spans.len() - 1)
    }

    /// Pages in the largest gap between two regions under this node; there is one of `least` pages.
    #[inline]
    fn max_gap(&self, guard: u64, least: u64) -> u64 {
        // Gaps of lower classes are smaller, and those of the lowest are none.
        let class = self.classes.largest();
        if class < SizeClass::of(least.max(1)) {
            return least;
        }
        let (mut top, mut largest) = (self.spans.len(), least);
        while let Some(slot) = self.classes.highest(class, top) {
            debug_assert!(slot < top, "the search goes down");
            largest = largest.max(self.gaps[slot]).max(self.spans.gap_below(slot, guard));
            top = slot;
        }
        largest
    }

    pub(super) fn summary(&self, guard: u64) -> Summary {
        Summary { span: self.spans.whole(), gap: self.max_gap(guard, 0) }
    }

    /// Brings what is known of the child in `slot` up to date. Gives the largest gap there before and after.
    #[inline]
    pub(super) fn note(&mut self, slot: usize, child: Summary, guard: u64) -> (u64, u64) {
        let before = self.spans.gap_around(slot, guard).max(self.gaps[slot]);
        self.spans.set(slot, child.span);
        self.gaps[slot] = child.gap;
        self.classify(slot..slot + 1, guard);
        (before, self.spans.gap_around(slot, guard).max(child.gap))
    }

    /// What is known of this node, if `known` was true before the gaps in one place went from `before` to `after`.
    #[inline]
    pub(super) fn renew(&self, known: u64, (before, after): (u64, u64), guard: u64) -> Summary {
        let gap = renew(known, before, after).unwrap_or_else(|| self.max_gap(guard, after));
        Summary { span: self.spans.whole(), gap }
    }

    /// Brings the size classes of `slots`, and of the slot above, whose gap begins there, up to date.
    #[inline]
    fn classify(&mut self, slots: Range<usize>, guard: u64) {
        for slot in slots.start..self.spans.len().min(slots.end + 1) {
            self.classes.set(slot, self.gaps[slot].max(self.spans.gap_below(slot, guard)));
        }
    }

    /// Puts `list` in the place of the children in `at`; there must be room. Without memory, nothing is changed.
    pub(super) fn splice(&mut self, at: Range<usize>, list: &[Child], guard: u64) -> Result<(), Errno> {
        let children = self.children.spliced(at.clone(), list.iter().map(|child| child.node.clone()))?;
        let (start, count) = (at.start, list.len());
        let (len, after) = (self.spans.len(), children.len());
        self.gaps.copy_within(at.end..len, start + count);
        self.gaps[after..].fill(0);
        self.spans.close(at);
        self.spans.open(start, count);
        for (slot, child) in (start..).zip(list) {
            self.spans.set(slot, child.summary.span);
            self.gaps[slot] = child.summary.gap;
        }
        self.classes = Classes::EMPTY;
        self.classify(0..after, guard);
        self.children = children;
        Ok(())
    }

    /// Checks this node and what is under it; gives its height and the number of its regions.
    fn check(&self, guard: u64) -> (usize, usize) {
        let Self { spans, gaps, classes, children } = self;
        let len = children.len();
        assert_eq!(spans.len(), len, "bounds without children");
        children.check();
        spans.check();
        assert!(gaps[len..].iter().all(|&gap| gap == 0), "gaps of unused slots");
        for (slot, &inside) in gaps.iter().enumerate() {
            let largest = spans.gap_below(slot, guard).max(inside);
            assert!(classes.is_right(slot, largest), "size class of slot {slot}");
        }
        let below = children.iter().enumerate().map(|(slot, child)| {
            assert!(child.len() >= child.min_len(), "a node of {} slots", child.len());
            let known = Summary { span: spans.span(slot), gap: gaps[slot] };
            assert_eq!(known, child.summary(guard), "summary of slot {slot}");
            child.check(guard)
        });
        below.fold((0, 0), |(height, count), (child_height, child_count)| {
            assert!(height == 0 || height == child_height + 1, "children of unequal height");
            (child_height + 1, count + child_count)
        })
    }
}

impl Node {
    /// A leaf, where versions can share it.
    pub(super) fn leaf(leaf: Leaf) -> Result<Self, Errno> {
        make_sure_of_memory::<Leaf>()?;
        Ok(Self::Leaf(Arc::new(leaf)))
    }

    /// An inner node, where versions can share it.
    pub(super) fn inner(inner: Inner) -> Result<Self, Errno> {
        make_sure_of_memory::<Inner>()?;
        Ok(Self::Inner(Arc::new(inner)))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.regions.len(),
            Self::Inner(inner) => inner.spans.len(),
        }
    }

    /// Fewest slots of such a node if it is not the root.
    pub(super) const fn min_len(&self) -> usize {
        match self {
            Self::Leaf(_) => LEAF_LEAST,
            Self::Inner(_) => INNER_LEAST,
        }
    }

    /// Nodes on the way from this one down to a leaf, both counted.
    pub(super) fn height(&self) -> usize {
        let mut node = self;
        let mut height = 1;
        while let Self::Inner(inner) = node {
            node = &inner.children[0];
            height += 1;
        }
        height
    }

    /// What the parent must know of this node, which has at least one slot.
    pub(super) fn summary(&self, guard: u64) -> Summary {
        match self {
            Self::Leaf(leaf) => leaf.summary(guard),
            Self::Inner(inner) => inner.summary(guard),
        }
    }

    /// The leaf with the first region that ends above `page`. If there is none, a leaf or nothing.
    #[inline]
    pub(super) fn leaf_above(&self, page: u64) -> Option<&Leaf> {
        let mut node = self;
        loop {
            match node {
                Self::Inner(inner) => node = inner.children.get(inner.spans.rank_end(page))?,
                Self::Leaf(leaf) => return Some(leaf),
            }
        }
    }

    /// The leaf with the last region that starts below `page`. If there is none, a leaf or nothing.
    #[inline]
    pub(super) fn leaf_below(&self, page: u64) -> Option<&Leaf> {
        let mut node = self;
        loop {
            match node {
                Self::Inner(inner) => node = &inner.children[inner.spans.rank_first(page).checked_sub(1)?],
                Self::Leaf(leaf) => return Some(leaf),
            }
        }
    }

    /// Checks the tree under this root; gives the number of its regions.
    pub(super) fn check_root(&self, guard: u64) -> usize {
        let least = if matches!(self, Self::Leaf(_)) { 1 } else { 2 };
        assert!(self.len() >= least, "a root of {} slots", self.len());
        self.check(guard).1
    }

    /// Checks this subtree; gives its height and the number of its regions.
    ///
    /// # Panics
    /// If something is wrong.
    fn check(&self, guard: u64) -> (usize, usize) {
        match self {
            Self::Inner(inner) => inner.check(guard),
            Self::Leaf(leaf) => {
                leaf.check();
                (1, leaf.regions.len())
            }
        }
    }
}

/// Whether the gap below the region ends early.
pub(super) const fn grows_down(region: &Region) -> bool {
    region.flags.contains(RegionFlags::GROWS_DOWN)
}

/// The largest gap when some that were at most `before` have become at most `after`, if that can be told.
#[inline]
pub(super) fn renew(known: u64, before: u64, after: u64) -> Option<u64> {
    if before < known {
        Some(known.max(after))
    } else if before == known && after >= known {
        Some(after)
    } else {
        None
    }
}

/// A node for a change: itself if no other version has it, else a copy.
#[inline]
pub(super) fn unshare<T: Clone>(node: &mut Arc<T>) -> Result<&mut T, Errno> {
    if Arc::strong_count(node) > 1 {
        make_sure_of_memory::<T>()?;
    }
    Ok(Arc::make_mut(node))
}

/// A copy of `items`. That of `ArrayVec` itself goes by an iterator, and takes several times as long.
#[inline]
pub(super) fn copy<T: Clone, const N: usize>(items: &ArrayVec<T, N>) -> ArrayVec<T, N> {
    let mut copy = ArrayVec::new();
    for item in items {
        copy.push(item.clone());
    }
    copy
}

/// Makes room for `count` more items.
pub(super) fn try_reserve<T>(list: &mut Vec<T>, count: usize) -> Result<(), Errno> {
    list.try_reserve(count).map_err(|_| Errno::NoMem)
}

/// `first..end` as a range, for bounds that came out of one.
#[inline]
pub(super) fn page_range(first: u64, end: u64) -> PageRange {
    match PageRange::from_pages(first, PageCount::new(end - first)) {
        Some(range) => range,
        None => unreachable!("the bounds in the tree are those of page ranges"),
    }
}
