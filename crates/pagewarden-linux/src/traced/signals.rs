//! Signals that pagewarden itself gets are meant for the program that it runs.
//!
//! All signals are blocked in the tracer; a thread takes them and sends them on. What the terminal sends
//! to the whole foreground group the program has got itself, if it is in pagewarden's group: such signals
//! are not sent twice. pagewarden never stops by `SIGTSTP`: it stops itself when the program has stopped,
//! so that a shell sees one job.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread::JoinHandle;

use super::ptrace::Tid;

/// Signals that are the tracer's own: its guests' stops, and faults in its own code.
const OWN: [i32; 6] = [libc::SIGCHLD, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// All signals of the calling thread blocked, until this is dropped.
pub(super) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    /// Blocks all signals but those of faults.
    pub(super) fn new() -> io::Result<Self> {
        let mut blocked = full_set();
        for signal in OWN.iter().filter(|signal| **signal != libc::SIGCHLD) {
            // SAFETY: the set is initialised and the number is a signal's.
            unsafe { libc::sigdelset(&raw mut blocked, *signal) };
        }
        let mut before = MaybeUninit::uninit();
        // SAFETY: `blocked` is initialised and `before` has room for a set.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, before.as_mut_ptr()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: pthread_sigmask has succeeded and so has written it.
        Ok(Self { before: unsafe { before.assume_init() } })
    }

    /// The mask as it was.
    pub(super) const fn before(&self) -> &libc::sigset_t {
        &self.before
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is a mask that the kernel gave.
        let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set that it is given.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: sigfillset cannot fail for a valid pointer.
    unsafe { set.assume_init() }
}

/// The thread that sends signals on; dropped, it ends.
pub(super) struct Forwarder {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Starts the thread: signals go to the process of `pidfd`, whose number is `pid`. Call with all signals
    /// blocked: the thread inherits the mask.
    pub(super) fn start(pid: Tid, pidfd: OwnedFd) -> io::Result<Self> {
        let mut set = full_set();
        for signal in OWN {
            // SAFETY: the set is initialised and the number is a signal's.
            unsafe { libc::sigdelset(&raw mut set, signal) };
        }
        // SAFETY: the set is initialised.
        let signals = owned(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) })?;
        let (stop_in, stop_out) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || while forward_one(&signals, &stop_in, pid, &pidfd) {})?;
        Ok(Self { stop: Some(stop_out), thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there is reported by itself and must not hide how the run went.
            let _ = thread.join();
        }
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for a signal and sends it on; false when the run is over.
fn forward_one(signals: &OwnedFd, stop: &OwnedFd, pid: Tid, pidfd: &OwnedFd) -> bool {
    let mut fds = [signals, stop].map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: the array is alive and has two entries.
    if unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } < 0 {
        return io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
    }
    if fds[1].revents != 0 {
        return false;
    }
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let len = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` has room for `len` bytes.
    let read = unsafe { libc::read(signals.as_raw_fd(), info.as_mut_ptr().cast(), len) };
    if usize::try_from(read) != Ok(len) {
        return read >= 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
    }
    // SAFETY: it was zeroed, read filled it, and every bit pattern is valid.
    let info = unsafe { info.assume_init() };
    let signal = info.ssi_signo.cast_signed();
    if meant_for_guest(signal, info.ssi_code, pid) {
        // SAFETY: plain numbers and a null pointer for "as kill(2) does". It fails when the process is gone.
        let _ = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0usize, 0) };
    }
    true
}

fn meant_for_guest(signal: i32, code: i32, pid: Tid) -> bool {
    if matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) && code != libc::SI_USER {
        return false;
    }
    code != libc::SI_KERNEL || !same_group(pid)
}

/// Whether `pid` is in pagewarden's own process group, where the terminal reaches it.
fn same_group(pid: Tid) -> bool {
    // SAFETY: plain numbers.
    let theirs = unsafe { libc::getpgid(pid) };
    // SAFETY: no arguments.
    theirs == unsafe { libc::getpgrp() }
}

/// Stops pagewarden, as the program it runs has stopped by `signal`: a shell then sees a stopped job.
///
/// Only where a shell can see it: without a terminal, or in another group than the program, nobody would
/// continue us. A bare `SIGSTOP` counts when `all_stopped` says that no other guest could continue it.
pub(super) fn stop_with_guest(pid: Tid, signal: i32, all_stopped: impl FnOnce() -> bool) {
    if !same_group(pid) || !has_terminal() {
        return;
    }
    if signal == libc::SIGSTOP && !all_stopped() {
        return;
    }
    let own = std::process::id().cast_signed();
    // SAFETY: a process may always send itself a signal.
    let _ = unsafe { libc::kill(own, libc::SIGSTOP) };
}

fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}
