//! Foreign memory as an array of bytes, and lists of what there is in the world of the test.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::super::{BROKEN, SPACE_FIRST, frame};
use crate::addr::PAGE_LEN;
use crate::phys::{Mode, Permission, PhysError, PhysRange};

/// Pages of foreign memory that are used.
pub(super) const PAGES: u64 = 10;
/// Pages of the window space: few, so that it fills up.
pub(super) const SPACE: Range<u64> = SPACE_FIRST..SPACE_FIRST + 20;

/// A claim, before there is what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claimed {
    Beside,
    Pages,
    /// The first page, reserved for a writer.
    Held,
}

/// What the platform does when something is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Clean,
    /// It fails.
    Stuck,
}

impl End {
    pub(super) const fn outcome(self) -> Result<(), PhysError> {
        match self {
            Self::Clean => Ok(()),
            Self::Stuck => Err(BROKEN),
        }
    }
}

#[derive(Clone)]
pub(super) struct Window {
    pub(super) first: u64,
    pub(super) list: Vec<u64>,
    pub(super) permission: Permission,
    /// The key of what is reserved for it.
    held: Option<u64>,
    is_retained: bool,
}

struct Protected {
    pages: Range<u64>,
    is_retained: bool,
}

/// When an agent writes, and what.
pub(super) struct Agent {
    turn: u64,
    period: u64,
}

impl Iterator for Agent {
    type Item = (u64, usize, u64);

    /// The page, the byte and the word of the next turn in which it writes; `None` is a turn without.
    fn next(&mut self) -> Option<Self::Item> {
        self.turn += 1;
        write_of(self.turn, self.period)
    }
}

