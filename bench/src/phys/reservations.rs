//! A reservation is taken and released among others, against a map in a lock that has the same keys put in and taken
//! out.

use std::collections::{BTreeMap, VecDeque};
use std::slice;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, ensure};
use pagewarden::PAGE_SIZE;
use pagewarden::PhysAddr;
use pagewarden::phys::{Mode, PhysError, PhysRange, Reservation, Reservations};
use pagewarden_linux::foreign::FutexEvents;

use crate::pager::contest::{Contestant, Stopwatch};
use crate::random::Random;

/// Pairs of a turn.
const PAIRS: usize = 1 << 12;
/// Reservations that live meanwhile, where some do.
const LIVE: u64 = 10_000;

/// Those that are taken before the first of them is released, where it is not released at once.
const OUTSTANDING: usize = 16;

/// When a reservation is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Release {
    /// Before another is taken.
    AtOnce,
    /// When [`OUTSTANDING`] more have been taken.
    Later,
}

/// Which modes there are, among those that live as among those that come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modes {
    /// All are exclusive, and lie between those that live.
    Exclusive,
    /// All are shared, and lie where others live.
    Shared,
    /// Every second is shared, and they lie between those that live.
    Mixed,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    modes: Modes,
    live: u64,
    release: Release,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self { modes: Modes::Exclusive, live: 0, release: Release::AtOnce },
        Self { modes: Modes::Exclusive, live: LIVE, release: Release::AtOnce },
        Self { modes: Modes::Exclusive, live: LIVE, release: Release::Later },
        Self { modes: Modes::Shared, live: 0, release: Release::AtOnce },
        Self { modes: Modes::Shared, live: LIVE, release: Release::AtOnce },
        Self { modes: Modes::Shared, live: LIVE, release: Release::Later },
        Self { modes: Modes::Mixed, live: 0, release: Release::AtOnce },
        Self { modes: Modes::Mixed, live: LIVE, release: Release::AtOnce },
        Self { modes: Modes::Mixed, live: LIVE, release: Release::Later },
    ];

    /// What tables and options call it.
    pub fn name(self) -> String {
        let modes = match self.modes {
            Modes::Exclusive => "exclusive",
            Modes::Shared => "shared",
            Modes::Mixed => "mixed",
        };
        let order = match self.release {
            Release::AtOnce => "release",
            Release::Later => "release 16 later",
        };
        format!("take + {order}, {modes}, {} live", self.live)
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        PAIRS
    }

    /// So many nanoseconds at most are aimed for.
    pub const fn goal(self) -> Option<f64> {
        match (self.live, self.release) {
            (0, _) | (_, Release::Later) => None,
            (_, Release::AtOnce) => Some(100.0),
        }
    }

    /// The mode of reservation number `number`.
    const fn mode(self, number: u64) -> Mode {
        match self.modes {
            Modes::Exclusive => Mode::Exclusive,
            Modes::Shared => Mode::Shared,
            Modes::Mixed if number.is_multiple_of(2) => Mode::Exclusive,
            Modes::Mixed => Mode::Shared,
        }
    }

    /// The pages of those that live, in the order of their coming: every second one.
    fn live_pages(self) -> Vec<u64> {
        let mut pages: Vec<u64> = (0..self.live).map(|number| 2 * number).collect();
        Random::new(1).shuffle(&mut pages);
        pages
    }

    /// The pages of those that come and go, no two of them the same.
    fn pages(self) -> Vec<u64> {
        let beside = u64::from(self.modes != Modes::Shared);
        let mut pages: Vec<u64> = (0..LIVE).map(|number| 2 * number + beside).collect();
        Random::new(2).shuffle(&mut pages);
        pages.truncate(PAIRS);
        pages
    }
}

/// The bytes of a page.
fn range(page: u64) -> Result<PhysRange> {
    let start = PhysAddr::new(page * PAGE_SIZE);
    let range = start.and_then(|start| PhysRange::new(start, PAGE_SIZE).ok());
    range.ok_or_else(|| anyhow!("page {page} does not exist"))
}

/// Pagewarden's reservations.
struct Ours {
    all: &'static Reservations<FutexEvents>,
    live: Vec<Reservation<'static, FutexEvents>>,
    pairs: Vec<(PhysRange, Mode)>,
}

impl Ours {
    fn new() -> Self {
        Self { all: Box::leak(Box::new(Reservations::new(FutexEvents::new()))), live: Vec::new(), pairs: Vec::new() }
    }

    fn fill(&mut self, row: Row) -> Result<()> {
        self.live.clear();
        for (number, page) in (0..).zip(row.live_pages()) {
            self.live.push(self.take(range(page)?, row.mode(number))?);
        }
        let pairs = (0..).zip(row.pages()).map(|(number, page)| Ok((range(page)?, row.mode(number))));
        self.pairs = pairs.collect::<Result<_>>()?;
        Ok(())
    }

