//! Time for machines without a clock.

use core::time::Duration;

use crate::phys::EventCount;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What one wait takes.
const TICK: Duration = Duration::from_micros(1);

/// An event count whose time passes when somebody waits, and at no other time.
///
/// Each [`wait`](EventCount::wait) for something that has not happened takes one tick, a microsecond, and returns: who
/// waits looks again. So a deadline comes after as many waits as there are ticks until then, of all who wait, however fast
/// the host is.
#[derive(Debug, Default)]
pub struct Ticks {
    count: AtomicU32,
    ticks: AtomicU64,
}

impl Ticks {
    /// At the beginning of time.
    pub fn new() -> Self {
        Self::default()
    }
}

impl EventCount for Ticks {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.ticks.load(Ordering::Relaxed).saturating_mul(TICK.subsec_nanos().into()))
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    fn wait(&self, seen: u32, deadline: Duration) {
        if self.count() == seen && self.now() < deadline {
            self.ticks.fetch_add(1, Ordering::Relaxed);
            core::hint::spin_loop();
        }
    }

    fn notify(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }
}
