//! The host and a table of segments answer random sequences of shmget, shmctl, shmat, shmdt and what else changes
//! attaches alike, each sequence in an IPC namespace of its own, by three users.
//!
//! `PAGEWARDEN_SEED` sets the first seed, `PAGEWARDEN_SYSV_CASES` how many sequences there are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../common/child.rs"]
mod child;
mod host;
#[path = "../common/setting.rs"]
mod setting;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use pagewarden::linux::{MremapRequest, RemapFlags, Request};
use pagewarden::manager::{Layout, NoReserve, PendingFork, Privileges, SpaceConfig};
use pagewarden::object::sysv::{
    Credentials, Ownership, SegmentLimits, SegmentPolicy, SegmentStatus, SegmentTable, StatusOf, Surroundings,
};
use pagewarden::{Errno, Limits, Op, PAGE_SHIFT, PAGE_SIZE, PageManagementProvider, PageManager, ResourceLedger};
use pagewarden_linux::oracle::generate::Rng;

use host::{Fork, GROUP, Host, LOCK_LIMIT, PAGES, WINDOW};
use setting::setting;

const STEPS: u64 = 80;
/// Sequences a child does.
const BATCH: u64 = 25;
const CREATE: i32 = 0o1000;
const EXCLUSIVE: i32 = 0o2000;
const NO_RESERVE: i32 = 0o10000;

struct Nowhere;

