//! The same program, natively and under pagewarden: same output, same end, nothing left behind.
use anyhow::{Result, bail, ensure};

use super::table::Program;
use crate::job::{Ended, Job, Outcome};
use crate::lab::{Lab, Side};

/// The exit status of `pagewarden run --verify` when manager and host differ.
const DIFFERENCE: i32 = 123;

/// Runs `case` on both sides and compares.
pub(crate) fn check(lab: &Lab, case: &Program) -> Result<()> {
    let native = run(lab, case, Side::Native)?;
    check_sound(case, &native)?;
    let warden = run(lab, case, Side::Warden(&["--verify"]))?;
    if warden.ended == Ended::Code(DIFFERENCE) && case.ends != warden.ended {
        bail!("manager and host differ: {}", warden.describe());
    }
    compare(&native, &warden)
}

fn run(lab: &Lab, case: &Program, side: Side<'_>) -> Result<Outcome> {
    lab.refresh(case.user, case.files)?;
    if !case.prepare.is_empty() {
        lab.prepare(case.user, case.prepare)?;
    }
    Job::start(&mut lab.command(side, case.user, case.argv)?)?.finish(case.limit)
}

/// Two runs that fail alike would compare equal, so the native one has to be right in itself.
fn check_sound(case: &Program, native: &Outcome) -> Result<()> {
    ensure!(native.ended == case.ends, "natively, not {:?}: {}", case.ends, native.describe());
    ensure!(native.stdout.contains(case.says), "natively, does not say {:?}: {}", case.says, native.describe());
    ensure!(native.survivors.is_empty(), "natively, leaves processes behind: {}", native.survivors.join("; "));
    Ok(())
}

fn compare(native: &Outcome, warden: &Outcome) -> Result<()> {
    let same = native.ended == warden.ended && native.stdout == warden.stdout && native.stderr == warden.stderr;
    ensure!(same, "not as natively\nnatively: {}\nunder pagewarden: {}", native.describe(), warden.describe());
    ensure!(warden.survivors.is_empty(), "processes are left behind: {}", warden.survivors.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn outcome(status: i32, stdout: &str, stderr: &str) -> Outcome {
        let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
        Outcome { ended: Ended::Code(status), stdout, stderr, elapsed: Duration::ZERO, survivors: Vec::new() }
    }

    #[test]
    fn each_difference_counts() {
        let native = outcome(0, "a", "b");
        assert!(compare(&native, &outcome(0, "a", "b")).is_ok());
        assert!(compare(&native, &outcome(1, "a", "b")).is_err());
        assert!(compare(&native, &outcome(0, "x", "b")).is_err());
        assert!(compare(&native, &outcome(0, "a", "x")).is_err());
        let hanging = Outcome { ended: Ended::TimedOut, ..outcome(0, "a", "b") };
        assert!(compare(&native, &hanging).is_err());
        let orphaned = Outcome { survivors: vec!["7 sleep".to_owned()], ..outcome(0, "a", "b") };
        assert!(compare(&native, &orphaned).is_err());
    }

    #[test]
    fn a_native_run_has_to_be_right_in_itself() {
        let case = Program { says: "done", ends: Ended::Code(3), ..super::super::table::PLAIN };
        assert!(check_sound(&case, &outcome(3, "well done", "")).is_ok());
        assert!(check_sound(&case, &outcome(0, "well done", "")).is_err());
        assert!(check_sound(&case, &outcome(3, "failed", "")).is_err());
    }
}
