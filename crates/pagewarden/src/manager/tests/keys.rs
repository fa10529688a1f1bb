//! Protection keys on a processor that has them, and what Linux makes of them on one that has not. No host of the
//! comparison tests has keys: the expectations here are those of `mm/mprotect.c` and `arch/x86/mm/pkeys.c`.

use super::{BASE, READ, RW, check, config, fixed, manager, mprotect, mremap};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, ResourceLedger};
use crate::linux::{RemapFlags, Request};
use crate::manager::{PageManager, Refusal};
use crate::model::Platform;
use crate::provider::{KeyUse, Op};

const EXEC: u64 = 4;
const ALLOCATE: Request = Request::PkeyAlloc { flags: 0, rights: 0 };

fn keyed(page: u64, pages: u64, prot: u64, key: i32) -> Request {
    Request::PkeyMprotect { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, prot, key }
}

fn key_at(manager: &PageManager<Platform>, page: u64) -> u8 {
    manager.map().get(VirtAddr::new(BASE + page * PAGE_SIZE)).unwrap().region.key.number()
}

fn inval<T>() -> Result<T, Refusal> {
    Err(Errno::Inval.into())
}

#[test]
fn the_lowest_free_key_is_given_until_none_is_left() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    for (flags, rights) in [(1, 0), (0, 4), (0, 1 << 32)] {
        assert_eq!(manager.call(&Request::PkeyAlloc { flags, rights }), inval());
    }
    for key in 1..16 {
        assert_eq!(manager.call(&Request::PkeyAlloc { flags: 0, rights: key % 4 }), Ok(key));
    }
    assert_eq!(manager.call(&ALLOCATE), Err(Errno::NoSpc.into()));
    for key in [-1, 16, 17, 256, i32::MIN, i32::MAX] {
        assert_eq!(manager.call(&Request::PkeyFree { key }), inval(), "{key}");
    }
    for key in [7, 3] {
        manager.call(&Request::PkeyFree { key }).unwrap();
        assert_eq!(manager.call(&Request::PkeyFree { key }), inval(), "twice");
    }
    assert_eq!(manager.call(&ALLOCATE), Ok(3));
    assert_eq!(manager.call(&ALLOCATE), Ok(7));
    manager.call(&Request::PkeyFree { key: 0 }).unwrap();
    assert_eq!(manager.call(&ALLOCATE), Ok(0), "the first is a key like the others");
}

#[test]
fn a_key_that_was_not_given_out_is_refused_before_the_range_is_looked_at() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 2, RW)).unwrap();
    for key in [1, 15, 16, -2] {
        assert_eq!(manager.call(&keyed(1, 1, READ, key)), inval(), "{key}");
        assert_eq!(manager.call(&keyed(100, 1, READ, key)), inval(), "{key}");
        assert_eq!(manager.call(&keyed(1, 0, READ, key)), Ok(0), "nothing to be done");
    }
    manager.call(&keyed(1, 1, READ, 0)).unwrap();
    manager.call(&keyed(1, 1, RW, -1)).unwrap();
    assert_eq!(manager.map().len(), 1);
    check(&manager);
}

#[test]
fn regions_keep_their_key_and_differ_by_it() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 6, RW)).unwrap();
    assert_eq!(manager.call(&ALLOCATE), Ok(1));
    manager.call(&keyed(2, 2, RW, 1)).unwrap();
    assert_eq!(manager.map().len(), 3);
    manager.call(&mprotect(2, 2, READ)).unwrap();
    manager.call(&mprotect(2, 2, RW)).unwrap();
    assert_eq!(key_at(&manager, 2), 1, "mprotect leaves the key alone");
    manager.call(&Request::PkeyFree { key: 1 }).unwrap();
    assert_eq!(key_at(&manager, 2), 1, "so does pkey_free");
    let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
    manager.call(&mremap((2, 2), (30, 2), flags)).unwrap();
    assert_eq!(key_at(&manager, 30), 1);
    manager.call(&keyed(30, 2, RW, 0)).unwrap();
    manager.call(&mremap((30, 2), (2, 2), flags)).unwrap();
    assert_eq!(manager.map().len(), 1, "without a key they are one again");
    check(&manager);
}

