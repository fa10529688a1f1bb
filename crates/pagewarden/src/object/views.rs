//! The reverse map of an object: which pages of which spaces show which of its pages.
//!
//! A view is a run of pages of a space that shows a run of the object's. Views of one space do not overlap. They are put
//! in before the first page is shown and taken out after the last is gone, so that whoever has the object locked finds
//! all places where a page of it may be.
//!
//! Where pages live no longer than somebody reaches them, views are counted in the object's [`Reach`] too.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::reach::Reach;
use crate::addr::{PageCount, PageRange};

/// Which space a view is in.
pub(crate) type SpaceId = u64;

/// All views of an object. `T` is what leads to the tables of a space.
#[derive(Debug)]
pub(crate) struct Views<T> {
    all: BTreeMap<(SpaceId, u64), View<T>>,
    /// Who reaches which page, where pages depend on it.
    reach: Option<Reach>,
}

#[derive(Debug)]
struct View<T> {
    /// The page number after the last.
    end: u64,
    /// Page of the object minus page number, wrapping.
    delta: u64,
    residency: Residency,
    tables: Arc<T>,
}

/// Whether pages have to stay where they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Residency {
    /// They may go and come back.
    Any,
    /// They are locked.
    Locked,
}

/// What of an object a run of pages shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) range: PageRange,
    /// Page of the object minus page number, wrapping.
    pub(crate) delta: u64,
    pub(crate) residency: Residency,
}

impl<T> Default for Views<T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), reach: None }
    }
}

impl<T> View<T> {
    /// The pages of the object that pages `pages` of the space show.
    fn shown(&self, pages: Range<u64>) -> Range<u64> {
        shown_by(pages, self.delta)
    }
}

/// The pages of an object that pages `pages` of a space show, without those that lie before its first page, where numbers
/// wrap.
pub(super) fn shown_by(pages: Range<u64>, delta: u64) -> Range<u64> {
    let (first, count) = (pages.start.wrapping_add(delta), pages.end - pages.start);
    let before = if first > u64::MAX / 2 { first.wrapping_neg() } else { 0 };
    let first = first.wrapping_add(before.min(count));
    first..first.saturating_add(count.saturating_sub(before))
}

impl<T> Views<T> {
    /// No views, of an object whose pages live as long as somebody reaches them.
    pub(crate) fn reaching() -> Self {
        Self { all: BTreeMap::new(), reach: Some(Reach::default()) }
    }

    /// Who reaches which page, where pages depend on it.
    pub(crate) const fn reach(&self) -> Option<&Reach> {
        self.reach.as_ref()
    }

    /// The same, to be changed.
    pub(crate) const fn reach_mut(&mut self) -> Option<&mut Reach> {
        self.reach.as_mut()
    }

    /// Whether page `index` of the object may be there.
    pub(crate) fn may_have(&self, index: u64) -> bool {
        self.reach.as_ref().is_none_or(|reach| reach.has(index))
    }

    /// Notes that `range` of the space shows the object.
    ///
    /// Whoever calls has made sure of memory ([`make_sure_of_tree_nodes`](crate::fallible::make_sure_of_tree_nodes)).
    pub(crate) fn add(&mut self, space: SpaceId, tables: &Arc<T>, shown: Shown) {
        let Shown { range, delta, residency } = shown;
        self.cut(space, range);
        let view = View { end: range.end_page(), delta, residency, tables: Arc::clone(tables) };
        if let Some(reach) = &mut self.reach {
            reach.add(view.shown(range.first_page()..view.end));
        }
        self.all.insert((space, range.first_page()), view);
    }

    /// Forgets what `range` of the space shows. A view that reaches beyond on both sides falls in two, for which whoever
    /// calls has made sure of memory.
    pub(crate) fn cut(&mut self, space: SpaceId, range: PageRange) {
        let (first, end) = (range.first_page(), range.end_page());
        let Self { all, reach } = self;
        let mut forget = |view: &View<T>, part: Range<u64>, whole: Range<u64>| {
            if let Some(reach) = reach {
                reach.take(view.shown(part), &view.shown(whole));
            }
        };
        if let Some((&(_, start), view)) =
            all.range_mut(..(space, first)).next_back().filter(|((id, _), _)| *id == space)
        {
            let rest = View { tables: Arc::clone(&view.tables), ..*view };
            forget(view, first..end.min(rest.end).max(first), start..rest.end);
            view.end = rest.end.min(first);
            if rest.end > end {
                all.insert((space, end), rest);
            }
        }
        while let Some((&key, _)) = all.range((space, first)..(space, end)).next() {
            let Some(view) = all.remove(&key) else { break };
            forget(&view, key.1..end.min(view.end), key.1..view.end);
            if view.end > end {
                // In place of the one that was taken out: this needs no more memory.
                all.insert((space, end), view);
            }
        }
    }

