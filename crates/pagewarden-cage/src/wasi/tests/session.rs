//! One call of each function, and what becomes of it with a bad argument: as by Wasmtime's own, but where that ends the
//! program there is an error number.

use tempfile::TempDir;

use super::stock::Stock;
use super::{Caller, END, FAULT, Guest, HOLE, INVAL, NAMETOOLONG, START, functions, setup, types};

/// The directory that a program starts with, and the first file that it opens.
const DIR: u64 = 3;
const FILE: u64 = 4;
/// Names, in memory.
const NAMES: u32 = START;
/// An array of buffers.
const BUFFERS: u32 = START + 0x1000;
const SUBSCRIPTIONS: u32 = START + 0x2000;
const TEXT: u32 = START + 0x3000;
/// Where results go.
const RESULT: u64 = 0x1_4000;
/// Where bytes go.
const TARGET: u64 = 0x2_0000;
/// Everything that a file can be used for.
const ALL_RIGHTS: u64 = (1 << 30) - 1;
const CREATE: u64 = 1;

struct Step {
    name: &'static str,
    words: Vec<u64>,
    /// Bytes of memory that are not the same twice: times, inodes, random ones.
    varying: Vec<(u64, usize)>,
}

/// Where a name is, and how long it is.
fn name(text: &str) -> [u64; 2] {
    let names = ["file", "other", "sub", "link", "none"];
    let index = names.iter().position(|known| *known == text).unwrap();
    [u64::from(NAMES) + 16 * index as u64, text.len() as u64]
}

fn prepare(caller: &mut impl Caller) {
    for text in ["file", "other", "sub", "link", "none"] {
        caller.put(u32::try_from(name(text)[0]).unwrap(), text.as_bytes());
    }
    let target = u32::try_from(TARGET).unwrap();
    // Written from, and read to.
    caller.put_words(BUFFERS, &[TEXT, 1000, TEXT + 1000, 0, TEXT, 24]);
    caller.put_words(BUFFERS + 64, &[target, 0, target + 8, 500]);
    caller.put(TEXT, &b"The quick brown fox. ".repeat(49));
    // A clock that has rung, and the standard input.
    caller.put_words(SUBSCRIPTIONS, &[7, 0, 0, 0, 1, 0, 1, 0]);
    caller.put_words(SUBSCRIPTIONS + 48, &[8, 0, 1, 0, 0]);
}

fn step(name: &'static str, words: &[u64]) -> Step {
    Step { name, words: words.to_vec(), varying: Vec::new() }
}

fn varying(name: &'static str, words: &[u64], bytes: &[(u64, usize)]) -> Step {
    Step { varying: bytes.to_vec(), ..step(name, words) }
}

/// Inode and times of what describes a file, and what lies between its fields, which Wasmtime leaves alone.
const STAT: [(u64, usize); 3] = [(RESULT + 8, 8), (RESULT + 17, 7), (RESULT + 40, 24)];
/// What lies between the fields of what describes a descriptor.
const FDSTAT: [(u64, usize); 2] = [(RESULT + 1, 1), (RESULT + 4, 4)];
/// The same of an event.
const EVENT: [(u64, usize); 2] = [(TARGET + 11, 5), (TARGET + 26, 6)];

