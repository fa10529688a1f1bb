//! Children: the host's copy of the arena, and a manager that knows what it is.

use pagewarden::{Errno, Resource};

use crate::support::{FIXED, Guest, PAGE, PRIVATE, RW, SHARED, in_child, load, store};

#[test]
fn a_child_has_a_copy_and_shares_what_is_shared() {
    let guest = Guest::new(64);
    let own = guest.mmap(0, 2, RW, PRIVATE).unwrap();
    let shared = guest.mmap(0, 1, RW, SHARED).unwrap();
    store(own, 1);
    let warm = guest.mmap(0, 1, RW, PRIVATE).unwrap();
    guest.munmap(warm, 1).unwrap();
    in_child(&guest, || {
        guest.agrees();
        assert_eq!(load(own), 1);
        store(own, 2);
        store(shared, 3);
        let new = guest.mmap(0, 1, RW, PRIVATE).unwrap();
        store(new, 4);
        assert_eq!(guest.munmap(own, 2), Ok(0));
        let used = guest.arena.with_manager(|manager| manager.account().used(Resource::Committed));
        assert_eq!(used, 1, "the child pays for what it has");
    });
    assert_eq!((load(own), load(shared)), (1, 3));
    guest.agrees();
    assert_eq!(guest.munmap(own, 2), Ok(0));
}

#[test]
fn what_is_not_inherited_leaves_no_hole() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 8, RW, PRIVATE).unwrap();
    (0..8).for_each(|page| store(at + page * PAGE, 7));
    guest.madvise(at + 2 * PAGE, 2, libc::MADV_DONTFORK).unwrap();
    guest.madvise(at + 5 * PAGE, 1, libc::MADV_WIPEONFORK).unwrap();
    guest.call(libc::SYS_mlockall, &[2]).unwrap();
    in_child(&guest, || {
        guest.agrees();
        assert_eq!([0, 4, 5, 6].map(|page| load(at + page * PAGE)), [7, 7, 0, 7]);
        assert_eq!(guest.mprotect(at + 2 * PAGE, 2, RW), Err(Errno::NoMem), "nothing is mapped there");
        assert_eq!(guest.mmap(at + 2 * PAGE, 2, RW, PRIVATE | FIXED), Ok(at + 2 * PAGE));
        assert_eq!(load(at + 2 * PAGE), 0);
        assert_eq!(crate::support::locked_kilobytes(&guest), 0, "locks are not inherited");
    });
    assert_eq!(load(at + 2 * PAGE), 7);
    guest.agrees();
}
