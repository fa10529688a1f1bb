//! Threads, children, exec, and ends of all kinds.

use pagewarden_linux::{Exit, Verify};

use crate::support::{Case, Link, Seen, alike};

#[track_caller]
fn done(line: &str) {
    alike(&Case::new(line), &Seen::new(0, "done\n"));
}

#[test]
fn static_and_dynamic_programs_run() {
    for link in [Link::Dynamic, Link::Static, Link::ExecutableStack] {
        let case = Case::new("hello").link(link);
        alike(&case, &Seen::new(0, "hello\n"));
        let (_, outcome) = case.traced();
        let [process] = outcome.report.processes.as_slice() else { panic!("{:?}", outcome.report) };
        assert_eq!(process.exit, Some(Exit::Code(0)));
        assert!(process.calls.values().sum::<u64>() > 0 && outcome.report.calls > 0);
        assert!(process.usage.committed_peak >= 300_000 && process.usage.regions_peak > 3, "{process:?}");
    }
}

#[test]
fn exit_codes_pass_through() {
    for code in [0, 1, 77, 255] {
        alike(&Case::new(&format!("exit {code}")), &Seen::new(code, ""));
    }
}

#[test]
fn deaths_by_signal_pass_through() {
    use libc::{SIGABRT, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE, SIGSEGV, SIGSYS, SIGTERM, SIGTRAP, SIGUSR1};
    let ordinary = [SIGABRT, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE, SIGSEGV, SIGSYS, SIGTERM, SIGTRAP];
    for signal in ordinary.into_iter().chain([SIGUSR1, 34, 64]) {
        let seen = Seen { exit: Exit::Signal(signal), text: String::new() };
        alike(&Case::new(&format!("die {signal}")), &seen);
    }
}

#[test]
fn killed_while_threads_are_in_calls() {
    for verify in [Verify::Off, Verify::EachCall] {
        for delay in (0..8).map(|step| 300 + step * 731) {
            let case = Case::new(&format!("killed_in_call {delay}")).with(|options| options.verify = verify);
            assert_eq!(case.seen(), Seen { exit: Exit::Signal(libc::SIGKILL), text: String::new() });
        }
    }
}

#[test]
fn exit_while_threads_are_in_calls() {
    for verify in [Verify::Off, Verify::EachCall] {
        for delay in (0..8).map(|step| 300 + step * 731) {
            let case = Case::new(&format!("exit_in_call {delay}")).with(|options| options.verify = verify);
            assert_eq!(case.seen(), Seen::new(5, ""));
        }
    }
}

#[test]
fn parent_survives_children_killed_in_calls() {
    let case = Case::new("children_killed");
    alike(&case, &Seen::new(0, "done\n"));
    let (_, outcome) = case.traced();
    assert_eq!(outcome.report.processes.len(), 21);
    let killed = |exit: Option<Exit>| exit == Some(Exit::Signal(libc::SIGKILL));
    assert_eq!(outcome.report.processes.iter().filter(|process| killed(process.exit)).count(), 20);
}

#[test]
fn exec_from_another_thread() {
    alike(&Case::new("exec_from_thread"), &Seen::new(0, "hello\n"));
}

#[test]
fn exec_while_threads_are_in_calls() {
    for verify in [Verify::Off, Verify::EachCall] {
        for caller in ["leader", "other"] {
            for delay in (0..6).map(|step| 300 + step * 911) {
                let case = Case::new(&format!("exec_in_churn {delay} {caller}"));
                let case = case.with(|options| options.verify = verify);
                assert_eq!(case.seen(), Seen::new(0, "hello\n"), "{caller} {delay}");
            }
        }
    }
}

#[test]
fn failed_exec_changes_nothing() {
    done("exec_fails");
}

#[test]
fn vfork_and_exec() {
    done("vfork_exec");
}

#[test]
fn posix_spawn() {
    done("spawn OUT");
}

#[test]
fn clone3_makes_processes() {
    done("clone3_process");
}

#[test]
fn processes_that_share_memory() {
    done("clone_vm");
}

#[test]
fn hundred_children() {
    let case = Case::new("fork_storm");
    alike(&case, &Seen::new(0, "done\n"));
    let (_, outcome) = case.traced();
    assert_eq!(outcome.report.processes.len(), 101);
    let codes = outcome.report.processes[1..].iter().map(|process| process.exit);
    assert!(codes.eq((0..100).map(|code| Some(Exit::Code(code)))));
}

#[test]
fn threads_map_and_unmap_at_once() {
    for link in [Link::Dynamic, Link::Static] {
        alike(&Case::new("thread_churn").link(link), &Seen::new(0, "done\n"));
    }
}

#[test]
fn fork_while_threads_map_and_unmap() {
    done("fork_in_churn");
}

#[test]
fn parent_killed_while_it_makes_children() {
    for verify in [Verify::Off, Verify::EachCall] {
        let case = Case::new("forker_killed").with(|options| {
            options.verify = verify;
            options.commit_limit = Some(100 << 20);
        });
        alike(&case, &Seen::new(0, "done\n"));
    }
}

#[test]
fn threads_go_on_when_the_first_has_ended() {
    for then in ["stay", "exec"] {
        for link in [Link::Dynamic, Link::Static] {
            alike(&Case::new(&format!("leader_ends {then}")).link(link), &Seen::new(0, "hello\n"));
        }
    }
}

#[test]
fn threads_that_end_at_once() {
    done("short_threads");
}

/// The host kills it at its next instruction; we do so at once, for what its call has done cannot be undone.
#[test]
fn program_without_ground_dies() {
    for call in ["mprotect", "munmap"] {
        for verify in [Verify::Off, Verify::EachCall] {
            let case = Case::new(&format!("no_ground {call}")).link(Link::Static);
            let case = case.with(|options| options.verify = verify);
            assert_eq!(case.native().exit, Exit::Signal(libc::SIGSEGV));
            let (seen, outcome) = case.traced();
            // munmap of several regions is one host call: there the program lives to its own end.
            let signal = if call == "mprotect" { libc::SIGKILL } else { libc::SIGSEGV };
            assert_eq!(seen.exit, Exit::Signal(signal), "{call}");
            assert_eq!(outcome.hints.iter().any(|hint| hint.contains("its code changed")), call == "mprotect");
        }
    }
}

#[test]
fn limits_that_guests_set() {
    done("limits");
}

#[test]
fn space_outlives_a_process_killed_in_calls() {
    for verify in [Verify::Off, Verify::EachCall] {
        alike(&Case::new("sharer_survives").with(|options| options.verify = verify), &Seen::new(0, "done\n"));
    }
}
