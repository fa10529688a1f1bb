//! The `rangemap` crate, with the best search for a gap that it allows and with `LiteBox`'s.

use pagewarden::{Prot, Region};
use rangemap::RangeMap;

use crate::map::{Pages, RegionMap, highest_gap, with_prot};

/// [`RangeMap`] with a search that walks the regions once.
#[derive(Clone)]
pub struct Ranges(RangeMap<u64, Region>);

impl RegionMap for Ranges {
    const NAME: &'static str = "rangemap";

    fn new() -> Self {
        Self(RangeMap::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        self.0.get_key_value(&page).map(|(pages, region)| (pages.clone(), region))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        self.0.insert(pages, region);
    }

    fn remove(&mut self, pages: Pages) {
        self.0.remove(pages);
    }

    fn replace(&mut self, pages: Pages, region: Region) {
        self.0.insert(pages, region);
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        match self.0.get_key_value(&pages.start) {
            Some((whole, region)) if pages.end <= whole.end => {
                if region.prot != prot {
                    let changed = with_prot(region, prot);
                    self.0.insert(pages, changed);
                }
            }
            _ => {
                let part = |whole: &Pages| whole.start.max(pages.start)..whole.end.min(pages.end);
                let parts = self.0.overlapping(&pages).map(|(whole, region)| (part(whole), with_prot(region, prot)));
                for (part, changed) in parts.collect::<Vec<_>>() {
                    self.0.insert(part, changed);
                }
            }
        }
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        highest_gap(wanted, &window, self.0.overlapping(&window).rev().map(|(pages, _)| pages.clone()))
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        for (pages, region) in self.0.overlapping(&pages) {
            if !visit(pages.clone(), region) {
                return;
            }
        }
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// [`RangeMap`] with a search that asks below each region whether its place is free, as `LiteBox` does.
#[derive(Clone)]
pub struct LiteBoxRanges(Ranges);

impl RegionMap for LiteBoxRanges {
    const NAME: &'static str = "rangemap, LiteBox's search";

    fn new() -> Self {
        Self(Ranges::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        self.0.get(page)
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        self.0.insert(pages, region);
    }

    fn remove(&mut self, pages: Pages) {
        self.0.remove(pages);
    }

    fn replace(&mut self, pages: Pages, region: Region) {
        self.0.replace(pages, region);
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        self.0.protect(pages, prot);
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        let highest = window.end.checked_sub(wanted).filter(|&first| first >= window.start)?;
        let map = &self.0.0;
        if map.last_range_value().is_none_or(|(pages, _)| pages.end <= highest) {
            return Some(highest);
        }
        for (pages, _) in map.iter().rev() {
            let first = pages.start.min(window.end).checked_sub(wanted).filter(|&first| first >= window.start)?;
            if !map.overlaps(&(first..first + wanted)) {
                return Some(first);
            }
        }
        None
    }

    fn visit(&self, pages: Pages, visit: impl FnMut(Pages, &Region) -> bool) {
        self.0.visit(pages, visit);
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}
