//! Operations that fail on command.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use crate::sync::Mutex;

/// A place at which operations of one kind pass, are counted, and fail if they are told to.
///
/// Whatever wraps a source of frames, of pages or of anything else asks [`Self::pass`] first. Clones are the same
/// place, so a test keeps one and arms it. Threads may pass at once, and while the point is armed: each operation has a
/// number of its own, and those that fail are as many as were asked for. The lock inside is held for one step of that,
/// and no other is taken meanwhile.
#[derive(Clone, Debug)]
pub struct FailPoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: &'static str,
    state: Mutex<State>,
}

/// What happened since the point was armed or disarmed.
#[derive(Default, Debug)]
struct State {
    passed: u64,
    failed: u64,
    /// The operations that fail.
    failing: Range<u64>,
}

/// An operation has failed because it was told to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Injected {
    /// What kind of operation.
    pub kind: &'static str,
    /// Which one, from 0 on.
    pub operation: u64,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} was told to fail", self.kind, self.operation)
    }
}

impl core::error::Error for Injected {}

impl FailPoint {
    /// A place for operations of `kind`. Nothing fails yet.
    pub fn new(kind: &'static str) -> Self {
        Self(Arc::new(Inner { kind, state: Mutex::new(State::default()) }))
    }

    /// Of the operations from now on, number `operation` alone fails, from 0 on.
    pub fn fail_once(&self, operation: u64) {
        self.arm(operation..operation.saturating_add(1));
    }

    /// Of the operations from now on, number `operation` fails, from 0 on, and all after it.
    pub fn fail_since(&self, operation: u64) {
        self.arm(operation..u64::MAX);
    }

    /// Nothing fails any more. Returns how many operations have failed since the point was armed: none says that there
    /// is no operation with that number, and a test that tries one after the other is done.
    pub fn disarm(&self) -> u64 {
        self.arm(0..0)
    }

    /// Begins to count anew, with those operations failing. Returns how many have failed until now.
    fn arm(&self, failing: Range<u64>) -> u64 {
        core::mem::replace(&mut *self.0.state.lock(), State { failing, ..State::default() }).failed
    }

    /// An operation happens now.
    ///
    /// # Errors
    /// It shall fail.
    pub fn pass(&self) -> Result<(), Injected> {
        let mut state = self.0.state.lock();
        let operation = state.passed;
        state.passed += 1;
        if !state.failing.contains(&operation) {
            return Ok(());
        }
        state.failed += 1;
        Err(Injected { kind: self.0.kind, operation })
    }

    /// What kind of operations pass here.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// How many operations there were since the point was armed, disarmed or made, those that failed among them.
    pub fn operations(&self) -> u64 {
        self.0.state.lock().passed
    }

    /// How many of them have failed.
    pub fn failed(&self) -> u64 {
        self.0.state.lock().failed
    }
}
