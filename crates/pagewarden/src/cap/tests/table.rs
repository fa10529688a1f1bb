//! One table.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{NO_PAGES, NO_SLOT, Other, Thing, ended, infos, table, thing, unlimited, used};
use crate::addr::PageCount;
use crate::cap::handle::Serials;
use crate::cap::slots::SLOTS_MAX;
use crate::cap::{CapError, CapTable, Handle, HandleInfo, HandleState, Interface, InterfaceId, Rights};
use crate::ledger::{Limits, Resource};

const RW: Rights = Rights::READ.union(Rights::WRITE);

#[test]
fn a_handle_finds_its_object_and_its_rights() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let (object, ends) = thing(3);
    let handle = table.insert(Arc::clone(&object), RW).unwrap();
    let other = table.insert(Arc::new(Other), Rights::MAP).unwrap();
    let held = table.read();
    let (found, rights) = held.get::<Thing>(handle, Rights::READ).unwrap();
    assert!(core::ptr::eq(found, &raw const *object) && rights == RW);
    assert_eq!(held.get::<Other>(other, Rights::empty()).unwrap().1, Rights::MAP);
    let live = |handle, interface, rights| HandleInfo { handle, interface, rights, state: HandleState::Live };
    assert_eq!(held.handles().collect::<Vec<_>>(), [live(handle, Thing::ID, RW), live(other, Other::ID, Rights::MAP)]);
    drop(held);
    assert_eq!((used(table.account()), table.len()), ((2, 3), 2));
    table.check_invariants();
    let (kept, rights) = table.get_cloned::<Thing>(handle, RW).unwrap();
    assert_eq!((Arc::ptr_eq(&kept, &object), rights), (true, RW));
    drop(object);
    table.release(handle).unwrap();
    assert_eq!((ended(&ends), used(ledger.root())), (0, (1, 0)));
    drop(kept);
    assert_eq!(ended(&ends), 1);
    drop(table);
    assert_eq!(used(ledger.root()), (0, 0));
}

#[test]
fn a_word_is_a_handle_only_if_a_table_can_have_given_it_out() {
    for raw in [0, 1, 0xffff] {
        assert_eq!(Handle::from_raw(raw), None);
    }
    for raw in [0x1_0000, 0x1_ffff, u64::MAX] {
        assert_eq!(Handle::from_raw(raw).unwrap().raw(), raw);
    }
    assert_eq!(Handle::new(7, 0), None);
    assert_eq!(Handle::new(7, 1 << 48), None, "the serial does not fit");
    let handle = Handle::new(0xfffe, (1 << 48) - 1).unwrap();
    assert_eq!((handle.index(), format!("{handle}")), (0xfffe, "65534#281474976710655".into()));
    let table = table(&unlimited(), Limits::UNLIMITED);
    let handle = table.insert(Arc::new(Other), RW).unwrap();
    assert_eq!(Handle::from_raw(handle.raw()), Some(handle));
}

/// That nothing can be done with `handle` but to be told why not.
fn check_useless(table: &CapTable, handle: Handle, error: CapError) {
    assert_eq!(table.get_cloned::<Thing>(handle, Rights::empty()).unwrap_err(), error);
    assert_eq!(table.release(handle), Err(error));
    assert_eq!(table.duplicate(handle, Rights::empty()), Err(error));
    for mode in [crate::cap::TransferMode::Copy, crate::cap::TransferMode::Move] {
        assert_eq!(table.offer(handle, mode, Rights::empty()).unwrap_err(), error);
    }
}

#[test]
fn a_stale_handle_does_not_fit_a_slot_that_is_used_again() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let mut stale: Vec<Handle> = Vec::new();
    for round in 0..200 {
        let handle = table.insert(thing(1).0, Rights::all()).unwrap();
        assert_eq!(handle.index(), 0, "the slot is used again");
        assert!(stale.iter().all(|old| old.raw() >> 16 < handle.raw() >> 16), "serials go up, in round {round}");
        stale.iter().for_each(|old| check_useless(&table, *old, CapError::BadHandle));
        table.release(handle).unwrap();
        stale.push(handle);
    }
    assert_eq!((used(ledger.root()), table.is_empty()), ((0, 0), true));
    table.check_invariants();
}

