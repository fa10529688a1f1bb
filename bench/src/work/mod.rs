//! The rows: what is done with a map of some number of regions.

mod layout;

use std::hint::black_box;

use crate::map::{Ability, RegionMap};

pub use layout::{Layout, OTHER_PROT, PLACES, stranger};

/// Pages wanted in the rows that search a gap: the highest gap fits, one in 200 does, none above all regions does.
const EASY: u64 = 1;
const MIDDLE: u64 = 32;
const WORST: u64 = 128;
/// Regions that are visited in [`Row::Iterate`].
const WALK: usize = 100;
/// Protect-and-back pairs in [`Row::ForkUpdate`].
const PAIRS: usize = 10;

/// What is measured. Each row leaves the map as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// The region that holds a page.
    LookUp,
    /// A page is mapped in a gap and unmapped.
    InsertRemove,
    /// The middle page of a region gets other rights, and its own again.
    SplitMerge,
    /// A gap of one page.
    GapEasy,
    /// A gap that is rare.
    GapMiddle,
    /// A gap that is only below all regions.
    GapWorst,
    /// A gap of one page is found, mapped and unmapped.
    GapInsertRemove,
    /// A hundred regions in order.
    Iterate,
    /// A copy is made and dropped.
    Fork,
    /// A copy is made, changed twenty times and dropped.
    ForkUpdate,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::LookUp,
        Self::InsertRemove,
        Self::SplitMerge,
        Self::GapEasy,
        Self::GapMiddle,
        Self::GapWorst,
        Self::GapInsertRemove,
        Self::Iterate,
        Self::Fork,
        Self::ForkUpdate,
    ];

    /// What tables and options call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LookUp => "look-up",
            Self::InsertRemove => "insert + remove",
            Self::SplitMerge => "split + merge",
            Self::GapEasy => "gap easy",
            Self::GapMiddle => "gap middle",
            Self::GapWorst => "gap worst",
            Self::GapInsertRemove => "gap + insert + remove",
            Self::Iterate => "iterate 100",
            Self::Fork => "clone + drop",
            Self::ForkUpdate => "clone + 20 updates",
        }
    }

    /// What a map must be able to do for it.
    pub const fn needs(self) -> &'static [Ability] {
        match self {
            Self::LookUp | Self::InsertRemove => &[],
            Self::SplitMerge => &[Ability::Protect, Ability::Merge],
            Self::GapEasy | Self::GapMiddle | Self::GapWorst | Self::GapInsertRemove => &[Ability::Gap],
            Self::Iterate => &[Ability::Visit],
            Self::Fork => &[Ability::Fork],
            Self::ForkUpdate => &[Ability::Fork, Ability::Protect, Ability::Merge],
        }
    }

    /// Does it `count` times with a map that `layout` filled.
    ///
    /// # Panics
    /// If the map finds no gap where there are many.
    pub fn run<M: RegionMap>(self, map: &mut M, layout: &Layout, count: usize) {
        match self {
            Self::LookUp => {
                each(&layout.mapped, count, |&page| {
                    black_box(map.get(page));
                });
            }
            Self::InsertRemove => each(&layout.free, count, |&page| {
                map.insert(page..page + 1, stranger());
                map.remove(page..page + 1);
            }),
            Self::SplitMerge => each(&layout.middles, count, |&(page, prot)| {
                map.protect(page..page + 1, OTHER_PROT);
                map.protect(page..page + 1, prot);
            }),
            Self::GapEasy => search(map, layout, EASY, count),
            Self::GapMiddle => search(map, layout, MIDDLE, count),
            Self::GapWorst => search(map, layout, WORST, count),
            Self::GapInsertRemove => (0..count).for_each(|_| {
                let found = map.find_gap(black_box(EASY), layout.window.clone());
                let page = found.expect("a gap is left");
                map.insert(page..page + EASY, stranger());
                map.remove(page..page + EASY);
            }),
            Self::Iterate => each(&layout.walks, count, |&page| {
                let (mut left, mut pages) = (WALK, 0);
                map.visit(page..layout.window.end, |part, region| {
                    pages += part.end - part.start + u64::from(region.prot.bits());
                    left -= 1;
                    left > 0
                });
                black_box(pages);
            }),
            Self::Fork => (0..count).for_each(|_| drop(black_box(map.fork()))),
            Self::ForkUpdate => {
                let mut pairs = layout.middles.chunks_exact(PAIRS).cycle();
                for _ in 0..count {
                    let (Some(mut copy), Some(pairs)) = (map.fork(), pairs.next()) else { return };
                    for &(page, prot) in pairs {
                        copy.protect(page..page + 1, OTHER_PROT);
                        copy.protect(page..page + 1, prot);
                    }
                    black_box(&mut copy);
                }
            }
        }
    }
}

/// Goes round `places` until `act` was called `count` times.
fn each<T>(places: &[T], count: usize, mut act: impl FnMut(&T)) {
    let mut left = count;
    while left > 0 {
        let now = left.min(places.len());
        places[..now].iter().for_each(|place| act(black_box(place)));
        left -= now;
    }
}

fn search<M: RegionMap>(map: &M, layout: &Layout, wanted: u64, count: usize) {
    for _ in 0..count {
        black_box(map.find_gap(black_box(wanted), black_box(&layout.window).clone()));
    }
}
