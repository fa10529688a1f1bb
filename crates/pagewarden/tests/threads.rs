//! Threads on one ledger and on one space, with the machine's own schedules: no charge is lost, no limit exceeded, and
//! everybody comes to an end.
//!
//! The same program runs under ThreadSanitizer with `cargo xtask sanitizer`.

#[path = "threads/capabilities.rs"]
mod capabilities;
#[path = "threads/pager.rs"]
mod pager;
#[path = "threads/reservations.rs"]
mod reservations;

use pagewarden::model::SMALL_LAYOUT;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use pagewarden::linux::{Advice, MapFlags, MapSource, MmapRequest, MremapRequest, RemapFlags, Request};
use pagewarden::manager::{Break, SpaceConfig};
use pagewarden::model::Platform;
use pagewarden::{Account, Errno, Limits, PAGE_SIZE, PageManager, Resource, ResourceLedger, VirtAddr};

const BASE: u64 = 0x10_0000;
const HEAP: u64 = 0x80_0000;
const THREADS: u64 = 8;
const CALLS: u64 = 500;
/// Pages that may be committed by all together.
const BUDGET: u64 = 60;

/// Numbers that look random (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn request(&mut self) -> Request {
        let (page, pages) = (self.below(40), 1 + self.below(6));
        let (addr, len) = (BASE + page * PAGE_SIZE, pages * PAGE_SIZE);
        match self.below(12) {
            0..=3 => {
                let kind = if self.below(4) == 0 { MapFlags::SHARED } else { MapFlags::PRIVATE };
                let flags = kind | MapFlags::ANONYMOUS | MapFlags::FIXED;
                let prot = self.below(4);
                Request::Mmap(MmapRequest { addr, len, prot, flags, source: MapSource::Anonymous, offset: 0 })
            }
            4..=5 => Request::Munmap { addr, len },
            6..=7 => Request::Mprotect { addr, len, prot: self.below(4) },
            8 => Request::Madvise { addr, len, advice: Advice::DontNeed.raw() },
            9 => Request::Brk { addr: HEAP + self.below(20) * PAGE_SIZE },
            10 => Request::Mlock { addr, len, flags: 0 },
            _ => {
                let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
                let new_addr = BASE + (60 + self.below(20)) * PAGE_SIZE;
                Request::Mremap(MremapRequest { addr, old_len: len, new_len: len, flags, new_addr })
            }
        }
    }
}

fn config(account: Account) -> SpaceConfig {
    SpaceConfig {
        brk: Break { start: VirtAddr::new(HEAP), current: VirtAddr::new(HEAP), data_bytes: 0 },
        regions_max: 1000,
        ..SpaceConfig::new(SMALL_LAYOUT, account)
    }
}

fn space(account: Account) -> PageManager<Platform> {
    PageManager::new(config(account), Platform::default())
}

fn ledger() -> ResourceLedger {
    ResourceLedger::new(Limits::UNLIMITED.with(Resource::Committed, BUDGET))
}

fn check(manager: &PageManager<Platform>) {
    manager.check_invariants();
    manager.provider().check(manager.map());
}

#[track_caller]
fn check_all_given_back(ledger: &ResourceLedger) {
    for resource in Resource::ALL {
        assert_eq!(ledger.root().used(resource), 0, "{resource:?} leaked");
    }
    assert!(ledger.root().peak(Resource::Committed) <= BUDGET);
}

