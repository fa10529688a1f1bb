//! mmap, munmap, mprotect, mremap, brk and madvise of anonymous memory.

use pagewarden::Errno;

use crate::support::{FIXED, Guest, MAY_MOVE, MOVE_FIXED, NONE, PAGE, PRIVATE, READ, RW, SHARED, load, store};

#[test]
fn pages_come_zeroed_and_go() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 4, RW, PRIVATE).unwrap();
    assert_eq!(at, guest.end() - 4 * PAGE, "from the top down");
    store(at + PAGE, 7);
    assert_eq!(guest.munmap(at + PAGE, 1), Ok(0));
    assert_eq!(guest.mmap(at + PAGE, 1, RW, PRIVATE | FIXED), Ok(at + PAGE));
    assert_eq!(load(at + PAGE), 0);
    store(at, 8);
    assert_eq!(guest.mmap(at, 4, READ, PRIVATE | FIXED), Ok(at), "in place of what is there");
    assert_eq!(load(at), 0);
    assert_eq!(guest.munmap(guest.start(), 64), Ok(0));
}

#[test]
fn a_mapping_without_rights_is_a_mapping() {
    let guest = Guest::new(16);
    let at = guest.mmap(0, 2, NONE, PRIVATE).unwrap();
    assert_eq!(guest.mprotect(at, 2, RW), Ok(0));
    store(at, 1);
    assert_eq!(guest.mprotect(at - PAGE, 1, RW), Err(Errno::NoMem), "what is vacant is not mapped");
    assert_eq!(guest.madvise(at - PAGE, 2, libc::MADV_DONTNEED), Err(Errno::NoMem));
    assert_eq!(load(at), 0, "the page after the hole was discarded");
}

#[test]
fn rights_split_and_unite() {
    let guest = Guest::new(16);
    let at = guest.mmap(0, 5, RW, PRIVATE).unwrap();
    store(at + 2 * PAGE, 9);
    assert_eq!(guest.mprotect(at + 2 * PAGE, 1, READ), Ok(0));
    assert_eq!(guest.arena.with_manager(|manager| manager.map().len()), 3);
    assert_eq!(guest.mprotect(at + 2 * PAGE, 1, RW), Ok(0));
    assert_eq!(guest.arena.with_manager(|manager| manager.map().len()), 1);
    assert_eq!(load(at + 2 * PAGE), 9);
}

#[test]
fn pages_move_with_their_contents() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 4, RW, PRIVATE).unwrap();
    store(at, 3);
    store(at + 3 * PAGE, 4);
    let to = guest.start() + 8 * PAGE;
    assert_eq!(guest.mremap(at, [4, 4], MOVE_FIXED, to), Ok(to));
    assert_eq!((load(to), load(to + 3 * PAGE)), (3, 4));
    assert_eq!(guest.mremap(to, [4, 6], 0, 0), Ok(to), "grows in place");
    store(to + 5 * PAGE, 5);
    assert_eq!(guest.mmap(to + 6 * PAGE, 1, RW, PRIVATE | FIXED), Ok(to + 6 * PAGE));
    let moved = guest.mremap(to, [6, 8], MAY_MOVE, 0).unwrap();
    assert_ne!(moved, to);
    assert_eq!((load(moved), load(moved + 3 * PAGE), load(moved + 5 * PAGE), load(moved + 7 * PAGE)), (3, 4, 5, 0));
    assert_eq!(guest.mremap(moved, [8, 1], 0, 0), Ok(moved), "shrinks");
    assert_eq!(guest.munmap(moved, 1), Ok(0));
    assert_eq!(guest.mmap(moved, 8, RW, PRIVATE | FIXED), Ok(moved));
    assert!((0..8).all(|page| load(moved + page * PAGE) == 0), "nothing is left of what was there");
}

#[test]
fn what_moved_pages_leave_behind_is_empty() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 2, RW, PRIVATE).unwrap();
    store(at, 3);
    let to = guest.call(libc::SYS_mremap, &[at, 2 * PAGE, 2 * PAGE, 5, 0]).unwrap();
    assert_eq!((load(to), load(at)), (3, 0));
    store(at, 4);
    assert_eq!(guest.mremap(at, [2, 2], MOVE_FIXED, to), Ok(to));
    assert_eq!(load(to), 4);
}

#[test]
fn shared_pages_are_shown_twice() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 2, RW, SHARED).unwrap();
    store(at + PAGE, 3);
    let second = guest.mremap(at, [0, 2], MAY_MOVE, 0).unwrap();
    assert_eq!(load(second + PAGE), 3);
    store(second, 4);
    assert_eq!(load(at), 4);
    assert_eq!(guest.munmap(at, 2), Ok(0));
    assert_eq!(load(second), 4);
}

#[test]
fn the_break_starts_at_the_low_end() {
    let guest = Guest::new(64);
    let start = guest.brk(0);
    assert_eq!(start, guest.start());
    assert_eq!(guest.brk(start + 3 * PAGE + 5), start + 3 * PAGE + 5);
    store(start + 3 * PAGE, 1);
    assert_eq!(guest.brk(start + PAGE), start + PAGE);
    assert_eq!(guest.brk(start + 4 * PAGE), start + 4 * PAGE);
    assert_eq!(load(start + 3 * PAGE), 0);
    assert_eq!(guest.brk(guest.end() + PAGE), start + 4 * PAGE, "beyond the end it stays where it is");
}
