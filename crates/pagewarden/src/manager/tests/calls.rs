//! Single calls: what they cost, who refuses them, where they end up.

use super::{BASE, READ, RW, check, config, fixed, manager, mmap, mprotect, mremap, munmap, over, pages};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{Advice, MapFlags, MremapRequest, RemapFlags, Request, answer};
use crate::manager::{Cause, ForkCharge, NoReserve, PageManager, Privileges, Refusal, WxPolicy};
use crate::model::{Failing, Failures, Platform};
use crate::prot::Prot;
use crate::provider::Op;
use crate::region::Region;

const PAGES_40: Limits = Limits::UNLIMITED.with(Resource::Committed, 40);

#[test]
fn only_private_writable_memory_is_committed() {
    let (ledger, mut manager) = manager(PAGES_40);
    let used = || ledger.root().used(Resource::Committed);
    manager.call(&fixed(1, 1000, 0)).unwrap();
    assert_eq!(used(), 0, "a reservation costs nothing");
    manager.call(&mprotect(1, 30, RW)).unwrap();
    assert_eq!(used(), 30);
    manager.call(&mprotect(1, 30, 0)).unwrap();
    assert_eq!(used(), 30, "its pages may hold data");
    assert_eq!(manager.call(&mprotect(100, 11, RW)), Err(over(Resource::Committed)));
    manager.call(&fixed(1, 30, 0)).unwrap();
    assert_eq!(used(), 0, "mapped anew, the data is gone");
    check(&manager);
}

#[test]
fn noreserve_is_charged_unless_trusted() {
    let request = mmap(1, 41, RW, MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NO_RESERVE);
    let (ledger, mut charged) = manager(PAGES_40);
    assert_eq!(charged.call(&request), Err(over(Resource::Committed)));
    let mut config = config(&ledger);
    config.policy.no_reserve = NoReserve::Free;
    let mut trusted = PageManager::new(config, Platform::default());
    trusted.call(&request).unwrap();
    assert_eq!(ledger.root().used(Resource::Committed), 0);
}

#[test]
fn shared_anonymous_memory_is_charged_once_and_until_its_last_region_goes() {
    let (ledger, mut manager) = manager(PAGES_40);
    let used = || ledger.root().used(Resource::Committed);
    manager.call(&mmap(1, 30, RW, MapFlags::SHARED | MapFlags::FIXED)).unwrap();
    assert_eq!(used(), 30);
    let child = manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
    assert_eq!(used(), 30, "the child shares it");
    manager.call(&munmap(1, 30)).unwrap();
    assert_eq!(used(), 30, "the child still has it");
    drop(child);
    assert_eq!(used(), 0);
    assert_eq!(manager.call(&mmap(1, 41, RW, MapFlags::SHARED)), Err(over(Resource::Committed)));
    assert_eq!(used(), 0);
}

#[test]
fn a_fork_pays_for_the_private_memory_of_the_child() {
    let (ledger, mut parent) = manager(PAGES_40);
    parent.call(&fixed(1, 25, RW)).unwrap();
    let account = || ledger.root().child(Limits::UNLIMITED);
    assert_eq!(parent.prepare_fork(account()).unwrap_err(), over(Resource::Committed));
    parent.call(&munmap(1, 10)).unwrap();
    let mut child = parent.prepare_fork(account()).unwrap().finish(parent.provider().fork());
    assert_eq!(ledger.root().used(Resource::Committed), 30);
    child.call(&munmap(1, 25)).unwrap();
    check(&child);
    drop(child);
    assert_eq!(ledger.root().used(Resource::Committed), 15);
}

#[test]
fn a_fork_for_free_pays_for_what_the_child_adds() {
    let ledger = ResourceLedger::new(PAGES_40);
    let mut config = config(&ledger);
    config.policy.fork_charge = ForkCharge::Free;
    let mut parent = PageManager::new(config, Platform::default());
    parent.call(&fixed(1, 25, RW)).unwrap();
    let mut child =
        parent.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap().finish(parent.provider().fork());
    assert_eq!(ledger.root().used(Resource::Committed), 25);
    child.call(&fixed(100, 5, RW)).unwrap();
    child.call(&munmap(1, 25)).unwrap();
    check(&child);
    assert_eq!(ledger.root().used(Resource::Committed), 30);
}

