//! What pagewarden itself answers: 125 when it cannot run anything, 126 and 127 as env(1) has them.
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};

use super::Behaviour;
use crate::job::{Ended, Outcome};
use crate::lab::Lab;

const PLAIN: Behaviour = Behaviour { name: "", needs: &["bash"], files: &[], check: |_| Ok(()) };

/// Every case.
pub(crate) const CASES: &[Behaviour] = &[
    Behaviour { name: "error-unknown-program", check: unknown_program, ..PLAIN },
    Behaviour { name: "error-not-executable", check: not_executable, ..PLAIN },
    Behaviour { name: "error-bad-options", check: bad_options, ..PLAIN },
    Behaviour { name: "error-limit-too-small", check: limit_too_small, ..PLAIN },
    Behaviour { name: "error-no-ptrace", check: no_ptrace, ..PLAIN },
    Behaviour { name: "error-output-file", check: bad_output_file, ..PLAIN },
    Behaviour { name: "help-and-version", check: help, ..PLAIN },
];

/// Ends with `status`, says `word` on stderr and nothing on stdout, does not panic, leaves nothing.
fn ensure_refused(outcome: &Outcome, status: i32, word: &str) -> Result<()> {
    ensure!(outcome.ended == Ended::Code(status), "not status {status}: {}", outcome.describe());
    ensure!(outcome.stderr.contains(word), "does not say {word:?}: {}", outcome.describe());
    ensure!(!outcome.stderr.contains("panicked"), "it panics: {}", outcome.describe());
    ensure!(outcome.stdout.is_empty(), "prints to stdout: {}", outcome.describe());
    ensure!(outcome.survivors.is_empty(), "processes are left behind: {}", outcome.survivors.join("; "));
    Ok(())
}

fn unknown_program(lab: &Lab) -> Result<()> {
    for program in ["no-such-program-as-this", "./no-such-file", "/no/such/folder/file"] {
        ensure_refused(&lab.run(&[], &[program, "argument"])?, 127, program)?;
    }
    Ok(())
}

fn not_executable(lab: &Lab) -> Result<()> {
    fs::write(lab.path("text"), "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(lab.path("text"), Permissions::from_mode(0o644))?;
    fs::write(lab.path("garbage"), [0_u8, 1, 2, 3])?;
    fs::set_permissions(lab.path("garbage"), Permissions::from_mode(0o755))?;
    for program in ["./text", "./garbage", "/"] {
        ensure_refused(&lab.run(&[], &[program])?, 126, program)?;
    }
    Ok(())
}

fn bad_options(lab: &Lab) -> Result<()> {
    let bad: &[&[&str]] = &[
        &["--commit-limit", "0"],
        &["--commit-limit", ""],
        &["--commit-limit", "12Q"],
        &["--commit-limit=-5"],
        &["--commit-limit", "M"],
        &["--commit-limit", "1.5.2G"],
        &["--commit-limit", "99999999999999999999"],
        &["--commit-limit", "99999999999T"],
        &["--reserve-limit", "many"],
        &["--lock-limit", "0x10"],
        &["--map-limit", "ten"],
        &["--wx", "perhaps"],
        &["--fork-charge", "half"],
        &["--on-exit", "hope"],
        &["--no-such-option"],
    ];
    for options in bad.iter().copied() {
        let outcome = lab.run(options, &["bash", "-c", "touch ran"])?;
        ensure_refused(&outcome, 125, options[0].split('=').next().unwrap_or_default())?;
        ensure!(!lab.path("ran").exists(), "{options:?}: the program ran all the same");
    }
    ensure_refused(&lab.bare(&["run"])?, 125, "")?;
    ensure_refused(&lab.bare(&["run", "--"])?, 125, "")
}

fn limit_too_small(lab: &Lab) -> Result<()> {
    for option in ["--commit-limit", "--reserve-limit"] {
        ensure_refused(&lab.run(&[option, "4K"], &["bash", "-c", "touch ran"])?, 125, "too small")?;
        ensure!(!lab.path("ran").exists(), "{option}: the program ran all the same");
    }
    Ok(())
}

/// A guest may not trace, so a pagewarden in a pagewarden has no permission.
fn no_ptrace(lab: &Lab) -> Result<()> {
    let inner = lab.warden()?.to_string_lossy().into_owned();
    let outcome = lab.run(&[], &[&inner, "run", "--", "bash", "-c", "touch ran"])?;
    ensure_refused(&outcome, 125, "trace")?;
    ensure!(!lab.path("ran").exists(), "the program ran all the same");
    Ok(())
}

fn bad_output_file(lab: &Lab) -> Result<()> {
    for option in ["--report-json", "--trace"] {
        let outcome = lab.run(&[option, "/no/such/folder/file"], &["bash", "-c", "touch ran"])?;
        ensure_refused(&outcome, 125, "/no/such/folder/file")?;
        ensure!(!lab.path("ran").exists(), "{option}: the program ran all the same");
    }
    Ok(())
}

fn help(lab: &Lab) -> Result<()> {
    for (args, word) in
        [(&["--help"][..], "run"), (&["run", "--help"], "--commit-limit"), (&["--version"], "pagewarden")]
    {
        let outcome = lab.bare(args)?;
        ensure!(outcome.ended == Ended::Code(0) && outcome.stdout.contains(word), "{args:?}: {}", outcome.describe());
    }
    Ok(())
}
