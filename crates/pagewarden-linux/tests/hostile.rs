//! Guests that look for a way past the manager, or die at the worst moment; each map is compared with the
//! host's after each call.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pagewarden::manager::WxPolicy;
use pagewarden_linux::{Exit, OnExit, RunOptions, RunOutcome, Verify, run};

const MIB: u64 = 1 << 20;

fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-guest");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program).arg(source);
        assert!(gcc.status().is_ok_and(|status| status.success()), "gcc");
        program
    })
}

/// Runs a case; the manager's map must agree with the host's all the time.
#[track_caller]
fn outcome(args: &[&str], change: impl FnOnce(&mut RunOptions)) -> RunOutcome {
    let mut options = RunOptions { program: guest().into(), verify: Verify::EachCall, ..RunOptions::default() };
    options.args = args.iter().map(Into::into).collect();
    change(&mut options);
    let outcome = run(&options, None).expect("the guest runs");
    assert_eq!(outcome.difference, None);
    outcome
}

#[test]
fn under_a_commit_limit_no_memory_file_is_written() {
    assert_eq!(outcome(&["memory_file"], |options| options.commit_limit = Some(64 * MIB)).exit, Exit::Code(0));
}

#[test]
fn without_writable_code_no_memory_file_is_written() {
    assert_eq!(outcome(&["memory_file"], |options| options.policy.wx = WxPolicy::Deny).exit, Exit::Code(0));
}

#[test]
fn without_a_rule_to_break_a_memory_file_opens() {
    assert_eq!(outcome(&["memory_file"], |_| ()).exit, Exit::Code(1));
}

#[test]
fn a_memory_file_behind_a_link_is_closed_or_ends_the_guest_that_has_threads() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    let args = ["memory_file_by_link", link.to_str().unwrap()];
    let outcome = outcome(&args, |options| options.commit_limit = Some(64 * MIB));
    assert_eq!(outcome.exit, Exit::Signal(9));
    assert!(outcome.hints.iter().any(|hint| hint.contains("memory of a process")), "{:?}", outcome.hints);
}

#[test]
fn no_segment_is_made_where_it_could_not_be_charged() {
    assert_eq!(outcome(&["other_namespace"], |_| ()).exit, Exit::Code(0));
}

#[test]
fn processes_killed_in_their_calls_are_gone_and_no_difference() {
    let outcome = outcome(&["killed_in_calls"], |_| ());
    assert_eq!((outcome.exit, outcome.report.processes.len()), (Exit::Code(0), 31));
}

#[test]
fn processes_killed_while_they_fork_leave_nothing_behind() {
    assert_eq!(outcome(&["killed_in_forks"], |options| options.commit_limit = Some(4 * MIB)).exit, Exit::Code(0));
}

#[test]
fn signals_and_stops_get_through_between_host_calls() {
    // Without verification nearly all the time goes into host calls, and that is where signals shall meet them.
    for verify in [Verify::EachCall, Verify::Off] {
        assert_eq!(outcome(&["signals_in_calls"], |options| options.verify = verify).exit, Exit::Code(0));
    }
}

#[test]
fn stops_between_host_calls_are_put_off_and_not_lost() {
    let outcome = outcome(&["stops_in_calls"], |options| {
        options.verify = Verify::Off;
        options.on_exit = OnExit::Kill;
    });
    assert_eq!(outcome.exit, Exit::Code(0));
}
