//! A tree of ranges that may overlap.
//!
//! Owns which ranges there are, and how often each. It is a B+tree by start and end in which every inner node knows how
//! far each child reaches (an interval tree: Cormen et al., Introduction to Algorithms, 14.3). All operations
//! take logarithmic time, however the ranges overlap. Which ranges may be there together is the business of others.
//!
//! # Invariants
//!
//! * All leaves are equally far from the root. An inner root has two children or more, every other node has something.
//! * Two neighbours of one parent have more than [`LEAST`] slots in use together: so a tree with many nodes is not high.
//! * What an inner node knows of a child is as [`Entry`] says.
//! * A node is in the tree or on the list of free nodes. Memory of free nodes is kept for new ones.

use alloc::vec::Vec;

use super::node::{Entry, LEN, Node};
use crate::phys::{PhysError, PhysRange};

/// Neighbours with no more slots in use together become one node. It is full then to a half, so that it is not split by
/// one that comes back.
pub(super) const LEAST: usize = LEN / 2;
/// Most nodes on the way to a leaf, with the leaf. Two neighbours of height `h` have more than `(LEAST / 2)^h` leaves
/// below them, and no tree has 2^32 nodes.
const HEIGHT_MAX: usize = 12;
/// The key of the first child of an inner node: below that of any range.
const FIRST: (u64, u64) = (0, 0);
/// The end of the list of free nodes.
pub(super) const NONE: u32 = u32::MAX;

/// A node on the way to a leaf, and the slot by which the way goes on.
#[derive(Clone, Copy, Debug)]
struct Step {
    node: u32,
    slot: usize,
}

/// The way from the root to the slot of a leaf where a range is, or where it would be inserted.
type Path = [Step; HEIGHT_MAX];

/// Ranges, each as often as it was inserted.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// The first free node; the next is in the first slot of each.
    pub(super) free: u32,
    /// How many are free.
    pub(super) spare: usize,
    pub(super) root: u32,
    /// How many inner nodes there are on the way to a leaf.
    pub(super) height: usize,
    /// The way to where the last change was, in a tree that has the same nodes since if `is_way_known`.
    path: Path,
    is_way_known: bool,
    /// How many ranges there are.
    pub(super) len: usize,
}

impl Tree {
    pub(super) const fn new() -> Self {
        let path = [Step { node: NONE, slot: 0 }; HEIGHT_MAX];
        Self { nodes: Vec::new(), free: NONE, spare: 0, root: NONE, height: 0, path, is_way_known: false, len: 0 }
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    #[inline]
    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    /// A range that shares a byte with `range`.
    #[inline]
    pub(super) fn overlapping(&self, range: PhysRange) -> Option<PhysRange> {
        if self.len == 0 {
            return None;
        }
        let mut index = self.root;
        for level in (0..=self.height).rev() {
            let node = self.node(index);
            // Whatever is in one of these children starts below the end of `range`, but for the last: so if one of the
            // others reaches far enough, there is no need to come back for another.
            let slot = node.first_past(range.start(), node.starts_below(range.end()))?;
            if level == 0 {
                return Some(node.range(slot));
            }
            index = node.link(slot);
        }
        None
    }

    /// Adds `range` once more.
    ///
    /// # Errors
    /// [`PhysError::OutOfMemory`]; nothing has changed.
    #[inline]
    pub(super) fn insert(&mut self, range: PhysRange) -> Result<(), PhysError> {
        self.make_root()?;
        self.descend(range);
        self.insert_at(range)
    }

    /// Adds `range` to ranges of which no two overlap, if that stays so.
    ///
    /// # Errors
    /// [`PhysError::Reserved`] with a range that is in the way, [`PhysError::OutOfMemory`]; nothing has changed.
    #[inline]
    pub(super) fn insert_apart(&mut self, range: PhysRange) -> Result<(), PhysError> {
        self.make_root()?;
        self.descend(range);
        if !self.is_apart(range)
            && let Some(other) = self.overlapping(range)
        {
            return Err(PhysError::Reserved(other));
        }
        self.insert_at(range)
    }

    /// Takes `range` away once. Whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, range: PhysRange) -> bool {
        if self.len == 0 {
            return false;
        }
        // What is given back is often what was taken last.
        if !(self.is_way_known && self.is_at(range)) {
            self.descend(range);
        }
        let Step { node: index, slot } = self.path[self.height];
        let leaf = self.node_mut(index);
        if !leaf.has(slot, range) {
            return false;
        }
        let left = leaf.link(slot) - 1;
        if left > 0 {
            leaf.set_link(slot, left);
        } else {
            leaf.remove(slot);
            let is_low = leaf.len() < LEAST;
            self.lower_reaches();
            if is_low {
                self.rebalance();
            }
        }
        self.len -= 1;
        true
    }