#[test]
fn a_handle_of_another_table_does_not_fit() {
    let ledger = unlimited();
    let tables = [0; 2].map(|_| table(&ledger, Limits::UNLIMITED));
    let handles = [0, 1].map(|at: usize| tables[at].insert(thing(1).0, Rights::all()).unwrap());
    assert_eq!(handles[0].index(), handles[1].index(), "the slots have the same number");
    check_useless(&tables[0], handles[1], CapError::BadHandle);
    check_useless(&tables[1], handles[0], CapError::BadHandle);
    let beyond = Handle::new(7, handles[0].raw() >> 16).unwrap();
    check_useless(&tables[0], beyond, CapError::BadHandle);
    assert!(tables[0].get_cloned::<Thing>(handles[0], Rights::all()).is_ok());
}

/// Has the number of another interface.
struct Impostor;

impl Interface for Impostor {
    const ID: InterfaceId = Thing::ID;
}

#[test]
fn an_object_of_another_type_is_not_found_even_under_the_same_number() {
    let table = table(&unlimited(), Limits::UNLIMITED);
    let handle = table.insert(thing(1).0, RW).unwrap();
    let held = table.read();
    assert_eq!(held.get::<Other>(handle, Rights::READ).unwrap_err(), CapError::WrongType);
    assert_eq!(held.get::<Impostor>(handle, Rights::READ).err(), Some(CapError::WrongType));
    assert_eq!(held.get_cloned::<Impostor>(handle, Rights::READ).err(), Some(CapError::WrongType));
}

#[test]
fn rights_that_are_missing_are_refused_and_never_grow() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let handle = table.insert(thing(2).0, RW).unwrap();
    assert_eq!(table.get_cloned::<Thing>(handle, RW | Rights::MAP).unwrap_err(), CapError::Rights);
    assert_eq!(table.duplicate(handle, Rights::READ | Rights::MAP), Err(CapError::Rights));
    assert_eq!((used(ledger.root()), table.len()), ((1, 2), 1));
    let less = table.duplicate(handle, Rights::READ).unwrap();
    assert_eq!(used(ledger.root()), (2, 4), "a duplicate is charged again");
    assert_eq!(table.get_cloned::<Thing>(less, Rights::WRITE).unwrap_err(), CapError::Rights);
    assert_eq!(table.duplicate(less, RW), Err(CapError::Rights), "not even back to what it came from");
    table.release(handle).unwrap();
    let (object, rights) = table.get_cloned::<Thing>(less, Rights::READ).unwrap();
    assert_eq!((object.pages, rights, used(ledger.root())), (2, Rights::READ, (1, 2)));
    table.check_invariants();
}

#[test]
fn what_a_limit_refuses_leaves_nothing() {
    let ledger = unlimited();
    let limits = Limits::UNLIMITED.with(Resource::Capabilities, 3).with(Resource::Committed, 7);
    let table = table(&ledger, limits);
    let handle = table.insert(thing(3).0, RW).unwrap();
    let (large, ends) = thing(5);
    assert_eq!(table.insert(large, RW), Err(NO_PAGES));
    assert_eq!((ended(&ends), used(ledger.root()), table.len()), (1, (1, 3), 1));
    assert_eq!(table.reserve(PageCount::new(5)).unwrap_err(), NO_PAGES);
    table.duplicate(handle, RW).unwrap();
    assert_eq!(table.duplicate(handle, RW), Err(NO_PAGES));
    assert_eq!((used(ledger.root()), table.len()), ((2, 6), 2));
    table.insert(Arc::new(Other), RW).unwrap();
    let (small, ends) = thing(1);
    assert_eq!(table.insert(small, RW), Err(NO_SLOT));
    assert_eq!(table.reserve(PageCount::ZERO).unwrap_err(), NO_SLOT);
    assert_eq!(table.duplicate(handle, RW), Err(NO_SLOT));
    assert_eq!((ended(&ends), used(ledger.root()), table.len()), (1, (3, 6), 3));
    let endless = thing(u64::MAX).0;
    table.account().set_limit(Resource::Capabilities, 4);
    table.account().set_limit(Resource::Committed, u64::MAX);
    assert_eq!(table.insert(endless, RW), Err(NO_PAGES), "no sum overflows");
    table.check_invariants();
}

