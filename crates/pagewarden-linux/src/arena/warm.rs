//! Vacant pages that the host still has as they were: plain memory with a guard in the page table of each page.
//!
//! A guard (`MADV_GUARD_INSTALL`) empties a page and makes every access to it fail, and the host's list of mappings
//! does not change. To unmap a few pages so, and to map them again by taking the guards away, costs a fraction of
//! splitting and uniting regions. Each run of such pages keeps up to two of the host's regions from being one,
//! and each page costs a word in a page table. So there are few runs, and short ones; the rest is replaced as ever.
//!
//! Invariant: every page in the set is vacant, and to the host private anonymous memory that may be read and written,
//! with a guard.

use pagewarden::PageRange;

/// Most runs.
const RUNS_MAX: usize = 32;
/// Most pages in a run.
pub(super) const PAGES_MAX: u64 = 64;

/// A few runs of pages, oldest first; no two touch.
#[derive(Debug, Default)]
pub(super) struct WarmPages {
    runs: Vec<PageRange>,
}

impl WarmPages {
    /// Whether all of `range` is warm.
    pub(super) fn contains(&self, range: PageRange) -> bool {
        self.runs.iter().any(|run| run.contains_range(range))
    }

    /// Whether a page of `range` is warm.
    pub(super) fn intersects(&self, range: PageRange) -> bool {
        self.runs.iter().any(|run| run.intersects(range))
    }

    /// The warm parts of `range`.
    pub(super) fn parts(&self, range: PageRange) -> impl Iterator<Item = PageRange> {
        self.runs.iter().filter_map(move |run| run.intersection(range))
    }

    /// Takes pages in, together with the runs that they touch. What comes back is too much, and is in the set no
    /// more: it is to be replaced.
    pub(super) fn insert(&mut self, range: PageRange) -> Option<PageRange> {
        let (mut start, mut end) = (range.start(), range.end());
        self.runs.retain(|run| {
            let touches = run.start() <= end && start <= run.end();
            if touches {
                (start, end) = (start.min(run.start()), end.max(run.end()));
            }
            !touches
        });
        let run = PageRange::new(start, end)?;
        if run.pages().get() > PAGES_MAX {
            return Some(run);
        }
        self.runs.push(run);
        (self.runs.len() > RUNS_MAX).then(|| self.runs.remove(0))
    }

    /// Takes a run back in that could not be replaced, beside what [`Self::insert`] allows.
    pub(super) fn keep(&mut self, run: PageRange) {
        self.runs.push(run);
    }

    /// Takes pages out.
    pub(super) fn remove(&mut self, range: PageRange) {
        if !self.intersects(range) {
            return;
        }
        let runs = std::mem::take(&mut self.runs);
        for run in runs {
            let halves = [run.below(range.start()), run.from(range.end())];
            self.runs.extend(halves.into_iter().flatten());
        }
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = PageRange> {
        self.runs.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagewarden::PageCount;

    fn pages(first: u64, end: u64) -> PageRange {
        PageRange::from_pages(first, PageCount::new(end - first)).unwrap()
    }

    #[test]
    fn a_set_of_runs_holds_what_an_array_of_pages_does() {
        let mut set = WarmPages::default();
        let mut array = [false; 40];
        let mut state = 7_u64;
        for _ in 0..4000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (first, len, adds) = ((state >> 33) % 32, 1 + (state >> 40) % 8, state >> 63 == 0);
            let touched = pages(first, first + len);
            if adds {
                assert_eq!(set.insert(touched), None)
            } else {
                set.remove(touched)
            }
            for page in first..first + len {
                array[usize::try_from(page).unwrap()] = adds;
            }
            for (page, is_in) in (0..).zip(array) {
                assert_eq!(set.intersects(pages(page, page + 1)), is_in, "page {page}");
                assert_eq!(set.contains(pages(page, page + 1)), is_in, "page {page}");
            }
            for run in &set.runs {
                let others = set.runs.iter().filter(|other| *other != run);
                assert!(others.clone().all(|other| other.end() < run.start() || run.end() < other.start()));
            }
        }
    }

    #[test]
    fn there_are_few_runs_and_short_ones() {
        let mut set = WarmPages::default();
        for run in 0..RUNS_MAX as u64 {
            assert_eq!(set.insert(pages(run * 4, run * 4 + 1)), None);
        }
        assert_eq!(set.insert(pages(1000, 1001)), Some(pages(0, 1)), "the oldest goes");
        assert_eq!(set.insert(pages(1001, 1001 + PAGES_MAX)), Some(pages(1000, 1001 + PAGES_MAX)));
        assert!(!set.intersects(pages(1000, 1100)));
    }
}
