//! `pagewarden vmmap`: the map of a live process, and the manager's own map of one that has ended.

mod json;
mod text;
mod totals;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use pagewarden_linux::ProcessReport;
use pagewarden_linux::smaps::{self, Mapping};

use crate::args::VmmapArgs;
use crate::style::{self, HEAD, paint, shown};
use text::Detail;

/// What is shown of a process.
struct Subject {
    pid: i32,
    /// Its command line; only its name if it has none.
    command: Vec<OsString>,
    mappings: Vec<Mapping>,
}

/// Prints the map of `asked.pid`.
pub(crate) fn run(asked: &VmmapArgs) -> ExitCode {
    match show(asked) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as in `vmmap 1 | head`.
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told if standard error is closed.
            let _ = writeln!(anstream::stderr(), "{} {failure}", paint(HEAD, "pagewarden:"));
            ExitCode::FAILURE
        }
    }
}

/// Why no map was shown.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Read(#[from] smaps::ReadError),
    #[error("cannot write the map as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the map: {0}")]
    Write(#[from] io::Error),
}

fn show(asked: &VmmapArgs) -> Result<(), Failure> {
    let mappings = smaps::read(asked.pid)?;
    let subject = Subject { pid: asked.pid, command: command_of(asked.pid), mappings };
    let text = if asked.json {
        json::render(&subject)?
    } else if asked.wide {
        render(&subject, None, Detail::Wide)
    } else {
        render(&subject, style::output_width(), Detail::Usual)
    };
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The words of the command line, or the name that the process gave itself.
fn command_of(pid: i32) -> Vec<OsString> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<OsString> = line
        .strip_suffix(b"\0")
        .unwrap_or(&line)
        .split(|byte| *byte == 0)
        .map(<[u8]>::to_vec)
        .map(OsString::from_vec)
        .collect();
    if words.iter().any(|word| !word.is_empty()) {
        return words;
    }
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    vec![OsStr::from_bytes(name.trim_ascii_end()).to_owned()]
}

fn render(subject: &Subject, width: Option<usize>, detail: Detail) -> String {
    let command: Vec<String> = subject.command.iter().map(|word| shown(word)).collect();
    let title = format!("{}: {}", subject.pid, command.join(" "));
    with_title(&title, &subject.mappings, width, detail)
}

fn with_title(title: &str, mappings: &[Mapping], width: Option<usize>, detail: Detail) -> String {
    let title = width.map_or_else(|| title.to_owned(), |width| style::cut(title, width));
    let regions = text::regions(mappings, width, detail);
    format!("{}\n{regions}\n{}", paint(HEAD, title), totals::table(mappings, width))
}

/// The manager's map of `process` when it ended; empty if it was not kept.
pub(crate) fn at_exit(process: &ProcessReport, width: Option<usize>) -> String {
    let Some(map) = &process.map_at_exit else {
        return String::new();
    };
    let title = format!("{}: {}, the manager's map at its end", process.pid, shown(OsStr::new(&process.program)));
    match smaps::parse(map.as_bytes()) {
        Ok(mappings) => with_title(&title, &mappings, width, Detail::Usual) + "\n",
        // It is the manager's own text, so this is a bug to be seen, not hidden.
        Err(error) => format!("{}\n{error}\n{}\n", paint(HEAD, title), shown_lines(map)),
    }
}

fn shown_lines(text: &str) -> String {
    text.lines().map(|line| shown(OsStr::new(line)) + "\n").collect()
}

#[cfg(test)]
mod tests;
