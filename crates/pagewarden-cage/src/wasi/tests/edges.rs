//! What only a memory with holes has, what is larger than one call moves, and what no program would ask for.

use std::fs;

use pagewarden::Prot;
use tempfile::TempDir;

use super::{Caller, END, FAULT, Guest, HOLE, INVAL, NAMETOOLONG, START, functions, setup};
use crate::Ended;

const RESULT: u32 = START;
const BUFFERS: u32 = START + 0x1000;
const NAME: u32 = START + 0x800;
/// Memory of the tests' own.
const FRESH: u32 = 0x4000_0000;
const FILE: u64 = 4;
const BADF: i32 = 8;

/// A guest that has opened an empty file of its directory, to read and to write.
fn with_file() -> (Guest, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(setup(&dir));
    guest.put(NAME, b"file");
    let words = [3, 0, NAME.into(), 4, 1, (1 << 30) - 1, 0, 0, RESULT.into()];
    assert_eq!(guest.call("path_open", &words).unwrap(), 0);
    assert_eq!(u64::from(guest.word(RESULT)), FILE);
    (guest, dir)
}

impl Guest {
    /// Reads or writes the file with so many buffers: the error number, and how many bytes.
    fn transfer(&mut self, name: &str, number: u64) -> (i32, u32) {
        self.put_words(RESULT, &[0]);
        let errno = self.call(name, &[FILE, BUFFERS.into(), number, RESULT.into()]).unwrap();
        (errno, self.word(RESULT))
    }
}

/// Bytes of which no two neighbours are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn memory_that_was_never_touched_is_written_as_zeros() {
    let (mut guest, dir) = with_file();
    guest.map(FRESH, 0x10_0000, Prot::READ | Prot::WRITE);
    guest.put_words(BUFFERS, &[FRESH + 100, 0x8000]);
    assert_eq!(guest.transfer("fd_write", 1), (0, 0x8000));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), [0; 0x8000]);
}

#[test]
fn a_read_into_fresh_memory_brings_what_is_in_the_file() {
    let (mut guest, dir) = with_file();
    fs::write(dir.path().join("file"), pattern(0x1_0000)).unwrap();
    guest.map(FRESH, 0x10_0000, Prot::READ | Prot::WRITE);
    guest.put_words(BUFFERS, &[FRESH + 0x5_0ffd, 0x8003]);
    assert_eq!(guest.transfer("fd_read", 1), (0, 0x8003));
    assert_eq!(guest.get(FRESH + 0x5_0ffd, 0x8003), pattern(0x8003));
    assert_eq!(guest.get(FRESH + 0x5_0ffd + 0x8003, 1000), [0; 1000]);
}

#[test]
fn thousands_of_buffers_are_used_together() {
    let (mut guest, dir) = with_file();
    let bytes = pattern(9000);
    guest.put(START + 0x2_0000, &bytes);
    // Three bytes each, taken from behind; every other one is empty, and nowhere.
    let entry = |index: u32| [START + 0x2_0000 + (2999 - index) * 3, 3, HOLE, 0];
    let entries: Vec<u32> = (0..3000).flat_map(entry).collect();
    guest.put_words(BUFFERS, &entries);
    assert_eq!(guest.transfer("fd_write", 6000), (0, 9000));
    let backwards: Vec<u8> = bytes.chunks(3).rev().flatten().copied().collect();
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), backwards);
    guest.put(START + 0x2_0000, &[0; 9000]);
    assert_eq!(guest.call("fd_seek", &[FILE, 0, 0, RESULT.into()]).unwrap(), 0);
    assert_eq!(guest.transfer("fd_read", 6000), (0, 9000));
    assert_eq!(guest.get(START + 0x2_0000, 9000), bytes);
}

