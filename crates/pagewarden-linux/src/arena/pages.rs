//! A set of pages, kept as runs.

use std::collections::BTreeMap;

use pagewarden::PageRange;

/// Pages by number; runs neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct PageSet {
    /// The first page of a run, and the one after its last.
    runs: BTreeMap<u64, u64>,
}

impl PageSet {
    /// Whether a page of `range` is in the set.
    pub(super) fn intersects(&self, range: PageRange) -> bool {
        if self.runs.is_empty() {
            return false;
        }
        self.runs.range(..range.end_page()).next_back().is_some_and(|(_, end)| *end > range.first_page())
    }

    /// Adds the pages of `range`.
    pub(super) fn insert(&mut self, range: PageRange) {
        let (mut first, mut end) = (range.first_page(), range.end_page());
        while let Some((&start, &stop)) = self.runs.range(..=end).next_back().filter(|(_, stop)| **stop >= first) {
            self.runs.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        self.runs.insert(first, end);
    }

    /// Takes the pages of `range` out.
    pub(super) fn remove(&mut self, range: PageRange) {
        let (first, end) = (range.first_page(), range.end_page());
        while let Some((&start, &stop)) = self.runs.range(..end).next_back().filter(|(_, stop)| **stop > first) {
            self.runs.remove(&start);
            if stop > end {
                self.runs.insert(end, stop);
            }
            if start < first {
                self.runs.insert(start, first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagewarden::PageCount;

    fn range(first: u64, end: u64) -> PageRange {
        PageRange::from_pages(first, PageCount::new(end - first)).unwrap()
    }

    #[test]
    fn a_set_of_runs_holds_what_an_array_of_pages_does() {
        let mut set = PageSet::default();
        let mut pages = [false; 40];
        let mut state = 7_u64;
        for _ in 0..4000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (first, len, adds) = ((state >> 33) % 32, 1 + (state >> 40) % 8, state >> 63 == 0);
            let touched = range(first, first + len);
            if adds {
                set.insert(touched)
            } else {
                set.remove(touched)
            }
            for page in first..first + len {
                pages[usize::try_from(page).unwrap()] = adds;
            }
            for (page, is_in) in (0..).zip(pages) {
                assert_eq!(set.intersects(range(page, page + 1)), is_in, "page {page}");
            }
            let runs: Vec<_> = set.runs.iter().collect();
            assert!(runs.windows(2).all(|pair| pair[0].1 < pair[1].0), "runs are apart: {runs:?}");
        }
    }
}
