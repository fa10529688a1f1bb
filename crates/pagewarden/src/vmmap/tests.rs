//! The tree against a model that is too simple to be wrong: an array with the region of each page.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::Index;

use super::node::{Inner, Leaf, Node};
use super::{Change, Direction, GapRequest, Vmmap};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
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

/// Regions that differ from each other in one thing each.
fn palette() -> Vec<Region> {
    let object = MemoryObject::new(ObjectKind::SharedAnonymous, "object");
    let shown = |delta| Region { backing: Backing::Object(object.clone()), delta, ..Region::anonymous(Prot::READ) };
    vec![
        Region::anonymous(Prot::READ),
        Region::anonymous(Prot::READ | Prot::WRITE),
        stack(),
        shown(0),
        shown(7u64.wrapping_neg()),
        Region { prot_max: Prot::READ, ..Region::anonymous(Prot::READ) },
    ]
}

/// One region for each page.
#[derive(Clone, PartialEq)]
struct Model {
    guard: u64,
    pages: Vec<Option<Region>>,
}

/// A run of pages in the model.
type Run = (u64, u64, Region);

impl Model {
    fn new(guard: u64, size: u64) -> Self {
        Self { guard, pages: vec![None; usize::try_from(size).unwrap()] }
    }

    fn size(&self) -> u64 {
        self.pages.len() as u64
    }

    fn slice(&mut self, range: PageRange) -> &mut [Option<Region>] {
        let index = |page| usize::try_from(page).unwrap();
        &mut self.pages[index(range.first_page())..index(range.end_page())]
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (page, region) in (0..).zip(&self.pages) {
            let Some(region) = region else { continue };
            match runs.last_mut() {
                Some((_, end, last)) if *end == page && last == region => *end += 1,
                _ => runs.push((page, page + 1, region.clone())),
            }
        }
        runs
    }

    /// Which pages a gap may have: those that are free and not within the guard below a region that grows down.
    fn usable(&self) -> Vec<bool> {
        let mut usable: Vec<bool> = self.pages.iter().map(Option::is_none).collect();
        for (index, region) in self.pages.iter().enumerate() {
            if region.as_ref().is_some_and(|region| region.flags.contains(RegionFlags::GROWS_DOWN)) {
                let guard = usize::try_from(self.guard).unwrap();
                let below = (0..index).rev().take(guard).take_while(|&below| self.pages[below].is_none());
                below.for_each(|below| usable[below] = false);
            }
        }
        usable
    }

    fn find_gap(&self, request: &GapRequest) -> Option<u64> {
        let window = request.window;
        let usable = self.usable();
        let usable = |page: u64| usable[usize::try_from(page).unwrap()];
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for page in (window.first_page()..window.end_page()).filter(|&page| usable(page)) {
            match runs.last_mut() {
                Some((_, end)) if *end == page => *end += 1,
                _ => runs.push((page, page + 1)),
            }
        }
        let wanted = request.pages.get();
        let aligned = |first: &u64| first % request.align_pages == request.align_offset % request.align_pages;
        let mut fitting = runs.into_iter().filter(|(low, end)| end - low >= wanted + request.align_pages - 1);
        match request.direction {
            Direction::BottomUp => fitting.next().and_then(|(low, end)| (low..end).find(aligned)),
            Direction::TopDown => fitting.next_back().and_then(|(low, end)| (low..=end - wanted).rev().find(aligned)),
        }
    }

    fn diff<'a>(&'a self, newer: &'a Self) -> Vec<Change<'a>> {
        let mut changes: Vec<Change<'a>> = Vec::new();
        for (page, (before, after)) in (0..).zip(self.pages.iter().zip(&newer.pages)) {
            let (before, after) = (before.as_ref(), after.as_ref());
            if before == after {
                continue;
            }
            match changes.last_mut() {
                Some(last) if last.range.end_page() == page && (last.before, last.after) == (before, after) => {
                    last.range = pages(last.range.first_page(), page + 1);
                }
                _ => changes.push(Change { range: pages(page, page + 1), before, after }),
            }
        }
        changes
    }
}

fn runs(map: &Vmmap) -> Vec<Run> {
    map.iter().map(|entry| (entry.range.first_page(), entry.range.end_page(), entry.region.clone())).collect()
}

/// A page near an edge of some region, or anywhere.
#[derive(Clone, Debug)]
enum Place {
    Edge(Index, i64),
    Any(Index),
}

impl Place {
    fn strategy() -> impl Strategy<Value = Self> {
        prop_oneof![
            4 => (any::<Index>(), -1i64..=1).prop_map(|(edge, off)| Self::Edge(edge, off)),
            1 => any::<Index>().prop_map(Self::Any),
        ]
    }

    fn resolve(&self, model: &Model) -> u64 {
        let size = model.size();
        match self {
            Self::Any(index) => index.index(model.pages.len() + 1) as u64,
            Self::Edge(index, off) => {
                let mut edges = vec![0, size];
                edges.extend(model.runs().iter().flat_map(|&(first, end, _)| [first, end]));
                index.get(&edges).saturating_add_signed(*off).min(size)
            }
        }
    }
}

