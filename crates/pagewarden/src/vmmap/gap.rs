//! The search for a gap.
//!
//! A gap lies between two neighbouring slots of some node, or below or above all regions. It ends `guard`
//! pages early if the region above it grows down, and the summaries of the children say so too: a child that
//! lies inside the window and promises a large enough gap has one. Only the two children of a node that an end
//! of the window cuts may be searched in vain, so a search visits at most two nodes of each height besides
//! those on the way to the gap.

use core::ops::Range;

use super::node::{Node, Slots, Spans};
use super::{Direction, GapRequest, Vmmap};
use crate::addr::PageRange;

/// The bounds of a gap in pages.
#[derive(Clone, Copy)]
struct Gap {
    low: u64,
    end: u64,
}

/// What is searched for.
struct Search {
    needed: u64,
    window: Gap,
    guard: u64,
}

impl Search {
    /// The part of `low..end` in the window, if it is large enough.
    fn fit(&self, low: u64, end: u64) -> Option<Gap> {
        let (low, end) = (low.max(self.window.low), end.min(self.window.end));
        (end > low && end - low >= self.needed).then_some(Gap { low, end })
    }

    /// The part of the gap between `slot` and the slot below it.
    fn fit_below(&self, spans: &Spans, slot: usize) -> Option<Gap> {
        self.fit(spans.end(slot - 1), spans.floor(slot, self.guard))
    }

    /// The slots that share a page with the window, and the one above them.
    fn slots(&self, spans: &Spans) -> Range<usize> {
        let last = spans.len() - 1;
        let bottom = if spans.end(0) > self.window.low { 0 } else { spans.rank_end(self.window.low) };
        let top = if spans.first(last) < self.window.end { last } else { spans.rank_first(self.window.end) };
        bottom..top + 1
    }

    /// The child in `slot`, if it may have a gap that fits in the window.
    fn child<'a>(&self, node: &'a Node, slot: usize) -> Option<&'a Node> {
        match &node.slots {
            Slots::Inner { gaps, children }
                if gaps[slot] >= self.needed && node.spans.first(slot) < self.window.end =>
            {
                children[slot].as_deref()
            }
            _ => None,
        }
    }

    /// The highest gap that fits between two regions under `node`.
    fn highest(&self, node: &Node) -> Option<Gap> {
        for slot in self.slots(&node.spans).rev() {
            let inside = self.child(node, slot).and_then(|child| self.highest(child));
            let found = inside.or_else(|| if slot > 0 { self.fit_below(&node.spans, slot) } else { None });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The lowest gap that fits between two regions under `node`.
    fn lowest(&self, node: &Node) -> Option<Gap> {
        for slot in self.slots(&node.spans) {
            let below = if slot > 0 { self.fit_below(&node.spans, slot) } else { None };
            let found = below.or_else(|| self.lowest(self.child(node, slot)?));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Vmmap {
    /// The first gap that fits `request`, by Linux's rules (`mm/vma.c:unmapped_area` and
    /// `unmapped_area_topdown`): the guard below a region that grows down is not part of a gap.
    pub fn find_gap(&self, request: &GapRequest) -> Option<PageRange> {
        let mask = request.align_pages.saturating_sub(1);
        let pages = request.pages.get();
        if pages == 0 {
            return None;
        }
        let window = Gap { low: request.window.first_page(), end: request.window.end_page() };
        let search = Search { needed: pages.checked_add(mask)?, window, guard: self.guard.get() };
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

    fn first_gap(&self, search: &Search, direction: Direction) -> Option<Gap> {
        let Some(root) = self.root() else { return search.fit(0, u64::MAX) };
        let below_all = || search.fit(0, root.spans.floor(0, search.guard));
        let above_all = || search.fit(root.spans.end(root.len() - 1), u64::MAX);
        match direction {
            Direction::BottomUp => below_all().or_else(|| search.lowest(root)).or_else(above_all),
            Direction::TopDown => above_all().or_else(|| search.highest(root)).or_else(below_all),
        }
    }
}
