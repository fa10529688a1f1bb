//! Copies and word accesses that survive a fault: for memory that may go away, or change, while it is accessed.
//!
//! Owns the assembly, and the list of its instructions that may fault, each with the place where execution goes on then
//! ([`landing`]). Outside: whoever takes the processor's traps (a signal handler on a host, the page-fault handler of a
//! kernel) asks [`landing`], puts the answer in the place of the instruction pointer, and returns from the trap. Without
//! such a handler a fault is what it is anywhere else.
//!
//! # What is promised
//!
//! * The compiler neither sees nor changes an access: to it, each of these functions is foreign code that may read and
//!   write any memory that it could know of.
//! * What is read is read once. No byte is fetched a second time after its value was used.
//! * A copy of 1, 2, 4 or 8 bytes is one load and one store, which the processor does not tear where the address is a
//!   multiple of the length. Longer copies are made of accesses of any width, in ascending order.
//! * A fault ends the copy exactly in front of the first byte that cannot be reached, also where a word would lie
//!   on both sides of it.
//! * No state but general registers and flags is used: a kernel need not save any other. The stack is not used
//!   either, so that a trap may be taken wherever a trap may be taken.
//!
//! Long copies are `rep movsb`, which processors since 2013 make as fast as their widest registers; where it faults, the
//! registers say how far it got.

#![no_std]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("there is assembly for x86-64 alone");

mod routines;

pub use routines::{AtomicWord, Word};

/// An access that ended in a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// So many bytes were copied before it.
    pub copied: usize,
}

/// Where execution goes on if the instruction at `instruction_pointer` has faulted; `None` if it is none of ours.
///
/// It takes no lock and no memory, so that any trap handler may call it.
#[inline]
pub fn landing(instruction_pointer: usize) -> Option<usize> {
    routines::landing(instruction_pointer)
}

/// Copies `len` bytes, in ascending order.
///
/// # Errors
/// A byte could not be loaded or stored; those before it are copied.
///
/// # Safety
/// Each of the two ranges is memory that may be accessed in this way, or addresses that are nobody's and at which a fault
/// finds its [`landing`]. Nobody has a reference into `to`, and the ranges do not overlap. Others may write to a range
/// meanwhile if no reference speaks of it.
#[inline]
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller answers for both ranges.
    let left = unsafe { routines::pagewarden_copy(to, from, len) };
    if left == 0 { Ok(()) } else { Err(Fault { copied: len - left }) }
}

/// The word at `at`, in one load.
///
/// # Errors
/// There is nothing to be loaded.
///
/// # Safety
/// The word is memory that may be read, or an address that is nobody's and at which a fault finds its [`landing`]. Others
/// may write to it meanwhile if no reference speaks of it.
#[inline]
pub unsafe fn load<W: Word>(at: *const W) -> Result<W, Fault> {
    // SAFETY: the caller answers for the word.
    unsafe { W::load(at) }
}

/// Puts `word` at `at`, in one store.
///
/// # Errors
/// Nothing can be stored there.
///
/// # Safety
/// As for [`load`], of memory that may be written and that no reference speaks of.
#[inline]
pub unsafe fn store<W: Word>(at: *mut W, word: W) -> Result<(), Fault> {
    // SAFETY: the caller answers for the word.
    unsafe { W::store(at, word) }
}

/// Replaces the word at `at` by `new` if it is `current`, in one step. What was there.
///
/// # Errors
/// The word cannot be written, whatever it is.
///
/// # Safety
/// As for [`store`]; and `at` is a multiple of the length of a word, or processors may refuse it with another trap.
#[inline]
pub unsafe fn compare_exchange<W: AtomicWord>(at: *mut W, current: W, new: W) -> Result<W, Fault> {
    // SAFETY: the caller answers for the word.
    unsafe { W::compare_exchange(at, current, new) }
}
