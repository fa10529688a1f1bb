//! The programs over the core's model of a platform.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagewarden::linux::Request;
use pagewarden::manager::{Privileges, Refusal, Totals};
use pagewarden::model::{Failing, Failures, Loss, Picture, Platform};
use pagewarden::provider::{Contents, Maps, Source, Target};
use pagewarden::{
    Account, Errno, Limits, Op, PageManagementProvider, PageManager, PageRange, Region, Resource, ResourceLedger,
    VirtAddr,
};
use pagewarden_linux::oracle::{Program, Step, generate};

use crate::program::{Action, Descriptors, action, config, with_limit};

type Manager = PageManager<Failing<Platform>>;

/// How calls are made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// One operation fails.
    Once(Errno, Loss),
    /// All operations fail from one on, so that undo fails too.
    Since(Errno),
}

impl Mode {
    fn failures(self, index: u32) -> Failures {
        match self {
            Self::Once(errno, loss) => Failures::once(index, errno).losing(loss),
            Self::Since(errno) => Failures::since(index, errno),
        }
    }
}

/// What has been done, to see that it was enough.
#[derive(Default, Debug)]
struct Tally {
    calls: u64,
    failures: u64,
    /// Of these, after other operations of the same call.
    late: u64,
    /// Of these, with an effect that cannot be taken back.
    lasting: u64,
    forks: u64,
}

/// All that a call may change.
#[derive(PartialEq, Debug)]
struct Snapshot {
    regions: Vec<(PageRange, Region)>,
    totals: Totals,
    program_break: VirtAddr,
    used: [u64; 4],
    picture: Picture,
}

impl Snapshot {
    fn of(manager: &Manager) -> Self {
        Self {
            regions: manager.map().iter().map(|entry| (entry.range, entry.region.clone())).collect(),
            totals: *manager.totals(),
            program_break: manager.program_break(),
            used: Resource::OF_MAP.map(|resource| manager.account().used(resource)),
            picture: manager.provider().inner().picture(),
        }
    }
}

/// Manager, platform and ledger say the same.
fn check(manager: &Manager) {
    manager.check_invariants();
    manager.provider().inner().check(manager.map());
    let mut objects = BTreeMap::new();
    for object in manager.map().iter().filter_map(|entry| entry.region.object()) {
        objects.insert(Arc::as_ptr(object), object.charge().map_or(0, |charge| charge.amount()));
    }
    let totals = manager.totals();
    let expected = [
        totals.virtual_pages,
        totals.committed_pages + objects.values().sum::<u64>(),
        totals.locked_pages,
        manager.map().len() as u64,
    ];
    assert_eq!(Resource::OF_MAP.map(|resource| manager.account().used(resource)), expected, "the account");
}

/// One process of a program.
struct Process<'a> {
    manager: Manager,
    answers: Vec<Option<u64>>,
    files: Descriptors,
    mode: Mode,
    ledger: &'a ResourceLedger,
    tally: &'a mut Tally,
}

