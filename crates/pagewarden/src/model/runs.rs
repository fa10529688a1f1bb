//! Runs of pages and what each of them is: a sorted list that is cut at every edge and never joined.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::range;
use crate::addr::PageRange;
use crate::region::Region;

/// Runs by their first page, each with its end. Equal neighbours are joined only where they are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(BTreeMap<u64, (u64, Region)>);

impl Runs {
    /// Makes `page` the first of a run if it lies within one.
    fn cut(&mut self, page: u64) {
        let Some((&first, (end, region))) = self.0.range_mut(..page).next_back() else { return };
        if *end <= page || first == page {
            return;
        }
        let rest = (*end, region.clone());
        *end = page;
        self.0.insert(page, rest);
    }

    fn cut_out(&mut self, range: PageRange) {
        self.cut(range.first_page());
        self.cut(range.end_page());
    }

    /// Takes away what is in `range`.
    pub(super) fn take(&mut self, pages: PageRange) -> Vec<(PageRange, Region)> {
        self.cut_out(pages);
        let mut taken = self.0.split_off(&pages.first_page());
        self.0.append(&mut taken.split_off(&pages.end_page()));
        taken.into_iter().map(|(first, (end, region))| (range(first, end), region)).collect()
    }

    /// Gives the free `pages` to `region`.
    pub(super) fn put(&mut self, pages: PageRange, region: Region) {
        assert!(self.is_free(pages), "{pages} is not free");
        self.0.insert(pages.first_page(), (pages.end_page(), region));
    }

    /// Changes what is in `range`.
    pub(super) fn update(&mut self, pages: PageRange, mut change: impl FnMut(&mut Region)) {
        self.cut_out(pages);
        for (_, (_, region)) in self.0.range_mut(pages.first_page()..pages.end_page()) {
            change(region);
        }
    }

    /// The parts of runs that lie inside `pages`.
    pub(super) fn parts(&self, pages: PageRange) -> impl Iterator<Item = (PageRange, &Region)> {
        let before = self.0.range(..pages.first_page()).next_back();
        let all = before.into_iter().chain(self.0.range(pages.first_page()..pages.end_page()));
        all.filter_map(move |(first, (end, region))| Some((range(*first, *end).intersection(pages)?, region)))
    }

    pub(super) fn is_free(&self, pages: PageRange) -> bool {
        self.parts(pages).next().is_none()
    }

    /// The pages of `pages` up to the first hole.
    pub(super) fn prefix(&self, pages: PageRange) -> Option<PageRange> {
        let mut end = pages.first_page();
        for (part, _) in self.parts(pages) {
            if part.first_page() != end {
                break;
            }
            end = part.end_page();
        }
        (end > pages.first_page()).then(|| range(pages.first_page(), end))
    }

    /// What is at `page`.
    pub(super) fn at(&self, page: u64) -> Option<&Region> {
        let (_, (end, region)) = self.0.range(..=page).next_back()?;
        (page < *end).then_some(region)
    }

    /// All runs as `shown` shows them, with equal neighbours joined.
    pub(super) fn joined(&self, shown: impl Fn(&Region) -> Region) -> Vec<(PageRange, Region)> {
        joined(self.0.iter().map(|(first, (end, region))| (range(*first, *end), shown(region))))
    }
}

/// Runs with equal neighbours joined.
pub(super) fn joined(runs: impl Iterator<Item = (PageRange, Region)>) -> Vec<(PageRange, Region)> {
    let mut all: Vec<(PageRange, Region)> = Vec::new();
    for (pages, region) in runs {
        match all.last_mut() {
            Some((before, last)) if before.end() == pages.start() && *last == region => {
                *before = range(before.first_page(), pages.end_page());
            }
            _ => all.push((pages, region)),
        }
    }
    all
}
