//! `pagewarden run`: starts the run, writes what it was asked to write, and ends as the program ended.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use pagewarden_linux::{Exit, Observer, RunError, RunOptions, RunOutcome, signal_death};

use crate::args::{OutputArgs, RunArgs};
use crate::trace::Trace;
use crate::traced_stand_in as traced;
use crate::{report, style, vmmap};

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
    match supervise(&asked.options(), &asked.output) {
        Ok((outcome, Written::Everything)) => end_as(&outcome),
        Ok((outcome, Written::Partly)) if outcome.exit == Exit::Code(0) && outcome.difference.is_none() => {
            ExitCode::from(status::OWN_FAILURE)
        }
        Ok((outcome, Written::Partly)) => end_as(&outcome),
        Err(failure) => {
            say(&failure);
            ExitCode::from(failure.status())
        }
    }
}

/// Whether all files that were asked for are complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Everything,
    Partly,
}

/// Opens all files before the program starts, so that a bad path costs no run.
fn supervise(options: &RunOptions, output: &OutputArgs) -> Result<(RunOutcome, Written), Failure> {
    let json_file = output.report_json.as_deref().map(create).transpose()?;
    let mut trace = output.trace.as_deref().map(create).transpose()?.map(Trace::new);
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
    tell(&outcome, output);
    Ok((outcome, written))
}

/// What is printed at the end, all of it on standard error.
fn tell(outcome: &RunOutcome, output: &OutputArgs) {
    if output.vmmap_at_exit {
        for process in &outcome.report.processes {
            print(&vmmap::at_exit(process, style::error_width()));
        }
    }
    if output.report {
        print(&report::render(&outcome.report, outcome.exit, style::error_width()));
    }
    for hint in &outcome.hints {
        say(hint);
    }
    if let Some(difference) = &outcome.difference {
        say(format_args!("the manager and the host do not agree: {difference}"));
    }
}

fn end_as(outcome: &RunOutcome) -> ExitCode {
    if outcome.difference.is_some() {
        return ExitCode::from(status::DIFFERENCE);
    }
    match outcome.exit {
        // The host keeps the low eight bits of an exit status.
        Exit::Code(code) => ExitCode::from(code.to_le_bytes()[0]),
        Exit::Signal(signal) => {
            signal_death::die_by(signal);
            ExitCode::from(status::SIGNAL.wrapping_add(signal.to_le_bytes()[0]))
        }
    }
}

/// `path` to write to, emptied; `-` is standard error. The program does not inherit it: the library opens files
/// close-on-exec.
fn create(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stderr()));
    }
    let file = File::create(path).map_err(|source| Failure::File { file: path.display().to_string(), source })?;
    Ok(Box::new(file))
}

/// A line of our own on standard error.
fn say(message: impl Display) {
    print(&format!("{} {message}\n", style::paint(style::HEAD, "pagewarden:")));
}

/// Nobody is left to be told if standard error is closed.
fn print(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
