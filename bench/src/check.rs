//! The differential test that every peer passes before it is measured: the same edits to the map and to an array
//! of pages, and the same regions in both after each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pagewarden::{Prot, Region, RegionFlags};

use crate::map::{Ability, Pages, RegionMap, able};
use crate::random::Random;

/// Pages in the array.
const SPACE: u64 = 160;
/// Where the pages of every second run begin.
const HIGH: u64 = 1 << 40;

/// What each page shows.
#[derive(Clone)]
struct Model {
    base: u64,
    pages: Vec<Option<Region>>,
}

impl Model {
    fn slots(&mut self, pages: &Pages) -> &mut [Option<Region>] {
        let slot = |page: u64| usize::try_from(page - self.base).unwrap_or(usize::MAX);
        let slots = slot(pages.start)..slot(pages.end);
        &mut self.pages[slots]
    }

    fn at(&self, page: u64) -> Option<&Region> {
        self.pages.get(usize::try_from(page.checked_sub(self.base)?).ok()?)?.as_ref()
    }

    fn space(&self) -> Pages {
        self.base..self.base + SPACE
    }

    /// The regions: longest runs of equal pages.
    fn regions(&self) -> Vec<(Pages, Region)> {
        let mut regions: Vec<(Pages, Region)> = Vec::new();
        for page in self.space() {
            let Some(region) = self.at(page) else { continue };
            match regions.last_mut() {
                Some((pages, last)) if pages.end == page && last == region => pages.end += 1,
                _ => regions.push((page..page + 1, region.clone())),
            }
        }
        regions
    }

    /// The regions that share a page with `pages`, with their whole bounds.
    fn overlapping(&self, pages: &Pages) -> Vec<(Pages, Region)> {
        let mut regions = self.regions();
        regions.retain(|(whole, _)| whole.start < pages.end && pages.start < whole.end);
        regions
    }

    fn highest_gap(&self, wanted: u64, window: &Pages) -> Option<u64> {
        let is_free = |first: u64| (first..first + wanted).all(|page| self.at(page).is_none());
        (window.start..(window.end + 1).saturating_sub(wanted)).rev().find(|&first| is_free(first))
    }
}

/// One run: a map, the model, and where random numbers come from.
struct Run<M> {
    map: M,
    model: Model,
    random: Random,
    /// Maps that were forked from, and what they must go on to show.
    older: Vec<(M, Model)>,
}

fn expect_equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

fn random_region(random: &mut Random) -> Region {
    let prots = [Prot::NONE, Prot::READ, Prot::READ | Prot::WRITE];
    let flags = [RegionFlags::empty(), RegionFlags::empty(), RegionFlags::NO_RESERVE];
    Region { flags: flags[random.index(3)], delta: random.below(8) / 7, ..Region::anonymous(prots[random.index(3)]) }
}

impl<M: RegionMap> Run<M> {
    fn new(seed: u64) -> Self {
        let base = if seed.is_multiple_of(2) { 0 } else { HIGH };
        let model = Model { base, pages: vec![None; usize::try_from(SPACE).unwrap_or(0)] };
        Self { map: M::new(), model, random: Random::new(seed), older: Vec::new() }
    }

    /// A page, more often than not at the edge of a region or next to one.
    fn page(&mut self) -> u64 {
        let space = self.model.space();
        let regions = self.model.regions();
        if regions.is_empty() || self.random.below(4) == 0 {
            return space.start + self.random.below(SPACE + 1);
        }
        let pages = &regions[self.random.index(regions.len())].0;
        let edge = if self.random.below(2) == 0 { pages.start } else { pages.end };
        (edge + self.random.below(8) / 6).saturating_sub(self.random.below(8) / 6).clamp(space.start, space.end)
    }

    /// A range of pages, not empty; often all of a region.
    fn range(&mut self) -> Pages {
        let mut regions = self.model.regions();
        if !regions.is_empty() && self.random.below(4) == 0 {
            return regions.swap_remove(self.random.index(regions.len())).0;
        }
        loop {
            let (one, other) = (self.page(), self.page());
            let pages = one.min(other)..one.max(other);
            if !pages.is_empty() && (pages.end - pages.start <= 24 || self.random.below(8) == 0) {
                return pages;
            }
        }
    }

    /// Whether `region` in `pages` would touch its like, in a map that cannot join the two.
    fn needs_joining(&self, pages: &Pages, region: &Region) -> bool {
        let like = |page: Option<u64>| page.and_then(|page| self.model.at(page)) == Some(region);
        able::<M>(&[Ability::Merge]).is_err() && (like(pages.start.checked_sub(1)) || like(Some(pages.end)))
    }

