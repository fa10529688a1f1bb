//! The three modes of overcommit: which calls are refused, and what is counted.

use alloc::vec::Vec;

use super::{BASE, READ, RW, check, config, fixed, mmap, mprotect, mremap};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageCount, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{MapFlags, MmapRequest, RemapFlags, Request};
use crate::manager::{
    Access, Cause, CommitLimit, ForkCharge, NoReserve, Overcommit, PageManager, Policy, Privileges, SignalCode,
};
use crate::model::Platform;
use crate::region::RegionFlags;

const PRIVATE: MapFlags = MapFlags::PRIVATE.union(MapFlags::FIXED);

fn manager(policy: Policy) -> (ResourceLedger, PageManager<Platform>) {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy = policy;
    (ledger, PageManager::new(config, Platform::default()))
}

fn with(overcommit: Overcommit) -> Policy {
    Policy { overcommit, no_reserve: NoReserve::Free, ..Policy::default() }
}

fn heuristic(pages: u64) -> Policy {
    with(Overcommit::Heuristic { ram_and_swap: PageCount::new(pages) })
}

fn never(pages: u64) -> Policy {
    with(Overcommit::Never(CommitLimit::new(PageCount::new(pages))))
}

fn errno(manager: &mut PageManager<Platform>, request: &Request) -> Option<Errno> {
    let errno = manager.call(request).err().map(|refusal| refusal.errno);
    check(manager);
    errno
}

fn brk(pages: u64) -> Request {
    Request::Brk { addr: 0x20_0000 + pages * PAGE_SIZE }
}

#[test]
fn mode_0_refuses_one_step_larger_than_the_machine() {
    let (ledger, mut manager) = manager(heuristic(10));
    let no_mem = Some(Errno::NoMem);
    assert_eq!(errno(&mut manager, &fixed(1, 11, RW)), no_mem);
    assert_eq!(errno(&mut manager, &fixed(1, 10, RW)), None);
    assert_eq!(errno(&mut manager, &fixed(11, 10, RW)), None, "steps are not added up");
    assert_eq!(errno(&mut manager, &fixed(1, 30, RW)), None, "what is replaced does not count");
    assert_eq!(ledger.root().used(Resource::Committed), 30);
    assert_eq!(errno(&mut manager, &fixed(40, 11, READ)), None);
    assert_eq!(errno(&mut manager, &mprotect(40, 11, RW)), no_mem);
    assert_eq!(errno(&mut manager, &mprotect(40, 10, RW)), None);
    assert_eq!(errno(&mut manager, &mmap(60, 11, RW, PRIVATE | MapFlags::NO_RESERVE)), None);
    let shared = MapFlags::SHARED | MapFlags::FIXED;
    assert_eq!(errno(&mut manager, &mmap(80, 11, RW, shared)), no_mem);
    assert_eq!(errno(&mut manager, &mmap(80, 11, RW, shared | MapFlags::NO_RESERVE)), None);
    assert_eq!(errno(&mut manager, &brk(11)), no_mem);
    assert_eq!(errno(&mut manager, &brk(10)), None);
    assert_eq!(errno(&mut manager, &brk(20)), None);
    assert_eq!(ledger.root().used(Resource::Committed), 60);
}

#[test]
fn mode_0_refuses_shared_memory_when_room_for_it_was_made() {
    let (ledger, mut manager) = manager(heuristic(10));
    manager.call(&fixed(3, 4, RW)).unwrap();
    let shared = MapFlags::SHARED | MapFlags::FIXED;
    assert_eq!(errno(&mut manager, &mmap(5, 11, RW, shared)), Some(Errno::NoMem));
    assert_eq!(ledger.root().used(Resource::Committed), 2);
    assert!(manager.map().get(VirtAddr::new(BASE + 5 * PAGE_SIZE)).is_none());
}

