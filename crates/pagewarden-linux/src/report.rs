//! What a run has to tell: each call as it happens, and sums at the end.

use std::collections::BTreeMap;
use std::io;

use pagewarden::manager::{Cause, Refusal};
use pagewarden::{Account, PAGE_SIZE, Resource};
use serde::Serialize;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It called exit with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// Peaks of one account, in bytes (regions: a count).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Usage {
    /// Most address space mapped at once.
    pub reserved_peak: u64,
    /// Most memory committed at once.
    pub committed_peak: u64,
    /// Most memory locked at once.
    pub locked_peak: u64,
    /// Most regions at once.
    pub regions_peak: u64,
}

impl Usage {
    /// Of this account.
    pub fn of(account: &Account) -> Self {
        let bytes = |resource| account.peak(resource).saturating_mul(PAGE_SIZE);
        Self {
            reserved_peak: bytes(Resource::Virtual),
            committed_peak: bytes(Resource::Committed),
            locked_peak: bytes(Resource::Locked),
            regions_peak: account.peak(Resource::Regions),
        }
    }

    /// Of each peak the larger one.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        Self {
            reserved_peak: self.reserved_peak.max(other.reserved_peak),
            committed_peak: self.committed_peak.max(other.committed_peak),
            locked_peak: self.locked_peak.max(other.locked_peak),
            regions_peak: self.regions_peak.max(other.regions_peak),
        }
    }
}

/// Counts the calls of a process, for its report.
#[derive(Clone, Debug, Default)]
pub struct CallTally {
    calls: BTreeMap<&'static str, u64>,
    /// Few kinds happen, so a list will do.
    refused: Vec<(&'static str, Refusal, u64)>,
}

impl CallTally {
    /// Counts a call and its refusal, if it was one.
    pub fn count(&mut self, call: &'static str, refusal: Option<Refusal>) {
        *self.calls.entry(call).or_default() += 1;
        let Some(refusal) = refusal else { return };
        match self.refused.iter_mut().find(|(name, known, _)| *name == call && *known == refusal) {
            Some((_, _, count)) => *count += 1,
            None => self.refused.push((call, refusal, 1)),
        }
    }

    /// How many calls were refused for this cause.
    pub fn refused_for(&self, cause: Cause) -> u64 {
        self.refused.iter().filter(|(_, refusal, _)| refusal.cause == cause).map(|(_, _, count)| count).sum()
    }

    /// Calls by name, as [`ProcessReport::calls`] has them.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.iter().map(|(call, count)| ((*call).to_owned(), *count)).collect()
    }

    /// Refusals, as [`ProcessReport::refused`] has them.
    pub fn refused(&self) -> Vec<RefusedCall> {
        let refused = self.refused.iter().map(|(call, refusal, count)| RefusedCall {
            call: (*call).to_owned(),
            errno: refusal.errno.to_string(),
            reason: refusal.cause.to_string(),
            count: *count,
        });
        refused.collect()
    }
}

/// Calls of one kind that were refused for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RefusedCall {
    /// The call, such as `mmap`.
    pub call: String,
    /// What the guest was told, such as `ENOMEM`.
    pub errno: String,
    /// Whose decision it was, in a few words, such as `commit limit` or `W^X policy`.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// One process of the tree, from its start to its end; exec does not begin a new one.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessReport {
    /// Its process ID.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// The last program it ran.
    pub program: String,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Peaks.
    pub usage: Usage,
    /// Most memory resident at once, in bytes, as the host counted it.
    pub resident_peak: u64,
    /// Memory calls by name.
    pub calls: BTreeMap<String, u64>,
    /// Calls that were refused.
    pub refused: Vec<RefusedCall>,
    /// The manager's map when the process ended, in the form of `/proc/PID/maps`, if it was asked for.
    pub map_at_exit: Option<String>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The whole tree.
    pub usage: Usage,
    /// The limit on committed memory, in bytes, if there was one.
    pub commit_limit: Option<u64>,
    /// Every process, in the order in which they started.
    pub processes: Vec<ProcessReport>,
    /// Most processes alive at once.
    pub processes_peak: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Memory calls of the whole tree.
    pub calls: u64,
}

/// One memory call, as [`Observer`]s see it.
#[derive(Clone, Debug, Serialize)]
pub struct CallEvent {
    /// Seconds since the start of the run.
    pub seconds: f64,
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// The call, such as `mmap`.
    pub call: &'static str,
    /// The argument registers that the call uses.
    pub args: Vec<u64>,
    /// What the manager planned, an operation each, in words.
    pub plan: Vec<String>,
    /// What the guest was told, if it was not an error.
    pub value: Option<u64>,
    /// What the guest was told, if it was an error: the name.
    pub errno: Option<String>,
    /// Whose decision a refusal was.
    pub reason: Option<String>,
    /// Committed memory of the process after the call, in bytes.
    pub committed: u64,
}

/// Watches a run.
pub trait Observer {
    /// A memory call has been answered.
    fn call(&mut self, event: &CallEvent);
}

/// How a run went.
#[derive(Debug)]
pub struct RunOutcome {
    /// How the program itself ended.
    pub exit: Exit,
    /// The sums.
    pub report: Report,
    /// With [`crate::Verify::EachCall`]: the first difference between manager and host, in words.
    pub difference: Option<String>,
    /// Things that a user should be told besides, a line each.
    pub hints: Vec<String>,
}

/// Why a run could not begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No such program.
    #[error("{program}: not found")]
    NotFound {
        /// As the user gave it.
        program: String,
    },
    /// It is there and cannot be run.
    #[error("{program}: cannot be run: {source}")]
    NotExecutable {
        /// As the user gave it.
        program: String,
        /// What exec said.
        source: io::Error,
    },
    /// A limit that the program does not even start under.
    #[error("{limit} of {given} bytes is too small: {program} needs {needed} bytes to start")]
    LimitTooSmall {
        /// Which limit, as the option is called.
        limit: &'static str,
        /// As the user gave it.
        given: u64,
        /// What the program has mapped before its first instruction.
        needed: u64,
        /// The program.
        program: String,
    },
    /// The host does not let us trace.
    #[error(
        "cannot trace {program}: {source} (is ptrace allowed here? see kernel.yama.ptrace_scope, or the container's seccomp profile)"
    )]
    NoTrace {
        /// The program.
        program: String,
        /// What ptrace said.
        source: io::Error,
    },
    /// Something that should not fail did.
    #[error("{what}: {source}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}
