//! Several threads in one arena.

use std::thread;

use crate::support::{FIXED, Guest, PAGE, PRIVATE, READ, RW, load, store};

const THREADS: u64 = 4;
const TURNS: u64 = 400;

#[test]
fn threads_share_an_arena() {
    let guest = Guest::new(1024);
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let arena = &guest.arena;
            scope.spawn(move || {
                let byte = u8::try_from(number).unwrap();
                let call = |number: libc::c_long, args: [u64; 6]| arena.syscall(number.cast_unsigned(), args).unwrap();
                let own = arena.range().start().as_u64() + number * 64 * PAGE;
                for turn in 0..TURNS {
                    let at = call(libc::SYS_mmap, [0, 3 * PAGE, RW, PRIVATE, u64::MAX, 0]);
                    (0..3).for_each(|page| assert_eq!(load(at + page * PAGE), 0, "new pages are empty"));
                    (0..3).for_each(|page| store(at + page * PAGE, byte));
                    call(libc::SYS_mprotect, [at + PAGE, PAGE, READ, 0, 0, 0]);
                    assert!((0..3).all(|page| load(at + page * PAGE) == byte), "nobody else writes here");
                    call(libc::SYS_munmap, [at, 3 * PAGE, 0, 0, 0, 0]);
                    let pages = 1 + turn % 8;
                    call(libc::SYS_mmap, [own, pages * PAGE, RW, PRIVATE | FIXED, u64::MAX, 0]);
                    (0..pages).for_each(|page| assert_eq!(load(own + page * PAGE), 0));
                    store(own, byte);
                }
            });
        }
    });
    guest.agrees();
}

#[test]
fn a_thread_that_panics_leaves_the_arena_usable() {
    let guest = Guest::new(16);
    let panicked = thread::scope(|scope| {
        scope.spawn(|| guest.arena.with_manager(|_| std::panic::panic_any("on purpose"))).join().is_err()
    });
    assert!(panicked);
    let at = guest.mmap(0, 1, RW, PRIVATE).unwrap();
    assert_eq!(guest.munmap(at, 1), Ok(0));
}
