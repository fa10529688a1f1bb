//! Windows around a store: who gets a frame, which frames, how many flushes, and who stays as it was.

use alloc::vec::Vec;

use super::{READ, RW, World, map_anonymous, map_file, mprotect, page, private};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::ledger::{Limits, Resource};
use crate::linux::{MapFlags, Request};
use crate::machine::Machine;
use crate::manager::{Access, SpaceConfig};
use crate::page_table::Entry;
use crate::pager::leaf::{is_droppable, is_guard};
use crate::pager::{AddressSpace, Fault};

type Space = AddressSpace<Machine>;

/// Pages of a window.
const PAGES: u64 = 16;
const DISCARD: i32 = 4;
const FREE: i32 = 8;
const GUARD: i32 = 102;

fn window(first: u64, pages: u64) -> PageRange {
    PageRange::from_len(VirtAddr::new(page(first)), pages * PAGE_SIZE).unwrap()
}

/// A store that the processor could not do, with a window around it.
fn fault(space: &Space, number: u64, window: PageRange) -> Result<(), Fault> {
    space.fault_around(VirtAddr::new(page(number)), Access::Write, window)
}

fn advise(space: &Space, first: u64, pages: u64, advice: i32) {
    space.call(&Request::Madvise { addr: page(first), len: pages * PAGE_SIZE, advice }).unwrap();
}

fn entry(space: &Space, number: u64) -> Entry {
    let tables = space.tables();
    tables.with_root(|root| tables.entry(root, VirtAddr::new(page(number)))).unwrap()
}

fn fork(world: &World, space: &Space) -> Space {
    space.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap()
}

/// Which of `pages` can be stored to at once.
fn ready_of(space: &Space, pages: core::ops::Range<u64>) -> Vec<u64> {
    let tables = space.tables();
    let is_ready = |number: &u64| tables.with_root(|root| tables.tables().query(root, VirtAddr::new(page(*number))));
    pages.filter(|number| is_ready(number).unwrap().allows_store()).collect()
}

fn ready(space: &Space) -> Vec<u64> {
    ready_of(space, 0..PAGES)
}

fn all() -> Vec<u64> {
    (0..PAGES).collect()
}

/// Checks what the window shows, that nothing old is remembered, and that nothing is left when all is over.
fn check_and_end(world: &World, spaces: Vec<Space>, shown: impl Fn(usize, u64) -> u8) {
    check_contents(world, &spaces, shown);
    drop(spaces);
    world.check_empty();
}

fn check_contents(world: &World, spaces: &[Space], shown: impl Fn(usize, u64) -> u8) {
    for (index, space) in spaces.iter().enumerate() {
        for number in 0..PAGES {
            assert_eq!(world.load(space, page(number)), Ok(shown(index, number)), "page {number} of space {index}");
        }
        space.check_invariants();
    }
    check_memory(world, spaces);
}

fn check_memory(world: &World, spaces: &[Space]) {
    let tables: Vec<_> = spaces.iter().map(|space| space.tables()).collect();
    assert_eq!(world.stale(&tables.iter().map(|tables| &**tables).collect::<Vec<_>>()), None);
    world.pager.frames().check_invariants();
}

#[test]
fn one_store_gives_all_pages_of_the_window_frames_that_follow_each_other() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, PAGES, RW)).unwrap();
    let before = world.pager.frames().available();
    fault(&space, 5, window(0, PAGES)).unwrap();
    assert_eq!(before - world.pager.frames().available(), 3 + PAGES, "tables and pages");
    assert_eq!(ready(&space), all());
    let first = entry(&space, 0).frame().get();
    let frames: Vec<_> = (0..PAGES).map(|number| entry(&space, number).frame().get()).collect();
    assert_eq!(frames, (first..first + PAGES).collect::<Vec<_>>());
    assert_eq!(world.machine.statistics().flushes, 0, "nobody knew of these pages");
    check_and_end(&world, Vec::from([space]), |_, _| 0);
}

#[test]
fn what_a_child_stores_to_is_copied_with_its_neighbours_and_one_flush() {
    let world = World::new(256);
    let parent = world.space();
    parent.call(&private(0, PAGES, RW)).unwrap();
    for number in 0..PAGES {
        world.store(&parent, page(number), 1 + number.to_le_bytes()[0]).unwrap();
    }
    let child = fork(&world, &parent);
    // Makes the table the child's own, and the processor remember all pages.
    world.store(&child, page(3), 77).unwrap();
    for number in 0..PAGES {
        world.load(&child, page(number)).unwrap();
    }
    let before = world.machine.statistics();
    fault(&child, 9, window(0, PAGES)).unwrap();
    let after = world.machine.statistics();
    assert_eq!((after.flushes - before.flushes, after.full_flushes - before.full_flushes), (1, 0));
    assert_eq!(ready(&child), all());
    check_memory(&world, &[]);
    for number in 0..PAGES {
        world.store(&child, page(number) + 1, 200).unwrap();
    }
    // The parent has its frames to itself: nothing is copied.
    let free = world.pager.frames().available();
    world.store(&parent, page(0) + 1, 100).unwrap();
    fault(&parent, 8, window(0, PAGES)).unwrap();
    assert_eq!((world.pager.frames().available(), ready(&parent)), (free, all()));
    assert_eq!(world.load(&parent, page(0) + 1), Ok(100));
    check_and_end(&world, Vec::from([parent, child]), |space, number| match (space, number) {
        (1, 3) => 77,
        _ => 1 + number.to_le_bytes()[0],
    });
}

