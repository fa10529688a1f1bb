//! The event loop: one thread, one event at a time.
//!
//! What stops a guest thread is dealt with at once and the thread is let go on. While a plan is carried out
//! only its own thread is waited for; what happens to others meanwhile is kept ([`super::wait`]).

use std::rc::Rc;
use std::time::Instant;

use pagewarden::manager::{Cause, Overcommit, Policy, Refusal};
use pagewarden::{Limits, Resource, ResourceLedger};

use super::files::FileTable;
use super::import::{self, ImportError};
use super::process::{ExitAction, SharedSpace, Space, Task, Tree};
use super::ptrace::{self, Stop, Tid, Until};
use super::segments::Segments;
use super::signals;
use super::spawn::{self, Spawned};
use super::wait::{Event, Events};
use crate::options::{OnExit, RunOptions};
use crate::overcommit;
use crate::report::{Exit, Observer, ProcessReport, Report, RunError, RunOutcome, Usage};

/// The code segment of 32-bit programs (`__USER32_CS`).
const CODE_SEGMENT_32: u64 = 0x23;

/// A run under way.
pub(super) struct Tracer<'a> {
    pub(super) options: &'a RunOptions,
    /// The rules of the options, and the host's.
    pub(super) policy: Policy,
    pub(super) observer: Option<&'a mut dyn Observer>,
    pub(super) ledger: ResourceLedger,
    pub(super) events: Rc<Events>,
    pub(super) tree: Tree,
    pub(super) files: FileTable,
    pub(super) segments: Segments,
    pub(super) hints: Vec<String>,
    pub(super) difference: Option<String>,
    pub(super) started: Instant,
    pub(super) calls: u64,
    spawned: Spawned,
    /// How many times exec has put a program in place.
    programs_started: u64,
    exit: Option<Exit>,
    failure: Option<RunError>,
    /// Whatever stops from now on is killed.
    ending: bool,
    reports: Vec<(u64, ProcessReport)>,
}

impl<'a> Tracer<'a> {
    /// A tracer for a program that is about to execute.
    pub(super) fn new(options: &'a RunOptions, observer: Option<&'a mut dyn Observer>, spawned: Spawned) -> Self {
        let limits = Limits::UNLIMITED
            .with_bytes(Resource::Committed, options.commit_limit)
            .with_bytes(Resource::Virtual, options.reserve_limit)
            .with_bytes(Resource::Locked, options.lock_limit);
        let ledger = ResourceLedger::new(limits);
        let mut tree = Tree::default();
        let program = options.program.to_string_lossy().into_owned();
        tree.add_process(spawned.pid, std::process::id().cast_signed(), program, None);
        Self {
            options,
            policy: with_rule_of_host(&options.policy),
            observer,
            segments: Segments::new(ledger.root().clone()),
            ledger,
            events: Rc::default(),
            tree,
            files: FileTable::default(),
            hints: Vec::new(),
            difference: None,
            started: Instant::now(),
            calls: 0,
            spawned,
            programs_started: 0,
            exit: None,
            failure: None,
            ending: false,
            reports: Vec::new(),
        }
    }

