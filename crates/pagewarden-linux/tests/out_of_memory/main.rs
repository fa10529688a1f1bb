//! When memory runs out in the middle of a change, nothing has changed.
//!
//! Lies here because an allocator is unsafe code: `pagewarden` has none, and all of it is to be tested.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod allocator;
mod foreign;
mod manager;

use allocator::{Ration, live_bytes, on_ration};
use pagewarden::model::{Edit, PageArray, Step, palette};
use pagewarden::{Errno, PageCount, PageRange, Region, Vmmap};

/// More than any change needs at a time.
const ALLOCATIONS_MAX: usize = 1000;
/// Of the many edits of one step, so many are done on short rations.
const EDITS_PER_STEP: usize = 6;

/// Numbers that look random (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn step_bytes(&mut self) -> [u8; Step::BYTES] {
        std::array::from_fn(|_| self.draw().to_le_bytes()[0])
    }
}

fn runs(map: &Vmmap) -> Vec<(PageRange, Region)> {
    map.iter().map(|entry| (entry.range, entry.region.clone())).collect()
}

/// Whether another version has the nodes of the map when it is changed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sharing {
    Alone,
    Shared,
}

/// Whether the map has some regions or so many that the tree is high.
#[derive(Clone, Copy, Debug)]
enum Size {
    Small,
    Deep,
}

/// How changes went that were short of memory.
#[derive(Default, Debug)]
struct Tally {
    edits: usize,
    failures: usize,
    most_for_one: usize,
}

impl Tally {
    /// Tries `edit` with 0, 1, 2, ... allocations until they suffice; each time before, nothing may change.
    fn starve(&mut self, map: &mut Vmmap, edit: &Edit) {
        let (before, len) = (runs(map), map.len());
        for allocations in 0..ALLOCATIONS_MAX {
            let ration = Ration { allocations, least_bytes: 0 };
            let (result, refused) = on_ration(ration, || edit.apply(map, |_| {}));
            if result.is_ok() {
                self.edits += 1;
                self.failures += allocations;
                self.most_for_one = self.most_for_one.max(allocations);
                return assert_eq!(refused, 0, "{edit:?} went on without the memory that it asked for");
            }
            assert_eq!(result, Err(Errno::NoMem));
            assert!(refused > 0, "{edit:?} failed with memory for all that it asked for");
            map.check_invariants();
            assert_eq!((map.len(), runs(map)), (len, before.clone()), "{edit:?} failed and changed something");
        }
        panic!("{edit:?} needs more than {ALLOCATIONS_MAX} allocations");
    }
}

/// A map and the array that it must agree with.
struct Case {
    map: Vmmap,
    pages: PageArray,
    palette: Vec<Region>,
}

impl Case {
    fn new(size: Size) -> Self {
        let (guard, size, filled) = match size {
            Size::Small => (PageCount::new(2), 48, 0),
            Size::Deep => (PageCount::new(4), 2600, 2600),
        };
        let pages = PageArray::new(PageCount::new(size)).with_guard(guard);
        let mut case = Self { map: Vmmap::new(guard), pages, palette: palette() };
        for (page, region) in (0..filled).zip(case.palette.iter().cycle()) {
            let range = PageRange::from_pages(page, PageCount::new(1)).unwrap();
            case.map.insert(range, region.clone()).unwrap();
            case.pages.replace(range, Some(region.clone()));
        }
        case
    }

    /// Does all edits of `step`, some of them on short rations.
    fn run(&mut self, step: Step, sharing: Sharing, tally: &mut Tally) {
        let edits = step.edits(&self.pages, &self.palette);
        for (index, edit) in edits.iter().enumerate() {
            let older = (sharing == Sharing::Shared).then(|| (self.map.clone(), runs(&self.map)));
            if index % edits.len().div_ceil(EDITS_PER_STEP) == 0 {
                tally.starve(&mut self.map, edit);
            } else {
                edit.apply(&mut self.map, |_| {}).unwrap();
            }
            edit.apply_to_pages(&mut self.pages, |_| {});
            if let Some((older, before)) = older {
                assert_eq!(runs(&older), before, "{edit:?} changed an older version");
            }
        }
        self.map.check_invariants();
        assert_eq!(runs(&self.map), self.pages.runs());
    }
}

fn starve(size: Size, sharing: Sharing, cases: u64, steps: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..cases {
        let mut numbers = Numbers(seed);
        let before = live_bytes();
        let mut case = Case::new(size);
        for index in 0..steps {
            let decode = if index % 8 == 7 { Step::decode_sweep } else { Step::decode };
            case.run(decode(numbers.step_bytes()), sharing, &mut tally);
        }
        drop(case);
        assert_eq!(live_bytes().wrapping_sub(before), 0, "seed {seed}: bytes not freed");
    }
    println!("{size:?}, {sharing:?}: {tally:?}");
    tally
}

#[test]
fn a_change_of_a_small_map_fails_as_a_whole() {
    let tally = starve(Size::Small, Sharing::Alone, 60, 40);
    assert!(tally.edits > 1000 && tally.failures > 0);
}

#[test]
fn a_change_of_a_small_map_with_versions_fails_as_a_whole() {
    let tally = starve(Size::Small, Sharing::Shared, 60, 40);
    assert!(tally.edits > 1000 && tally.failures > 1000, "each change of a map that is not empty copies its root");
}

#[test]
fn a_change_of_a_deep_map_fails_as_a_whole() {
    let tally = starve(Size::Deep, Sharing::Alone, 4, 40);
    assert!(tally.edits > 100 && tally.failures > 0);
}

#[test]
fn a_change_of_a_deep_map_with_versions_fails_as_a_whole() {
    let tally = starve(Size::Deep, Sharing::Shared, 4, 40);
    assert!(
        tally.edits > 100 && tally.failures > 100 && tally.most_for_one >= 2,
        "a path is as long as the tree is high"
    );
}
