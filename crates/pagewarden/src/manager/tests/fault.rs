//! Faults: what is allowed, which signal, and when a stack grows.

use super::{BASE, READ, RW, check, config, fixed, manager, mmap, mprotect, mremap};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{MapFlags, RemapFlags, Request};
use crate::manager::{Access, FaultSignal, Features, KeyRights, PageManager, Signal, SignalCode};
use crate::model::{Failing, Failures, Platform};
use crate::provider::PageManagementProvider;

const NONE: u64 = 0;
const WRITE: u64 = 2;
const EXEC: u64 = 4;

fn at(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE_SIZE + 8)
}

fn stack(page: u64, pages: u64, prot: u64) -> Request {
    mmap(page, pages, prot, MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::GROWS_DOWN)
}

fn code(result: Result<(), FaultSignal>) -> Option<SignalCode> {
    result.err().map(|signal| signal.code)
}

fn touch<P: PageManagementProvider>(manager: &mut PageManager<P>, page: u64, access: Access) -> Option<SignalCode> {
    code(manager.fault(at(page), access))
}

#[test]
fn rights_decide_and_whatever_is_accessible_can_be_read() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let (acc, ok) = (Some(SignalCode::AccErr), None);
    for (page, prot, expected) in
        [(1, NONE, [acc, acc, acc]), (3, READ, [ok, acc, acc]), (5, WRITE, [ok, ok, acc]), (9, RW | EXEC, [ok, ok, ok])]
    {
        manager.call(&fixed(page, 1, prot)).unwrap();
        let found = [Access::Read, Access::Write, Access::Execute].map(|access| touch(&mut manager, page, access));
        assert_eq!(found, expected, "prot {prot}");
    }
    let mut config = config(&ResourceLedger::new(Limits::UNLIMITED));
    config.features = Features::ALL.without_keys();
    let mut keyless = PageManager::new(config, Platform::default());
    keyless.call(&fixed(1, 1, EXEC)).unwrap();
    let found = [Access::Read, Access::Write, Access::Execute].map(|access| touch(&mut keyless, 1, access));
    assert_eq!(found, [ok, acc, ok]);
    let hole = manager.fault(at(2), Access::Read);
    assert_eq!(hole, Err(FaultSignal { signal: Signal::Segv, code: SignalCode::MapErr, address: at(2) }));
    check(&manager);
}

#[test]
fn an_address_that_the_processor_does_not_have_is_not_reported() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let signal = manager.fault(VirtAddr::new(1 << 47), Access::Read).unwrap_err();
    assert_eq!((signal.code, signal.address), (SignalCode::Kernel, VirtAddr::new(0)));
    let signal = manager.fault(VirtAddr::new(u64::MAX), Access::Write).unwrap_err();
    assert_eq!((signal.code, signal.address), (SignalCode::MapErr, VirtAddr::new(u64::MAX)));
}

#[test]
fn a_stack_grows_up_to_the_guard_of_its_neighbour() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&stack(1000, 2, RW)).unwrap();
    manager.call(&fixed(500, 1, READ)).unwrap();
    assert_eq!(touch(&mut manager, 756, Access::Write), Some(SignalCode::MapErr));
    assert_eq!(manager.map().at_or_after(at(501)).unwrap().range.start(), at(1000).page_down());
    assert_eq!(touch(&mut manager, 757, Access::Write), None);
    assert_eq!(manager.map().get(at(757)).unwrap().range.pages().get(), 245);
    manager.call(&mprotect(500, 1, NONE)).unwrap();
    assert_eq!(touch(&mut manager, 501, Access::Write), None);
    assert_eq!(touch(&mut manager, 499, Access::Write), Some(SignalCode::MapErr));
    check(&manager);
}

#[test]
fn a_stack_grows_even_if_the_access_is_not_allowed() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&stack(1000, 1, READ)).unwrap();
    assert_eq!(touch(&mut manager, 990, Access::Write), Some(SignalCode::AccErr));
    assert_eq!(manager.map().get(at(990)).unwrap().range.pages().get(), 11);
    check(&manager);
}

