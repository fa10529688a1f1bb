//! Compiles the guest, runs its cases natively and traced, and watches over both.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pagewarden_linux::{Exit, RunError, RunOptions, RunOutcome, Verify, run};
use tempfile::TempDir;

/// How long a run may take; none takes a tenth of it on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a run may take to end when all its guests have been killed.
const GRACE: Duration = Duration::from_secs(10);

/// How the guest is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Dynamic,
    Static,
    ExecutableStack,
}

/// The guest program, compiled once for all tests of this process.
pub(crate) fn guest(link: Link) -> &'static Path {
    static DYNAMIC: OnceLock<PathBuf> = OnceLock::new();
    static STATIC: OnceLock<PathBuf> = OnceLock::new();
    static EXECUTABLE_STACK: OnceLock<PathBuf> = OnceLock::new();
    match link {
        Link::Dynamic => DYNAMIC.get_or_init(|| compile("dynamic", &[])),
        Link::Static => STATIC.get_or_init(|| compile("static", &["-static"])),
        Link::ExecutableStack => EXECUTABLE_STACK.get_or_init(|| compile("execstack", &["-z", "execstack"])),
    }
}

fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traced/guests");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (program, fresh) =
        (target.join(format!("guest-{name}")), target.join(format!("{name}-{}", std::process::id())));
    let sources = ["main", "calls", "processes", "signals", "refused", "budget", "advice", "sealed"]
        .map(|part| sources.join(part).with_extension("c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]).args(flags).arg("-o").arg(&fresh);
    let output = gcc.args(sources).output().unwrap();
    assert!(output.status.success(), "gcc: {}", String::from_utf8_lossy(&output.stderr));
    // Another test run may be using the program of this name.
    fs::rename(fresh, &program).unwrap();
    program
}

/// What is seen of a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) exit: Exit,
    /// What it told.
    pub(crate) text: String,
}

impl Seen {
    pub(crate) fn new(code: i32, text: &str) -> Self {
        Self { exit: Exit::Code(code), text: text.to_owned() }
    }
}

/// One case of the guest, to be run.
pub(crate) struct Case {
    directory: TempDir,
    link: Link,
    args: Vec<String>,
    /// How it is run when it is traced.
    pub(crate) options: RunOptions,
}

impl Case {
    /// A case and its arguments, words of `line`; `OUT` stands for the file of results.
    pub(crate) fn new(line: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out").to_str().unwrap().to_owned();
        let words = line.split(' ').map(|word| word.replace("OUT", &out));
        let args = std::iter::once(out.clone()).chain(words).collect();
        let options = RunOptions { verify: Verify::EachCall, ..RunOptions::default() };
        Self { directory, link: Link::Dynamic, args, options }
    }

    pub(crate) fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut RunOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn text(&self) -> String {
        let out = self.directory.path().join("out");
        let text = if out.exists() { fs::read_to_string(&out).unwrap() } else { String::new() };
        let _ = fs::remove_file(out);
        text
    }

    /// By the host alone.
    pub(crate) fn native(&self) -> Seen {
        let (program, args) = (guest(self.link), self.args.clone());
        let status = watched(self.directory.path(), move || Command::new(program).args(args).status().unwrap());
        let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
        Seen { exit, text: self.text() }
    }

    /// By us.
    pub(crate) fn traced(&self) -> (Seen, RunOutcome) {
        let mut options = self.options.clone();
        options.program = guest(self.link).into();
        options.args = self.args.iter().map(Into::into).collect();
        let outcome = watched(self.directory.path(), move || run(&options, None)).unwrap();
        assert_eq!(outcome.difference, None);
        let left = processes_of(self.directory.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        (Seen { exit: outcome.exit, text: self.text() }, outcome)
    }

    /// By us, where only what is seen matters.
    pub(crate) fn seen(&self) -> Seen {
        self.traced().0
    }
}

/// A case ends and tells alike with and without us, in all that `seen` says besides.
#[track_caller]
pub(crate) fn alike(case: &Case, seen: &Seen) {
    assert_eq!(&case.native(), seen, "natively");
    assert_eq!(&case.seen(), seen, "traced");
}

/// Runs a program that is not the guest; `marker` occurs in its arguments or is its folder.
pub(crate) fn run_watched(marker: &Path, options: RunOptions) -> Result<RunOutcome, RunError> {
    let result = watched(marker, move || run(&options, None));
    let left = processes_of(marker);
    assert!(left.is_empty(), "left behind: {left:?}");
    result
}

/// Does `work` in a thread of its own; if that takes too long, kills the guests with `marker` and fails.
fn watched<T: Send + 'static>(marker: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waiting) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    match waiting.recv_timeout(PATIENCE) {
        Ok(result) => return result,
        Err(RecvTimeoutError::Disconnected) => panic!("the run panicked"),
        Err(RecvTimeoutError::Timeout) => {}
    }
    let stuck = processes_of(marker);
    for (pid, _) in &stuck {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    let ended = waiting.recv_timeout(GRACE).is_ok();
    panic!("hung with {stuck:?}; the run ended when these were killed: {ended}");
}

/// Processes that have `marker` in their arguments, and what each of them is doing.
fn processes_of(marker: &Path) -> Vec<(Pid, String)> {
    let marker = marker.to_str().unwrap();
    let folders = fs::read_dir("/proc").unwrap().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    let marked = pids.filter(|pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
    });
    let state = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find(|line| line.starts_with("State:")).unwrap_or("").to_owned()
    };
    marked.map(|pid| (Pid::from_raw(pid), state(pid))).collect()
}