/// All functions but `proc_exit`, in an order in which each can do what it is for.
fn steps() -> Vec<Step> {
    let [file, len] = name("file");
    let [other, other_len] = name("other");
    let [sub, sub_len] = name("sub");
    let [link, link_len] = name("link");
    let [none, none_len] = name("none");
    let (buffers, subscriptions) = (u64::from(BUFFERS), u64::from(SUBSCRIPTIONS));
    let mut steps = beginning();
    steps.extend([
        step("path_open", &[DIR, 0, none, none_len, 0, ALL_RIGHTS, ALL_RIGHTS, 0, RESULT]),
        step("path_open", &[DIR, 0, file, len, CREATE, ALL_RIGHTS, ALL_RIGHTS, 0, RESULT]),
        step("fd_write", &[FILE, buffers, 1, RESULT]),
        step("fd_pwrite", &[FILE, buffers, 1, 990, RESULT]),
        step("fd_tell", &[FILE, RESULT]),
        step("fd_seek", &[FILE, 10, 0, RESULT]),
        step("fd_read", &[FILE, buffers + 64, 2, RESULT]),
        step("fd_pread", &[FILE, buffers + 64, 2, 700, RESULT]),
        step("fd_read", &[0, buffers + 64, 2, RESULT]),
        step("fd_write", &[1, buffers, 1, RESULT]),
        varying("fd_fdstat_get", &[FILE, RESULT], &FDSTAT),
        step("fd_fdstat_set_flags", &[FILE, 1]),
        step("fd_fdstat_set_rights", &[FILE, 2, 2]),
        varying("fd_filestat_get", &[FILE, RESULT], &STAT),
        step("fd_filestat_set_size", &[FILE, 600]),
        step("fd_filestat_set_times", &[FILE, 1_000_000_000, 2_000_000_000, 5]),
        step("fd_advise", &[FILE, 0, 100, 2]),
        step("fd_allocate", &[FILE, 0, 100]),
        step("fd_datasync", &[FILE]),
        step("fd_sync", &[FILE]),
        step("path_create_directory", &[DIR, sub, sub_len]),
        varying("path_filestat_get", &[DIR, 1, file, len, RESULT], &STAT),
        step("path_filestat_set_times", &[DIR, 1, file, len, 3_000_000_000, 0, 1]),
        step("path_link", &[DIR, 0, file, len, DIR, other, other_len]),
        step("path_unlink_file", &[DIR, other, other_len]),
        step("path_symlink", &[file, len, DIR, link, link_len]),
        step("path_readlink", &[DIR, link, link_len, TARGET, 100, RESULT]),
        step("path_unlink_file", &[DIR, link, link_len]),
        step("path_rename", &[DIR, file, len, DIR, other, other_len]),
        step("path_remove_directory", &[DIR, sub, sub_len]),
        varying("fd_readdir", &[DIR, TARGET, 200, 2, RESULT], &[(TARGET + 8, 8)]),
        step("fd_readdir", &[DIR, TARGET, 200, 3, RESULT]),
        varying("poll_oneoff", &[subscriptions, TARGET, 1, RESULT], &EVENT),
        varying("poll_oneoff", &[subscriptions + 48, TARGET, 1, RESULT], &EVENT),
        varying("random_get", &[TARGET, 100], &[(TARGET, 100)]),
        step("sched_yield", &[]),
        step("proc_raise", &[6]),
        step("sock_accept", &[FILE, 0, RESULT]),
        step("sock_recv", &[FILE, buffers + 64, 2, 0, RESULT, RESULT + 4]),
        step("sock_send", &[FILE, buffers, 1, 0, RESULT]),
        step("sock_shutdown", &[FILE, 1]),
        step("fd_renumber", &[FILE, 2]),
        step("fd_close", &[2]),
        step("fd_close", &[2]),
    ]);
    steps
}

fn beginning() -> Vec<Step> {
    vec![
        step("args_sizes_get", &[RESULT, RESULT + 4]),
        step("args_get", &[RESULT, TARGET]),
        step("environ_sizes_get", &[RESULT, RESULT + 4]),
        step("environ_get", &[RESULT, TARGET]),
        step("clock_res_get", &[1, RESULT]),
        varying("clock_time_get", &[0, 1000, RESULT], &[(RESULT, 8)]),
        varying("clock_time_get", &[2, 1000, RESULT], &[(RESULT, 8)]),
        varying("fd_prestat_get", &[DIR, RESULT], &[(RESULT + 1, 3)]),
        step("fd_prestat_get", &[DIR + 1, RESULT]),
        step("fd_prestat_dir_name", &[DIR, TARGET, 20]),
        step("fd_prestat_dir_name", &[DIR, TARGET, 2]),
    ]
}

/// A guest, and the same program with Wasmtime's own WASI, each with a directory.
struct Pair {
    guest: Guest,
    stock: Stock,
    _dirs: [TempDir; 2],
}

