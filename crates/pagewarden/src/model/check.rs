//! Comparisons of a map with the array: everything that can be asked of both.

use alloc::vec::Vec;

use super::pages::PageArray;
use super::range;
use super::step::Probe;
use super::world::World;
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::vmmap::{Direction, Entry, GapRequest, Vmmap};

impl World {
    /// Compares what is mapped, after a change.
    pub(super) fn compare(&mut self) {
        self.runs = self.pages.runs();
        self.map.check_invariants();
        let entries = self.map.iter().map(|entry| (entry.range, entry.region));
        assert!(
            entries.eq(self.runs.iter().map(|(run, region)| (*run, region))),
            "{:?}, not {:?}",
            self.map,
            self.runs
        );
        assert_eq!((self.map.len(), self.map.is_empty()), (self.runs.len(), self.runs.is_empty()));
    }

    pub(super) fn check(&self, probe: &Probe) {
        let window = probe.window.resolve(&self.pages.edges());
        self.check_page(window.first_page());
        self.check_page(window.end_page());
        self.check_range(window, probe.turns);
        for window in [window, range(0, self.pages.size())] {
            for direction in [Direction::TopDown, Direction::BottomUp] {
                let &Probe { pages, align_pages, align_offset, .. } = probe;
                let request = GapRequest { pages: PageCount::new(pages), window, direction, align_offset, align_pages };
                self.check_gap(&request);
            }
        }
    }

    fn check_gap(&self, request: &GapRequest) {
        let found = self.map.find_gap(request);
        assert_eq!(found, self.pages.find_gap(request), "{request:?} in {:?}", self.map);
        assert!(found.is_none_or(|gap| gap.pages() == request.pages && self.map.is_free(gap)), "{request:?}");
    }

    /// Everything that can be asked about the page.
    fn check_page(&self, page: u64) {
        let runs = || self.runs.iter().map(|(run, _)| *run);
        let found = |entry: Option<Entry<'_>>| entry.map(|entry| entry.range);
        for address in [VirtAddr::new(page * PAGE_SIZE), VirtAddr::new(page * PAGE_SIZE + PAGE_SIZE - 1)] {
            assert_eq!(found(self.map.get(address)), runs().find(|run| run.contains(address)), "{address:?}");
            assert_eq!(found(self.map.at_or_after(address)), runs().find(|run| run.end() > address), "{address:?}");
            assert_eq!(found(self.map.before(address)), runs().rfind(|run| run.end() <= address), "{address:?}");
        }
    }

    /// Takes the regions of `range` from both ends in turns.
    fn check_range(&self, range: PageRange, turns: u64) {
        let inside: Vec<PageRange> =
            self.runs.iter().map(|(run, _)| *run).filter(|run| run.intersects(range)).collect();
        assert_eq!(self.map.is_free(range), inside.is_empty(), "{range}");
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let mut entries = self.map.range(range);
        // A map that gives regions for ever is wrong as well.
        for turn in 0..=inside.len() {
            let from_back = turns >> (turn % 64) & 1 == 1;
            let Some(entry) = (if from_back { entries.next_back() } else { entries.next() }) else { break };
            if from_back { high.push(entry.range) } else { low.push(entry.range) }
        }
        assert!(entries.next().is_none() && entries.next_back().is_none(), "{range}: more at one end");
        low.extend(high.into_iter().rev());
        assert_eq!(low, inside, "{range}");
    }

    /// Compares the versions that are kept, and what differs between each and now.
    pub(super) fn check_kept(&self) {
        for (map, pages) in &self.kept {
            assert!(is_as(map, pages), "a version changed");
            assert_eq!(map.diff(&self.map), pages.diff(&self.pages));
            assert_eq!(self.map.diff(map), self.pages.diff(pages));
        }
    }
}

/// Whether the map is whole and has what the array has.
fn is_as(map: &Vmmap, pages: &PageArray) -> bool {
    map.check_invariants();
    map.iter().map(|entry| (entry.range, entry.region.clone())).eq(pages.runs())
}
