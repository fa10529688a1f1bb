//! Threads on the pager in many orders: faults, calls, forks and frames at once, under a scheduler that draws lots.
//!
//! `cargo xtask interleavings` runs this with `--cfg shuttle`. What the loom tests try in every order is smaller.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "many_orders/capabilities.rs"]
mod capabilities;
#[path = "support/events.rs"]
mod events;
#[path = "many_orders/reservations.rs"]
mod reservations;
#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use pagewarden::frame::FrameUse;
use pagewarden::linux::{FileTraits, MapFlags, MapSource, OpenFile, Request};
use pagewarden::machine::MachineConfig;
use pagewarden::manager::Access;
use pagewarden::object::{FileId, ObjectSource};
use pagewarden::pager::Fault;
use pagewarden::{Limits, ObjectKind, PAGE_SIZE, PageRange, VirtAddr};
use shuttle::thread;

use world::{Space, World, map, page, private};

/// Orders that each case is run in.
const ORDERS: usize = 400;

fn new_world(frames: u64) -> Arc<World> {
    Arc::new(World::new(MachineConfig { frames, ..MachineConfig::default() }))
}

impl World {
    /// Stores a byte on `processor`, with faults handled.
    fn store(&self, processor: usize, space: &Space, address: u64, byte: u8) -> Result<(), Fault> {
        self.machine.activate(processor, space.root());
        loop {
            match self.machine.store(processor, VirtAddr::new(address), &[byte]) {
                Ok(()) => return Ok(()),
                Err(fault) => space.fault(fault.address, Access::Write)?,
            }
        }
    }

    fn load(&self, processor: usize, space: &Space, address: u64) -> Result<u8, Fault> {
        self.machine.activate(processor, space.root());
        let mut byte = [0];
        loop {
            match self.machine.load(processor, VirtAddr::new(address), &mut byte) {
                Ok(()) => return Ok(byte[0]),
                Err(fault) => space.fault(fault.address, Access::Read)?,
            }
        }
    }
}

/// Stores a byte on `processor`; a fault takes the first four pages with it.
fn store_around(world: &World, processor: usize, space: &Space, address: u64, byte: u8) {
    world.machine.activate(processor, space.root());
    let window = PageRange::from_len(VirtAddr::new(page(0)), 4 * PAGE_SIZE).unwrap();
    while let Err(fault) = world.machine.store(processor, VirtAddr::new(address), &[byte]) {
        if space.fault_around(fault.address, Access::Write, window).is_err() {
            // Somebody has unmapped it.
            return;
        }
    }
}

fn munmap(first: u64, pages: u64) -> Request {
    Request::Munmap { addr: page(first), len: pages * PAGE_SIZE }
}

/// Runs `one` beside `other` in a fresh world with a space, in many orders; at the end nothing is left.
fn beside(prepare: fn(&World, &Space), one: fn(&World, &Space), other: fn(&World, &Space), after: fn(&World, &Space)) {
    shuttle::check_random(
        move || {
            let world = new_world(64);
            let space = Arc::new(world.space());
            space.call(&private(0, 4)).unwrap();
            prepare(&world, &space);
            let (their_world, their_space) = (world.clone(), space.clone());
            let thread = thread::spawn(move || other(&their_world, &their_space));
            one(&world, &space);
            thread.join().unwrap();
            space.check_invariants();
            after(&world, &space);
            drop(space);
            world.check_empty();
        },
        ORDERS,
    );
}

fn nothing(_: &World, _: &Space) {}

#[test]
fn two_faults_on_one_page_take_one_frame() {
    beside(
        nothing,
        |world, space| world.store(0, space, page(0), 1).unwrap(),
        |world, space| world.store(1, space, page(0) + 1, 2).unwrap(),
        |world, space| {
            let both = [0, 1].map(|offset| world.load(0, space, page(0) + offset).unwrap());
            assert_eq!(both, [1, 2], "a store is lost");
            // The root, three tables and the page.
            assert_eq!(world.free - world.pager.frames().available(), 5);
        },
    );
}

