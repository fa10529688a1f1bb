//! Deliberate violations in kernel code, which show that protection is on.

use core::sync::atomic::Ordering;

use crate::processor;
use crate::trap::KernelFrame;

unsafe extern "sysv64" {
    fn probe_load(address: u64, stack: *mut u64) -> i64;
    fn probe_store(address: u64, stack: *mut u64, byte: u64) -> i64;
    fn probe_call(address: u64, stack: *mut u64) -> i64;
    #[link_name = "probe_landing"]
    fn landing_code();
}

/// What kernel code tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Try {
    Load,
    /// Stores a byte.
    Store(u8),
    /// Runs what is there, as if it were a function.
    Call,
}

/// The error code of the page fault that the attempt ends in; `None` if there is none.
///
/// # Safety
/// Should the attempt succeed, it does no harm: there is nobody's memory, the byte that is there already, or a function that
/// returns at once.
pub(crate) unsafe fn attempt(what: Try, address: u64) -> Option<u64> {
    let processor = processor::current();
    let stack = processor.probe.as_ptr();
    let code = match what {
        // SAFETY: the caller's; a page fault lands behind the probe, with the stack that it has noted.
        Try::Load => unsafe { probe_load(address, stack) },
        // SAFETY: likewise.
        Try::Store(byte) => unsafe { probe_store(address, stack, byte.into()) },
        // SAFETY: likewise.
        Try::Call => unsafe { probe_call(address, stack) },
    };
    processor.probe.store(0, Ordering::Relaxed);
    u64::try_from(code).ok()
}

/// Has a page fault land behind the probe that is under way, if there is one.
pub(crate) fn lands(frame: &mut KernelFrame, error: u64) -> bool {
    let stack = processor::current().probe.load(Ordering::Relaxed);
    if stack == 0 {
        return false;
    }
    frame.rax = error;
    frame.rsp = stack;
    frame.rip = (landing_code as *const ()).addr() as u64;
    true
}
