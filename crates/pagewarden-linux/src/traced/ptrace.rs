//! The ptrace(2) requests that the tracer makes, typed, and what a wait status means.
//!
//! Signals stay plain numbers: real-time signals have no name. A request that meets a thread which has
//! died meanwhile fails with `ESRCH`; every caller must cope with that at any moment.

use std::io;
use std::ptr;

use libc::{c_int, c_uint, c_void, user_regs_struct};

/// A thread of the guest, by its number in pagewarden's PID namespace.
pub(super) type Tid = libc::pid_t;

/// The options that every tracee has; children inherit them.
pub(super) const OPTIONS: c_int = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD;

/// Until what a thread runs when it is resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// The next event.
    Event,
    /// The next entry into or exit from a system call, or the next event.
    Syscall,
    /// The next instruction, or the next event.
    Step,
    /// It stays in its group stop until `SIGCONT` (`PTRACE_LISTEN`).
    Continued,
}

impl Until {
    const fn request(self) -> c_uint {
        match self {
            Self::Event => libc::PTRACE_CONT,
            Self::Syscall => libc::PTRACE_SYSCALL,
            Self::Step => libc::PTRACE_SINGLESTEP,
            Self::Continued => libc::PTRACE_LISTEN,
        }
    }
}

/// What a wait status tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// The thread called exit, or its group did.
    Exited(c_int),
    /// A signal killed it.
    Killed(c_int),
    /// A system call is done; its result is in `rax`.
    SyscallExit,
    /// A system call that the filter points out is about to start.
    Seccomp,
    /// fork, vfork or clone has made a child; its number is the event message.
    Cloned,
    /// A new program is in place; the event message is the old thread number.
    Exec,
    /// The group is stopped by this signal.
    Group(c_int),
    /// A first stop, an interrupt, or the end of a group stop.
    Trap,
    /// This signal is about to be delivered.
    Signal(c_int),
}

impl Stop {
    /// Decodes a status that wait4(2) gave.
    pub(super) fn from_status(status: c_int) -> Self {
        if libc::WIFEXITED(status) {
            return Self::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return Self::Killed(libc::WTERMSIG(status));
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => Self::SyscallExit,
            0 => Self::Signal(signal),
            libc::PTRACE_EVENT_SECCOMP => Self::Seccomp,
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Self::Cloned,
            libc::PTRACE_EVENT_EXEC => Self::Exec,
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Self::Group(signal),
            _ => Self::Trap,
        }
    }
}

fn request(request: c_uint, tid: Tid, addr: usize, data: *mut c_void) -> io::Result<()> {
    // SAFETY: the requests of this module read or write at most the object that `data` points to, which the
    // callers below keep alive and large enough for their request.
    let result = unsafe { libc::ptrace(request, tid, addr, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Begins to trace `tid` without stopping it.
pub(super) fn seize(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, tid, 0, OPTIONS as usize as *mut c_void)
}

/// Lets a stopped thread run, delivering `signal` (0 for none).
pub(super) fn resume(tid: Tid, until: Until, signal: c_int) -> io::Result<()> {
    request(until.request(), tid, 0, signal.cast_unsigned() as usize as *mut c_void)
}

/// Makes a thread stop with [`Stop::Trap`], or [`Stop::Group`] if its group is stopped.
pub(super) fn interrupt(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, ptr::null_mut())
}

/// The registers of a stopped thread.
pub(super) fn registers(tid: Tid) -> io::Result<user_regs_struct> {
    nix::sys::ptrace::getregs(nix::unistd::Pid::from_raw(tid)).map_err(io::Error::from)
}

/// Whether a thread that was seen to stop has not been killed since.
pub(super) fn is_stopped(tid: Tid) -> bool {
    registers(tid).is_ok()
}

/// Sets the registers of a stopped thread.
pub(super) fn set_registers(tid: Tid, registers: &user_regs_struct) -> io::Result<()> {
    nix::sys::ptrace::setregs(nix::unistd::Pid::from_raw(tid), *registers).map_err(io::Error::from)
}

/// What `rax` of a stopped thread holds.
pub(super) fn result_register(tid: Tid) -> io::Result<u64> {
    const OFFSET: usize = std::mem::offset_of!(user_regs_struct, rax);
    let word = nix::sys::ptrace::read_user(nix::unistd::Pid::from_raw(tid), OFFSET as *mut c_void)?;
    Ok(word.cast_unsigned())
}

/// The number that goes with the present event.
pub(super) fn event_message(tid: Tid) -> io::Result<u64> {
    nix::sys::ptrace::getevent(nix::unistd::Pid::from_raw(tid)).map(i64::cast_unsigned).map_err(io::Error::from)
}

/// The signals that a stopped thread blocks, a bit each.
pub(super) fn signal_mask(tid: Tid) -> io::Result<u64> {
    let mut mask = 0u64;
    request(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), (&raw mut mask).cast())?;
    Ok(mask)
}

/// Sets the signals that a stopped thread blocks.
pub(super) fn set_signal_mask(tid: Tid, mask: u64) -> io::Result<()> {
    let mut mask = mask;
    request(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), (&raw mut mask).cast())
}

/// One word of a stopped thread's memory.
pub(super) fn peek(tid: Tid, address: u64) -> io::Result<u64> {
    let address = ptr::without_provenance_mut(usize::try_from(address).map_err(io::Error::other)?);
    let word = nix::sys::ptrace::read(nix::unistd::Pid::from_raw(tid), address)?;
    Ok(word.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let stopped = |signal: c_int, event: c_int| (event << 16) | (signal << 8) | 0x7f;
        let cases = [
            (7 << 8, Stop::Exited(7)),
            (libc::SIGKILL, Stop::Killed(libc::SIGKILL)),
            (libc::SIGSEGV | 0x80, Stop::Killed(libc::SIGSEGV)),
            (stopped(libc::SIGTRAP | 0x80, 0), Stop::SyscallExit),
            (stopped(libc::SIGTRAP, 0), Stop::Signal(libc::SIGTRAP)),
            (stopped(libc::SIGSTOP, 0), Stop::Signal(libc::SIGSTOP)),
            (stopped(40, 0), Stop::Signal(40)),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_SECCOMP), Stop::Seccomp),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_VFORK), Stop::Cloned),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC), Stop::Exec),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP), Stop::Trap),
            (stopped(libc::SIGTSTP, libc::PTRACE_EVENT_STOP), Stop::Group(libc::SIGTSTP)),
        ];
        for (status, stop) in cases {
            assert_eq!(Stop::from_status(status), stop, "{status:#x}");
        }
    }
}
