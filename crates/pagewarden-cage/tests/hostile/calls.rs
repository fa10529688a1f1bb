//! The cage's own calls with buffers where there is no memory, and with arguments that make no sense.

use pagewarden_cage::{Ended, Val};

use crate::support::{CALLS, FIXED, Guest, Numbers, PAGE, READ, SHARED, WRITE, beside_a_witness, console};

const EFAULT: i32 = -14;
const EINVAL: i32 = -22;
const ENOMEM: i32 = -12;
const EBADF: i32 = -9;
const ECHILD: i32 = -10;

const HOLE: u32 = 0x20_1000;
const READ_ONLY: u32 = 0x40_0000;

/// Places that bytes cannot be written to: nowhere, where it may not be, and where it ends too soon.
fn bad_places(guest: &mut Guest, bytes: u32) -> Vec<u32> {
    guest.map(HOLE - PAGE, 1, READ | WRITE);
    guest.map(READ_ONLY, 1, READ);
    vec![0, 1, HOLE, HOLE - bytes + 1, READ_ONLY, 0xffff_f000, u32::MAX - bytes + 2, u32::MAX]
}

fn syscall(guest: &mut Guest, number: i64, args: [u64; 6]) -> i64 {
    let args: Vec<Val> = [number].into_iter().chain(args.map(u64::cast_signed)).map(Val::I64).collect();
    match guest.0.call("syscall", &args).unwrap()[..] {
        [Val::I64(result)] => result,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn results_of_segments_go_nowhere_where_there_is_no_memory() {
    const STAT: u32 = 2;
    const SET: u32 = 1;
    beside_a_witness(&console(""), |guest| {
        let id = guest.int("shmget", &[0, PAGE, 0o1600]).cast_unsigned();
        for (command, bytes) in [(STAT, 112), (3, 72), (14, 48), (13, 112), (15, 112), (SET, 112)] {
            for place in bad_places(guest, bytes) {
                let of = if command == 13 || command == 15 { 0 } else { id };
                let result = guest.int("shmctl", &[of, command, place]);
                let is_read = command == SET && place == READ_ONLY;
                assert_eq!(result, if is_read { 0 } else { EFAULT }, "command {command} at {place:#x}");
            }
        }
        for command in [4, 99, u32::MAX] {
            assert_eq!(guest.int("shmctl", &[id, command, PAGE]), EINVAL);
        }
    });
}

#[test]
fn statuses_go_nowhere_where_there_is_no_memory() {
    let child = r#"(table 1 funcref) (elem (i32.const 0) func $child)
        (func $child (param i32) (result i32) (local.get 0))"#;
    beside_a_witness(&console(child), |guest| {
        for place in bad_places(guest, 4).into_iter().skip(1) {
            assert_eq!(guest.int("wait", &[place]), ECHILD);
            let pid = guest.int("clone", &[0, 3]);
            assert!(pid > 1);
            assert_eq!(guest.int("waitpid", &[pid.cast_unsigned(), place, 0]), EFAULT, "{place:#x}");
            assert_eq!(guest.int("wait", &[PAGE]), ECHILD, "it is gone, as in Linux");
        }
        for (pid, options) in [(u32::MAX, 0x10), (u32::MAX, u32::MAX), (0, 4)] {
            assert_eq!(guest.int("waitpid", &[pid, PAGE, options]), EINVAL);
        }
        for pid in [0x8000_0000, 0x7fff_ffff, 1, 7] {
            assert_eq!(guest.int("waitpid", &[pid, PAGE, 0]), ECHILD);
        }
    });
}

#[test]
fn residence_goes_nowhere_where_there_is_no_memory() {
    beside_a_witness(&console(""), |guest| {
        guest.map(0x80_0000, 16, READ | WRITE);
        for place in bad_places(guest, 16) {
            let args = [0x80_0000, u64::from(16 * PAGE), place.into(), 0, 0, 0];
            assert_eq!(syscall(guest, libc::SYS_mincore, args), EFAULT.into(), "{place:#x}");
        }
        // Names and lists of ranges are read.
        for place in [0, HOLE, u32::MAX] {
            let name = [0x5356_4d41, 0, 0x80_0000, u64::from(PAGE), place.into(), 0];
            let result = syscall(guest, libc::SYS_prctl, name);
            assert!(
                [EFAULT, EINVAL].contains(&i32::try_from(result).unwrap()) || (result, place) == (0, 0),
                "{result}"
            );
        }
    });
}

#[test]
fn extreme_arguments_are_errors_and_change_nothing() {
    beside_a_witness(&console(""), |guest| {
        guest.map(0x80_0000, 16, READ | WRITE);
        let maps = guest.0.maps_text();
        let brk = guest.int("brk", &[0]);
        let cases: &[(&str, &[u32], i32)] = &[
            ("munmap", &[0, u32::MAX], EINVAL),
            ("munmap", &[0x80_0001, PAGE], EINVAL),
            ("munmap", &[0x80_0000, 0], EINVAL),
            ("munmap", &[0xffff_f000, PAGE], EINVAL),
            ("munmap", &[0x80_0000, u32::MAX], EINVAL),
            ("mprotect", &[0x80_0001, PAGE, READ], EINVAL),
            ("mprotect", &[0x80_0000, u32::MAX, READ | WRITE], ENOMEM),
            ("mprotect", &[0xffff_f000, PAGE, READ], ENOMEM),
            ("mprotect", &[0, PAGE, READ], ENOMEM),
            ("mprotect", &[0x80_0000, PAGE, u32::MAX], EINVAL),
            ("mremap", &[0x80_0001, PAGE, PAGE, 0, 0], EINVAL),
            ("mremap", &[0x80_0000, PAGE, u32::MAX, 1, 0], EINVAL),
            ("mremap", &[0x80_0000, PAGE, 0, 1, 0], EINVAL),
            ("mremap", &[0x80_0000, PAGE, PAGE, u32::MAX, 0], EINVAL),
            ("mremap", &[0x80_0000, PAGE, PAGE, 3, 0x80_0000], EINVAL),
            ("mremap", &[0x80_0000, PAGE, PAGE, 3, 0xffff_f000], EINVAL),
            ("mremap", &[0x80_0000, PAGE, 2 * PAGE, 3, 0xffff_e000], EINVAL),
            ("madvise", &[0x80_0001, PAGE, 4], EINVAL),
            ("madvise", &[0x80_0000, PAGE, u32::MAX], EINVAL),
            ("msync", &[0x80_0000, PAGE, 5], EINVAL),
            ("msync", &[0x80_0001, PAGE, 4], EINVAL),
            ("msync", &[0, PAGE, 4], ENOMEM),
            ("shmat", &[u32::MAX, 0, 0], EINVAL),
            ("shmat", &[0, 1, 0], EINVAL),
            ("shmdt", &[1], EINVAL),
            ("shmdt", &[0x80_0000], EINVAL),
            ("shmget", &[0, 0, 0o1600], EINVAL),
            ("brk", &[u32::MAX], brk),
            ("brk", &[0xffff_f000], brk),
            ("brk", &[1], brk),
            ("sbrk", &[0x7fff_ffff], ENOMEM),
            ("sbrk", &[0x8000_0000], ENOMEM),
        ];
        for (name, args, expected) in cases {
            assert_eq!(guest.int(name, args), *expected, "{name}{args:x?}");
        }
        assert_eq!(guest.0.maps_text(), maps);
    });
}

fn mmap(guest: &mut Guest, args: [u32; 5], offset: i64) -> i32 {
    let words = args.map(|word| Val::I32(word.cast_signed()));
    match guest.0.call("mmap", &[&words[..], &[Val::I64(offset)]].concat()).unwrap()[..] {
        [Val::I32(result)] => result,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn maps_of_extreme_arguments_are_errors() {
    const ANY: u32 = 0x22;
    beside_a_witness(&console(""), |guest| {
        let maps = guest.0.maps_text();
        let refused = |guest: &mut Guest, args, offset, errno: &[i32]| {
            let result = mmap(guest, args, offset);
            assert!(errno.contains(&result), "mmap{args:x?} at {offset:x}: {result}");
        };
        refused(guest, [0, 0, 3, ANY, u32::MAX], 0, &[EINVAL]);
        refused(guest, [0, u32::MAX, 3, ANY, u32::MAX], 0, &[ENOMEM]);
        refused(guest, [0xffff_f000, PAGE, 3, ANY | FIXED, u32::MAX], 0, &[ENOMEM]);
        refused(guest, [0xffff_e000, 2 * PAGE, 3, ANY | FIXED, u32::MAX], 0, &[ENOMEM]);
        refused(guest, [0x1001, PAGE, 3, ANY | FIXED, u32::MAX], 0, &[EINVAL]);
        refused(guest, [0, PAGE, 3, ANY | FIXED, u32::MAX], 0, &[EINVAL, -1]);
        refused(guest, [0x80_0000, u32::MAX, 3, ANY | FIXED, u32::MAX], 0, &[ENOMEM]);
        refused(guest, [0, PAGE, 3, 0, u32::MAX], 0, &[EBADF]);
        refused(guest, [0, PAGE, 3, 0x20, u32::MAX], 0, &[EINVAL]);
        refused(guest, [0, PAGE, 3, 2, 0], 0, &[EBADF]);
        refused(guest, [0, PAGE, 3, SHARED, 0x7fff_ffff], 0, &[EBADF]);
        refused(guest, [0, PAGE, 3, ANY, u32::MAX], 1, &[EINVAL]);
        refused(guest, [0, PAGE, 3, 2, u32::MAX], i64::MAX - 4094, &[EINVAL]);
        assert_eq!(guest.0.maps_text(), maps);
    });
}

/// Numbers that are near something.
const WORDS: [u64; 30] = [
    0,
    1,
    2,
    3,
    4,
    0x10,
    0x22,
    0x32,
    0x21,
    4095,
    4096,
    4097,
    8192,
    0x1_0000,
    0x2_0000,
    0x20_0000,
    0x20_1000,
    0x20_1001,
    0x40_0000,
    0x7fff_f000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_0000,
    0xffff_e000,
    0xffff_f000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_f000,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Flag words have bits that mean nothing, and more than one that mean something.
fn word(numbers: &mut Numbers) -> u64 {
    match numbers.below(4) {
        0 => numbers.word() >> numbers.below(64),
        1 => numbers.one_of(&WORDS).wrapping_add(numbers.one_of(&[0, 4096, 8192, 0x1_0000])),
        _ => numbers.one_of(&WORDS),
    }
}

/// Waits for as long as there are children.
fn reap(guest: &mut Guest) {
    while guest.int("wait", &[0]) > 0 {}
}

#[test]
fn any_arguments_of_any_call_are_answered() {
    let names: Vec<_> =
        CALLS.iter().filter(|(name, ..)| !["exit", "wait", "waitpid", "syscall"].contains(name)).collect();
    let child = r#"(table 9 funcref) (elem (i32.const 0) func $child $child $child)
        (func $child (param i32) (result i32) (i32.load (local.get 0)))"#;
    let mut numbers = Numbers(11);
    let mut served = 0;
    beside_a_witness(&console(child), |guest| {
        for round in 0..6000 {
            let (name, params, _) = numbers.one_of(&names);
            let args: Vec<Val> = (params.chars())
                .map(|letter| match letter {
                    'l' => Val::I64(word(&mut numbers).cast_signed()),
                    _ => Val::I32(
                        word(&mut numbers).to_le_bytes()[..4]
                            .iter()
                            .rev()
                            .fold(0, |all, byte| all << 8 | i32::from(*byte)),
                    ),
                })
                .collect();
            match guest.0.call(name, &args) {
                Ok(results) => served += u32::from(matches!(results[..], [Val::I32(0..)])),
                Err(error) => panic!("{name}{args:x?}: {error}"),
            }
            if round % 100 == 0 {
                guest.check();
                reap(guest);
            }
        }
        reap(guest);
    });
    assert!(served > 400, "only {served} calls did anything");
}

#[test]
fn any_system_call_by_number_is_answered() {
    let mut numbers = Numbers(5);
    let mut served = 0;
    beside_a_witness(&console(""), |guest| {
        for number in (0..500).chain([-1, i64::MIN, i64::MAX, 1 << 32 | libc::SYS_mmap]) {
            for _ in 0..12 {
                let args = [(); 6].map(|()| word(&mut numbers));
                let result = syscall(guest, number, args);
                assert!(result >= -4095, "{number}{args:x?} is {result}");
                served += u32::from(result >= 0);
            }
            guest.check();
        }
    });
    assert!(served > 50, "only {served} calls did anything");
}

#[test]
fn a_guest_without_memory_left_is_told_so() {
    let text = r#"(func (export "store") (param i32) (i32.store (local.get 0) (i32.const 7)))"#;
    beside_a_witness(&console(text), |guest| {
        // 64 MiB is all there is for everybody.
        assert_eq!(mmap(guest, [0, 128 << 20, 3, 0x22, u32::MAX], 0), ENOMEM);
        let mut pieces = 0;
        while mmap(guest, [0, 1 << 20, 3, 0x22, u32::MAX], 0) != ENOMEM {
            pieces += 1;
            assert!(pieces < 64);
        }
        assert_eq!(guest.int("sbrk", &[1 << 20]), ENOMEM);
        assert_eq!(guest.int("grow", &[32]), -1);
        assert!(matches!(guest.call("store", &[PAGE]), Ok(_) | Err(Ended::Trap(_))));
    });
}
