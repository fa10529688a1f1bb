//! Locks are the arena's own, and never those of the process.

use pagewarden::Errno;

use crate::support::{FIXED, Guest, NONE, PAGE, PRIVATE, RW, locked_kilobytes, resident_kilobytes, store};

#[test]
fn pages_are_locked_up_to_a_hole_and_vacant_ones_never() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 4, RW, PRIVATE).unwrap();
    guest.munmap(at + 2 * PAGE, 1).unwrap();
    assert_eq!(guest.call(libc::SYS_mlock, &[at, 4 * PAGE]), Err(Errno::NoMem));
    assert_eq!(locked_kilobytes(&guest), 8);
    assert_eq!(guest.call(libc::SYS_munlock, &[at, 2 * PAGE]), Ok(0));
    assert_eq!(locked_kilobytes(&guest), 0);
    assert_eq!(guest.call(libc::SYS_mlock2, &[at, PAGE, 1]), Ok(0));
    assert_eq!(guest.munmap(at, 2), Ok(0));
    assert_eq!(guest.mmap(at, 2, RW, PRIVATE | FIXED), Ok(at));
    assert_eq!(locked_kilobytes(&guest), 0, "the lock went with the pages");
}

#[test]
fn all_pages_are_those_of_the_arena() {
    let (guest, other) = (Guest::new(64), Guest::new(16));
    other.mmap(0, 4, RW, PRIVATE).unwrap();
    guest.mmap(0, 2, RW, PRIVATE).unwrap();
    let none = guest.mmap(0, 1, NONE, PRIVATE).unwrap();
    assert_eq!(guest.call(libc::SYS_mlockall, &[3]), Ok(0));
    assert_eq!((locked_kilobytes(&guest), locked_kilobytes(&other)), (12, 0));
    let later = guest.mmap(0, 2, RW, PRIVATE).unwrap();
    store(later, 1);
    assert_eq!(guest.brk(guest.start() + PAGE), guest.start() + PAGE);
    assert_eq!(locked_kilobytes(&guest), 24, "what comes later too, the break among it");
    assert_eq!(guest.call(libc::SYS_munlockall, &[]), Ok(0));
    assert_eq!(locked_kilobytes(&guest), 0);
    assert_eq!(guest.munmap(none, 1), Ok(0));
    guest.mmap(0, 1, RW, PRIVATE).unwrap();
    assert_eq!(locked_kilobytes(&guest), 0);
}

#[test]
fn pages_that_cannot_be_resident_do_not_keep_their_neighbours_from_it() {
    let guest = Guest::new(64);
    let (below, above) = (guest.start() + 8 * PAGE, guest.start() + 9 * PAGE);
    guest.mmap(below, 1, NONE, PRIVATE | FIXED).unwrap();
    guest.mmap(above, 1, RW, PRIVATE | FIXED).unwrap();
    assert_eq!(guest.call(libc::SYS_mlockall, &[1]), Ok(0));
    assert_eq!(resident_kilobytes(&guest), 4, "the upper page");
}
