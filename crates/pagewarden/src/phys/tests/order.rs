//! In which order things end, and who may hold what beside whom.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::boxed::Box;
use std::sync::Mutex;

use super::{Lab, Manager, SPACE_PAGES, frame, frames, platform, range};
use crate::ledger::Limits;
use crate::machine::Ticks;
use crate::phys::{Claim, Mapping, Mode, Permission, PhysError, PhysMutPtr, PhysRange, VmapManager};

/// Notes before each unmap whether `page` can be reserved by somebody else.
fn watch(lab: &Lab, page: PhysRange) -> Arc<Mutex<Vec<bool>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (notes, manager) = (Arc::clone(&seen), Arc::downgrade(&lab.manager));
    *lab.manager.provider().before_unmap.lock().unwrap() = Some(Box::new(move || {
        let Some(manager) = manager.upgrade() else { return };
        let is_free = manager.reservations().try_reserve(&[page], Mode::Shared).is_ok();
        notes.lock().unwrap().push(is_free);
    }));
    seen
}

#[test]
fn a_reservation_ends_after_its_window() {
    let lab = Lab::new();
    let page = PhysRange::of_frame(frame(0));
    let seen = watch(&lab, page);
    let vmap = |claim| lab.manager.vmap(&frames(&[1, 0]), Permission::ReadWrite, claim).unwrap();
    drop(vmap(Claim::Reserve));
    vmap(Claim::Reserve).unmap().unwrap();
    let held = lab.manager.reservations().try_reserve(&[page], Mode::Exclusive).unwrap();
    drop(vmap(Claim::Held(held)));
    let mut pointer = lab.ptr::<u8>(&frames(&[0]), 0, 1);
    pointer.map(Claim::Reserve).unwrap();
    drop(pointer);
    assert_eq!(*seen.lock().unwrap(), [false; 4]);
    seen.lock().unwrap().clear();
    drop(vmap(Claim::Beside));
    assert_eq!(*seen.lock().unwrap(), [true]);
    seen.lock().unwrap().clear();
    // When a window is rolled back too, and when what is retained ends.
    lab.manager.provider().map.fail_once(1);
    lab.manager.provider().unmap.fail_once(0);
    assert!(lab.manager.vmap(&frames(&[1, 0]), Permission::ReadWrite, Claim::Reserve).is_err());
    lab.manager.retry_retained().unwrap();
    assert_eq!(*seen.lock().unwrap(), [false; 2]);
}

#[test]
fn a_mapping_outlives_the_handle_that_its_manager_came_from() {
    let (_world, other, platform) = platform(SPACE_PAGES, Limits::UNLIMITED).unwrap();
    let manager = Arc::new(VmapManager::new(platform, Ticks::new()));
    let mapping = Mapping::new(Arc::clone(&manager), &frames(&[3]), Permission::ReadWrite, Claim::Reserve).unwrap();
    let mut pointer = PhysMutPtr::<u64, _>::new(Arc::clone(&manager), &frames(&[4]), 0, 1).unwrap();
    pointer.map(Claim::Reserve).unwrap();
    let weak = Arc::downgrade(&manager);
    drop(manager);
    mapping.write(0, b"still").unwrap();
    pointer.write_at(0, 7).unwrap();
    let mut bytes = [0; 5];
    other.act(|side| side.load(frame(3).start(), &mut bytes)).unwrap();
    assert_eq!(&bytes, b"still");
    drop(mapping);
    weak.upgrade().expect("the pointer has it").check_invariants();
    drop(pointer);
    assert!(weak.upgrade().is_none());
}

fn vmap(manager: &Manager, number: u64, permission: Permission) -> Result<Mapping<&Manager>, PhysError> {
    manager.vmap(&frames(&[number]), permission, Claim::Reserve)
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let lab = Lab::new();
    let manager = &*lab.manager;
    let page = PhysRange::of_frame(frame(2));
    let reserved = Some(PhysError::Reserved(page));
    let readers = [(); 3].map(|()| vmap(manager, 2, Permission::Read).unwrap());
    assert_eq!(vmap(manager, 2, Permission::ReadWrite).err(), reserved);
    drop(readers);
    let writer = vmap(manager, 2, Permission::ReadWrite).unwrap();
    assert_eq!(vmap(manager, 2, Permission::Read).err(), reserved);
    assert_eq!(vmap(manager, 2, Permission::ReadWrite).err(), reserved);
    assert_eq!(lab.ptr::<u8>(&frames(&[2]), 77, 1).reserve().err(), reserved);
    // Beside is beside: nobody's reservation is in the way.
    let beside = manager.vmap(&frames(&[2]), Permission::ReadWrite, Claim::Beside).unwrap();
    drop(writer);
    assert!(vmap(manager, 2, Permission::ReadWrite).is_ok(), "and it is in nobody's way");
    drop(beside);
}

