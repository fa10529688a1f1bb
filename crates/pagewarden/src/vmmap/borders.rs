//! Edits at the borders between nodes, in trees of chosen shapes: what random steps seldom reach.
//!
//! Nodes are as empty or as full as they may be, so that each edit at a border lacks a slot or has one too many, and
//! with few regions the trees are tall. A page array says what must come of each edit.

use core::ops::Range;
use std::vec::Vec;

use super::local::Path;
use super::node::{Child, INNER_LEN, Inner, LEAF_LEN, Leaf, Node, Piece};
use super::{Direction, GapRequest, Vmmap};
use crate::addr::{PAGE_SHIFT, PageCount, PageRange};
use crate::model::{Action, Edit, PageArray};
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};

const LEAF_MIN: usize = LEAF_LEN / 4;
const INNER_MIN: usize = INNER_LEN / 4;
/// The end of the highest range.
const TOP: u64 = u64::MAX >> PAGE_SHIFT;

fn pages(first: u64, end: u64) -> PageRange {
    PageRange::from_pages(first, PageCount::new(end - first)).unwrap()
}

fn above(range: PageRange, base: u64) -> PageRange {
    pages(base + range.first_page(), base + range.end_page())
}

fn plain(index: u64) -> Region {
    Region::anonymous(if index.is_multiple_of(2) { Prot::READ } else { Prot::WRITE })
}

fn stack() -> Region {
    Region { flags: RegionFlags::GROWS_DOWN, ..plain(0) }
}

/// Regions of two pages each of which touches the next: two kinds in turns, so that what becomes the other kind joins
/// both neighbours.
fn touching(index: u64) -> (Range<u64>, Region) {
    (2 * index + 1..2 * index + 3, plain(index))
}

/// Regions with gaps below them, of which every third grows down.
fn apart(index: u64) -> (Range<u64>, Region) {
    let first = 6 * index + 3 + index % 2;
    (first..first + 2, if index.is_multiple_of(3) { stack() } else { plain(index) })
}

/// Equal regions that all grow down, with gaps of two pages: what fills a gap joins both neighbours.
fn alike(index: u64) -> (Range<u64>, Region) {
    (4 * index + 3..4 * index + 5, stack())
}

/// A map whose leaves have these sizes and whose inner nodes have `fanout` children.
fn shaped(guard: u64, sizes: &[usize], fanout: usize, pieces: &mut dyn Iterator<Item = Piece>) -> Vmmap {
    let mut pieces = pieces;
    let leaf = |&size: &usize| {
        let leaf = Leaf::collect(&mut pieces, size);
        Child { summary: leaf.summary(guard), node: Node::leaf(leaf).unwrap() }
    };
    let mut level: Vec<Child> = sizes.iter().map(leaf).collect();
    while level.len() > 1 {
        let mut children = level.into_iter();
        level = Vec::new();
        while children.len() > 0 {
            let count = children.len().min(fanout);
            let inner = Inner::collect(&mut children, count, guard).unwrap();
            level.push(Child { summary: inner.summary(guard), node: Node::inner(inner).unwrap() });
        }
    }
    let mut map = Vmmap::new(PageCount::new(guard));
    map.set_root(level.pop());
    map.len = sizes.iter().sum();
    map
}

/// A map, and an array that has the same from page `base` on.
struct Shape {
    map: Vmmap,
    array: PageArray,
    base: u64,
    /// Where each leaf but the first starts, in the array.
    borders: Vec<u64>,
    /// The way of the last edit of any copy, which the next one is to try and find wrong.
    path: Path,
    edits: usize,
}

impl Shape {
    /// At the top of the address space, or at its bottom if `top` is 0.
    fn new(sizes: &[usize], fanout: usize, fill: fn(u64) -> (Range<u64>, Region), top: u64) -> Self {
        let (guard, count) = (3, sizes.iter().sum::<usize>() as u64);
        // An odd size, so that the parity of a page is the same on both sides.
        let size = fill(count - 1).0.end | 1;
        let base = top.saturating_sub(size);
        let mut array = PageArray::new(PageCount::new(size)).with_guard(PageCount::new(guard));
        (0..count).map(fill).for_each(|(at, region)| array.replace(pages(at.start, at.end), Some(region)));
        let mut pieces =
            (0..count).map(fill).map(|(at, region)| Piece { first: base + at.start, end: base + at.end, region });
        let map = shaped(guard, sizes, fanout, &mut pieces);
        let starts = sizes.iter().scan(0, |index, &size| {
            *index += size as u64;
            Some(*index)
        });
        let borders = starts.take(sizes.len() - 1).map(|index| fill(index).0.start).collect();
        let shape = Self { map, array, base, borders, path: Path::default(), edits: 0 };
        shape.compare(&shape.map, &shape.array, pages(0, 1));
        shape
    }

