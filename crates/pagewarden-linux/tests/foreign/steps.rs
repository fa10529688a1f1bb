//! An adversary between any two instructions: the processor stops after each, and the memory changes. What needs one
//! access cannot come from two.

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use pagewarden::phys::WindowAccess;

use crate::again::passes;
use crate::support::{FIRST, PAGE, at, shown, world};

/// The page that is accessed, at other addresses.
static PAGE_SEEN: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());
static STEPS: AtomicU64 = AtomicU64::new(0);
/// What the first word was after a step: bit 0 for all zeroes, 1 for all ones, 2 for anything else.
static FOUND: AtomicU64 = AtomicU64::new(0);

fn first_word() -> *mut u64 {
    PAGE_SEEN.load(Ordering::Relaxed)
}

fn put(word: u64) {
    // SAFETY: `stepping` has mapped the page, and no reference knows of it.
    unsafe { first_word().write_volatile(word) };
}

fn get() -> u64 {
    // SAFETY: as above.
    unsafe { first_word().read_volatile() }
}

/// Writes a word of equal bytes, another each time.
extern "C" fn change(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    let step = STEPS.fetch_add(1, Ordering::Relaxed);
    put((1 + step % 250) * 0x0101_0101_0101_0101);
}

/// Looks.
extern "C" fn look(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    STEPS.fetch_add(1, Ordering::Relaxed);
    let seen = match get() {
        0 => 1,
        u64::MAX => 2,
        _ => 4,
    };
    FOUND.fetch_or(seen, Ordering::Relaxed);
}

/// Runs `act` with `handler` after each of its instructions.
fn stepping(handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void), act: impl FnOnce()) {
    // SAFETY: integers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handlers of this file do what handlers may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()) }, 0);
    // SAFETY: sets the trap flag, for which there is a handler; the stack is as it was.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    act();
    // SAFETY: clears it.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -257", "popfq") };
}

fn map_again(file: &std::fs::File) {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, which replaces nothing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(page, libc::MAP_FAILED);
    PAGE_SEEN.store(page.cast(), Ordering::Relaxed);
}

#[test]
fn an_aligned_word_is_one_load_whatever_happens_between_instructions() {
    passes("steps::an_aligned_word_is_one_load_whatever_happens_between_instructions", || {
        let (file, memory) = world(1);
        let shown = shown(&memory, FIRST, 1);
        map_again(&file);
        put(0);
        for width in [2, 4, 8] {
            let mut bytes = [0; 8];
            stepping(change, || memory.load(at(shown, 0), &mut bytes[..width]).unwrap());
            assert!(bytes[..width].iter().all(|byte| *byte == bytes[0]), "{bytes:x?}");
            assert_ne!(bytes[0], 0, "the word has changed before it was loaded");
        }
        assert!(STEPS.load(Ordering::Relaxed) > 100, "the processor has stopped");
    });
}

#[test]
fn an_aligned_word_is_one_store_whoever_looks_between_instructions() {
    passes("steps::an_aligned_word_is_one_store_whoever_looks_between_instructions", || {
        let (file, memory) = world(1);
        let shown = shown(&memory, FIRST, 1);
        map_again(&file);
        put(0);
        stepping(look, || memory.store(at(shown, 0), &[0xff; 8]).unwrap());
        assert_eq!(FOUND.load(Ordering::Relaxed), 0b011, "zeroes, then ones, and nothing between");
    });
}
