//! How many places reach each page of an object: windows of handles and views of spaces.
//!
//! The pages between two edges are reached from equally many places. An edge knows how many ranges begin or end there
//! and goes with the last of them, so that taking out a range that was put in needs no memory.

use alloc::collections::BTreeMap;
use core::ops::{Bound, Range};

/// The ranges that reach an object, by page of the object; any number of them may be alike or overlap.
#[derive(Default, Debug)]
pub(crate) struct Reach(BTreeMap<u64, Edge>);

#[derive(Clone, Copy, Debug)]
struct Edge {
    /// How many ranges begin or end here.
    ends: u64,
    /// How many reach the pages from here to the next edge.
    above: u64,
}

impl Reach {
    /// One range more. Whoever calls has made sure of memory for two edges.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        for at in [range.start, range.end] {
            self.edge(at).ends += 1;
        }
        self.0.range_mut(range).for_each(|(_, edge)| edge.above += 1);
    }

    /// Takes `part` of the range `whole` out. Needs no memory where they end alike.
    pub(crate) fn take(&mut self, part: Range<u64>, whole: &Range<u64>) {
        if part.is_empty() {
            return;
        }
        for (at, is_end) in [(part.start, part.start == whole.start), (part.end, part.end == whole.end)] {
            let edge = self.edge(at);
            edge.ends = if is_end { edge.ends - 1 } else { edge.ends + 1 };
        }
        self.0.range_mut(part.clone()).for_each(|(_, edge)| edge.above -= 1);
        for at in [part.start, part.end] {
            if self.0.get(&at).is_some_and(|edge| edge.ends == 0) {
                self.0.remove(&at);
            }
        }
    }

    /// Whether any range has the page.
    pub(crate) fn has(&self, page: u64) -> bool {
        self.above(page) > 0
    }

    /// The next edge after `page`: the pages before it are reached as `page` is.
    pub(crate) fn next_edge(&self, page: u64) -> u64 {
        self.0.range((Bound::Excluded(page), Bound::Unbounded)).next().map_or(u64::MAX, |(at, _)| *at)
    }

    fn above(&self, page: u64) -> u64 {
        self.0.range(..=page).next_back().map_or(0, |(_, edge)| edge.above)
    }

    fn edge(&mut self, at: u64) -> &mut Edge {
        let above = self.above(at);
        self.0.entry(at).or_insert(Edge { ends: 0, above })
    }

    /// Compares the counts with what the views are; the rest are windows.
    ///
    /// # Panics
    /// If something is wrong.
    pub(crate) fn check_invariants(&self, views: &[Range<u64>]) {
        let mut before = 0;
        for (at, edge) in &self.0 {
            assert!(edge.ends > 0, "an edge at {at} where nothing ends");
            assert!(edge.above.abs_diff(before) <= edge.ends, "{edge:?} at {at}, after {before}");
            let shown = views.iter().filter(|view| view.contains(at)).count() as u64;
            assert!(edge.above >= shown, "{edge:?} at {at}, with {shown} views");
            before = edge.above;
        }
        assert_eq!(before, 0, "reached without end");
        for view in views.iter().filter(|view| !view.is_empty()) {
            assert!([view.start, view.end].iter().all(|at| self.0.contains_key(at)), "{view:?} has no edges");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const PAGES: u64 = 24;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..PAGES, 0..PAGES).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    fn check(reach: &Reach, all: &[Range<u64>]) {
        reach.check_invariants(all);
        for page in 0..PAGES {
            let above = all.iter().filter(|range| range.contains(&page)).count() as u64;
            assert_eq!((reach.above(page), reach.has(page)), (above, above > 0), "page {page} of {all:?}");
            let is_alike = |other: &u64| all.iter().all(|range| range.contains(other) == range.contains(&page));
            assert!((page..reach.next_edge(page).min(PAGES)).all(|other| is_alike(&other)), "{page}: {reach:?}");
        }
    }

    proptest! {
        #[test]
        fn pages_are_reached_by_as_many_ranges_as_there_are(
            steps in prop::collection::vec((range(), prop::option::of((any::<prop::sample::Index>(), range()))), 1..40),
        ) {
            let (mut reach, mut all) = (Reach::default(), Vec::<Range<u64>>::new());
            for (range, cut) in steps {
                match cut {
                    Some((at, part)) if !all.is_empty() => {
                        let whole = all.swap_remove(at.index(all.len()));
                        let part = part.start.max(whole.start)..part.end.min(whole.end);
                        let part = if part.is_empty() { whole.clone() } else { part };
                        reach.take(part.clone(), &whole);
                        all.extend([whole.start..part.start, part.end..whole.end].into_iter().filter(|rest| !rest.is_empty()));
                    }
                    _ => {
                        reach.add(range.clone());
                        all.push(range);
                    }
                }
                check(&reach, &all);
            }
            for range in all {
                reach.take(range.clone(), &range);
            }
            assert!(reach.0.is_empty(), "{reach:?}");
        }
    }
}
