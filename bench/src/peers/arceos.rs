//! The `memory_set` crate of `ArceOS`, as far as it can take part.

use memory_set::{MappingBackend, MemoryArea, MemorySet};
use pagewarden::{Prot, Region};

use crate::map::{Ability, Pages, RegionMap};

/// What an area is backed by: all of a region, so that areas need no flags besides it.
#[derive(Clone)]
struct Backing(Region);

impl MappingBackend for Backing {
    type Addr = usize;
    type Flags = ();
    type PageTable = ();

    fn map(&self, _: usize, _: usize, (): (), (): &mut ()) -> bool {
        true
    }

    fn unmap(&self, _: usize, _: usize, (): &mut ()) -> bool {
        true
    }

    fn protect(&self, _: usize, _: usize, (): (), (): &mut ()) -> bool {
        true
    }
}

/// [`MemorySet`] whose addresses are page numbers.
pub struct Areas(MemorySet<Backing>);

#[expect(clippy::cast_possible_truncation, reason = "the bench runs where both have 64 bits")]
const fn address(page: u64) -> usize {
    page as usize
}

impl RegionMap for Areas {
    const NAME: &'static str = "ArceOS memory_set";
    const CANNOT: &'static [(Ability, &'static str)] = &[
        (Ability::Merge, "areas are never joined"),
        (Ability::Protect, "what protect splits is never joined again"),
        (Ability::Gap, "it searches upwards only"),
        (Ability::Visit, "its iterator begins at the lowest area"),
        (Ability::Fork, "it has no copy"),
    ];

    fn new() -> Self {
        Self(MemorySet::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let area = self.0.find(address(page))?;
        Some((area.start() as u64..area.end() as u64, &area.backend().0))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        let size = address(pages.end - pages.start);
        let area = MemoryArea::new(address(pages.start), size, (), Backing(region));
        self.0.map(area, &mut (), false).expect("free pages");
    }

    fn remove(&mut self, pages: Pages) {
        let size = address(pages.end - pages.start);
        self.0.unmap(address(pages.start), size, &mut ()).expect("a range of pages");
    }

    fn protect(&mut self, _: Pages, _: Prot) {
        unreachable!("see CANNOT");
    }

    fn find_gap(&self, _: u64, _: Pages) -> Option<u64> {
        unreachable!("see CANNOT");
    }

    fn visit(&self, _: Pages, _: impl FnMut(Pages, &Region) -> bool) {
        unreachable!("see CANNOT");
    }

    fn fork(&self) -> Option<Self> {
        None
    }
}
