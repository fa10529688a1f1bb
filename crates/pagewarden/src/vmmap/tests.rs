//! The tree against the model, and what only the tree knows: its nodes.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::node::{Inner, Leaf, Node};
use super::{Direction, GapRequest, Vmmap};
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::model::{Step, World};
use crate::object::{MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::region::{Backing, Region, RegionFlags};

fn pages(first: u64, end: u64) -> PageRange {
    PageRange::from_pages(first, PageCount::new(end - first)).unwrap()
}

fn at(page: u64) -> VirtAddr {
    VirtAddr::from_page_number(page).unwrap()
}

fn stack() -> Region {
    Region { flags: RegionFlags::GROWS_DOWN, ..Region::anonymous(Prot::READ | Prot::WRITE) }
}

/// Any steps, decoded by `decode`.
fn steps(decode: fn([u8; Step::BYTES]) -> Step, most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<[u8; Step::BYTES]>().prop_map(decode), 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_page_array(guard in 0u64..6, steps in steps(Step::decode, 60)) {
        World::new(PageCount::new(guard), PageCount::new(48)).run(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_page_array_when_deep(guard in 0u64..6, step in 1usize..3, steps in steps(Step::decode, 40)) {
        World::new(PageCount::new(guard), PageCount::new(4000)).filled(step).run(steps);
    }

    #[test]
    fn behaves_as_a_page_array_when_it_grows_and_shrinks(
        guard in 0u64..6,
        steps in steps(Step::decode_sweep, 12),
    ) {
        World::new(PageCount::new(guard), PageCount::new(4000)).run(steps);
    }
}

/// A map of `count` regions of one page with one page between them.
fn comb(count: u64) -> Vmmap {
    let mut map = Vmmap::new(PageCount::new(4));
    for index in 0..count {
        map.insert(pages(2 * index + 1, 2 * index + 2), Region::anonymous(Prot::READ)).unwrap();
    }
    map
}

/// The nodes of a map and their groups by address, and the sizes of both.
fn nodes(map: &Vmmap) -> HashMap<*const u8, usize> {
    fn visit(node: &Node, seen: &mut HashMap<*const u8, usize>) {
        match node {
            Node::Leaf(leaf) => seen.insert(Arc::as_ptr(leaf).cast(), size_of::<Leaf>()),
            Node::Inner(inner) => {
                inner.children.iter().for_each(|child| visit(child, seen));
                seen.extend(inner.children.groups());
                seen.insert(Arc::as_ptr(inner).cast(), size_of::<Inner>())
            }
        };
    }
    let mut seen = HashMap::new();
    map.root.iter().for_each(|root| visit(root, &mut seen));
    seen
}

/// What each inner node spans, by height above the leaves.
fn inner_bounds(map: &Vmmap) -> Vec<(usize, PageRange)> {
    fn visit(node: &Node, seen: &mut Vec<(usize, PageRange)>) {
        let Node::Inner(inner) = node else { return };
        let whole = inner.spans.whole();
        seen.push((node.height(), pages(whole.first, whole.end)));
        inner.children.iter().for_each(|child| visit(child, seen));
    }
    let mut seen = Vec::new();
    map.root().iter().for_each(|root| visit(root, &mut seen));
    seen
}

#[test]
fn what_is_left_of_inner_nodes_finds_a_place() {
    let map = comb(6000);
    let bounds = inner_bounds(&map);
    let inside = |&&(height, _): &&(usize, PageRange)| height + 1 == map.root().unwrap().height();
    let nodes: Vec<PageRange> = bounds.iter().filter(inside).map(|(_, bounds)| *bounds).collect();
    assert!(nodes.len() >= 3, "inner nodes below the root");
    for (index, low) in nodes.iter().enumerate() {
        for high in &nodes[index..] {
            for (below, above) in (0..9).chain([100, 250, 350]).flat_map(|below| [(below, 0), (below, 3), (0, below)]) {
                let mut map = map.clone();
                // A region and the gap above it are two pages.
                map.remove(pages(low.first_page() + 2 * below, high.end_page() - 2 * above)).unwrap();
                map.check_invariants();
                let removed = (high.end_page() - low.first_page()).div_ceil(2) - below - above;
                assert_eq!(map.len() as u64, 6000 - removed);
            }
        }
    }
}

#[test]
fn an_edit_copies_only_its_path_and_only_if_it_is_shared() {
    let mut map = comb(5000);
    let before = nodes(&map);
    let height = map.root().unwrap().height();
    assert!(height >= 3);
    map.update(pages(4001, 4002), |_, region| region.prot = Prot::NONE).unwrap();
    assert_eq!(nodes(&map), before, "nobody else has the nodes");
    let older = map.clone();
    assert_eq!(nodes(&older), before);
    // The leaf has a larger gap then, which the nodes above have to know.
    map.remove(pages(4001, 4002)).unwrap();
    // Each node on the way but the root is in a group.
    assert_eq!(nodes(&map).keys().filter(|&node| !before.contains_key(node)).count(), height + (height - 1));
    assert_eq!(nodes(&older), before);
    assert_eq!(older.get(at(4001)).unwrap().region.prot, Prot::NONE);
}

/// Bytes in the nodes of a map, without what an allocator adds.
fn bytes_per_region(map: &Vmmap) -> usize {
    nodes(map).values().map(|size| size + 2 * size_of::<usize>()).sum::<usize>() / map.len()
}

#[test]
fn nodes_are_well_filled_in_whatever_order_regions_come() {
    let count = 20_000u64;
    let build = |order: &dyn Fn(u64) -> u64| {
        let mut map = Vmmap::new(PageCount::ZERO);
        for index in 0..count {
            let page = 2 * order(index);
            map.insert(pages(page, page + 1), Region::anonymous(Prot::READ)).unwrap();
        }
        map.check_invariants();
        assert_eq!(map.len() as u64, count);
        bytes_per_region(&map)
    };
    assert!(build(&|index| index) <= 60, "ascending");
    assert!(build(&|index| count - index) <= 60, "descending");
    let mut scattered: Vec<u64> = (0..count).collect();
    scattered.sort_by_key(|index| {
        index.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    });
    assert!(build(&|index| scattered[usize::try_from(index).unwrap()]) <= 64, "scattered");
    let mut map = comb(count);
    for index in (0..count).filter(|index| index % 16 != 0) {
        map.remove(pages(2 * index + 1, 2 * index + 2)).unwrap();
    }
    map.check_invariants();
    assert!(bytes_per_region(&map) <= 4 * 48, "thinned out");
}

#[test]
fn guards_count_in_the_summaries() {
    let mut map = Vmmap::new(PageCount::new(4));
    for index in 0..2000 {
        map.insert(pages(10 * index + 9, 10 * index + 10), stack()).unwrap();
    }
    // Nine pages between two stacks, five without the guard.
    assert_eq!(map.root().unwrap().summary(4).gap, 5);
    let window = pages(9, 20_000);
    let request = |wanted, direction| GapRequest {
        pages: PageCount::new(wanted),
        window,
        direction,
        align_offset: 0,
        align_pages: 1,
    };
    assert_eq!(map.find_gap(&request(6, Direction::TopDown)), None);
    assert_eq!(map.find_gap(&request(6, Direction::BottomUp)), None);
    assert_eq!(map.find_gap(&request(5, Direction::TopDown)), Some(pages(19_990, 19_995)));
    assert_eq!(map.find_gap(&request(5, Direction::BottomUp)), Some(pages(10, 15)));
}

#[test]
fn what_is_unmapped_is_let_go() {
    let object = MemoryObject::new(ObjectKind::SharedAnonymous, "object");
    let mut map = Vmmap::new(PageCount::ZERO);
    for page in 0..500 {
        let backing = Backing::Object(Arc::clone(&object));
        map.insert(pages(2 * page, 2 * page + 1), Region { backing, ..Region::anonymous(Prot::READ) }).unwrap();
    }
    assert_eq!(Arc::strong_count(&object), 501);
    map.remove(pages(0, 2)).unwrap();
    assert_eq!(Arc::strong_count(&object), 500);
    map.remove(pages(10, 901)).unwrap();
    assert_eq!(Arc::strong_count(&object), 1 + map.len());
    map.remove(pages(0, 1000)).unwrap();
    assert_eq!(Arc::strong_count(&object), 1);
    assert!(map.is_empty() && map.root.is_none());
}

#[test]
fn the_ends_of_the_address_space() {
    let last = u64::MAX >> crate::addr::PAGE_SHIFT;
    let mut map = Vmmap::new(PageCount::new(256));
    map.insert(pages(last - 1, last), Region::anonymous(Prot::READ)).unwrap();
    map.insert(pages(0, 1), Region::anonymous(Prot::READ)).unwrap();
    map.insert(pages(9, 10), stack()).unwrap();
    map.check_invariants();
    assert_eq!(map.get(VirtAddr::new(u64::MAX)), None);
    assert_eq!(map.before(VirtAddr::new(u64::MAX)).unwrap().range, pages(last - 1, last));
    assert_eq!(map.at_or_after(VirtAddr::new(0)).unwrap().range, pages(0, 1));
    let request = |wanted, direction, align_offset| GapRequest {
        pages: PageCount::new(wanted),
        window: pages(0, last),
        direction,
        align_offset,
        align_pages: 16,
    };
    assert_eq!(map.find_gap(&request(1, Direction::BottomUp, u64::MAX)), Some(pages(15, 16)));
    assert_eq!(map.find_gap(&request(1, Direction::TopDown, 0)), Some(pages(last - 15, last - 14)));
    for wanted in [0, last, u64::MAX - 15, u64::MAX] {
        assert_eq!(map.find_gap(&request(wanted, Direction::TopDown, 3)), None);
        assert_eq!(map.find_gap(&request(wanted, Direction::BottomUp, 3)), None);
    }
    map.remove(pages(0, last)).unwrap();
    assert!(map.is_empty());
}

#[test]
fn a_great_run_is_replaced_at_once() {
    let mut map = comb(5000);
    map.replace(pages(100, 9900), Region::anonymous(Prot::EXEC)).unwrap();
    map.check_invariants();
    assert_eq!(map.len(), 50 + 1 + 50);
    // Regions that the update makes equal become one, over the edges of leaves too.
    let mut map = Vmmap::new(PageCount::ZERO);
    for page in 0..5000 {
        let prot = if page % 2 == 0 { Prot::READ } else { Prot::WRITE };
        map.insert(pages(page, page + 1), Region::anonymous(prot)).unwrap();
    }
    assert_eq!(map.len(), 5000);
    map.update(pages(1, 4999), |_, region| region.prot = Prot::READ).unwrap();
    map.check_invariants();
    let regions: Vec<_> = map.iter().map(|entry| (entry.range, entry.region.clone())).collect();
    let expected = [(pages(0, 4999), Prot::READ), (pages(4999, 5000), Prot::WRITE)];
    assert_eq!(regions, expected.map(|(range, prot)| (range, Region::anonymous(prot))));
}

#[test]
#[should_panic(expected = "insert over a mapped page")]
fn insert_over_a_mapped_page_panics() {
    let mut map = comb(3);
    map.insert(pages(2, 4), Region::anonymous(Prot::READ)).unwrap();
}
