//! Threads that make memory calls in one arena at once, and several arenas in one process: each thread's pages keep
//! what it wrote, and in the end the host has what the map says.

use std::sync::Arc;
use std::thread;

use pagewarden::Errno;
use pagewarden_linux::arena::{Arena, ArenaOptions};

use crate::support::{FIXED, PAGE, PRIVATE, READ, RW, SHARED, load, store};

const THREADS: u64 = 8;
const ROUNDS: u64 = 300;
/// Pages that all threads fight over, at the low end.
const COMMON: u64 = 24;
/// Pages that one thread has at a time.
const OWN: u64 = 5;

fn call(arena: &Arena, number: libc::c_long, args: &[u64]) -> Result<u64, Errno> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    arena.syscall(number.cast_unsigned(), all)
}

/// Numbers that look random (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Pages of this thread alone.
fn own_pages(arena: &Arena, byte: u8) {
    let Ok(at) = call(arena, libc::SYS_mmap, &[0, OWN * PAGE, RW, PRIVATE, u64::MAX, 0]) else { return };
    let pages = || (0..OWN).map(|page| at + page * PAGE);
    for page in pages() {
        assert_eq!(load(page), 0, "a new page is empty");
        store(page, byte);
    }
    call(arena, libc::SYS_mprotect, &[at + PAGE, PAGE, READ]).unwrap();
    call(arena, libc::SYS_mprotect, &[at + PAGE, PAGE, RW]).unwrap();
    assert!(pages().all(|page| load(page) == byte), "nobody else has written here");
    call(arena, libc::SYS_madvise, &[at, PAGE, libc::MADV_DONTNEED.unsigned_abs().into()]).unwrap();
    assert_eq!((load(at), load(at + PAGE)), (0, byte));
    call(arena, libc::SYS_munmap, &[at, OWN * PAGE]).unwrap();
}

/// Pages that all fight over. They are never touched: another thread may have taken them away.
fn common_pages(arena: &Arena, numbers: &mut Numbers) {
    let at = arena.range().start().as_u64() + (8 + numbers.below(COMMON)) * PAGE;
    let len = (1 + numbers.below(4)) * PAGE;
    let kind = if numbers.below(3) == 0 { SHARED } else { PRIVATE };
    let answer = match numbers.below(5) {
        0 | 1 => call(arena, libc::SYS_mmap, &[at, len, numbers.below(4), kind | FIXED, u64::MAX, 0]),
        2 => call(arena, libc::SYS_munmap, &[at, len]),
        3 => call(arena, libc::SYS_mprotect, &[at, len, numbers.below(4)]),
        _ => call(arena, libc::SYS_brk, &[arena.range().start().as_u64() + numbers.below(8) * PAGE]),
    };
    assert!(matches!(answer, Ok(_) | Err(Errno::NoMem)), "{answer:?}");
}

#[test]
fn many_threads_make_calls_in_few_arenas() {
    let size = (64 + THREADS * 2 * OWN) * PAGE;
    let options =
        ArenaOptions { size, commit_limit: Some((COMMON + 16 + THREADS * OWN / 2) * PAGE), ..ArenaOptions::default() };
    let arenas: Vec<Arc<Arena>> = (0..2).map(|_| Arc::new(Arena::new(&options).unwrap())).collect();
    thread::scope(|scope| {
        for index in 0..THREADS {
            let arena = Arc::clone(&arenas[usize::try_from(index % 2).unwrap()]);
            scope.spawn(move || {
                let mut numbers = Numbers(index * 0x9e37 + 1);
                for round in 0..ROUNDS {
                    own_pages(&arena, u8::try_from(1 + index * 16 + round % 16).unwrap());
                    common_pages(&arena, &mut numbers);
                    if round % 64 == 0 {
                        arena.with_manager(|manager| manager.check_invariants());
                        arena.verify().unwrap();
                    }
                }
            });
        }
    });
    for arena in arenas {
        arena.verify().unwrap();
        let (start, len) = (arena.range().start().as_u64(), arena.range().bytes());
        call(&arena, libc::SYS_munmap, &[start, len]).unwrap();
        arena.with_manager(|manager| {
            manager.check_invariants();
            assert!(pagewarden::Resource::ALL.iter().all(|resource| manager.account().used(*resource) == 0));
        });
        arena.verify().unwrap();
    }
}
