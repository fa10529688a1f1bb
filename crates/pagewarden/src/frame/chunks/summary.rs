//! A set of small numbers as a hierarchy of bitmaps: a bit of the next level for every word that is not 0.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::frame::FrameError;

/// Levels of a set of at most 64^4 numbers, more chunks than physical addresses can have in a zone.
const LEVELS: usize = 5;

/// A set of numbers below what it was made for. Its least one is found in as many steps as there are levels.
#[derive(Debug)]
pub(super) struct Summary(ArrayVec<Vec<u64>, LEVELS>);

impl Summary {
    pub(super) fn new(numbers: usize) -> Result<Self, FrameError> {
        let mut levels = ArrayVec::new();
        let mut words = numbers.max(1);
        while words > 1 || levels.is_empty() {
            words = words.div_ceil(64);
            let mut level = Vec::new();
            level.try_reserve_exact(words).map_err(|_| FrameError::Exhausted)?;
            level.resize(words, 0);
            levels.try_push(level).map_err(|_| FrameError::Exhausted)?;
        }
        Ok(Self(levels))
    }

    #[inline]
    pub(super) fn insert(&mut self, mut number: usize) {
        for level in &mut self.0 {
            let word = &mut level[number / 64];
            let before = *word;
            *word |= 1 << (number % 64);
            if before != 0 {
                return;
            }
            number /= 64;
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, mut number: usize) {
        for level in &mut self.0 {
            let word = &mut level[number / 64];
            *word &= !(1 << (number % 64));
            if *word != 0 {
                return;
            }
            number /= 64;
        }
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.0[0][number / 64] >> (number % 64) & 1 == 1
    }

    /// Whether nothing is in it.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.last().is_none_or(|top| top[0] == 0)
    }

    /// The least.
    #[inline]
    pub(super) fn first(&self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        Some(self.0.iter().rev().fold(0, |at, level| at * 64 + level[at].trailing_zeros() as usize))
    }
}
