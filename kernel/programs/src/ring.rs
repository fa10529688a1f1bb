//! The program's side of the ring.
//!
//! Its counts are in the page alone, so that a forked child, which has a page of its own, starts with those of that page.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pagewarden_kernel_abi::{Completion, Operation, RING, RING_ENTER, Submission, offset};

use crate::PAGE;
use crate::linux::{self, Errno, Result};

/// Where the page has something at `offset`.
fn place<T>(offset: u64) -> *const T {
    let bytes = size_of::<T>() as u64;
    assert!(offset.is_multiple_of(bytes) && offset < PAGE, "nothing is at {offset} of the ring");
    #[expect(clippy::cast_possible_truncation, reason = "addresses have 64 bits here")]
    core::ptr::with_exposed_provenance((RING + offset) as usize)
}

/// The count at `offset` in the page.
fn count_at(offset: u64) -> &'static AtomicU32 {
    // SAFETY: the kernel has put the page there for good; it is aligned, and both sides change it in whole words.
    unsafe { &*place(offset) }
}

/// The word at `offset` in the page.
fn word_at(offset: u64) -> &'static AtomicU64 {
    // SAFETY: as for a count.
    unsafe { &*place(offset) }
}

/// How many submissions have been written.
pub fn submitted() -> &'static AtomicU32 {
    count_at(offset::SUBMITTED)
}

/// How many completions have been read.
pub fn read() -> &'static AtomicU32 {
    count_at(offset::READ)
}

/// Writes a submission, which the kernel does not take yet.
pub fn submit(submission: &Submission) {
    let number = submitted().load(Ordering::Relaxed);
    let bytes = submission.to_bytes();
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in (Submission::offset(number)..).step_by(8).zip(words) {
        word_at(at).store(u64::from_le_bytes(*word), Ordering::Relaxed);
    }
    submitted().store(number.wrapping_add(1), Ordering::Release);
}

/// Has the kernel take up to `most` submissions; how many it has taken.
///
/// # Errors
/// `EINVAL` if the counts make no sense to it.
pub fn enter(most: u64) -> Result<u64> {
    // SAFETY: what operations do to memory, those who submit them answer for.
    unsafe { linux::call(RING_ENTER, [most, 0, 0, 0, 0, 0]) }
}

/// Takes the oldest completion that was not read.
pub fn complete() -> Option<Completion> {
    let number = read().load(Ordering::Relaxed);
    if count_at(offset::COMPLETED).load(Ordering::Acquire) == number {
        return None;
    }
    let mut bytes = [0; Completion::BYTES];
    let (words, _) = bytes.as_chunks_mut::<8>();
    for (at, word) in (Completion::offset(number)..).step_by(8).zip(words) {
        *word = word_at(at).load(Ordering::Relaxed).to_le_bytes();
    }
    read().store(number.wrapping_add(1), Ordering::Release);
    Some(Completion::from_bytes(&bytes))
}

/// Asks `handle` for `operation`, and waits for what that gives.
///
/// # Errors
/// What the completion says.
///
/// # Panics
/// If the kernel does not answer, or answers something else than what was asked.
pub fn call(operation: Operation, handle: u64, arguments: &[u64]) -> Result<[u64; 2]> {
    call_number(operation as u32, handle, arguments)
}

/// As [`call`], for an operation that there may not be.
///
/// # Errors
/// What the completion says.
///
/// # Panics
/// As [`call`].
pub fn call_number(operation: u32, handle: u64, arguments: &[u64]) -> Result<[u64; 2]> {
    let cookie = 0x0c00_0000 + u64::from(submitted().load(Ordering::Relaxed));
    submit(&Submission { operation, cookie, handle, arguments: five(arguments) });
    let taken = enter(1);
    assert!(taken == Ok(1), "one submission was to be taken: {taken:?}");
    let Some(completion) = complete() else { panic!("operation {operation} was taken and not completed") };
    assert!(completion.cookie == cookie, "the completion of something else: {completion:?}");
    if completion.result == 0 {
        return Ok(completion.values);
    }
    match Errno::of_answer(completion.result) {
        Some(errno) => Err(errno),
        None => panic!("a result that is none: {completion:?}"),
    }
}

fn five(arguments: &[u64]) -> [u64; 5] {
    let mut all = [0; 5];
    all[..arguments.len()].copy_from_slice(arguments);
    all
}