#[test]
fn a_copy_is_made_once() {
    beside(
        |world, space| {
            world.store(0, space, page(0), 9).unwrap();
            assert_eq!(world.load(0, space, page(1)), Ok(0));
        },
        |world, space| {
            let child = world.fork(space);
            world.store(0, &child, page(0), 1).unwrap();
            assert_eq!(world.load(0, &child, page(0)), Ok(1));
        },
        |world, space| {
            world.store(1, space, page(1), 2).unwrap();
            world.store(1, space, page(0), 3).unwrap();
        },
        |world, space| {
            assert_eq!([0, 1].map(|number| world.load(0, space, page(number)).unwrap()), [3, 2]);
        },
    );
}

#[test]
fn a_fault_beside_an_unmap() {
    beside(
        |world, space| world.store(0, space, page(0), 9).unwrap(),
        |world, space| {
            for number in 0..2 {
                // The page may be gone, and be new.
                let _ = world.store(0, space, page(number), 1);
            }
        },
        |_, space| {
            space.call(&munmap(0, 2)).unwrap();
            space.call(&private(0, 2)).unwrap();
        },
        |world, space| {
            for number in 0..2 {
                assert!(world.load(0, space, page(number)).unwrap() <= 1, "what was unmapped is back");
            }
        },
    );
}

#[test]
fn a_fork_beside_stores() {
    beside(
        |world, space| world.store(0, space, page(0), 1).unwrap(),
        |world, space| {
            let child = world.fork(space);
            let seen = [0, 1].map(|number| world.load(0, &child, page(number)).unwrap());
            assert!([[1, 0], [2, 0], [2, 3]].contains(&seen), "{seen:?} was never there");
            drop(child);
        },
        |world, space| {
            world.store(1, space, page(0), 2).unwrap();
            world.store(1, space, page(1), 3).unwrap();
        },
        |world, space| assert_eq!([0, 1].map(|number| world.load(0, space, page(number)).unwrap()), [2, 3]),
    );
}

#[test]
fn parent_and_child_store_at_once() {
    shuttle::check_random(
        || {
            let world = new_world(64);
            let parent = world.space();
            parent.call(&private(0, 2)).unwrap();
            world.store(0, &parent, page(0), 1).unwrap();
            let child = Arc::new(world.fork(&parent));
            let (their_world, theirs) = (world.clone(), child.clone());
            let thread = thread::spawn(move || their_world.store(1, &theirs, page(0), 2).unwrap());
            world.store(0, &parent, page(0) + 1, 3).unwrap();
            thread.join().unwrap();
            let shown = |space: &Space| [0, 1].map(|offset| world.load(0, space, page(0) + offset).unwrap());
            assert_eq!((shown(&parent), shown(&child)), ([1, 3], [2, 0]));
            drop((parent, child));
            world.check_empty();
        },
        ORDERS,
    );
}

#[test]
fn windows_of_two_threads_over_the_same_pages() {
    shuttle::check_random(
        || {
            let world = new_world(128);
            let parent = world.space();
            parent.call(&private(0, 4)).unwrap();
            world.store(0, &parent, page(0), 1).unwrap();
            assert_eq!(world.load(0, &parent, page(1)), Ok(0));
            let child = Arc::new(world.fork(&parent));
            let (their_world, theirs) = (world.clone(), child.clone());
            let thread = thread::spawn(move || {
                store_around(&their_world, 1, &theirs, page(2), 2);
                store_around(&their_world, 1, &theirs, page(0) + 1, 3);
            });
            store_around(&world, 0, &child, page(1), 4);
            store_around(&world, 0, &child, page(0) + 2, 5);
            thread.join().unwrap();
            let at = [page(0), page(0) + 1, page(0) + 2, page(1), page(2), page(3)];
            assert_eq!(at.map(|address| world.load(0, &child, address).unwrap()), [1, 3, 5, 4, 2, 0]);
            assert_eq!(at.map(|address| world.load(0, &parent, address).unwrap()), [1, 0, 0, 0, 0, 0]);
            // A root and three tables each, a page of the parent's and four of the child's.
            assert_eq!(world.free - world.pager.frames().available(), 13, "frames");
            child.check_invariants();
            drop((parent, child));
            world.check_empty();
        },
        ORDERS,
    );
}

