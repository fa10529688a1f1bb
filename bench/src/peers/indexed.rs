//! The standard library's B-tree with an index of its gaps by size.

use std::array;
use std::collections::BTreeMap;

use pagewarden::{Prot, Region};

use super::BTree;
use crate::map::{PAGES_END, Pages, RegionMap};

/// Size classes: class `k` holds the gaps of `2^k` up to `2^(k + 1) - 1` pages.
const CLASSES: usize = 52;

/// The gaps, first pages to ends, by size class.
#[derive(Clone)]
struct Gaps {
    classes: [BTreeMap<u64, u64>; CLASSES],
    /// Bit `k` is set if class `k` holds a gap.
    occupied: u64,
}

fn class(pages: u64) -> usize {
    pages.ilog2() as usize
}

impl Gaps {
    fn add(&mut self, gap: Pages) {
        if gap.is_empty() {
            return;
        }
        let class = class(gap.end - gap.start);
        self.occupied |= 1 << class;
        self.classes[class].insert(gap.start, gap.end);
    }

    fn take(&mut self, gap: &Pages) {
        if gap.is_empty() {
            return;
        }
        let class = class(gap.end - gap.start);
        self.classes[class].remove(&gap.start);
        if self.classes[class].is_empty() {
            self.occupied &= !(1 << class);
        }
    }

    /// A gap that begins where it did ends elsewhere.
    fn resize(&mut self, old: &Pages, end: u64) {
        let both = |pages: u64| pages.checked_ilog2();
        let same = both(old.end - old.start).is_some_and(|class| both(end - old.start) == Some(class));
        if same && let Some(kept) = self.classes[class(end - old.start)].get_mut(&old.start) {
            *kept = end;
        } else {
            self.take(old);
            self.add(old.start..end);
        }
    }

    /// [`Self::highest`] in one class, if it is above `best`.
    fn highest_in(gaps: &BTreeMap<u64, u64>, wanted: u64, window: &Pages, best: Option<u64>) -> Option<u64> {
        for (&first, &end) in gaps.range(..window.end).rev() {
            let end = end.min(window.end);
            if best.is_some_and(|best| end <= best) {
                return None;
            }
            if first.max(window.start) + wanted <= end {
                return Some(end);
            }
            if first <= window.start {
                return None;
            }
        }
        None
    }

    /// The end of the highest part of a gap in `window` with `wanted` pages.
    fn highest(&self, wanted: u64, window: &Pages) -> Option<u64> {
        let lowest = class(wanted);
        let mut left = self.occupied >> lowest << lowest;
        let mut best = None;
        // From the largest class down: in all but the last, the first gap from the top fits, unless the window cuts it.
        while left != 0 {
            let class = left.ilog2() as usize;
            left &= !(1 << class);
            let gaps = &self.classes[class];
            best = best.max(match gaps.last_key_value() {
                // The top gap lies below the end of the window, so no cut has to be thought of up there.
                Some((&first, &end)) if end <= window.end && first >= window.start && end - first >= wanted => {
                    Some(end)
                }
                _ => Self::highest_in(gaps, wanted, window, best),
            });
        }
        best
    }
}

/// [`BTree`] and its gaps, of all pages below [`PAGES_END`].
#[derive(Clone)]
pub struct IndexedBTree {
    regions: BTree,
    gaps: Gaps,
}

impl RegionMap for IndexedBTree {
    const NAME: &'static str = "BTreeMap + gap index";

    fn new() -> Self {
        let mut gaps = Gaps { classes: array::from_fn(|_| BTreeMap::new()), occupied: 0 };
        gaps.add(0..PAGES_END);
        Self { regions: BTree::new(), gaps }
    }

    fn len(&self) -> usize {
        self.regions.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        self.regions.get(page)
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        let Pages { start, end } = pages;
        let gap_end = self.regions.first_from(end).unwrap_or(PAGES_END);
        let gap_start = self.regions.insert_above(pages, region);
        self.gaps.resize(&(gap_start..gap_end), start);
        self.gaps.add(end..gap_end);
    }

    fn remove(&mut self, pages: Pages) {
        let Pages { start, end } = pages;
        let mut freed: Option<Pages> = None;
        let mut high = end;
        let mut low_end = 0;
        for part in self.regions.down_from(end) {
            if part.end <= start {
                low_end = part.end;
                break;
            }
            let freed = freed.get_or_insert(start..end);
            if part.end <= end {
                let above = if high == end { self.regions.first_from(end).unwrap_or(PAGES_END) } else { high };
                self.gaps.take(&(part.end..above));
                freed.end = freed.end.max(above);
            }
            high = part.start;
        }
        let Some(mut freed) = freed else { return };
        if high >= start {
            freed.start = low_end;
            self.gaps.take(&(freed.start..high));
        }
        self.regions.remove(start..end);
        self.gaps.add(freed);
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        self.regions.protect(pages, prot);
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        self.gaps.highest(wanted, &window).map(|end| end - wanted)
    }

    fn visit(&self, pages: Pages, visit: impl FnMut(Pages, &Region) -> bool) {
        self.regions.visit(pages, visit);
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}
