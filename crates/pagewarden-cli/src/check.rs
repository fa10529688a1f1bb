//! `pagewarden check`: random programs of memory calls, on the host's kernel and on pagewarden.
//!
//! The guest of both sides is this very command, under a name that the help does not show.

mod text;

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagewarden_linux::oracle::check::{self, Check, Finding, Outcomes, Progress, Verdict};
use pagewarden_linux::oracle::{Runner, Side, World, c_source, guest as oracle_guest};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::args::{CheckArgs, CheckPlatform};
use crate::style::{self, HEAD, paint};

/// Steps of a program.
const STEPS: usize = 40;
/// Kinds of difference that end a check.
const MOST_KINDS: usize = 3;
/// How long one batch of programs may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The hidden command that is the guest.
const GUEST: &str = "check-guest";

/// We could not run, or were called wrongly.
const FAILURE: u8 = 2;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the check could not run: {0}")]
    Run(#[source] io::Error),
    #[error("cannot prepare the check: {0}")]
    Prepare(#[source] io::Error),
    #[error("cannot write {file}: {source}")]
    File { file: String, source: io::Error },
    #[error("cannot write the result: {0}")]
    Write(#[source] io::Error),
}

/// Runs programs from standard input: one side of a check.
pub(crate) fn guest() -> ExitCode {
    oracle_guest::main().map_or_else(
        |error| {
            say(error);
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Does what `asked` says.
pub(crate) fn run(asked: &CheckArgs) -> ExitCode {
    match compare(asked) {
        Ok(outcomes) if outcomes.findings.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            say(failure);
            ExitCode::from(FAILURE)
        }
    }
}

impl CheckPlatform {
    /// The host's side and pagewarden's.
    const fn sides(self) -> [Side; 2] {
        match self {
            Self::Traced => [Side::Native, Side::Traced],
            Self::Arena => [Side::Enclosed, Side::Arena],
            Self::Machine => [Side::BesideMachine, Side::Machine],
        }
    }

    /// What addresses programs name.
    const fn world(self) -> World {
        match self {
            Self::Traced => World::Whole,
            Self::Arena | Self::Machine => World::Enclosed,
        }
    }

    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Traced => "traced",
            Self::Arena => "arena",
            Self::Machine => "machine",
        }
    }
}

fn compare(asked: &CheckArgs) -> Result<Outcomes, Failure> {
    let interrupted = catch_interrupts().map_err(Failure::Prepare)?;
    let directory = tempfile::Builder::new().prefix("pagewarden-check").tempdir().map_err(Failure::Prepare)?;
    let program: OsString = std::env::current_exe().map_err(Failure::Prepare)?.into();
    let guest = vec![program, GUEST.into()];
    let runner = Runner { guest, directory: directory.path().to_owned(), timeout: TIMEOUT };
    let check = Check {
        seed: asked.seed.unwrap_or_else(random_seed),
        budget: asked.budget(),
        steps: STEPS,
        world: asked.platform.world(),
        most: MOST_KINDS,
    };
    let mut progress_line = ProgressLine::new(asked.platform, check);
    let begin = Instant::now();
    let outcomes =
        check::run(&check, &|programs| runner.differences(asked.platform.sides(), programs), &mut |progress| {
            progress_line.show(progress);
            if interrupted.load(Ordering::Relaxed) { Verdict::Stop } else { Verdict::GoOn }
        });
    progress_line.clear();
    let outcomes = outcomes.map_err(Failure::Run)?;
    let ending = text::Ending {
        platform: asked.platform,
        seed: check.seed,
        elapsed: begin.elapsed(),
        is_interrupted: interrupted.load(Ordering::Relaxed),
    };
    let mut out = anstream::stdout().lock();
    out.write_all(text::render(&outcomes, &ending).as_bytes()).and_then(|()| out.flush()).map_err(Failure::Write)?;
    if let (Some(file), Some(finding)) = (&asked.save, shortest(&outcomes)) {
        save(file, finding)?;
    }
    Ok(outcomes)
}

/// The finding with the fewest steps.
fn shortest(outcomes: &Outcomes) -> Option<&Finding> {
    outcomes.findings.values().min_by_key(|finding| finding.difference.program.steps.len())
}

fn save(file: &Path, finding: &Finding) -> Result<(), Failure> {
    fs::write(file, c_source::c_source(&finding.difference.program))
        .map_err(|source| Failure::File { file: file.display().to_string(), source })
}

/// Set by the first interrupt; the second ends this process.
fn catch_interrupts() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first interrupt finds the flag not set yet.
        flag::register_conditional_shutdown(signal, FAILURE.into(), Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Another one each time, short enough to be typed.
fn random_seed() -> u64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish() >> 32
}

/// A line on a terminal that is written over and over.
struct ProgressLine {
    platform: CheckPlatform,
    check: Check,
    is_shown: bool,
    last: Option<Instant>,
}

impl ProgressLine {
    /// How often the line changes at most.
    const PAUSE: Duration = Duration::from_millis(100);

    fn new(platform: CheckPlatform, check: Check) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
        Self { platform, check, is_shown: io::stderr().is_terminal() && !is_dumb, last: None }
    }

    fn show(&mut self, progress: &Progress) {
        if !self.is_shown || self.last.is_some_and(|last| last.elapsed() < Self::PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        let line = text::progress(progress, self.platform, self.check.budget);
        let line = style::error_width().map_or(line.clone(), |width| style::cut(&line, width.saturating_sub(1)));
        Self::write(&line);
    }

    fn clear(&self) {
        if self.is_shown && self.last.is_some() {
            Self::write("");
        }
    }

    /// Nobody is left to see it if standard error is closed.
    fn write(line: &str) {
        let mut terminal = io::stderr().lock();
        let _ = write!(terminal, "\r{line}\x1b[K").and_then(|()| terminal.flush());
    }
}

fn say(message: impl std::fmt::Display) {
    // Nobody is left to be told if standard error is closed.
    let _ = writeln!(anstream::stderr(), "{} {message}", paint(HEAD, "pagewarden:"));
}
