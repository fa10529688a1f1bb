//! What programs deny themselves: seals, and code that they have written.

use pagewarden::manager::WxPolicy;

use crate::support::{Case, Link, Seen, alike};

#[test]
fn sealed_memory_stays_as_it_is() {
    let expected = "\
seal over a hole ENOMEM
seal done
seal again done
munmap EPERM
mmap EPERM
mprotect EPERM
mremap EPERM
discard what can be written done
seal what is read-only done
discard it EPERM
seal a part of a segment done
shmdt done
munmap in the child EPERM
";
    for link in [Link::Dynamic, Link::Static] {
        alike(&Case::new("sealed").link(link), &Seen::new(0, expected));
    }
}

fn denying_itself(flags: u32, inherited: &str) -> String {
    format!(
        "a word too many EINVAL\nset done\nunset EPERM\nflags {flags}\nrwx EACCES\nrwx stays done\nrw done\n\
         rw to rx EACCES\n{inherited}{inherited}"
    )
}

#[test]
fn children_and_programs_that_are_executed_inherit_the_denial() {
    alike(&Case::new("denies_itself 1"), &Seen::new(0, &denying_itself(1, "flags 1\nrwx EACCES\n")));
}

#[test]
fn or_do_not_inherit_it_if_the_program_says_so() {
    alike(&Case::new("denies_itself 3"), &Seen::new(0, &denying_itself(3, "flags 0\nrwx done\n")));
}

#[test]
fn a_denial_by_policy_is_not_the_guests_own() {
    let case = Case::new("denied").with(|options| options.policy.wx = WxPolicy::Deny);
    assert_eq!(case.seen(), Seen::new(0, "flags 0\nrwx EACCES\n"));
}
