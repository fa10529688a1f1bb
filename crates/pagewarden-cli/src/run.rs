//! `pagewarden run`: starts the run, writes what it was asked to write, and ends as the program ended.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use pagewarden_linux::{Exit, Observer, RunError, RunOptions, RunOutcome, signal_death};

use crate::args::{OutputArgs, RunArgs};
use crate::trace::Trace;
use crate::{report, style, vmmap};
use pagewarden_linux::traced;

/// What we exit with when it is not the program's own status; env(1) and timeout(1) use the same, but for the first.
pub(crate) mod status {
    /// The manager and the host do not agree.
    pub(crate) const DIFFERENCE: u8 = 123;
    /// We failed, or were called wrongly.
    pub(crate) const OWN_FAILURE: u8 = 125;
    /// The program is there and cannot be run.
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    /// There is no such program.
    pub(crate) const NOT_FOUND: u8 = 127;
    /// Added to the signal that ended the program.
    pub(crate) const SIGNAL: u8 = 128;
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot write {file}: {source}")]
    File { file: String, source: io::Error },
}

impl Failure {
    const fn status(&self) -> u8 {
        match self {
            Self::Run(RunError::NotFound { .. }) => status::NOT_FOUND,
            Self::Run(RunError::NotExecutable { .. }) => status::NOT_EXECUTABLE,
            Self::Run(_) | Self::File { .. } => status::OWN_FAILURE,
        }
    }
}

/// The one place that starts a traced program.
fn start(options: &RunOptions, observer: Option<&mut dyn Observer>) -> Result<RunOutcome, RunError> {
    traced::run(options, observer)
}

/// Does what `asked` says; does not return if a signal ended the program.
pub(crate) fn run(asked: &RunArgs) -> ExitCode {
    let ending = match supervise(&asked.options(), &asked.output) {
        Ok((outcome, written)) => Ending::new(&outcome, written),
        Err(failure) => {
            say(&failure);
            Ending::Status(failure.status())
        }
    };
    match ending {
        Ending::Status(status) => ExitCode::from(status),
        Ending::Signal(signal) => {
            signal_death::die_by(signal);
            ExitCode::from(status::SIGNAL.wrapping_add(signal.to_le_bytes()[0]))
        }
    }
}

/// How we end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Status(u8),
    Signal(i32),
}

impl Ending {
    fn new(outcome: &RunOutcome, written: Written) -> Self {
        match outcome.exit {
            _ if outcome.difference.is_some() => Self::Status(status::DIFFERENCE),
            Exit::Code(0) if written == Written::Partly => Self::Status(status::OWN_FAILURE),
            // The host keeps the low eight bits of an exit status.
            Exit::Code(code) => Self::Status(code.to_le_bytes()[0]),
            Exit::Signal(signal) => Self::Signal(signal),
        }
    }
}

/// For a build without Wasmtime.
#[cfg(not(feature = "cage"))]
pub(crate) fn without_cages() -> ExitCode {
    say("this build has no cages; one that has: cargo build --release -p pagewarden-cli --features cage");
    ExitCode::from(2)
}

/// Whether all files that were asked for are complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Everything,
    Partly,
}

/// Opens all files before the program starts, so that a bad path costs no run.
fn supervise(options: &RunOptions, output: &OutputArgs) -> Result<(RunOutcome, Written), Failure> {
    let open = |path: &Path| create(path).map_err(|source| Failure::File { file: path.display().to_string(), source });
    let json_file = output.report_json.as_deref().map(open).transpose()?;
    let mut trace = output.trace.as_deref().map(open).transpose()?.map(Trace::new);
    let outcome = start(options, trace.as_mut().map(|trace| trace as &mut dyn Observer));
    let mut written = Written::Everything;
    let mut note = |path: Option<&Path>, result: io::Result<()>| {
        if let (Some(path), Err(source)) = (path, result) {
            say(Failure::File { file: path.display().to_string(), source });
            written = Written::Partly;
        }
    };
    note(output.trace.as_deref(), trace.map_or(Ok(()), Trace::finish));
    let outcome = outcome?;
    note(output.report_json.as_deref(), json_file.map_or(Ok(()), |file| report::write_json(file, &outcome.report)));
    print(&summary(&outcome, output, style::error_width()));
    Ok((outcome, written))
}

