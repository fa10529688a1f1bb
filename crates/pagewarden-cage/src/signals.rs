//! Signals of compiled code: a SIGSEGV in a cage is a page that is not shown yet, or a trap.
//!
//! Owned here: the handler that each store gives to Wasmtime. Whether the access goes on, the space says that the thread has
//! entered.

use std::cell::Cell;
use std::ffi::c_void;

use pagewarden_linux::host_machine::{self, HostSpace, Resolution};
use wasmtime::Store;
use wasmtime::unix::StoreExt;

use crate::memory::{CAGE_BYTES, GUARD_BYTES};
use crate::state::CageState;

thread_local! {
    /// Where this thread has last met a SIGSEGV that no space resolved; 0 if nowhere.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Has the space resolve the faults of the store's code.
pub(crate) fn watch(store: &mut Store<CageState>) {
    // SAFETY: the handler is called for a fault of this thread's own, at an instruction of compiled code, which holds no lock
    // and is not inside an allocation: so whatever `resolve` takes is free. Host calls on behalf of the guest touch no memory
    // of a cage, so the handler is not called for them; if it were, `resolve` would say that the fault is none of its own.
    unsafe { store.set_signal_handler(handle) };
}

/// Forgets where the last fault was.
pub(crate) fn forget_last() {
    LAST.set(0);
}

/// Where the last fault that ended in a trap was, from the start of the space on; it may be in the guard behind.
pub(crate) fn last_offset(space: &HostSpace) -> Option<u64> {
    let offset = LAST.take().checked_sub(space.base().addr())?;
    (offset < CAGE_BYTES + GUARD_BYTES).then_some(offset as u64)
}

/// Whether the access is to be tried again.
fn handle(signal: libc::c_int, info: *const libc::siginfo_t, context: *const c_void) -> bool {
    if signal != libc::SIGSEGV {
        return false;
    }
    // SAFETY: Wasmtime gives us what its handler got from the kernel, on the thread's alternative stack, which entering a space
    // has made large enough. Faults in the view are those of compiled code: no other code touches it.
    let is_resolved = matches!(unsafe { host_machine::resolve(info, context) }, Resolution::Again);
    if !is_resolved {
        // SAFETY: the kernel fills this for the signal that is being handled.
        let info = unsafe { &*info };
        // SAFETY: a SIGSEGV says where it was.
        LAST.set(unsafe { info.si_addr() }.addr());
    }
    is_resolved
}
