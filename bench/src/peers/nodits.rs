//! The `nodit` crate, as Lind uses it.

use nodit::interval::ie;
use nodit::{Interval, NoditMap};
use pagewarden::{Prot, Region};

use crate::map::{Pages, RegionMap, highest_gap};

/// [`NoditMap`] of page numbers.
#[derive(Clone)]
pub struct Nodit(NoditMap<u64, Interval<u64>, Region>);

fn pages_of(interval: &Interval<u64>) -> Pages {
    *interval.start()..*interval.end() + 1
}

impl RegionMap for Nodit {
    const NAME: &'static str = "nodit";

    fn new() -> Self {
        Self(NoditMap::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let (interval, region) = self.0.get_key_value_at_point(&page).ok()?;
        Some((pages_of(interval), region))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        let done = self.0.insert_merge_touching_if_values_equal(ie(pages.start, pages.end), region);
        done.expect("free pages");
    }

    fn remove(&mut self, pages: Pages) {
        drop(self.0.cut(&ie(pages.start, pages.end)));
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        let parts = self.0.cut(&ie(pages.start, pages.end)).collect::<Vec<_>>();
        for (interval, mut region) in parts {
            region.prot = prot;
            self.0.insert_merge_touching_if_values_equal(interval, region).expect("free pages");
        }
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        let overlapping = self.0.overlapping(&ie(window.start, window.end)).rev();
        highest_gap(wanted, &window, overlapping.map(|(interval, _)| pages_of(interval)))
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        for (interval, region) in self.0.overlapping(&ie(pages.start, pages.end)) {
            if !visit(pages_of(interval), region) {
                return;
            }
        }
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}
