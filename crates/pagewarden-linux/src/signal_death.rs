//! Dying of a signal on purpose, so that our own parent sees the wait status of the program that we ran.

use std::mem::MaybeUninit;
use std::ptr;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Ends this process by `signal`, without a core dump. Returns if the signal does not end a process: it is not a
/// signal, or its default is to be ignored.
pub fn die_by(signal: i32) {
    // A core of this process would only bury that of the program. The limit does not stop a core that is piped to a
    // helper; not being dumpable does. If either fails, a core too many is no reason to report a wrong status.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = prctl::set_dumpable(false);
    // SAFETY: SIG_DFL runs no code of ours, and signal() only reads its two integers; it rejects numbers that are
    // not signals.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    unblock(signal);
    // SAFETY: raise() takes an integer and touches no memory of ours; the disposition is the default, so no handler
    // runs.
    unsafe { libc::raise(signal) };
}

fn unblock(signal: i32) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is a local of the right type, which this call only writes to, and fills.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `set` was filled by the line above; a number that is not a signal is refused with EINVAL.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: `set` is filled and outlives the call, which reads it; a null old set is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut()) };
}