/// Two pages, in any order; equal ones stand for one page.
fn span(model: &Model, (a, b): &(Place, Place)) -> PageRange {
    let (a, b) = (a.resolve(model), b.resolve(model));
    let first = a.min(b).min(model.size() - 1);
    pages(first, a.max(b).max(first + 1))
}

#[derive(Clone, Debug)]
enum Op {
    Insert((Place, Place), Index),
    Remove((Place, Place)),
    Replace((Place, Place), Index),
    Protect((Place, Place), u8),
    /// Changes each region by what it is.
    ToggleStack((Place, Place)),
    /// Many small regions at once: every other page, or neighbours that are not equal.
    Fill((Place, Place), Index, u64),
    Snapshot,
    Restore(Index),
}

fn op() -> impl Strategy<Value = Op> {
    let span = || (Place::strategy(), Place::strategy());
    prop_oneof![
        5 => (span(), any::<Index>()).prop_map(|(span, region)| Op::Insert(span, region)),
        4 => span().prop_map(Op::Remove),
        4 => (span(), any::<Index>()).prop_map(|(span, region)| Op::Replace(span, region)),
        3 => (span(), 0u8..8).prop_map(|(span, prot)| Op::Protect(span, prot)),
        1 => span().prop_map(Op::ToggleStack),
        2 => (span(), any::<Index>(), 1u64..5).prop_map(|(span, region, step)| Op::Fill(span, region, step)),
        1 => Just(Op::Snapshot),
        1 => any::<Index>().prop_map(Op::Restore),
    ]
}

/// Both sides, and versions of both that must not change.
struct World {
    map: Vmmap,
    model: Model,
    kept: Vec<(Vmmap, Model)>,
    palette: Vec<Region>,
}

impl World {
    fn new(guard: u64, size: u64) -> Self {
        let (map, model) = (Vmmap::new(PageCount::new(guard)), Model::new(guard, size));
        let kept = vec![(map.clone(), model.clone())];
        Self { map, model, kept, palette: palette() }
    }

    fn replace(&mut self, range: PageRange, region: &Region) {
        if self.map.is_free(range) {
            self.map.insert(range, region.clone()).unwrap();
        } else {
            self.map.replace(range, region.clone()).unwrap();
        }
        self.model.slice(range).fill(Some(region.clone()));
    }

    fn remove(&mut self, range: PageRange) {
        self.map.remove(range).unwrap();
        self.model.slice(range).fill(None);
    }

    fn update(&mut self, range: PageRange, change: impl Fn(&mut Region)) {
        let mut seen = Vec::new();
        let expected: Vec<_> = self.map.range(range).filter_map(|entry| entry.range.intersection(range)).collect();
        self.map
            .update(range, |part, region| {
                seen.push(part);
                change(region);
            })
            .unwrap();
        assert_eq!(seen, expected);
        self.model.slice(range).iter_mut().flatten().for_each(change);
    }

    /// Maps one page in `step`, all of one kind, or neighbours of different kinds.
    fn fill(&mut self, range: PageRange, kind: usize, step: u64) {
        for page in (range.first_page()..range.end_page()).step_by(usize::try_from(step).unwrap()) {
            let turn = if step == 1 { usize::try_from(page).unwrap() } else { 0 };
            let region = self.palette[(kind + turn) % self.palette.len()].clone();
            self.replace(pages(page, page + 1), &region);
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Insert(range, region) => {
                let range = span(&self.model, range);
                if self.model.slice(range).iter().all(Option::is_none) {
                    self.replace(range, &region.get(&self.palette).clone());
                }
            }
            Op::Remove(range) => self.remove(span(&self.model, range)),
            Op::Replace(range, region) => {
                let region = region.get(&self.palette).clone();
                self.replace(span(&self.model, range), &region);
            }
            Op::Protect(range, prot) => {
                let prot = Prot::from_bits_truncate(*prot);
                self.update(span(&self.model, range), |region| region.prot = prot);
            }
            Op::ToggleStack(range) => {
                self.update(span(&self.model, range), |region| region.flags.toggle(RegionFlags::GROWS_DOWN));
            }
            Op::Fill(range, region, step) => {
                let range = span(&self.model, range);
                self.fill(range, region.index(self.palette.len()), *step);
            }
            Op::Snapshot => self.kept.push((self.map.clone(), self.model.clone())),
            Op::Restore(version) => (self.map, self.model) = version.get(&self.kept).clone(),
        }
    }

