//! The search for a gap.
//!
//! A gap lies between two neighbouring slots of some node, or below or above all regions. It ends `guard`
//! pages early if the region above it grows down, and the summaries of the children say so too: a child that
//! lies inside the window and promises a large enough gap has one. Only the two children of a node that an end
//! of the window cuts may be searched in vain, so a search visits at most two nodes of each height besides
//! those on the way to the gap. Which children promise one is told by their size classes, eight at a time.

use super::classes::SizeClass;
use super::loose::current;
use super::node::{Leaf, Node};
use super::spans::{Span, Spans, floor};
use super::{Direction, GapRequest, Vmmap};
use crate::addr::PageRange;

/// The bounds of a gap in pages.
#[derive(Clone, Copy)]
struct Gap {
    low: u64,
    end: u64,
}

/// What is searched for.
struct Search<'a> {
    needed: u64,
    class: SizeClass,
    window: Gap,
    guard: u64,
    loose: Option<&'a Leaf>,
}

impl Search<'_> {
    /// The part of `low..end` in the window, if it is large enough.
    #[inline]
    fn fit(&self, low: u64, end: u64) -> Option<Gap> {
        let (low, end) = (low.max(self.window.low), end.min(self.window.end));
        (end > low && end - low >= self.needed).then_some(Gap { low, end })
    }

    /// The part of the gap between `slot` and the slot below it.
    #[inline]
    fn fit_below<const N: usize>(&self, spans: &Spans<N>, slot: usize) -> Option<Gap> {
        if slot == 0 { None } else { self.fit(spans.end(slot - 1), floor(&spans.span(slot), self.guard)) }
    }

    /// The slot above all that matter: the first that starts behind the window still has a gap below it.
    #[inline]
    fn top<const N: usize>(&self, spans: &Spans<N>) -> usize {
        let last = spans.len() - 1;
        if spans.first(last) < self.window.end { last + 1 } else { spans.rank_first(self.window.end) + 1 }
    }

    /// The first slot that ends inside the window or behind it.
    #[inline]
    fn bottom<const N: usize>(&self, spans: &Spans<N>) -> usize {
        if spans.end(0) > self.window.low { 0 } else { spans.rank_end(self.window.low) }
    }

    /// Whether all of `span` lies inside the window.
    fn covers(&self, span: &Span) -> bool {
        self.window.low <= span.first && span.end <= self.window.end
    }

    /// The first gap from one end that fits between two regions under `root`.
    #[inline]
    fn inside(&self, root: &Node, direction: Direction) -> Option<Gap> {
        match direction {
            Direction::BottomUp => self.lowest(root),
            Direction::TopDown => self.highest(root),
        }
    }

    /// The highest gap that fits between two regions under `node`.
    #[inline]
    fn highest(&self, mut node: &Node) -> Option<Gap> {
        loop {
            let inner = match node {
                Node::Inner(inner) => &**inner,
                Node::Leaf(leaf) => {
                    let spans = &current(leaf, self.loose).spans;
                    let mut slots = spans.wide_gaps(1..self.top(spans), self.needed).rev();
                    return slots.find_map(|slot| self.fit_below(spans, slot));
                }
            };
            let spans = &inner.spans;
            let is_all = spans.first(spans.len() - 1) < self.window.end;
            let mut next = if is_all {
                inner.classes.highest_of_all(self.class, spans.len())
            } else {
                inner.classes.highest(self.class, self.top(spans))
            };
            node = loop {
                let slot = next?;
                if spans.end(slot) <= self.window.low {
                    return None;
                }
                if inner.gaps[slot] >= self.needed && spans.first(slot) < self.window.end {
                    let child = &inner.children[slot];
                    if self.covers(&spans.span(slot)) {
                        break child;
                    }
                    if let Some(gap) = self.highest(child) {
                        return Some(gap);
                    }
                }
                if let Some(gap) = self.fit_below(spans, slot) {
                    return Some(gap);
                }
                next = inner.classes.highest(self.class, slot);
            };
        }
    }

    /// The lowest gap that fits between two regions under `node`.
    #[inline]
    fn lowest(&self, mut node: &Node) -> Option<Gap> {
        loop {
            let inner = match node {
                Node::Inner(inner) => &**inner,
                Node::Leaf(leaf) => {
                    let spans = &current(leaf, self.loose).spans;
                    let mut slots = spans.wide_gaps(self.bottom(spans).max(1)..spans.len(), self.needed);
                    return slots.find_map(|slot| self.fit_below(spans, slot));
                }
            };
            let spans = &inner.spans;
            let mut bottom = self.bottom(spans);
            node = loop {
                let slot = inner.classes.lowest(self.class, bottom)?;
                if let Some(gap) = self.fit_below(spans, slot) {
                    return Some(gap);
                }
                if spans.first(slot) >= self.window.end {
                    return None;
                }
                if inner.gaps[slot] >= self.needed {
                    let child = &inner.children[slot];
                    if self.covers(&spans.span(slot)) {
                        break child;
                    }
                    if let Some(gap) = self.lowest(child) {
                        return Some(gap);
                    }
                }
                bottom = slot + 1;
            };
        }
    }
}

impl Vmmap {
    /// The first gap that fits `request`, by Linux's rules (`mm/vma.c:unmapped_area` and
    /// `unmapped_area_topdown`): the guard below a region that grows down is not part of a gap.
    #[inline]
    pub fn find_gap(&self, request: &GapRequest) -> Option<PageRange> {
        let mask = request.align_pages.saturating_sub(1);
        let pages = request.pages.get();
        if pages == 0 {
            return None;
        }
        let window = Gap { low: request.window.first_page(), end: request.window.end_page() };
        let needed = pages.checked_add(mask)?;
        let search = Search {
            needed,
            class: SizeClass::of(needed),
            window,
            guard: self.guard.get(),
            loose: self.loose.as_deref(),
        };
        let first = match request.direction {
            Direction::BottomUp => {
                let low = self.first_gap(&search, request.direction)?.low;
                low + (request.align_offset.wrapping_sub(low) & mask)
            }
            Direction::TopDown => {
                let first = self.first_gap(&search, request.direction)?.end - pages;
                first - (first.wrapping_sub(request.align_offset) & mask)
            }
        };
        PageRange::from_pages(first, request.pages)
    }

    #[inline]
    fn first_gap(&self, search: &Search<'_>, direction: Direction) -> Option<Gap> {
        let Some(root) = self.root() else { return search.fit(0, u64::MAX) };
        let whole = &self.whole.span;
        let below_all = || search.fit(0, floor(whole, search.guard));
        let above_all = || search.fit(whole.end, u64::MAX);
        let has_gap = self.whole.gap >= search.needed;
        let inside = || if has_gap { search.inside(root, direction) } else { None };
        match direction {
            Direction::BottomUp => below_all().or_else(inside).or_else(above_all),
            Direction::TopDown => above_all().or_else(inside).or_else(below_all),
        }
    }
}