#[test]
fn too_many_buffers_are_invalid() {
    let (mut guest, _dir) = with_file();
    guest.map(FRESH, 0x10_0000, Prot::READ);
    let with = |guest: &mut Guest, number| guest.call("fd_read", &[FILE, FRESH.into(), number, RESULT.into()]).unwrap();
    assert_eq!(with(&mut guest, 1 << 16), 0);
    assert_eq!(with(&mut guest, (1 << 16) + 1), INVAL);
    assert_eq!(with(&mut guest, 0xffff_ffff), INVAL);
}

#[test]
fn buffers_that_overlap_hold_what_was_read_last() {
    let (mut guest, dir) = with_file();
    fs::write(dir.path().join("file"), b"abcdefghij").unwrap();
    let target = START + 0x3000;
    guest.put_words(BUFFERS, &[target, 4, target + 2, 4, target + 1, 2]);
    assert_eq!(guest.transfer("fd_read", 3), (0, 10));
    assert_eq!(guest.get(target, 7), b"aijfgh\0");
    // The array itself is read before it is written over.
    guest.put_words(BUFFERS, &[BUFFERS, 8, BUFFERS + 8, 2]);
    assert_eq!(guest.call("fd_seek", &[FILE, 0, 0, RESULT.into()]).unwrap(), 0);
    assert_eq!(guest.transfer("fd_read", 2), (0, 10));
    assert_eq!(guest.get(BUFFERS, 10), b"abcdefghij");
}

#[test]
fn a_hole_behind_good_buffers_is_a_fault_and_nothing_is_written() {
    let (mut guest, dir) = with_file();
    guest.map(FRESH, 0x2000, Prot::READ | Prot::WRITE);
    let writes: [&[u32]; 5] = [
        &[START, 8, HOLE, 1],
        // Its last byte is behind the mapping's.
        &[FRESH, 0x2001],
        &[FRESH + 0x1fff, 2],
        // Around the end of all addresses.
        &[START, 8, 0xffff_f000, 0x1001],
        &[START, 8, FRESH, 0xffff_ffff],
    ];
    for words in writes {
        guest.put_words(BUFFERS, words);
        let number = words.len() as u64 / 2;
        assert_eq!(guest.transfer("fd_write", number).0, FAULT, "{words:x?}");
    }
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"");
    // The array itself ends in a hole.
    guest.put_words(FRESH + 0x1ff8, &[START, 1]);
    assert_eq!(guest.call("fd_write", &[FILE, u64::from(FRESH) + 0x1ff8, 2, RESULT.into()]).unwrap(), FAULT);
    assert_eq!(guest.call("fd_write", &[FILE, 0xffff_fff8, 2, RESULT.into()]).unwrap(), FAULT);
}

#[test]
fn memory_that_may_not_be_written_is_a_fault() {
    let (mut guest, dir) = with_file();
    fs::write(dir.path().join("file"), pattern(3000)).unwrap();
    guest.map(FRESH, 0x1000, Prot::READ);
    guest.map(FRESH + 0x1000, 0x1000, Prot::empty());
    guest.put_words(BUFFERS, &[FRESH, 10]);
    assert_eq!(guest.transfer("fd_read", 1).0, FAULT);
    assert_eq!(guest.call("fd_tell", &[FILE, RESULT.into()]).unwrap(), 0);
    assert_eq!(guest.word(RESULT), 0, "the position has moved");
    assert_eq!(guest.transfer("fd_write", 1), (0, 10));
    guest.put_words(BUFFERS, &[FRESH + 0x1000, 10]);
    assert_eq!(guest.transfer("fd_write", 1).0, FAULT);
    assert_eq!(guest.call("fd_tell", &[FILE, FRESH.into()]).unwrap(), FAULT);
    assert_eq!(guest.call("random_get", &[FRESH.into(), 8]).unwrap(), FAULT);
    assert_eq!(guest.call("args_get", &[FRESH.into(), START.into()]).unwrap(), FAULT);
    assert_eq!(guest.call("args_get", &[START.into(), FRESH.into()]).unwrap(), FAULT);
    assert_eq!(guest.call("fd_prestat_dir_name", &[3, FRESH.into(), 5]).unwrap(), FAULT);
}

