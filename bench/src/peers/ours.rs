//! pagewarden's own map.

use pagewarden::vmmap::{Direction, GapRequest};
use pagewarden::{PageCount, PageRange, Prot, Region, VirtAddr, Vmmap};

use crate::map::{Pages, RegionMap};

/// [`Vmmap`] without guard gaps.
#[derive(Clone)]
pub struct Ours(Vmmap);

fn range(pages: &Pages) -> PageRange {
    PageRange::from_pages(pages.start, PageCount::new(pages.end - pages.start)).expect("a range of pages")
}

impl RegionMap for Ours {
    const NAME: &'static str = "pagewarden";

    fn new() -> Self {
        Self(Vmmap::new(PageCount::ZERO))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let entry = self.0.get(VirtAddr::from_page_number(page)?)?;
        Some((entry.range.first_page()..entry.range.end_page(), entry.region))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        self.0.insert(range(&pages), region).expect("memory");
    }

    fn remove(&mut self, pages: Pages) {
        self.0.remove(range(&pages)).expect("memory");
    }

    fn replace(&mut self, pages: Pages, region: Region) {
        self.0.replace(range(&pages), region).expect("memory");
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        self.0.update(range(&pages), |_, region| region.prot = prot).expect("memory");
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        let found = self.0.find_gap(&GapRequest {
            pages: PageCount::new(wanted),
            window: range(&window),
            direction: Direction::TopDown,
            align_offset: 0,
            align_pages: 1,
        })?;
        Some(found.first_page())
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        for entry in self.0.range(range(&pages)) {
            if !visit(entry.range.first_page()..entry.range.end_page(), entry.region) {
                return;
            }
        }
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}
