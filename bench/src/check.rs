//! The differential test that every peer passes before it is measured: the same edits to the map and to an array
//! of pages, and the same regions in both after each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pagewarden::model::{Action, Edit, PageArray, Step, palette};
use pagewarden::vmmap::{Direction, GapRequest};
use pagewarden::{PageCount, PageRange, Region};

use crate::map::{Ability, Pages, RegionMap, able};
use crate::random::Random;

/// Pages in the array.
const SPACE: u64 = 160;
/// Where the pages of every second run begin.
const HIGH: u64 = 1 << 40;
/// Older versions that are kept to see that they do not change.
const VERSIONS: usize = 3;

/// One run: a map, the array of what its pages show, and where random numbers come from.
struct Run<M> {
    map: M,
    pages: PageArray,
    /// The map's page that is the first of the array.
    base: u64,
    regions: Vec<Region>,
    random: Random,
    /// Maps that were forked from, and what they must go on to show.
    older: Vec<(M, PageArray)>,
}

fn expect_equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

impl<M: RegionMap> Run<M> {
    fn new(seed: u64) -> Self {
        Self {
            map: M::new(),
            pages: PageArray::new(PageCount::new(SPACE)),
            base: if seed.is_multiple_of(2) { 0 } else { HIGH },
            regions: palette(),
            random: Random::new(seed),
            older: Vec::new(),
        }
    }

    /// Where a range of the array lies in the map.
    const fn in_map(&self, range: PageRange) -> Pages {
        self.base + range.first_page()..self.base + range.end_page()
    }

    /// What the map has to show, in order.
    fn wanted(&self, pages: &PageArray) -> Vec<(Pages, Region)> {
        pages.runs().into_iter().map(|(run, region)| (self.in_map(run), region)).collect()
    }

    /// A range whose ends are often edges of regions, or next to one.
    fn range(&mut self) -> PageRange {
        let edges = self.pages.edges();
        let mut end = || {
            let near = edges[self.random.index(edges.len())] + self.random.below(8) / 6;
            if self.random.below(4) == 0 { self.random.below(SPACE + 1) } else { near.min(SPACE) }
        };
        let (one, other) = (end(), end());
        let first = one.min(other).min(SPACE - 1);
        PageRange::from_pages(first, PageCount::new((one.max(other) - first).max(1))).expect("pages of the array")
    }

    /// Whether the map can do this edit; one that never joins cannot put a region beside its like.
    fn is_possible(&self, edit: &Edit) -> bool {
        let joins = able::<M>(&[Ability::Merge]).is_ok();
        match &edit.action {
            Action::Remove => true,
            Action::Protect(_) => able::<M>(&[Ability::Protect]).is_ok(),
            Action::Insert(region) | Action::Replace(region) => {
                let touches = |(run, other): &(PageRange, Region)| {
                    run.first_page() <= edit.range.end_page()
                        && edit.range.first_page() <= run.end_page()
                        && other == region
                };
                joins || !self.pages.runs().iter().any(touches)
            }
            // The trait has no such call.
            Action::ToggleStack | Action::Stripe => false,
        }
    }

    fn edit(&mut self, edit: Edit) {
        edit.apply_to_pages(&mut self.pages, |_| ());
        let pages = self.in_map(edit.range);
        match edit.action {
            Action::Insert(region) => self.map.insert(pages, region),
            Action::Remove => self.map.remove(pages),
            Action::Replace(region) => self.map.replace(pages, region),
            Action::Protect(prot) => self.map.protect(pages, prot),
            Action::ToggleStack | Action::Stripe => {}
        }
    }

    /// Looks at each page of a map.
    fn compare(&self, map: &M, wanted: &[(Pages, Region)]) -> Result<(), String> {
        expect_equal("number of regions", &map.len(), &wanted.len())?;
        let mut left = wanted.iter().peekable();
        for page in self.base..self.base + SPACE + 1 {
            while left.next_if(|(pages, _)| pages.end <= page).is_some() {}
            let here = left.peek().filter(|(pages, _)| pages.start <= page);
            let here = here.map(|(pages, region)| (pages.clone(), region));
            expect_equal("page", &map.get(page), &here).map_err(|problem| format!("{page:#x}: {problem}"))?;
        }
        Ok(())
    }

    /// Asks both for a gap and for some regions.
    fn query(&mut self, mut wanted: Vec<(Pages, Region)>) -> Result<(), String> {
        let range = self.range();
        if able::<M>(&[Ability::Gap]).is_ok() {
            let most = [4, 4, 40][self.random.index(3)];
            let count = 1 + self.random.below(most);
            let request = GapRequest {
                pages: PageCount::new(count),
                window: range,
                direction: Direction::TopDown,
                align_offset: 0,
                align_pages: 1,
            };
            let gap = self.pages.find_gap(&request).map(|gap| self.base + gap.first_page());
            let got = self.map.find_gap(count, self.in_map(range));
            expect_equal(&format!("gap of {count} in {range:?}"), &got, &gap)?;
        }
        if able::<M>(&[Ability::Visit]).is_ok() {
            let pages = self.in_map(range);
            wanted.retain(|(whole, _)| whole.start < pages.end && pages.start < whole.end);
            wanted.truncate(1 + self.random.index(12));
            let mut got = Vec::new();
            self.map.visit(pages, |pages, region| {
                got.push((pages, region.clone()));
                // With none wanted, any that is visited is wrong, and one is enough to see it.
                got.len() < wanted.len()
            });
            expect_equal(&format!("visit {range:?}"), &got, &wanted)?;
        }
        Ok(())
    }

    /// Gives a part of a region other rights and its own again, which joins what has been split.
    fn there_and_back(&mut self) -> Vec<Edit> {
        let runs = self.pages.runs();
        if runs.is_empty() {
            return Vec::new();
        }
        let (run, region) = &runs[self.random.index(runs.len())];
        let skipped = self.random.below(run.pages().get());
        let pages = 1 + self.random.below(run.pages().get() - skipped);
        let Some(part) = PageRange::from_pages(run.first_page() + skipped, PageCount::new(pages)) else {
            return Vec::new();
        };
        [!region.prot, region.prot].map(|prot| Edit { range: part, action: Action::Protect(prot) }).into()
    }

    fn step(&mut self) -> Result<(), String> {
        let bytes = std::array::from_fn(|_| self.random.next().to_le_bytes()[0]);
        let mut edits = Step::decode(bytes).edits(&self.pages, &self.regions);
        if self.random.below(3) == 0 {
            edits = self.there_and_back();
        }
        let what = edits.first().map_or("nothing".to_owned(), |edit| format!("{} edits from {edit:?}", edits.len()));
        for edit in edits {
            if self.is_possible(&edit) {
                self.edit(edit);
            }
        }
        let after = |problem| format!("after {what}: {problem}");
        let wanted = self.wanted(&self.pages);
        self.compare(&self.map, &wanted).map_err(after)?;
        self.query(wanted).map_err(after)?;
        if able::<M>(&[Ability::Fork]).is_ok() && self.random.below(16) == 0 {
            let copy = self.map.fork().ok_or("no copy")?;
            self.older.push((std::mem::replace(&mut self.map, copy), self.pages.clone()));
            if self.older.len() > VERSIONS {
                let (map, pages) = self.older.swap_remove(self.random.index(VERSIONS));
                self.compare(&map, &self.wanted(&pages)).map_err(|problem| format!("older version: {problem}"))?;
            }
        }
        Ok(())
    }
}

/// Makes `steps` random edits from `seed` to an `M` and to an array.
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
        for seed in 0..16 {
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