#[test]
fn a_result_that_cannot_be_stored_changes_nothing() {
    let (mut guest, dir) = with_file();
    let open = |at: u32| [3, 0, u64::from(NAME), 4, 1, (1 << 30) - 1, 0, 0, u64::from(at)];
    guest.put(NAME, b"gone");
    assert_eq!(guest.call("path_open", &open(HOLE)).unwrap(), FAULT);
    assert!(!dir.path().join("gone").exists());
    // The last byte of the result is in the hole.
    assert_eq!(guest.call("path_open", &open(END - 3)).unwrap(), FAULT);
    assert_eq!(guest.call("path_open", &open(END - 4)).unwrap(), 0);
    assert_eq!(guest.word(END - 4), 5, "a descriptor was lost");
    guest.put_words(BUFFERS, &[START, 8]);
    assert_eq!(guest.call("fd_write", &[FILE, BUFFERS.into(), 1, HOLE.into()]).unwrap(), FAULT);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"");
}

#[test]
fn what_lies_next_to_results_and_buffers_stays() {
    let (mut guest, dir) = with_file();
    fs::write(dir.path().join("file"), b"abc").unwrap();
    let target = START + 0x3000;
    guest.put(target, &[0xee; 64]);
    guest.put_words(BUFFERS, &[target + 4, 40]);
    assert_eq!(guest.transfer("fd_read", 1), (0, 3));
    assert_eq!(guest.get(target, 12), b"\xee\xee\xee\xeeabc\xee\xee\xee\xee\xee");
    assert_eq!(guest.call("fd_prestat_dir_name", &[3, u64::from(target) + 20, 30]).unwrap(), 0);
    assert_eq!(guest.get(target + 18, 10), b"\xee\xee/work\xee\xee\xee");
    assert_eq!(guest.call("fd_tell", &[FILE, u64::from(target) + 41]).unwrap(), 0);
    assert_eq!(guest.get(target + 40, 10), b"\xee\x03\0\0\0\0\0\0\0\xee");
}

#[test]
fn what_describes_a_file_is_whole_and_has_nothing_of_calls_before() {
    let (mut guest, _dir) = with_file();
    let target = START + 0x3000;
    guest.put(target, &[0xee; 200]);
    guest.put_words(BUFFERS, &[target, 200]);
    assert_eq!(guest.transfer("fd_write", 1), (0, 200));
    assert_eq!(guest.call("fd_filestat_get", &[FILE, target.into()]).unwrap(), 0);
    let stat = guest.get(target, 80);
    let long = |at: usize| u64::from_le_bytes(stat[at..at + 8].try_into().unwrap());
    // One link, 200 bytes, and changed at some time in this century.
    assert_eq!((long(24), long(32)), (1, 200));
    assert!((946_684_800_000_000_000..4_102_444_800_000_000_000).contains(&long(56)), "{}", long(56));
    assert_eq!(stat[17..24], [0; 7], "between the fields");
    assert_eq!(stat[64..], [0xee; 16]);
}

#[test]
fn arguments_are_pointed_to_where_they_are_in_the_cage() {
    let (mut guest, _dir) = with_file();
    guest.map(FRESH, 0x1000, Prot::READ | Prot::WRITE);
    let (array, strings) = (FRESH + 1, FRESH + 0x801);
    for (get, wanted) in [
        ("args_get", ["program", "", "two words", "日本"].as_slice()),
        ("environ_get", &["HOME=/work", "EMPTY=", "LANG=größe"]),
    ] {
        assert_eq!(guest.call(get, &[array.into(), strings.into()]).unwrap(), 0);
        let mut next = strings;
        for (place, wanted) in (0..).zip(wanted) {
            assert_eq!(guest.word(array + 4 * place), next, "{get} {wanted}");
            assert_eq!(guest.get(next, wanted.len() + 1), [wanted.as_bytes(), b"\0"].concat());
            next += u32::try_from(wanted.len()).unwrap() + 1;
        }
    }
}

