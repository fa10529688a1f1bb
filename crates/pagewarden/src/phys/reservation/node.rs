//! Nodes of the tree of ranges.
//!
//! A node has one slot per range (leaf) or per child (inner node). Slots that are in use come first, in the order of
//! their keys: by start, then by end. Of each the node knows how far it and all before it reach: so whether anything
//! before a slot reaches past a byte is one comparison.

use crate::phys::PhysRange;

/// Most slots of a node.
pub(super) const LEN: usize = 32;
/// Slots are looked for in groups of so many: as many comparisons to find the group as to find the slot in it.
const GROUP: usize = 4;
/// The start and the end in a slot that is not in use: above those of any range.
const UNUSED: u64 = u64::MAX;

/// What is in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Leaf: the range. Inner node: no key in the child is below this one, and all keys in children before it are; zero
    /// for the first child.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Leaf: how often the range is there. Inner node: which node the child is.
    pub(super) link: u32,
    /// The highest end of the range, or in the child.
    pub(super) highest: u64,
}

/// A leaf or an inner node: the tree knows which.
#[derive(Debug)]
pub(super) struct Node {
    /// By themselves, for a look-up compares little else.
    starts: [u64; LEN],
    rests: [Rest; LEN],
    len: usize,
}

/// An entry without its start.
#[derive(Clone, Copy, Debug)]
struct Rest {
    end: u64,
    /// The highest end of the ranges, or in the children, up to this slot and with it.
    reach: u64,
    link: u32,
}

impl Entry {
    /// `range`, once.
    #[inline]
    pub(super) const fn of(range: PhysRange) -> Self {
        Self { start: range.start(), end: range.end(), link: 1, highest: range.end() }
    }
}

impl Node {
    pub(super) const EMPTY: Self =
        Self { starts: [UNUSED; LEN], rests: [Rest { end: UNUSED, reach: 0, link: 0 }; LEN], len: 0 };

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        self.len == LEN
    }

    /// Whether it has children: no range ends at zero, and the first key of an inner node does.
    #[inline]
    pub(super) const fn is_inner(&self) -> bool {
        self.rests[0].end == 0
    }

    /// The range in a slot of a leaf.
    #[inline]
    pub(super) fn range(&self, slot: usize) -> PhysRange {
        let (start, end) = self.key(slot);
        PhysRange::known(start, end)
    }

    #[inline]
    pub(super) fn key(&self, slot: usize) -> (u64, u64) {
        (self.starts[slot], self.rests[slot].end)
    }

    #[inline]
    pub(super) fn start(&self, slot: usize) -> u64 {
        self.starts[slot]
    }

    #[inline]
    pub(super) fn reach(&self, slot: usize) -> u64 {
        self.rests[slot].reach
    }

    #[inline]
    pub(super) fn set_reach(&mut self, slot: usize, reach: u64) {
        self.rests[slot].reach = reach;
    }

    #[inline]
    pub(super) fn link(&self, slot: usize) -> u32 {
        self.rests[slot].link
    }

    #[inline]
    pub(super) fn set_link(&mut self, slot: usize, link: u32) {
        self.rests[slot].link = link;
    }

    #[inline]
    pub(super) fn set_key(&mut self, slot: usize, key: (u64, u64)) {
        (self.starts[slot], self.rests[slot].end) = key;
    }

    /// Whether a slot, or the one after the last, has this key.
    #[inline]
    pub(super) fn has(&self, slot: usize, range: PhysRange) -> bool {
        slot < LEN && self.starts[slot] == range.start() && self.rests[slot].end == range.end()
    }

    /// How many slots start below `bound`, which is no more than the end of physical memory.
    #[inline]
    pub(super) fn starts_below(&self, bound: u64) -> usize {
        let (groups, _) = self.starts.as_chunks::<GROUP>();
        // Counted to the end, without a branch that depends on what is there: it could not be predicted.
        let group: usize = groups[..LEN / GROUP - 1].iter().map(|group| usize::from(group[GROUP - 1] < bound)).sum();
        let rest: usize = groups[group].iter().map(|start| usize::from(*start < bound)).sum();
        group * GROUP + rest
    }

    /// How many keys are below this one.
    #[inline]
    pub(super) fn rank(&self, (start, end): (u64, u64)) -> usize {
        let mut slot = self.starts_below(start);
        while slot < self.len && self.starts[slot] == start && self.rests[slot].end < end {
            slot += 1;
        }
        slot
    }

    /// The first slot that reaches past `bound`; no slot from `limit` on is looked at.
    #[inline]
    pub(super) fn first_past(&self, bound: u64, limit: usize) -> Option<usize> {
        let mut slot = limit.checked_sub(1).filter(|slot| self.reach(*slot) > bound)?;
        // Backwards: where little overlaps, it is the last.
        while slot > 0 && self.reach(slot - 1) > bound {
            slot -= 1;
        }
        Some(slot)
    }

    /// The highest end of all.
    #[inline]
    pub(super) fn highest(&self) -> u64 {
        self.reach_before(self.len)
    }

    /// The highest end before `slot`.
    #[inline]
    pub(super) fn reach_before(&self, slot: usize) -> u64 {
        slot.checked_sub(1).map_or(0, |before| self.reach(before))
    }

    /// What is in `slot` reaches as far as `end` now. Whether that is further than anything did up to there.
    #[inline]
    pub(super) fn raise(&mut self, slot: usize, end: u64) -> bool {
        let lower = self.rests[slot..self.len].iter_mut().take_while(|rest| rest.reach < end);
        lower.map(|rest| rest.reach = end).count() > 0
    }

    /// Puts `entry` at `slot`, before what is there; there must be room. Whether it reaches further than anything before.
    #[inline]
    pub(super) fn insert(&mut self, slot: usize, entry: Entry) -> bool {
        let rest = slot..self.len;
        self.starts.copy_within(rest.clone(), slot + 1);
        self.rests.copy_within(rest, slot + 1);
        self.len += 1;
        let Entry { start, end, link, highest } = entry;
        self.starts[slot] = start;
        self.rests[slot] = Rest { end, reach: self.reach_before(slot), link };
        self.raise(slot, highest)
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: usize) {
        let rest = slot + 1..self.len;
        self.starts.copy_within(rest.clone(), slot);
        self.rests.copy_within(rest, slot);
        self.len -= 1;
        self.set_key(self.len, (UNUSED, UNUSED));
    }

    /// Forgets the slots from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        for slot in len..self.len {
            self.set_key(slot, (UNUSED, UNUSED));
        }
        self.len = len;
    }

    /// Checks the order of the slots, and that the others are not in use.
    ///
    /// # Panics
    /// If it is wrong.
    pub(super) fn check(&self) {
        let keys = || self.starts.iter().zip(&self.rests).map(|(start, rest)| (*start, rest.end));
        assert!(keys().take(self.len).is_sorted_by(|a, b| a < b), "keys out of order");
        assert!(keys().skip(self.len).all(|key| key == (UNUSED, UNUSED)), "a slot in use after the last");
    }
}
