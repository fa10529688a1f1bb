//! Single calls: registers, answers, the stack.

use pagewarden_linux::Verify;

use crate::support::{Case, Link, Seen, alike};

/// What the host says to the calls of the case that fail.
const FAILURES: &str = "mmap: error 17\nmmap: error 22\nmmap: error 9\nmunmap: error 22\nmprotect: error 12\n\
    mremap: error 22\nftruncate: error 9\nshmget: error 22\nprlimit64: error 22\ndone\n";

#[test]
fn registers_are_as_they_were_but_for_the_answer() {
    for verify in [Verify::Off, Verify::EachCall] {
        let case = Case::new("registers").with(|options| options.verify = verify);
        alike(&case, &Seen::new(0, FAILURES));
    }
}

#[test]
fn registers_are_as_they_were_after_refusals() {
    let case = Case::new("refused_registers").with(|options| options.commit_limit = Some(64 << 20));
    let refusals = "io_uring_setup: error 38\nptrace: error 1\nmemfd_secret: error 38\nmmap: error 12\ndone\n";
    assert_eq!(case.seen(), Seen::new(0, refusals));
}

#[test]
fn stack_grows_with_deep_calls() {
    for link in [Link::Dynamic, Link::Static] {
        alike(&Case::new("recursion").link(link), &Seen::new(0, "done\n"));
    }
}

#[test]
fn stack_grows_when_the_host_writes_first() {
    alike(&Case::new("fresh_stack"), &Seen::new(0, "done\n"));
}
