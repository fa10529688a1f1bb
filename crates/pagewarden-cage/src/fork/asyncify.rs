//! fork() that returns twice, for programs that were built with the asyncify pass of binaryen.
//!
//! Such a program exports four functions. Between the start of unwinding and its stop each of its functions returns at
//! once, after it has noted its place and locals in a buffer; between the start of rewinding and its stop each goes on
//! where the buffer says. So a fork is:
//!
//! ```text
//! fork() -> map a buffer, start unwinding -> ... -> all have returned -> stop unwinding
//!        -> fork the memory, buffer included
//!        -> parent: start rewinding, call again -> ... -> fork(): stop rewinding, unmap the buffer, the child's number
//!        -> child, on its thread: the same, 0
//! ```
//!
//! The buffer is memory of the cage, charged to it while it is there: `ENOMEM` if that is refused. How much is needed is known
//! when all have returned; the rest is given back then, before the child is charged for a copy. The pass guards the end with
//! a trap. A guest that exports functions of the same names that do something else hurts nobody but itself: they are
//! called like any other function of its own.

use std::mem;

use pagewarden::{Errno, PAGE_SIZE, VirtAddr};
use wasmtime::{AsContextMut, Caller, StoreContextMut};

use super::{Phase, duplicate, set_going};
use crate::cage::{Cage, Entry};
use crate::calls::{errno_word, system_call};
use crate::family::Process;
use crate::state::CageState;

/// Where the noted places begin, behind the two words that say how far they reach.
const HEADER_BYTES: u32 = 8;
/// `MAP_PRIVATE | MAP_ANONYMOUS`, `PROT_READ | PROT_WRITE`.
const MAP: (u64, u64) = (0x22, 3);

/// How large a buffer is: as large as the stack whose frames it is to hold.
fn buffer_bytes(state: &CageState) -> u32 {
    let pages = (state.shared.stack_bytes as u64).next_multiple_of(PAGE_SIZE);
    u32::try_from(pages).unwrap_or(1 << 30)
}

/// The guest calls fork().
pub(crate) fn fork(caller: &mut Caller<'_, CageState>) -> wasmtime::Result<i32> {
    match caller.data().phase {
        Phase::Running => begin(caller),
        Phase::Unwinding { .. } => Ok(errno_word(Errno::Again)),
        Phase::Rewinding { buffer, answer } => {
            caller.data_mut().phase = Phase::Running;
            call(caller.as_context_mut(), "asyncify_stop_rewind", None)?;
            unmap(caller.data_mut(), buffer);
            Ok(answer)
        }
    }
}

fn begin(caller: &mut Caller<'_, CageState>) -> wasmtime::Result<i32> {
    if !is_there(caller.as_context_mut()) {
        return Ok(errno_word(Errno::NoSys));
    }
    let bytes = buffer_bytes(caller.data());
    let args = [0, bytes.into(), MAP.1, MAP.0, u64::MAX, 0];
    let Ok(buffer) = u32::try_from(system_call(caller.data_mut(), libc::SYS_mmap, args)) else {
        return Ok(errno_word(Errno::NoMem));
    };
    let words = [buffer + HEADER_BYTES, buffer + (bytes - 1)].map(u32::to_le_bytes);
    if caller.data().space.write(VirtAddr::new(buffer.into()), &words.concat()).is_err() {
        unmap(caller.data_mut(), buffer);
        return Ok(errno_word(Errno::NoMem));
    }
    caller.data_mut().phase = Phase::Unwinding { buffer };
    call(caller.as_context_mut(), "asyncify_start_unwind", Some(buffer))?;
    Ok(0)
}

/// Before a function is called: whether it is to go on where a buffer says.
pub(crate) fn before_call(cage: &mut Cage) -> wasmtime::Result<()> {
    match cage.store.data().phase {
        Phase::Rewinding { buffer, .. } => call(cage.store.as_context_mut(), "asyncify_start_rewind", Some(buffer)),
        Phase::Running | Phase::Unwinding { .. } => Ok(()),
    }
}

/// After a function has returned: forks if it did so for that, and then it is to be called again.
pub(crate) fn after_call(cage: &mut Cage, entry: &Entry) -> wasmtime::Result<bool> {
    let Phase::Unwinding { buffer } = cage.store.data().phase else { return Ok(false) };
    call(cage.store.as_context_mut(), "asyncify_stop_unwind", None)?;
    give_back_rest(cage.store.data_mut(), buffer);
    let answer = if entry.is_portable() { begin_child(cage, entry, buffer) } else { errno_word(Errno::Inval) };
    cage.store.data_mut().phase = Phase::Rewinding { buffer, answer };
    Ok(true)
}

/// What fork returns in the parent: the number of a child that begins to rewind, or why there is none.
fn begin_child(cage: &mut Cage, entry: &Entry, buffer: u32) -> i32 {
    let forked = duplicate(&mut cage.store, Process::child).and_then(|mut child| {
        child.store.data_mut().phase = Phase::Rewinding { buffer, answer: 0 };
        set_going(child, entry.clone())
    });
    forked.unwrap_or_else(|error| errno_word(error.errno()))
}

/// Unmaps the whole pages behind what has been noted. The first word of the buffer says how far that reaches.
fn give_back_rest(state: &mut CageState, buffer: u32) {
    let mut word = [0; 4];
    if state.space.read(VirtAddr::new(buffer.into()), &mut word).is_err() {
        return;
    }
    let start = u64::from(buffer);
    let end = start + u64::from(buffer_bytes(state));
    let from = u64::from(u32::from_le_bytes(word)).next_multiple_of(PAGE_SIZE);
    if (start + PAGE_SIZE..end).contains(&from) {
        system_call(state, libc::SYS_munmap, [from, end - from, 0, 0, 0, 0]);
    }
}

/// After a call, whatever came of it: a fork that the guest has not gone through with is over. It was stopped in between, or
/// returned before it came to its fork again.
pub(crate) fn give_up(cage: &mut Cage) {
    let state = cage.store.data_mut();
    match mem::replace(&mut state.phase, Phase::Running) {
        Phase::Running => {}
        Phase::Unwinding { buffer } | Phase::Rewinding { buffer, .. } => unmap(state, buffer),
    }
}

fn unmap(state: &mut CageState, buffer: u32) {
    let bytes = buffer_bytes(state);
    system_call(state, libc::SYS_munmap, [buffer.into(), bytes.into(), 0, 0, 0, 0]);
}

/// Whether the program has what the pass adds.
fn is_there(mut store: StoreContextMut<'_, CageState>) -> bool {
    const NAMES: [&str; 4] =
        ["asyncify_start_unwind", "asyncify_stop_unwind", "asyncify_start_rewind", "asyncify_stop_rewind"];
    let Some(instance) = store.data().instance else { return false };
    NAMES.iter().all(|name| instance.get_func(&mut store, name).is_some())
}

/// Calls one of the functions that the pass adds.
fn call(mut store: StoreContextMut<'_, CageState>, name: &str, buffer: Option<u32>) -> wasmtime::Result<()> {
    let instance = store.data().instance.ok_or_else(|| wasmtime::Error::msg("there is no instance"))?;
    match buffer {
        Some(buffer) => instance.get_typed_func::<u32, ()>(&mut store, name)?.call(&mut store, buffer),
        None => instance.get_typed_func::<(), ()>(&mut store, name)?.call(&mut store, ()),
    }
}
