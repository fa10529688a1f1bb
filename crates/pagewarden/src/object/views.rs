//! The reverse map of an object: which pages of which spaces show which of its pages.
//!
//! A view is a run of pages of a space that shows a run of the object's. Views of one space do not overlap. They are put
//! in before the first page is shown and taken out after the last is gone, so that whoever has the object locked finds
//! all places where a page of it may be.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::addr::{PageCount, PageRange};

/// Which space a view is in.
pub(crate) type SpaceId = u64;

/// All views of an object. `T` is what leads to the tables of a space.
#[derive(Debug)]
pub(crate) struct Views<T>(BTreeMap<(SpaceId, u64), View<T>>);

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
        Self(BTreeMap::new())
    }
}

impl<T> Views<T> {
    /// Notes that `range` of the space shows the object.
    ///
    /// Whoever calls has made sure of memory ([`make_sure_of_tree_node`](crate::fallible::make_sure_of_tree_node)).
    pub(crate) fn add(&mut self, space: SpaceId, tables: &Arc<T>, shown: Shown) {
        let Shown { range, delta, residency } = shown;
        self.cut(space, range);
        let view = View { end: range.end_page(), delta, residency, tables: Arc::clone(tables) };
        self.0.insert((space, range.first_page()), view);
    }

    /// Forgets what `range` of the space shows. A view that reaches beyond on both sides falls in two, for which whoever
    /// calls has made sure of memory.
    pub(crate) fn cut(&mut self, space: SpaceId, range: PageRange) {
        let (first, end) = (range.first_page(), range.end_page());
        if let Some((_, view)) = self.0.range_mut(..(space, first)).next_back().filter(|((id, _), _)| *id == space) {
            let rest = View { tables: Arc::clone(&view.tables), ..*view };
            view.end = rest.end.min(first);
            if rest.end > end {
                self.0.insert((space, end), rest);
            }
        }
        while let Some((&key, _)) = self.0.range((space, first)..(space, end)).next() {
            let Some(view) = self.0.remove(&key) else { break };
            if view.end > end {
                // In place of the one that was taken out: this needs no more memory.
                self.0.insert((space, end), view);
            }
        }
    }

    /// Where pages `first..end` of the object may be shown: the tables and the pages there.
    pub(crate) fn showing(&self, first: u64, end: u64) -> impl Iterator<Item = (&Arc<T>, PageRange)> {
        self.0.iter().flat_map(move |(&(_, start), view)| {
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
        self.0.iter().any(|(&(_, start), view)| {
            let shown = start.wrapping_add(view.delta);
            view.residency == Residency::Locked && (shown..shown.saturating_add(view.end - start)).contains(&index)
        })
    }

    /// All of them: space, pages, delta.
    pub(crate) fn list(&self) -> Vec<(SpaceId, PageRange, u64)> {
        let range = |start: u64, end: u64| PageRange::from_pages(start, PageCount::new(end - start));
        self.0.iter().filter_map(|(&(id, start), view)| Some((id, range(start, view.end)?, view.delta))).collect()
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
}
