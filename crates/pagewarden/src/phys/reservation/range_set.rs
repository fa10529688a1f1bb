//! Ranges of which no two share a byte.

use alloc::vec::Vec;

use super::tree::Tree;
use crate::phys::{PhysError, PhysRange};

/// A set of ranges that are apart.
#[derive(Debug)]
pub(in crate::phys) struct RangeSet(Tree);

impl RangeSet {
    pub(in crate::phys) const fn new() -> Self {
        Self(Tree::new())
    }

    #[inline]
    pub(in crate::phys) const fn len(&self) -> usize {
        self.0.len()
    }

    /// A range of the set that shares a byte with `range`.
    #[inline]
    pub(in crate::phys) fn overlapping(&self, range: PhysRange) -> Option<PhysRange> {
        self.0.overlapping(range)
    }

    /// # Errors
    /// [`PhysError::Reserved`] with a range of the set that shares a byte with `range`, [`PhysError::OutOfMemory`].
    #[inline]
    pub(in crate::phys) fn insert(&mut self, range: PhysRange) -> Result<(), PhysError> {
        self.0.insert_apart(range)
    }

    /// Whether `range`, as it was inserted, was there.
    #[inline]
    pub(in crate::phys) fn remove(&mut self, range: PhysRange) -> bool {
        self.0.remove(range)
    }

    /// The ranges, in order.
    ///
    /// # Panics
    /// If something is wrong with the set.
    pub(in crate::phys) fn check_invariants(&self) -> Vec<PhysRange> {
        let ranges = self.0.check_invariants();
        assert!(ranges.iter().all(|(_, count)| *count == 1), "a range is there twice");
        let ranges: Vec<PhysRange> = ranges.into_iter().map(|(range, _)| range).collect();
        assert!(ranges.is_sorted_by(|a, b| a.end() <= b.start()), "two ranges share a byte");
        ranges
    }
}