impl Pair {
    fn new() -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (mut guest, mut stock) = (Guest::new(setup(&dirs[0])), Stock::new(&setup(&dirs[1])));
        prepare(&mut guest);
        prepare(&mut stock);
        Self { guest, stock, _dirs: dirs }
    }

    /// Both after these steps.
    fn after(steps: &[Step]) -> Self {
        let mut pair = Self::new();
        for step in steps {
            assert!(pair.guest.call(step.name, &step.words).is_ok());
            assert!(pair.stock.call(step.name, &step.words).is_ok());
        }
        let target = u32::try_from(TARGET).unwrap();
        // What was not the same, times and random numbers, is now.
        for (address, len) in [(START + 0x4000, 64), (target, 4096)] {
            pair.guest.put(address, &vec![0xee; len]);
            pair.stock.put(address, &vec![0xee; len]);
        }
        pair
    }

    fn take(&mut self, step: &Step) {
        let answers = (self.guest.call(step.name, &step.words), self.stock.call(step.name, &step.words));
        let (Ok(ours), Ok(theirs)) = answers else { panic!("{} {:x?} ended the program", step.name, step.words) };
        assert_eq!(ours, theirs, "{} {:x?}", step.name, step.words);
        self.compare(step);
    }

    /// Takes a step with a bad word in it. Whether the two have different answers, as they may.
    fn differ(&mut self, step: &Step, bad: u64) -> bool {
        let (name, words) = (step.name, &step.words);
        let ours = self.guest.call(name, words);
        let ours = ours.unwrap_or_else(|ended| panic!("{name} {words:x?} ended the program: {ended}"));
        let theirs = self.stock.call(name, words);
        match theirs {
            Ok(0) if ours == 0 => self.compare(step),
            // There is memory where a cage has none, at the first addresses; a length that wraps is not looked at as long as
            // nothing is there; nor is the buffer for an empty list.
            Ok(0) => {
                assert!(ours == FAULT && (bad != HOLE.into() || name == "fd_readdir"), "{name} {words:x?}: {ours}")
            }
            Ok(errno) => {
                assert!([errno, FAULT, INVAL, NAMETOOLONG].contains(&ours), "{name} {words:x?}: {ours}, not {errno}");
            }
            Err(_) => assert_ne!(ours, 0, "{name} {words:x?}"),
        }
        theirs.ok() != Some(ours)
    }

    /// Holds one memory against the other.
    fn compare(&mut self, step: &Step) {
        let len = usize::try_from(END - START).unwrap();
        let mut memories = [self.guest.get(START, len), self.stock.get(START, len)];
        for (address, len) in &step.varying {
            let start = usize::try_from(*address).unwrap() - START as usize;
            for memory in &mut memories {
                memory[start..start + len].fill(0);
            }
        }
        let [ours, theirs] = memories;
        if ours != theirs {
            let difference = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            panic!("{} {:x?}: byte {:x?} of memory differs", step.name, step.words, difference);
        }
        // What varies is the same from here on.
        for (address, len) in &step.varying {
            let address = u32::try_from(*address).unwrap();
            let bytes = self.guest.get(address, *len);
            self.stock.put(address, &bytes);
        }
    }
}

#[test]
fn each_function_does_what_wasmtimes_own_does() {
    let mut pair = Pair::new();
    let steps = steps();
    for step in &steps {
        pair.take(step);
    }
    for (name, _) in functions() {
        assert!(name == "proc_exit" || steps.iter().any(|step| step.name == name), "{name} is not tried");
    }
}

/// Replaces each word of each step in turn, if it is one of 32 bits, and calls both.
fn with_a_bad_word(bad: u64) {
    let steps = steps();
    for (index, step) in steps.iter().enumerate() {
        let mut pair = Pair::after(&steps[..index]);
        for (place, _) in types(step.name).params().enumerate().filter(|(_, ty)| ty.is_i32()) {
            let mut words = step.words.clone();
            words[place] = bad;
            if pair.differ(&Step { name: step.name, words, varying: step.varying.clone() }, bad) {
                pair = Pair::after(&steps[..index]);
            }
        }
    }
}

#[test]
fn an_address_of_a_hole_is_refused_wherever_it_is_used() {
    with_a_bad_word(HOLE.into());
}

#[test]
fn addresses_at_the_end_and_lengths_that_wrap_are_refused() {
    with_a_bad_word(0xffff_ffff);
}

#[test]
fn nothing_of_no_length_is_touched() {
    with_a_bad_word(0);
}