impl PageManagementProvider for Nowhere {
    fn run(&mut self, _: &Op, _: pagewarden::provider::Maps<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

/// The host's clock, and the process that does the next step.
struct Now(AtomicI32);

impl Surroundings for Now {
    fn now(&self) -> i64 {
        host::now()
    }

    fn pid(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn segments_are_those_of_the_host() {
    if let Some(reason) = host::why_not() {
        return println!("skipped: {reason}");
    }
    let first = setting("PAGEWARDEN_SEED", 1);
    let cases = setting("PAGEWARDEN_SYSV_CASES", 250);
    let mut counts = [0; 4];
    for batch in 0..cases.div_ceil(BATCH) {
        let of_batch = child::in_child(|| run_batch(first + batch * BATCH));
        for (sum, count) in counts.iter_mut().zip(of_batch) {
            *sum += count;
        }
    }
    let [steps, successes, statuses, early] = counts;
    println!("{steps} steps, {successes} successful, {statuses} statuses; {early} of {cases} sequences ended early");
    assert!(successes > steps / 4 && statuses > cases * 10 && early < cases / 2, "the sequences say too little");
}

fn run_batch(seed: u64) -> [u64; 4] {
    let mut counts = [0; 4];
    let host = Host::new();
    for seed in seed..seed + BATCH {
        Sequence::new(seed, &host).run(&mut counts);
    }
    counts
}

struct Sequence<'a> {
    seed: u64,
    rng: Rng,
    host: &'a Host,
    now: Arc<Now>,
    table: SegmentTable,
    space: PageManager<Nowhere>,
    ledger: ResourceLedger,
    fork: Option<(Fork, PageManager<Nowhere>)>,
    user: u32,
    ids: Vec<i32>,
    story: Vec<String>,
}

impl<'a> Sequence<'a> {
    fn new(seed: u64, host: &'a Host) -> Self {
        let mut rng = Rng::new(seed);
        let mut limits = SegmentLimits::default();
        if rng.chance(40) {
            limits.segments_max = u32::try_from(rng.below(12)).unwrap();
        }
        if rng.chance(30) {
            limits.pages_max = rng.below(20);
        }
        if rng.chance(30) {
            limits.bytes_max = rng.below(6 * PAGE_SIZE);
        }
        host.new_namespace(&limits);
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let overcommit = pagewarden_linux::overcommit::of_host().unwrap();
        let policy = SegmentPolicy { account: ledger.root().clone(), overcommit, no_reserve: NoReserve::Free };
        let now = Arc::new(Now(AtomicI32::new(host::pid())));
        let table = SegmentTable::new(limits, policy, Arc::<Now>::clone(&now));
        let space = PageManager::new(config(&ledger), Nowhere);
        let (fork, user, ids, story) = (None, 0, Vec::new(), vec![format!("{limits:?}")]);
        Self { seed, rng, host, now, table, space, ledger, fork, user, ids, story }
    }

    fn run(mut self, counts: &mut [u64; 4]) {
        for _ in 0..STEPS {
            let is_good = self.step();
            counts[0] += 1;
            counts[1] += u64::from(is_good);
            self.space.check_invariants();
            if host::has_equal_neighbours() {
                // One region to the manager, and one attach.
                counts[3] += 1;
                break;
            }
            counts[2] += self.compare_all();
        }
        self.host.become_user(0);
        if let Some((fork, _)) = self.fork.take() {
            fork.end();
        }
        self.host.unmap(WINDOW, PAGES << PAGE_SHIFT).unwrap();
        // The kernel ends a namespace at leisure, and until then counts what is locked there for its user.
        for id in &self.ids {
            let _ = self.host.unlock(*id);
        }
    }

    fn caller(&self) -> Credentials<'static> {
        let is_root = self.user == 0;
        Credentials {
            user: self.user,
            group: self.user,
            groups: &[GROUP],
            privileges: if is_root { Privileges::all() } else { Privileges::empty() },
            ownership: if is_root { Ownership::All } else { Ownership::Own },
            lock_limit: LOCK_LIMIT,
            virtual_pages: self.space.totals().virtual_pages,
        }
    }

    /// True if the step succeeded on both sides.
    fn step(&mut self) -> bool {
        let step = self.rng.weighted(&[
            (20, Self::get as fn(&mut Self) -> bool),
            (20, Self::attach),
            (8, Self::detach),
            (10, Self::unmap),
            (5, Self::protect),
            (8, Self::relocate),
            (8, Self::remove),
            (6, Self::set),
            (6, Self::lock),
            (10, Self::status),
            (4, Self::info),
            (8, Self::become_somebody),
            (5, Self::fork),
        ]);
        step(self)
    }

    /// Notes the step and compares what both sides say.
    fn same<T: PartialEq + std::fmt::Debug>(
        &mut self,
        step: &str,
        found: Result<T, i32>,
        ours: Result<T, Errno>,
    ) -> bool {
        let ours = ours.map_err(|errno| i32::from(errno.raw()));
        self.story.push(format!("{step}: host {found:?}, table {ours:?}"));
        assert_eq!(ours, found, "{}", self.told());
        ours.is_ok()
    }

    fn told(&self) -> String {
        format!("PAGEWARDEN_SEED={} PAGEWARDEN_SYSV_CASES=1\n{}", self.seed, self.story.join("\n"))
    }

    fn get(&mut self) -> bool {
        let key = i32::try_from(self.rng.below(5)).unwrap();
        let huge = i64::MAX.cast_unsigned();
        let bytes = match self.rng.below(12) {
            0 => self.rng.pick(&[0, huge, huge + 1, huge - PAGE_SIZE, u64::MAX, u64::MAX - (1 << 24)]),
            _ => self.rng.below(5 * PAGE_SIZE),
        };
        let mut flags = self.rng.pick(&[0o600, 0o660, 0o666, 0o400, 0o700, 0o040, 0o004, 0, 0o777]);
        for (flag, percent) in [(CREATE, 80), (EXCLUSIVE, 20), (NO_RESERVE, 30)] {
            if self.rng.chance(percent) {
                flags |= flag;
            }
        }
        let found = self.host.get(key, bytes, flags);
        let ours = self.table.get(&self.caller(), key, bytes, flags);
        self.ids.extend(found);
        self.same(&format!("shmget {key} {bytes} {flags:o}"), found, ours)
    }

    fn some_id(&mut self) -> i32 {
        if self.ids.is_empty() || self.rng.chance(8) {
            return self.rng.pick(&[-1, 0, 1, 2, 64, 0x8000, 0x8001, i32::MAX, i32::MIN]);
        }
        let recent = self.ids.len().saturating_sub(8);
        let id = self.rng.pick(&self.ids[recent..]);
        if self.rng.chance(5) { id ^ 0x8000 } else { id }
    }

    fn some_address(&mut self) -> u64 {
        WINDOW + (self.rng.below(PAGES - 8) << PAGE_SHIFT)
    }

    /// The start of a region, or any place.
    fn some_region(&mut self) -> (u64, u64) {
        let ranges: Vec<_> = self.space.map().iter().map(|entry| entry.range).collect();
        if ranges.is_empty() || self.rng.chance(15) {
            return (self.some_address(), 1);
        }
        let range = self.rng.pick(&ranges);
        (range.start().as_u64(), range.pages().get())
    }

    fn attach(&mut self) -> bool {
        let id = self.some_id();
        let addr = self.some_address() + self.rng.pick(&[0, 0, 0, 0, 8]);
        let flags = self.rng.pick(&[0, 0, 0, 0o10_000, 0o20_000, 0o40_000, 0o60_000, 0o100_000, 0o110_000]);
        // A segment of half the address space covers what is not ours.
        let caller = self.caller();
        let segment = self.table.segment(&caller, id);
        if segment.as_ref().is_ok_and(|segment| segment.pages.get() > 8) {
            return false;
        }
        let found = self.host.attach(id, addr, flags);
        let ours = segment.and_then(|segment| {
            self.space.call(&Request::Shmat { segment, addr, flags }).map_err(|refusal| refusal.errno)
        });
        self.same(&format!("shmat {id} {addr:#x} {flags:o}"), found, ours)
    }

    fn call(&mut self, step: &str, found: Result<u64, i32>, request: &Request) -> bool {
        let ours = self.space.call(request).map_err(|refusal| refusal.errno);
        self.same(step, found, ours)
    }

    fn detach(&mut self) -> bool {
        let (addr, _) = self.some_region();
        self.call(&format!("shmdt {addr:#x}"), self.host.detach(addr), &Request::Shmdt { addr })
    }

    fn unmap(&mut self) -> bool {
        let (addr, len) = self.some_part();
        self.call(&format!("munmap {addr:#x} {len:#x}"), self.host.unmap(addr, len), &Request::Munmap { addr, len })
    }

    fn some_part(&mut self) -> (u64, u64) {
        let (start, pages) = self.some_region();
        let first = self.rng.below(pages);
        let count = 1 + self.rng.below(pages - first);
        (start + (first << PAGE_SHIFT), count << PAGE_SHIFT)
    }

    fn protect(&mut self) -> bool {
        let (addr, len) = self.some_part();
        let prot = self.rng.pick(&[0, 1, 3, 5]);
        let found = self.host.protect(addr, len, prot);
        self.call(&format!("mprotect {addr:#x} {len:#x} {prot}"), found, &Request::Mprotect { addr, len, prot })
    }

    fn relocate(&mut self) -> bool {
        let (addr, old_len) = self.some_part();
        let new_len = match self.rng.below(3) {
            0 => old_len,
            1 => (1 + self.rng.below(6)) << PAGE_SHIFT,
            _ => PAGE_SIZE,
        };
        let new_addr = self.some_address();
        let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
        let found = self.host.relocate(addr, old_len, new_len, new_addr);
        let request = Request::Mremap(MremapRequest { addr, old_len, new_len, flags, new_addr });
        self.call(&format!("mremap {addr:#x} {old_len:#x} {new_len:#x} {new_addr:#x}"), found, &request)
    }

    fn remove(&mut self) -> bool {
        let id = self.some_id();
        let (found, ours) = (self.host.remove(id), self.table.remove(&self.caller(), id));
        self.same(&format!("rmid {id}"), found, ours)
    }

    fn set(&mut self) -> bool {
        let id = self.some_id();
        let owner = (self.rng.pick(&[0, 1000, 1001, u32::MAX]), self.rng.pick(&[0, 1000, 1001, GROUP, u32::MAX]));
        let mode = self.rng.pick(&[0o600, 0o666, 0o440, 0o7070, 0]);
        let found = self.host.set(id, owner, mode);
        let ours = self.table.set(&self.caller(), id, owner, mode);
        self.same(&format!("set {id} {owner:?} {mode:o}"), found, ours)
    }

    fn lock(&mut self) -> bool {
        let id = self.some_id();
        if self.rng.chance(60) {
            let (found, ours) = (self.host.lock(id), self.table.lock(&self.caller(), id));
            self.same(&format!("lock {id}"), found, ours)
        } else {
            let (found, ours) = (self.host.unlock(id), self.table.unlock(&self.caller(), id));
            self.same(&format!("unlock {id}"), found, ours)
        }
    }

    fn status(&mut self) -> bool {
        let id = self.some_id();
        let of = self.rng.pick(&[StatusOf::Id, StatusOf::Slot, StatusOf::AnySlot]);
        self.compare_status(id, of)
    }

    fn compare_status(&mut self, id: i32, of: StatusOf) -> bool {
        let found = self.host.status(id, of);
        let ours = self.table.status(&self.caller(), id, of);
        let found = found.map(|found| with_times_of(found, ours.as_ref().ok()));
        self.same(&format!("status {id} {of:?}"), found, ours)
    }

    /// Compares every segment there may be, as somebody who may see all; returns how many there are.
    fn compare_all(&mut self) -> u64 {
        let recent = self.ids.len().saturating_sub(12);
        let ids: Vec<i32> = self.ids[recent..].to_vec();
        let length = self.story.len();
        let count = ids.into_iter().filter(|id| self.compare_status(*id, StatusOf::AnySlot)).count();
        self.story.truncate(length);
        u64::try_from(count).unwrap()
    }

    fn info(&mut self) -> bool {
        let usage = self.table.usage();
        let limits = *self.table.limits();
        let found = self.host.info();
        let ours = (usage.segments, usage.pages, usage.highest_slot, limits);
        self.same("info", Ok(found), Ok(ours))
    }

    fn become_somebody(&mut self) -> bool {
        self.user = self.rng.pick(&[0, 0, 1000, 1001]);
        self.host.become_user(self.user);
        self.story.push(format!("user {}", self.user));
        true
    }

    /// Makes a child, which has everything attached too, or ends it.
    fn fork(&mut self) -> bool {
        match self.fork.take() {
            None => {
                let account = self.ledger.root().child(Limits::UNLIMITED);
                let space =
                    self.space.prepare_fork(account).map(|pending: PendingFork| pending.finish(Nowhere)).unwrap();
                self.fork = Some((Fork::new(), space));
                self.story.push("fork".to_owned());
            }
            Some((fork, space)) => {
                self.now.0.store(fork.pid(), Ordering::Relaxed);
                fork.end();
                drop(space);
                self.now.0.store(host::pid(), Ordering::Relaxed);
                self.story.push("the child ends".to_owned());
            }
        }
        true
    }
}

/// Clocks of both sides are read one after the other: a second more on the host is the same time.
fn with_times_of(found: SegmentStatus, ours: Option<&SegmentStatus>) -> SegmentStatus {
    let Some(ours) = ours else { return found };
    let near = |found: i64, ours: i64| if (found - ours).abs() <= 1 { ours } else { found };
    SegmentStatus {
        attached_at: near(found.attached_at, ours.attached_at),
        detached_at: near(found.detached_at, ours.detached_at),
        changed_at: near(found.changed_at, ours.changed_at),
        ..found
    }
}

fn config(ledger: &ResourceLedger) -> SpaceConfig {
    SpaceConfig::new(Layout::X86_64, ledger.root().child(Limits::UNLIMITED))
}
