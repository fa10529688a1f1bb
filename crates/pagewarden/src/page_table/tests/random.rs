//! Random operations on several spaces, compared with models after each.

use super::spaces::Spaces;
use super::*;
use crate::page_table::{Move, Share};

/// Where things happen: across a border of tables of level 2, under another entry of the root, in the upper half, and
/// at the very end.
const WINDOWS: [u64; 4] = [(1 << 18) - 700, 3 << 27, (1 << 52) - (1 << 35) + 100, (1 << 52) - 1 - 1400];
/// Pages of each.
const WINDOW: u64 = 1400;

pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn page(&mut self) -> u64 {
        let page = WINDOWS[usize::try_from(self.below(4)).unwrap()] + self.below(WINDOW);
        // Often at the border of a table.
        if self.one_in(4) { (page & !511).max(WINDOWS[0]) } else { page }
    }

    fn range(&mut self) -> PageRange {
        let first = self.page();
        let length = match self.below(8) {
            0 if self.one_in(2) => 512,
            0 => 1024,
            1 | 2 => 1,
            _ => 1 + self.below(60),
        };
        let end = (1 << 52) - 1;
        pages(first, length.min(end - first).max(1))
    }

    fn flags(&mut self, page: u64) -> EntryFlags {
        let mut flags = RO;
        flags.set(EntryFlags::WRITABLE, !self.one_in(3));
        flags.set(EntryFlags::NO_EXECUTE, self.one_in(2));
        // The third window has what several spaces may write; only there.
        flags.set(SHARED, (WINDOWS[2]..WINDOWS[2] + 4096).contains(&page));
        flags
    }
}

/// Whether a table that spans `span` may be shared.
fn is_private(span: PageRange) -> bool {
    !span.intersects(pages(WINDOWS[2], 4096))
}

fn step(spaces: &mut Spaces<'_>, random: &mut Random) -> Result<(), Errno> {
    let space = usize::try_from(random.below(spaces.all.len() as u64)).unwrap();
    let range = random.range();
    let first = range.first_page();
    match random.below(24) {
        0..4 => spaces.map(space, first, random.flags(first)),
        4..6 => spaces.map_run(space, range, random.flags(first)),
        6..8 => {
            let aligned = pages((first & !511).min((1 << 52) - 2048), 512);
            spaces.map_run(space, aligned, random.flags(aligned.first_page()) | EntryFlags::HUGE)
        }
        8..10 => spaces.unmap(space, first),
        10 => spaces.protect(space, range, random.flags(first) - SHARED),
        11 => spaces.edit(space, range, &mut |_| u8::try_from(random.below(6)).unwrap()),
        12 => spaces.clear(space, range),
        13..15 => {
            let target = if random.one_in(2) { random.page() & !511 | first & 511 } else { random.page() };
            let to = pages(target.min((1 << 52) - 1 - range.pages().get()), range.pages().get());
            let mut range = range;
            if (range.first_page() < 1 << 35) != (to.first_page() < 1 << 35) && random.one_in(2) {
                range = pages(WINDOWS[1], to.pages().get());
            }
            // Shared memory stays where tables are not shared.
            if is_private(range) != is_private(to) {
                return Ok(());
            }
            if random.one_in(2) {
                spaces.clear(space, to)?;
            }
            let marks = if random.one_in(3) { EntryFlags::SOFT_3 } else { EntryFlags::empty() };
            spaces.relocate(space, Move { from: range, to }, marks)
        }
        15..19 => (0..3).try_for_each(|offset| spaces.fault(space, first - offset)),
        19 => {
            spaces.promote(space, first);
            Ok(())
        }
        20 => spaces.split(space, first),
        21 if spaces.all.len() < 3 => spaces.fork(space, &mut |span| match random.below(8) {
            0 => Share::Nothing,
            1..5 if is_private(span) => Share::All,
            _ => Share::Inside,
        }),
        22 if spaces.all.len() > 1 && random.one_in(2) => {
            spaces.destroy(space);
            Ok(())
        }
        _ => {
            spaces.harvest(space, range);
            Ok(())
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Requests {
    Succeed,
    Fail,
}

/// A map or move that finds something, or whose ranges do not fit, is refused; else only what is made to fail does.
fn run(seed: u64, requests: Requests) {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    let mut random = Random::new(seed);
    for number in 0..100 {
        for space in &spaces.all {
            world.touch_all(space.root.frame(), &mut || (random.one_in(4), random.one_in(3)));
        }
        if requests == Requests::Fail && random.one_in(3) {
            world.fail_after(i64::try_from(random.below(12)).unwrap());
        }
        let result = step(&mut spaces, &mut random);
        world.fail_after(i64::MAX);
        assert!(
            matches!(result, Ok(()) | Err(Errno::Exist | Errno::Inval)) || requests == Requests::Fail,
            "{result:?}"
        );
        spaces.check();
        if number % 4 == 0 {
            spaces.check_references();
        }
    }
    spaces.finish();
}

#[test]
fn spaces_show_what_their_models_do() {
    (1..=4).for_each(|seed| run(seed, Requests::Succeed));
}

#[test]
fn spaces_show_what_their_models_do_where_requests_fail() {
    (101..=104).for_each(|seed| run(seed, Requests::Fail));
}
