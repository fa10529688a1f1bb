//! Something to wait for, with a clock of the test's own, for threads under loom or shuttle.

use std::time::Duration;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
use pagewarden::phys::EventCount;
#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex};

/// Events with a clock that goes when the test says so.
#[derive(Default)]
pub(crate) struct Events {
    count_and_now: Mutex<(u32, Duration)>,
    changed: Condvar,
}

impl Events {
    pub(crate) fn advance(&self, by: Duration) {
        self.count_and_now.lock().unwrap().1 += by;
        self.changed.notify_all();
    }
}

impl EventCount for Events {
    fn now(&self) -> Duration {
        self.count_and_now.lock().unwrap().1
    }

    fn count(&self) -> u32 {
        self.count_and_now.lock().unwrap().0
    }

    fn wait(&self, seen: u32, deadline: Duration) {
        let mut state = self.count_and_now.lock().unwrap();
        while state.0 == seen && state.1 < deadline {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn notify(&self) {
        self.count_and_now.lock().unwrap().0 += 1;
        self.changed.notify_all();
    }
}