#[test]
fn locks_and_dont_fork_regions_are_not_inherited() {
    let (ledger, mut parent) = manager(Limits::UNLIMITED);
    parent.call(&fixed(1, 4, RW)).unwrap();
    parent.call(&Request::Mlock { addr: BASE + PAGE_SIZE, len: PAGE_SIZE, flags: 0 }).unwrap();
    parent.call(&Request::Madvise { addr: BASE + 3 * PAGE_SIZE, len: PAGE_SIZE, advice: 10 }).unwrap();
    let child = parent.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap().finish(Platform::default());
    assert_eq!((child.totals().locked_pages, child.totals().virtual_pages), (0, 3));
    assert_eq!((parent.totals().locked_pages, parent.totals().virtual_pages), (1, 4));
    child.check_invariants();
}

#[test]
fn mprotect_over_a_hole_changes_the_prefix() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 2, RW)).unwrap();
    manager.call(&fixed(4, 2, RW)).unwrap();
    assert_eq!(manager.call(&mprotect(1, 5, READ)), Err(Errno::NoMem.into()));
    let prots: std::vec::Vec<Prot> = manager.map().iter().map(|entry| entry.region.prot).collect();
    assert_eq!(prots, [Prot::READ, Prot::READ | Prot::WRITE]);
    check(&manager);
}

#[test]
fn the_budget_also_ends_an_mprotect_after_its_prefix() {
    let (_ledger, mut manager) = manager(PAGES_40);
    manager.call(&fixed(1, 20, 0)).unwrap();
    manager.call(&fixed(21, 30, READ)).unwrap();
    assert_eq!(manager.call(&mprotect(1, 50, RW)), Err(over(Resource::Committed)));
    assert_eq!(manager.totals().committed_pages, 20);
    check(&manager);
}

#[test]
fn wx_is_refused_at_mmap_and_at_mprotect() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy.wx = WxPolicy::Deny;
    let mut manager = PageManager::new(config, Platform::default());
    let denied = Err(Refusal { errno: Errno::Acces, cause: Cause::WxPolicy });
    assert_eq!(manager.call(&fixed(1, 1, 7)), denied);
    manager.call(&fixed(1, 1, RW)).unwrap();
    assert_eq!(manager.call(&mprotect(1, 1, 5)), denied, "it was writable before");
    manager.call(&fixed(2, 1, 5)).unwrap();
    assert_eq!(manager.call(&mprotect(2, 1, 7)), denied);
    manager.call(&mprotect(2, 1, READ)).unwrap();
    assert_eq!(manager.call(&mprotect(2, 1, 5)), denied, "nothing becomes executable");
    check(&manager);
}

#[test]
fn no_request_touches_a_fixed_region() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.map_fixed(pages(4, 1), Region::anonymous(Prot::READ)).unwrap();
    let (text, operations) = (manager.maps_text(), manager.provider().operations());
    let (addr, len) = (BASE + 4 * PAGE_SIZE, PAGE_SIZE);
    let fixed_region = Err(Refusal { errno: Errno::Perm, cause: Cause::FixedRegion });
    let advices = (0..26).filter(|advice| Advice::from_raw(*advice).is_some());
    let requests = [
        fixed(2, 4, RW),
        munmap(4, 1),
        mprotect(4, 1, RW),
        mremap((4, 1), (8, 1), RemapFlags::MAY_MOVE | RemapFlags::FIXED),
        mremap((4, 1), (8, 2), RemapFlags::MAY_MOVE),
        Request::PkeyMprotect { addr, len, prot: RW, key: 0 },
        Request::Mseal { addr, len, flags: 0 },
        Request::Mlock { addr, len, flags: 0 },
        Request::Munlock { addr, len },
        Request::Msync { addr, len, flags: 4 },
        Request::Mincore { addr, len, vector: BASE },
        Request::NameAnonymous { addr, len, name: None },
    ];
    let advices = advices.map(|advice| Request::Madvise { addr, len, advice });
    for request in requests.into_iter().chain(advices) {
        assert_eq!(manager.call(&request), fixed_region, "{request:?}");
        assert_eq!(manager.maps_text(), text);
    }
    manager.call(&Request::Mlockall { flags: 1 }).unwrap();
    assert_eq!((manager.maps_text(), manager.totals().locked_pages), (text, 0));
    assert_eq!(
        manager.provider().operations(),
        operations + 1,
        "only what is asked of all memory reached the platform"
    );
    let child = manager.prepare_fork(manager.account().clone()).unwrap().finish(Platform::default());
    assert!(child.map().is_empty(), "a child has fixed pages of its own");
}

