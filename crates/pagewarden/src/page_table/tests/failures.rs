//! Every request to the owner made to fail in its turn: all or nothing, and nothing leaks.

use std::boxed::Box;

use super::spaces::Spaces;
use super::*;
use crate::page_table::{Move, Share};

type Step = Box<dyn Fn(&mut Spaces<'_>) -> Result<(), Errno>>;

/// A parent with small and large leaves, and a child that shares tables with it, some of them copied since.
fn family(world: &World) -> Spaces<'_> {
    let mut spaces = Spaces::new(world);
    spaces.map_run(0, pages(500, 30), RW).unwrap();
    spaces.map_run(0, pages(1024, 512), RW | EntryFlags::HUGE).unwrap();
    spaces.map_run(0, pages(1536, 20), RW).unwrap();
    spaces.map(0, 1 << 20, RW).unwrap();
    spaces.fork(0, &mut |_| Share::All).unwrap();
    spaces.fault(1, 501).unwrap();
    spaces
}

/// How many requests the step makes at most, having failed at each of them.
fn fail_at_each(step: &Step) -> u64 {
    for requests in 0..2000 {
        let world = World::new();
        let mut spaces = family(&world);
        for space in &spaces.all {
            world.touch_all(space.root.frame(), &mut || (true, true));
        }
        let tables: Vec<_> = spaces.all.iter().map(|space| world.tables().check_invariants(&space.root)).collect();
        world.fail_after(i64::try_from(requests).unwrap());
        let result = step(&mut spaces);
        world.fail_after(i64::MAX);
        spaces.check();
        spaces.check_references();
        if result.is_err() {
            assert_eq!(result, Err(Errno::NoMem));
            assert_eq!(spaces.all.len(), 2);
            for (space, before) in spaces.all.iter().zip(tables) {
                let census = world.tables().check_invariants(&space.root);
                assert_eq!(census.empty_tables, before.empty_tables, "a table was left behind");
            }
        }
        spaces.finish();
        if result.is_ok() {
            return requests;
        }
    }
    panic!("it never comes to an end");
}

#[test]
fn each_request_that_fails_leaves_everything_as_it_was() {
    // Each with how much it asks for: tables, and references to what is in tables that are copied.
    let steps: [(&str, u64, Step); 11] = [
        ("map", 3, Box::new(|spaces| spaces.map(1, 1 << 30, RW))),
        ("map in a shared table", 21, Box::new(|spaces| spaces.map(0, 1560, RW))),
        ("map run", 7, Box::new(|spaces| spaces.map_run(0, pages((1 << 31) - 5, 600), RW))),
        ("map large run", 4, Box::new(|spaces| spaces.map_run(1, pages(4090, 1100), RW | EntryFlags::HUGE))),
        ("unmap", 1, Box::new(|spaces| spaces.unmap(0, 1100))),
        ("protect", 40, Box::new(|spaces| spaces.protect(0, pages(510, 1200), RO))),
        ("edit", 40, Box::new(|spaces| spaces.edit(1, pages(0, 1540), &mut |_| 1))),
        ("clear", 20, Box::new(|spaces| spaces.clear(0, pages(515, 1000)))),
        ("move", 26, {
            let which = Move { from: pages(505, 1040), to: pages((1 << 27) - 512 - 7, 1040) };
            Box::new(move |spaces| spaces.relocate(1, which, EntryFlags::empty()))
        }),
        ("fault", 3, Box::new(|spaces| spaces.fault(1, 1 << 33))),
        ("fork", 104, Box::new(|spaces| spaces.fork(0, &mut |_| Share::Inside))),
    ];
    for (name, requests, step) in steps {
        assert_eq!(fail_at_each(&step), requests, "requests of {name}");
    }
}