#[test]
fn a_call_moves_at_most_a_mebibyte() {
    let (mut guest, dir) = with_file();
    let bytes = pattern(3 << 20);
    guest.map(FRESH, 8 << 20, Prot::READ | Prot::WRITE);
    guest.put(FRESH, &bytes);
    guest.put_words(BUFFERS, &[FRESH, 0xff_fff, FRESH + 0xff_fff, 2 << 20, HOLE, 5]);
    assert_eq!(guest.transfer("fd_write", 3), (0, 1 << 20));
    assert!(fs::read(dir.path().join("file")).unwrap() == bytes[..1 << 20], "other bytes");
    fs::write(dir.path().join("file"), &bytes).unwrap();
    assert_eq!(guest.call("fd_seek", &[FILE, 0, 0, RESULT.into()]).unwrap(), 0);
    guest.put_words(BUFFERS, &[FRESH + (4 << 20), 3 << 20]);
    assert_eq!(guest.transfer("fd_read", 1), (0, 1 << 20));
    assert_eq!(guest.transfer("fd_read", 1), (0, 1 << 20));
    assert!(guest.get(FRESH + (4 << 20), 1 << 20) == bytes[1 << 20..2 << 20], "another part of the file");
    let long = u64::from(FRESH);
    assert_eq!(guest.call("path_unlink_file", &[3, long, (1 << 20) + 1]).unwrap(), NAMETOOLONG);
}

#[test]
fn random_bytes_fill_all_that_was_asked_for() {
    let (mut guest, _dir) = with_file();
    guest.map(FRESH, 3 << 20, Prot::READ | Prot::WRITE);
    let len = (5 << 19) + 77;
    assert_eq!(guest.call("random_get", &[FRESH.into(), len]).unwrap(), 0);
    let bytes = guest.get(FRESH, 3 << 20);
    let (random, rest) = bytes.split_at(usize::try_from(len).unwrap());
    assert!(random.chunks(32).all(|part| part.iter().any(|byte| *byte != 0)));
    assert!(rest.iter().all(|byte| *byte == 0));
    guest.unmap(FRESH + (2 << 20), 4096);
    assert_eq!(guest.call("random_get", &[FRESH.into(), len]).unwrap(), FAULT);
    assert_eq!(guest.call("random_get", &[FRESH.into(), 0xf000_0000]).unwrap(), FAULT);
}

#[test]
fn a_directory_that_is_larger_than_a_call_moves_is_listed_in_one() {
    let (mut guest, dir) = with_file();
    let prefix = "x".repeat(240);
    for index in 0..4500 {
        fs::write(dir.path().join(format!("{prefix}{index}")), b"").unwrap();
    }
    guest.map(FRESH, 4 << 20, Prot::READ | Prot::WRITE);
    assert_eq!(guest.call("fd_readdir", &[3, FRESH.into(), 4 << 20, 0, RESULT.into()]).unwrap(), 0);
    let len = usize::try_from(guest.word(RESULT)).unwrap();
    let list = guest.get(FRESH, len);
    let (mut at, mut names) = (0, 0);
    while at < len {
        let name = u32::from_le_bytes(list[at + 16..at + 20].try_into().unwrap());
        at += 24 + usize::try_from(name).unwrap();
        names += 1;
    }
    assert_eq!((at, names), (len, 4500 + 3));
    // A buffer that it does not fit into is filled to its end.
    assert_eq!(guest.call("fd_readdir", &[3, FRESH.into(), 1_100_000, 0, RESULT.into()]).unwrap(), 0);
    assert_eq!(guest.word(RESULT), 1_100_000);
    assert!(guest.get(FRESH, 1_100_000) == list[..1_100_000], "another list");
}

