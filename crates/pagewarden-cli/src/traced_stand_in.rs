//! Stands in for `pagewarden_linux::traced` until that lands: runs the program as it is, with no budget and no report.
//! To remove it: delete this file and its line in main.rs, and change the `use` in run.rs.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use pagewarden_linux::{Exit, Observer, Report, RunError, RunOptions, RunOutcome, Usage};

pub(crate) fn run(options: &RunOptions, _observer: Option<&mut dyn Observer>) -> Result<RunOutcome, RunError> {
    let program = options.program.to_string_lossy().into_owned();
    let status = Command::new(&options.program).args(&options.args).status().map_err(|source| match source.kind() {
        ErrorKind::NotFound => RunError::NotFound { program },
        _ => RunError::NotExecutable { program, source },
    })?;
    let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or(0)), Exit::Code);
    let report = Report {
        usage: Usage::default(),
        commit_limit: options.commit_limit,
        processes: Vec::new(),
        processes_peak: 1,
        seconds: 0.0,
        calls: 0,
    };
    let hints = vec!["this build does not trace yet: nothing was limited or counted".to_owned()];
    Ok(RunOutcome { exit, report, difference: None, hints })
}
