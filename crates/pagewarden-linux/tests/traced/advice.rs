//! process_madvise, remap_file_pages and sealed memfds, where the oracle does not reach: other processes, threads that
//! change what is read, descriptors of other kinds.

use crate::support::{Case, Link, Seen, alike};

#[test]
fn whose_memory_a_pidfd_names_decides_what_it_takes() {
    let expected = "\
own 8192
this thread 8192
this process 8192
not a pidfd EBADF
closed EBADF
sharing 8192
parent cold 4096
parent discard EINVAL
parent mark EINVAL
parent nonsense EINVAL
parent bad range EFAULT
not inherited 0
hole ENOMEM
gone ESRCH
gone cold ESRCH
kept 7
";
    alike(&Case::new("advised_processes"), &Seen::new(0, expected));
}

#[test]
fn ranges_that_change_under_the_call_are_advised_as_they_were_read() {
    alike(&Case::new("moving_ranges"), &Seen::new(0, "done\n"));
}

#[test]
fn seals_decide_what_may_become_writable() {
    let expected = "\
seal write EBUSY
seal future 0
mapped before 0
shared writable EPERM
validated EPERM
private writable 0
mapped after EACCES
prefix EACCES
remap writable EPERM
remap read-only 0
remapped EACCES
beside 0
opened for reading EINVAL
executable 0
";
    for link in [Link::Dynamic, Link::Static] {
        alike(&Case::new("sealed_files").link(link), &Seen::new(0, expected));
    }
}
