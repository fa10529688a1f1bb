//! Nodes of the tree, and the descents that only read.
//!
//! A node is a handful of parallel arrays with one slot per region (leaf) or per child (inner node). Slots are
//! ordered by page and never overlap. What the slots beyond `len` hold is fixed, so that a rank is a plain count
//! over the whole array, and so that a node keeps no object alive that is not mapped.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::array;
use core::mem;
use core::ops::Range;

use super::Entry;
use crate::addr::{PageCount, PageRange};
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};

/// Most slots of a node.
pub(super) const FANOUT: usize = 32;
/// Fewest slots of a node that is not the root.
pub(super) const MIN_LEN: usize = FANOUT / 4;
/// Bounds of an unused slot: above every page number.
const UNUSED: u64 = u64::MAX;
/// The region of an unused slot.
const FILLER: Region = Region::anonymous(Prot::NONE);

/// What one slot spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// First page of the first region.
    pub(super) first: u64,
    /// Page after the last region.
    pub(super) end: u64,
    /// Whether the first region grows down, so that the gap before it ends early.
    pub(super) guarded: bool,
}

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

impl Piece {
    fn span(&self) -> Span {
        let guarded = self.region.flags.contains(RegionFlags::GROWS_DOWN);
        Span { first: self.first, end: self.end, guarded }
    }
}

/// A node with its summary, on its way into or out of an inner node.
pub(super) struct Child {
    pub(super) summary: Summary,
    pub(super) node: Arc<Node>,
}

impl Child {
    pub(super) fn new(node: Node, guard: u64) -> Self {
        Self { summary: node.summary(guard), node: Arc::new(node) }
    }
}

/// The bounds of all slots of a node.
#[derive(Clone)]
pub(super) struct Spans {
    len: usize,
    /// Bit `i`: [`Span::guarded`] of slot `i`.
    guarded: u64,
    firsts: [u64; FANOUT],
    ends: [u64; FANOUT],
}

impl Spans {
    const EMPTY: Self = Self { len: 0, guarded: 0, firsts: [UNUSED; FANOUT], ends: [UNUSED; FANOUT] };

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn first(&self, slot: usize) -> u64 {
        self.firsts[slot]
    }

    pub(super) const fn end(&self, slot: usize) -> u64 {
        self.ends[slot]
    }

    pub(super) const fn is_guarded(&self, slot: usize) -> bool {
        self.guarded >> slot & 1 == 1
    }

    /// How many slots end at or below `page`: the index of the first that ends above it.
    pub(super) fn rank_end(&self, page: u64) -> usize {
        rank(&self.ends, page + 1)
    }

    /// How many slots start below `page`.
    pub(super) fn rank_first(&self, page: u64) -> usize {
        rank(&self.firsts, page)
    }

    /// Where the gap before `slot` ends.
    pub(super) const fn floor(&self, slot: usize, guard: u64) -> u64 {
        let first = self.firsts[slot];
        if self.is_guarded(slot) { first.saturating_sub(guard) } else { first }
    }

    /// Pages in the largest gap between neighbouring slots.
    fn max_gap(&self, guard: u64) -> u64 {
        if self.guarded == 0 {
            let pairs = self.ends.iter().zip(&self.firsts[1..self.len]);
            return pairs.map(|(end, first)| first - end).max().unwrap_or(0);
        }
        (1..self.len).map(|slot| self.floor(slot, guard).saturating_sub(self.ends[slot - 1])).max().unwrap_or(0)
    }

    pub(super) const fn span(&self, slot: usize) -> Span {
        Span { first: self.firsts[slot], end: self.ends[slot], guarded: self.is_guarded(slot) }
    }

    pub(super) fn set(&mut self, slot: usize, span: Span) {
        self.firsts[slot] = span.first;
        self.ends[slot] = span.end;
        self.guarded = self.guarded & !(1 << slot) | u64::from(span.guarded) << slot;
    }

    /// Puts `count` slots in the place of those in `at`; the caller then [`Self::set`]s them.
    fn reshape(&mut self, at: &Range<usize>, count: usize) {
        let len = self.len();
        reshape(&mut self.firsts, len, at, count);
        reshape(&mut self.ends, len, at, count);
        let below = self.guarded & ((1 << at.start) - 1);
        self.guarded = below | self.guarded >> at.end << (at.start + count);
        let after = len - at.len() + count;
        self.firsts[after..].fill(UNUSED);
        self.ends[after..].fill(UNUSED);
        self.len = after;
    }
}

/// How many of `values`, which ascend, are below `bound`.
fn rank(values: &[u64; FANOUT], bound: u64) -> usize {
    let mut below = 0;
    for step in [16, 8, 4, 2, 1] {
        below += step * usize::from(values[(below + step - 1) % FANOUT] < bound);
    }
    below + usize::from(values[below % FANOUT] < bound)
}

