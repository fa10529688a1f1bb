//! Reservations: what each page is after each request, what it costs, and what nobody may do.

use super::{
    BASE, READ, RW, check, config, fixed, in_wrong_state, leaves_no_trace, manager, mprotect, munmap, over, pages,
    place,
};
use crate::addr::{PAGE_SIZE, PageCount, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::Request;
use crate::manager::{
    CapabilityRequest, Cause, ForkCharge, PageManager, Place, Refusal, ResourceLimits, SpaceConfig, WxPolicy,
};
use crate::model::Platform;
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};
use std::string::String;

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

fn reserve(first: u64, count: u64) -> CapabilityRequest {
    CapabilityRequest::Reserve { place: place(first), pages: PageCount::new(count) }
}

fn commit(first: u64, count: u64) -> CapabilityRequest {
    CapabilityRequest::Commit { range: pages(first, count), prot: READ_WRITE }
}

fn decommit(first: u64, count: u64) -> CapabilityRequest {
    CapabilityRequest::Decommit { range: pages(first, count) }
}

fn protect(first: u64, count: u64, prot: Prot) -> CapabilityRequest {
    CapabilityRequest::Protect { range: pages(first, count), prot }
}

fn unmap(first: u64, count: u64) -> CapabilityRequest {
    CapabilityRequest::Unmap { range: pages(first, count) }
}

/// A letter a page: free, reserved, committed, committed without rights, other.
fn states<P>(manager: &PageManager<P>, count: u64) -> String {
    let state = |page: u64| {
        let Some(entry) = manager.map().get(VirtAddr::new(BASE + page * PAGE_SIZE)) else { return '.' };
        let flags = entry.region.flags;
        match (flags.contains(RegionFlags::RESERVATION), flags.contains(RegionFlags::COMMITTED)) {
            (false, _) => 'x',
            (true, false) => 'r',
            (true, true) if entry.region.prot.is_empty() => 'n',
            (true, true) => 'c',
        }
    };
    (0..count).map(state).collect()
}

fn costs(ledger: &ResourceLedger) -> [u64; 2] {
    [Resource::Virtual, Resource::Committed].map(|resource| ledger.root().used(resource))
}

#[test]
fn a_page_goes_from_state_to_state_and_is_paid_by_state() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED);
    let steps = [
        (reserve(1, 6), ".rrrrrr.", [6, 0]),
        (commit(2, 3), ".rcccrr.", [6, 3]),
        (protect(3, 2, Prot::NONE), ".rcnnrr.", [6, 3]),
        (decommit(4, 1), ".rcnrrr.", [6, 2]),
        (commit(4, 2), ".rcnccr.", [6, 4]),
        (protect(2, 4, Prot::READ), ".rccccr.", [6, 4]),
        (unmap(1, 3), "....ccr.", [3, 2]),
        (decommit(4, 2), "....rrr.", [3, 0]),
        (unmap(4, 3), "........", [0, 0]),
    ];
    for (request, expected, cost) in steps {
        let planned = manager.plan_capability(&request).unwrap().outcome();
        assert_eq!(manager.call_capability(&request), planned);
        assert_eq!(states(&manager, 8), expected, "{request:?}");
        assert_eq!(costs(&ledger), cost, "{request:?}");
        check(&manager);
    }
}

#[test]
fn what_is_not_in_the_right_state_is_refused_whole() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 1, RW)).unwrap();
    for request in [reserve(2, 6), commit(3, 2), reserve(10, 1)] {
        manager.call_capability(&request).unwrap();
    }
    let (exists, invalid) = (Err(in_wrong_state(Errno::Exist)), Err(in_wrong_state(Errno::Inval)));
    let cases = [
        (reserve(8, 3), exists),
        (reserve(1, 1), exists),
        (commit(2, 2), exists),
        (commit(1, 2), invalid),
        (commit(5, 4), invalid),
        (commit(9, 1), invalid),
        (decommit(4, 2), invalid),
        (decommit(1, 1), invalid),
        (protect(2, 2, Prot::READ), invalid),
        (protect(1, 1, Prot::READ), invalid),
        (protect(7, 2, Prot::READ), invalid),
        (unmap(1, 2), invalid),
        (unmap(7, 2), invalid),
        (unmap(20, 1), invalid),
    ];
    let (text, cost, operations) = (manager.maps_text(), costs(&ledger), manager.provider().operations());
    for (request, expected) in cases {
        assert_eq!(manager.call_capability(&request), expected, "{request:?}");
        assert_eq!((manager.maps_text(), costs(&ledger)), (text.clone(), cost), "{request:?}");
    }
    assert_eq!(manager.provider().operations(), operations, "nothing reached the platform");
    check(&manager);
}

