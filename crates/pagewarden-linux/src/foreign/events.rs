//! Waiting for a reservation: an event count that is a futex.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pagewarden::phys::EventCount;

/// How threads of this process wait.
#[derive(Debug, Default)]
pub struct FutexEvents {
    count: AtomicU32,
}

impl FutexEvents {
    /// Nothing has happened.
    pub const fn new() -> Self {
        Self { count: AtomicU32::new(0) }
    }
}

impl EventCount for FutexEvents {
    /// The host's monotonic clock.
    fn now(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes to `time`, which is ours. It cannot fail: every host has this clock.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    fn wait(&self, seen: u32, deadline: Duration) {
        let time = libc::timespec {
            tv_sec: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(deadline.subsec_nanos()),
        };
        let operation = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
        let (word, time) = (self.count.as_ptr(), &raw const time);
        let unused = std::ptr::null::<u32>();
        // Whether it was woken, late, interrupted, or the count had changed before: the caller looks for itself.
        // SAFETY: the kernel reads the word and the time, both of which outlive the call.
        unsafe { libc::syscall(libc::SYS_futex, word, operation, seen, time, unused, libc::FUTEX_BITSET_MATCH_ANY) };
    }

    fn notify(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel only compares the address of the word with those that threads wait at.
        unsafe { libc::syscall(libc::SYS_futex, self.count.as_ptr(), operation, i32::MAX) };
    }
}
