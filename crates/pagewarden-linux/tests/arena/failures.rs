//! Limits, and a host that refuses: an operation happens or does not.

use pagewarden::linux::Request;
use pagewarden::manager::Cause;
use pagewarden::{Errno, Resource};
use pagewarden_linux::arena::ArenaOptions;

use crate::support::{FIXED, Guest, NONE, PAGE, PRIVATE, READ, RW, host_lines, in_child, load, store};

#[test]
fn the_commit_limit_counts_what_may_be_written() {
    let options = ArenaOptions { size: 64 * PAGE, commit_limit: Some(8 * PAGE), ..ArenaOptions::default() };
    let guest = Guest::with(&options);
    guest.mmap(0, 32, NONE, PRIVATE).unwrap();
    let at = guest.mmap(0, 8, RW, PRIVATE).unwrap();
    assert_eq!(guest.mmap(0, 1, RW, PRIVATE), Err(Errno::NoMem));
    assert_eq!(guest.brk(guest.start() + PAGE), guest.start());
    let refusal = guest.arena.call(&Request::Brk { addr: guest.start() + PAGE }).unwrap_err();
    assert_eq!(refusal.cause, Cause::Limit(Resource::Committed));
    guest.munmap(at, 4).unwrap();
    guest.mmap(0, 4, RW, PRIVATE).unwrap();
}

/// The host allows a process 65,530 regions. Where it has no room for one more, a call fails and changes nothing.
#[test]
fn a_host_without_room_for_regions_is_an_error_and_no_more() {
    let regions: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let guest = Guest::new(2 * regions + 64);
    // Other tests of this process need regions too.
    in_child(&guest, || fill_the_host(&guest, regions));
}

fn fill_the_host(guest: &Guest, regions: u64) {
    let at = guest.mmap(0, 2 * regions, READ, PRIVATE).unwrap();
    let arena = &guest.arena;
    let call = |number: libc::c_long, args: [u64; 6]| arena.syscall(number.cast_unsigned(), args);
    store_at_both_ends(guest, at, regions);
    let mut page = 2;
    while call(libc::SYS_mprotect, [at + page * PAGE, PAGE, RW, 0, 0, 0]).is_ok() {
        page += 2;
        assert!(page < 2 * regions, "the host never refused");
    }
    let before = host_lines(guest);
    let _ = call(libc::SYS_munmap, [at + (page + 9) * PAGE, PAGE, 0, 0, 0, 0]);
    let _ = call(libc::SYS_mmap, [at + (page + 9) * PAGE, PAGE, RW, PRIVATE | FIXED, u64::MAX, 0]);
    let _ = call(libc::SYS_mremap, [at + (page + 9) * PAGE, PAGE, PAGE, 3, guest.start(), 0]);
    guest.agrees();
    assert!(before.len() + 16 > host_lines(guest).len());
    // To unmap everything needs no room.
    assert_eq!(guest.munmap(guest.start(), 2 * regions + 64), Ok(0));
    assert_eq!(guest.mmap(at, 4, RW, PRIVATE | FIXED), Ok(at));
    assert_eq!(load(at), 0);
}

fn store_at_both_ends(guest: &Guest, at: u64, regions: u64) {
    for page in [0, 2 * regions - 1] {
        guest.mprotect(at + page * PAGE, 1, RW).unwrap();
        store(at + page * PAGE, 1);
        guest.mprotect(at + page * PAGE, 1, READ).unwrap();
    }
}
