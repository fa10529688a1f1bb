//! Snapshots: objects that share frames until one of them is stored to.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::windows::{Held, anonymous, frames, map_object};
use super::{READ, RW, World, map_file, mprotect, munmap, object_pages, page};
use crate::addr::{PAGE_SIZE, PageCount, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange, FrameUse};
use crate::ledger::{Limits, Resource};
use crate::linux::MapFlags;
use crate::machine::Machine;
use crate::manager::Access;
use crate::object::{FileId, MemoryObject, ObjectKind, ObjectSource, PageBytes, PageSource, Placement};
use crate::pager::{AddressSpace, Fault};

impl World {
    pub(super) fn snapshot(&self, of: &Held, first: u64, pages: u64) -> Held {
        let account = self.ledger.root().child(Limits::UNLIMITED);
        let made = self.pager.snapshot(&of.object, &account, object_pages(first, pages));
        let (object, window) = made.unwrap();
        Held { object, window: Some(window), account }
    }

    /// Stores a byte as a guest on a processor, which goes on knowing what it knows.
    pub(super) fn store_on(
        &self,
        processor: usize,
        space: &AddressSpace<Machine>,
        number: u64,
        byte: u8,
    ) -> Result<(), Fault> {
        self.run(processor, space.root());
        for _ in 0..8 {
            match self.machine.store(processor, VirtAddr::new(page(number)), &[byte]) {
                Ok(()) => return Ok(()),
                Err(fault) => space.fault(fault.address, Access::Write)?,
            }
        }
        panic!("page {number} faults for ever");
    }

    /// Frames that objects have.
    pub(super) fn object_frames(&self) -> usize {
        let frames = self.pager.frames();
        let all = (0..frames.total()).filter_map(FrameNumber::new);
        all.filter(|frame| frames.used_as(*frame) == Some(FrameUse::Object)).count()
    }

    /// Counts who has each frame of these objects, which are all that there are, and compares.
    pub(super) fn check_counts(&self, objects: &[&Arc<MemoryObject>]) {
        let mut holders: BTreeMap<FrameNumber, u32> = BTreeMap::new();
        for object in objects {
            let memory = self.pager.memory_of(object).unwrap();
            memory.check_invariants();
            for (_, frame) in memory.pages_there() {
                *holders.entry(frame).or_default() += 1;
            }
        }
        for (frame, count) in &holders {
            let others = self.pager.frames().word(*frame).load(Ordering::Relaxed) / 2;
            assert_eq!(others + 1, *count, "objects that have {frame}");
        }
        assert_eq!(self.object_frames(), holders.len(), "frames that no object has");
    }

    fn check_held(&self, objects: &[&Held], spaces: &[&AddressSpace<Machine>]) {
        let objects: Vec<_> = objects.iter().map(|held| &held.object).collect();
        self.check_counts(&objects);
        spaces.iter().for_each(|space| space.check_invariants());
        let tables: Vec<_> = spaces.iter().map(|space| space.tables()).collect();
        let tables: Vec<_> = tables.iter().map(|tables| &**tables).collect();
        assert_eq!(self.stale(&tables), None);
    }

    /// The first byte of each page.
    fn bytes(&self, held: &Held) -> Vec<u8> {
        let pages = self.pager.size(&held.object).unwrap().div_ceil(PAGE_SIZE);
        (0..pages).map(|index| self.byte(held, index)).collect()
    }

    fn byte(&self, held: &Held, index: u64) -> u8 {
        let mut byte = [0xee];
        self.pager.read(&held.object, index * PAGE_SIZE, &mut byte).unwrap();
        byte[0]
    }

    /// Writes these bytes to the first pages.
    fn fill(&self, held: &Held, bytes: &[u8]) {
        for (index, byte) in (0..).zip(bytes) {
            assert_eq!(self.pager.write(&held.object, index * PAGE_SIZE, &[*byte]), Ok(1));
        }
    }
}