#[test]
fn a_table_has_no_more_slots_than_an_index_can_name() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let object = Arc::new(Other);
    let handles: Vec<Handle> = (0..SLOTS_MAX).map(|_| table.insert(Arc::clone(&object), RW).unwrap()).collect();
    assert_eq!((handles.len(), handles[65_534].index()), (65_535, 65_534));
    assert_eq!(table.insert(Arc::clone(&object), RW), Err(CapError::TableFull));
    assert_eq!(table.duplicate(handles[0], RW), Err(CapError::TableFull));
    assert_eq!(table.reserve(PageCount::new(1)).unwrap_err(), CapError::TableFull);
    assert_eq!(used(ledger.root()), (65_535, 0));
    table.release(handles[4711]).unwrap();
    table.release(handles[65_534]).unwrap();
    let again = [0; 2].map(|_| table.insert(Arc::clone(&object), RW).unwrap());
    assert_eq!(again.map(Handle::index), [65_534, 4711], "the last one freed comes first");
    assert_eq!(table.insert(object, RW), Err(CapError::TableFull));
    assert!(table.get_cloned::<Other>(handles[4711], RW).is_err() && table.get_cloned::<Other>(again[1], RW).is_ok());
    table.check_invariants();
}

#[test]
fn serials_end_and_do_not_start_again() {
    let serials: &'static Serials = Box::leak(Box::new(Serials::from((1 << 48) - 100)));
    let ledger = unlimited();
    let tables = [0; 2].map(|_| CapTable::with_serials(ledger.root().clone(), serials));
    let mut drawn: Vec<u64> = Vec::new();
    for table in &tables {
        while let Ok(handle) = table.insert(Arc::new(Other), RW) {
            drawn.push(handle.raw() >> 16);
            table.release(handle).unwrap();
            assert!(drawn.len() <= 100);
        }
    }
    drawn.sort_unstable();
    assert!(drawn.iter().copied().eq((1 << 48) - 100..1 << 48), "each is used once");
    for table in &tables {
        assert_eq!(table.insert(Arc::new(Other), RW), Err(CapError::TableFull));
        assert_eq!(table.reserve(PageCount::new(1)).unwrap_err(), CapError::TableFull);
        table.check_invariants();
    }
    assert_eq!(used(ledger.root()), (0, 0));
}

#[test]
fn a_reservation_is_paid_and_seen_by_nobody_until_it_is_filled() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let probe = table.insert(Arc::new(Other), RW).unwrap();
    let reservation = table.reserve(PageCount::new(4)).unwrap();
    assert_eq!((used(ledger.root()), table.len(), infos(&table).len()), ((2, 4), 2, 1));
    let guessed = Handle::new(1, (probe.raw() >> 16) + 1).unwrap();
    check_useless(&table, guessed, CapError::BadHandle);
    table.check_invariants();
    drop(reservation);
    assert_eq!((used(ledger.root()), table.len()), ((1, 0), 1));
    table.check_invariants();
    let reservation = table.reserve(PageCount::new(4)).unwrap();
    let handle = reservation.fill(thing(4).0, Rights::READ);
    assert_eq!((handle.index(), used(ledger.root()), table.len()), (1, (2, 4), 2));
    assert_eq!(table.get_cloned::<Thing>(handle, Rights::READ).unwrap().0.pages, 4);
    check_useless(&table, guessed, CapError::BadHandle);
    table.check_invariants();
    table.release(handle).unwrap();
    assert_eq!((used(ledger.root()), table.len()), ((1, 0), 1));
}