    /// Everything that can be asked about the page.
    fn check_page(&self, page: u64) {
        let runs = self.model.runs();
        let entry = |run: Option<&Run>| run.map(|(first, end, _)| pages(*first, *end));
        for address in [at(page), VirtAddr::new(page * PAGE_SIZE + PAGE_SIZE - 1)] {
            let found = |entry: Option<super::Entry<'_>>| entry.map(|entry| entry.range);
            let holding = runs.iter().find(|(first, end, _)| (first..end).contains(&&page));
            assert_eq!(found(self.map.get(address)), entry(holding));
            assert_eq!(found(self.map.at_or_after(address)), entry(runs.iter().find(|(_, end, _)| *end > page)));
            assert_eq!(found(self.map.before(address)), entry(runs.iter().rev().find(|(_, end, _)| *end <= page)));
        }
    }

    fn check_range(&self, range: PageRange, turns: u64) {
        let runs = self.model.runs();
        let inside = runs.iter().map(|(first, end, _)| pages(*first, *end)).filter(|entry| entry.intersects(range));
        let inside: Vec<_> = inside.collect();
        assert_eq!(self.map.is_free(range), inside.is_empty());
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let mut entries = self.map.range(range);
        for turn in 0.. {
            let from_front = turns >> (turn % 64) & 1 == 0;
            let Some(entry) = (if from_front { entries.next() } else { entries.next_back() }) else { break };
            if from_front {
                low.push(entry.range)
            } else {
                high.push(entry.range)
            };
        }
        assert!(entries.next().is_none() && entries.next_back().is_none());
        low.extend(high.into_iter().rev());
        assert_eq!(low, inside);
    }

    fn check(&self) {
        self.map.check_invariants();
        assert_eq!(runs(&self.map), self.model.runs());
    }

    fn check_kept(&self) {
        for (map, model) in &self.kept {
            map.check_invariants();
            assert_eq!(runs(map), model.runs());
            assert_eq!(map.diff(&self.map), model.diff(&self.model));
            assert_eq!(self.map.diff(map), self.model.diff(model));
        }
    }
}

#[derive(Clone, Debug)]
struct Probe {
    window: (Place, Place),
    pages: u64,
    align: u32,
    offset: u64,
    turns: u64,
}

fn probe() -> impl Strategy<Value = Probe> {
    let window = (Place::strategy(), Place::strategy());
    (window, 0u64..9, 0u32..5, 0u64..40, any::<u64>()).prop_map(|(window, pages, align, offset, turns)| Probe {
        window,
        pages,
        align,
        offset,
        turns,
    })
}

impl World {
    fn check_probe(&self, probe: &Probe) {
        let window = span(&self.model, &probe.window);
        self.check_page(window.first_page());
        self.check_page(window.end_page());
        self.check_range(window, probe.turns);
        for window in [window, pages(0, self.model.size())] {
            for direction in [Direction::TopDown, Direction::BottomUp] {
                let (pages, align_pages) = (PageCount::new(probe.pages), 1 << probe.align);
                let request = GapRequest { pages, window, direction, align_offset: probe.offset, align_pages };
                let found = self.map.find_gap(&request);
                let expected = if probe.pages == 0 { None } else { self.model.find_gap(&request) };
                assert_eq!(found.map(PageRange::first_page), expected, "{request:?} in {:?}", self.map);
                assert!(found.is_none_or(|gap| gap.pages() == pages && self.map.is_free(gap)));
            }
        }
    }
}

fn run(mut world: World, steps: &[(Op, Probe)]) {
    for (op, probe) in steps {
        world.apply(op);
        world.check();
        world.check_probe(probe);
    }
    world.check_kept();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_page_array(guard in 0u64..6, steps in prop::collection::vec((op(), probe()), 1..60)) {
        run(World::new(guard, 48), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_page_array_when_deep(
        guard in 0u64..6,
        step in 1u64..3,
        steps in prop::collection::vec((op(), probe()), 1..40),
    ) {
        let mut world = World::new(guard, 1600);
        world.fill(pages(0, 1600), 0, step);
        run(world, &steps);
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

/// The nodes of a map by address, and their sizes.
fn nodes(map: &Vmmap) -> HashMap<*const u8, usize> {
    fn visit(node: &Node, seen: &mut HashMap<*const u8, usize>) {
        match node {
            Node::Leaf(leaf) => seen.insert(Arc::as_ptr(leaf).cast(), size_of::<Leaf>()),
            Node::Inner(inner) => {
                inner.children.iter().for_each(|child| visit(child, seen));
                seen.insert(Arc::as_ptr(inner).cast(), size_of::<Inner>())
            }
        };
    }
    let mut seen = HashMap::new();
    map.root.iter().for_each(|root| visit(root, &mut seen));
    seen
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
    map.update(pages(4001, 4002), |_, region| region.prot = Prot::WRITE).unwrap();
    assert_eq!(nodes(&map).keys().filter(|&node| !before.contains_key(node)).count(), height);
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
    assert_eq!(runs(&map), [(0, 4999, Region::anonymous(Prot::READ)), (4999, 5000, Region::anonymous(Prot::WRITE))]);
}

#[test]
#[should_panic(expected = "insert over a mapped page")]
fn insert_over_a_mapped_page_panics() {
    let mut map = comb(3);
    map.insert(pages(2, 4), Region::anonymous(Prot::READ)).unwrap();
}