    /// Where pages `first..end` of the object may be shown: the tables and the pages there.
    pub(crate) fn showing(&self, first: u64, end: u64) -> impl Iterator<Item = (&Arc<T>, PageRange)> {
        self.all.iter().flat_map(move |(&(_, start), view)| {
            // Pages of the object wrap together with page numbers, so there may be two parts.
            let pages = view.end - start;
            let shown = start.wrapping_add(view.delta);
            let ahead = first.saturating_sub(shown);
            let count = end.saturating_sub(shown).min(pages);
            let part = (ahead < count).then(|| PageRange::from_pages(start + ahead, PageCount::new(count - ahead)));
            part.flatten().map(|range| (&view.tables, range))
        })
    }

    /// Whether page `index` of the object is locked anywhere.
    pub(crate) fn is_locked(&self, index: u64) -> bool {
        self.all.iter().any(|(&(_, start), view)| {
            view.residency == Residency::Locked && view.shown(start..view.end).contains(&index)
        })
    }

    /// Compares the counts of who reaches which page with the views.
    ///
    /// # Panics
    /// If something is wrong.
    pub(crate) fn check_invariants(&self) {
        let Some(reach) = &self.reach else { return };
        let shown: Vec<_> = self.all.iter().map(|(&(_, start), view)| view.shown(start..view.end)).collect();
        reach.check_invariants(&shown);
    }

    /// All of them: space, pages, delta.
    pub(crate) fn list(&self) -> Vec<(SpaceId, PageRange, u64)> {
        let range = |start: u64, end: u64| PageRange::from_pages(start, PageCount::new(end - start));
        self.all.iter().filter_map(|(&(id, start), view)| Some((id, range(start, view.end)?, view.delta))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::from_pages(first, PageCount::new(count)).unwrap()
    }

    fn shown(range: PageRange, delta: u64) -> Shown {
        Shown { range, delta, residency: Residency::Any }
    }

    #[test]
    fn views_are_cut_where_pages_go() {
        let tables = Arc::new(());
        let mut views = Views::default();
        views.add(1, &tables, shown(pages(10, 10), 0u64.wrapping_sub(10)));
        views.add(2, &tables, shown(pages(10, 10), 90));
        views.cut(1, pages(13, 2));
        let delta = 0u64.wrapping_sub(10);
        let expected = vec![(1, pages(10, 3), delta), (1, pages(15, 5), delta), (2, pages(10, 10), 90)];
        assert_eq!(views.list(), expected);
        let places: Vec<_> = views.showing(2, 6).map(|(_, range)| range).collect();
        assert_eq!(places, [pages(12, 1), pages(15, 1)]);
        let places: Vec<_> = views.showing(105, 200).map(|(_, range)| range).collect();
        assert_eq!(places, [pages(15, 5)]);
        views.cut(1, pages(0, 16));
        assert_eq!(views.list(), [(1, pages(16, 4), delta), (2, pages(10, 10), 90)]);
        views.cut(2, pages(0, 100));
        views.cut(1, pages(16, 4));
        assert_eq!(views.list(), []);
    }

    #[test]
    fn what_views_show_is_reached_and_nothing_before_the_first_page() {
        let tables = Arc::new(());
        let mut views = Views::reaching();
        // Pages 10 to 14 show what is before the first page.
        views.add(1, &tables, shown(pages(10, 10), 0u64.wrapping_sub(15)));
        views.add(2, &tables, shown(pages(100, 4), 0u64.wrapping_sub(96)));
        let reached = |views: &Views<()>| (0..12).filter(|page| views.may_have(*page)).collect::<Vec<_>>();
        assert_eq!(reached(&views), [0, 1, 2, 3, 4, 5, 6, 7]);
        views.check_invariants();
        assert!(!views.may_have(u64::MAX) && !views.may_have(8));
        views.cut(2, pages(101, 2));
        views.cut(1, pages(12, 5));
        views.check_invariants();
        assert_eq!(reached(&views), [2, 3, 4, 7]);
        views.cut(1, pages(0, 30));
        assert_eq!(reached(&views), [4, 7]);
        views.add(2, &tables, shown(pages(100, 1), 0u64.wrapping_sub(99)));
        assert_eq!(reached(&views), [1, 7], "shown anew in its place");
        views.cut(2, pages(0, 200));
        views.check_invariants();
        assert_eq!((reached(&views), views.reach().unwrap().next_edge(0)), (Vec::new(), u64::MAX));
    }
}
