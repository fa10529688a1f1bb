//! Copies that end where memory ends: exactly there, and without the process.

use std::thread;

use pagewarden::phys::{CopyFault, Permission, VmapProvider, WindowAccess, WordWidth};
use pagewarden::{PAGE_SIZE, VirtAddr};
use pagewarden_linux::foreign::ForeignMemory;

use crate::support::{FIRST, Over, PAGE, at, byte_at, frames, shown, window, world};

/// A byte that files of these tests never hold.
const NEVER: u8 = 0xff;
/// Lengths on both sides of each way to copy.
const LENGTHS: [usize; 16] = [1, 2, 3, 4, 7, 8, 9, 15, 16, 31, 63, 64, 127, 128, 200, 2 * PAGE];

#[test]
fn a_load_ends_at_the_end_of_the_file() {
    let (file, memory) = world(4);
    let shown = shown(&memory, FIRST, 4);
    file.set_len(2 * PAGE_SIZE).unwrap();
    for len in LENGTHS {
        for before in (0..len.min(140)).chain([len]) {
            let mut bytes = vec![0xee; len];
            let from = 2 * PAGE - before;
            let expected = if before == len { Ok(()) } else { Err(CopyFault { copied: before }) };
            assert_eq!(memory.load(at(shown, from), &mut bytes), expected, "{before} of {len}");
            let is_copied = bytes[..before].iter().enumerate().all(|(index, byte)| *byte == byte_at(from + index));
            assert!(is_copied, "{before} of {len}: what was there is copied");
            assert!(bytes[before..].iter().all(|byte| *byte == 0xee), "{before} of {len}: and nothing else");
        }
    }
}

#[test]
fn a_store_ends_at_the_end_of_the_file() {
    let (file, memory) = world(4);
    let shown = shown(&memory, FIRST, 4);
    file.set_len(2 * PAGE_SIZE).unwrap();
    for (round, len) in LENGTHS.into_iter().enumerate() {
        let value = u8::try_from(round).unwrap() + 1;
        let before = len / 2;
        let stored = memory.store(at(shown, 2 * PAGE - before), &vec![value; len]);
        assert_eq!(stored, Err(CopyFault { copied: before }), "{before} of {len}");
        let mut bytes = vec![0; before + 1];
        memory.load(at(shown, 2 * PAGE - before - 1), &mut bytes).unwrap();
        assert!(bytes[0] != value && bytes[1..].iter().all(|byte| *byte == value), "{before} of {len}");
    }
}

#[test]
fn words_that_are_gone_are_told() {
    let (file, memory) = world(2);
    let shown = shown(&memory, FIRST, 2);
    file.set_len(PAGE_SIZE).unwrap();
    for width in [WordWidth::Four, WordWidth::Eight] {
        assert_eq!(memory.compare_exchange(at(shown, PAGE), width, 0, 0), Err(CopyFault { copied: 0 }));
    }
    assert!(memory.compare_exchange(at(shown, PAGE - 8), WordWidth::Eight, 0, 0).is_ok());
    file.set_len(2 * PAGE_SIZE).unwrap();
    assert_eq!(memory.compare_exchange(at(shown, PAGE), WordWidth::Eight, 0, 5), Ok(0), "it is back, and is zero");
}

#[test]
fn a_hole_in_a_file_is_no_fault() {
    let (file, memory) = world(3);
    let shown = shown(&memory, FIRST, 3);
    let punch = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    nix::fcntl::fallocate(&file, punch, i64::try_from(PAGE_SIZE).unwrap(), i64::try_from(PAGE_SIZE).unwrap()).unwrap();
    let mut bytes = vec![1; 3 * PAGE];
    assert_eq!(memory.load(shown.start(), &mut bytes), Ok(()));
    assert!(bytes[PAGE..2 * PAGE].iter().all(|byte| *byte == 0) && bytes[2 * PAGE] == byte_at(2 * PAGE));
}

/// The file becomes shorter and longer again without pause, while it is copied from beginning to end.
#[test]
fn a_file_that_is_cut_in_the_middle_of_a_copy_ends_it_there() {
    const PAGES: usize = 256;
    let (file, memory) = world(PAGES as u64);
    let shown = shown(&memory, FIRST, PAGES as u64);
    let over = Over::default();
    let cut = || {
        let mut length = 1;
        while !over.is_it() {
            length = length * 7 % 253;
            file.set_len(length * PAGE_SIZE).unwrap();
            file.set_len(PAGES as u64 * PAGE_SIZE).unwrap();
        }
    };
    thread::scope(|scope| {
        let _end = over.ends_here();
        scope.spawn(cut);
        let faults = count_faults(&memory, shown.start(), PAGES);
        assert!(faults > 0, "no copy was cut");
    });
}

/// Copies `pages` pages until enough copies have ended early, or it has been tried often enough. A page may go while it
/// is being copied: a copy ends anywhere then, and says where.
fn count_faults(memory: &ForeignMemory, from: VirtAddr, pages: usize) -> usize {
    let mut bytes = vec![0; pages * PAGE];
    let mut faults = 0;
    for _ in 0..20_000 {
        bytes.fill(NEVER);
        if let Err(fault) = memory.load(from, &mut bytes) {
            let (copied, left) = bytes.split_at(fault.copied);
            assert!(copied.iter().all(|byte| *byte != NEVER), "{fault}: what was copied is the file's");
            assert!(!left.is_empty() && left.iter().all(|byte| *byte == NEVER), "{fault}: what was not is as it was");
            faults += 1;
        }
        bytes.fill(1);
        if let Err(fault) = memory.store(from, &bytes) {
            assert!(fault.copied < bytes.len());
            faults += 1;
        }
        if faults >= 200 {
            break;
        }
    }
    faults
}

#[test]
fn a_window_that_goes_in_the_middle_of_a_copy_ends_it_there() {
    const PAGES: u64 = 64;
    let (_file, memory) = world(PAGES);
    let shown = shown(&memory, FIRST, PAGES);
    let half = window(&memory, 3 + PAGES / 2, PAGES / 2);
    let over = Over::default();
    thread::scope(|scope| {
        let _end = over.ends_here();
        scope.spawn(|| {
            while !over.is_it() {
                memory.unmap(half).unwrap();
                memory.map(half, frames(FIRST + PAGES / 2, PAGES / 2), Permission::ReadWrite).unwrap();
            }
        });
        let faults = count_faults(&memory, shown.start(), 64);
        assert!(faults > 0, "no copy was cut");
    });
}
