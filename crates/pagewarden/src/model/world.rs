//! A map and the array, side by side.

use alloc::vec::Vec;

use super::pages::PageArray;
use super::range;
use super::step::{Edit, Operation, Step};
use crate::addr::{PageCount, PageRange};
use crate::region::Region;
use crate::vmmap::Vmmap;

/// Most versions that are kept.
const VERSIONS: usize = 16;

/// Both sides, and versions of both that must not change.
pub struct World {
    pub(super) map: Vmmap,
    pub(super) pages: PageArray,
    pub(super) kept: Vec<(Vmmap, PageArray)>,
    /// [`PageArray::runs`] of the array as it is.
    pub(super) runs: Vec<(PageRange, Region)>,
    palette: Vec<Region>,
}

impl World {
    /// A space of `size` pages, at least one, with nothing mapped; `guard` pages are kept free below each region that
    /// grows down.
    pub fn new(guard: PageCount, size: PageCount) -> Self {
        let (map, pages) = (Vmmap::new(guard), PageArray::new(size).with_guard(guard));
        let kept = Vec::from([(map.clone(), pages.clone())]);
        Self { map, pages, kept, runs: Vec::new(), palette: super::palette() }
    }

    /// Maps every `step`th page of the whole space: neighbours differ, or are apart.
    ///
    /// # Panics
    /// As for [`Self::run`], or if `step` is 0.
    #[must_use]
    pub fn filled(mut self, step: usize) -> Self {
        for page in (0..self.pages.size()).step_by(step) {
            let kind = usize::try_from(page).map_or(0, |page| page % self.palette.len());
            let action = super::Action::Insert(self.palette[kind].clone());
            self.edit(&Edit { range: range(page, page + 1), action });
        }
        self.compare();
        self
    }

    /// The map.
    pub const fn map(&self) -> &Vmmap {
        &self.map
    }

    /// Does all `steps`, comparing both sides after each and all versions at the end.
    ///
    /// # Panics
    /// If the two sides differ in anything, or the map breaks an invariant.
    pub fn run(mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            self.apply(&step);
            self.check(&step.probe);
        }
        self.check_kept();
    }

    /// Does one step on both sides and compares what is mapped.
    ///
    /// # Panics
    /// If the two sides differ, or the map breaks an invariant.
    pub fn apply(&mut self, step: &Step) {
        match step.operation {
            Operation::Snapshot if self.kept.len() < VERSIONS => {
                self.kept.push((self.map.clone(), self.pages.clone()));
            }
            Operation::Restore(version) => {
                self.check_kept();
                (self.map, self.pages) = self.kept[usize::from(version) % self.kept.len()].clone();
            }
            _ => step.edits(&self.pages, &self.palette).iter().for_each(|edit| self.edit(edit)),
        }
        self.compare();
    }

    fn edit(&mut self, edit: &Edit) {
        let (mut seen, mut expected) = (Vec::new(), Vec::new());
        edit.apply(&mut self.map, |part| seen.push(part)).expect("memory for nodes");
        edit.apply_to_pages(&mut self.pages, |part| expected.push(part));
        assert_eq!(seen, expected, "parts that {edit:?} was given");
    }
}