#[test]
fn the_break_stays_where_a_limit_is() {
    let (_ledger, mut manager) = manager(PAGES_40);
    let start = 0x20_0000;
    let brk = |addr| Request::Brk { addr };
    assert_eq!(manager.call(&brk(start + 40 * PAGE_SIZE)), Ok(start + 40 * PAGE_SIZE));
    let refused = manager.call(&brk(start + 41 * PAGE_SIZE));
    assert_eq!(refused, Err(over(Resource::Committed)));
    let told = answer(&brk(0), refused.map_err(|refusal| refusal.errno), manager.program_break());
    assert_eq!(told, Ok(start + 40 * PAGE_SIZE), "brk knows no error");
    assert_eq!(manager.call(&brk(start + 1)), Ok(start + 1));
    assert_eq!(manager.call(&brk(0)), Ok(start + 1), "below the heap it only asks");
    assert_eq!(manager.call(&brk(u64::MAX)), Err(Errno::NoMem.into()));
    assert_eq!(manager.totals().committed_pages, 1);
    check(&manager);
}

#[test]
fn a_plan_that_is_out_of_date_is_refused() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let plan = manager.plan(&fixed(1, 1, RW)).unwrap();
    manager.call(&fixed(1, 2, READ)).unwrap();
    assert_eq!(manager.apply(plan), Err(Refusal { errno: Errno::Again, cause: Cause::Platform }));
    check(&manager);
}

#[test]
fn a_plan_for_other_limits_or_privileges_is_out_of_date() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let stale = Err(Refusal { errno: Errno::Again, cause: Cause::Platform });
    let plan = manager.plan(&fixed(1, 1, RW)).unwrap();
    manager.set_privileges(Privileges::LOCK);
    assert_eq!(manager.apply(plan), stale);
    let plan = manager.plan(&fixed(1, 1, RW)).unwrap();
    let limits = manager.config().limits.clone();
    manager.set_limits(limits);
    assert_eq!(manager.apply(plan), stale);
    check(&manager);
}

#[test]
fn a_plan_of_another_space_is_refused() {
    let (ledger, mut parent) = manager(Limits::UNLIMITED);
    let stale = Err(Refusal { errno: Errno::Again, cause: Cause::Platform });
    let plan = parent.plan(&fixed(1, 1, RW)).unwrap();
    let pending = parent.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
    let mut child = pending.finish(parent.provider().fork());
    assert_eq!(child.apply(plan.clone()), stale);
    assert_eq!(PageManager::new(config(&ledger), Platform::default()).apply(plan.clone()), stale);
    parent.apply(plan).unwrap();
}

/// What a move leaves behind is unlocked with all of its region, and taking the move back does not lock it again.
#[test]
fn locks_that_a_failed_move_has_taken_off_are_off_in_the_map_too() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut manager = PageManager::new(config(&ledger), Failing::new(Platform::default()));
    manager.call(&fixed(1, 3, RW)).unwrap();
    manager.call(&fixed(4, 1, READ)).unwrap();
    manager.call(&Request::Mlock { addr: BASE + PAGE_SIZE, len: 3 * PAGE_SIZE, flags: 0 }).unwrap();
    manager.provider_mut().arm(Failures::once(1, Errno::Io));
    let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED | RemapFlags::DONT_UNMAP;
    assert_eq!(manager.call(&mremap((3, 2), (100, 2), flags)).unwrap_err().errno, Errno::Io);
    assert_eq!(manager.provider_mut().disarm(), 1, "there are two moves");
    manager.check_invariants();
    manager.provider().inner().check(manager.map());
    assert_eq!(manager.totals().locked_pages, 1, "the page that has come back");
}