    /// Does the edit, and another one over it, on copies of both sides.
    fn edit(&mut self, range: PageRange, actions: [Action; 2]) {
        let (mut map, mut array) = (self.map.clone(), self.array.clone());
        map.path = self.path.clone();
        for action in actions {
            if matches!(action, Action::Insert(_)) && !array.is_free(range) {
                continue;
            }
            let (mut seen, mut expected) = (Vec::new(), Vec::new());
            let edit = Edit { range: above(range, self.base), action };
            edit.apply(&mut map, |part| seen.push(part)).unwrap();
            let edit = Edit { range, ..edit };
            edit.apply_to_pages(&mut array, |part| expected.push(above(part, self.base)));
            assert_eq!(seen, expected, "parts that {edit:?} was given");
            self.compare(&map, &array, range);
        }
        self.path = map.path.clone();
        self.edits += 1;
    }

    /// Compares all that is mapped, what an edit of `range` changed, and gaps.
    fn compare(&self, map: &Vmmap, array: &PageArray, range: PageRange) {
        map.check_invariants();
        let runs = array.runs();
        let expected = runs.iter().map(|(run, region)| (above(*run, self.base), region));
        assert!(map.iter().map(|entry| (entry.range, entry.region)).eq(expected), "after an edit of {range}: {map:?}");
        let changes = self.array.diff(array);
        let expected = changes.iter().map(|change| (above(change.range, self.base), change.before, change.after));
        assert!(self.map.diff(map).iter().map(|change| (change.range, change.before, change.after)).eq(expected));
        for (direction, wanted) in [(Direction::TopDown, 1 + range.first_page() % 7), (Direction::BottomUp, 4)] {
            let around = pages(range.first_page().saturating_sub(20), (range.end_page() + 20).min(array.size()));
            for window in [pages(0, array.size()), around] {
                let request =
                    GapRequest { pages: PageCount::new(wanted), window, direction, align_offset: 0, align_pages: 1 };
                let expected = array.find_gap(&request).map(|gap| above(gap, self.base));
                let request = GapRequest { window: above(window, self.base), ..request };
                assert_eq!(map.find_gap(&request), expected, "{request:?} after an edit of {range}");
            }
        }
    }

    /// Does each action on `range`, followed by another.
    fn edit_in_all_ways(&mut self, range: PageRange) {
        let actions = [
            Action::Remove,
            Action::Insert(plain(0)),
            Action::Replace(plain(1)),
            Action::Protect(Prot::READ),
            Action::Replace(plain(0)),
            Action::ToggleStack,
            Action::Insert(plain(1)),
            Action::Stripe,
            Action::Replace(stack()),
            Action::Insert(stack()),
            Action::Protect(Prot::WRITE),
        ];
        for (index, action) in actions.iter().enumerate() {
            let next = &actions[(index + 1 + self.edits % 3) % actions.len()];
            if !matches!(action, Action::Insert(_)) || self.array.is_free(range) {
                self.edit(range, [action.clone(), next.clone()]);
            }
        }
    }

    /// Edits what is next to page `border`, on both sides and over it.
    fn edit_at(&mut self, border: u64) {
        for first in border.saturating_sub(4)..(border + 3).min(self.array.size()) {
            for len in [1, 2, 3, 4, 6] {
                self.edit_in_all_ways(pages(first, (first + len).min(self.array.size())));
            }
        }
    }

    /// Edits all from near one page to near another.
    fn edit_between(&mut self, low: u64, high: u64) {
        for (below, above) in [(2, 2), (1, 0), (0, 1), (0, 0), (3, 5)] {
            let (first, end) = (low.saturating_sub(below), (high + above).min(self.array.size()));
            self.edit_in_all_ways(pages(first, end));
            self.edit_in_all_ways(pages(low + below, high - above));
        }
    }
}

