//! The same memory in many threads of one process: loads, stores and exchanges while windows come and go, and the file
//! becomes shorter. For ThreadSanitizer as well, which sees everything but the accesses themselves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use pagewarden::phys::{Permission, VmapProvider, WindowAccess, WordWidth};
use pagewarden::{PAGE_SIZE, PageRange};
use pagewarden_linux::foreign::ForeignMemory;

use crate::support::{FIRST, Over, PAGE, at, frames, shown, window, world};

#[test]
fn threads_count_in_one_word_of_a_window_each_has_of_it() {
    const ROUNDS: u64 = 2000;
    let (file, memory) = world(1);
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], 64).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let memory = &memory;
            scope.spawn(move || {
                let window = window(memory, 8 * thread, 1);
                memory.map(window, frames(FIRST, 1), Permission::ReadWrite).unwrap();
                for _ in 0..ROUNDS {
                    add_one(memory, window);
                }
                memory.unmap(window).unwrap();
            });
        }
    });
    let window = shown(&memory, FIRST, 1);
    assert_eq!(memory.compare_exchange(at(window, 64), WordWidth::Eight, 0, 0), Ok(4 * ROUNDS));
}

fn add_one(memory: &ForeignMemory, window: PageRange) {
    let mut seen = 0;
    loop {
        let found = memory.compare_exchange(at(window, 64), WordWidth::Eight, seen, seen + 1).unwrap();
        if found == seen {
            return;
        }
        seen = found;
    }
}

#[test]
fn words_are_whole_while_windows_and_pages_come_and_go() {
    const WORDS: [u64; 2] = [0x1111_1111_1111_1111, 0xeeee_eeee_eeee_eeee];
    let (file, memory) = world(2);
    let (readable, going) = (shown(&memory, FIRST, 2), window(&memory, 20, 2));
    memory.store(at(readable, 64), &WORDS[0].to_ne_bytes()).unwrap();
    let (over, faults) = (Over::default(), AtomicU64::new(0));
    let until_over = |act: &dyn Fn(u64)| (0..).take_while(|_| !over.is_it()).for_each(act);
    thread::scope(|scope| {
        let _end = over.ends_here();
        scope.spawn(|| {
            until_over(&|round| {
                let word = WORDS[usize::from(round % 2 == 0)];
                memory.store(at(readable, 64), &word.to_ne_bytes()).unwrap();
            });
        });
        scope.spawn(|| {
            until_over(&|round| {
                file.set_len((1 + round % 2) * PAGE_SIZE).unwrap();
                memory.map(going, frames(FIRST, 2), Permission::Read).unwrap();
                memory.unmap(going).unwrap();
            });
        });
        scope.spawn(|| {
            until_over(&|_| {
                let mut bytes = [0; 16];
                let lost = memory.load(at(going, PAGE - 8), &mut bytes).is_err();
                faults.fetch_add(u64::from(lost), Ordering::Relaxed);
            });
        });
        for round in 0..10_000_000 {
            let mut bytes = [0; 8];
            memory.load(at(readable, 64), &mut bytes).unwrap();
            assert!(WORDS.contains(&u64::from_ne_bytes(bytes)), "{bytes:x?}");
            if round > 20_000 && faults.load(Ordering::Relaxed) > 100 {
                break;
            }
        }
    });
    assert!(faults.load(Ordering::Relaxed) > 0, "nothing has ever gone");
}
