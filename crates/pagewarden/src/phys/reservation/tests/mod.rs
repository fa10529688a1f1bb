//! What the tests of reservations share: short ways to write ranges, and a clock that stands still until somebody waits.

mod random;
mod rules;
mod trees;

use core::time::Duration;
use std::sync::Mutex;

use super::{Mode, Reservations};
use crate::addr::PhysAddr;
use crate::phys::{EventCount, PhysRange};

pub(super) fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start).unwrap(), end - start).unwrap()
}

/// Events of one thread: whoever waits has waited until the deadline at once.
#[derive(Debug, Default)]
pub(super) struct Alone {
    now: Mutex<Duration>,
    calls: Mutex<Calls>,
}

/// How often what was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Calls {
    pub(super) waits: u32,
    pub(super) notifies: u32,
}

impl Alone {
    pub(super) fn calls(&self) -> Calls {
        *self.calls.lock().unwrap()
    }

    pub(super) fn set_now(&self, now: Duration) {
        *self.now.lock().unwrap() = now;
    }
}

impl EventCount for Alone {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn count(&self) -> u32 {
        self.calls().notifies
    }

    fn wait(&self, seen: u32, deadline: Duration) {
        self.calls.lock().unwrap().waits += 1;
        if self.count() == seen {
            self.set_now(deadline);
        }
    }

    fn notify(&self) {
        self.calls.lock().unwrap().notifies += 1;
    }
}

pub(super) fn registry() -> Reservations<Alone> {
    Reservations::new(Alone::default())
}

/// Whether two with these modes may share a byte.
pub(super) fn go_together(one: Mode, other: Mode) -> bool {
    one == Mode::Shared && other == Mode::Shared
}
