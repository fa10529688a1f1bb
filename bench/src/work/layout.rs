//! The address space that the rows work on, and the places where they do.

use pagewarden::{Prot, Region, RegionFlags};

use crate::map::{Pages, RegionMap};
use crate::random::Random;

/// Places a row goes through, in random order: enough that no predictor learns them.
pub const PLACES: usize = 1 << 14;
/// Below the lowest region, 1 GiB is free.
const FREE_BELOW: u64 = (1 << 30) / pagewarden::PAGE_SIZE;
/// Where the window of the gap searches begins.
const WINDOW_START: u64 = 16;
/// The rights that no region has at first.
pub const OTHER_PROT: Prot = Prot::all();
/// The regions' rights; neighbours differ in them.
const PROTS: [Prot; 4] = [Prot::NONE, Prot::READ, Prot::READ.union(Prot::WRITE), Prot::READ.union(Prot::EXEC)];

/// An address space of some number of regions, each time the same.
///
/// Regions are 3 to 64 pages long. Half of them touch the one below; the gap below the others is 1 to 8 pages,
/// or 64 pages once in 200 times.
pub struct Layout {
    /// In the order in which they are inserted.
    pub regions: Vec<(Pages, Region)>,
    /// Where gaps are searched: it ends with the highest region.
    pub window: Pages,
    /// Mapped pages.
    pub mapped: Vec<u64>,
    /// Single pages at the lower end of a gap.
    pub free: Vec<u64>,
    /// Pages in the middle of regions, and the rights there.
    pub middles: Vec<(u64, Prot)>,
    /// First pages of regions with 99 above them, as far as there are that many.
    pub walks: Vec<u64>,
}

/// A region like none in a layout.
pub fn stranger() -> Region {
    Region { flags: RegionFlags::LOCKED, ..Region::anonymous(Prot::READ) }
}

impl Layout {
    /// The address space of `count` regions, at least one.
    pub fn new(count: usize) -> Self {
        let mut random = Random::new(0x7061_6765);
        let mut regions: Vec<(Pages, Region)> = Vec::with_capacity(count);
        let mut gaps = Vec::new();
        let mut end = WINDOW_START + FREE_BELOW;
        let mut prot = 0;
        for _ in 0..count {
            if random.below(2) == 0 {
                let gap = if random.below(200) == 0 { 64 } else { 1 + random.below(8) };
                gaps.push(end);
                end += gap;
            }
            prot = (prot + 1 + random.index(PROTS.len() - 1)) % PROTS.len();
            let pages = end..end + 3 + random.below(62);
            end = pages.end;
            regions.push((pages, Region::anonymous(PROTS[prot])));
        }
        // Above the highest region, so that there is a place in an address space without a gap too.
        gaps.push(end);
        let walks_end = count.saturating_sub(99).max(1);
        let mut places = || random.index(count);
        let mapped = (0..PLACES).map(|_| places()).collect::<Vec<_>>();
        let middles = (0..PLACES).map(|_| places()).collect::<Vec<_>>();
        let middle = |slot: usize| {
            let (pages, region) = &regions[slot];
            (u64::midpoint(pages.start, pages.end - 1), region.prot)
        };
        let middles = middles.into_iter().map(middle).collect();
        let mapped = mapped
            .into_iter()
            .map(|slot| regions[slot].0.start + random.below(regions[slot].0.end - regions[slot].0.start))
            .collect();
        let walks = (0..PLACES).map(|_| regions[random.index(walks_end)].0.start).collect();
        let free = (0..PLACES).map(|_| gaps[random.index(gaps.len())]).collect();
        random.shuffle(&mut regions);
        Self { regions, window: WINDOW_START..end, mapped, free, middles, walks }
    }

    /// A map of these regions.
    ///
    /// # Panics
    /// If the map does not show as many.
    pub fn fill<M: RegionMap>(&self) -> M {
        let mut map = M::new();
        for (pages, region) in &self.regions {
            map.insert(pages.clone(), region.clone());
        }
        assert_eq!(map.len(), self.regions.len(), "{}: regions of the layout", M::NAME);
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_as_described() {
        let layout = Layout::new(10_000);
        let mut sorted = layout.regions.clone();
        assert!(!sorted.is_sorted_by_key(|(pages, _)| pages.start), "not inserted in order");
        sorted.sort_by_key(|(pages, _)| pages.start);
        assert_eq!(sorted.len(), 10_000);
        assert!(sorted[0].0.start >= WINDOW_START + FREE_BELOW && sorted[0].0.start < WINDOW_START + FREE_BELOW + 65);
        assert_eq!(layout.window, WINDOW_START..sorted[9_999].0.end);
        let (mut touching, mut wide) = (0, 0);
        for pair in sorted.windows(2) {
            let [(low, below), (high, above)] = pair else { unreachable!() };
            assert!((3..=64).contains(&(low.end - low.start)));
            match high.start - low.end {
                0 => {
                    touching += 1;
                    assert_ne!(below, above, "equal neighbours");
                }
                64 => wide += 1,
                gap => assert!((1..=8).contains(&gap), "a gap of {gap} pages"),
            }
        }
        assert!((4_500..5_500).contains(&touching), "{touching}");
        assert!((10..50).contains(&wide), "{wide}");
        let inside = |page: u64| sorted.iter().find(|(pages, _)| pages.contains(&page));
        assert!(layout.mapped.iter().take(100).all(|&page| inside(page).is_some()));
        assert!(layout.free.iter().take(100).all(|&page| inside(page).is_none()));
        for &(page, prot) in layout.middles.iter().take(100) {
            let (pages, region) = inside(page).unwrap();
            assert!(pages.start < page && page + 1 < pages.end && region.prot == prot && prot != OTHER_PROT);
        }
        assert!(layout.walks.iter().all(|&page| page <= sorted[9_900].0.start));
    }
}
