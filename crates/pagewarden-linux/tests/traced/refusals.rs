//! Calls that are refused, ways around the filter, and memory that is writable and executable.

use pagewarden::manager::WxPolicy;
use pagewarden_linux::Exit;

use crate::support::{Case, Link, Seen};

fn denied(line: &str) -> Case {
    Case::new(line).with(|options| options.policy.wx = WxPolicy::Deny)
}

#[test]
fn refused_calls_say_what_is_documented() {
    let expected = "\
io_uring_setup ENOSYS
io_setup ENOSYS
userfaultfd ENOSYS
memfd_secret ENOSYS
ptrace EPERM
process_vm_writev EPERM
personality EINVAL
clone EINVAL
map_shadow_stack ENOSYS
PR_SET_MM EPERM
x32 ENOSYS
process_vm_readv allowed
personality allowed
";
    for link in [Link::Dynamic, Link::Static] {
        assert_eq!(Case::new("refused_calls").link(link).seen(), Seen::new(0, expected));
    }
}

#[test]
fn guests_install_no_filters() {
    let expected = "no_new_privs allowed\nseccomp ENOSYS\nPR_SET_SECCOMP EINVAL\ndone\n";
    assert_eq!(Case::new("seccomp_filter").seen(), Seen::new(0, expected));
}

#[test]
fn calls_by_the_32_bit_gate_kill() {
    assert_eq!(Case::new("int80").seen(), Seen { exit: Exit::Signal(libc::SIGSYS), text: String::new() });
}

fn opened(case: &Case) -> Vec<(String, String)> {
    let link = tempfile::tempdir().unwrap();
    let case = Case::new(&format!("open_memory {}", link.path().join("memory").display())).with(|options| {
        options.policy = case.options.policy.clone();
    });
    let seen = case.seen();
    assert_eq!(seen.exit, Exit::Code(0), "{}", seen.text);
    seen.text.lines().map(|line| line.rsplit_once(' ').map(|(what, how)| (what.into(), how.into())).unwrap()).collect()
}

#[test]
fn memory_files_open_for_reading_only_under_deny() {
    for (what, how) in opened(&denied("")) {
        let expected = match what.as_str() {
            "/proc/self/mem r" | "/dev/null rw" | "/proc/self/oom_score_adj rw" => "allowed",
            "openat2" => "ENOSYS",
            _ => "EACCES",
        };
        assert_eq!(how, expected, "{what}");
    }
}

#[test]
fn memory_files_open_under_allow() {
    let opened = opened(&Case::new(""));
    assert_eq!(opened.len(), 10);
    assert!(opened.iter().all(|(_, how)| how == "allowed"), "{opened:?}");
}

#[test]
fn writable_code_is_refused_under_deny() {
    let expected = "rwx mmap EACCES\nrw to rwx EACCES\nrw to rx EACCES\nrw to r allowed\n\
        was written, r to rx EACCES\nrx mmap allowed\nrx to rwx EACCES\n";
    let case = denied("writable_code");
    let (seen, outcome) = case.traced();
    assert_eq!(seen, Seen::new(0, expected));
    assert!(outcome.hints.iter().any(|hint| hint.contains("refused 5 requests")), "{:?}", outcome.hints);
    let refused = &outcome.report.processes[0].refused;
    let counted = |call: &str| -> u64 {
        let of_call = refused.iter().filter(|one| one.call == call && one.errno == "EACCES");
        of_call.map(|one| one.count).sum()
    };
    assert_eq!(counted("mmap"), 1, "{refused:?}");
    assert_eq!(counted("mprotect"), 4, "{refused:?}");
}

#[test]
fn writable_code_is_allowed_under_allow() {
    let case = Case::new("writable_code");
    assert_eq!(case.seen(), case.native());
}

#[test]
fn executable_stacks_are_closed_under_deny() {
    let case = Case::new("stack_rights").link(Link::ExecutableStack);
    assert_eq!(case.native(), Seen::new(0, "rwxp\n"));
    assert_eq!(case.seen(), Seen::new(0, "rwxp\n"));
    let (seen, outcome) = denied("stack_rights").link(Link::ExecutableStack).traced();
    assert_eq!(seen, Seen::new(0, "rw-p\n"));
    assert!(outcome.hints.iter().any(|hint| hint.contains("executable stack")), "{:?}", outcome.hints);
    let (seen, outcome) = denied("stack_rights").traced();
    assert_eq!(seen, Seen::new(0, "rw-p\n"));
    assert!(outcome.hints.is_empty(), "{:?}", outcome.hints);
}

#[test]
fn ordinary_programs_run_under_deny() {
    for line in ["thread_churn", "fork_storm", "vfork_exec", "signal_mask"] {
        assert_eq!(denied(line).seen(), Seen::new(0, "done\n"), "{line}");
    }
    for link in [Link::Static, Link::Dynamic] {
        assert_eq!(denied("exec_from_thread").link(link).seen(), Seen::new(0, "hello\n"), "{link:?}");
    }
}

#[test]
fn threads_of_programs_with_executable_stacks_are_refused_under_deny() {
    assert_eq!(denied("hello").link(Link::ExecutableStack).seen(), Seen::new(0, "hello\n"));
    // The C library gives them such stacks too.
    let seen = denied("thread_churn").link(Link::ExecutableStack).seen();
    assert_eq!(seen.exit, Exit::Code(99));
    assert!(seen.text.contains("pthread_create") && seen.text.contains("(errno 13)"), "{}", seen.text);
}