#[test]
fn guards_may_be_nested_and_end_in_any_order() {
    let lab = Lab::new();
    let manager = &*lab.manager;
    let list = frames(&[2, 5]);
    let page = PhysRange::of_frame(frame(2));
    let outer = manager.vmap(&list, Permission::ReadWrite, Claim::Beside).unwrap();
    let held = manager.reservations().try_reserve(&[page], Mode::Exclusive).unwrap();
    let inner = manager.vmap(&list, Permission::ReadWrite, Claim::Held(held)).unwrap();
    let third = manager.vmap(&list[1..], Permission::ReadWrite, Claim::Reserve).unwrap();
    assert!(manager.reservations().try_reserve(&[page], Mode::Shared).is_err());
    drop(outer);
    manager.check_invariants();
    assert!(manager.reservations().try_reserve(&[page], Mode::Shared).is_err(), "it is the inner one's");
    inner.write(0, &[1]).unwrap();
    drop(inner);
    assert!(manager.reservations().try_reserve(&[page], Mode::Shared).is_ok());
    third.write(0, &[1]).unwrap();
    drop(third);
}

#[test]
fn a_reservation_that_is_held_may_be_stronger_than_the_window() {
    let lab = Lab::new();
    let pointer = lab.ptr::<u64>(&frames(&[2]), 0, 1);
    let held = pointer.reserve().unwrap();
    assert_eq!(held.mode(), Mode::Exclusive);
    let window = lab.manager.vmap(&frames(&[2]), Permission::Read, Claim::Held(held)).unwrap();
    assert!(pointer.reserve().is_err());
    drop(window);
    assert!(pointer.reserve().is_ok());
}

#[test]
fn a_claim_that_is_refused_is_given_back() {
    let lab = Lab::new();
    let page = PhysRange::of_frame(frame(2));
    let hold = || lab.manager.reservations().try_reserve(&[page], Mode::Exclusive).unwrap();
    for _ in 0..2 {
        // No such memory, and no window.
        assert!(lab.manager.vmap(&frames(&[64]), Permission::Read, Claim::Held(hold())).is_err());
        lab.manager.provider().map.fail_once(0);
        assert!(lab.manager.vmap(&frames(&[2]), Permission::Read, Claim::Held(hold())).is_err());
        let too_many: Vec<_> = lab.other.frames().iter().collect();
        assert!(lab.manager.vmap(&too_many, Permission::Read, Claim::Held(hold())).is_err());
    }
}

#[test]
fn two_records_in_one_page_are_reserved_beside_each_other() {
    let lab = Lab::new();
    let records = [lab.ptr::<[u8; 100]>(&frames(&[2]), 0, 1), lab.ptr::<[u8; 100]>(&frames(&[2]), 100, 1)];
    let first = records[0].reserve().unwrap();
    let second = records[1].reserve().unwrap();
    let last_byte = range(frame(2).at(199), 1);
    let refused = lab.manager.reservations().try_reserve(&[last_byte], Mode::Shared);
    assert_eq!(refused.err(), Some(PhysError::Reserved(range(frame(2).at(100), 100))));
    assert!(lab.manager.reservations().try_reserve(&[range(frame(2).at(200), 1)], Mode::Exclusive).is_ok());
    // Both are written through windows that show the whole page, each with its own reservation.
    drop((first, second));
    let [mut one, mut two] = records;
    one.map(Claim::Reserve).unwrap();
    let held = lab.manager.reservations().try_reserve(&two.ranges().unwrap(), Mode::Exclusive).unwrap();
    two.map(Claim::Held(held)).unwrap();
    let mut between = lab.ptr::<[u8; 2]>(&frames(&[2]), 99, 1);
    assert!(matches!(between.map(Claim::Reserve), Err(PhysError::Reserved(_))));
    assert!(between.mapping().is_none());
    let mut behind = lab.ptr::<[u8; 2]>(&frames(&[2]), 200, 1);
    behind.map(Claim::Reserve).unwrap();
    one.write_at(0, [1; 100]).unwrap();
    two.write_at(0, [2; 100]).unwrap();
    assert_eq!(lab.peek(frame(2).at(98), 4), [1, 1, 2, 2]);
}