#[test]
fn mode_0_does_not_look_at_what_needs_no_reserve_even_if_it_is_charged() {
    let (ledger, mut manager) = manager(Policy { no_reserve: NoReserve::Charged, ..heuristic(10) });
    assert_eq!(errno(&mut manager, &mmap(1, 11, RW, PRIVATE | MapFlags::NO_RESERVE)), None);
    assert_eq!(errno(&mut manager, &mremap((1, 11), (0, 22), RemapFlags::empty())), None);
    assert_eq!(errno(&mut manager, &mmap(40, 11, READ, PRIVATE | MapFlags::NO_RESERVE)), None);
    assert_eq!(errno(&mut manager, &mprotect(40, 11, RW)), None);
    let shared = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NO_RESERVE;
    assert_eq!(errno(&mut manager, &mmap(80, 11, RW, shared)), None);
    assert_eq!(ledger.root().used(Resource::Committed), 44);
    assert!(manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).is_ok());
}

#[test]
fn mode_0_looks_at_what_mremap_adds_or_leaves_behind() {
    let (_ledger, mut manager) = manager(heuristic(10));
    manager.call(&fixed(1, 8, RW)).unwrap();
    manager.call(&fixed(9, 8, RW)).unwrap();
    assert_eq!(errno(&mut manager, &mremap((1, 16), (0, 27), RemapFlags::empty())), Some(Errno::NoMem));
    assert_eq!(errno(&mut manager, &mremap((1, 16), (0, 26), RemapFlags::empty())), None);
    let keep = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP;
    assert_eq!(errno(&mut manager, &mremap((1, 26), (100, 26), keep)), Some(Errno::NoMem));
    assert_eq!(errno(&mut manager, &mremap((1, 10), (100, 10), keep)), None);
}

#[test]
fn mode_0_refuses_a_move_when_room_for_it_was_made() {
    let (_ledger, mut manager) = manager(heuristic(10));
    for first in [1, 40, 58] {
        manager.call(&fixed(first, 4, RW)).unwrap();
    }
    let fixed_place = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
    assert_eq!(errno(&mut manager, &mremap((1, 4), (42, 18), fixed_place)), Some(Errno::NoMem));
    let left: Vec<(u64, u64)> = manager
        .map()
        .iter()
        .map(|entry| (entry.range.first_page() - (BASE >> PAGE_SHIFT), entry.range.pages().get()))
        .collect();
    assert_eq!(left, [(1, 4), (40, 2), (60, 2)]);
}

#[test]
fn mode_0_asks_nothing_for_huge_pages() {
    let (_ledger, mut manager) = manager(heuristic(10));
    let Request::Mmap(huge) = mmap(0, 512, RW, MapFlags::PRIVATE | MapFlags::HUGE_TLB) else { unreachable!() };
    assert_eq!(errno(&mut manager, &Request::Mmap(MmapRequest { offset: PAGE_SIZE, ..huge })), Some(Errno::Inval));
}

#[test]
fn mode_0_lets_a_stack_grow_and_a_child_be_by_region() {
    let (ledger, mut manager) = manager(heuristic(10));
    manager.call(&mmap(1000, 2, 0, PRIVATE | MapFlags::GROWS_DOWN)).unwrap();
    let at = |page: u64| VirtAddr::new(BASE + page * PAGE_SIZE);
    assert_eq!(manager.fault(at(989), Access::Read).unwrap_err().code, SignalCode::MapErr);
    assert_eq!(manager.fault(at(990), Access::Read).unwrap_err().code, SignalCode::AccErr);
    manager.call(&fixed(1, 8, RW)).unwrap();
    manager.call(&fixed(12, 8, RW)).unwrap();
    assert!(manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).is_ok());
    manager.call(&fixed(9, 3, RW)).unwrap();
    let refusal = manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap_err();
    assert_eq!((refusal.errno, refusal.cause), (Errno::NoMem, Cause::Linux));
    assert_eq!(ledger.root().used(Resource::Committed), 19);
}

#[test]
fn mode_1_refuses_nothing() {
    let (ledger, mut manager) = manager(with(Overcommit::Always));
    assert_eq!(errno(&mut manager, &fixed(1, 3000, RW)), None);
    assert_eq!(errno(&mut manager, &mmap(1, 3000, RW, PRIVATE | MapFlags::NO_RESERVE)), None);
    assert_eq!(ledger.root().used(Resource::Committed), 0);
}

