//! Processes: who is whose child, who has ended how, who waits.
//!
//! Owned here: numbers, parents and statuses of the processes of one family, and how many processes there are of all
//! families. A family is what one [`start`](crate::Cages::start) leads to; its first process is number 1, and gets the
//! children of those that end before them. Outside: memory and threads.
//!
//! Invariants:
//!
//! * A process is counted ([`Permit`]) from before its memory is made until somebody has taken note of its end.
//! * Its memory is gone before its end is made known: who has waited for all children finds what they had free.
//!
//! Lock: one for each family; nothing else is locked under it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pagewarden::Errno;

#[cfg(test)]
mod tests;

/// The first process of a family.
pub(crate) const FIRST: i32 = 1;
/// Stands for whoever embeds cages: the parent of first processes and of forks that no guest asked for.
const EMBEDDER: i32 = 0;
/// Numbers begin again above it (`PID_MAX_LIMIT`).
const PID_MAX: i32 = 1 << 22;

/// How many processes there are and may be.
#[derive(Debug)]
pub(crate) struct Census {
    most: usize,
    count: AtomicUsize,
}

/// One process more. Dropped, it counts no more.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Census>);

impl Census {
    /// At most `most` processes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, count: AtomicUsize::new(0) })
    }

    /// Counts one more, if it may be.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Permit> {
        let more = |count: usize| (count < self.most).then(|| count + 1);
        self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Permit(Arc::clone(self)))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The most that there may be.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Which children a process waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// Any.
    Any,
    /// That one.
    One(i32),
}

/// Whether to wait for an end that has not come yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// Until it comes.
    Waits,
    /// Not at all (`WNOHANG`).
    Looks,
}

#[derive(Debug)]
struct Entry {
    parent: i32,
    /// How it ended, as wait(2) says it; none while it lives.
    status: Option<i32>,
    _permit: Permit,
}

#[derive(Debug, Default)]
struct Processes {
    entries: BTreeMap<i32, Entry>,
    last: i32,
}

/// A family of processes.
#[derive(Debug, Default)]
pub(crate) struct Family {
    processes: Mutex<Processes>,
    ended: Condvar,
}

/// One process of a family, for as long as it lives. Dropped before it has ended, it ends as if killed.
#[derive(Debug)]
pub(crate) struct Process {
    family: Arc<Family>,
    pid: i32,
    has_ended: AtomicBool,
}

/// `SIGKILL`, as wait(2) says that a process died of it.
const KILLED: i32 = 9;

impl Family {
    /// A family of one.
    pub(crate) fn first(permit: Permit) -> Process {
        Process::enter(Arc::default(), EMBEDDER, permit)
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Processes {
    /// A number that nobody has; there are fewer processes than numbers.
    fn free_pid(&self) -> i32 {
        let after = |pid: i32| if pid >= PID_MAX { FIRST } else { pid + 1 };
        let mut pid = after(self.last);
        while self.entries.contains_key(&pid) {
            pid = after(pid);
        }
        pid
    }

    /// Notes the end of `pid`; nobody but the embedder asks for that of a process whose parent it is.
    fn end(&mut self, pid: i32, status: i32) {
        let heir = if pid != FIRST && self.entries.get(&FIRST).is_some_and(|first| first.status.is_none()) {
            FIRST
        } else {
            EMBEDDER
        };
        for child in self.entries.values_mut().filter(|entry| entry.parent == pid) {
            child.parent = heir;
        }
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.status = Some(status);
        }
        self.entries.retain(|_, entry| entry.parent != EMBEDDER || entry.status.is_none());
    }

    /// The first child of `parent` that has ended, of those that are asked for; its number alone if it lives.
    fn child(&self, parent: i32, which: Which) -> Option<(i32, Option<i32>)> {
        let range = match which {
            Which::Any => (Bound::Unbounded, Bound::Unbounded),
            Which::One(pid) => (Bound::Included(pid), Bound::Included(pid)),
        };
        let children = self.entries.range(range).filter(|(_, entry)| entry.parent == parent);
        let mut children = children.map(|(pid, entry)| (*pid, entry.status));
        let first = children.next()?;
        if first.1.is_some() { Some(first) } else { children.find(|child| child.1.is_some()).or(Some(first)) }
    }
}

impl Process {
    fn enter(family: Arc<Family>, parent: i32, permit: Permit) -> Self {
        let mut processes = family.lock();
        let pid = processes.free_pid();
        processes.last = pid;
        processes.entries.insert(pid, Entry { parent, status: None, _permit: permit });
        drop(processes);
        Self { family, pid, has_ended: AtomicBool::new(false) }
    }

    /// A child that this process can wait for.
    pub(crate) fn child(&self, permit: Permit) -> Self {
        Self::enter(Arc::clone(&self.family), self.pid, permit)
    }

    /// A process of the same family that nobody waits for.
    pub(crate) fn unwaited(&self, permit: Permit) -> Self {
        Self::enter(Arc::clone(&self.family), EMBEDDER, permit)
    }

    /// Its number.
    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    /// The number of its parent; 0 if that is not of the family.
    pub(crate) fn parent(&self) -> i32 {
        self.family.lock().entries.get(&self.pid).map_or(EMBEDDER, |entry| entry.parent)
    }

    /// Waits for the end of a child (wait4(2)): its number and status, or nothing if none has ended and it only looks.
    ///
    /// # Errors
    /// [`Errno::Other`] `ECHILD` if there is no such child.
    pub(crate) fn wait(&self, which: Which, patience: Patience) -> Result<Option<(i32, i32)>, Errno> {
        let mut processes = self.family.lock();
        loop {
            match processes.child(self.pid, which) {
                None => return Err(Errno::from_raw(libc::ECHILD.unsigned_abs().try_into().unwrap_or(u16::MAX))),
                Some((pid, Some(status))) => {
                    processes.entries.remove(&pid);
                    return Ok(Some((pid, status)));
                }
                Some(_) if patience == Patience::Looks => return Ok(None),
                Some(_) => processes = self.family.ended.wait(processes).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Makes the end of the process known, if it is not yet.
    pub(crate) fn end(&self, status: i32) {
        if !self.has_ended.swap(true, Ordering::AcqRel) {
            self.family.lock().end(self.pid, status);
            self.family.ended.notify_all();
        }
    }

    /// Forgets a process that has never run.
    pub(crate) fn forget(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.family.lock().entries.remove(&self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(KILLED);
    }
}
