//! The array: one region, or none, for each page. Every answer is found by looking at every page.

use alloc::vec;
use alloc::vec::Vec;

use super::range;
use crate::addr::{PageCount, PageRange};
use crate::region::{Region, RegionFlags};
use crate::vmmap::{Change, Direction, GapRequest};

/// The region of each page of a space that starts at page 0. Pages outside are not there: they are never part of
/// a gap, and to change them is an error of the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct PageArray {
    guard: PageCount,
    pages: Vec<Option<Region>>,
}

impl PageArray {
    /// A space of `pages` pages with nothing mapped and no guard.
    pub fn new(pages: PageCount) -> Self {
        Self { guard: PageCount::ZERO, pages: vec![None; index(pages.get())] }
    }

    /// The same with `guard` pages kept free below each region that grows down.
    #[must_use]
    pub fn with_guard(self, guard: PageCount) -> Self {
        Self { guard, ..self }
    }

    /// How many pages there are.
    pub fn size(&self) -> u64 {
        self.pages.len() as u64
    }

    fn slice(&self, range: PageRange) -> &[Option<Region>] {
        &self.pages[index(range.first_page())..index(range.end_page())]
    }

    /// Whether nothing is mapped in `range`.
    ///
    /// # Panics
    /// If `range` is not inside the space.
    pub fn is_free(&self, range: PageRange) -> bool {
        self.slice(range).iter().all(Option::is_none)
    }

    /// Maps `range` in the place of whatever is there, or unmaps it.
    ///
    /// # Panics
    /// If `range` is not inside the space.
    pub fn replace(&mut self, range: PageRange, region: Option<Region>) {
        self.pages[index(range.first_page())..index(range.end_page())].fill(region);
    }

    /// Changes each region in `range`. `change` is given the part of each that lies inside.
    ///
    /// # Panics
    /// If `range` is not inside the space.
    pub fn update(&mut self, range: PageRange, mut change: impl FnMut(PageRange, &mut Region)) {
        for (run, mut region) in self.runs() {
            if let Some(part) = run.intersection(range) {
                change(part, &mut region);
                self.replace(part, Some(region));
            }
        }
    }

    /// The longest runs of pages with equal regions, lowest first: what a map has as its regions.
    pub fn runs(&self) -> Vec<(PageRange, Region)> {
        let mut runs: Vec<(PageRange, Region)> = Vec::new();
        for (page, region) in (0..).zip(&self.pages) {
            let Some(region) = region else { continue };
            match runs.last_mut() {
                Some((run, last)) if run.end_page() == page && last == region => {
                    *run = range(run.first_page(), page + 1);
                }
                _ => runs.push((range(page, page + 1), region.clone())),
            }
        }
        runs
    }

    /// The pages at which something else begins, both ends of the space among them; ascending.
    pub fn edges(&self) -> Vec<u64> {
        let inner = (1..).zip(self.pages.windows(2)).filter(|(_, pair)| pair[0] != pair[1]).map(|(page, _)| page);
        let mut edges = vec![0];
        edges.extend(inner);
        edges.push(self.size());
        edges
    }

    /// Which pages a gap may have: those that are free and not within the guard below a region that grows down.
    fn usable(&self) -> Vec<bool> {
        let mut usable: Vec<bool> = self.pages.iter().map(Option::is_none).collect();
        for (place, region) in self.pages.iter().enumerate() {
            if region.as_ref().is_some_and(|region| region.flags.contains(RegionFlags::GROWS_DOWN)) {
                let below = (0..place).rev().take(index(self.guard.get()));
                below.take_while(|&below| self.pages[below].is_none()).for_each(|below| usable[below] = false);
            }
        }
        usable
    }

    /// The first gap that fits `request`, by the rules of [`Vmmap::find_gap`](crate::Vmmap::find_gap).
    pub fn find_gap(&self, request: &GapRequest) -> Option<PageRange> {
        let (window, wanted) = (request.window, request.pages.get());
        let (align, offset) = (request.align_pages.max(1), request.align_offset);
        let mut gaps: Vec<PageRange> = Vec::new();
        for (page, usable) in (0..).zip(self.usable()) {
            if !usable || page < window.first_page() || page >= window.end_page() {
                continue;
            }
            match gaps.last_mut() {
                Some(gap) if gap.end_page() == page => *gap = range(gap.first_page(), page + 1),
                _ => gaps.push(range(page, page + 1)),
            }
        }
        let needed = wanted.checked_add(align - 1).filter(|_| wanted > 0)?;
        let mut fitting = gaps.into_iter().filter(|gap| gap.pages().get() >= needed);
        let aligned = |first: &u64| first % align == offset % align;
        let first = match request.direction {
            Direction::BottomUp => fitting.next().and_then(|gap| (gap.first_page()..gap.end_page()).find(aligned)),
            Direction::TopDown => {
                fitting.next_back().and_then(|gap| (gap.first_page()..=gap.end_page() - wanted).rev().find(aligned))
            }
        };
        PageRange::from_pages(first?, request.pages)
    }

    /// What is different in `newer`, an array of the same size.
    pub fn diff<'a>(&'a self, newer: &'a Self) -> Vec<Change<'a>> {
        let mut changes: Vec<Change<'a>> = Vec::new();
        for (page, (before, after)) in (0..).zip(self.pages.iter().zip(&newer.pages)) {
            let (before, after) = (before.as_ref(), after.as_ref());
            if before == after {
                continue;
            }
            match changes.last_mut() {
                Some(last) if last.range.end_page() == page && (last.before, last.after) == (before, after) => {
                    last.range = range(last.range.first_page(), page + 1);
                }
                _ => changes.push(Change { range: range(page, page + 1), before, after }),
            }
        }
        changes
    }
}

/// A page number or a count as an index; one that does not fit is outside of every array.
fn index(page: u64) -> usize {
    usize::try_from(page).unwrap_or(usize::MAX)
}