/// Moves the tail of the first `len` of `slots` so that `count` slots take the place of those in `at`.
fn reshape<T>(slots: &mut [T], len: usize, at: &Range<usize>, count: usize) {
    if count > at.len() {
        let growth = count - at.len();
        slots[at.end..len + growth].rotate_right(growth);
    } else {
        slots[at.start + count..len].rotate_left(at.len() - count);
    }
}

/// What the slots of a node hold besides their bounds.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are twenty leaves for each inner node")]
pub(super) enum Slots {
    Leaf([Region; FANOUT]),
    Inner {
        /// [`Summary::gap`] of each child; 0 when unused.
        gaps: [u64; FANOUT],
        children: [Option<Arc<Node>>; FANOUT],
    },
}

/// A leaf or an inner node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) spans: Spans,
    pub(super) slots: Slots,
}

impl Node {
    /// Nodes on the way from this one down to a leaf, both counted.
    pub(super) fn height(&self) -> usize {
        let mut node = self;
        let mut height = 1;
        while let Slots::Inner { children: [Some(child), ..], .. } = &node.slots {
            node = child;
            height += 1;
        }
        height
    }

    /// A leaf of the next `len` of `pieces`.
    pub(super) fn leaf(pieces: &mut impl Iterator<Item = Piece>, len: usize) -> Self {
        let mut spans = Spans::EMPTY;
        spans.reshape(&(0..0), len);
        let regions = array::from_fn(|slot| {
            let Some(piece) = (slot < len).then(|| pieces.next()).flatten() else { return FILLER };
            spans.set(slot, piece.span());
            piece.region
        });
        Self { spans, slots: Slots::Leaf(regions) }
    }

    /// An inner node over the next `len` of `list`.
    pub(super) fn inner(list: &mut impl Iterator<Item = Child>, len: usize) -> Self {
        let mut spans = Spans::EMPTY;
        spans.reshape(&(0..0), len);
        let mut gaps = [0; FANOUT];
        let children = array::from_fn(|slot| {
            let child = (slot < len).then(|| list.next()).flatten()?;
            spans.set(slot, child.summary.span);
            gaps[slot] = child.summary.gap;
            Some(child.node)
        });
        Self { spans, slots: Slots::Inner { gaps, children } }
    }

    pub(super) const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Replaces the regions in `at` by `pieces`; there must be room. Only for leaves.
    pub(super) fn splice(&mut self, at: Range<usize>, pieces: impl ExactSizeIterator<Item = Piece>) {
        let Slots::Leaf(regions) = &mut self.slots else { unreachable!("regions are in leaves") };
        let (len, count) = (self.spans.len(), pieces.len());
        reshape(regions, len, &at, count);
        self.spans.reshape(&at, count);
        for (slot, piece) in (at.start..).zip(pieces) {
            self.spans.set(slot, piece.span());
            regions[slot] = piece.region;
        }
        for unused in regions[..len].iter_mut().skip(self.spans.len()) {
            *unused = FILLER;
        }
    }

    /// What the parent must know of this node, which has at least one slot.
    pub(super) fn summary(&self, guard: u64) -> Summary {
        let last = self.len() - 1;
        let inside = match &self.slots {
            Slots::Leaf(_) => 0,
            Slots::Inner { gaps, .. } => gaps.iter().copied().max().unwrap_or(0),
        };
        let span = Span { first: self.spans.first(0), end: self.spans.end(last), guarded: self.spans.is_guarded(0) };
        Summary { span, gap: self.spans.max_gap(guard).max(inside) }
    }

    /// The child whose pages, or the gap before them, hold `page`; the last child for all pages above.
    pub(super) fn route(&self, page: u64) -> usize {
        self.spans.rank_end(page).min(self.len() - 1)
    }

    /// The first slot of a leaf that ends above `page`.
    pub(super) fn seek(&self, page: u64) -> Option<(&Self, usize)> {
        let mut node = self;
        loop {
            let slot = node.spans.rank_end(page);
            match &node.slots {
                Slots::Leaf(_) => return (slot < node.len()).then_some((node, slot)),
                Slots::Inner { children, .. } => node = children.get(slot)?.as_deref()?,
            }
        }
    }

    /// The last slot of a leaf that starts below `page`.
    pub(super) fn seek_below(&self, page: u64) -> Option<(&Self, usize)> {
        let mut node = self;
        loop {
            let slot = node.spans.rank_first(page).checked_sub(1)?;
            match &node.slots {
                Slots::Leaf(_) => return Some((node, slot)),
                Slots::Inner { children, .. } => node = children[slot].as_deref()?,
            }
        }
    }

