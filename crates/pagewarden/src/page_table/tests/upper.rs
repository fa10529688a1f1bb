//! Roots whose upper half is another's: seen through all of them, and changed, counted and released through one.

use super::*;
use crate::addr::PageCount;
use crate::frame::FrameRange;
use crate::page_table::{Census, Mapped, Move};

/// The first page of the upper half.
const UPPER: u64 = (1 << 52) - (1 << 35);
/// Everything that ranges can hold.
const EVERYWHERE: (u64, u64) = (0, (1 << 52) - 1);

/// A kernel's root with a page at [`UPPER`], a large leaf behind it, and a page in the last slot.
struct Kernel<'a> {
    world: &'a World,
    root: Root,
    state: (BTreeMap<u64, u32>, BTreeMap<u64, u32>),
    census: Census,
}

impl<'a> Kernel<'a> {
    fn new(world: &'a World) -> Self {
        let tables = world.tables();
        let mut root = Root::new(world).unwrap();
        tables.map(&mut root, at(UPPER), world.new_frames(1, 1), RW).unwrap();
        let large = FrameRange::new(world.new_frames(512, 512), PageCount::new(512)).unwrap();
        tables.map_run(&mut root, at(UPPER + 512), large, RW | EntryFlags::HUGE).unwrap();
        tables.map(&mut root, at((1 << 52) - 2), world.new_frames(1, 1), RO).unwrap();
        let census = tables.check_invariants(&root);
        let mut kernel = Self { world, root, state: Default::default(), census };
        kernel.state = kernel.counted();
        kernel
    }

    /// References to tables and frames.
    fn counted(&self) -> (BTreeMap<u64, u32>, BTreeMap<u64, u32>) {
        let state = self.world.state.lock().unwrap();
        (state.tables.clone(), state.leaves.clone())
    }

    fn below(&self) -> Root {
        self.world.tables().root_below(&self.root).unwrap()
    }

    /// It has what it had at first, and nobody else has anything.
    fn check_alone(&self) {
        assert_eq!(self.world.tables().check_invariants(&self.root), self.census);
        assert_eq!(self.counted(), self.state);
    }
}

/// What a processor finds that walks from `root`: the entries on its way.
fn walked(world: &World, root: &Root, page: u64) -> Vec<Entry> {
    let (mut table, mut found) = (root.frame(), Vec::new());
    for level in [3, 2, 1, 0] {
        let entry = Entry::from_word(world.load(table.at((page >> (9 * level) & 511) * 8)));
        found.push(entry);
        if !entry.is_present() || entry.contains(EntryFlags::HUGE) {
            break;
        }
        table = entry.frame();
    }
    found
}

#[test]
fn what_is_mapped_in_one_upper_half_later_is_in_all() {
    let world = World::new();
    let mut kernel = Kernel::new(&world);
    let tables = world.tables();
    let roots = [kernel.below(), kernel.below()];
    let later = UPPER + 5;
    assert_eq!(walked(&world, &roots[0], later).last(), Some(&Entry::EMPTY));
    tables.map(&mut kernel.root, at(later), world.new_frames(1, 1), RW).unwrap();
    for page in [UPPER, UPPER + 600, (1 << 52) - 2, later] {
        for root in &roots {
            assert_eq!(walked(&world, root, page), walked(&world, &kernel.root, page));
        }
    }
    for root in roots {
        assert_eq!(tables.check_invariants(&root), Census { tables: 1, empty_tables: 0, leaves: 0 });
        tables.destroy(root);
    }
    let gone = tables.unmap(&mut kernel.root, at(later)).unwrap().unwrap();
    Gather::new(tables, &kernel.root).stale(gone);
    kernel.check_alone();
}

/// A processor that uses a way sets the accessed bit on it: in the entry of the root that it runs with.
#[test]
fn accessed_bits_of_the_entries_may_differ() {
    let world = World::new();
    let kernel = Kernel::new(&world);
    world.word(kernel.root.frame().at(511 * 8)).fetch_or(EntryFlags::ACCESSED.bits(), Ordering::Relaxed);
    let root = kernel.below();
    assert!(!walked(&world, &root, (1 << 52) - 2)[0].contains(EntryFlags::ACCESSED));
    world.word(root.frame().at(256 * 8)).fetch_or(EntryFlags::ACCESSED.bits(), Ordering::Relaxed);
    world.tables().check_invariants(&root);
}

#[test]
#[should_panic = "entry 300 of a root whose upper half is that of"]
fn an_entry_that_only_one_of_both_has_is_found() {
    let world = World::new();
    let mut kernel = Kernel::new(&world);
    let root = kernel.below();
    world.tables().map(&mut kernel.root, at(UPPER + (44 << 27)), world.new_frames(1, 1), RW).unwrap();
    world.tables().check_invariants(&root);
}