#[test]
fn windows_of_parent_and_child() {
    shuttle::check_random(
        || {
            let world = new_world(128);
            let parent = world.space();
            parent.call(&private(0, 4)).unwrap();
            (0..3).for_each(|number| world.store(0, &parent, page(number), 1).unwrap());
            let child = Arc::new(world.fork(&parent));
            let (their_world, theirs) = (world.clone(), child.clone());
            let thread = thread::spawn(move || store_around(&their_world, 1, &theirs, page(0), 2));
            store_around(&world, 0, &parent, page(1), 3);
            thread.join().unwrap();
            let shown = |space: &Space| [0, 1, 2, 3].map(|number| world.load(0, space, page(number)).unwrap());
            assert_eq!((shown(&parent), shown(&child)), ([1, 3, 1, 0], [2, 1, 1, 0]));
            [&parent, &child].iter().for_each(|space| space.check_invariants());
            drop((parent, child));
            world.check_empty();
        },
        ORDERS,
    );
}

#[test]
fn a_window_beside_an_unmap() {
    beside(
        |world, space| {
            world.store(0, space, page(0), 9).unwrap();
            assert_eq!(world.load(0, space, page(2)), Ok(0));
        },
        |world, space| store_around(world, 0, space, page(3), 1),
        |_, space| {
            space.call(&munmap(0, 2)).unwrap();
            space.call(&private(0, 2)).unwrap();
        },
        |world, space| {
            let shown = [0, 1, 2, 3].map(|number| world.load(0, space, page(number)).unwrap());
            assert_eq!(shown, [0, 0, 0, 1], "what was unmapped is back");
        },
    );
}

#[test]
fn a_copy_to_a_guest_beside_an_unmap() {
    beside(
        nothing,
        |_, space| {
            let _ = space.copy_to_user(VirtAddr::new(page(0)), &[5; 2 * 4096]);
        },
        |_, space| {
            space.call(&munmap(0, 4)).unwrap();
        },
        |world, space| assert!(world.load(0, space, page(0)).is_err()),
    );
}

#[test]
fn a_file_shrinks_beside_faults() {
    shuttle::check_random(
        || {
            let world = new_world(64);
            let source = ObjectSource::Anonymous { bytes: 2 * PAGE_SIZE };
            let kind = ObjectKind::Memfd(FileId { device: 1, inode: 1 });
            let object = world.pager.new_object(kind, "/memfd:a", source).unwrap();
            let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
            let file = OpenFile { object: object.clone(), traits };
            let space = world.space();
            space.call(&map(0, 2, MapFlags::SHARED, MapSource::File(file.clone()))).unwrap();
            space.call(&map(4, 2, MapFlags::PRIVATE, MapSource::File(file))).unwrap();
            let (their_world, theirs) = (world.clone(), object.clone());
            let thread = thread::spawn(move || their_world.pager.resize(&theirs, PAGE_SIZE).unwrap());
            for number in [1, 5] {
                let _ = world.store(0, &space, page(number), 1);
            }
            thread.join().unwrap();
            for number in [1, 5] {
                assert!(world.load(0, &space, page(number)).is_err(), "page {number} is beyond the end");
            }
            space.check_invariants();
            drop((space, object));
            world.check_empty();
        },
        ORDERS,
    );
}

#[test]
fn frames_run_out_beside_a_fault() {
    beside(
        |world, space| {
            world.store(0, space, page(0), 1).unwrap();
            space.call(&Request::Madvise { addr: page(0), len: PAGE_SIZE, advice: 8 }).unwrap();
        },
        |world, _| {
            world.pager.reclaim(u64::MAX);
        },
        |world, space| {
            world.store(1, space, page(0), 2).unwrap();
            assert_eq!(world.load(1, space, page(0)), Ok(2), "what was stored since is dropped");
        },
        nothing,
    );
}

#[test]
fn frames_are_given_out_once() {
    shuttle::check_random(
        || {
            let world = new_world(16);
            let work = |world: &World, processor: usize| {
                let frames = world.pager.frames();
                let owner = frames.add_owner(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
                let mut held = Vec::new();
                for _ in 0..6 {
                    held.extend(frames.allocate(processor, &owner, FrameUse::Anonymous));
                }
                for frame in held {
                    // Whoever else had it would have changed the word.
                    assert_eq!(frames.word(frame).fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    frames.release(processor, frame).unwrap();
                }
            };
            let theirs = world.clone();
            let thread = thread::spawn(move || work(&theirs, 1));
            work(&world, 0);
            thread.join().unwrap();
            world.check_empty();
        },
        ORDERS,
    );
}