#[test]
fn edits_at_the_borders_of_leaves() {
    const LEAF: usize = LEAF_LEN;
    for (turn, sizes) in [[LEAF_MIN, LEAF_MIN], [LEAF_MIN, LEAF], [LEAF, LEAF_MIN + 1], [LEAF, LEAF]].iter().enumerate()
    {
        for fill in [touching, apart, alike] {
            let mut shape = Shape::new(sizes, INNER_LEN, fill, if turn % 2 == 0 { TOP } else { 0 });
            shape.edit_at(shape.borders[0]);
            shape.edit_at(3);
            shape.edit_at(shape.array.size() - 3);
        }
    }
}

#[test]
fn an_update_that_changes_only_some_regions() {
    for sizes in [[LEAF_MIN; 2], [LEAF_LEN; 2]] {
        let shape = Shape::new(&sizes, INNER_LEN, apart, 0);
        for first in 0..shape.array.size() - 14 {
            let mut map = shape.map.clone();
            map.update(pages(first, first + 14), |_, region| region.flags.remove(RegionFlags::GROWS_DOWN)).unwrap();
            map.check_invariants();
        }
    }
}

#[test]
fn edits_over_whole_leaves() {
    for sizes in [[LEAF_MIN; 4], [LEAF_LEN; 4], [LEAF_MIN, LEAF_LEN, LEAF_MIN, LEAF_LEN - 1]] {
        for fill in [touching, apart, alike] {
            let mut shape = Shape::new(&sizes, INNER_LEN, fill, TOP);
            let [first, second, third] = shape.borders[..] else { unreachable!("four leaves") };
            for (low, high) in [(first, second), (second, third), (first, third)] {
                shape.edit_between(low, high);
            }
            shape.edit_in_all_ways(pages(0, shape.array.size()));
        }
    }
}

#[test]
fn edits_at_the_borders_of_inner_nodes() {
    for fill in [touching, apart] {
        // Four levels, all nodes as empty as they may be.
        let mut shape = Shape::new(&[LEAF_MIN; 2 * INNER_MIN * INNER_MIN], INNER_MIN, fill, TOP);
        assert_eq!(shape.map.root().unwrap().height(), 4);
        for leaf in [INNER_MIN, INNER_MIN * INNER_MIN] {
            let border = shape.borders[leaf - 1];
            for first in [border - 2, border - 1, border] {
                shape.edit_in_all_ways(pages(first, first + 2));
            }
            shape.edit_in_all_ways(pages(border - 40, border + 900));
        }
        // Three levels, both inner nodes full, and so are the leaves next to the border.
        let mut sizes = [LEAF_MIN; 2 * INNER_LEN];
        sizes[INNER_LEN - 1..=INNER_LEN].fill(LEAF_LEN);
        let mut shape = Shape::new(&sizes, INNER_LEN, fill, 0);
        assert_eq!(shape.map.root().unwrap().height(), 3);
        let border = shape.borders[INNER_LEN - 1];
        for first in border - 3..border + 2 {
            shape.edit_in_all_ways(pages(first, first + 1));
            shape.edit_in_all_ways(pages(first, first + 3));
        }
    }
}

#[test]
fn a_full_tree_of_three_levels_grows_and_shrinks() {
    let leaves = INNER_LEN * INNER_LEN;
    let count = (leaves * LEAF_LEN) as u64;
    let piece = |index| Piece { first: 2 * index + 1, end: 2 * index + 2, region: plain(0) };
    let full = shaped(0, &std::vec![LEAF_LEN; leaves], INNER_LEN, &mut (0..count).map(piece));
    assert_eq!(full.root().unwrap().height(), 3);
    let mut map = full.clone();
    // Where the lowest, a middle and the highest leaf are, and at the border of two inner nodes.
    let places = [0, count / 2, count / 2 + 77, count / 64 * 5, count];
    for place in places {
        map.insert(pages(2 * place, 2 * place + 1), plain(1)).unwrap();
        assert_eq!(map.root().unwrap().height(), 4, "after an insertion at {place}");
    }
    map.check_invariants();
    assert_eq!(full.diff(&map).len(), places.len());
    let copy = map.clone();
    map.remove(pages(3, 2 * count - 3)).unwrap();
    map.check_invariants();
    assert_eq!((map.len(), map.root().unwrap().height()), (5, 1));
    assert_eq!(copy.len() as u64, count + 5);
}