#[test]
fn limits_stop_a_stack_without_a_trace() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED.with(Resource::Committed, 20));
    let mut limits = manager.config().limits.clone();
    limits.stack = 16 * PAGE_SIZE;
    manager.set_limits(limits.clone());
    manager.call(&stack(1000, 2, RW)).unwrap();
    assert_eq!(touch(&mut manager, 985, Access::Write), Some(SignalCode::MapErr));
    assert_eq!(touch(&mut manager, 986, Access::Write), None);
    limits.stack = u64::MAX;
    limits.address_space = 17 * PAGE_SIZE;
    manager.set_limits(limits.clone());
    assert_eq!(touch(&mut manager, 984, Access::Write), Some(SignalCode::MapErr));
    assert_eq!(touch(&mut manager, 985, Access::Write), None);
    limits.address_space = u64::MAX;
    manager.set_limits(limits);
    assert_eq!(touch(&mut manager, 981, Access::Write), Some(SignalCode::MapErr));
    assert_eq!(ledger.root().used(Resource::Committed), 17);
    assert_eq!(touch(&mut manager, 982, Access::Write), None);
    assert_eq!(ledger.root().used(Resource::Committed), 20);
    check(&manager);
}

#[test]
fn a_platform_that_fails_leaves_the_stack_as_it_was() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut manager = PageManager::new(config(&ledger), Failing::new(Platform::default()));
    manager.call(&stack(1000, 2, RW)).unwrap();
    manager.provider_mut().arm(Failures::once(0, Errno::NoMem));
    assert_eq!(touch(&mut manager, 990, Access::Write), Some(SignalCode::MapErr));
    assert_eq!(ledger.root().used(Resource::Committed), 2);
    manager.check_invariants();
    manager.provider().inner().check(manager.map());
}

#[test]
fn keys_forbid_before_rights_do() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 1, EXEC)).unwrap();
    let pku = Some(SignalCode::PkuErr);
    let found = [Access::Read, Access::Write, Access::Execute].map(|access| touch(&mut manager, 1, access));
    assert_eq!(found, [pku, pku, None], "memory that can only be executed has a key of its own");
    let key = manager.call(&Request::PkeyAlloc { flags: 0, rights: 0 }).unwrap();
    manager.call(&stack(1000, 1, READ)).unwrap();
    let addr = BASE + 1000 * PAGE_SIZE;
    let request = Request::PkeyMprotect { addr, len: PAGE_SIZE, prot: READ, key: i32::try_from(key).unwrap() };
    manager.call(&request).unwrap();
    let mut touch = |page: u64, access: Access, forbidden: u32| {
        code(manager.fault_with(at(page), access, KeyRights::new(forbidden << (2 * key))))
    };
    assert_eq!([touch(1000, Access::Read, 2), touch(1000, Access::Write, 2)], [None, pku]);
    assert_eq!([touch(1000, Access::Read, 1), touch(1000, Access::Execute, 1)], [pku, Some(SignalCode::AccErr)]);
    assert_eq!([touch(1000, Access::Write, 0), touch(990, Access::Read, 1)], [Some(SignalCode::AccErr), pku]);
    assert_eq!(manager.map().get(at(990)).unwrap().range.pages().get(), 11, "the stack has grown all the same");
}

#[test]
fn a_mapping_may_be_longer_than_its_object() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&mmap(1, 2, RW, MapFlags::SHARED | MapFlags::FIXED)).unwrap();
    manager.call(&mremap((1, 2), (0, 4), RemapFlags::empty())).unwrap();
    assert_eq!(
        [touch(&mut manager, 2, Access::Write), touch(&mut manager, 3, Access::Write)],
        [None, Some(SignalCode::AdrErr)]
    );
    manager.call(&mprotect(3, 1, READ)).unwrap();
    assert_eq!(touch(&mut manager, 3, Access::Write), Some(SignalCode::AccErr));
    assert_eq!(manager.fault(at(3), Access::Execute).unwrap_err().signal, Signal::Bus);
}
