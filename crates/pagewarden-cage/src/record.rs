//! What is kept of processes that have ended, for a report.
//!
//! Owned here: the list, and how many processes live. A process is counted from when its state is made until its memory is
//! gone; it is in the list if it ran to its end.
//!
//! Lock: one for each record; nothing else is locked under it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pagewarden::{PAGE_SIZE, Resource};
use pagewarden_linux::report::{Exit as ReportedExit, ProcessReport, Usage};

use crate::cage::Exit;
use crate::state::CageState;
use crate::trap::CageTrap;

/// One process that has ended.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it used, and how it ended; a trap is the signal that a process of the host would have died of.
    pub process: ProcessReport,
    /// What it was stopped for; none if it ended by itself.
    pub trap: Option<Box<CageTrap>>,
}

#[derive(Debug, Default)]
struct Records {
    alive: u64,
    peak: u64,
    ended: Vec<Recorded>,
}

/// Of which processes the map is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeptMaps {
    /// Those that were stopped.
    #[default]
    OfStopped,
    /// All.
    OfAll,
}

/// The processes of all families that were started with it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    maps: KeptMaps,
    records: Mutex<Records>,
    changed: Condvar,
}

impl Record {
    /// One that keeps these maps.
    pub fn keeping(maps: KeptMaps) -> Self {
        Self(Arc::new(Inner { maps, ..Inner::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no process lives: those that have ended, in the order in which they did, and the most that lived at once.
    pub fn wait(&self) -> (Vec<Recorded>, u64) {
        let mut records = self.lock();
        while records.alive > 0 {
            records = self.0.changed.wait(records).unwrap_or_else(PoisonError::into_inner);
        }
        (std::mem::take(&mut records.ended), records.peak)
    }

    /// Counts a process, for as long as it lives.
    pub(crate) fn begin(&self) -> Alive {
        let mut records = self.lock();
        records.alive += 1;
        records.peak = records.peak.max(records.alive);
        drop(records);
        Alive(self.clone())
    }

    /// Notes how a process has ended.
    pub(crate) fn end(&self, state: &CageState, exit: &Exit) {
        let frames = state.account.peak(Resource::Frames);
        let process = ProcessReport {
            pid: state.process.pid(),
            parent: state.process.parent(),
            program: state.program.name().to_owned(),
            exit: Some(match &exit.trap {
                Some(trap) => ReportedExit::Signal(trap.signal()),
                None => ReportedExit::Code(exit.code & 0xff),
            }),
            usage: Usage::of(&state.account),
            resident_peak: frames.saturating_mul(PAGE_SIZE),
            calls: state.calls.calls(),
            refused: state.calls.refused(),
            map_at_exit: (self.0.maps == KeptMaps::OfAll || exit.trap.is_some()).then(|| exit.maps.clone()),
        };
        self.lock().ended.push(Recorded { process, trap: exit.trap.clone() });
    }
}

/// A process that lives.
#[derive(Debug)]
pub(crate) struct Alive(Record);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().alive -= 1;
        self.0.0.changed.notify_all();
    }
}
