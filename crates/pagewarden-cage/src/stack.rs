//! How much stack a thread has left: compiled code may use as much as the options say, and host calls need some of their own.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::{panic, ptr, thread};

use crate::engine::HOST_STACK_BYTES;

thread_local! {
    /// The lowest address of this thread's stack; 0 if nobody has asked yet.
    static LOWEST: Cell<usize> = const { Cell::new(0) };
}

/// Does `work` where compiled code can use `bytes` of stack: on this thread if it has as much left, else on one of its own.
pub(crate) fn with_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T, std::io::Error> {
    if left() >= bytes + HOST_STACK_BYTES {
        return Ok(work());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(bytes + 2 * HOST_STACK_BYTES).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

/// The bytes below the caller's frame; 0 if nobody knows.
fn left() -> usize {
    let here = 0_u8;
    if LOWEST.get() == 0 {
        LOWEST.set(lowest().unwrap_or(usize::MAX));
    }
    (&raw const here).addr().saturating_sub(LOWEST.get())
}

fn lowest() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: names the calling thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the thread lives, and there is room for what is written.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut start, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: the call above has filled the attributes.
    let failed = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut bytes) };
    // SAFETY: as above; nobody uses them after this.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (failed == 0).then_some(start.addr())
}
