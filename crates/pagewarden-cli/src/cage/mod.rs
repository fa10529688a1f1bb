//! `pagewarden cage run`: runs a WebAssembly program and its children in cages, and ends as the program ended.

pub(crate) mod args;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use pagewarden_cage::{CageError, CageOptions, Cages, Exit, KeptMaps, Program, Record, Recorded, Setup, Stdio};
use pagewarden_linux::{Exit as ReportedExit, Report, Usage};

use self::args::{CageOutputArgs, CageRunArgs};
use crate::run::{create, line, print, say, status};
use crate::{report, style, vmmap};

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{program}: not found")]
    NotFound { program: String },
    #[error("{program}: cannot be run: {source}")]
    NotExecutable { program: String, source: Box<dyn std::error::Error> },
    #[error(transparent)]
    Cages(#[from] CageError),
    #[error("cannot open the directory {dir}: {source}")]
    Directory { dir: String, source: io::Error },
    #[error("cannot write {file}: {source}")]
    File { file: String, source: io::Error },
}

impl Failure {
    const fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => status::NOT_FOUND,
            Self::NotExecutable { .. } => status::NOT_EXECUTABLE,
            Self::Cages(_) | Self::Directory { .. } | Self::File { .. } => status::OWN_FAILURE,
        }
    }
}

/// How a run went.
struct Outcome {
    exit: Exit,
    report: Report,
    /// For each process that was stopped, what for and its map.
    stops: String,
    hint: Option<&'static str>,
}

/// Does what `asked` says.
pub(crate) fn run(asked: &CageRunArgs) -> ExitCode {
    let status = supervise(asked).unwrap_or_else(|failure| {
        say(&failure);
        failure.status()
    });
    ExitCode::from(status)
}

/// Opens all files and directories before the program starts, so that a bad path costs no run. The status to exit with.
fn supervise(asked: &CageRunArgs) -> Result<u8, Failure> {
    let output = &asked.output;
    let failed = |source| {
        let file = output.report_json.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        Failure::File { file, source }
    };
    let json_file = output.report_json.as_deref().map(create).transpose().map_err(failed)?;
    for dir in &asked.world.dirs {
        let opened = fs::read_dir(&dir.host);
        opened.map_err(|source| Failure::Directory { dir: dir.host.display().to_string(), source })?;
    }
    let width = style::error_width();
    let outcome = carry_out(asked, width)?;
    let mut status = outcome.exit.shell_code().to_le_bytes()[0];
    if let Some(Err(source)) = json_file.map(|file| report::write_json(file, &outcome.report)) {
        say(failed(source));
        if status == 0 {
            status = status::OWN_FAILURE;
        }
    }
    print(&summary(&outcome, output, width));
    Ok(status)
}

/// Runs the program until all of its processes have ended.
fn carry_out(asked: &CageRunArgs, width: Option<usize>) -> Result<Outcome, Failure> {
    let options = asked.options();
    let cages = Cages::new(&options)?;
    let program = load(&cages, asked.command.first().map_or("", String::as_str))?;
    let kept = if asked.output.vmmap_at_exit { KeptMaps::OfAll } else { KeptMaps::OfStopped };
    let record = Record::keeping(kept);
    let setup = Setup {
        args: asked.command.clone(),
        env: asked.world.env.clone(),
        dirs: asked.world.dirs.clone(),
        stdio: Stdio::Inherited,
        record: Some(record.clone()),
        ..Setup::default()
    };
    let begin = Instant::now();
    let exit = cages.start(&program, setup)?.run().map_err(|error| not_executable(program.name(), error))?;
    let (mut recorded, processes_peak) = record.wait();
    let seconds = begin.elapsed().as_secs_f64();
    recorded.sort_by_key(|recorded| recorded.process.pid);
    let stops = recorded.iter().map(|recorded| stop(recorded, &asked.output, width)).collect();
    let report = report_of(&cages, &options, recorded, &asked.output);
    Ok(Outcome { exit, report: Report { processes_peak, seconds, ..report }, stops, hint: program.fork_advice() })
}

/// Reads and compiles the program.
fn load(cages: &Cages, path: &str) -> Result<Program, Failure> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Failure::NotFound { program: path.to_owned() },
        _ => not_executable(path, source),
    })?;
    cages.load(&bytes, path).map_err(|error| not_executable(path, error))
}

fn not_executable(program: &str, source: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::NotExecutable { program: program.to_owned(), source: source.into() }
}

/// The sums. Maps are kept if they were asked for.
fn report_of(cages: &Cages, options: &CageOptions, recorded: Vec<Recorded>, output: &CageOutputArgs) -> Report {
    let mut processes: Vec<_> = recorded.into_iter().map(|recorded| recorded.process).collect();
    for process in processes.iter_mut().filter(|_| !output.vmmap_at_exit) {
        process.map_at_exit = None;
    }
    let calls = processes.iter().flat_map(|process| process.calls.values()).copied().fold(0, u64::saturating_add);
    Report {
        usage: Usage::of(cages.account()),
        commit_limit: options.commit_limit,
        processes,
        processes_peak: 0,
        seconds: 0.0,
        calls,
    }
}

/// What a process was stopped for, and its map if that is not printed anyway; nothing if it ended by itself.
fn stop(recorded: &Recorded, output: &CageOutputArgs, width: Option<usize>) -> String {
    let Recorded { process, trap: Some(trap), .. } = recorded else { return String::new() };
    let ReportedExit::Signal(signal) = process.exit.unwrap_or(ReportedExit::Signal(trap.signal())) else {
        return String::new();
    };
    let mut text = line(format_args!("process {} ended by {}: {trap}", process.pid, report::signal_name(signal)));
    text.extend(trap.backtrace.lines().map(|frame| style::shown(OsStr::new(frame)) + "\n"));
    if !output.vmmap_at_exit {
        text.push_str(&vmmap::at_exit(process, width));
    }
    text
}

/// What is printed at the end, on standard error; what a user must not miss comes last.
fn summary(outcome: &Outcome, output: &CageOutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
    if output.vmmap_at_exit {
        text.extend(outcome.report.processes.iter().map(|process| vmmap::at_exit(process, width)));
    }
    text.push_str(&outcome.stops);
    if output.report {
        let exit = match &outcome.exit.trap {
            Some(trap) => ReportedExit::Signal(trap.signal()),
            None => ReportedExit::Code(outcome.exit.code & 0xff),
        };
        text.push_str(&report::render(&outcome.report, exit, width));
    }
    text.extend(outcome.hint.map(line));
    text
}

#[cfg(test)]
mod tests;
