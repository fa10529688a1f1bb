//! What happens to the guest's threads, in the order in which it is dealt with.
//!
//! [`Events::next`] gives the next event of any thread, [`Events::of`] waits for one particular thread and
//! keeps what happens to others for later. Waiting for any thread all the time matters: an exec or an exit
//! of a group gets on only when each dead thread has been waited for.
//!
//! Only children and tracees of the calling thread are waited for, so that two runs in one process do not
//! take each other's events.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;

use super::ptrace::{Stop, Tid};

/// Something that has happened to a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// The thread.
    pub(super) tid: Tid,
    /// What it was.
    pub(super) stop: Stop,
    /// Most resident memory of its process so far, in KiB, as the host counts it.
    pub(super) resident_peak_kib: u64,
}

/// Events that were seen and not yet dealt with, and those that the host still has.
#[derive(Debug, Default)]
pub(super) struct Events {
    seen: RefCell<VecDeque<Event>>,
}

impl Events {
    /// The next event; `None` if no thread is left.
    pub(super) fn next(&self) -> io::Result<Option<Event>> {
        let seen = self.seen.borrow_mut().pop_front();
        if seen.is_some() { Ok(seen) } else { wait() }
    }

    /// The next event of `tid`; `None` if there will be none.
    pub(super) fn of(&self, tid: Tid) -> Option<Event> {
        {
            let mut seen = self.seen.borrow_mut();
            if let Some(at) = seen.iter().position(|event| event.tid == tid) {
                return seen.remove(at);
            }
        }
        while let Ok(Some(event)) = wait() {
            if event.tid == tid {
                return Some(event);
            }
            self.seen.borrow_mut().push_back(event);
        }
        None
    }

    /// Puts back an event that was not the expected one: it is the next to be dealt with.
    pub(super) fn put_back(&self, event: Event) {
        self.seen.borrow_mut().push_front(event);
    }
}

/// Waits for the next event of any thread; `None` if no thread is left.
fn wait() -> io::Result<Option<Event>> {
    loop {
        let mut status = 0;
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to live objects of the right types, and wait4 writes nothing else.
        let tid = unsafe { libc::wait4(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD, usage.as_mut_ptr()) };
        if tid > 0 {
            // SAFETY: every bit pattern is a valid rusage, and it was zeroed before wait4 filled it.
            let usage = unsafe { usage.assume_init() };
            let resident_peak_kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
            return Ok(Some(Event { tid, stop: Stop::from_status(status), resident_peak_kib }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
}
