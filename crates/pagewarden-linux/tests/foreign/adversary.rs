//! Another process that changes what we read without pause, and what may not come of it.
//!
//! It writes one of two messages, over and over. Each of them is valid; whoever fetches the length of one to check it and
//! then once more to use it gets both. The naive reader here does just that, which shows that the other process is fast
//! enough for the test to mean something.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use pagewarden::phys::{Claim, PhysConstPtr, VmapManager, WindowAccess};
use pagewarden::{PAGE_SIZE, PageRange, PhysAddr};
use pagewarden_linux::foreign::{ForeignMemory, FutexEvents};

use crate::again::{Process, role, spawn};
use crate::support::{FIRST, PAGE, at, file, options, region, shown};

const TEST: &str = "adversary::what_is_copied_once_is_checked_and_used_alike";
const WORD_TEST: &str = "adversary::aligned_words_are_never_torn";
/// Where a word lies that is one of two.
const WORD: usize = 64;
const WORDS: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
/// Where a message lies: its length, so many words of payload at most, and their sum.
const MESSAGE: usize = 512;
const LONGEST: usize = 6;
const LASTING: Duration = Duration::from_millis(500);
/// The other process may have to wait for a processor.
const PATIENCE: Duration = Duration::from_secs(60);

type Message = [u64; LONGEST + 2];

fn message(length: usize, value: u64) -> Message {
    let mut message = [0; LONGEST + 2];
    message[0] = length as u64;
    message[1..=length].fill(value);
    message[LONGEST + 1] = value * length as u64;
    message
}

/// The length of a message that is valid.
fn check(message: &Message) -> Option<usize> {
    let length = usize::try_from(message[0]).ok().filter(|length| *length <= LONGEST)?;
    let sum = message[1..=length].iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
    (sum == message[LONGEST + 1]).then_some(length)
}

/// What the other process writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Messages,
    Word,
}

/// What the other process does until it is killed. It has the descriptor from us.
fn be_the_adversary(fd: i32, target: Target) {
    // SAFETY: only numbers: this process ends with the thread that has started it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, which replaces nothing.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, libc::MAP_SHARED, fd, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    let messages = [message(2, 5), message(LONGEST, 7)];
    loop {
        for (word, message) in WORDS.iter().zip(&messages) {
            if target == Target::Word {
                put(memory.cast(), WORD, *word);
                continue;
            }
            for (index, word) in message.iter().enumerate() {
                put(memory.cast(), MESSAGE + 8 * index, *word);
            }
        }
    }
}

fn put(memory: *mut u8, offset: usize, word: u64) {
    // SAFETY: all offsets lie in the page.
    let at = unsafe { memory.add(offset) };
    // SAFETY: a word of the shared page, aligned; no reference knows of it.
    unsafe { at.cast::<u64>().write_volatile(word) };
}

/// Foreign memory that another process is busy with.
fn attacked(target: Target) -> (ForeignMemory, Process) {
    let file = file(1);
    let memory = ForeignMemory::new(options(vec![region(FIRST, 1, &file)])).unwrap();
    let test = if target == Target::Word { WORD_TEST } else { TEST };
    let process = spawn(test, &file.as_raw_fd().to_string());
    (memory, process)
}

fn load<const N: usize>(memory: &ForeignMemory, window: PageRange, offset: usize) -> [u64; N] {
    let mut words = [0; N];
    for (index, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        memory.load(at(window, offset + 8 * index), &mut bytes).unwrap();
        *word = u64::from_ne_bytes(bytes);
    }
    words
}

/// Waits until the other process has begun.
fn wait_for_it(memory: &ForeignMemory, window: PageRange, offset: usize) {
    let start = Instant::now();
    while load::<1>(memory, window, offset) == [0] {
        assert!(start.elapsed() < PATIENCE, "the other process never came");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_copied_once_is_checked_and_used_alike() {
    if let Some(fd) = role() {
        return be_the_adversary(fd.parse().unwrap(), Target::Messages);
    }
    let (memory, _process) = attacked(Target::Messages);
    let manager = VmapManager::new(memory, FutexEvents::new());
    let start = PhysAddr::new(FIRST * PAGE_SIZE + MESSAGE as u64).unwrap();
    let mut pointer = PhysConstPtr::<Message, _>::contiguous(&manager, start, 1).unwrap();
    pointer.map(Claim::Reserve).unwrap();
    let mut seen = [0; LONGEST + 1];
    let start = Instant::now();
    while start.elapsed() < LASTING || seen[2] == 0 || seen[LONGEST] == 0 {
        assert!(start.elapsed() < PATIENCE, "the other process never came: {seen:?}");
        let copy = pointer.read_at(0).unwrap();
        if let Some(length) = check(&copy) {
            std::hint::black_box(&copy);
            assert_eq!(check(&copy), Some(length), "the copy has changed");
            seen[length] += 1;
        }
    }
    for length in [1, 3, 4, 5] {
        assert_eq!(seen[length], 0, "nobody has ever written a message of {length} words");
    }
}

#[test]
fn who_fetches_twice_is_fooled() {
    let (memory, _process) = attacked(Target::Messages);
    let window = shown(&memory, FIRST, 1);
    wait_for_it(&memory, window, MESSAGE);
    let start = Instant::now();
    loop {
        let [checked] = load(&memory, window, MESSAGE);
        let [used] = load(&memory, window, MESSAGE);
        if checked != used {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the other process is not fast enough to prove anything");
    }
}

#[test]
fn aligned_words_are_never_torn() {
    if let Some(fd) = role() {
        return be_the_adversary(fd.parse().unwrap(), Target::Word);
    }
    let (memory, _process) = attacked(Target::Word);
    let window = shown(&memory, FIRST, 1);
    wait_for_it(&memory, window, WORD);
    let mut seen = [0; 2];
    let start = Instant::now();
    while start.elapsed() < LASTING || seen.contains(&0) {
        assert!(start.elapsed() < PATIENCE, "the other process never came: {seen:?}");
        for _ in 0..1000 {
            let [word] = load(&memory, window, WORD);
            let place = WORDS.iter().position(|written| *written == word);
            seen[place.unwrap_or_else(|| panic!("{word:#x} was never written"))] += 1;
        }
    }
}
