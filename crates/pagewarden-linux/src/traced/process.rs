//! Tables: threads, address spaces and processes of the guest.
//!
//! A thread belongs to a process and uses a space. Threads of a process share its space; so does a child
//! made with `CLONE_VM` (vfork), until it executes a program. Invariant: each thread's process is in the
//! table as long as the thread is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pagewarden::PageManager;
use pagewarden::manager::{Cause, Refusal};

use super::provider::TracedProvider;
use super::ptrace::Tid;
use crate::report::{CallTally, Exit, ProcessReport, Usage};

/// One address space.
#[derive(Debug)]
pub(super) struct Space {
    /// What is mapped and who pays.
    pub(super) manager: PageManager<TracedProvider>,
    /// A thread died or went astray while it carried out a plan: what the host has is to be looked up.
    pub(super) stale: bool,
}

impl Space {
    /// A space around `manager`.
    pub(super) fn share(manager: PageManager<TracedProvider>) -> SharedSpace {
        Rc::new(RefCell::new(Self { manager, stale: false }))
    }
}

/// A space that threads and vfork children have in common.
pub(super) type SharedSpace = Rc<RefCell<Space>>;

/// What is looked at when a call has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExitAction {
    /// Whether the new descriptor writes into memory past its rights.
    CheckOpened,
}

/// One thread.
#[derive(Debug)]
pub(super) struct Task {
    /// Its process.
    pub(super) process: Tid,
    /// Its space; none before the first exec.
    pub(super) space: Option<SharedSpace>,
    /// Set while it runs a call whose result is looked at.
    pub(super) on_exit: Option<ExitAction>,
    /// Whether it is in a group stop.
    pub(super) stopped: bool,
}

/// One process, from fork to exit.
#[derive(Debug)]
pub(super) struct Process {
    /// Its place in the order of starts.
    pub(super) order: u64,
    pub(super) parent: Tid,
    pub(super) program: String,
    /// Its space, for the report; the charges live as long as any user of the space.
    pub(super) space: Option<SharedSpace>,
    usage: Usage,
    calls: CallTally,
}

impl Process {
    fn new(order: u64, parent: Tid, program: String, space: Option<SharedSpace>) -> Self {
        Self { order, parent, program, space, usage: Usage::default(), calls: CallTally::default() }
    }

    /// Counts a call and its refusal, if it was one.
    pub(super) fn count(&mut self, call: &'static str, refusal: Option<Refusal>) {
        self.calls.count(call, refusal);
    }

    /// Gives the process another space, keeping the peaks of the old one.
    pub(super) fn replace_space(&mut self, space: Option<SharedSpace>) {
        if let Some(old) = std::mem::replace(&mut self.space, space) {
            self.usage = self.usage.larger(Usage::of(old.borrow().manager.account()));
        }
    }

    /// How many calls were refused because memory may not be writable and executable.
    pub(super) fn wx_refusals(&self) -> u64 {
        self.calls.refused_for(Cause::WxPolicy)
    }

    /// The sums at its end.
    pub(super) fn report(mut self, pid: Tid, exit: Option<Exit>, resident_peak_kib: u64) -> ProcessReport {
        self.replace_space(None);
        ProcessReport {
            pid,
            parent: self.parent,
            program: self.program,
            exit,
            usage: self.usage,
            resident_peak: resident_peak_kib.saturating_mul(1024),
            calls: self.calls.calls(),
            refused: self.calls.refused(),
            map_at_exit: None,
        }
    }
}

/// All threads and processes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) tasks: HashMap<Tid, Task>,
    pub(super) processes: HashMap<Tid, Process>,
    started: u64,
    pub(super) processes_peak: u64,
}

impl Tree {
    /// Adds a process and its first thread.
    pub(super) fn add_process(&mut self, pid: Tid, parent: Tid, program: String, space: Option<SharedSpace>) {
        self.processes.insert(pid, Process::new(self.started, parent, program, space.clone()));
        self.started += 1;
        self.processes_peak = self.processes_peak.max(self.processes.len() as u64);
        self.add_thread(pid, pid, space);
    }

    /// Adds a thread of a known process.
    pub(super) fn add_thread(&mut self, tid: Tid, process: Tid, space: Option<SharedSpace>) {
        self.tasks.insert(tid, Task { process, space, on_exit: None, stopped: false });
    }

    /// Forgets all threads of a process.
    pub(super) fn remove_threads(&mut self, process: Tid) {
        self.tasks.retain(|_, task| task.process != process);
    }
}
