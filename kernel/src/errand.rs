//! Errands: what one processor has another do that has nothing to do.
//!
//! Locks: that of whose errand it is, for as long as it is under way, then that of the place where it lies. An errand has
//! neither.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

use crate::{processor, schedule};

type Errand = Box<dyn FnOnce() + Send>;

/// Held by whoever waits for his errand.
static POSTING: Mutex<()> = Mutex::new(());
/// Where it lies until somebody takes it.
static POSTED: Mutex<Option<Errand>> = Mutex::new(None);
/// Whether it has been done.
static IS_DONE: AtomicBool = AtomicBool::new(true);

/// Whether there is another processor to do errands.
pub(crate) fn can_post() -> bool {
    processor::all().len() > 1
}

/// Has `errand` done by another processor, and does `meanwhile` here; returns when both are done. An errand posts none.
///
/// # Panics
/// If there is no other processor.
pub(crate) fn beside<T>(errand: impl FnOnce() + Send + 'static, meanwhile: impl FnOnce() -> T) -> T {
    assert!(can_post(), "nobody is there to do it");
    let posting = POSTING.lock();
    IS_DONE.store(false, Ordering::Relaxed);
    *POSTED.lock() = Some(Box::new(errand));
    schedule::event();
    let answer = meanwhile();
    while !IS_DONE.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    drop(posting);
    answer
}

/// Does the errand that lies there, if there is one; whether there was.
pub(crate) fn take() -> bool {
    let Some(errand) = POSTED.lock().take() else { return false };
    errand();
    IS_DONE.store(true, Ordering::Release);
    true
}
