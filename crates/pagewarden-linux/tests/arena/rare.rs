//! Advice, guards, stacks, residency, seals: what outlives its pages if it is not looked after.

use pagewarden::Errno;

use crate::support::{FIXED, Guest, MAY_MOVE, NONE, PAGE, PRIVATE, READ, RW, flags_of, load, store};

const GUARD_INSTALL: i32 = 102;
const GROWS_DOWN: u64 = 0x100;

#[test]
fn nothing_is_left_of_what_was_advised() {
    let guest = Guest::new(64);
    let plain = guest.mmap(0, 1, RW, PRIVATE).unwrap();
    let wanted = flags_of(&guest, plain);
    for advice in [libc::MADV_DONTFORK, libc::MADV_WIPEONFORK, libc::MADV_DONTDUMP, libc::MADV_HUGEPAGE]
        .into_iter()
        .chain([libc::MADV_NOHUGEPAGE, libc::MADV_SEQUENTIAL, libc::MADV_RANDOM, libc::MADV_MERGEABLE, GUARD_INSTALL])
    {
        let at = guest.mmap(0, 2, RW, PRIVATE).unwrap();
        match guest.madvise(at, 2, advice) {
            Ok(_) => {}
            Err(Errno::Inval) => continue,
            Err(errno) => panic!("advice {advice}: {errno}"),
        }
        assert_eq!(guest.munmap(at, 2), Ok(0));
        assert_eq!(guest.mmap(at, 2, RW, PRIVATE | FIXED), Ok(at));
        assert_eq!(flags_of(&guest, at), wanted, "advice {advice}");
        (0..2).for_each(|page| store(at + page * PAGE, 1));
        assert_eq!(guest.munmap(at, 2), Ok(0));
    }
}

#[test]
fn pages_that_a_region_grows_by_are_like_it() {
    let guest = Guest::new(64);
    for advice in [libc::MADV_DONTFORK, libc::MADV_WIPEONFORK, libc::MADV_DONTDUMP] {
        let at = guest.mmap(guest.start() + 8 * PAGE, 2, RW, PRIVATE).unwrap();
        assert_eq!(guest.madvise(at, 2, advice), Ok(0));
        assert_eq!(guest.mremap(at, [2, 4], MAY_MOVE, 0), Ok(at));
        assert_eq!(flags_of(&guest, at + 3 * PAGE), flags_of(&guest, at), "advice {advice}");
        assert_eq!(guest.munmap(at, 4), Ok(0));
    }
}

#[test]
fn warm_pages_become_whatever_is_mapped_there() {
    let guest = Guest::new(256);
    let at = guest.mmap(0, 8, RW, PRIVATE).unwrap();
    (0..8).for_each(|page| store(at + page * PAGE, 1));
    assert_eq!(guest.munmap(at + 2 * PAGE, 4), Ok(0));
    assert_eq!(guest.mmap(at + 2 * PAGE, 1, READ, PRIVATE | FIXED), Ok(at + 2 * PAGE));
    assert_eq!(guest.mmap(at + 3 * PAGE, 1, NONE, PRIVATE | FIXED), Ok(at + 3 * PAGE));
    assert_eq!(guest.mprotect(at + 3 * PAGE, 1, RW), Ok(0));
    assert_eq!((load(at + 2 * PAGE), load(at + 3 * PAGE)), (0, 0));
    // The last two of the eight and vacant ones below: partly warm.
    assert_eq!(guest.munmap(at, 8), Ok(0));
    assert_eq!(guest.mmap(at - 4 * PAGE, 12, RW, PRIVATE | FIXED), Ok(at - 4 * PAGE));
    assert!((0..12).all(|page| load(at - 4 * PAGE + page * PAGE) == 0));
    // More runs than are kept warm.
    assert_eq!(guest.mmap(guest.start(), 200, RW, PRIVATE | FIXED), Ok(guest.start()));
    for page in (0..200).step_by(2) {
        store(guest.start() + page * PAGE, 1);
        assert_eq!(guest.munmap(guest.start() + page * PAGE, 1), Ok(0));
    }
    for page in (0..200).step_by(2) {
        assert_eq!(guest.mmap(0, 1, RW, PRIVATE).map(load), Ok(0), "page {page}");
    }
}

#[test]
fn the_host_does_not_grow_stacks() {
    let guest = Guest::new(1024);
    let at = guest.mmap(guest.start(), 4, RW, PRIVATE | GROWS_DOWN).unwrap();
    assert_eq!(at, guest.start());
    store(at, 1);
    assert!(!flags_of(&guest, at).contains("gd"), "a stack at the start of the arena would grow out of it");
    assert_eq!(guest.munmap(at, 4), Ok(0));
}

#[test]
fn residency_is_told_into_the_arena() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 4, RW, PRIVATE).unwrap();
    let vector = guest.mmap(0, 1, RW, PRIVATE).unwrap();
    store(at + 2 * PAGE, 1);
    assert_eq!(guest.call(libc::SYS_mincore, &[at, 4 * PAGE, vector]), Ok(0));
    assert_eq!([0, 1, 2, 3].map(|page| load(vector + page)), [0, 0, 1, 0]);
}

#[test]
fn seals_hold_for_the_guest_and_go_with_the_arena() {
    let guest = Guest::new(16);
    let at = guest.mmap(0, 2, RW, PRIVATE).unwrap();
    assert_eq!(guest.call(462, &[at, PAGE, 0]), Ok(0), "mseal");
    assert_eq!(guest.munmap(at, 2), Err(Errno::Perm));
    assert_eq!(guest.mprotect(at, 1, READ), Err(Errno::Perm));
    let range = guest.arena.range();
    drop(guest);
    assert_eq!(Guest::at(range.start().as_u64(), 16).arena.range(), range, "the pages could be given back");
}
