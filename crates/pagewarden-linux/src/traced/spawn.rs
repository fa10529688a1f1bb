//! Starts the program: look-up in `PATH`, fork, trace, filters, exec.
//!
//! The child is made ready before the fork; between fork and exec it calls only what is safe there. It
//! says that it runs, waits until it is traced, installs the filters and executes the program. What exec
//! refuses comes back through a pipe that a successful exec closes.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use seccompiler::BpfProgram;

use super::filter::READ_IMPLIES_EXEC;
use super::ptrace::{self, Tid};
use crate::options::RunOptions;
use crate::report::RunError;

/// Where programs are looked for if `PATH` is not set, as execvp(3) has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// How the child ends if it cannot execute the program; nobody sees it, the pipe tells why.
const EXEC_FAILED: i32 = 127;

/// A program that is about to execute under trace.
#[derive(Debug)]
pub(super) struct Spawned {
    /// Its process.
    pub(super) pid: Tid,
    /// Names the process for signals, whatever becomes of its number.
    pub(super) pidfd: OwnedFd,
    errors: fs::File,
}

impl Spawned {
    /// Why exec failed; `None` if that was not what ended the child.
    pub(super) fn exec_error(&mut self) -> Option<io::Error> {
        let mut raw = [0; 4];
        self.errors.read_exact(&mut raw).ok()?;
        Some(io::Error::from_raw_os_error(i32::from_le_bytes(raw)))
    }
}

/// Where the program is.
pub(super) fn find(program: &OsStr) -> Result<PathBuf, RunError> {
    let not_found = || RunError::NotFound { program: program.to_string_lossy().into_owned() };
    if program.is_empty() {
        return Err(not_found());
    }
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return check(&path).map(|()| path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => not_found(),
            _ => not_executable(program, source),
        });
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut refused = None;
    for folder in std::env::split_paths(&path) {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let candidate = folder.join(program);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.map_or_else(not_found, |source| not_executable(program, source)))
}

/// Whether `path` is a file that may be executed; exec itself has the last word.
fn check(path: &Path) -> io::Result<()> {
    let data = fs::metadata(path)?;
    if data.is_dir() || data.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

/// The error for a program that is there and does not run.
pub(super) fn not_executable(program: &OsStr, source: io::Error) -> RunError {
    RunError::NotExecutable { program: program.to_string_lossy().into_owned(), source }
}

/// All that the child needs, made before the fork.
struct Child<'a> {
    path: CString,
    argv: Vec<*const libc::c_char>,
    environ: Vec<*const libc::c_char>,
    programs: Vec<libc::sock_fprog>,
    mask: &'a libc::sigset_t,
    ready: RawFd,
    go: RawFd,
    errors: RawFd,
}

/// Starts the program and traces it; `mask` is the signal mask that it gets. It has not executed yet.
pub(super) fn spawn(options: &RunOptions, filters: &[BpfProgram], mask: &libc::sigset_t) -> Result<Spawned, RunError> {
    let host = |what| move |source| RunError::Host { what, source };
    let path = find(&options.program)?;
    let name = |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let refused = |source| not_executable(&options.program, source);
    let strings: Vec<CString> = std::iter::once(options.program.as_os_str())
        .chain(options.args.iter().map(|arg| arg.as_os_str()))
        .map(name)
        .collect::<Result<_, _>>()
        .map_err(refused)?;
    let variables: Vec<CString> = std::env::vars_os()
        .map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat())
        .filter_map(|text| CString::new(text).ok())
        .collect();
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(host("pipe"));
    let ((ready_in, ready_out), (go_in, go_out), (errors_in, errors_out)) = (pipe()?, pipe()?, pipe()?);
    let child = Child {
        path: name(path.as_os_str()).map_err(refused)?,
        argv: pointers(&strings),
        environ: pointers(&variables),
        programs: filters.iter().map(sock_fprog).collect(),
        mask,
        ready: ready_out.as_raw_fd(),
        go: go_in.as_raw_fd(),
        errors: errors_out.as_raw_fd(),
    };
    // SAFETY: the child calls only `Child::run`, which keeps to what is allowed after fork in a process
    // that may have had other threads.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(host("fork")(io::Error::last_os_error())),
        0 => child.run(),
        pid => pid,
    };
    drop((ready_out, go_in, errors_out));
    attach(pid, fs::File::from(ready_in), fs::File::from(go_out), fs::File::from(errors_in)).map_err(|source| {
        // SAFETY: `pid` is our own child and has not been waited for.
        let _ = unsafe { libc::kill(pid, libc::SIGKILL) };
        // SAFETY: as above; a null pointer says that the status is not wanted.
        let _ = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        RunError::NoTrace { program: options.program.to_string_lossy().into_owned(), source }
    })
}

