//! Sorted arrays: bounds apart from regions, so that a search reads nothing else.

use std::ops::Range;

use pagewarden::{Prot, Region};

use crate::map::{Pages, RegionMap, highest_gap, protect_parts, with_prot};

/// Three arrays with one slot a region.
#[derive(Clone)]
pub struct SortedVec {
    firsts: Vec<u64>,
    ends: Vec<u64>,
    regions: Vec<Region>,
}

impl SortedVec {
    /// How many regions begin below `page`.
    fn rank(&self, page: u64) -> usize {
        self.firsts.partition_point(|&first| first < page)
    }

    fn pages(&self, slot: usize) -> Pages {
        self.firsts[slot]..self.ends[slot]
    }

    /// Whether `slot` exists, ends at `page` and is like `region`.
    fn ends_at(&self, slot: Option<usize>, page: u64, region: &Region) -> Option<usize> {
        slot.filter(|&slot| self.ends[slot] == page && self.regions[slot] == *region)
    }

    fn drain(&mut self, slots: Range<usize>) {
        if slots.len() == 1 {
            self.firsts.remove(slots.start);
            self.ends.remove(slots.start);
            self.regions.remove(slots.start);
        } else {
            self.firsts.drain(slots.clone());
            self.ends.drain(slots.clone());
            self.regions.drain(slots);
        }
    }

    fn insert_at(&mut self, slot: usize, pages: Pages, region: Region) {
        self.firsts.insert(slot, pages.start);
        self.ends.insert(slot, pages.end);
        self.regions.insert(slot, region);
    }

    /// Maps free pages; `slot` is where they belong.
    fn insert_in_place(&mut self, slot: usize, pages: Pages, region: Region) {
        let low = self.ends_at(slot.checked_sub(1), pages.start, &region);
        let joins_above = self.firsts.get(slot) == Some(&pages.end) && self.regions[slot] == region;
        match low {
            Some(low) if joins_above => {
                self.ends[low] = self.ends[slot];
                self.drain(slot..slot + 1);
            }
            Some(low) => self.ends[low] = pages.end,
            None if joins_above => self.firsts[slot] = pages.start,
            None => self.insert_at(slot, pages, region),
        }
    }

    /// Gives all of a region other rights and joins it with its neighbours.
    fn protect_whole(&mut self, slot: usize, prot: Prot) {
        self.regions[slot].prot = prot;
        let Pages { start, end } = self.pages(slot);
        let region = &self.regions[slot];
        let low = self.ends_at(slot.checked_sub(1), start, region);
        let joins_above = self.firsts.get(slot + 1) == Some(&end) && self.regions[slot + 1] == *region;
        let doomed = match low {
            Some(_) if joins_above => slot..slot + 2,
            Some(_) => slot..slot + 1,
            None if joins_above => slot + 1..slot + 2,
            None => return,
        };
        self.ends[doomed.start - 1] = self.ends[doomed.end - 1];
        self.drain(doomed);
    }
}

impl RegionMap for SortedVec {
    const NAME: &'static str = "sorted Vec";

    fn new() -> Self {
        Self { firsts: Vec::new(), ends: Vec::new(), regions: Vec::new() }
    }

    fn len(&self) -> usize {
        self.firsts.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let slot = self.rank(page + 1).checked_sub(1)?;
        (page < self.ends[slot]).then(|| (self.pages(slot), &self.regions[slot]))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        self.insert_in_place(self.rank(pages.start), pages, region);
    }

    fn remove(&mut self, pages: Pages) {
        let Pages { start, end } = pages;
        let top = self.rank(end);
        let mut bottom = top;
        while bottom > 0 && self.ends[bottom - 1] > start {
            bottom -= 1;
        }
        if bottom == top {
            return;
        }
        let (below, above) = (self.firsts[bottom] < start, self.ends[top - 1] > end);
        if below && above && top - bottom == 1 {
            let (rest, region) = (self.ends[bottom], self.regions[bottom].clone());
            self.ends[bottom] = start;
            return self.insert_at(top, end..rest, region);
        }
        if below {
            self.ends[bottom] = start;
        }
        if above {
            self.firsts[top - 1] = end;
        }
        let doomed = bottom + usize::from(below)..top - usize::from(above);
        if !doomed.is_empty() {
            self.drain(doomed);
        }
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        let Pages { start, end } = pages;
        let Some(slot) = self.rank(end).checked_sub(1) else { return };
        let whole = self.pages(slot);
        if whole.end <= start {
            return;
        }
        if whole.start > start || whole.end < end {
            return protect_parts(self, &pages, prot);
        }
        if self.regions[slot].prot == prot {
            return;
        }
        if whole == pages {
            return self.protect_whole(slot, prot);
        }
        let changed = with_prot(&self.regions[slot], prot);
        if whole.end == end {
            self.ends[slot] = start;
            self.insert_in_place(slot + 1, pages, changed);
        } else if whole.start == start {
            self.firsts[slot] = end;
            self.insert_in_place(slot, pages, changed);
        } else {
            let rest = self.regions[slot].clone();
            self.firsts.splice(slot + 1..slot + 1, [start, end]);
            self.ends.splice(slot..slot + 1, [start, end, whole.end]);
            self.regions.splice(slot + 1..slot + 1, [changed, rest]);
        }
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        let top = self.rank(window.end);
        let firsts = self.firsts[..top].iter().rev();
        let ends = self.ends[..top].iter().rev();
        highest_gap(wanted, &window, firsts.zip(ends).map(|(&first, &end)| first..end))
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        let mut from = self.rank(pages.start);
        if from > 0 && self.ends[from - 1] > pages.start {
            from -= 1;
        }
        let bounds = self.firsts[from..].iter().zip(&self.ends[from..]);
        for ((&first, &end), region) in bounds.zip(&self.regions[from..]) {
            if first >= pages.end || !visit(first..end, region) {
                return;
            }
        }
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}
