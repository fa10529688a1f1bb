//! The traced platform: the guest is a tree of ordinary processes, each memory call of which stops it.
//!
//! ```text
//!   guest thread                        tracer (one thread for the whole tree)
//!   mmap(...) --- seccomp: TRACE --->   registers -> Request -> plan -> charge
//!      the host call that the plan  <-- registers rewritten, run to its end
//!      says, in the guest's thread -->  result checked, state published
//!   goes on with the answer        <--  all other registers as they were
//! ```
//!
//! Owns the guest's processes from fork to exit: `spawn` starts them, `tracer` is the event loop, `calls`
//! and `fork` deal with stopped calls, `import` takes over what exec has mapped, `provider` turns
//! operations into host calls and `inject` makes a thread run them. What a call means is the core's.
//!
//! Invariants: between two events every space is as its process's host map says (`verify` looks); every
//! thread is in the `process` tables before its first call is looked at; a guest that is not traced does
//! not live (`PTRACE_O_EXITKILL`, and filters that answer `ENOSYS` without a tracer). No locks: one thread.
//!
//! # What becomes of each call
//!
//! | call | decision | why |
//! |---|---|---|
//! | mmap munmap mprotect mremap brk madvise mlock\* munlock\* shmat shmdt remap_file_pages prctl(`PR_SET_VMA`) | stop, planned | the family |
//! | process_madvise | stop, planned as one madvise a range | the guest could change the ranges between the plan and the call |
//! | process_madvise with an advice that other processes may be given | stop, run as it is | changes no region of anybody |
//! | mseal pkey_alloc pkey_free pkey_mprotect prctl(`PR_SET_MDWE`) | stop, planned | the family: the host does the same to its own copy |
//! | fork vfork clone clone3 | stop, charged | a child with its own memory is paid for before it is made |
//! | setrlimit prlimit64 with a new limit | stop, run, looked at | the manager follows the guest's own limits |
//! | capset setuid setreuid setresuid setfsuid unshare setns | stop, run, looked at | it follows its privileges |
//! | shmget shmctl(`IPC_RMID`) memfd_create ftruncate fallocate | stop, charged | memory outside of any space |
//! | open openat creat for writing, with W^X denied or a commit limit | stop, looked at | `/proc/PID/mem` passes protections: it makes pages that nobody has paid for |
//! | openat2, in the same cases | `ENOSYS` | its flags lie in memory; programs fall back to openat |
//! | io_uring_\* io_setup | `ENOSYS` | they map rings, and run calls that no filter sees |
//! | userfaultfd, its device | `ENOSYS`, `ENOTTY` | places pages with no memory call |
//! | memfd_secret map_shadow_stack | `ENOSYS` | not in the manager's model yet |
//! | ptrace process_vm_writev prctl(`PR_SET_MM`) | `EPERM` | change memory or maps behind the manager |
//! | seccomp prctl(`PR_SET_SECCOMP`, syscall user dispatch) | `ENOSYS`, `EINVAL` | a filter of the guest could refuse our calls |
//! | personality(`READ_IMPLIES_EXEC`) | `EINVAL` | makes mappings executable that did not ask |
//! | arch_prctl that maps a vdso, tags addresses or makes shadow stacks | `EINVAL` | maps with no memory call |
//! | clone(`CLONE_UNTRACED`) | `EINVAL` | a child that nobody watches |
//! | prctl(`PR_SET_DUMPABLE`, 0), if pagewarden has no `CAP_SYS_PTRACE` | 0, nothing done | such a guest could not be looked at |
//! | int 0x80, sysenter, 32-bit code | killed | another door to the same calls |
//! | x32 numbers | `ENOSYS` | the same |
//! | everything else | not stopped | changes no map |

mod calls;
pub(crate) mod files;
mod filter;
mod fork;
pub(crate) mod import;
mod inject;
mod opens;
mod process;
pub(crate) mod provider;
mod ptrace;
pub(crate) mod segments;
mod signals;
mod spawn;
mod tracer;
pub(crate) mod verify;
mod wait;
mod writable_code;

use std::io;
use std::os::fd::AsFd;

use pagewarden::manager::WxPolicy;

pub use calls::{UNKNOWN_CALL, call_name};

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
        watch_opens: options.policy.wx == WxPolicy::Deny || options.commit_limit.is_some(),
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