    #[inline]
    fn take(&self, range: PhysRange, mode: Mode) -> Result<Reservation<'static, FutexEvents>> {
        self.all.try_reserve(&[range], mode).map_err(|error| anyhow!("{range}: {error}"))
    }

    /// Shows that it does what it is measured for.
    fn check(&self) -> Result<()> {
        let (one, next) = (range(1)?, range(2)?);
        let exclusive = self.take(one, Mode::Exclusive)?;
        ensure!(self.take(one, Mode::Shared).is_err(), "a page is shared that is reserved exclusively");
        ensure!(self.take(next, Mode::Exclusive).is_ok(), "the page beside it is reserved too");
        drop(exclusive);
        let shared = [self.take(one, Mode::Shared)?, self.take(one, Mode::Shared)?];
        ensure!(self.take(one, Mode::Exclusive).is_err(), "a page is reserved exclusively that others share");
        drop(shared);
        ensure!(self.take(one, Mode::Exclusive).is_ok(), "a page stays reserved after its release");
        Ok(())
    }
}

impl Contestant<Row> for Ours {
    fn name(&self) -> &'static str {
        "pagewarden"
    }

    fn prepare(&mut self, row: Row) {
        let filled = self.fill(row);
        assert!(filled.is_ok(), "{filled:?}");
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        let take = |(range, mode): &(PhysRange, Mode)| self.all.try_reserve(slice::from_ref(range), *mode);
        match row.release {
            Release::AtOnce => watch.time(|| self.pairs.iter().try_for_each(|pair| take(pair).map(drop)))??,
            Release::Later => {
                let mut outstanding = VecDeque::with_capacity(OUTSTANDING + 1);
                let mut pair = |pair| {
                    outstanding.push_back(take(pair)?);
                    if outstanding.len() > OUTSTANDING {
                        drop(outstanding.pop_front());
                    }
                    Ok::<_, PhysError>(())
                };
                watch.time(|| self.pairs.iter().try_for_each(&mut pair))??;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: Row) {
        self.live.clear();
    }
}

/// Starts and numbers of ranges, and their ends: nothing is compared with anything.
#[derive(Default)]
struct Map {
    ranges: Mutex<BTreeMap<(u64, u64), u64>>,
    pairs: Vec<PhysRange>,
}

impl Map {
    fn insert(&self, range: PhysRange, number: u64) -> Option<u64> {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.insert((range.start(), number), range.end())
    }

    fn remove(&self, range: PhysRange, number: u64) -> Option<u64> {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.remove(&(range.start(), number))
    }

    fn fill(&mut self, row: Row) -> Result<()> {
        for page in row.live_pages() {
            self.insert(range(page)?, 0);
        }
        self.pairs = row.pages().into_iter().map(range).collect::<Result<_>>()?;
        Ok(())
    }

    fn pair(&self, taken: PhysRange, released: PhysRange) -> Result<()> {
        let done = self.insert(taken, 1).is_none() && self.remove(released, 1).is_some();
        ensure!(done, "{taken} was there, or {released} is not");
        Ok(())
    }
}

impl Contestant<Row> for Map {
    fn name(&self) -> &'static str {
        "BTreeMap in a lock"
    }

    fn prepare(&mut self, row: Row) {
        let filled = self.fill(row);
        assert!(filled.is_ok(), "{filled:?}");
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        let late = match row.release {
            Release::AtOnce => 0,
            Release::Later => OUTSTANDING,
        };
        let (first, last) = (&self.pairs[..late], &self.pairs[self.pairs.len() - late..]);
        for range in first {
            self.insert(*range, 1);
        }
        let pairs = self.pairs[late..].iter().zip(&self.pairs);
        watch.time(|| pairs.clone().try_for_each(|(taken, released)| self.pair(*taken, *released)))??;
        for range in last {
            self.remove(*range, 1);
        }
        Ok(())
    }

    fn finish(&mut self, _: Row) {
        *self = Self::default();
    }
}

/// Who takes part: pagewarden and the map.
///
/// # Errors
/// If pagewarden does not do what is measured.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    let ours = Ours::new();
    ours.check()?;
    Ok(vec![Box::new(ours), Box::new(Map::default())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_leave_what_lives_and_nothing_else() {
        let mut ours = Ours::new();
        let mut map = Map::default();
        let mut watch = Stopwatch::new().unwrap();
        for row in Row::ALL {
            ours.prepare(row);
            map.prepare(row);
            ours.turn(row, &mut watch).unwrap();
            map.turn(row, &mut watch).unwrap();
            assert!(watch.take() > 0.0, "{row:?} takes time");
            let live = [ours.live.len(), map.ranges.lock().unwrap().len()].map(|live| live as u64);
            assert_eq!(live, [row.live; 2]);
            let page = range(0).unwrap();
            assert_eq!(ours.take(page, Mode::Exclusive).is_err(), row.live > 0);
            ours.finish(row);
            map.finish(row);
            assert!(ours.take(page, Mode::Exclusive).is_ok());
        }
    }
}