    fn make_root(&mut self) -> Result<(), PhysError> {
        if self.root == NONE {
            self.make_room(1)?;
            self.root = self.add(Node::EMPTY);
        }
        Ok(())
    }

    /// Whether the way that is known leads to `range`.
    #[inline]
    fn is_at(&self, range: PhysRange) -> bool {
        let Step { node, slot } = self.path[self.height];
        self.node(node).has(slot, range)
    }

    #[inline]
    fn descend(&mut self, range: PhysRange) {
        let mut index = self.root;
        for step in &mut self.path[..self.height] {
            let node = &self.nodes[index as usize];
            // The first key of an inner node is below all others.
            let slot = node.rank((range.start(), range.end() + 1)) - 1;
            *step = Step { node: index, slot };
            index = node.link(slot);
        }
        self.path[self.height] = Step { node: index, slot: self.node(index).rank((range.start(), range.end())) };
        self.is_way_known = true;
    }

    /// Whether what comes before and after the place at the end of the way is known to share nothing with `range`, if
    /// no two ranges do: `false` may be wrong.
    #[inline]
    fn is_apart(&self, range: PhysRange) -> bool {
        let Step { node, slot } = self.path[self.height];
        let (leaf, inner) = (self.node(node), &self.path[..self.height]);
        let low = if slot > 0 {
            leaf.reach_before(slot)
        } else {
            let above = inner.iter().rev().find(|step| step.slot > 0);
            above.map_or(0, |step| self.node(step.node).reach(step.slot - 1))
        };
        let high = if slot < leaf.len() {
            leaf.start(slot)
        } else {
            let above = inner.iter().rev().find(|step| step.slot + 1 < self.node(step.node).len());
            above.map_or(u64::MAX, |step| self.node(step.node).start(step.slot + 1))
        };
        low <= range.start() && range.end() <= high
    }

    #[inline]
    fn insert_at(&mut self, range: PhysRange) -> Result<(), PhysError> {
        let Step { node: index, slot } = self.path[self.height];
        let leaf = self.node_mut(index);
        if leaf.has(slot, range) {
            leaf.set_link(slot, leaf.link(slot).checked_add(1).ok_or(PhysError::OutOfMemory)?);
        } else if !leaf.is_full() {
            if leaf.insert(slot, Entry::of(range)) {
                self.raise_reaches(self.height, range.end());
            }
        } else {
            self.insert_split(Entry::of(range))?;
        }
        self.len += 1;
        Ok(())
    }

    /// What the way leads to, `depth` steps from the root, reaches as far as `end` now.
    #[inline]
    fn raise_reaches(&mut self, depth: usize, end: u64) {
        for step in self.path[..depth].iter().rev() {
            if !self.nodes[step.node as usize].raise(step.slot, end) {
                return;
            }
        }
    }

    /// What the way leads to may reach less far than it did.
    #[inline]
    fn lower_reaches(&mut self) {
        for depth in (0..=self.height).rev() {
            let Step { node, slot } = self.path[depth];
            if !self.lower(node, slot) {
                return;
            }
        }
    }

    /// Works out again how far a node reaches in the slots from `first` on, until nothing changes. Whether it did not
    /// come to that.
    #[inline]
    fn lower(&mut self, index: u32, first: usize) -> bool {
        let mut reach = self.node(index).reach_before(first);
        for slot in first..self.node(index).len() {
            reach = reach.max(self.entry(index, slot).highest);
            let node = self.node_mut(index);
            if node.reach(slot) == reach {
                return false;
            }
            node.set_reach(slot, reach);
        }
        true
    }

    /// What is in a slot.
    #[inline]
    pub(super) fn entry(&self, index: u32, slot: usize) -> Entry {
        let node = self.node(index);
        let ((start, end), link) = (node.key(slot), node.link(slot));
        let highest = if node.is_inner() { self.node(link).highest() } else { end };
        Entry { start, end, link, highest }
    }

    /// Puts `entry` into the leaf at the end of the way, which is full.
    #[cold]
    fn insert_split(&mut self, entry: Entry) -> Result<(), PhysError> {
        self.make_room(self.height + 2)?;
        self.is_way_known = false;
        let mut carried = entry;
        for depth in (0..=self.height).rev() {
            let Step { node: index, slot: mut at } = self.path[depth];
            if depth < self.height {
                // The child has lost its upper half, which goes beside it.
                let highest = self.node(self.path[depth + 1].node).highest();
                let node = self.node_mut(index);
                node.set_reach(at, node.reach_before(at).max(highest));
                at += 1;
                node.raise(at, highest);
            }
            if !self.node(index).is_full() {
                self.node_mut(index).insert(at, carried);
                self.raise_reaches(depth, entry.end);
                return Ok(());
            }
            let upper = self.split(index);
            // Never first in the upper half: so what comes before it is in the same node.
            match at.checked_sub(self.node(index).len()) {
                Some(at) if at > 0 => self.node_mut(upper).insert(at, carried),
                _ => self.node_mut(index).insert(at, carried),
            };
            carried = self.child(self.node(upper).key(0), upper);
            if depth < self.height {
                self.node_mut(upper).set_key(0, FIRST);
            }
        }
        let root = self.add(Node::EMPTY);
        let lower = self.child(FIRST, self.root);
        self.node_mut(root).insert(0, lower);
        self.node_mut(root).insert(1, carried);
        self.root = root;
        self.height += 1;
        Ok(())
    }

