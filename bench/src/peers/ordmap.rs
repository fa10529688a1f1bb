//! The persistent B-tree of the `imbl` crate, keyed by the first page.

use imbl::OrdMap;
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
pub struct Persistent(OrdMap<u64, Tail>);

impl Persistent {
    /// The region that begins last below `page`.
    fn below(&self, page: u64) -> Option<(u64, &Tail)> {
        self.0.range(..page).next_back().map(|(&first, tail)| (first, tail))
    }

    fn set_end(&mut self, first: u64, end: u64) {
        if let Some(tail) = self.0.get_mut(&first) {
            tail.end = end;
        }
    }

    /// Maps `pages` with `region` where `old` is the key of a region of exactly these pages, if there is one.
    fn put(&mut self, pages: Pages, region: Region, old: Option<u64>) {
        let Pages { start, end } = pages;
        let mut below = self.0.range(..=end);
        let mut low = below.next_back();
        let mut upper_end = None;
        if let Some((&first, tail)) = low
            && first == end
        {
            upper_end = (tail.region == region).then_some(tail.end);
            low = below.next_back();
        }
        if old.is_some() {
            low = below.next_back();
        }
        let low = low.filter(|(_, tail)| tail.end == start && tail.region == region).map(|(&first, _)| first);
        let new_end = upper_end.unwrap_or(end);
        match (low, old) {
            (Some(low), old) => {
                self.set_end(low, new_end);
                if let Some(old) = old {
                    self.0.remove(&old);
                }
            }
            (None, Some(old)) => {
                if let Some(tail) = self.0.get_mut(&old) {
                    *tail = Tail { end: new_end, region };
                }
            }
            (None, None) => {
                self.0.insert(start, Tail { end: new_end, region });
            }
        }
        if upper_end.is_some() {
            self.0.remove(&end);
        }
    }
}

impl RegionMap for Persistent {
    const NAME: &'static str = "imbl OrdMap";

    fn new() -> Self {
        Self(OrdMap::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let (&first, tail) = self.0.get_prev(&page)?;
        (page < tail.end).then_some((first..tail.end, &tail.region))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        self.put(pages, region, None);
    }

    fn remove(&mut self, pages: Pages) {
        let Pages { start, end } = pages;
        let Some((first, tail)) = self.below(end) else { return };
        if tail.end <= start {
            return;
        }
        let rest = (tail.end > end).then(|| tail.clone());
        if first < start {
            self.set_end(first, start);
        } else {
            self.0.remove(&first);
            while first > start
                && let Some((first, tail)) = self.below(end)
                && tail.end > start
            {
                if first < start {
                    self.set_end(first, start);
                } else {
                    self.0.remove(&first);
                }
            }
        }
        if let Some(rest) = rest {
            self.0.insert(end, rest);
        }
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        let Pages { start, end } = pages;
        let Some((first, tail)) = self.below(end) else { return };
        if tail.end <= start || first <= start && end <= tail.end && tail.region.prot == prot {
            return;
        }
        if first > start || tail.end < end {
            return protect_parts(self, &pages, prot);
        }
        let changed = with_prot(&tail.region, prot);
        let rest = (tail.end > end).then(|| tail.clone());
        match (first < start, rest) {
            (false, None) => self.put(pages, changed, Some(first)),
            (true, None) => {
                self.set_end(first, start);
                self.put(pages, changed, None);
            }
            (true, Some(rest)) => {
                self.set_end(first, start);
                self.0.insert(start, Tail { end, region: changed });
                self.0.insert(end, rest);
            }
            (false, Some(rest)) => {
                self.0.remove(&first);
                self.0.insert(end, rest);
                self.put(pages, changed, None);
            }
        }
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        let regions = self.0.range(..window.end).rev().map(|(&first, tail)| first..tail.end);
        highest_gap(wanted, &window, regions)
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        let from = match self.0.get_prev(&pages.start) {
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