/// Runs `work` in as many threads as there are, while `watch` runs over and over in one more.
fn in_threads(work: impl Fn(u64) + Sync, watch: impl Fn() + Sync) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                watch();
                thread::yield_now();
            }
        });
        thread::scope(|workers| {
            for index in 0..THREADS {
                let work = &work;
                workers.spawn(move || work(index));
            }
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn charges_from_many_threads_add_up() {
    let ledger = ledger();
    let parents = [0; 2].map(|_| ledger.root().child(Limits::UNLIMITED.with(Resource::Committed, BUDGET / 2 + 5)));
    let common = ledger.root().charge(Resource::Committed, 0).unwrap();
    let granted = Mutex::new([0_u64; 2]);
    in_threads(
        |index| {
            let mut numbers = Numbers::new(index + 1);
            let account = parents[usize::try_from(index % 2).unwrap()].child(Limits::UNLIMITED);
            let mut held = Vec::new();
            for _ in 0..CALLS * 20 {
                match numbers.below(6) {
                    0..=1 => {
                        let charge = account.charge(Resource::Committed, numbers.below(8));
                        granted.lock().unwrap()[usize::from(charge.is_ok())] += 1;
                        held.extend(charge);
                    }
                    2 => drop(held.pop()),
                    3 => held.clear(),
                    4 => drop(common.raise(numbers.below(4))),
                    _ => common.give_back(numbers.below(4)),
                }
            }
        },
        || {
            assert!(ledger.root().used(Resource::Committed) <= BUDGET);
            assert!(parents.iter().all(|parent| parent.used(Resource::Committed) <= BUDGET / 2 + 5));
        },
    );
    let [refused, granted] = granted.into_inner().unwrap();
    assert!(refused > 10 && granted > 10, "{refused} {granted}");
    assert_eq!(ledger.root().used(Resource::Committed), common.amount());
    drop(common);
    check_all_given_back(&ledger);
}

#[test]
fn one_space_serves_many_threads() {
    let ledger = ledger();
    let shared = Mutex::new(space(ledger.root().child(Limits::UNLIMITED)));
    let (stale, done) = (Mutex::new(0), Mutex::new(0));
    in_threads(
        |index| {
            let mut numbers = Numbers::new(index + 101);
            for _ in 0..CALLS {
                let request = numbers.request();
                if numbers.below(4) == 0 {
                    // Planned and carried out one after the other; others may come between.
                    let plan = shared.lock().unwrap().plan(&request);
                    thread::yield_now();
                    let Ok(plan) = plan else { continue };
                    let answer = shared.lock().unwrap().apply(plan);
                    let is_stale = answer.is_err_and(|refusal| refusal.errno == Errno::Again);
                    *stale.lock().unwrap() += u64::from(is_stale);
                } else {
                    let answer = shared.lock().unwrap().call(&request);
                    *done.lock().unwrap() += u64::from(answer.is_ok());
                }
            }
        },
        || check(&shared.lock().unwrap()),
    );
    assert!(*stale.lock().unwrap() > 0, "no plan was ever overtaken");
    assert!(*done.lock().unwrap() > 100);
    drop(shared);
    check_all_given_back(&ledger);
}

#[test]
fn spaces_fork_and_end_in_many_threads() {
    let ledger = ledger();
    let (orphans, parents_done) = mpsc::channel::<PageManager<Platform>>();
    let orphans = Mutex::new(orphans);
    let reaper = thread::spawn(move || {
        // Ends children in a thread where none of their memory was made.
        parents_done.into_iter().fold(0_u64, |ended, child| {
            check(&child);
            ended + 1
        })
    });
    in_threads(
        |index| {
            let mut numbers = Numbers::new(index + 201);
            let mut own = space(ledger.root().child(Limits::UNLIMITED));
            let orphans = orphans.lock().unwrap().clone();
            for _ in 0..CALLS {
                let _ = own.call(&numbers.request());
                if numbers.below(8) != 0 {
                    continue;
                }
                if let Ok(pending) = own.prepare_fork(ledger.root().child(Limits::UNLIMITED)) {
                    let mut child = pending.finish(own.provider().fork());
                    let _ = child.call(&numbers.request());
                    orphans.send(child).unwrap();
                }
            }
            check(&own);
        },
        || assert!(ledger.root().used(Resource::Committed) <= BUDGET),
    );
    drop(orphans);
    assert!(reaper.join().unwrap() > 50);
    check_all_given_back(&ledger);
}
