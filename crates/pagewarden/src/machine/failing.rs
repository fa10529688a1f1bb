//! Operations that fail on command.

use alloc::sync::Arc;
use core::fmt;

use crate::sync::{AtomicU64, Ordering};

/// A place at which operations of one kind pass, are counted, and fail if they are told to.
///
/// Whatever wraps a source of frames, of pages or of anything else asks [`Self::pass`] first. Clones are the same
/// place, so a test keeps one and arms it. Threads may pass at once: each operation has a number of its own, and those
/// that fail are as many as were asked for.
#[derive(Clone, Debug)]
pub struct FailPoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: &'static str,
    /// Operations since the point was armed or disarmed.
    passed: AtomicU64,
    /// Operations `first..end` fail.
    first: AtomicU64,
    end: AtomicU64,
    failed: AtomicU64,
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
        let [passed, first, end, failed] = core::array::from_fn(|_| AtomicU64::new(0));
        Self(Arc::new(Inner { kind, passed, first, end, failed }))
    }

    /// Of the operations from now on, number `operation` alone fails, from 0 on.
    pub fn fail_once(&self, operation: u64) {
        self.arm(operation, operation.saturating_add(1));
    }

    /// Of the operations from now on, number `operation` fails, from 0 on, and all after it.
    pub fn fail_since(&self, operation: u64) {
        self.arm(operation, u64::MAX);
    }

    /// Nothing fails any more. Returns how many operations have failed since the point was armed: none says that there
    /// is no operation with that number, and a test that tries one after the other is done.
    pub fn disarm(&self) -> u64 {
        let failed = self.failed();
        self.arm(0, 0);
        failed
    }

    /// While others pass, it is not said which numbers they get.
    fn arm(&self, first: u64, end: u64) {
        // Nothing fails in between.
        self.0.end.store(0, Ordering::Release);
        self.0.first.store(first, Ordering::Release);
        self.0.passed.store(0, Ordering::Release);
        self.0.failed.store(0, Ordering::Release);
        self.0.end.store(end, Ordering::Release);
    }

    /// An operation happens now.
    ///
    /// # Errors
    /// It shall fail.
    pub fn pass(&self) -> Result<(), Injected> {
        let operation = self.0.passed.fetch_add(1, Ordering::AcqRel);
        if operation >= self.0.end.load(Ordering::Acquire) || operation < self.0.first.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.failed.fetch_add(1, Ordering::AcqRel);
        Err(Injected { kind: self.0.kind, operation })
    }

    /// What kind of operations pass here.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// How many operations there were since the point was armed, disarmed or made, those that failed among them.
    pub fn operations(&self) -> u64 {
        self.0.passed.load(Ordering::Acquire)
    }

    /// How many of them have failed.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Acquire)
    }
}