fn write_of(turn: u64, period: u64) -> Option<(u64, usize, u64)> {
    let offset = usize::try_from(turn * 56 % 4096).unwrap();
    let is_due = turn.checked_rem(period) == Some(0);
    is_due.then_some((turn / 3 % PAGES, offset, turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

pub(super) struct Model {
    pub(super) memory: Vec<u8>,
    /// How often the agent writes; 0 for never.
    pub(super) period: u64,
    turns: u64,
    keys: u64,
    pub(super) windows: BTreeMap<u64, Window>,
    pub(super) reserved: BTreeMap<u64, (Vec<PhysRange>, Mode)>,
    protected: BTreeMap<u64, Protected>,
}

impl Model {
    pub(super) fn new(memory: Vec<u8>) -> Self {
        let (windows, reserved, protected) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { memory, period: 0, turns: 0, keys: 0, windows, reserved, protected }
    }

    fn key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    pub(super) fn agent(&self, steps: u64) -> Agent {
        assert_eq!(steps, self.turns, "steps");
        Agent { turn: self.turns, period: self.period }
    }

    /// The agent's turn before a step.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        let Some((page, offset, word)) = write_of(self.turns, self.period) else { return };
        if !self.protected.values().any(|protected| protected.pages.contains(&page)) {
            self.set_bytes(&[page], offset, &word.to_le_bytes());
        }
    }

    fn place_of(list: &[u64], at: usize) -> usize {
        usize::try_from(list[at / PAGE_LEN]).unwrap() * PAGE_LEN + at % PAGE_LEN
    }

    pub(super) fn bytes(&self, list: &[u64], at: usize, len: usize) -> Vec<u8> {
        (at..at + len).map(|at| self.memory[Self::place_of(list, at)]).collect()
    }

    pub(super) fn set_bytes(&mut self, list: &[u64], at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.memory[Self::place_of(list, at + index)] = *byte;
        }
    }

    /// The steps of a copy.
    fn steps((at, len): (usize, usize)) -> Vec<(usize, usize)> {
        let (mut steps, mut from) = (Vec::new(), at);
        while from < at + len {
            let mut step = 8;
            while from % step != 0 || from + step > at + len {
                step /= 2;
            }
            steps.push((from, step));
            from += step;
        }
        steps
    }

    pub(super) fn read(&mut self, list: &[u64], part: (usize, usize)) -> Result<Vec<u8>, PhysError> {
        if part.0 + part.1 > list.len() * PAGE_LEN {
            return Err(PhysError::OutOfBounds);
        }
        let mut bytes = Vec::new();
        for (at, len) in Self::steps(part) {
            self.turn();
            bytes.extend(self.bytes(list, at, len));
        }
        Ok(bytes)
    }

    pub(super) fn write(&mut self, list: &[u64], part: (usize, usize), byte: u8) -> Result<(), PhysError> {
        if part.0 + part.1 > list.len() * PAGE_LEN {
            return Err(PhysError::OutOfBounds);
        }
        for (at, len) in Self::steps(part) {
            self.turn();
            self.set_bytes(list, at, &vec![byte; len]);
        }
        Ok(())
    }

    /// Whether a list of pages will do for so many bytes.
    pub(super) fn check(&self, list: &[u64], bytes: usize) -> Result<(), PhysError> {
        let mut twice: Vec<_> =
            list.iter().filter(|page| list.iter().filter(|other| other == page).count() > 1).collect();
        twice.sort_unstable();
        match twice.first() {
            Some(page) => Err(PhysError::DuplicatePage(frame(**page))),
            None if bytes > list.len() * PAGE_LEN => Err(PhysError::OutOfBounds),
            None => Ok(()),
        }
    }

    pub(super) fn reserve(&mut self, ranges: Vec<PhysRange>, mode: Mode) -> Result<u64, PhysError> {
        for (others, other) in self.reserved.values() {
            for range in &ranges {
                let in_the_way = others.iter().find(|other| other.intersects(*range));
                if let Some(in_the_way) = in_the_way.filter(|_| mode == Mode::Exclusive || *other == Mode::Exclusive) {
                    return Err(PhysError::Reserved(*in_the_way));
                }
            }
        }
        let key = self.key();
        self.reserved.insert(key, (ranges, mode));
        Ok(key)
    }

    /// The first page of a window of `pages` pages, with an empty page on either side.
    pub(super) fn place(&self, pages: u64) -> Option<u64> {
        let used: BTreeSet<u64> =
            self.windows.values().flat_map(|window| window.first..window.first + window.list.len() as u64).collect();
        SPACE
            .skip(1)
            .find(|first| first + pages < SPACE.end && (first - 1..=first + pages).all(|page| !used.contains(&page)))
    }

    /// The key of the window, and where it is.
    pub(super) fn vmap(
        &mut self,
        list: &[u64],
        permission: Permission,
        claim: Claimed,
        (broken, end): (u64, End),
    ) -> Result<(u64, u64), PhysError> {
        let mode = if permission == Permission::Read { Mode::Shared } else { Mode::Exclusive };
        let page = |page: &u64| PhysRange::of_frame(frame(*page));
        let held = match claim {
            Claimed::Held => Some(self.reserve(vec![page(&list[0])], Mode::Exclusive)?),
            _ => None,
        };
        let opened = self.check(list, 0).and_then(|()| match claim {
            Claimed::Pages => self.reserve(list.iter().map(page).collect(), mode).map(Some),
            _ => Ok(held),
        });
        let held = match opened {
            Ok(held) => held,
            Err(error) => {
                self.release(held);
                return Err(error);
            }
        };
        let Some(first) = self.place(list.len() as u64) else {
            self.release(held);
            return Err(PhysError::WindowSpaceExhausted);
        };
        let runs = 1 + list.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count() as u64;
        let key = self.key();
        let is_retained = broken < runs;
        self.windows.insert(key, Window { first, list: list.to_vec(), permission, held, is_retained });
        if is_retained {
            self.unmap(key, end);
            return Err(BROKEN);
        }
        Ok((key, first))
    }

    fn release(&mut self, held: Option<u64>) {
        if let Some(held) = held {
            self.reserved.remove(&held);
        }
    }

    pub(super) fn unmap(&mut self, key: u64, end: End) {
        if end == End::Stuck {
            self.windows.get_mut(&key).unwrap().is_retained = true;
        } else {
            let window = self.windows.remove(&key).unwrap();
            self.release(window.held);
        }
    }

    pub(super) fn protect(&mut self, pages: Range<u64>) -> Option<u64> {
        let meets = |other: &Protected| other.pages.start < pages.end && pages.start < other.pages.end;
        if self.protected.values().any(meets) {
            return None;
        }
        let key = self.key();
        self.protected.insert(key, Protected { pages, is_retained: false });
        Some(key)
    }

    pub(super) fn unprotect(&mut self, key: u64, end: End) {
        if end == End::Stuck {
            self.protected.get_mut(&key).unwrap().is_retained = true;
        } else {
            self.protected.remove(&key);
        }
    }

    pub(super) fn retained(&self) -> usize {
        let windows = self.windows.values().filter(|window| window.is_retained).count();
        windows + self.protected.values().filter(|protected| protected.is_retained).count()
    }

    /// What is retained can be taken back now.
    pub(super) fn retry(&mut self) {
        let stuck: Vec<u64> =
            self.windows.iter().filter(|(_, window)| window.is_retained).map(|(key, _)| *key).collect();
        for key in stuck {
            self.unmap(key, End::Clean);
        }
        self.protected.retain(|_, protected| !protected.is_retained);
    }
}