#[test]
fn memory_that_can_only_be_executed_has_a_key_of_its_own() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    assert_eq!(manager.call(&ALLOCATE), Ok(1));
    manager.call(&fixed(1, 1, EXEC)).unwrap();
    assert_eq!(key_at(&manager, 1), 2);
    assert_eq!(manager.call(&ALLOCATE), Ok(3));
    for request in [Request::PkeyFree { key: 2 }, keyed(1, 1, EXEC, 2)] {
        assert_eq!(manager.call(&request), inval(), "{request:?}");
    }
    manager.call(&fixed(2, 2, RW)).unwrap();
    manager.call(&keyed(2, 1, RW, 1)).unwrap();
    manager.call(&mprotect(2, 2, EXEC)).unwrap();
    assert_eq!((key_at(&manager, 2), key_at(&manager, 3)), (2, 2), "whatever key they had");
    manager.call(&mprotect(2, 2, READ)).unwrap();
    assert_eq!((key_at(&manager, 2), key_at(&manager, 3)), (0, 0), "and lose it when they can be read");
    manager.call(&keyed(2, 1, EXEC, 1)).unwrap();
    assert_eq!(key_at(&manager, 2), 1, "who names a key gets that");
    manager.call(&fixed(4, 1, EXEC | 8)).unwrap();
    assert_eq!(key_at(&manager, 4), 0, "PROT_SEM is one bit too many");
    check(&manager);
}

#[test]
fn without_a_key_left_memory_to_be_executed_keeps_the_one_it_has() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    for key in 1..16 {
        assert_eq!(manager.call(&ALLOCATE), Ok(key));
    }
    manager.call(&fixed(1, 1, EXEC)).unwrap();
    assert_eq!(key_at(&manager, 1), 0);
    manager.call(&keyed(1, 1, RW, 9)).unwrap();
    manager.call(&mprotect(1, 1, EXEC)).unwrap();
    assert_eq!(key_at(&manager, 1), 9);
}

#[test]
fn operations_say_which_key_the_host_chooses_by_itself() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 1, RW)).unwrap();
    manager.call(&ALLOCATE).unwrap();
    let named = manager.plan(&keyed(1, 1, RW, 1)).unwrap();
    let [Op::ProtectKey { to, .. }] = named.ops() else { panic!("{named:?}") };
    assert!(matches!(to.key, KeyUse::Given(key) if key.number() == 1));
    let plain = manager.plan(&mprotect(1, 1, READ)).unwrap();
    assert!(matches!(plain.ops(), [Op::Protect { .. }]));
    let own = manager.plan(&mprotect(1, 1, EXEC)).unwrap();
    let [Op::ProtectKey { from, to, .. }] = own.ops() else { panic!("{own:?}") };
    assert!(matches!(from.key, KeyUse::Given(key) if key.number() == 0));
    assert!(matches!(to.key, KeyUse::ExecuteOnly(key) if key.number() == 2));
}

#[test]
fn children_inherit_keys_and_new_programs_do_not() {
    let (ledger, mut parent) = manager(Limits::UNLIMITED);
    parent.call(&ALLOCATE).unwrap();
    parent.call(&fixed(1, 1, EXEC)).unwrap();
    let account = ledger.root().child(Limits::UNLIMITED);
    let mut child = parent.prepare_fork(account).unwrap().finish(parent.provider().clone());
    assert_eq!(child.call(&ALLOCATE), Ok(3));
    assert_eq!(parent.call(&Request::PkeyFree { key: 3 }), inval(), "from then on each has its own");
    let features = parent.config().features;
    child.set_attributes(parent.attributes().after_exec(features));
    assert_eq!(child.call(&ALLOCATE), Ok(1));
}

#[test]
fn without_keys_there_is_none_to_be_had() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.features = config.features.without_keys();
    let mut manager = PageManager::new(config, Platform::default());
    manager.call(&fixed(1, 1, EXEC)).unwrap();
    manager.call(&mprotect(1, 1, RW)).unwrap();
    manager.call(&mprotect(1, 1, EXEC)).unwrap();
    assert_eq!(key_at(&manager, 1), 0);
    for key in [0, 1] {
        assert_eq!(manager.call(&keyed(1, 1, READ, key)), inval());
        assert_eq!(manager.call(&Request::PkeyFree { key }), inval());
    }
    manager.call(&keyed(1, 1, READ, -1)).unwrap();
    assert_eq!(manager.call(&Request::PkeyAlloc { flags: 0, rights: 4 }), inval());
    let runs = manager.provider().operations();
    assert_eq!(manager.call(&ALLOCATE), inval(), "Linux finds no register to set");
    assert_eq!(manager.call(&ALLOCATE), Err(Errno::NoSpc.into()), "and has lost its one key to that");
    assert_eq!(manager.provider().operations(), runs, "the platform is not asked");
}
