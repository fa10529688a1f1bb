//! What a segment and those who have it attached share.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use crate::ledger::Charge;

/// What the table does not know by itself when it is asked.
pub trait Surroundings: Send + Sync {
    /// The time, in seconds since 1970.
    fn now(&self) -> i64;

    /// The process for which something is done.
    fn pid(&self) -> i32;
}

/// What a table and its segments share.
pub(super) struct Shared {
    pub(super) surroundings: Arc<dyn Surroundings>,
    /// Set when a segment has ended that the table may still have.
    pub(super) has_ended: AtomicBool,
}

/// Set in the word of attaches when the segment has been removed (`SHM_DEST`).
const REMOVED: u64 = 1 << 63;

/// A segment as those see it who attach it. It ends when it has been removed and the last attach goes; then it
/// gives back what it holds.
pub(crate) struct Attachable {
    shared: Arc<Shared>,
    /// How often it is attached, and [`REMOVED`].
    word: AtomicU64,
    /// What its pages cost, to charge them again should they be attached by a call that was under way at the end.
    pages: u64,
    attached_at: AtomicI64,
    detached_at: AtomicI64,
    last_pid: AtomicI32,
    /// Pages that must stay resident (`SHM_LOCK`).
    pub(super) locked: Charge,
}

impl fmt::Debug for Attachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachable({}, removed: {})", self.attaches(), self.is_removed())
    }
}

/// What happens to the attaches of one segment in one address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    /// How many more there are.
    pub(crate) more: i64,
    /// Whether any was made.
    pub(crate) is_opened: bool,
    /// Whether any was taken away.
    pub(crate) is_closed: bool,
}

impl Attachable {
    pub(super) fn new(shared: Arc<Shared>, pages: u64, locked: Charge) -> Self {
        let zero = || AtomicI64::new(0);
        let (word, last_pid) = (AtomicU64::new(0), AtomicI32::new(0));
        Self { shared, word, pages, attached_at: zero(), detached_at: zero(), last_pid, locked }
    }

    /// `ipc/shm.c:__shm_open` and `__shm_close`, for all regions at once that a request makes or takes away.
    /// `charge` is what the segment costs.
    pub(crate) fn change(&self, change: Change, charge: Option<&Charge>) {
        let Change { more, is_opened, is_closed } = change;
        if is_opened {
            self.attached_at.store(self.shared.surroundings.now(), Ordering::Relaxed);
        }
        if is_closed {
            self.detached_at.store(self.shared.surroundings.now(), Ordering::Relaxed);
        }
        if is_opened || is_closed {
            self.last_pid.store(self.shared.surroundings.pid(), Ordering::Relaxed);
        }
        if more > 0 {
            let before = self.word.fetch_add(more.unsigned_abs(), Ordering::AcqRel);
            // It ended while the call that attaches it was under way.
            if before == REMOVED
                && let Some(charge) = charge
            {
                charge.raise_past_limit(self.pages.saturating_sub(charge.amount()));
            }
        } else if more < 0 {
            let before = self.word.fetch_sub(more.unsigned_abs(), Ordering::AcqRel);
            self.settle(before - more.unsigned_abs(), charge);
        }
    }

    /// The segment has been removed; it ends at once if it is not attached.
    pub(super) fn remove(&self, charge: Option<&Charge>) {
        let before = self.word.fetch_or(REMOVED, Ordering::AcqRel);
        self.settle(before | REMOVED, charge);
    }

    fn settle(&self, word: u64, charge: Option<&Charge>) {
        if word == REMOVED {
            charge.into_iter().for_each(|charge| charge.give_back(u64::MAX));
            self.locked.give_back(u64::MAX);
            self.shared.has_ended.store(true, Ordering::Release);
        }
    }

    pub(super) fn attaches(&self) -> u64 {
        self.word.load(Ordering::Acquire) & !REMOVED
    }

    pub(super) fn is_removed(&self) -> bool {
        self.word.load(Ordering::Acquire) & REMOVED != 0
    }

    pub(super) fn has_ended(&self) -> bool {
        self.word.load(Ordering::Acquire) == REMOVED
    }

    /// When it was attached and detached last, and by whom; 0 for never.
    pub(super) fn last(&self) -> (i64, i64, i32) {
        let time = |time: &AtomicI64| time.load(Ordering::Relaxed);
        (time(&self.attached_at), time(&self.detached_at), self.last_pid.load(Ordering::Relaxed))
    }
}