impl Process<'_> {
    fn run(&mut self, steps: &[Step]) {
        let mut index = 0;
        while let Some(step) = steps.get(index) {
            let mut answer = None;
            match action(step, &self.manager, &self.answers, &mut self.files) {
                Action::Request(request) => answer = self.call(&request).ok(),
                Action::Limit { resource, bytes } => {
                    let limits = with_limit(&self.manager.config().limits, resource, bytes);
                    self.manager.set_limits(limits);
                }
                Action::DropPrivileges => self.manager.set_privileges(Privileges::empty()),
                Action::Write { page, word } => self.manager.provider_mut().inner_mut().write(page, word),
                Action::Fork { steps: count } => {
                    let own = &steps[index + 1..][..count.min(steps.len() - index - 1)];
                    self.fork(own);
                    self.answers.resize(self.answers.len() + own.len(), None);
                    index += own.len();
                }
                Action::Nothing => {}
            }
            self.answers.push(answer);
            index += 1;
        }
    }

    /// Makes the call fail at each of its operations, and then lets it be.
    fn call(&mut self, request: &Request) -> Result<u64, Refusal> {
        self.tally.calls += 1;
        let planned = self.manager.plan(request).map_or(0, |plan| plan.ops().len());
        for index in 0..planned.min(64) {
            self.fail(request, u32::try_from(index).unwrap());
        }
        let planned = self.manager.plan(request).map(|plan| plan.outcome()).unwrap_or_else(Err);
        let answer = self.manager.call(request);
        check(&self.manager);
        assert_eq!(answer, planned, "{request:?}");
        answer
    }

    fn fail(&mut self, request: &Request, index: u32) {
        self.fail_at(request, index);
        // Only now: what the failure is compared with holds objects, and they are paid for as long as they live.
        check(&self.manager);
    }

    fn fail_at(&mut self, request: &Request, index: u32) {
        let before = Snapshot::of(&self.manager);
        let mut expected = self.manager.provider().inner().clone();
        let failures = self.mode.failures(index);
        self.manager.provider_mut().arm(failures);
        let mut ops = Vec::new();
        let answer = self.manager.call_observed(request, |plan| ops = plan.ops().to_vec());
        let injected = self.manager.provider_mut().disarm();
        if injected == 0 {
            return;
        }
        self.tally.failures += 1;
        self.tally.late += u64::from(index > 0);
        let index = usize::try_from(index).unwrap();
        if failures.errno == Errno::Exist {
            // The place was taken, so to say; the second attempt finds it free.
            return;
        }
        if matches!(ops[index], Op::Lock { .. }) {
            assert!(answer.is_err(), "a lock stands, and the guest is told of the failure");
            return;
        }
        assert_eq!(answer.map_err(|refusal| refusal.errno), Err(failures.errno), "{request:?}");
        let after = Snapshot::of(&self.manager);
        if self.what_stays(&ops[..=index], failures.loss, &mut expected) {
            self.tally.lasting += 1;
            if self.mode == Mode::Once(failures.errno, Loss::Nothing) {
                assert!(may_last(request, &ops[..index]), "{request:?}: what cannot be undone comes last, not {ops:?}");
            }
            assert_eq!(after.picture, expected.picture(), "{request:?} failed at {index} of {ops:?}");
            assert_eq!(after.program_break, before.program_break);
        } else {
            assert_eq!(after, before, "{request:?} failed at {index} of {ops:?}");
        }
    }

    /// Does to `platform` what no failure of the last of `ops` can take back. Whether there is any such thing.
    fn what_stays(&self, ops: &[Op], loss: Loss, platform: &mut Platform) -> bool {
        let Some((failed, done)) = ops.split_last() else { return false };
        let before = platform.picture();
        let map = self.manager.map();
        let maps = Maps { before: map, after: map };
        for op in done {
            platform.run(op, maps).unwrap();
            if let Mode::Once(..) = self.mode
                && let Some(inverse) = inverse(op)
            {
                platform.run(&inverse, maps).unwrap();
            }
        }
        let emptied = match failed {
            Op::Unmap { range, .. } | Op::Map { range, target: Target::Replace, .. } => Some(*range),
            Op::Move { to, .. } | Op::Duplicate { to, target: Target::Replace, .. } => Some(*to),
            Op::SetBreak { from, to, .. } => PageRange::new(to.page_up().unwrap(), from.page_up().unwrap()),
            _ => None,
        };
        if let Some(range) = emptied.filter(|_| loss == Loss::Target) {
            platform.run(&Op::Unmap { range, contents: Contents::Other }, maps).unwrap();
        }
        platform.picture() != before
    }

    /// Forks with too little of each resource, then for nothing, then for a child that runs `steps`.
    fn fork(&mut self, steps: &[Step]) {
        self.tally.forks += 1;
        let used = || Resource::OF_MAP.map(|resource| self.ledger.root().used(resource));
        let before = used();
        let needs = {
            let account = self.account(Limits::UNLIMITED);
            let pending = self.manager.prepare_fork(account.clone()).unwrap();
            let needs = Resource::OF_MAP.map(|resource| account.used(resource));
            drop(pending);
            needs
        };
        assert_eq!(used(), before, "a fork that came to nothing");
        for (resource, need) in Resource::OF_MAP.into_iter().zip(needs) {
            if let Some(too_little) = need.checked_sub(1) {
                let account = self.account(Limits::UNLIMITED.with(resource, too_little));
                assert_eq!(self.manager.prepare_fork(account.clone()).unwrap_err().errno, Errno::NoMem);
                assert_eq!(account.used(resource), 0);
                assert_eq!(used(), before, "a fork that was refused");
            }
        }
        let pending = self.manager.prepare_fork(self.account(Limits::UNLIMITED)).unwrap();
        let manager = pending.finish(Failing::new(self.manager.provider().inner().fork()));
        manager.check_invariants();
        manager.provider().inner().check(manager.map());
        let mut child = Process {
            manager,
            answers: self.answers.clone(),
            files: self.files.clone(),
            mode: self.mode,
            ledger: self.ledger,
            tally: self.tally,
        };
        child.answers.push(None);
        // Objects that the parent made are charged to the parent, so the child's account says less.
        let mut own =
            child.manager.map().iter().all(|entry| entry.region.object().is_none_or(|o| o.charge().is_none()));
        own &= !steps.is_empty();
        if own {
            child.run(steps);
        }
        drop(child);
        check(&self.manager);
    }

    fn account(&self, limits: Limits) -> Account {
        self.ledger.root().child(limits)
    }
}