    /// Runs until the last guest is gone.
    pub(super) fn run(mut self) -> Result<RunOutcome, RunError> {
        let events = Rc::clone(&self.events);
        while let Some(event) = events.next().map_err(|source| RunError::Host { what: "wait", source })? {
            self.handle(event);
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let lost = || RunError::Host { what: "wait", source: std::io::Error::from_raw_os_error(libc::ECHILD) };
        let exit = self.exit.ok_or_else(lost)?;
        self.reports.sort_by_key(|(order, _)| *order);
        let report = Report {
            usage: Usage::of(self.ledger.root()),
            commit_limit: self.options.commit_limit,
            processes: self.reports.into_iter().map(|(_, report)| report).collect(),
            processes_peak: self.tree.processes_peak,
            seconds: self.started.elapsed().as_secs_f64(),
            calls: self.calls,
        };
        Ok(RunOutcome { exit, report, difference: self.difference, hints: self.hints })
    }

    fn handle(&mut self, event: Event) {
        let tid = event.tid;
        match event.stop {
            Stop::Exited(code) => return self.gone(event, Exit::Code(code)),
            Stop::Killed(signal) => return self.gone(event, Exit::Signal(signal)),
            _ => {}
        }
        if self.ending || !self.tree.tasks.contains_key(&tid) && !self.adopt_thread(tid) {
            return kill(tid);
        }
        match event.stop {
            Stop::Seccomp => self.stopped_call(tid),
            Stop::SyscallExit => self.call_ended(tid),
            Stop::Exec => self.exec(tid),
            Stop::Group(signal) => self.group_stop(tid, signal),
            Stop::Signal(signal) => resume(tid, Until::Event, signal),
            Stop::Trap => {
                self.task(tid, |task| task.stopped = false);
                resume(tid, Until::Event, 0);
            }
            Stop::Cloned | Stop::Exited(_) | Stop::Killed(_) => resume(tid, Until::Event, 0),
        }
    }

    fn task(&mut self, tid: Tid, change: impl FnOnce(&mut Task)) {
        self.tree.tasks.get_mut(&tid).map(change);
    }

    fn group_stop(&mut self, tid: Tid, signal: i32) {
        self.task(tid, |task| task.stopped = true);
        resume(tid, Until::Continued, 0);
        if tid == self.spawned.pid {
            signals::stop_with_guest(tid, signal, || self.tree.tasks.values().all(|task| task.stopped));
        }
    }

    fn call_ended(&mut self, tid: Tid) {
        let action = self.tree.tasks.get_mut(&tid).and_then(|task| task.on_exit.take());
        match action {
            Some(ExitAction::CheckOpened) => self.check_opened(tid),
            None => resume(tid, Until::Event, 0),
        }
    }

    fn gone(&mut self, event: Event, exit: Exit) {
        let tid = event.tid;
        self.tree.tasks.remove(&tid);
        let Some(process) = self.tree.processes.remove(&tid) else { return };
        self.tree.remove_threads(tid);
        let wx_refusals = process.wx_refusals();
        if wx_refusals > 0 {
            let requests = if wx_refusals == 1 { "request" } else { "requests" };
            self.hints.push(format!(
                "{}: --wx deny refused {wx_refusals} {requests} for memory that is writable and executable; a JIT \
                 compiler needs it (node: --jitless, java: -Xint)",
                process.program
            ));
        }
        let keeps_map = self.options.keep_maps;
        let map = process.space.as_ref().filter(|_| keeps_map).map(|space| space.borrow().manager.maps_text());
        let order = process.order;
        let mut report = process.report(tid, Some(exit), event.resident_peak_kib);
        report.map_at_exit = map;
        self.reports.push((order, report));
        self.sweep_segments();
        if tid == self.spawned.pid {
            self.main_gone(exit);
        }
    }

    fn main_gone(&mut self, exit: Exit) {
        self.exit = Some(exit);
        if self.programs_started == 0
            && let Some(source) = self.spawned.exec_error()
        {
            self.failure = Some(spawn::not_executable(&self.options.program, source));
        }
        if self.options.on_exit == OnExit::Kill {
            self.end();
        }
    }

    /// Gives back what segments hold that are gone; true if anything was.
    pub(super) fn sweep_segments(&mut self) -> bool {
        !self.segments.is_empty() && self.segments.sweep(self.tree.tasks.keys().copied(), &self.files)
    }

    /// Kills the whole tree.
    pub(super) fn end(&mut self) {
        self.ending = true;
        self.tree.processes.keys().for_each(|pid| kill(*pid));
    }

    /// Kills one process and says why.
    pub(super) fn kill_with_hint(&mut self, pid: Tid, why: &str) {
        let program = self.tree.processes.get(&pid).map_or("?", |process| process.program.as_str());
        self.hints.push(format!("{program} (process {pid}) was killed: {why}"));
        kill(pid);
    }

    /// A new program is in place: all other threads are gone, and so is the old space.
    fn exec(&mut self, tid: Tid) {
        if let Ok(former) = ptrace::event_message(tid)
            && let Ok(former) = Tid::try_from(former)
        {
            self.tree.tasks.remove(&former);
        }
        self.tree.remove_threads(tid);
        self.tree.add_thread(tid, tid, None);
        let before = self.tree.processes.get(&tid).and_then(|process| process.space.clone());
        let before = before.map_or_else(import::first_attributes, |space| space.borrow().manager.attributes());
        let exe = std::fs::read_link(format!("/proc/{tid}/exe")).ok();
        let name = exe.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        if let Some(process) = self.tree.processes.get_mut(&tid) {
            process.replace_space(None);
            process.program = name.unwrap_or_else(|| process.program.clone());
        }
        let Ok(registers) = ptrace::registers(tid) else { return };
        self.programs_started += 1;
        if registers.cs == CODE_SEGMENT_32 {
            return self.kill_with_hint(tid, "32-bit programs cannot be run");
        }
        let Some(space) = self.import(tid) else { return kill(tid) };
        {
            let manager = &mut space.borrow_mut().manager;
            manager.set_attributes(before.after_exec(manager.config().features));
        }
        if let Some(process) = self.tree.processes.get_mut(&tid) {
            process.space = Some(Rc::clone(&space));
        }
        self.tree.add_thread(tid, tid, Some(space));
        self.close_writable_code(tid);
    }

    fn import(&mut self, tid: Tid) -> Option<SharedSpace> {
        let account = self.new_account();
        match import::import(tid, account, &self.policy, &mut self.files, &|_| None) {
            Ok(manager) => return Some(Space::share(manager)),
            Err(ImportError::Host(_)) if !std::path::Path::new(&format!("/proc/{tid}")).exists() => {}
            Err(ImportError::Host(error)) => {
                self.kill_with_hint(tid, &format!("the host does not show what it has mapped ({error})"));
            }
            Err(ImportError::Limit { refusal, needed }) => self.too_large(tid, refusal, needed),
        }
        None
    }

    fn too_large(&mut self, tid: Tid, refusal: Refusal, needed: import::Needed) {
        let (limit, given, needed) = match refusal.cause {
            Cause::Limit(Resource::Committed) => ("--commit-limit", self.options.commit_limit, needed.committed),
            Cause::Limit(Resource::Virtual) => ("--reserve-limit", self.options.reserve_limit, needed.reserved),
            Cause::Limit(Resource::Regions) => ("--map-limit", self.options.map_limit, needed.regions),
            _ => ("--lock-limit", self.options.lock_limit, 0),
        };
        if self.programs_started == 1 {
            let program = self.options.program.to_string_lossy().into_owned();
            let given = given.unwrap_or(0);
            self.failure = Some(RunError::LimitTooSmall { limit, given, needed, program });
            return;
        }
        self.kill_with_hint(tid, &format!("{limit} leaves too little for it to start"));
    }

    /// An account for a new space.
    pub(super) fn new_account(&self) -> pagewarden::Account {
        let most = self.options.map_limit.unwrap_or(u64::MAX);
        self.ledger.root().child(Limits::UNLIMITED.with(Resource::Regions, most))
    }
}

/// `policy` with the host's rule for steps that are larger than the machine.
///
/// The host applies that rule to each host call. A plan must know where it ends a call: what Linux has changed before
/// stays changed, while what a host call refuses without the plan's knowledge is taken back as a whole.
fn with_rule_of_host(policy: &Policy) -> Policy {
    let rule = match policy.overcommit {
        Overcommit::Always => overcommit::of_host().ok(),
        _ => None,
    };
    // In mode 2 it depends on what everybody else has been promised, which is not known here.
    let rule = rule.filter(|rule| matches!(rule, Overcommit::Heuristic { .. }));
    Policy { overcommit: rule.unwrap_or(policy.overcommit), ..policy.clone() }
}

/// Lets a thread go on; one that has died says so by its next event.
pub(super) fn resume(tid: Tid, until: Until, signal: i32) {
    let _ = ptrace::resume(tid, until, signal);
}

/// Kills the process of a thread that is traced and has not been waited for, so that the number is its own.
pub(super) fn kill(tid: Tid) {
    // SAFETY: plain numbers.
    let _ = unsafe { libc::kill(tid, libc::SIGKILL) };
}
