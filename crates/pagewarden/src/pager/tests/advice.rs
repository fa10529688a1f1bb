//! Advice, and what becomes of locked pages that are moved or protected.

use super::{READ, RW, World, map_anonymous, map_file, mprotect, munmap, page, private};
use crate::addr::PAGE_SIZE;
use crate::error::Errno;
use crate::ledger::Limits;
use crate::linux::{Advice, MapFlags, MremapRequest, RemapFlags, Request};
use crate::manager::Refusal;

fn advise(first: u64, pages: u64, advice: Advice) -> Request {
    Request::Madvise { addr: page(first), len: pages * PAGE_SIZE, advice: advice.raw() }
}

fn errno(outcome: Result<u64, Refusal>) -> Errno {
    outcome.unwrap_err().errno
}

/// There is nowhere to page out to, but for pages that nobody promised to keep and nobody else shows.
#[test]
fn what_may_be_dropped_is_paged_out() {
    let world = World::new(256);
    let space = world.space();
    space.call(&map_anonymous(0, 2, RW, MapFlags::DROPPABLE)).unwrap();
    space.call(&private(4, 3, RW)).unwrap();
    [0, 4, 5, 6].into_iter().for_each(|at| world.store(&space, page(at), 7).unwrap());
    space.call(&advise(5, 2, Advice::Free)).unwrap();
    world.store(&space, page(6), 8).unwrap();
    let child = space.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    let shown = |space: &_| [0, 4, 5, 6].map(|at| world.load(space, page(at)).unwrap());
    assert_eq!(errno(space.call(&advise(0, 8, Advice::PageOut))), Errno::NoMem, "behind page 2 there is nothing");
    assert_eq!(shown(&space), [0, 7, 7, 8], "the child shows the others too");
    drop(child);
    let before = world.pager.frames().available();
    space.call(&advise(4, 3, Advice::PageOut)).unwrap();
    assert_eq!(world.pager.frames().available(), before + 1);
    assert_eq!(shown(&space), [0, 7, 0, 8]);
    space.check_invariants();
    drop(space);
    world.check_empty();
}

/// When frames run out, what may be dropped goes, whatever was stored there.
#[test]
fn droppable_memory_is_given_back() {
    let world = World::new(64);
    let space = world.space();
    space.call(&map_anonymous(0, 4, RW, MapFlags::DROPPABLE)).unwrap();
    space.call(&private(8, 64, RW)).unwrap();
    [0, 1, 2].into_iter().for_each(|at| world.store(&space, page(at), 7).unwrap());
    space.call(&mprotect(2, 1, READ)).unwrap();
    let before = world.pager.frames().available();
    let stored = (8..72).take_while(|at| world.store(&space, page(*at), 1).is_ok()).count();
    assert_eq!(stored as u64, before + 3);
    space.call(&munmap(8, 64)).unwrap();
    assert_eq!([0, 1, 2, 3].map(|at| world.load(&space, page(at)).unwrap()), [0; 4]);
    space.check_invariants();
    drop(space);
    world.check_empty();
}

#[test]
fn no_hole_is_made_in_what_is_sealed() {
    let world = World::new(64);
    let (space, file) = (world.space(), world.memfd(2));
    space.call(&map_file(0, 2, RW, MapFlags::SHARED, &file)).unwrap();
    world.store(&space, page(0), 1).unwrap();
    world.pager.seal_writes(&file.object).unwrap();
    assert_eq!(errno(space.call(&advise(0, 3, Advice::Remove))), Errno::Perm, "before the hole behind it");
    assert_eq!(world.pager.punch(&file.object, 0, PAGE_SIZE), Err(Errno::Perm));
    assert_eq!(world.load(&space, page(0)), Ok(1));
    drop((space, file));
    world.check_empty();
}

/// An mlock that meets a hole marks pages and makes none resident; nor does a move of them, but for what it adds.
#[test]
fn a_move_makes_resident_what_it_adds() {
    let world = World::new(64);
    let space = world.space();
    space.call(&private(0, 2, READ)).unwrap();
    let lock = Request::Mlock { addr: page(0), len: 3 * PAGE_SIZE, flags: 0 };
    assert_eq!(errno(space.call(&lock)), Errno::NoMem);
    let grow = |from, to, pages| {
        let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
        let (addr, new_addr) = (page(from), page(to));
        Request::Mremap(MremapRequest { addr, old_len: 2 * PAGE_SIZE, new_len: pages * PAGE_SIZE, flags, new_addr })
    };
    space.call(&private(40, 1, RW)).unwrap();
    let is_resident = |at| {
        space.call(&Request::Mincore { addr: page(at), len: PAGE_SIZE, vector: page(40) }).unwrap();
        world.load(&space, page(40)) == Ok(1)
    };
    space.call(&grow(0, 8, 2)).unwrap();
    assert_eq!([8, 9].map(is_resident), [false; 2]);
    space.call(&grow(8, 16, 4)).unwrap();
    assert_eq!([16, 17, 18, 19].map(is_resident), [false, false, true, true]);
    space.check_invariants();
    drop(space);
    world.check_empty();
}

/// Locked private pages that become writable are made so at once, but for those that are locked as they are touched.
#[test]
fn what_is_locked_on_fault_is_not_made_resident_by_mprotect() {
    let world = World::new(64);
    let space = world.space();
    space.call(&private(0, 2, 0)).unwrap();
    for (at, flags) in [(0, 0), (1, 1)] {
        let _ = space.call(&Request::Mlock { addr: page(at), len: PAGE_SIZE, flags });
    }
    let before = world.pager.frames().available();
    space.call(&mprotect(1, 1, RW)).unwrap();
    assert_eq!(world.pager.frames().available(), before);
    space.call(&mprotect(0, 1, RW)).unwrap();
    assert!(world.pager.frames().available() < before);
    drop(space);
    world.check_empty();
}

/// Memory that may be dropped is never locked, but made resident by every call that would lock it.
#[test]
fn droppable_memory_becomes_resident_with_what_is_locked() {
    let world = World::new(64);
    let space = world.space();
    space.call(&map_anonymous(0, 2, RW, MapFlags::DROPPABLE)).unwrap();
    space.call(&private(2, 2, RW)).unwrap();
    let frames = || world.pager.frames().available();
    let taken = |request: &Request| {
        let before = frames();
        space.call(request).unwrap();
        before - frames()
    };
    assert_eq!(taken(&Request::Munlockall), 0);
    assert_eq!(taken(&Request::Mlock { addr: page(1), len: 2 * PAGE_SIZE, flags: 1 }), 3 + 1, "tables and page 1");
    assert_eq!(taken(&Request::Mlockall { flags: 5 }), 1, "page 0");
    assert_eq!(taken(&Request::Mlockall { flags: 1 }), 2, "the others");
    space.check_invariants();
    drop(space);
    world.check_empty();
}