#[test]
fn mode_2_adds_up_over_all_spaces_and_knows_no_noreserve() {
    let (ledger, mut first) = manager(never(20));
    let mut other = config(&ledger);
    other.policy = never(20);
    let mut second = PageManager::new(other, Platform::default());
    assert_eq!(errno(&mut first, &mmap(1, 10, RW, PRIVATE | MapFlags::NO_RESERVE)), None);
    let entry = first.map().get(VirtAddr::new(BASE + PAGE_SIZE)).unwrap();
    assert_eq!(entry.region.flags, RegionFlags::COMMITTED, "the flag is forgotten");
    assert_eq!(errno(&mut second, &fixed(1, 10, RW)), Some(Errno::NoMem), "the limit itself is too much");
    assert_eq!(errno(&mut second, &fixed(1, 9, RW)), None);
    assert_eq!(errno(&mut first, &fixed(1, 10, RW)), None, "replaced, so nothing is added");
    assert_eq!(errno(&mut first, &brk(1)), Some(Errno::NoMem));
    assert_eq!(errno(&mut first, &fixed(1, 5, READ)), None);
    assert_eq!(errno(&mut first, &mprotect(1, 5, RW)), None);
    assert_eq!(errno(&mut first, &mmap(20, 1, RW, MapFlags::SHARED | MapFlags::FIXED)), Some(Errno::NoMem));
    assert_eq!(errno(&mut first, &fixed(1, 4, 0)), None);
    let refusal = first.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap_err();
    assert_eq!(refusal.cause, Cause::Limit(Resource::Committed));
    assert_eq!(ledger.root().used(Resource::Committed), 15);
    assert_eq!(errno(&mut second, &fixed(1, 9, 0)), None);
    assert!(first.prepare_fork(ledger.root().child(Limits::UNLIMITED)).is_ok());
}

#[test]
fn mode_2_keeps_reserves_for_the_administrator_and_for_others() {
    let pages = PageCount::new;
    let limit = CommitLimit { limit: pages(100), admin_reserve: pages(10), user_reserve: pages(5) };
    let (_ledger, mut manager) = manager(with(Overcommit::Never(limit)));
    manager.call(&fixed(1000, 96, READ)).unwrap();
    assert_eq!(errno(&mut manager, &fixed(1, 87, RW)), Some(Errno::NoMem), "100 - 10 - 96 / 32");
    assert_eq!(errno(&mut manager, &fixed(1, 86, RW)), None);
    manager.set_privileges(Privileges::ADMIN);
    assert_eq!(errno(&mut manager, &fixed(90, 9, RW)), Some(Errno::NoMem), "100 - (96 + 86) / 32");
    assert_eq!(errno(&mut manager, &fixed(90, 8, RW)), None);
}

#[test]
fn a_plan_that_another_space_has_overtaken_is_refused() {
    let (ledger, mut first) = manager(never(20));
    let plan = first.plan(&fixed(1, 15, RW)).unwrap();
    let taken = ledger.root().charge(Resource::Committed, 5).unwrap();
    assert_eq!(first.apply(plan).unwrap_err().cause, Cause::Limit(Resource::Committed));
    check(&first);
    drop(taken);
    assert_eq!(ledger.root().used(Resource::Committed), 0);
    assert_eq!(errno(&mut first, &fixed(1, 15, RW)), None);
}

#[test]
fn a_fork_that_costs_nothing_is_not_asked_for() {
    let mut policy = never(20);
    policy.fork_charge = ForkCharge::Free;
    let (ledger, mut manager) = manager(policy);
    manager.call(&fixed(1, 19, RW)).unwrap();
    assert!(manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).is_ok());
}

#[test]
fn the_limit_of_a_machine() {
    let limit = CommitLimit::of_machine(PageCount::new(1001), PageCount::new(7), 50);
    assert_eq!(limit.limit.get(), 507);
    assert_eq!(
        CommitLimit::of_machine(PageCount::new(u64::MAX), PageCount::new(7), 50).limit.get(),
        u64::MAX / 100 + 7
    );
}
