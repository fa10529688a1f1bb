//! The standard library's B-tree, keyed by the first page, with a linear search for gaps.

use std::collections::BTreeMap;

use pagewarden::{Prot, Region};

use crate::map::{Pages, RegionMap, highest_gap, protect_parts, with_prot};

/// What stands behind a first page.
#[derive(Clone)]
struct Tail {
    end: u64,
    region: Region,
}

/// First pages to ends and regions.
#[derive(Clone)]
pub struct BTree(BTreeMap<u64, Tail>);

impl BTree {
    /// [`RegionMap::insert`]; the end of the free pages' lower neighbour, or 0.
    pub(super) fn insert_above(&mut self, pages: Pages, region: Region) -> u64 {
        let Pages { start, end } = pages;
        // The pages are free, so what begins last at or below their end begins there or is the lower neighbour.
        let mut below = self.0.range_mut(..=end);
        let mut low = below.next_back();
        let mut upper_end = None;
        if let Some((first, tail)) = &low
            && **first == end
        {
            if tail.region == region {
                upper_end = Some(tail.end);
            }
            low = below.next_back();
        }
        let low_end = low.as_ref().map_or(0, |(_, tail)| tail.end);
        match low {
            Some((_, tail)) if tail.end == start && tail.region == region => tail.end = upper_end.unwrap_or(end),
            _ => {
                self.0.insert(start, Tail { end: upper_end.unwrap_or(end), region });
            }
        }
        if upper_end.is_some() {
            self.0.remove(&end);
        }
        low_end
    }

    /// The first page of the region that begins at or above `page`.
    pub(super) fn first_from(&self, page: u64) -> Option<u64> {
        self.0.range(page..).next().map(|(&first, _)| first)
    }

    /// The bounds of the regions that begin below `page`, from the top.
    pub(super) fn down_from(&self, page: u64) -> impl Iterator<Item = Pages> {
        self.0.range(..page).rev().map(|(&first, tail)| first..tail.end)
    }

    /// Gives all of a region other rights and joins it with its neighbours.
    fn protect_whole(&mut self, pages: Pages, prot: Prot) {
        let mut below = self.0.range_mut(..=pages.end);
        let mut here = below.next_back();
        let mut upper = None;
        if let Some((first, tail)) = &here
            && **first == pages.end
        {
            upper = Some((tail.end, tail.region.clone()));
            here = below.next_back();
        }
        let Some((_, tail)) = here else { return };
        tail.region.prot = prot;
        let upper_end = upper.filter(|(_, region)| *region == tail.region).map(|(end, _)| end);
        tail.end = upper_end.unwrap_or(pages.end);
        let joined = match below.next_back() {
            Some((_, low)) if low.end == pages.start && low.region == tail.region => {
                low.end = tail.end;
                true
            }
            _ => false,
        };
        if upper_end.is_some() {
            self.0.remove(&pages.end);
        }
        if joined {
            self.0.remove(&pages.start);
        }
    }
}

impl RegionMap for BTree {
    const NAME: &'static str = "BTreeMap";

    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let (&first, tail) = self.0.range(..=page).next_back()?;
        (page < tail.end).then_some((first..tail.end, &tail.region))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        self.insert_above(pages, region);
    }

    fn remove(&mut self, pages: Pages) {
        let Pages { start, end } = pages;
        let mut below = self.0.range_mut(..end);
        let Some((&first, tail)) = below.next_back() else { return };
        if tail.end <= start {
            return;
        }
        let rest = (tail.end > end).then(|| Tail { end: tail.end, region: tail.region.clone() });
        if first < start {
            tail.end = start;
        } else if first == start {
            self.0.remove(&first);
        } else {
            self.0.extract_if(start..end, |_, _| true).for_each(drop);
            if let Some((_, low)) = self.0.range_mut(..start).next_back() {
                low.end = low.end.min(start);
            }
        }
        if let Some(rest) = rest {
            self.0.insert(end, rest);
        }
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        let Pages { start, end } = pages;
        let Some((&first, tail)) = self.0.range_mut(..end).next_back() else { return };
        if tail.end <= start || first <= start && end <= tail.end && tail.region.prot == prot {
            return;
        }
        if first > start || tail.end < end {
            return protect_parts(self, &pages, prot);
        }
        if (first, tail.end) == (start, end) {
            return self.protect_whole(pages, prot);
        }
        let changed = with_prot(&tail.region, prot);
        if first < start {
            let rest = (tail.end > end).then(|| Tail { end: tail.end, region: tail.region.clone() });
            tail.end = start;
            if let Some(rest) = rest {
                // Both neighbours are of the same region as before, so nothing joins.
                self.0.insert(start, Tail { end, region: changed });
                self.0.insert(end, rest);
            } else {
                self.insert(pages, changed);
            }
        } else if let Some(rest) = self.0.remove(&first) {
            self.0.insert(end, rest);
            self.insert(pages, changed);
        }
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        highest_gap(wanted, &window, self.down_from(window.end))
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        let from = match self.0.range(..=pages.start).next_back() {
            Some((&first, tail)) if tail.end > pages.start => first,
            _ => pages.start,
        };
        for (&first, tail) in self.0.range(from..pages.end) {
            if !visit(first..tail.end, &tail.region) {
                return;
            }
        }
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}
