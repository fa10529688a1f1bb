//! Small cases of threads on one ledger and on one space, in every order that their steps can have (loom).
//!
//! Run with `cargo xtask interleavings`; without `--cfg loom` there is nothing here. docs/concurrency.md says what is
//! checked and how far.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "interleavings/capabilities.rs"]
mod capabilities;
#[path = "support/events.rs"]
mod events;
#[path = "interleavings/frames.rs"]
mod frames;
#[path = "interleavings/machine.rs"]
mod machine;
#[path = "interleavings/reservations.rs"]
mod reservations;

use pagewarden::model::SMALL_LAYOUT;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::Mutex;
use loom::thread;
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::manager::SpaceConfig;
use pagewarden::model::Platform;
use pagewarden::{Account, Errno, Limits, PAGE_SIZE, PageManager, Resource, ResourceLedger};

use Resource::{Committed, Virtual};

const BASE: u64 = 0x10_0000;
const RW: u64 = 3;

/// Every order in which threads switch.
fn every_order(case: impl Fn() + Sync + Send + 'static) {
    check_orders(None, case);
}

/// Every order in which threads switch at most `switches` times before they have to.
fn orders(switches: usize, case: impl Fn() + Sync + Send + 'static) {
    check_orders(Some(switches), case);
}

fn check_orders(switches: Option<usize>, case: impl Fn() + Sync + Send + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = switches;
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        case();
    });
    println!("{} orders", count.load(Ordering::Relaxed));
}

/// Runs both at once.
fn both<A: 'static, B>(a: impl FnOnce() -> A + 'static, b: impl FnOnce() -> B) -> (A, B) {
    let other = thread::spawn(a);
    let b = b();
    (other.join().unwrap(), b)
}

#[test]
fn two_charges_that_race_for_the_last_page_do_not_both_get_it() {
    every_order(|| {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 1));
        let (a, b) = (ledger.root().child(Limits::UNLIMITED), ledger.root().child(Limits::UNLIMITED));
        let (a, b) = both(move || a.charge(Committed, 1), || b.charge(Committed, 1));
        assert!(a.is_ok() != b.is_ok(), "one gets it");
        assert_eq!((ledger.root().used(Committed), ledger.root().peak(Committed)), (1, 1));
        drop((a, b));
        assert_eq!(ledger.root().used(Committed), 0);
    });
}

#[test]
fn the_peak_is_no_less_than_what_two_held_at_once() {
    every_order(|| {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let root = ledger.root().clone();
        let (a, b) = both(move || root.charge(Committed, 2).unwrap(), || ledger.root().charge(Committed, 3).unwrap());
        assert_eq!((ledger.root().used(Committed), ledger.root().peak(Committed)), (5, 5));
        drop((a, b));
        assert_eq!((ledger.root().used(Committed), ledger.root().peak(Committed)), (0, 5));
    });
}

#[test]
fn a_charge_that_is_refused_above_leaves_no_trace_below() {
    every_order(|| {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 1));
        let parent = ledger.root().child(Limits::UNLIMITED);
        let a = parent.child(Limits::UNLIMITED);
        let other = parent.clone();
        let charge = |account: &Account| assert!(account.charge(Committed, 2).is_err());
        both(move || charge(&other), || charge(&a));
        for account in [&a, &parent, ledger.root()] {
            assert_eq!(account.used(Committed), 0);
        }
    });
}

#[test]
fn what_two_threads_raise_and_give_back_is_neither_lost_nor_given_twice() {
    every_order(|| {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 8));
        let charge = Arc::new(ledger.root().charge(Committed, 2).unwrap());
        let other = Arc::clone(&charge);
        both(move || other.raise(3).unwrap(), || charge.give_back(4));
        let held = charge.amount();
        assert!(held == 1 || held == 3, "given back after the raise, or before: {held}");
        assert_eq!(ledger.root().used(Committed), held);
        drop(charge);
        assert_eq!(ledger.root().used(Committed), 0);
    });
}

#[test]
fn a_limit_that_is_lowered_meanwhile_takes_nothing_back() {
    every_order(|| {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 4));
        let account = ledger.root().child(Limits::UNLIMITED);
        let root = ledger.root().clone();
        let ((), charge) = both(move || root.set_limit(Committed, 1), || account.charge(Committed, 2));
        assert_eq!(ledger.root().used(Committed), if charge.is_ok() { 2 } else { 0 });
        assert!(account.charge(Committed, 2).is_err(), "the limit is in force by now");
        drop(charge);
        assert_eq!((ledger.root().used(Committed), ledger.root().available(Committed)), (0, 1));
    });
}

fn config(account: Account) -> SpaceConfig {
    SpaceConfig { regions_max: 1000, ..SpaceConfig::new(SMALL_LAYOUT, account) }
}

fn space(account: Account) -> PageManager<Platform> {
    PageManager::new(config(account), Platform::default())
}

