//! What lies outside of an arena is out of reach, and stays as it is.

use pagewarden::Errno;
use pagewarden_linux::arena::{Arena, ArenaError, ArenaOptions};

use crate::support::{FIXED, Guest, MAY_MOVE, MOVE_FIXED, PAGE, PRIVATE, READ, RW, host_lines, load, store};

/// Two arenas side by side with a page between: whatever one guest does, the other's stays.
#[test]
fn calls_beyond_either_end_are_refused_and_change_nothing() {
    let middle = Guest::new(64);
    let below = Guest::at(middle.start() - 17 * PAGE, 16);
    let above = Guest::at(middle.end() + PAGE, 16);
    for neighbour in [&below, &above] {
        let at = neighbour.mmap(0, 16, RW, PRIVATE).unwrap();
        (0..16).for_each(|page| store(at + page * PAGE, 5));
    }
    let before = (host_lines(&below), host_lines(&above));
    let at = middle.mmap(0, 4, RW, PRIVATE).unwrap();
    let (low, high) = (middle.start(), middle.end());
    for (addr, pages) in [(high, 1), (high - PAGE, 2), (above.start(), 4), (0x7fff_ffff_e000, 1), (0, 1 << 40)] {
        assert_eq!(middle.munmap(addr, pages), Err(Errno::Inval), "munmap {addr:x}");
    }
    for (addr, pages) in [(low - PAGE, 1), (low - PAGE, 4), (below.start(), 2), (PAGE, 1)] {
        assert_eq!(middle.munmap(addr, pages), Err(Errno::Inval), "munmap {addr:x}");
        assert_eq!(middle.mmap(addr, pages, RW, PRIVATE | FIXED), Err(Errno::Perm), "mmap {addr:x}");
    }
    assert_eq!(middle.mmap(high, 1, RW, PRIVATE | FIXED), Err(Errno::NoMem));
    assert_eq!(middle.mmap(high - PAGE, 2, RW, PRIVATE | FIXED), Err(Errno::NoMem));
    for addr in [below.start(), low - PAGE, high, above.start()] {
        assert_eq!(middle.mprotect(addr, 1, READ), Err(Errno::NoMem), "mprotect {addr:x}");
        assert_eq!(middle.madvise(addr, 1, libc::MADV_DONTNEED), Err(Errno::NoMem));
        assert_eq!(middle.mremap(addr, [1, 2], MAY_MOVE, 0), Err(Errno::Fault));
        assert!(middle.mremap(at, [1, 1], MOVE_FIXED, addr).is_err());
        assert_eq!(middle.call(libc::SYS_mlock, &[addr, PAGE]), Err(Errno::NoMem));
        assert_eq!(middle.call(libc::SYS_mincore, &[at, PAGE, addr]), Err(Errno::Fault));
    }
    assert_eq!(middle.mprotect(high - PAGE, 2, READ), Err(Errno::NoMem), "up to the end, as Linux has it");
    assert_eq!(middle.brk(above.start()), low);
    assert_eq!(middle.mmap(below.start(), 4, RW, PRIVATE).unwrap(), low, "a hint below is the lowest address");
    assert_eq!(before, (host_lines(&below), host_lines(&above)));
    for neighbour in [&below, &above] {
        assert!((0..16).all(|page| load(neighbour.start() + page * PAGE) == 5));
        neighbour.agrees();
    }
}

#[test]
fn a_full_arena_says_so() {
    let guest = Guest::new(8);
    assert_eq!(guest.mmap(0, 9, RW, PRIVATE), Err(Errno::NoMem));
    let at = guest.mmap(0, 8, RW, PRIVATE).unwrap();
    assert_eq!(at, guest.start());
    assert_eq!(guest.mmap(0, 1, RW, PRIVATE), Err(Errno::NoMem));
    assert_eq!(guest.mremap(at, [8, 9], MAY_MOVE, 0), Err(Errno::NoMem));
    assert_eq!(guest.brk(at + PAGE), at);
}

#[test]
fn an_arena_lies_where_it_is_told_to_or_not_at_all() {
    let guest = Guest::new(4);
    let taken = ArenaOptions { size: PAGE, address: Some(guest.start()), ..ArenaOptions::default() };
    assert_eq!(Arena::new(&taken).unwrap_err(), ArenaError::Host(Errno::Exist));
    guest.agrees();
    for (size, address) in [(0, None), (u64::MAX, None), (PAGE, Some(0x2000_0000_0001))] {
        let options = ArenaOptions { size, address, ..ArenaOptions::default() };
        assert_eq!(Arena::new(&options).unwrap_err(), ArenaError::Size);
    }
    let at = guest.end() + 64 * PAGE;
    assert_eq!(Guest::at(at, 3).start(), at);
}

#[test]
fn an_arena_that_is_dropped_is_gone() {
    let guest = Guest::new(64);
    let address = Some(guest.start());
    guest.mmap(0, 4, RW, PRIVATE).unwrap();
    guest.brk(guest.start() + PAGE);
    drop(guest);
    let again = Guest::with(&ArenaOptions { size: 64 * PAGE, address, ..ArenaOptions::default() });
    assert_eq!(again.arena.with_manager(|manager| manager.map().len()), 0);
}