fn attach(pid: Tid, mut ready: fs::File, mut go: fs::File, errors: fs::File) -> io::Result<Spawned> {
    ready.read_exact(&mut [0])?;
    ptrace::seize(pid)?;
    // SAFETY: pidfd_open takes plain numbers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = RawFd::try_from(pidfd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    go.write_all(&[0])?;
    Ok(Spawned { pid, pidfd, errors })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

fn sock_fprog(program: &BpfProgram) -> libc::sock_fprog {
    // Programs are built here and have a few hundred instructions; the kernel refuses a wrong length.
    let len = u16::try_from(program.len()).unwrap_or(0);
    libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() }
}

impl Child<'_> {
    /// What the child does. Async-signal-safe: no allocation, no locks.
    fn run(&self) -> ! {
        let errno = self.try_run();
        let raw = errno.to_le_bytes();
        // SAFETY: `raw` is alive and four bytes long.
        let _ = unsafe { libc::write(self.errors, raw.as_ptr().cast(), raw.len()) };
        // SAFETY: _exit may be called at any time.
        unsafe { libc::_exit(EXEC_FAILED) }
    }

    /// Executes the program; returns the error number if that fails.
    fn try_run(&self) -> i32 {
        let mut byte = 0u8;
        // A tracer without privilege may attach only to a process that may be dumped; exec sets this again.
        // SAFETY: plain numbers.
        let _ = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        // SAFETY: `byte` is alive and one byte long.
        let _ = unsafe { libc::write(self.ready, (&raw const byte).cast(), 1) };
        // SAFETY: `byte` is alive and one byte long.
        if unsafe { libc::read(self.go, (&raw mut byte).cast(), 1) } != 1 {
            return libc::EIO;
        }
        // Rust ignores SIGPIPE for its own process only.
        // SAFETY: restoring a default disposition installs no handler.
        let _ = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // SAFETY: the argument is a plain number; this one only asks.
        let persona = unsafe { libc::personality(0xffff_ffff) };
        if persona >= 0 && persona.cast_unsigned() & READ_IMPLIES_EXEC != 0 {
            // SAFETY: the argument is a plain number.
            let _ = unsafe { libc::personality(u64::from(persona.cast_unsigned() & !READ_IMPLIES_EXEC)) };
        }
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return last_errno();
        }
        for program in &self.programs {
            let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
            // SAFETY: `program` points to instructions that the parent keeps alive, and the fork copied.
            if unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, std::ptr::from_ref(program)) } != 0 {
                return last_errno();
            }
        }
        // SAFETY: the mask is a valid signal set; a null pointer says that the old one is not wanted.
        let _ = unsafe { libc::sigprocmask(libc::SIG_SETMASK, self.mask, std::ptr::null_mut()) };
        // SAFETY: all three are null-terminated and point to strings that the parent keeps alive.
        let _ = unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.environ.as_ptr()) };
        last_errno()
    }
}

fn last_errno() -> i32 {
    // Reading the error number allocates nothing and takes no lock.
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
