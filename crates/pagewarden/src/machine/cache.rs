//! A bounded memory of what was read from page tables, as processors have it: sets of a few slots each.
//!
//! Which slot of a full set is given up is drawn from a fixed sequence: the same accesses always give the same
//! evictions.

use alloc::vec::Vec;

use super::numbers::Numbers;
use crate::page_table::Level;

/// The slots of a set, if there are as many.
const WAYS: usize = 4;
const LEVELS: [Level; 4] = [Level::One, Level::Two, Level::Three, Level::Four];

struct Slot<T> {
    level: Level,
    /// Which span of the level: the page number without the bits inside it.
    number: u64,
    value: T,
}

/// Values by the span of pages that they are for: one that an entry of some level covers.
pub(super) struct Cache<T> {
    slots: Vec<Option<Slot<T>>>,
    ways: usize,
    /// How many values there are for each level.
    held: [usize; LEVELS.len()],
    numbers: Numbers,
}

impl<T> Cache<T> {
    /// Room for at most `capacity` values.
    pub(super) fn new(capacity: usize) -> Self {
        let ways = capacity.clamp(1, WAYS);
        let slots = (0..capacity / ways * ways).map(|_| None).collect();
        Self { slots, ways, held: [0; LEVELS.len()], numbers: Numbers::new(1) }
    }

    const fn sets(&self) -> usize {
        self.slots.len() / self.ways
    }

    /// The slots in which the value for span `number` may be; some, since there are slots.
    fn set(&self, number: u64) -> core::ops::Range<usize> {
        let set = usize::try_from((number ^ number >> 9) % self.sets() as u64).unwrap_or(0);
        set * self.ways..(set + 1) * self.ways
    }

    /// The value for the span of `level` that holds `page`.
    pub(super) fn find(&self, level: Level, page: u64) -> Option<&T> {
        if self.held[level as usize - 1] == 0 {
            return None;
        }
        let number = page >> level.page_shift();
        let mut slots = self.slots[self.set(number)].iter().flatten();
        slots.find(|slot| slot.level == level && slot.number == number).map(|slot| &slot.value)
    }

    /// Remembers `value` for the span of `level` that holds `page`, perhaps in place of another.
    pub(super) fn insert(&mut self, level: Level, page: u64, value: T) {
        if self.slots.is_empty() {
            return;
        }
        let number = page >> level.page_shift();
        let set = self.set(number);
        let is_same = |slot: &Slot<T>| slot.level == level && slot.number == number;
        let slots = &self.slots[set.clone()];
        let way = slots.iter().position(|slot| slot.as_ref().is_some_and(is_same));
        let way = way.or_else(|| slots.iter().position(Option::is_none));
        let way = way.unwrap_or_else(|| self.numbers.index(self.ways));
        self.remove_slot(set.start + way);
        self.held[level as usize - 1] += 1;
        self.slots[set.start + way] = Some(Slot { level, number, value });
    }

    fn remove_slot(&mut self, index: usize) {
        if let Some(slot) = self.slots[index].take() {
            self.held[slot.level as usize - 1] -= 1;
        }
    }

    /// Forgets those values for spans with a page of `first..=last` that are among `which`.
    pub(super) fn remove(&mut self, first: u64, last: u64, which: impl Fn(&T) -> bool) {
        for level in LEVELS {
            if self.held[level as usize - 1] == 0 {
                continue;
            }
            let (first, last) = (first >> level.page_shift(), last >> level.page_shift());
            let goes =
                |slot: &Slot<T>| slot.level == level && (first..=last).contains(&slot.number) && which(&slot.value);
            // To look at one set for each span is quicker only while there are few.
            let is_short = last - first < self.sets() as u64;
            let probes = if is_short { last - first } else { 0 };
            for probe in 0..=probes {
                let slots = if is_short { self.set(first + probe) } else { 0..self.slots.len() };
                for index in slots {
                    if self.slots[index].as_ref().is_some_and(goes) {
                        self.remove_slot(index);
                    }
                }
            }
        }
    }

    /// Forgets all values that are not among `which`.
    pub(super) fn retain(&mut self, which: impl Fn(&T) -> bool) {
        self.remove(0, u64::MAX, |value| !which(value));
    }

    /// Each value, with its level and the first page of its span.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Level, u64, &T)> {
        let slots = self.slots.iter().flatten();
        slots.map(|slot| (slot.level, slot.number << slot.level.page_shift(), &slot.value))
    }
}