    /// Moves the upper half of a node to a new one; there must be room.
    fn split(&mut self, index: u32) -> u32 {
        let upper = self.add(Node::EMPTY);
        let half = self.node(index).len() / 2;
        self.append(upper, index, half);
        self.node_mut(index).truncate(half);
        upper
    }

    /// Adds the slots of `from` from `first` on to those of `to`, whose keys are lower.
    fn append(&mut self, to: u32, from: u32, first: usize) {
        for slot in first..self.node(from).len() {
            let entry = self.entry(from, slot);
            let to = self.node_mut(to);
            to.insert(to.len(), entry);
        }
    }

    /// How a node stands in its parent.
    fn child(&self, (start, end): (u64, u64), index: u32) -> Entry {
        Entry { start, end, link: index, highest: self.node(index).highest() }
    }

    /// Restores how full nodes are after something is gone from the leaf at the end of the way.
    #[cold]
    fn rebalance(&mut self) {
        self.is_way_known = false;
        for depth in (0..self.height).rev() {
            let Step { node: parent, slot } = self.path[depth];
            let len = self.node(parent).len();
            let child = self.path[depth + 1].node;
            if self.node(child).len() == 0 {
                self.give_back(child);
                self.remove_child(parent, slot);
            }
            self.merge(parent, slot);
            if slot > 0 {
                self.merge(parent, slot - 1);
            }
            if self.node(parent).len() == len {
                return;
            }
        }
        while self.height > 0 && self.node(self.root).len() == 1 {
            let child = self.node(self.root).link(0);
            self.give_back(self.root);
            self.root = child;
            self.height -= 1;
        }
    }

    fn remove_child(&mut self, parent: u32, slot: usize) {
        let parent = self.node_mut(parent);
        parent.remove(slot);
        if slot == 0 && parent.len() > 0 {
            parent.set_key(0, FIRST);
        }
    }

    /// Makes one child of those at `slot` and after it, if both are there and have little.
    fn merge(&mut self, parent: u32, slot: usize) {
        let above = self.node(parent);
        if slot + 1 >= above.len() {
            return;
        }
        let (left, right, key) = (above.link(slot), above.link(slot + 1), above.key(slot + 1));
        let seam = self.node(left).len();
        if seam + self.node(right).len() > LEAST {
            return;
        }
        let is_inner = self.node(right).is_inner();
        self.append(left, right, 0);
        if is_inner {
            // What was first in its node is so no more.
            self.node_mut(left).set_key(seam, key);
        }
        self.give_back(right);
        let reach = self.node(parent).reach(slot + 1);
        self.node_mut(parent).set_reach(slot, reach);
        self.remove_child(parent, slot + 1);
        if is_inner {
            // Two that were no neighbours have become some.
            self.merge(left, seam - 1);
        }
    }

    /// Makes sure of memory for so many nodes.
    fn make_room(&mut self, nodes: usize) -> Result<(), PhysError> {
        let more = nodes.saturating_sub(self.spare);
        if self.nodes.len() + more >= NONE as usize {
            return Err(PhysError::OutOfMemory);
        }
        self.nodes.try_reserve(more).map_err(|_| PhysError::OutOfMemory)
    }

    /// Where `node` is from now on; there must be room.
    fn add(&mut self, node: Node) -> u32 {
        if self.free == NONE {
            self.nodes.push(node);
            return u32::try_from(self.nodes.len() - 1).unwrap_or_else(|_| unreachable!("there was room"));
        }
        let index = self.free;
        self.free = self.node(index).link(0);
        self.spare -= 1;
        *self.node_mut(index) = node;
        index
    }

    /// Whether the way that is known, if it is, is one.
    pub(super) fn is_way_right(&self) -> bool {
        let below = |pair: &[Step]| self.node(pair[0].node).link(pair[0].slot) == pair[1].node;
        !self.is_way_known || self.path[0].node == self.root && self.path[..=self.height].windows(2).all(below)
    }

    fn give_back(&mut self, index: u32) {
        let next = self.free;
        self.node_mut(index).set_link(0, next);
        self.free = index;
        self.spare += 1;
    }
}