#[test]
fn the_flush_of_a_window_is_needed() {
    for is_left_out in [false, true] {
        let world = World::new(256);
        let space = world.space();
        space.call(&private(0, PAGES, RW)).unwrap();
        for processor in 0..2 {
            world.run(processor, space.root());
            for number in 0..PAGES {
                let address = VirtAddr::new(page(number));
                while world.machine.load(processor, address, &mut [0]).is_err() {
                    space.fault(address, Access::Read).unwrap();
                }
            }
        }
        if is_left_out {
            world.machine.flush_point().fail_once(0);
        }
        fault(&space, 7, window(0, PAGES)).unwrap();
        assert_eq!(world.machine.flush_point().disarm(), u64::from(is_left_out));
        let tables = space.tables();
        assert_eq!(world.stale(&[&*tables]).is_some(), is_left_out);
    }
}

#[test]
fn only_near_private_pages_of_the_same_region_take_part() {
    let world = World::new(512);
    let file = world.memfd(PAGES);
    let space = world.space();
    space.call(&private(0, 4, RW)).unwrap();
    space.call(&private(4, 4, READ)).unwrap();
    space.call(&map_anonymous(8, 4, RW, MapFlags::SHARED)).unwrap();
    space.call(&map_file(12, 4, RW, MapFlags::PRIVATE, &file)).unwrap();
    for (touched, expected) in [(1, 0..4), (9, 9..10), (13, 13..14)] {
        let before = ready(&space);
        fault(&space, touched, window(0, PAGES)).unwrap();
        let new: Vec<u64> = ready(&space).into_iter().filter(|number| !before.contains(number)).collect();
        assert_eq!(new, expected.collect::<Vec<_>>(), "of a store to page {touched}");
    }
    assert!(fault(&space, 4, window(0, PAGES)).is_err(), "no right to store");
    // Far pages of a large region, and a window that the store is not in.
    space.call(&private(64, 512, RW)).unwrap();
    fault(&space, 300, window(0, 1 << 20)).unwrap();
    assert_eq!(ready_of(&space, 64..576), (256..320).collect::<Vec<_>>());
    fault(&space, 70, window(80, 2)).unwrap();
    assert_eq!(ready_of(&space, 64..128), [70, 80, 81]);
    drop((space, file));
    world.check_empty();
}

#[test]
fn a_load_makes_nothing_writable() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, PAGES, RW)).unwrap();
    space.fault_around(VirtAddr::new(page(3)), Access::Read, window(0, PAGES)).unwrap();
    assert_eq!(ready(&space), []);
    assert!(entry(&space, 4).is_empty());
    check_and_end(&world, Vec::from([space]), |_, _| 0);
}

#[test]
fn guards_and_pages_that_may_be_dropped_stay() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, PAGES, RW)).unwrap();
    for number in 2..6 {
        world.store(&space, page(number), 9).unwrap();
    }
    advise(&space, 2, 1, GUARD);
    advise(&space, 3, 2, FREE);
    // After a fork whose child has gone they are the space's own, and a store faults.
    let child = fork(&world, &space);
    world.store(&space, page(10), 1).unwrap();
    drop(child);
    let refused = fault(&space, 2, window(0, PAGES)).unwrap_err();
    assert!(matches!(refused, Fault::Signal(signal) if signal.address == VirtAddr::new(page(2))));
    assert_eq!(ready(&space), [10], "a store that is refused does nothing");
    let own = entry(&space, 5).frame();
    fault(&space, 8, window(0, PAGES)).unwrap();
    assert_eq!(entry(&space, 5).frame(), own, "what is the space's own is not copied");
    assert!(is_guard(entry(&space, 2)) && is_droppable(entry(&space, 3)) && is_droppable(entry(&space, 4)));
    let stored: Vec<u64> = all().into_iter().filter(|number| ![2, 3, 4].contains(number)).collect();
    assert_eq!(ready(&space), stored);
    // The page of the store itself is kept from now on.
    fault(&space, 3, window(0, PAGES)).unwrap();
    assert!(!is_droppable(entry(&space, 3)) && is_droppable(entry(&space, 4)));
    assert_eq!([3, 5].map(|number| world.load(&space, page(number)).unwrap()), [9, 9]);

    let droppable = map_anonymous(32, 4, RW, MapFlags::from_bits_retain(MapFlags::DROPPABLE.bits()));
    space.call(&droppable).unwrap();
    fault(&space, 33, window(32, 4)).unwrap();
    assert!(entry(&space, 32).is_empty() && is_droppable(entry(&space, 33)));
    drop(space);
    world.check_empty();
}

