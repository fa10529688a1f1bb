//! What each kind of page is, one case each.

use super::{READ, RW, World, map_anonymous, map_file, mprotect, munmap, page, private};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::ledger::Limits;
use crate::linux::MapFlags;
use crate::manager::{Signal, SignalCode};
use crate::pager::Fault;

fn code(fault: Fault) -> (Signal, SignalCode) {
    match fault {
        Fault::Signal(signal) => (signal.signal, signal.code),
        Fault::OutOfMemory => panic!("out of memory"),
    }
}

#[test]
fn private_memory_is_zero_until_it_is_stored_to() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, 4, RW)).unwrap();
    let before = world.pager.frames().available();
    assert_eq!(world.load(&space, page(0)), Ok(0));
    assert_eq!(world.load(&space, page(1)), Ok(0));
    let tables = before - world.pager.frames().available();
    assert_eq!(tables, 3, "loads take tables and no page");
    world.store(&space, page(1), 7).unwrap();
    assert_eq!((world.load(&space, page(1)), world.load(&space, page(0))), (Ok(7), Ok(0)));
    assert_eq!(before - world.pager.frames().available(), tables + 1);
    space.check_invariants();
    space.call(&mprotect(1, 1, 0)).unwrap();
    assert_eq!(code(world.load(&space, page(1)).unwrap_err()), (Signal::Segv, SignalCode::AccErr));
    space.call(&mprotect(1, 1, READ)).unwrap();
    assert_eq!(world.load(&space, page(1)), Ok(7), "pages without rights keep what they hold");
    assert_eq!(code(world.store(&space, page(1), 8).unwrap_err()), (Signal::Segv, SignalCode::AccErr));
    space.check_invariants();
    space.call(&munmap(0, 4)).unwrap();
    assert_eq!(world.pager.frames().available(), before, "empty tables go too");
    drop(space);
    world.check_empty();
}

#[test]
fn parent_and_child_show_the_same_until_one_stores() {
    let world = World::new(256);
    let parent = world.space();
    parent.call(&private(0, 8, RW)).unwrap();
    for number in 0..8 {
        world.store(&parent, page(number), 1).unwrap();
    }
    let child = parent.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    let grandchild = child.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    world.store(&child, page(2), 2).unwrap();
    world.store(&parent, page(3), 3).unwrap();
    let shown = |space: &_| [2, 3, 4].map(|number| world.load(space, page(number)).unwrap());
    assert_eq!([shown(&parent), shown(&child), shown(&grandchild)], [[1, 3, 1], [2, 1, 1], [1, 1, 1]]);
    [&parent, &child, &grandchild].iter().for_each(|space| space.check_invariants());
    drop(parent);
    world.store(&grandchild, page(2), 9).unwrap();
    assert_eq!([shown(&child), shown(&grandchild)], [[2, 1, 1], [9, 1, 1]]);
    drop(child);
    assert_eq!(shown(&grandchild), [9, 1, 1]);
    drop(grandchild);
    world.check_empty();
}

#[test]
fn shared_memory_is_shared_and_private_copies_are_not() {
    let world = World::new(256);
    let file = world.memfd(4);
    let space = world.space();
    space.call(&map_file(0, 4, RW, MapFlags::SHARED, &file)).unwrap();
    space.call(&map_file(8, 5, RW, MapFlags::PRIVATE, &file)).unwrap();
    space.call(&map_anonymous(16, 1, RW, MapFlags::SHARED)).unwrap();
    world.store(&space, page(0), 1).unwrap();
    world.store(&space, page(16), 16).unwrap();
    assert_eq!(world.load(&space, page(8)), Ok(1));
    world.store(&space, page(9), 2).unwrap();
    assert_eq!(world.load(&space, page(1)), Ok(0));
    let child = space.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    world.store(&child, page(0), 5).unwrap();
    world.store(&child, page(16), 17).unwrap();
    assert_eq!([0, 8, 9, 16].map(|at| world.load(&space, page(at)).unwrap()), [5, 5, 2, 17]);
    assert_eq!([0, 8, 9, 16].map(|at| world.load(&child, page(at)).unwrap()), [5, 5, 2, 17]);
    let bus = (Signal::Bus, SignalCode::AdrErr);
    assert_eq!(code(world.load(&space, page(12)).unwrap_err()), bus);
    world.pager.resize(&file.object, PAGE_SIZE + 1).unwrap();
    assert_eq!([2, 10].map(|at| code(world.load(&space, page(at)).unwrap_err())), [bus; 2]);
    assert_eq!([0, 8, 9].map(|at| world.load(&child, page(at)).unwrap()), [5, 5, 2]);
    space.check_invariants();
    child.check_invariants();
    drop((space, child, file));
    world.check_empty();
}

#[test]
fn copies_reach_what_guests_do() {
    let world = World::new(256);
    let space = world.space();
    space.call(&private(0, 2, RW)).unwrap();
    space.call(&private(2, 1, READ)).unwrap();
    let bytes: [u8; 5000] = core::array::from_fn(|at| at.to_le_bytes()[0]);
    let fault = space.copy_to_user(VirtAddr::new(page(1)), &bytes).unwrap_err();
    assert_eq!((fault.address.as_u64(), fault.copied), (page(2), 4096));
    let mut back = [0; 5000];
    space.copy_from_user(VirtAddr::new(page(1)), &mut back).unwrap();
    assert_eq!(back[..4096], bytes[..4096]);
    assert!(back[4096..].iter().all(|byte| *byte == 0));
    assert_eq!(world.load(&space, page(1) + 255), Ok(255));
    let word = VirtAddr::new(page(0) + 8);
    assert_eq!(space.compare_exchange_user(word, 0, 77), Ok(Ok(())));
    assert_eq!(space.compare_exchange_user(word, 0, 78), Ok(Err(77)));
    drop(space);
    world.check_empty();
}