#[test]
fn no_request_reserves_what_is_no_address() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let mut reserve = |place, count| {
        let request = CapabilityRequest::Reserve { place, pages: PageCount::new(count) };
        manager.call_capability(&request).map_err(|refusal| refusal.errno)
    };
    let at = |address| Place::At(VirtAddr::new(address));
    assert_eq!(reserve(Place::Anywhere, 0), Err(Errno::Inval));
    assert_eq!(reserve(Place::Anywhere, u64::MAX), Err(Errno::NoMem));
    assert_eq!(reserve(Place::Anywhere, 1 << 40), Err(Errno::NoMem));
    assert_eq!(reserve(at(BASE + 1), 1), Err(Errno::Inval));
    assert_eq!(reserve(at(0), 1), Err(Errno::Perm));
    assert_eq!(reserve(at(0x110_0000 - PAGE_SIZE), 2), Err(Errno::NoMem));
    assert_eq!(reserve(at(0xffff_ffff_ffff_0000), 1), Err(Errno::NoMem));
    assert_eq!(reserve(at(0x110_0000 - PAGE_SIZE), 1), Ok(0x110_0000 - PAGE_SIZE));
    assert_eq!(reserve(Place::Anywhere, 2), Ok(0x100_0000 - 2 * PAGE_SIZE), "where Linux would put it");
    check(&manager);
}

#[test]
fn limits_are_reached_from_either_side() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED.with(Resource::Committed, 10).with(Resource::Virtual, 40));
    manager.call_capability(&reserve(0, 30)).unwrap();
    assert_eq!(manager.call(&fixed(30, 11, 0)), Err(over(Resource::Virtual)));
    manager.call(&fixed(30, 6, RW)).unwrap();
    assert_eq!(manager.call_capability(&commit(0, 5)), Err(over(Resource::Committed)));
    manager.call_capability(&commit(0, 4)).unwrap();
    assert_eq!(manager.call(&mprotect(8, 1, RW)), Err(over(Resource::Committed)), "of reserved pages too");
    assert_eq!(manager.call_capability(&reserve(36, 5)), Err(over(Resource::Virtual)));
    ledger.root().set_limit(Resource::Committed, 5);
    assert_eq!(manager.call_capability(&commit(4, 1)), Err(over(Resource::Committed)));
    assert_eq!((states(&manager, 6), costs(&ledger)), (String::from("ccccrr"), [36, 10]), "nothing is taken back");
    manager.call(&munmap(30, 6)).unwrap();
    manager.call_capability(&commit(4, 1)).unwrap();
    assert_eq!(costs(&ledger), [30, 5]);
    assert_eq!(ledger.root().peak(Resource::Committed), 10);
    check(&manager);
}

#[test]
fn the_limits_that_linux_has_hold_as_well() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let bytes = |pages: u64| pages * PAGE_SIZE;
    manager.set_limits(ResourceLimits { address_space: bytes(12), data: bytes(3), ..ResourceLimits::DEFAULT });
    let no_memory = Err(Refusal::from(Errno::NoMem));
    assert_eq!(manager.call_capability(&reserve(0, 13)), no_memory);
    manager.call_capability(&reserve(0, 12)).unwrap();
    assert_eq!(manager.call_capability(&reserve(20, 1)), no_memory);
    assert_eq!(manager.call_capability(&commit(0, 4)), no_memory);
    manager.call_capability(&commit(0, 3)).unwrap();
    let read_only = CapabilityRequest::Commit { range: pages(3, 2), prot: Prot::READ };
    manager.call_capability(&read_only).unwrap();
    assert_eq!(manager.call_capability(&protect(4, 1, READ_WRITE)), no_memory);
    assert_eq!(states(&manager, 12), "cccccrrrrrrr");
    check(&manager);
}

#[test]
fn there_are_no_more_regions_than_there_may_be() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut manager = PageManager::new(SpaceConfig { regions_max: 3, ..config(&ledger) }, Platform::default());
    manager.call_capability(&reserve(0, 9)).unwrap();
    manager.call_capability(&commit(1, 1)).unwrap();
    let no_memory = Err(Refusal::from(Errno::NoMem));
    for request in [commit(3, 1), unmap(4, 1), reserve(20, 1), protect(1, 1, Prot::READ)] {
        let is_fourth = !matches!(request, CapabilityRequest::Protect { .. });
        let answer = manager.call_capability(&request);
        assert_eq!(answer, if is_fourth { no_memory } else { Ok(0) }, "{request:?}");
    }
    manager.call_capability(&unmap(8, 1)).unwrap();
    assert_eq!(states(&manager, 9), "rcrrrrrr.");
    check(&manager);
}

