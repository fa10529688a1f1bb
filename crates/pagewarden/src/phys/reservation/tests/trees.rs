//! Trees in which many ranges overlap, built and emptied in several orders.

use alloc::vec::Vec;

use super::super::node::LEN;
use super::super::tree::Tree;
use super::range;
use crate::phys::PhysRange;

const COUNT: u64 = 1500;
/// No tree of so many ranges is higher: a node has more than eight children on average.
const HEIGHT: usize = 4;

/// `count` numbers in an order that looks random: the step has no divisor in common with it.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |number| number * 1009 % count)
}

/// Inserts and removes `ranges`, which are all different, in these orders.
fn build_and_empty(ranges: &[PhysRange], remove: impl Iterator<Item = u64>) {
    let mut tree = Tree::new();
    for (count, range) in (1..).zip(ranges) {
        tree.insert(*range).unwrap();
        assert_eq!(tree.overlapping(*range).map(|other| other.intersects(*range)), Some(true));
        assert_eq!(tree.check_invariants().len(), count);
    }
    assert!(tree.height <= HEIGHT);
    for (left, which) in (0..ranges.len()).rev().zip(remove) {
        let removed = ranges[usize::try_from(which).unwrap()];
        assert!(tree.remove(removed) && !tree.remove(removed));
        assert_eq!(tree.check_invariants().len(), left);
    }
    assert_eq!((tree.len(), tree.height, tree.spare), (0, 0, tree.nodes.len() - 1));
    let nodes = tree.nodes.len();
    ranges.iter().for_each(|range| tree.insert(*range).unwrap());
    assert_eq!(tree.nodes.len(), nodes, "what was given back is not used again");
}

#[test]
fn ranges_that_are_nested() {
    let ranges: Vec<_> = (0..COUNT).map(|depth| range(depth, 4 * COUNT - depth)).collect();
    build_and_empty(&ranges, 0..COUNT);
    build_and_empty(&ranges, (0..COUNT).rev());
    build_and_empty(&ranges, scattered(COUNT));
}

#[test]
fn ranges_with_one_start() {
    let ranges: Vec<_> = scattered(COUNT).map(|bytes| range(8, 9 + bytes)).collect();
    build_and_empty(&ranges, 0..COUNT);
    build_and_empty(&ranges, scattered(COUNT));
}

#[test]
fn ranges_with_one_end() {
    let ranges: Vec<_> = (0..COUNT).rev().map(|start| range(start, COUNT)).collect();
    build_and_empty(&ranges, 0..COUNT);
    build_and_empty(&ranges, scattered(COUNT));
}

#[test]
fn ranges_that_are_apart() {
    let ranges: Vec<_> = (0..COUNT).map(|start| range(2 * start, 2 * start + 1)).collect();
    build_and_empty(&ranges, (0..COUNT).rev());
    build_and_empty(&ranges, scattered(COUNT));
}

#[test]
fn every_gap_between_ranges_is_found_free() {
    let mut tree = Tree::new();
    for start in scattered(COUNT) {
        tree.insert_apart(range(3 * start, 3 * start + 2)).unwrap();
    }
    for start in 0..COUNT {
        assert_eq!(tree.overlapping(range(3 * start + 2, 3 * start + 3)), None);
        assert_eq!(tree.overlapping(range(3 * start + 1, 3 * start + 3)), Some(range(3 * start, 3 * start + 2)));
    }
    for start in scattered(COUNT) {
        tree.insert_apart(range(3 * start + 2, 3 * start + 3)).unwrap();
    }
    assert_eq!(tree.check_invariants().len() as u64, 2 * COUNT);
}

#[test]
fn ranges_that_reach_far_among_short_ones() {
    let mut tree = Tree::new();
    (0..COUNT).for_each(|start| tree.insert(range(2 * start, 2 * start + 1)).unwrap());
    // From above, and each further than all before: two at each start, so that nodes split around them.
    for (count, start) in (1..).zip((0..COUNT).rev()) {
        for end in [2 * COUNT + 2 * count, 2 * COUNT + 2 * count + 1] {
            tree.insert(range(2 * start, end)).unwrap();
            tree.check_invariants();
        }
    }
    assert_eq!(tree.len() as u64, 3 * COUNT);
}

#[test]
fn leaves_that_become_neighbours_are_joined() {
    // One by one from below, leaves keep half of their slots in use, and so do the nodes above them.
    let half = LEN as u64 / 2;
    let mut tree = Tree::new();
    (0..8 * half * half).for_each(|start| tree.insert(range(start, start + 1)).unwrap());
    assert_eq!(tree.height, 2);
    let leaf = |number: u64| number * half..(number + 1) * half;
    let (last, first) = (leaf(2 * half - 1).skip(1), leaf(2 * half).skip(1));
    // The second node and the third lose leaves until they become one, with the leaves in the middle side by side.
    let lost = (half..half + half / 2).chain(3 * half - half / 2..3 * half).flat_map(leaf);
    for start in last.chain(first).chain(lost) {
        assert!(tree.remove(range(start, start + 1)));
        tree.check_invariants();
    }
}
