//! What happens to the guest's threads, in the order in which it is dealt with.
//!
//! [`Events::next`] gives the next event of any thread, [`Events::of`] waits for one particular thread and
//! keeps what happens to others for later. Waiting for any thread all the time matters: an exec or an exit
//! of a group gets on only when each dead thread has been waited for.
//!
//! A thread that was let go on usually stops again within microseconds, while going to sleep and being woken by
//! another processor costs several times that. So the tracer looks for a moment before it sleeps, where there is
//! another processor to run the guest meanwhile.
//!
//! Only children and tracees of the calling thread are waited for, so that two runs in one process do not
//! take each other's events.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::time::{Duration, Instant};

use super::ptrace::{Stop, Tid};

/// How long the tracer looks for the next event before it sleeps.
const PATIENCE: Duration = Duration::from_micros(30);

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
#[derive(Debug)]
pub(super) struct Events {
    seen: RefCell<VecDeque<Event>>,
    /// How long to look before sleeping.
    patience: Duration,
}

impl Default for Events {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let patience = if processors > 1 { PATIENCE } else { Duration::ZERO };
        Self { seen: RefCell::default(), patience }
    }
}

impl Events {
    /// The next event; `None` if no thread is left.
    pub(super) fn next(&self) -> io::Result<Option<Event>> {
        let seen = self.seen.borrow_mut().pop_front();
        if seen.is_some() { Ok(seen) } else { self.wait() }
    }

    /// The next event of `tid`; `None` if there will be none.
    pub(super) fn of(&self, tid: Tid) -> Option<Event> {
        {
            let mut seen = self.seen.borrow_mut();
            if let Some(at) = seen.iter().position(|event| event.tid == tid) {
                return seen.remove(at);
            }
        }
        while let Ok(Some(event)) = self.wait() {
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

    /// Waits for the next event of any thread; `None` if no thread is left.
    fn wait(&self) -> io::Result<Option<Event>> {
        let start = Instant::now();
        while start.elapsed() < self.patience {
            match wait4(libc::WNOHANG)? {
                Waited::Event(event) => return Ok(Some(event)),
                Waited::NoGuest => return Ok(None),
                Waited::NotYet => std::hint::spin_loop(),
            }
        }
        loop {
            match wait4(0)? {
                Waited::Event(event) => return Ok(Some(event)),
                Waited::NoGuest => return Ok(None),
                Waited::NotYet => {}
            }
        }
    }
}

/// What wait4(2) has to tell.
enum Waited {
    Event(Event),
    /// Nothing so far.
    NotYet,
    /// No thread is left.
    NoGuest,
}

fn wait4(flags: libc::c_int) -> io::Result<Waited> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let flags = libc::__WALL | libc::__WNOTHREAD | flags;
    // SAFETY: both pointers are to live objects of the right types, and wait4 writes nothing else.
    let tid = unsafe { libc::wait4(-1, &raw mut status, flags, usage.as_mut_ptr()) };
    if tid > 0 {
        // SAFETY: every bit pattern is a valid rusage, and it was zeroed before wait4 filled it.
        let usage = unsafe { usage.assume_init() };
        let resident_peak_kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
        return Ok(Waited::Event(Event { tid, stop: Stop::from_status(status), resident_peak_kib }));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if tid == 0 => Ok(Waited::NotYet),
        Some(libc::EINTR) => Ok(Waited::NotYet),
        Some(libc::ECHILD) => Ok(Waited::NoGuest),
        _ => Err(error),
    }
}