#[test]
fn the_calls_of_linux_work_on_reservations() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call_capability(&reserve(0, 10)).unwrap();
    manager.call(&mprotect(1, 2, RW)).unwrap();
    assert_eq!((states(&manager, 10), costs(&ledger)), ("rccrrrrrrr".into(), [10, 2]), "writable is committed");
    manager.call(&mprotect(4, 1, READ)).unwrap();
    assert_eq!((states(&manager, 10), costs(&ledger)), ("rccrrrrrrr".into(), [10, 2]), "readable is not");
    manager.call_capability(&commit(3, 2)).unwrap();
    manager.call(&munmap(2, 1)).unwrap();
    assert_eq!((states(&manager, 10), costs(&ledger)), ("rc.ccrrrrr".into(), [9, 3]));
    manager.call(&fixed(1, 3, RW)).unwrap();
    assert_eq!((states(&manager, 10), costs(&ledger)), ("rxxxcrrrrr".into(), [10, 4]), "mapped over, it is Linux's");
    assert_eq!(manager.call_capability(&unmap(3, 2)), Err(in_wrong_state(Errno::Inval)));
    let child = manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
    let child = child.finish(manager.provider().fork());
    assert_eq!((states(&child, 10), costs(&ledger)), ("rxxxcrrrrr".into(), [20, 8]), "a child pays for its own");
    check(&child);
    check(&manager);
}

#[test]
fn what_is_sealed_or_fixed_stays() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call_capability(&reserve(0, 4)).unwrap();
    manager.call_capability(&commit(0, 2)).unwrap();
    manager.map_fixed(pages(4, 1), Region::anonymous(Prot::READ)).unwrap();
    manager.call(&Request::Mseal { addr: BASE + PAGE_SIZE, len: 2 * PAGE_SIZE, flags: 0 }).unwrap();
    let text = manager.maps_text();
    let sealed = [decommit(0, 2), protect(1, 1, Prot::READ), unmap(0, 4), commit(2, 1)];
    for request in sealed {
        assert_eq!(manager.call_capability(&request), Err(Errno::Perm.into()), "{request:?}");
    }
    let fixed = Err(Refusal { errno: Errno::Perm, cause: Cause::FixedRegion });
    for request in [decommit(4, 1), protect(4, 1, Prot::READ), unmap(3, 2), commit(3, 2)] {
        assert_eq!(manager.call_capability(&request), fixed, "{request:?}");
    }
    assert_eq!(manager.call_capability(&reserve(4, 1)), Err(in_wrong_state(Errno::Exist)));
    assert_eq!(manager.maps_text(), text);
    check(&manager);
}

#[test]
fn a_policy_holds_for_reserved_memory_too() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy.wx = WxPolicy::Deny;
    let mut manager = PageManager::new(config, Platform::default());
    manager.call_capability(&reserve(0, 4)).unwrap();
    let denied = Err(Refusal { errno: Errno::Acces, cause: Cause::WxPolicy });
    let all = CapabilityRequest::Commit { range: pages(0, 1), prot: Prot::all() };
    assert_eq!(manager.call_capability(&all), denied);
    manager.call_capability(&commit(0, 1)).unwrap();
    assert_eq!(manager.call_capability(&protect(0, 1, Prot::READ | Prot::EXEC)), denied, "what was data is no code");
    assert_eq!(states(&manager, 4), "crrr");
    check(&manager);
}

#[test]
fn a_fork_that_is_not_asked_to_pay_pays_for_what_it_commits() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy.fork_charge = ForkCharge::Free;
    let mut parent = PageManager::new(config, Platform::default());
    parent.call_capability(&reserve(0, 4)).unwrap();
    parent.call_capability(&commit(0, 2)).unwrap();
    let child = parent.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
    let mut child = child.finish(parent.provider().fork());
    assert_eq!(costs(&ledger), [8, 2]);
    child.call_capability(&commit(2, 2)).unwrap();
    assert_eq!(costs(&ledger), [8, 4]);
    child.call_capability(&decommit(0, 4)).unwrap();
    assert_eq!(costs(&ledger), [8, 2]);
    check(&child);
}

#[test]
fn a_failing_platform_leaves_no_trace() {
    for request in [reserve(8, 2), commit(4, 4), decommit(0, 4), protect(0, 4, Prot::READ), unmap(0, 8)] {
        leaves_no_trace(&request, |manager| {
            for request in [reserve(0, 8), commit(0, 4), protect(1, 1, Prot::NONE)] {
                manager.call_capability(&request).unwrap();
            }
            manager.call(&mprotect(5, 1, READ)).unwrap();
            manager.provider_mut().inner_mut().write(BASE / PAGE_SIZE, 7);
        });
    }
}