    /// A random edit of both; says what it was.
    fn edit(&mut self) -> String {
        let (pages, mut region) = (self.range(), random_region(&mut self.random));
        if let Some(below) = pages.start.checked_sub(1).and_then(|page| self.model.at(page))
            && self.random.below(3) == 0
        {
            region = below.clone();
        }
        match self.random.below(8) {
            0..3 => {
                let free = self.model.slots(&pages).iter().all(Option::is_none);
                if !free || self.needs_joining(&pages, &region) {
                    return "nothing".to_owned();
                }
                self.model.slots(&pages).fill(Some(region.clone()));
                self.map.insert(pages.clone(), region);
                format!("insert {pages:?}")
            }
            3 if !self.needs_joining(&pages, &region) => {
                self.model.slots(&pages).fill(Some(region.clone()));
                self.map.replace(pages.clone(), region);
                format!("replace {pages:?}")
            }
            4 | 5 if able::<M>(&[Ability::Protect]).is_ok() => {
                self.model.slots(&pages).iter_mut().flatten().for_each(|page| page.prot = region.prot);
                self.map.protect(pages.clone(), region.prot);
                format!("protect {pages:?} {}", region.prot)
            }
            _ => {
                self.model.slots(&pages).fill(None);
                self.map.remove(pages.clone());
                format!("remove {pages:?}")
            }
        }
    }

    /// Compares what the map shows with the model.
    fn compare(map: &M, model: &Model) -> Result<(), String> {
        let regions = model.regions();
        expect_equal("number of regions", &map.len(), &regions.len())?;
        let mut left = regions.iter().peekable();
        for page in model.space().start..model.space().end + 1 {
            while left.next_if(|(pages, _)| pages.end <= page).is_some() {}
            let wanted = left.peek().filter(|(pages, _)| pages.start <= page);
            let wanted = wanted.map(|(pages, region)| (pages.clone(), region));
            expect_equal("page", &map.get(page), &wanted).map_err(|problem| format!("{page:#x}: {problem}"))?;
        }
        Ok(())
    }

    /// Asks both for a gap and for some regions.
    fn query(&mut self) -> Result<(), String> {
        let pages = self.range();
        if able::<M>(&[Ability::Gap]).is_ok() {
            let most = [4, 4, 40][self.random.index(3)];
            let wanted = 1 + self.random.below(most);
            let got = self.map.find_gap(wanted, pages.clone());
            expect_equal(&format!("gap of {wanted} in {pages:?}"), &got, &self.model.highest_gap(wanted, &pages))?;
        }
        if able::<M>(&[Ability::Visit]).is_ok() {
            let mut wanted = self.model.overlapping(&pages);
            wanted.truncate(1 + self.random.index(12));
            let mut got = Vec::new();
            self.map.visit(pages.clone(), |pages, region| {
                got.push((pages, region.clone()));
                got.len() < wanted.len()
            });
            // With none wanted, any that is visited is wrong, and one is enough to see it.
            expect_equal(&format!("visit {pages:?}"), &got, &wanted)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let edit = self.edit();
        let after = |problem| format!("after {edit}: {problem}");
        Self::compare(&self.map, &self.model).map_err(after)?;
        self.query().map_err(after)?;
        if able::<M>(&[Ability::Fork]).is_ok() && self.random.below(16) == 0 {
            let copy = self.map.fork().ok_or("no copy")?;
            self.older.push((std::mem::replace(&mut self.map, copy), self.model.clone()));
            if self.older.len() > 3 {
                let (map, model) = self.older.swap_remove(self.random.index(3));
                Self::compare(&map, &model).map_err(|problem| format!("older version: {problem}"))?;
            }
        }
        Ok(())
    }
}

/// Makes `steps` random edits from `seed` to an `M` and to the model.
///
/// # Errors
/// The first difference, or that the map panicked.
pub fn differential<M: RegionMap>(seed: u64, steps: usize) -> Result<(), String> {
    let mut run = Run::<M>::new(seed);
    for number in 0..steps {
        let step = catch_unwind(AssertUnwindSafe(|| run.step())).unwrap_or(Err("panicked".to_owned()));
        step.map_err(|problem| format!("{}, seed {seed}, step {number}: {problem}", M::NAME))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;

    fn check<M: RegionMap>() {
        for seed in 0..30 {
            differential::<M>(seed, 300).unwrap();
        }
    }

    #[test]
    fn ours() {
        check::<peers::Ours>();
    }

    #[test]
    fn ranges() {
        check::<peers::Ranges>();
    }

    #[test]
    fn litebox_ranges() {
        check::<peers::LiteBoxRanges>();
    }

    #[test]
    fn nodit() {
        check::<peers::Nodit>();
    }

    #[test]
    fn areas() {
        check::<peers::Areas>();
    }

    #[test]
    fn btree() {
        check::<peers::BTree>();
    }

    #[test]
    fn indexed_btree() {
        check::<peers::IndexedBTree>();
    }

    #[test]
    fn persistent() {
        check::<peers::Persistent>();
    }

    #[test]
    fn red_black() {
        check::<peers::RedBlack>();
    }

    #[test]
    fn sorted_vec() {
        check::<peers::SortedVec>();
    }
}