#[test]
fn a_plan_that_fails_twice_has_charged_its_object_never() {
    let ledger = ResourceLedger::new(PAGES_40);
    let mut manager = PageManager::new(config(&ledger), Failing::new(Platform::default()));
    let plan = manager.plan(&mmap(1, 30, RW, MapFlags::SHARED | MapFlags::FIXED)).unwrap();
    for _ in 0..2 {
        manager.provider_mut().arm(Failures::once(0, Errno::Io));
        assert_eq!(manager.apply(plan.clone()).unwrap_err().errno, Errno::Io);
        assert_eq!(ledger.root().used(Resource::Committed), 0);
    }
    manager.provider_mut().disarm();
    manager.apply(plan).unwrap();
    assert_eq!(ledger.root().used(Resource::Committed), 30);
}

/// A guest may name any range: no call looks at each page, and none takes more steps than there are regions.
#[test]
fn a_huge_range_takes_no_more_steps_than_there_are_regions() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    let end = 0x7fff_ffff_f000;
    config.layout.task_end = VirtAddr::new(end);
    config.layout.mmap_base = VirtAddr::new(end);
    let mut manager = PageManager::new(config, Platform::default());
    let whole = (1 << 46) - BASE;
    let reserve = mmap(0, whole / PAGE_SIZE, 0, MapFlags::PRIVATE);
    let at = manager.call(&reserve).unwrap();
    let started = std::time::Instant::now();
    let range = |request: fn(u64, u64) -> Request| [request(at, whole), request(0, end), request(at, PAGE_SIZE)];
    let all = [
        range(|addr, len| Request::Mprotect { addr, len, prot: READ }),
        range(|addr, len| Request::Madvise { addr, len, advice: 4 }),
        range(|addr, len| Request::Madvise { addr, len, advice: 10 }),
        range(|addr, len| Request::Mlock { addr, len, flags: 1 }),
        range(|addr, len| Request::Munlock { addr, len }),
        range(|addr, len| Request::NameAnonymous { addr, len, name: None }),
        range(|addr, len| {
            Request::Mremap(MremapRequest {
                addr,
                old_len: len,
                new_len: len,
                flags: RemapFlags::MAY_MOVE,
                new_addr: 0,
            })
        }),
        range(|addr, len| Request::Munmap { addr, len }),
    ];
    for request in all.as_flattened() {
        let regions = manager.map().len();
        let mut steps = 0;
        let _ = manager.call_observed(request, |plan| steps = plan.ops().len());
        assert!(steps <= regions + 1, "{request:?}: {steps} steps for {regions} regions");
    }
    for request in [Request::Mlockall { flags: 3 }, Request::Munlockall, reserve] {
        let _ = manager.call(&request);
    }
    check(&manager);
    // 2^34 pages looked at one by one would take minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn what_a_move_leaves_behind_stays_charged() {
    let (ledger, mut manager) = manager(PAGES_40);
    manager.call(&fixed(1, 10, RW)).unwrap();
    let flags = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP;
    manager.call(&mremap((1, 10), (100, 10), flags)).unwrap();
    assert_eq!(ledger.root().used(Resource::Committed), 20);
    check(&manager);
}

#[test]
fn frames_are_taken_out_of_use_by_administrators_only() {
    let (ledger, mut manager) = manager(PAGES_40);
    manager.call(&fixed(1, 1, RW)).unwrap();
    let offline = |advice: Advice| Request::Madvise { addr: BASE + PAGE_SIZE, len: PAGE_SIZE, advice: advice.raw() };
    for advice in [Advice::HwPoison, Advice::SoftOffline] {
        assert_eq!(manager.call(&offline(advice)), Err(Errno::Perm.into()));
        let mut config = config(&ledger);
        config.privileges = Privileges::ADMIN;
        let plan = PageManager::new(config, Platform::default()).plan(&offline(advice)).unwrap();
        assert!(matches!(plan.ops(), [Op::Advise { .. }]), "{:?}", plan.ops());
    }
}