#[test]
fn pages_of_an_upper_half_that_is_not_its_own_are_no_places_of_a_space() {
    let world = World::new();
    let kernel = Kernel::new(&world);
    let tables = world.tables();
    let mut root = kernel.below();
    let frame = FrameNumber::new(DATA).unwrap();
    for page in [UPPER, UPPER + 1, UPPER + 512, (1 << 52) - 2] {
        let (page, range) = (at(page), pages(page, 1));
        assert_eq!(tables.map(&mut root, page, frame, RW), Err(Errno::Inval));
        let run = FrameRange::new(frame, PageCount::new(1)).unwrap();
        assert_eq!(tables.map_run(&mut root, page, run, RW), Err(Errno::Inval));
        assert_eq!(tables.slot(&root, page).map(drop), Err(Errno::Inval));
        assert_eq!(tables.unmap(&mut root, page).map(drop), Err(Errno::Inval));
        assert_eq!(tables.protect_page(&mut root, page, RO).map(drop), Err(Errno::Inval));
        assert_eq!(tables.make_exclusive(&mut root, range), Err(Errno::Inval));
        assert_eq!(tables.make_clearable(&mut root, range), Err(Errno::Inval));
        assert_eq!(tables.query(&root, page), Mapped::Nothing(Level::Four));
        assert_eq!(tables.split(&mut root, page), Ok(()), "there is nothing");
        assert!(!tables.promote(&mut root, page));
        let mut gather = Gather::new(tables, &root);
        assert_eq!(tables.protect(&mut root, range, RO, &mut gather), Err(Errno::Inval));
        for which in [Move { from: range, to: pages(0, 1) }, Move { from: pages(0, 1), to: range }] {
            assert_eq!(tables.move_entries(&mut root, which, &mut gather, None), Err(Errno::Inval));
        }
    }
    tables.destroy(root);
    kernel.check_alone();
}

#[test]
fn whatever_is_done_everywhere_is_done_below() {
    let world = World::new();
    let kernel = Kernel::new(&world);
    world.touch_all(kernel.root.frame(), &mut || (true, true));
    let tables = world.tables();
    let mut root = kernel.below();
    tables.map(&mut root, at(7), world.new_frames(1, 1), RW).unwrap();
    let everywhere = pages(EVERYWHERE.0, EVERYWHERE.1);
    let seen = |root: &Root| {
        let mut seen = Vec::new();
        tables.entries(root, everywhere, &mut |span, _, _| seen.push(span.first_page()));
        seen
    };
    assert_eq!(seen(&root), [7]);
    let mut gather = Gather::new(tables, &root);
    tables.harvest(&mut root, everywhere, &mut gather, &mut |page, _| panic!("{page} was not touched"));
    let only = |page: VirtAddr, entry: Entry| {
        assert_eq!(page, at(7));
        entry
    };
    tables.edit(&mut root, everywhere, &mut gather, &mut |page, entry, _| only(page, entry));
    tables.edit_own(&mut root, everywhere, &mut gather, &mut |page, entry, _| only(page, entry));
    tables.clear(&mut root, everywhere, &mut gather);
    gather.finish();
    drop(gather);
    assert_eq!(seen(&root), []);
    world.check_known(kernel.root.frame());
    tables.destroy(root);
    assert_eq!(seen(&kernel.root), [UPPER, UPPER + 512, (1 << 52) - 2]);
    kernel.check_alone();
}

/// A fork that looks into every table, and leaves nothing out.
struct CopyAll<'a>(&'a World);

impl ForkPolicy for CopyAll<'_> {
    fn decide(&mut self, span: PageRange) -> Share {
        assert!(span.end_page() <= 1 << 35, "{span} is not the parent's");
        Share::Inside
    }

    fn copy_leaf(&mut self, _: VirtAddr, entry: Entry, level: Level) -> Result<Option<(Entry, Entry)>, Errno> {
        self.0.share_leaf(entry, level).map(|both| Some((both, both)))
    }
}

/// Of a fork that fails at any of its requests nothing is left, and the upper half is as it was.
#[test]
fn forks_share_the_lower_half_alone_whether_they_come_to_an_end_or_not() {
    let mut requests = 0;
    loop {
        let world = World::new();
        let kernel = Kernel::new(&world);
        let tables = world.tables();
        let (mut parent, mut child) = (kernel.below(), kernel.below());
        for page in [7, 1 << 20, (1 << 35) - 1] {
            tables.map(&mut parent, at(page), world.new_frames(1, 1), RW).unwrap();
        }
        world.fail_after(requests);
        let mut gather = Gather::new(tables, &parent);
        let forked = tables.fork(&mut parent, &mut child, &mut gather, &mut CopyAll(&world));
        world.fail_after(i64::MAX);
        drop(gather);
        let leaves = if forked.is_ok() { 3 } else { 0 };
        assert_eq!(tables.check_invariants(&child).leaves, leaves);
        assert_eq!(tables.check_invariants(&parent).leaves, 3);
        assert_eq!(tables.check_invariants(&kernel.root), kernel.census);
        tables.destroy(parent);
        tables.destroy(child);
        kernel.check_alone();
        if forked.is_ok() {
            assert!(requests > 5, "a table and a leaf for each page");
            return;
        }
        requests += 1;
    }
}

/// Every entry of the lower half in use, and of the upper half too: neither is taken for a part of the other.
#[test]
fn a_root_without_an_empty_entry_keeps_its_halves_apart() {
    let world = World::new();
    let tables = world.tables();
    let mut upper = Root::new(&world).unwrap();
    // One table of level 3 for all of them, which is given back once.
    tables.map(&mut upper, at(UPPER), world.new_frames(1, 1), RW).unwrap();
    let first = world.load(upper.frame().at(256 * 8));
    (257..512).for_each(|index| world.store(upper.frame().at(index * 8), first));
    let mut root = tables.root_below(&upper).unwrap();
    let mut pages_below = Vec::new();
    // As many as there are frames for tables.
    for slot in (0..256).step_by(4) {
        let page = slot << 27;
        tables.map(&mut root, at(page), world.new_frames(1, 1), RW).unwrap();
        pages_below.push(page);
    }
    let mut seen = Vec::new();
    tables.entries(&root, pages(EVERYWHERE.0, EVERYWHERE.1), &mut |span, _, _| seen.push(span.first_page()));
    assert_eq!(seen, pages_below);
    tables.check_invariants(&root);
    tables.destroy(root);
    assert_eq!(world.state.lock().unwrap().tables.len(), 4, "those of the upper half");
    assert_eq!(world.state.lock().unwrap().leaves.len(), 1);
}