#[test]
fn a_private_map_goes_on_showing_its_file() {
    let world = World::new(256);
    let file = world.memfd(PAGES);
    let space = world.space();
    space.call(&map_file(0, PAGES, RW, MapFlags::PRIVATE, &file)).unwrap();
    for number in 0..4 {
        world.load(&space, page(number)).unwrap();
    }
    world.store(&space, page(8), 8).unwrap();
    let child = fork(&world, &space);
    for number in 0..4 {
        world.load(&child, page(number)).unwrap();
    }
    fault(&child, 2, window(0, PAGES)).unwrap();
    assert_eq!(ready(&child), [2, 8], "a page that was copied is nobody else's business");
    world.pager.write(&file.object, 0, &[5; 16 * 4096]).unwrap();
    let spaces = [space, child];
    check_contents(&world, &spaces, |space, number| match (space, number) {
        (_, 8) => 8,
        (1, 2) => 0,
        _ => 5,
    });
    drop((spaces, file));
    world.check_empty();
}

#[test]
fn pages_without_rights_keep_what_they_hold_and_come_back() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, PAGES, RW)).unwrap();
    fault(&space, 0, window(0, 8)).unwrap();
    world.store(&space, page(4), 4).unwrap();
    space.call(&mprotect(4, 2, 0)).unwrap();
    fault(&space, 8, window(0, PAGES)).unwrap();
    assert!(!entry(&space, 4).is_present() && !entry(&space, 4).is_empty());
    space.call(&mprotect(4, 2, RW)).unwrap();
    fault(&space, 5, window(0, PAGES)).unwrap();
    assert_eq!(ready(&space), all());
    advise(&space, 0, 4, DISCARD);
    fault(&space, 1, window(0, PAGES)).unwrap();
    check_and_end(&world, Vec::from([space]), |_, number| if number == 4 { 4 } else { 0 });
}

#[test]
fn a_limit_lets_the_page_through_and_not_its_neighbours() {
    for left in 0..PAGES + 4 {
        let world = World::new(256);
        let account = world.ledger.root().child(Limits::UNLIMITED);
        let config = SpaceConfig { account: account.clone(), ..world.config() };
        let space = AddressSpace::new(&world.pager, config).unwrap();
        space.call(&private(0, PAGES, RW)).unwrap();
        account.set_limit(Resource::Frames, left);
        let outcome = fault(&space, 6, window(0, PAGES));
        let expected: Vec<u64> = match left {
            0 => Vec::new(),
            _ if left < PAGES => Vec::from([6]),
            _ => all(),
        };
        assert_eq!((outcome.is_ok(), ready(&space)), (left > 0, expected), "{left} frames");
        assert_eq!(account.used(Resource::Frames), ready(&space).len() as u64);
        space.check_invariants();
        drop(space);
        world.check_empty();
    }
}

#[test]
fn the_last_frames_are_not_for_windows() {
    for frames in 7..40 {
        let world = World::new(frames);
        let space = world.space();
        space.call(&private(0, PAGES, RW)).unwrap();
        let outcome = fault(&space, 6, window(0, PAGES));
        let left = world.pager.frames().available();
        assert!(outcome.is_ok(), "{frames} frames are enough for one page");
        assert!(ready(&space) == [6] || ready(&space) == all() && left >= 8, "{left} of {frames} frames left");
        space.check_invariants();
        drop(space);
        world.check_empty();
    }
}

#[test]
fn no_frame_that_fails_leaves_a_trace() {
    for operation in 0.. {
        let world = World::new(256);
        let parent = world.space();
        parent.call(&private(0, PAGES, RW)).unwrap();
        (0..4).for_each(|number| world.store(&parent, page(number), 1).unwrap());
        let child = fork(&world, &parent);
        world.frame_taken.fail_once(operation);
        let outcome = fault(&child, 2, window(0, PAGES));
        if world.frame_taken.disarm() == 0 {
            assert!(operation >= 3, "tables and a run of pages");
            assert_eq!((outcome, ready(&child)), (Ok(()), all()));
            break;
        }
        // One frame that fails is asked for again, by the touch itself if not by the allocator.
        assert_eq!(outcome, Ok(()), "operation {operation}");
        assert!(ready(&child).contains(&2));
        check_and_end(&world, Vec::from([parent, child]), |_, number| u8::from(number < 4));
    }
}

#[test]
fn a_window_at_the_end_of_what_is_mapped_or_of_all_addresses_is_cut() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, 3, RW)).unwrap();
    let everything = PageRange::from_pages(0, PageCount::new(1 << 52)).unwrap_or(window(0, 1 << 30));
    fault(&space, 2, everything).unwrap();
    assert_eq!(ready(&space), [0, 1, 2]);
    drop(space);
    world.check_empty();
}