/// What is printed at the end, on standard error; what a user must not miss comes last.
fn summary(outcome: &RunOutcome, output: &OutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
    if output.vmmap_at_exit {
        text.extend(outcome.report.processes.iter().map(|process| vmmap::at_exit(process, width)));
    }
    if output.report {
        text.push_str(&report::render(&outcome.report, outcome.exit, width));
    }
    text.extend(outcome.hints.iter().map(line));
    if let Some(difference) = &outcome.difference {
        text.push_str(&line(format_args!("the manager and the host do not agree: {difference}")));
    }
    text
}

/// `path` to write to, emptied; `-` is standard error. The program does not inherit it: the library opens files
/// close-on-exec.
pub(crate) fn create(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stderr()));
    }
    Ok(Box::new(File::create(path)?))
}

/// A line in our own name.
pub(crate) fn line(message: impl Display) -> String {
    format!("{} {message}\n", style::paint(style::HEAD, "pagewarden:"))
}

pub(crate) fn say(message: impl Display) {
    print(&line(message));
}

/// Nobody is left to be told if standard error is closed.
pub(crate) fn print(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use pagewarden_linux::{ProcessReport, Report, Usage};

    use super::*;

    fn outcome(exit: Exit) -> RunOutcome {
        let process = ProcessReport {
            pid: 9,
            parent: 1,
            program: "/bin/prog".to_owned(),
            exit: Some(exit),
            usage: Usage::default(),
            resident_peak: 0,
            calls: std::collections::BTreeMap::new(),
            refused: Vec::new(),
            map_at_exit: Some("1000-2000 rw-p 0 0:0 0".to_owned()),
        };
        let report = Report {
            usage: Usage::default(),
            commit_limit: None,
            processes: vec![process],
            processes_peak: 1,
            seconds: 1.0,
            calls: 0,
        };
        RunOutcome { exit, report, difference: None, hints: vec!["first".to_owned(), "second".to_owned()] }
    }

    #[test]
    fn a_difference_outranks_the_program_and_the_program_outranks_a_file() {
        let ending = |exit, written| Ending::new(&outcome(exit), written);
        assert_eq!(ending(Exit::Code(0), Written::Everything), Ending::Status(0));
        assert_eq!(ending(Exit::Code(0), Written::Partly), Ending::Status(125));
        assert_eq!(ending(Exit::Code(3), Written::Partly), Ending::Status(3));
        assert_eq!(ending(Exit::Code(0x1_02), Written::Everything), Ending::Status(2));
        assert_eq!(ending(Exit::Code(-1), Written::Everything), Ending::Status(255));
        assert_eq!(ending(Exit::Signal(11), Written::Partly), Ending::Signal(11));
        for exit in [Exit::Code(0), Exit::Code(3), Exit::Signal(9)] {
            let differing = RunOutcome { difference: Some("x".to_owned()), ..outcome(exit) };
            assert_eq!(Ending::new(&differing, Written::Everything), Ending::Status(123));
        }
    }

    #[test]
    fn failures_have_the_statuses_of_env() {
        let source = || io::Error::from_raw_os_error(1);
        let program = || "x".to_owned();
        let status = |error: RunError| Failure::Run(error).status();
        assert_eq!(status(RunError::NotFound { program: program() }), 127);
        assert_eq!(status(RunError::NotExecutable { program: program(), source: source() }), 126);
        assert_eq!(status(RunError::NoTrace { program: program(), source: source() }), 125);
        assert_eq!(status(RunError::Host { what: "waiting", source: source() }), 125);
        let small = RunError::LimitTooSmall { limit: "--commit-limit", given: 1, needed: 2, program: program() };
        assert_eq!(status(small), 125);
    }

    #[test]
    fn the_summary_has_what_was_asked_for_in_order() {
        let outcome = RunOutcome { difference: Some("1000-2000 is missing".to_owned()), ..outcome(Exit::Code(0)) };
        let text = |output: &OutputArgs| anstream::adapter::strip_str(&summary(&outcome, output, Some(80))).to_string();
        let always = "pagewarden: first\npagewarden: second\n\
                      pagewarden: the manager and the host do not agree: 1000-2000 is missing\n";
        let mut output =
            OutputArgs { report: false, report_json: None, trace: None, vmmap_at_exit: false, verify: true };
        assert_eq!(text(&output), always);
        output.vmmap_at_exit = true;
        assert!(text(&output).starts_with("9: /bin/prog, the manager's map at its end\n"));
        output.report = true;
        let all = text(&output);
        let places = ["map at its end", "pagewarden report:", always].map(|part| all.find(part).unwrap());
        assert!(places.is_sorted(), "{all}");
    }
}
