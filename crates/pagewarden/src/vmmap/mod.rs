//! The map of regions of one address space.
//!
//! Owns which pages belong to which [`Region`]; knows nothing of budgets or platforms. Ranges in the map
//! never overlap, and neighbours that are equal are always one entry. Cloning shares everything.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::region::{Region, RegionFlags};

/// One region and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it lies.
    pub range: PageRange,
    /// What it is.
    pub region: &'a Region,
}

/// Which end of the window a gap search starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The highest gap that fits, and the top of it.
    TopDown,
    /// The lowest gap that fits, and the bottom of it.
    BottomUp,
}

/// What gap to look for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapRequest {
    /// Pages wanted.
    pub pages: PageCount,
    /// Where the pages must lie.
    pub window: PageRange,
    /// From which end to search.
    pub direction: Direction,
    /// The result is congruent to this page number modulo `align_pages`.
    pub align_offset: u64,
    /// A power of two; 1 for no alignment. As in Linux, only gaps that would hold
    /// `pages + align_pages - 1` pages are considered.
    pub align_pages: u64,
}

/// A map from pages to regions.
#[derive(Clone, Debug)]
pub struct Vmmap {
    entries: Arc<Vec<(PageRange, Region)>>,
    /// Pages kept free below a region that grows down.
    guard: PageCount,
}

impl Vmmap {
    /// An empty map that keeps `guard` pages free below each region that grows down.
    pub fn new(guard: PageCount) -> Self {
        Self { entries: Arc::new(Vec::new()), guard }
    }

    /// The pages kept free below a region that grows down.
    pub const fn guard(&self) -> PageCount {
        self.guard
    }

    /// The number of regions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn index_after(&self, address: VirtAddr) -> usize {
        self.entries.partition_point(|(range, _)| range.end_page() <= address.page_number())
    }

    fn entry(&self, index: usize) -> Option<Entry<'_>> {
        self.entries.get(index).map(|(range, region)| Entry { range: *range, region })
    }

    /// The region that holds `address`.
    pub fn get(&self, address: VirtAddr) -> Option<Entry<'_>> {
        self.at_or_after(address).filter(|entry| entry.range.contains(address))
    }

    /// The region that holds `address`, or else the first above it (Linux: `find_vma`).
    pub fn at_or_after(&self, address: VirtAddr) -> Option<Entry<'_>> {
        self.entry(self.index_after(address))
    }

    /// The last region that ends at or below `address`.
    pub fn before(&self, address: VirtAddr) -> Option<Entry<'_>> {
        let end = self.entries.partition_point(|(range, _)| range.end() <= address);
        self.entry(end.checked_sub(1)?)
    }

    /// All regions, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        self.entries.iter().map(|(range, region)| Entry { range: *range, region })
    }

    /// The regions that share a page with `range`, lowest first, with their whole bounds.
    pub fn range(&self, range: PageRange) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        let first = self.index_after(range.start());
        let end = self.entries.partition_point(|(entry, _)| entry.first_page() < range.end_page());
        self.entries[first.min(end)..end].iter().map(|(range, region)| Entry { range: *range, region })
    }

    /// Whether nothing is mapped in `range`.
    pub fn is_free(&self, range: PageRange) -> bool {
        self.range(range).next().is_none()
    }

    /// Maps `range`, which must be free; joins it with equal neighbours.
    ///
    /// # Panics
    /// If a page of `range` is mapped: callers look first, or call [`Self::replace`].
    pub fn insert(&mut self, range: PageRange, region: Region) {
        assert!(self.is_free(range), "insert over a mapped page");
        let at = self.index_after(range.start());
        Arc::make_mut(&mut self.entries).insert(at, (range, region));
        self.merge_around(range);
    }

    /// Unmaps whatever is in `range`, splitting regions at its edges.
    pub fn remove(&mut self, range: PageRange) {
        let kept = self.pieces_without(range);
        *Arc::make_mut(&mut self.entries) = kept;
    }

    fn pieces_without(&self, range: PageRange) -> Vec<(PageRange, Region)> {
        let mut kept = Vec::with_capacity(self.entries.len() + 1);
        for (bounds, region) in self.entries.iter() {
            if !bounds.intersects(range) {
                kept.push((*bounds, region.clone()));
                continue;
            }
            kept.extend(bounds.below(range.start()).map(|part| (part, region.clone())));
            kept.extend(bounds.from(range.end()).map(|part| (part, region.clone())));
        }
        kept
    }

    /// Maps `range` in the place of whatever is there.
    pub fn replace(&mut self, range: PageRange, region: Region) {
        self.remove(range);
        self.insert(range, region);
    }

    /// Changes each region in `range`, splitting at the edges of `range` and joining what has become equal.
    /// `change` is given the part of each region that lies inside.
    pub fn update(&mut self, range: PageRange, mut change: impl FnMut(PageRange, &mut Region)) {
        let inside: Vec<(PageRange, Region)> = self
            .range(range)
            .filter_map(|entry| Some((entry.range.intersection(range)?, entry.region.clone())))
            .collect();
        for (part, mut region) in inside {
            change(part, &mut region);
            self.replace(part, region);
        }
    }

    fn merge_around(&mut self, range: PageRange) {
        let entries = Arc::make_mut(&mut self.entries);
        let mut index = entries.partition_point(|(bounds, _)| bounds.end_page() < range.first_page());
        while index + 1 < entries.len() && entries[index].0.first_page() <= range.end_page() {
            let (low, high) = (entries[index].0, entries[index + 1].0);
            if low.end_page() == high.first_page() && entries[index].1 == entries[index + 1].1 {
                let pages = PageCount::new(high.end_page() - low.first_page());
                if let Some(joined) = PageRange::from_pages(low.first_page(), pages) {
                    entries[index].0 = joined;
                    entries.remove(index + 1);
                    continue;
                }
            }
            index += 1;
        }
    }

    /// The first gap that fits `request`, by Linux's rules (`mm/vma.c:unmapped_area` and
    /// `unmapped_area_topdown`): the guard below a region that grows down is not part of a gap.
    pub fn find_gap(&self, request: &GapRequest) -> Option<PageRange> {
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        let mut low = request.window.first_page();
        for entry in self.iter() {
            let guard = if entry.region.flags.contains(RegionFlags::GROWS_DOWN) { self.guard.get() } else { 0 };
            gaps.push((low, entry.range.first_page().saturating_sub(guard).min(request.window.end_page())));
            low = low.max(entry.range.end_page());
        }
        gaps.push((low, request.window.end_page()));
        let needed = request.pages.get().checked_add(request.align_pages - 1)?;
        let fits = |gap: &&(u64, u64)| gap.1 > gap.0 && gap.1 - gap.0 >= needed;
        let mask = request.align_pages - 1;
        let first = match request.direction {
            Direction::BottomUp => {
                let (low, _) = gaps.iter().find(fits)?;
                low + (request.align_offset.wrapping_sub(*low) & mask)
            }
            Direction::TopDown => {
                let (_, end) = gaps.iter().rev().find(fits)?;
                let first = end - request.pages.get();
                first - (first.wrapping_sub(request.align_offset) & mask)
            }
        };
        PageRange::from_pages(first, request.pages)
    }

    /// Checks that what the module promises holds.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        for pair in self.entries.windows(2) {
            let ((low, a), (high, b)) = (&pair[0], &pair[1]);
            assert!(low.end_page() <= high.first_page(), "{low} overlaps {high}");
            assert!(low.end_page() < high.first_page() || a != b, "{low} and {high} are equal and not merged");
        }
    }
}