#[test]
fn a_closed_table_has_nothing_and_takes_nothing() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let (first, first_ends) = thing(2);
    let handle = table.insert(first, Rights::all()).unwrap();
    let kept = table.reserve(PageCount::new(3)).unwrap();
    let dropped = table.reserve(PageCount::new(4)).unwrap();
    table.close();
    assert_eq!((ended(&first_ends), used(ledger.root())), (1, (2, 7)), "reservations are still paid");
    table.check_invariants();
    check_useless(&table, handle, CapError::Closed);
    let (late, late_ends) = thing(3);
    let filled = kept.fill(late, RW);
    assert_eq!((ended(&late_ends), used(ledger.root())), (1, (1, 4)));
    check_useless(&table, filled, CapError::Closed);
    drop(dropped);
    let (late, late_ends) = thing(3);
    assert_eq!(table.insert(late, RW), Err(CapError::Closed));
    assert_eq!(table.reserve(PageCount::new(1)).unwrap_err(), CapError::Closed);
    table.close();
    assert_eq!((ended(&late_ends), used(ledger.root()), table.len()), (1, (0, 0), 0));
    table.check_invariants();
}

/// Notes at its end whether the table that it was in could be locked then.
struct Watcher {
    table: Weak<CapTable>,
    was_free: Arc<AtomicBool>,
}

impl Interface for Watcher {
    const ID: InterfaceId = InterfaceId(3);
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let is_free = self.table.upgrade().is_none_or(|table| table.slots().try_write().is_some());
        self.was_free.store(is_free, Ordering::Relaxed);
    }
}

#[test]
fn objects_end_when_the_table_is_not_locked() {
    let ways: [fn(&CapTable, &CapTable, Arc<Watcher>); 7] = [
        |table, _, watcher| {
            let handle = table.insert(watcher, RW).unwrap();
            table.release(handle).unwrap();
        },
        |table, _, watcher| {
            table.insert(watcher, RW).unwrap();
            table.close();
        },
        |table, _, watcher| {
            table.close();
            assert_eq!(table.insert(watcher, RW), Err(CapError::Closed));
        },
        |table, _, watcher| {
            table.account().set_limit(Resource::Capabilities, 0);
            assert_eq!(table.insert(watcher, RW), Err(NO_SLOT));
        },
        |table, _, watcher| {
            let reservation = table.reserve(PageCount::ZERO).unwrap();
            table.close();
            reservation.fill(watcher, RW);
        },
        |table, sender, watcher| {
            let handle = sender.insert(watcher, Rights::all()).unwrap();
            let transfer = sender.offer(handle, crate::cap::TransferMode::Move, RW).unwrap().reserve(table).unwrap();
            sender.close();
            table.close();
            assert_eq!(transfer.commit(), Err(CapError::Closed));
        },
        |table, receiver, watcher| {
            let handle = table.insert(watcher, Rights::all()).unwrap();
            let transfer = table.offer(handle, crate::cap::TransferMode::Move, RW).unwrap().reserve(receiver).unwrap();
            receiver.close();
            table.close();
            drop(transfer);
        },
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let ledger = unlimited();
        let (first, second) = (Arc::new(table(&ledger, Limits::UNLIMITED)), table(&ledger, Limits::UNLIMITED));
        let was_free = Arc::new(AtomicBool::new(false));
        way(&first, &second, Arc::new(Watcher { table: Arc::downgrade(&first), was_free: Arc::clone(&was_free) }));
        assert!(was_free.load(Ordering::Relaxed), "way {number}");
        assert_eq!(used(ledger.root()), (0, 0), "way {number}");
    }
}
