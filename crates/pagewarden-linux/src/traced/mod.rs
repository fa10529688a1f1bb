//! HEADER
mod calls;
mod files;
mod filter;
mod fork;
mod import;
mod inject;
mod process;
mod provider;
mod ptrace;
mod segments;
mod signals;
mod spawn;
mod tracer;
mod verify;
mod wait;
mod writable_code;

use std::io;
use std::os::fd::AsFd;

use pagewarden::manager::WxPolicy;

use crate::options::RunOptions;
use crate::report::{Observer, RunError, RunOutcome};
use filter::FilterOptions;
use signals::{Blocked, Forwarder};
use tracer::Tracer;

/// Runs a program with every one of its memory calls planned by a manager, until it and, as
/// [`RunOptions::on_exit`] says, all that it has started are gone.
///
/// # Errors
/// [`RunError`]: the program cannot be found, executed or traced, or a limit is too small for it to start.
pub fn run(options: &RunOptions, observer: Option<&mut dyn Observer>) -> Result<RunOutcome, RunError> {
    let host = |what| move |source| RunError::Host { what, source };
    let filters = filter::programs(FilterOptions {
        watch_opens: options.policy.wx == WxPolicy::Deny,
        unprivileged: !may_trace_all(),
    })
    .map_err(|error| host("seccomp filter")(io::Error::other(error)))?;
    let blocked = Blocked::new().map_err(host("signal mask"))?;
    let spawned = spawn::spawn(options, &filters, blocked.before())?;
    let _hidden = Hidden::new();
    let pidfd = spawned.pidfd.as_fd().try_clone_to_owned().map_err(host("pidfd"))?;
    let _forwarder = Forwarder::start(spawned.pid, pidfd).map_err(host("signal thread"))?;
    // Both borrows last as long as the run; the observer's own lifetime does not matter here.
    let observer = observer.map(|observer| -> &mut dyn Observer { observer });
    Tracer::new(options, observer, spawned).run()
}

/// Whether this process has `CAP_SYS_PTRACE`.
fn may_trace_all() -> bool {
    const CAP_SYS_PTRACE: u64 = 19;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map_or("", str::trim);
    u64::from_str_radix(effective, 16).is_ok_and(|set| set & (1 << CAP_SYS_PTRACE) != 0)
}

/// Keeps a guest of the same user out of this process's memory, until dropped.
struct Hidden {
    before: i32,
}

impl Hidden {
    fn new() -> Self {
        // SAFETY: no pointers.
        let before = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
        // SAFETY: no pointers.
        let _ = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        Self { before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.before == 1 {
            // SAFETY: no pointers.
            let _ = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        }
    }
}