    /// The region in `slot` of a leaf.
    pub(super) fn entry(&self, slot: usize) -> Entry<'_> {
        let Slots::Leaf(regions) = &self.slots else { unreachable!("regions are in leaves") };
        Entry { range: page_range(self.spans.first(slot), self.spans.end(slot)), region: &regions[slot] }
    }

    /// The pieces of a leaf: moved out of it if it is not shared, else copied.
    pub(super) fn into_pieces(mut node: Arc<Self>) -> Vec<Piece> {
        let spans = node.spans.clone();
        let piece = |slot, region| Piece { first: spans.first(slot), end: spans.end(slot), region };
        if let Some(Self { slots: Slots::Leaf(regions), .. }) = Arc::get_mut(&mut node) {
            let taken = regions.iter_mut().take(spans.len()).map(|region| mem::replace(region, FILLER));
            return taken.enumerate().map(|(slot, region)| piece(slot, region)).collect();
        }
        let Slots::Leaf(regions) = &node.slots else { unreachable!("regions are in leaves") };
        regions.iter().take(spans.len()).cloned().enumerate().map(|(slot, region)| piece(slot, region)).collect()
    }

    /// The children of an inner node: moved out of it if it is not shared, else shared further.
    pub(super) fn into_children(mut node: Arc<Self>) -> Vec<Child> {
        let spans = node.spans.clone();
        let child = |(slot, (node, gap)): (usize, (Option<Arc<Self>>, u64))| {
            Some(Child { summary: Summary { span: spans.span(slot), gap }, node: node? })
        };
        if let Some(Self { slots: Slots::Inner { gaps, children }, .. }) = Arc::get_mut(&mut node) {
            let taken = children.iter_mut().map(Option::take);
            return taken.zip(gaps.iter().copied()).enumerate().map_while(child).collect();
        }
        let Slots::Inner { gaps, children } = &node.slots else { unreachable!("children are in inner nodes") };
        children.iter().cloned().zip(gaps.iter().copied()).enumerate().map_while(child).collect()
    }

    /// Checks the tree under this root; gives the number of its regions.
    pub(super) fn check_root(&self, guard: u64) -> usize {
        let least = if matches!(self.slots, Slots::Leaf(_)) { 1 } else { 2 };
        self.check(guard, least).1
    }

    /// Checks this subtree; gives its height and the number of its regions.
    ///
    /// # Panics
    /// If something is wrong.
    fn check(&self, guard: u64, least: usize) -> (usize, usize) {
        let Spans { guarded, firsts, ends, .. } = &self.spans;
        let len = self.len();
        assert!((least..=FANOUT).contains(&len), "{len} slots");
        assert!(firsts[len..].iter().chain(&ends[len..]).all(|&page| page == UNUSED), "bounds of unused slots");
        assert_eq!(*guarded >> len, 0, "guards of unused slots");
        assert!((0..len).all(|slot| firsts[slot] < ends[slot]), "an empty slot");
        assert!((1..len).all(|slot| ends[slot - 1] <= firsts[slot]), "slots overlap");
        match &self.slots {
            Slots::Leaf(regions) => {
                assert!(regions[len..].iter().all(|region| *region == FILLER), "regions of unused slots");
                for (slot, region) in regions[..len].iter().enumerate() {
                    let grows_down = region.flags.contains(RegionFlags::GROWS_DOWN);
                    assert_eq!(self.spans.is_guarded(slot), grows_down, "guard of slot {slot}");
                }
                (1, len)
            }
            Slots::Inner { gaps, children } => {
                assert!(children[len..].iter().all(Option::is_none), "children of unused slots");
                assert!(gaps[len..].iter().all(|&gap| gap == 0), "gaps of unused slots");
                let below = children[..len].iter().enumerate().map(|(slot, child)| {
                    let Some(child) = child else { panic!("slot {slot} has no child") };
                    let below = child.check(guard, MIN_LEN);
                    let known = Summary { span: self.spans.span(slot), gap: gaps[slot] };
                    assert_eq!(known, child.summary(guard), "summary of slot {slot}");
                    below
                });
                below.fold((0, 0), |(height, count), (child_height, child_count)| {
                    assert!(height == 0 || height == child_height + 1, "children of unequal height");
                    (child_height + 1, count + child_count)
                })
            }
        }
    }
}

/// `first..end` as a range, for bounds that came out of one.
pub(super) fn page_range(first: u64, end: u64) -> PageRange {
    match PageRange::from_pages(first, PageCount::new(end - first)) {
        Some(range) => range,
        None => unreachable!("the bounds in the tree are those of page ranges"),
    }
}