/// Whether Linux keeps an effect of `done` too when it fails after that.
fn may_last(request: &Request, done: &[Op]) -> bool {
    match request {
        // The targets of moves are gone, and locks where pages were left.
        Request::Mremap(_) => done.iter().all(|op| matches!(op, Op::Move { .. })),
        Request::Madvise { .. } | Request::NameAnonymous { .. } | Request::Shmdt { .. } => true,
        _ => false,
    }
}

/// The way back, for what has one.
fn inverse(op: &Op) -> Option<Op> {
    match op {
        Op::Protect { range, from, to } => Some(Op::Protect { range: *range, from: *to, to: *from }),
        Op::ProtectKey { range, from, to } => Some(Op::ProtectKey { range: *range, from: *to, to: *from }),
        Op::Move { from, to, region, .. } => {
            Some(Op::Move { from: *to, to: *from, source: Source::Removed, region: region.clone() })
        }
        _ => None,
    }
}

fn run(program: &Program, mode: Mode, tally: &mut Tally) {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let account = ledger.root().child(Limits::UNLIMITED);
    let manager = PageManager::new(config(account), Failing::new(Platform::default()));
    let mut process = Process { manager, answers: Vec::new(), files: Descriptors::new(), mode, ledger: &ledger, tally };
    process.run(&program.steps);
    drop(process);
    for resource in Resource::OF_MAP {
        assert_eq!(ledger.root().used(resource), 0, "{resource:?} leaked");
    }
}

/// Runs the programs of `seeds`.
fn run_all(seeds: std::ops::Range<u64>, mode: Mode) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        let program = generate(seed, 40);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&program, mode, &mut tally)));
        if let Err(panic) = outcome {
            eprintln!("with seed {seed} and {mode:?}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{mode:?}, seeds {seeds:?}: {tally:?}");
    assert!(tally.failures > 1000 && tally.late > 10 && tally.forks > 10, "{tally:?}");
    tally
}

const PROGRAMS: u64 = 600;

#[test]
fn a_call_that_fails_has_no_effect() {
    run_all(0..PROGRAMS, Mode::Once(Errno::Io, Loss::Nothing));
}

#[test]
fn what_a_failed_call_has_unmapped_is_gone_from_the_map_too() {
    let tally = run_all(PROGRAMS..2 * PROGRAMS, Mode::Once(Errno::NoMem, Loss::Target));
    assert!(tally.lasting > 100);
}

#[test]
fn a_place_that_is_taken_after_all_is_looked_for_again() {
    run_all(2 * PROGRAMS..3 * PROGRAMS, Mode::Once(Errno::Exist, Loss::Nothing));
}

#[test]
fn when_undo_fails_too_the_map_says_what_is_there() {
    run_all(3 * PROGRAMS..4 * PROGRAMS, Mode::Since(Errno::Io));
}
