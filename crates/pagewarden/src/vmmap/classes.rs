//! Size classes of the gaps at the children of a node: which of them a search has to look into.

use core::ops::Range;

use super::node::INNER_LEN;

/// A byte for each slot of an inner node: the size class of the largest gap just below the child or inside it;
/// 0 for unused slots.
#[derive(Clone)]
pub(super) struct Classes([u8; INNER_LEN]);

impl Classes {
    pub(super) const EMPTY: Self = Self([0; INNER_LEN]);

    /// Notes that the largest gap at `slot` has `pages`.
    pub(super) fn set(&mut self, slot: usize, pages: u64) {
        self.0[slot] = SizeClass::of(pages).0;
    }

    pub(super) const fn is_right(&self, slot: usize, pages: u64) -> bool {
        self.0[slot] == SizeClass::of(pages).0
    }

    /// The highest slot below `top` where there may be a gap of class `wanted` or higher.
    #[inline]
    pub(super) fn highest(&self, wanted: SizeClass, top: usize) -> Option<usize> {
        let last = top.checked_sub(1)?;
        // Small gaps are everywhere: then the rest of the way does not wait for the search.
        if self.0[last] >= wanted.0 {
            return Some(last);
        }
        let mut word = last.div_ceil(8);
        // Bytes of the slots from `last` on are shifted out.
        let mut mask = u64::MAX >> ((word * 8 - last) * 8);
        while word > 0 {
            word -= 1;
            let fits = self.at_least(word, wanted) & mask;
            if fits != 0 {
                return Some(word * 8 + fits.ilog2() as usize / 8);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The highest of all `len` slots where there may be a gap of class `wanted`, not that of no gap, or higher.
    #[inline]
    pub(super) fn highest_of_all(&self, wanted: SizeClass, len: usize) -> Option<usize> {
        const HALF: usize = INNER_LEN / 2;
        // Small gaps are everywhere: then the rest of the way does not wait for the search.
        let last = len.checked_sub(1)?;
        if self.0[last] >= wanted.0 {
            return Some(last);
        }
        // Unused slots have no gap, so that the search does not wait for how many there are.
        let search = |words: Range<usize>| {
            words.rev().find_map(|word| {
                let fits = self.at_least(word, wanted);
                (fits != 0).then(|| word * 8 + fits.ilog2() as usize / 8)
            })
        };
        let high = if len > HALF { search(HALF / 8..INNER_LEN / 8) } else { None };
        high.or_else(|| search(0..HALF / 8))
    }

    /// The highest class of all.
    #[inline]
    pub(super) fn largest(&self) -> SizeClass {
        SizeClass(self.0.iter().copied().fold(0, u8::max))
    }

    /// The lowest slot from `bottom` on where there may be a gap of class `wanted` or higher.
    #[inline]
    pub(super) fn lowest(&self, wanted: SizeClass, bottom: usize) -> Option<usize> {
        if *self.0.get(bottom)? >= wanted.0 {
            return Some(bottom);
        }
        let mut mask = u64::MAX << (bottom % 8 * 8);
        for word in bottom / 8..INNER_LEN / 8 {
            let fits = self.at_least(word, wanted) & mask;
            if fits != 0 {
                return Some(word * 8 + fits.trailing_zeros() as usize / 8);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The high bit of each byte of a word whose class is `wanted` or higher.
    #[inline]
    fn at_least(&self, word: usize, wanted: SizeClass) -> u64 {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = LOW << 7;
        // No class has the high bit, so no byte borrows from the next.
        ((u64::from_le_bytes(self.0.as_chunks().0[word]) | HIGH) - LOW * u64::from(wanted.0)) & HIGH
    }
}

/// The number of bits of a count of pages: gaps of one class are less than twice as large as each other, those of a
/// higher class larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SizeClass(u8);

impl SizeClass {
    pub(super) const fn of(pages: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        Self((u64::BITS - pages.leading_zeros()) as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn searches_find_what_a_walk_finds(
            gaps in prop::collection::vec(prop_oneof![Just(0u64), 1u64..9, any::<u64>()], 1..=INNER_LEN),
            wanted in prop_oneof![1u64..9, any::<u64>().prop_map(|pages| pages.max(1))],
            from in 0..=INNER_LEN,
        ) {
            let mut classes = Classes::EMPTY;
            gaps.iter().enumerate().for_each(|(slot, &pages)| classes.set(slot, pages));
            let wanted = SizeClass::of(wanted);
            let fits: Vec<usize> = (0..gaps.len()).filter(|&slot| SizeClass::of(gaps[slot]) >= wanted).collect();
            let from = from.min(gaps.len());
            prop_assert_eq!(classes.highest_of_all(wanted, gaps.len()), fits.last().copied());
            prop_assert_eq!(classes.highest(wanted, from), fits.iter().rfind(|&&slot| slot < from).copied());
            prop_assert_eq!(classes.lowest(wanted, from), fits.iter().find(|&&slot| slot >= from).copied());
            let largest = gaps.iter().map(|&pages| SizeClass::of(pages)).max();
            prop_assert!(Some(classes.largest()) == largest);
        }
    }
}
