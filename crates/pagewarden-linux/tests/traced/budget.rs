//! Memory up to a limit, past it, and after it was given back.

use pagewarden_linux::{RunOptions, RunOutcome};

use crate::support::{Case, Seen};

const MIB: u64 = 1 << 20;

fn limited(line: &str, commit_limit: u64) -> Case {
    Case::new(line).with(|options| options.commit_limit = Some(commit_limit))
}

/// The case runs to its end under the limit, and what it held never was more than that, but close.
#[track_caller]
fn done(line: &str, commit_limit: u64, at_least: u64) -> RunOutcome {
    let (seen, outcome) = limited(line, commit_limit).traced();
    assert_eq!(seen, Seen::new(0, "done\n"));
    let peak = outcome.report.usage.committed_peak;
    assert!((at_least..=commit_limit).contains(&peak), "{peak}");
    outcome
}

#[test]
fn malloc_past_the_limit_is_null_and_the_program_lives() {
    let (seen, outcome) = limited("malloc_past", 64 * MIB).traced();
    let count: u64 = seen.text.trim().parse().unwrap();
    assert!((12..16).contains(&count), "{count}");
    let peak = outcome.report.usage.committed_peak;
    assert!((count * 4 * MIB..=64 * MIB).contains(&peak), "{peak}");
    let refused = &outcome.report.processes[0].refused;
    assert!(refused.iter().any(|one| one.errno == "ENOMEM" && one.reason.contains("commit")), "{refused:?}");
}

#[test]
fn malloc_without_a_limit_goes_on() {
    let case = Case::new("malloc_past");
    assert_eq!(case.seen().exit, pagewarden_linux::Exit::Code(99));
}

#[test]
fn fork_past_the_limit_is_refused_and_ends_give_back() {
    let outcome = done("fork_past", 64 * MIB, 40 * MIB);
    assert_eq!(outcome.report.processes.len(), 22);
    let refused = &outcome.report.processes[0].refused;
    assert!(refused.iter().any(|one| one.errno == "ENOMEM" && one.count == 1), "{refused:?}");
}

#[test]
fn memfds_count_until_nobody_has_them() {
    done("memfd_past", 64 * MIB, 40 * MIB);
}

#[test]
fn segments_count_until_they_are_gone() {
    done("shm_past", 64 * MIB, 40 * MIB);
}

#[test]
fn shared_memory_counts_once() {
    done("shared_past", 64 * MIB, 40 * MIB);
}

#[test]
fn children_share_one_limit() {
    let (seen, outcome) = limited("family", 200 * MIB).traced();
    assert_eq!(seen, Seen::new(0, "at once 1\nin turn 4\n"));
    assert!(outcome.report.usage.committed_peak <= 200 * MIB);
    assert_eq!(outcome.report.processes_peak, 5);
}

#[test]
fn reservations_are_free_and_what_is_opened_in_them_is_not() {
    assert_eq!(limited("reserve", 256 * MIB).seen(), Seen::new(0, "reserved\n"));
}

#[test]
fn reserve_limit() {
    let case = Case::new("reserve").with(|options| options.reserve_limit = Some(512 * MIB));
    let (seen, outcome) = case.traced();
    assert_eq!(seen, Seen::new(0, "ENOMEM\n"));
    assert!(outcome.report.usage.reserved_peak <= 512 * MIB);
}

#[test]
fn map_limit() {
    let case = Case::new("many_regions").with(|options| options.map_limit = Some(60));
    let (seen, outcome) = case.traced();
    assert_eq!(seen, Seen::new(0, "some\nsome\nsome\n"));
    assert!(outcome.report.processes[0].usage.regions_peak > 50, "{:?}", outcome.report.processes[0]);
    assert_eq!(Case::new("many_regions").seen(), Seen::new(0, "all\nall\nall\n"));
}

#[test]
fn lock_limit() {
    let case = Case::new("lock").with(|options| options.lock_limit = Some(MIB));
    let (seen, outcome) = case.traced();
    assert_eq!(seen, Seen::new(0, "done\n"));
    assert_eq!(outcome.report.usage.locked_peak, MIB / 2);
}

#[test]
fn exec_gives_back_what_the_old_program_had() {
    let limit = |options: &mut RunOptions| options.commit_limit = Some(64 * MIB);
    assert_eq!(Case::new("exec_from_thread").with(limit).seen(), Seen::new(0, "hello\n"));
    assert_eq!(Case::new("vfork_exec").with(limit).seen(), Seen::new(0, "done\n"));
}