#[test]
fn more_subscriptions_than_there_is_room_for_are_invalid() {
    let (mut guest, _dir) = with_file();
    guest.map(FRESH, 8 << 20, Prot::READ | Prot::WRITE);
    let events = FRESH + (4 << 20);
    let poll = |guest: &mut Guest, number| {
        guest.call("poll_oneoff", &[FRESH.into(), events.into(), number, RESULT.into()]).unwrap()
    };
    // All zero: a clock that rings at once.
    assert_eq!(poll(&mut guest, 3000), 0);
    let count = guest.word(RESULT);
    assert!((1..=3000).contains(&count));
    assert_eq!(guest.get(events + count * 32, 64), [0; 64]);
    for number in [0, 13_108, 0x1000_0000, 0xffff_ffff] {
        assert_eq!(poll(&mut guest, number), INVAL, "{number}");
    }
}

#[test]
fn any_exit_status_ends_the_program_with_it() {
    for status in [0, 1, 125, 126, 255, 256, 0xffff_ffff] {
        let (mut guest, _dir) = with_file();
        let ended = guest.call("proc_exit", &[status]).unwrap_err();
        assert!(matches!(ended, Ended::Exit(code) if u64::from(code.cast_unsigned()) == status), "{status}: {ended}");
    }
}

#[test]
fn a_forked_child_has_the_directories_and_streams_and_nothing_else_open() {
    let (mut guest, dir) = with_file();
    guest.put_words(BUFFERS, &[NAME, 4]);
    assert_eq!(guest.transfer("fd_write", 1), (0, 4));
    let mut child = Guest(guest.0.fork().unwrap());
    assert_eq!(child.transfer("fd_write", 1).0, BADF);
    let words = [3, 0, NAME.into(), 4, 0, (1 << 30) - 1, 0, 0, RESULT.into()];
    assert_eq!(child.call("path_open", &words).unwrap(), 0);
    child.put_words(BUFFERS, &[START + 0x3000, 10]);
    assert_eq!(child.transfer("fd_read", 1), (0, 4));
    assert_eq!(child.get(START + 0x3000, 5), b"file\0");
    assert_eq!(guest.transfer("fd_write", 1), (0, 4), "the parent's is its own");
    assert_eq!(fs::metadata(dir.path().join("file")).unwrap().len(), 8);
}

/// Numbers that look like chance and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn one_of(&mut self, from: &[u64]) -> u64 {
        from[usize::try_from(self.next()).unwrap() % from.len()]
    }
}

#[test]
fn no_arguments_whatever_end_the_program() {
    let (mut guest, _dir) = with_file();
    guest.map(FRESH, 0x3000, Prot::READ | Prot::WRITE);
    guest.map(FRESH + 0x1000, 0x1000, Prot::READ);
    let mut numbers = Numbers(1);
    let edges = [
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        16,
        64,
        4095,
        4096,
        65535,
        0xffff_ffff,
        0xffff_fff8,
        0xffff_f000,
        0x8000_0000,
        START.into(),
        u64::from(START) + 0x800,
        u64::from(START) + 0x1000,
        u64::from(END) - 8,
        u64::from(END) - 1,
        END.into(),
        FRESH.into(),
        u64::from(FRESH) + 0xff8,
        u64::from(FRESH) + 0x1000,
        u64::from(FRESH) + 0x2ffe,
        HOLE.into(),
    ];
    let mut succeeded = 0;
    for round in 0..5000 {
        let (name, ty) = &functions()[usize::try_from(numbers.next()).unwrap() % functions().len()];
        // One ends the program, the other may wait for days.
        if name == "proc_exit" || name == "poll_oneoff" {
            continue;
        }
        let words: Vec<u64> = ty.params().map(|_| numbers.one_of(&edges)).collect();
        match guest.call(name, &words) {
            Ok(errno) => succeeded += u32::from(errno == 0),
            Err(ended) => panic!("{round}: {name} {words:x?}: {ended}"),
        }
        if round % 50 == 0 {
            guest.put(NAME, b"file");
            guest.put_words(BUFFERS, &[START, 64, FRESH, 0x2000, HOLE, 1]);
        }
    }
    assert!(succeeded > 100, "{succeeded} calls succeeded");
}