#[test]
fn a_snapshot_costs_the_pages_that_differ() {
    let world = World::new(128);
    for source in [anonymous(4), frames(4, Placement::Scattered), frames(4, Placement::Contiguous)] {
        let parent = world.held(source);
        world.fill(&parent, &[1, 2, 3, 4]);
        let snapshot = world.snapshot(&parent, 0, 4);
        assert_eq!((parent.frames(), snapshot.frames(), world.object_frames()), (4, 0, 4));
        world.fill(&parent, &[11, 12]);
        assert_eq!((parent.frames(), world.object_frames()), (6, 6), "what is copied is paid by who stores");
        world.fill(&snapshot, &[21]);
        assert_eq!((parent.frames(), snapshot.frames()), (6, 0), "nobody else has it any more: stored in place");
        assert_eq!(world.pager.write(&snapshot.object, 2 * PAGE_SIZE, &[23]), Ok(1));
        assert_eq!((parent.frames(), snapshot.frames(), world.object_frames()), (6, 1, 7));
        assert_eq!([world.bytes(&parent), world.bytes(&snapshot)], [[11, 12, 3, 4], [21, 2, 23, 4]]);
        world.check_held(&[&parent, &snapshot], &[]);
        let account = parent.account.clone();
        drop(parent);
        assert_eq!((account.used(Resource::Frames), world.object_frames()), (3, 4), "paid as long as anybody has them");
        assert_eq!(world.bytes(&snapshot), [21, 2, 23, 4]);
        world.check_held(&[&snapshot], &[]);
        drop(snapshot);
    }
    world.check_empty();
}