fn mmap(page: u64, pages: u64, kind: MapFlags) -> Request {
    let flags = kind | MapFlags::ANONYMOUS | MapFlags::FIXED;
    let (addr, len) = (BASE + page * PAGE_SIZE, pages * PAGE_SIZE);
    Request::Mmap(MmapRequest { addr, len, prot: RW, flags, source: MapSource::Anonymous, offset: 0 })
}

fn munmap(page: u64, pages: u64) -> Request {
    Request::Munmap { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE }
}

fn mprotect(page: u64, pages: u64, prot: u64) -> Request {
    Request::Mprotect { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, prot }
}

fn check(manager: &PageManager<Platform>) {
    manager.check_invariants();
    manager.provider().check(manager.map());
}

#[test]
fn two_spaces_share_a_budget_and_stay_within_it() {
    orders(4, || {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 3));
        let run = |mut space: PageManager<Platform>| {
            let answer = space.call(&mmap(1, 2, MapFlags::PRIVATE));
            check(&space);
            (space, answer.is_ok())
        };
        let [a, b] = [0; 2].map(|_| space(ledger.root().child(Limits::UNLIMITED)));
        let ((a, a_has), (b, b_has)) = both(move || run(a), || run(b));
        assert!(a_has != b_has, "one of the two, whoever comes first");
        assert_eq!((ledger.root().used(Committed), ledger.root().used(Virtual)), (2, 2));
        assert!(ledger.root().peak(Committed) <= 3);
        drop((a, b));
        assert!(Resource::ALL.iter().all(|resource| ledger.root().used(*resource) == 0));
    });
}

#[test]
fn threads_of_one_space_take_turns() {
    orders(4, || {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 6));
        let shared = Arc::new(Mutex::new(space(ledger.root().clone())));
        shared.lock().unwrap().call(&mmap(1, 4, MapFlags::PRIVATE)).unwrap();
        let other = Arc::clone(&shared);
        both(
            move || {
                other.lock().unwrap().call(&munmap(2, 1)).unwrap();
                other.lock().unwrap().call(&mmap(8, 2, MapFlags::PRIVATE)).unwrap();
            },
            || {
                let answer = shared.lock().unwrap().call(&mprotect(1, 4, 1));
                assert!(answer.is_ok() || answer.unwrap_err().errno == Errno::NoMem, "before the hole, or after it");
            },
        );
        check(&shared.lock().unwrap());
        assert_eq!(ledger.root().used(Virtual), 5);
    });
}

#[test]
fn a_plan_that_another_thread_has_overtaken_is_refused() {
    orders(4, || {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let shared = Arc::new(Mutex::new(space(ledger.root().clone())));
        let other = Arc::clone(&shared);
        let (_, is_stale) = both(
            move || other.lock().unwrap().call(&mmap(1, 2, MapFlags::PRIVATE)).unwrap(),
            || {
                let plan = shared.lock().unwrap().plan(&mmap(2, 2, MapFlags::PRIVATE)).unwrap();
                match shared.lock().unwrap().apply(plan) {
                    Ok(_) => false,
                    Err(refusal) => refusal.errno == Errno::Again,
                }
            },
        );
        check(&shared.lock().unwrap());
        assert_eq!(ledger.root().used(Virtual), if is_stale { 2 } else { 3 });
    });
}

#[test]
fn memory_that_two_spaces_share_is_given_back_once() {
    orders(4, || {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 4));
        let mut parent = space(ledger.root().child(Limits::UNLIMITED));
        parent.call(&mmap(1, 3, MapFlags::SHARED)).unwrap();
        let pending = parent.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
        let mut child = pending.finish(parent.provider().fork());
        let unmap = move || {
            child.call(&munmap(1, 3)).unwrap();
        };
        both(unmap, || drop(parent));
        for resource in Resource::ALL {
            assert_eq!(ledger.root().used(resource), 0, "{resource:?}");
        }
    });
}

#[test]
fn a_fork_among_calls_copies_one_state() {
    orders(4, || {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 8));
        let shared = Arc::new(Mutex::new(space(ledger.root().child(Limits::UNLIMITED))));
        shared.lock().unwrap().call(&mmap(1, 2, MapFlags::PRIVATE)).unwrap();
        let (other, account) = (Arc::clone(&shared), ledger.root().child(Limits::UNLIMITED));
        let (child, ()) = both(
            move || {
                let mut parent = other.lock().unwrap();
                let pending = parent.prepare_fork(account).unwrap();
                let pages = parent.provider().fork();
                drop(parent);
                pending.finish(pages)
            },
            || {
                shared.lock().unwrap().call(&munmap(1, 1)).unwrap();
            },
        );
        check(&child);
        check(&shared.lock().unwrap());
        assert_eq!(ledger.root().used(Committed), child.totals().committed_pages + 1);
    });
}
