//! What a tree has to be like, looked at from outside of its operations.

use alloc::vec;
use alloc::vec::Vec;

use super::node::Entry;
use super::tree::{LEAST, NONE, Tree};
use crate::phys::PhysRange;

/// What a walk over a tree has seen.
struct Walk<'t> {
    tree: &'t Tree,
    /// Whether a node was seen.
    seen: Vec<bool>,
    /// All ranges, in order, and how often each is there.
    ranges: Vec<(PhysRange, u32)>,
}

impl Tree {
    /// Works out again what the tree knows of its ranges and nodes. The ranges, in order, and how often each is there.
    ///
    /// # Panics
    /// If something is wrong.
    pub(super) fn check_invariants(&self) -> Vec<(PhysRange, u32)> {
        let mut walk = Walk { tree: self, seen: vec![false; self.nodes.len()], ranges: Vec::new() };
        if self.root == NONE {
            assert!(self.nodes.is_empty() && self.height == 0, "nodes without a root");
        } else {
            assert!(self.height == 0 || self.node(self.root).len() >= 2, "a root with one child");
            walk.visit(self.root, self.height);
        }
        assert!(self.is_way_right(), "the way that is known leads elsewhere");
        let mut free = self.free;
        let mut spare = 0;
        while free != NONE {
            walk.see(free);
            spare += 1;
            free = self.node(free).link(0);
        }
        assert_eq!(self.spare, spare, "the free nodes are counted wrong");
        let Walk { seen, ranges, .. } = walk;
        assert!(seen.iter().all(|seen| *seen), "a node is neither in the tree nor free");
        assert!(ranges.is_sorted_by(|a, b| a.0 < b.0), "ranges out of order");
        assert_eq!(self.len, ranges.iter().map(|(_, count)| *count as usize).sum(), "the ranges are counted wrong");
        ranges
    }
}

impl Walk<'_> {
    fn see(&mut self, index: u32) {
        assert!(!self.seen[index as usize], "a node is in two places");
        self.seen[index as usize] = true;
    }

    fn visit(&mut self, index: u32, height: usize) {
        self.see(index);
        let node = self.tree.node(index);
        node.check();
        assert!(node.len() > 0 || index == self.tree.root, "an empty node");
        let entries = (0..node.len()).map(|slot| self.tree.entry(index, slot));
        let mut reach = 0;
        for (slot, entry) in entries.clone().enumerate() {
            reach = entry.highest.max(reach);
            assert_eq!(node.reach(slot), reach, "a slot reaches elsewhere");
        }
        if height == 0 {
            for entry in entries {
                assert!(entry.link > 0, "a range that is there no more");
                self.ranges.push((PhysRange::known(entry.start, entry.end), entry.link));
            }
            return;
        }
        assert!(node.is_inner(), "the first key is not below all others");
        for (slot, entry) in entries.enumerate() {
            if slot > 0 {
                let together = self.tree.node(entry.link).len() + self.tree.node(node.link(slot - 1)).len();
                assert!(together > LEAST, "neighbours with little");
            }
            self.visit_child(entry, height - 1);
        }
    }

    fn visit_child(&mut self, entry: Entry, height: usize) {
        let before = self.ranges.len();
        let key = |range: PhysRange| (range.start(), range.end());
        let is_below = self.ranges.last().is_none_or(|(last, _)| key(*last) < (entry.start, entry.end));
        assert!(is_below || entry.end == 0, "a key is not above what comes before the child");
        self.visit(entry.link, height);
        let ranges = &self.ranges[before..];
        assert!((entry.start, entry.end) <= key(ranges[0].0), "a key is above what is in the child");
        let highest = ranges.iter().map(|(range, _)| range.end()).max();
        assert_eq!(Some(entry.highest), highest, "a child reaches elsewhere");
    }
}