#[test]
fn a_snapshot_of_a_part_begins_there_and_has_zeros_where_there_is_nothing() {
    let world = World::new(64);
    let parent = world.held(anonymous(4));
    world.fill(&parent, &[1, 2, 3, 4]);
    world.pager.punch(&parent.object, 2 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let part = world.snapshot(&parent, 1, 6);
    assert_eq!(world.bytes(&part), [2, 0, 4, 0, 0, 0]);
    assert_eq!(world.object_frames(), 3);
    let far = world.snapshot(&parent, 1 << 40, 2);
    assert_eq!(world.bytes(&far), [0, 0]);
    let space = world.space();
    space.call(&part.map(0, 6, 0)).unwrap();
    world.store(&space, page(1), 9).unwrap();
    world.store(&space, page(5), 10).unwrap();
    assert_eq!((world.bytes(&part), world.bytes(&parent)), (vec![2, 9, 4, 0, 0, 10], vec![1, 2, 0, 4]));
    // What lies beyond the end is nobody's, even if there are frames for it.
    let memfd = world.memfd(2);
    world.pager.allocate(&memfd.object, (2 * PAGE_SIZE, PAGE_SIZE), crate::object::Extent::Stays).unwrap();
    let account = world.ledger.root();
    let (short, window) = world.pager.snapshot(&memfd.object, account, object_pages(0, 4)).unwrap();
    assert_eq!(world.pager.memory_of(&short).unwrap().pages_there(), []);
    drop((space, parent, part, far, memfd, short, window));
    world.check_empty();
}

/// A file of zeros.
#[derive(Debug)]
struct Zeros;

impl PageSource for Zeros {
    fn read_page(&self, _: u64, _: &mut PageBytes) -> Result<(), Errno> {
        Ok(())
    }

    fn write_page(&self, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    fn size(&self) -> u64 {
        PAGE_SIZE
    }
}

#[test]
fn there_are_no_snapshots_of_files_and_devices() {
    let world = World::new(64);
    let kind = ObjectKind::File(FileId { device: 1, inode: 9 });
    let file = world.pager.new_object(kind, "/file", ObjectSource::File(Arc::new(Zeros))).unwrap();
    let device = FrameRange::new(FrameNumber::new(1 << 20).unwrap(), PageCount::new(2)).unwrap();
    let kind = ObjectKind::Device(FileId { device: 1, inode: 3 });
    let device = world.pager.new_object(kind, "/dev/mem", ObjectSource::Physical(device)).unwrap();
    for object in [&file, &device] {
        let refused = world.pager.snapshot(object, world.ledger.root(), object_pages(0, 1));
        assert_eq!(refused.unwrap_err(), Errno::Inval, "{:?}", object.kind());
    }
    drop((file, device));
    world.check_empty();
}

#[test]
fn stores_of_processors_that_knew_the_page_do_not_reach_the_snapshot() {
    let world = World::new(128);
    let parent = world.held(anonymous(3));
    let spaces = [world.space(), world.space()];
    for space in &spaces {
        space.call(&parent.map(0, 3, 0)).unwrap();
    }
    let both = [(0, &spaces[0]), (1, &spaces[1])];
    for (processor, space) in both {
        (0..3).for_each(|number| world.store_on(processor, space, number, 1).unwrap());
    }
    let snapshot = world.snapshot(&parent, 0, 3);
    world.check_held(&[&parent, &snapshot], &[&spaces[0], &spaces[1]]);
    world.store_on(0, &spaces[0], 0, 2).unwrap();
    world.store_on(1, &spaces[1], 1, 3).unwrap();
    world.store_on(1, &spaces[1], 0, 4).unwrap();
    assert_eq!((world.bytes(&snapshot), world.bytes(&parent)), (vec![1, 1, 1], vec![4, 3, 1]));
    assert_eq!([0, 1, 2].map(|at| world.load(&spaces[0], page(at)).unwrap()), [4, 3, 1], "both show the copy");
    assert_eq!((parent.frames(), world.object_frames()), (5, 5), "one copy, whoever stores");
    world.check_held(&[&parent, &snapshot], &[&spaces[0], &spaces[1]]);
    (0..2).for_each(|processor| world.machine.deactivate(processor));
    drop((spaces, parent, snapshot));
    world.check_empty();
}

#[test]
fn the_snapshot_is_shown_and_stored_to_like_its_parent() {
    let world = World::new(128);
    let parent = world.held(frames(2, Placement::Scattered));
    world.fill(&parent, &[1, 2]);
    let snapshot = world.snapshot(&parent, 0, 2);
    let space = world.space();
    space.call(&parent.map(0, 2, 0)).unwrap();
    space.call(&snapshot.map(8, 2, 0)).unwrap();
    assert_eq!([0, 1, 8, 9].map(|at| world.load(&space, page(at)).unwrap()), [1, 2, 1, 2]);
    world.store(&space, page(8), 3).unwrap();
    world.store(&space, page(1), 4).unwrap();
    assert_eq!([0, 1, 8, 9].map(|at| world.load(&space, page(at)).unwrap()), [1, 4, 3, 2]);
    world.check_held(&[&parent, &snapshot], &[&space]);
    drop((space, parent, snapshot));
    world.check_empty();
}

#[test]
fn rights_that_come_back_do_not_let_stores_through() {
    let world = World::new(128);
    for rights in [READ, 0] {
        let parent = world.held(anonymous(2));
        let space = world.space();
        space.call(&parent.map(0, 2, 0)).unwrap();
        (0..2).for_each(|number| world.store(&space, page(number), 1).unwrap());
        space.call(&mprotect(0, 1, rights)).unwrap();
        let snapshot = world.snapshot(&parent, 0, 2);
        space.call(&mprotect(0, 1, RW)).unwrap();
        world.store(&space, page(0), 2).unwrap();
        space.call(&mprotect(1, 1, rights)).unwrap();
        space.call(&mprotect(1, 1, RW)).unwrap();
        world.store(&space, page(1), 3).unwrap();
        assert_eq!((world.bytes(&snapshot), world.bytes(&parent)), (vec![1, 1], vec![2, 3]));
        world.check_held(&[&parent, &snapshot], &[&space]);
    }
    world.check_empty();
}

#[test]
fn whatever_writes_to_a_page_spares_the_snapshot() {
    let world = World::new(128);
    let parent = world.held(anonymous(8));
    world.fill(&parent, &[1; 8]);
    let snapshot = world.snapshot(&parent, 0, 8);
    let space = world.space();
    space.call(&parent.map(0, 8, 0)).unwrap();
    let address = |number| VirtAddr::new(page(number));
    space.copy_to_user(address(0), &[2]).unwrap();
    assert_eq!(space.compare_exchange_user(address(1), 1, 3), Ok(Ok(())));
    assert_eq!(world.load(&space, page(2)), Ok(1));
    space.copy_to_user(address(2), &[4]).unwrap();
    let pager = &world.pager;
    // From the middle of page 3 to the middle of page 5.
    pager.write(&parent.object, 3 * PAGE_SIZE + 7, &[5]).unwrap();
    pager.punch(&parent.object, 3 * PAGE_SIZE + 5, 2 * PAGE_SIZE).unwrap();
    pager.punch(&parent.object, 6 * PAGE_SIZE, 3).unwrap();
    pager.resize(&parent.object, 7 * PAGE_SIZE + 2).unwrap();
    pager.write(&parent.object, 7 * PAGE_SIZE, &[6]).unwrap();
    assert_eq!(world.bytes(&parent), [2, 3, 4, 1, 0, 0, 0, 6]);
    let mut byte = [9];
    assert_eq!((pager.read(&parent.object, 3 * PAGE_SIZE + 7, &mut byte), byte), (Ok(1), [0]));
    assert_eq!(world.bytes(&snapshot), [1; 8]);
    world.check_held(&[&parent, &snapshot], &[&space]);
    pager.resize(&snapshot.object, 7 * PAGE_SIZE).unwrap();
    pager.punch(&snapshot.object, 0, 2 * PAGE_SIZE).unwrap();
    world.check_held(&[&parent, &snapshot], &[&space]);
    assert_eq!(
        (world.bytes(&parent), world.bytes(&snapshot)),
        (vec![2, 3, 4, 1, 0, 0, 0, 6], vec![0, 0, 1, 1, 1, 1, 1])
    );
    drop((space, parent, snapshot));
    world.check_empty();
}

#[test]
fn a_store_without_a_frame_for_the_copy_changes_nothing() {
    let world = World::new(64);
    let parent = world.held(anonymous(3));
    world.fill(&parent, &[1, 2, 3]);
    let space = world.space();
    space.call(&parent.map(0, 3, 0)).unwrap();
    world.store(&space, page(0), 1).unwrap();
    let snapshot = world.snapshot(&parent, 0, 3);
    // The entry of one page is there, that of another is not.
    assert_eq!(world.load(&space, page(1)), Ok(2));
    let pager = &world.pager;
    let attempts = || {
        for number in 0..3 {
            assert_eq!(world.store(&space, page(number), 9), Err(Fault::OutOfMemory));
            assert_eq!(pager.write(&parent.object, number * PAGE_SIZE, &[9]), Err(Errno::NoMem));
        }
        assert_eq!(pager.punch(&parent.object, 1, 2 * PAGE_SIZE), Err(Errno::NoMem));
        assert_eq!(pager.punch(&parent.object, 0, PAGE_SIZE + 1), Err(Errno::NoMem));
        assert_eq!(pager.resize(&parent.object, PAGE_SIZE + 1), Err(Errno::NoMem));
        assert_eq!(pager.size(&parent.object), Ok(3 * PAGE_SIZE));
        assert_eq!([world.bytes(&parent), world.bytes(&snapshot)], [[1, 2, 3]; 2]);
        assert_eq!((parent.frames(), snapshot.frames(), world.object_frames()), (3, 0, 3));
        world.check_held(&[&parent, &snapshot], &[&space]);
    };
    world.frame_taken.fail_since(0);
    attempts();
    world.frame_taken.disarm();
    parent.account.set_limit(Resource::Frames, 3);
    attempts();
    parent.account.set_limit(Resource::Frames, 4);
    world.store(&space, page(0), 9).unwrap();
    assert_eq!([world.bytes(&parent), world.bytes(&snapshot)], [[9, 2, 3], [1, 2, 3]]);
    drop((space, parent, snapshot));
    world.check_empty();
}

#[test]
fn a_snapshot_that_fails_leaves_no_trace() {
    let world = World::new(64);
    let parent = world.held(anonymous(4));
    world.fill(&parent, &[1, 2, 3, 4]);
    let snapshot = world.snapshot(&parent, 1, 1);
    let memory = world.pager.memory_of(&parent.object).unwrap();
    for failing in 0..4 {
        // As many have it as can be counted.
        let word = world.pager.frames().word(memory.pages_there()[failing].1);
        let before = word.swap(u32::MAX - 1, Ordering::Relaxed);
        let failed = world.pager.snapshot(&parent.object, world.ledger.root(), object_pages(0, 4));
        assert_eq!(failed.unwrap_err(), Errno::Busy);
        assert_eq!(word.swap(before, Ordering::Relaxed), u32::MAX - 1);
        world.check_held(&[&parent, &snapshot], &[]);
        let references = memory.pages_there().iter().map(|page| world.pager.frames().references(page.1)).sum::<u32>();
        assert_eq!(references, 5);
    }
    drop((memory, parent, snapshot));
    world.check_empty();
}

#[test]
fn snapshots_of_snapshots_go_in_any_order() {
    const ORDERS: [[usize; 4]; 6] =
        [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1], [1, 2, 0, 3], [0, 3, 1, 2]];
    for order in ORDERS {
        let world = World::new(128);
        let first = world.held(anonymous(4));
        world.fill(&first, &[1, 2, 3, 4]);
        let second = world.snapshot(&first, 0, 4);
        world.fill(&first, &[11]);
        let third = world.snapshot(&second, 0, 4);
        world.fill(&second, &[21, 22]);
        let fourth = world.snapshot(&first, 0, 4);
        let mut all = [Some(first), Some(second), Some(third), Some(fourth)];
        let mut expected = [[11, 2, 3, 4], [21, 22, 3, 4], [1, 2, 3, 4], [11, 2, 3, 4]];
        for (round, gone) in (0..).zip(order) {
            let alive: Vec<_> = all.iter().flatten().collect();
            world.check_held(&alive, &[]);
            for at in (0..4).filter(|at| all[*at].is_some()) {
                assert_eq!(world.bytes(all[at].as_ref().unwrap()), expected[at], "{order:?}");
            }
            all[gone] = None;
            // Those that are left are stored to, each at another page.
            for at in (0..4).filter(|at| all[*at].is_some()) {
                expected[at][round] = 100 + at.to_le_bytes()[0];
                let offset = round as u64 * PAGE_SIZE;
                world.pager.write(&all[at].as_ref().unwrap().object, offset, &[expected[at][round]]).unwrap();
            }
        }
        world.check_empty();
    }
}

#[test]
fn pages_that_are_let_go_are_stored_to_in_place_by_the_last_who_has_them() {
    let world = World::new(64);
    let parent = world.held(anonymous(4));
    world.fill(&parent, &[1, 2, 3, 4]);
    let mut snapshot = world.snapshot(&parent, 0, 4);
    world.pager.punch(&snapshot.object, 0, PAGE_SIZE).unwrap();
    world.pager.resize(&snapshot.object, 3 * PAGE_SIZE).unwrap();
    let kept = world.pager.hold_window(&snapshot.object, object_pages(2, 1)).unwrap();
    snapshot.window = None;
    world.check_held(&[&parent, &snapshot], &[]);
    world.fill(&parent, &[5, 6, 7, 8]);
    assert_eq!(world.object_frames(), 5, "page 2 alone is copied");
    drop((kept, parent, snapshot));
    world.check_empty();
}

#[test]
fn a_child_of_a_space_shows_the_copy_too() {
    let world = World::new(128);
    let parent = world.held(anonymous(2));
    let space = world.space();
    space.call(&parent.map(0, 2, 0)).unwrap();
    (0..2).for_each(|number| world.store(&space, page(number), 1).unwrap());
    let child = space.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    assert_eq!(world.load(&child, page(0)), Ok(1));
    let snapshot = world.snapshot(&parent, 0, 2);
    let late = space.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    world.store_on(1, &child, 0, 2).unwrap();
    world.store_on(0, &late, 1, 3).unwrap();
    for space in [&space, &child, &late] {
        assert_eq!([0, 1].map(|at| world.load(space, page(at)).unwrap()), [2, 3]);
    }
    assert_eq!(world.bytes(&snapshot), [1, 1]);
    world.check_held(&[&parent, &snapshot], &[&space, &child, &late]);
    (0..2).for_each(|processor| world.machine.deactivate(processor));
    drop((space, child, late, parent, snapshot));
    world.check_empty();
}

#[test]
fn private_mappings_follow_the_copy_until_they_have_their_own() {
    let world = World::new(128);
    let parent = world.held(anonymous(2));
    world.fill(&parent, &[1, 2]);
    let space = world.space();
    space.call(&map_file(0, 2, RW, MapFlags::PRIVATE, &world.open(parent.object.clone()))).unwrap();
    space.call(&parent.map(8, 2, 0)).unwrap();
    assert_eq!([0, 1].map(|at| world.load(&space, page(at)).unwrap()), [1, 2]);
    let snapshot = world.snapshot(&parent, 0, 2);
    world.store(&space, page(1), 3).unwrap();
    assert_eq!(world.object_frames(), 2, "the copy is not the object's");
    assert_eq!([0, 1].map(|at| world.load(&space, page(at)).unwrap()), [1, 3]);
    world.store(&space, page(8), 4).unwrap();
    world.store(&space, page(9), 5).unwrap();
    assert_eq!([0, 1, 8, 9].map(|at| world.load(&space, page(at)).unwrap()), [4, 3, 4, 5]);
    assert_eq!(world.bytes(&snapshot), [1, 2]);
    world.check_held(&[&parent, &snapshot], &[&space]);
    drop((space, parent, snapshot));
    world.check_empty();
}

#[test]
fn a_store_to_a_guard_copies_nothing() {
    let world = World::new(64);
    let parent = world.held(anonymous(1));
    world.fill(&parent, &[1]);
    let snapshot = world.snapshot(&parent, 0, 1);
    let space = world.space();
    space.call(&map_object(&parent.object, 0, 1, 0)).unwrap();
    space.call(&crate::linux::Request::Madvise { addr: page(0), len: PAGE_SIZE, advice: 102 }).unwrap();
    assert!(matches!(world.store(&space, page(0), 2), Err(Fault::Signal(_))));
    assert_eq!(world.object_frames(), 1);
    space.call(&munmap(0, 1)).unwrap();
    drop((space, parent, snapshot));
    world.check_empty();
}

#[test]
fn objects_that_store_at_once_both_have_what_they_stored() {
    const ROUNDS: u8 = 60;
    let world = World::new(256);
    let parent = world.held(anonymous(6));
    for round in 1..=ROUNDS {
        world.fill(&parent, &[round; 6]);
        let all = [world.snapshot(&parent, 0, 6), world.snapshot(&parent, 0, 6), world.snapshot(&parent, 0, 6)];
        std::thread::scope(|scope| {
            for (byte, held) in (100..).zip(&all) {
                let world = &world;
                scope.spawn(move || {
                    for index in 0..5 {
                        world.pager.write(&held.object, index * PAGE_SIZE + 1, &[byte]).unwrap();
                    }
                });
            }
            scope.spawn(|| world.fill(&parent, &[200; 3]));
        });
        for (byte, held) in (100..).zip(&all) {
            assert_eq!(world.bytes(held), [round; 6], "what was there");
            let mut there = [0];
            (0..5).for_each(|index| {
                world.pager.read(&held.object, index * PAGE_SIZE + 1, &mut there).unwrap();
                assert_eq!(there, [byte]);
            });
        }
        assert_eq!(world.bytes(&parent), [200, 200, 200, round, round, round]);
        world.check_held(&[&parent, &all[0], &all[1], &all[2]], &[]);
    }
    drop(parent);
    world.check_empty();
}

#[test]
fn snapshots_that_are_taken_while_guests_store_do_not_change() {
    const SNAPSHOTS: usize = 20;
    let world = World::new(256);
    let parent = world.held(anonymous(4));
    let spaces = [world.space(), world.space()];
    for space in &spaces {
        space.call(&parent.map(0, 4, 0)).unwrap();
    }
    let (stores, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut taken: Vec<(Held, Vec<u8>)> = Vec::new();
    let mut changed = 0;
    std::thread::scope(|scope| {
        for (processor, space) in spaces.iter().enumerate() {
            let (world, stores, is_over) = (&world, &stores, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let round = stores.fetch_add(1, Ordering::Relaxed);
                    world.store_on(processor, space, round % 4, round.to_le_bytes()[0]).unwrap();
                }
            });
        }
        for round in 0..SNAPSHOTS {
            let snapshot = world.snapshot(&parent, 0, 4);
            let bytes = world.bytes(&snapshot);
            taken.push((snapshot, bytes));
            let before = stores.load(Ordering::Relaxed);
            while stores.load(Ordering::Relaxed) < before + 16 {
                std::thread::yield_now();
            }
            if round % 3 == 2 {
                taken.swap_remove(round % taken.len());
            }
            changed += taken.iter().filter(|(snapshot, bytes)| world.bytes(snapshot) != *bytes).count();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(changed, 0);
    let all: Vec<_> = taken.iter().map(|(held, _)| held).chain([&parent]).collect();
    world.check_held(&all, &[&spaces[0], &spaces[1]]);
    (0..2).for_each(|processor| world.machine.deactivate(processor));
    drop((spaces, parent, taken));
    world.check_empty();
}
