//! The ring: submissions in, completions out.
//!
//! The page is the process's too, so nothing in it is believed: how many submissions were taken and completions written the
//! kernel counts by itself, and a submission is copied out once. One thread of a process at a time has the ring.

use pagewarden::Errno;
use pagewarden_kernel_abi::{Completion, Submission, offset};

use super::objects;
use crate::process::{Memory, Thread};
use crate::schedule::{self, Next};

/// What the kernel knows of a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring {
    /// Submissions that were taken.
    taken: u32,
    /// Completions that were written.
    completed: u32,
}

/// What a submission comes to.
pub(super) enum Outcome {
    /// Its completion is written.
    Is(Result<[u64; 2], Errno>),
    /// It is tried again after the next event.
    Wait,
}

fn word(memory: &Memory, at: u64) -> Result<u32, Errno> {
    let mut bytes = [0; 4];
    memory.ring().read(at, &mut bytes).map_err(|error| error.errno())?;
    Ok(u32::from_le_bytes(bytes))
}

/// Takes submissions, as many as the call says.
pub(super) fn enter(thread: &mut Thread) -> Next {
    let seen = schedule::events();
    let (result, next) = match take(thread) {
        Ok(true) => (Ok(thread.in_progress.take().map_or(0, |call| call.taken)), Next::Run),
        Ok(false) => return Next::Wait(seen),
        Err(errno) => {
            thread.in_progress = None;
            (Err(errno), Next::Run)
        }
    };
    thread.context.rax = match result {
        Ok(taken) => u64::from(taken),
        Err(errno) => super::negative(errno).cast_unsigned(),
    };
    next
}

/// Takes submissions until all that the call asks for are taken, or one has to wait: then `false`.
fn take(thread: &mut Thread) -> Result<bool, Errno> {
    let wanted = u32::try_from(thread.context.rdi).unwrap_or(u32::MAX);
    let mut call = thread.in_progress.take().unwrap_or_default();
    let process = alloc::sync::Arc::clone(&thread.process);
    let mut ring = process.ring.lock();
    let submitted = word(thread.memory(), offset::SUBMITTED)?;
    let read = word(thread.memory(), offset::READ)?;
    let waiting = submitted.wrapping_sub(ring.taken);
    if waiting > Submission::PLACES || ring.completed.wrapping_sub(read) > Completion::PLACES {
        return Err(Errno::Inval);
    }
    for _ in 0..waiting.min(wanted.saturating_sub(call.taken)) {
        if ring.completed.wrapping_sub(read) == Completion::PLACES {
            break;
        }
        let mut bytes = [0; Submission::BYTES];
        let page = thread.memory().ring();
        page.read(Submission::offset(ring.taken), &mut bytes).map_err(|error| error.errno())?;
        let submission = Submission::from_bytes(&bytes);
        let outcome = match objects::perform(thread, &mut call, &submission) {
            Outcome::Is(outcome) => outcome,
            Outcome::Wait => {
                thread.in_progress = Some(call);
                return Ok(false);
            }
        };
        call.taken += 1;
        complete(thread.memory(), &mut ring, submission.cookie, outcome)?;
    }
    thread.in_progress = Some(call);
    Ok(true)
}

/// Writes a completion, and counts it and its submission.
fn complete(memory: &Memory, ring: &mut Ring, cookie: u64, outcome: Result<[u64; 2], Errno>) -> Result<(), Errno> {
    let (result, values) = match outcome {
        Ok(values) => (0, values),
        Err(errno) => (super::negative(errno), [0; 2]),
    };
    let write = |at, bytes: &[u8]| memory.ring().write(at, bytes).map_err(|error| error.errno());
    write(Completion::offset(ring.completed), &Completion { cookie, result, values }.to_bytes())?;
    ring.completed = ring.completed.wrapping_add(1);
    ring.taken = ring.taken.wrapping_add(1);
    write(offset::COMPLETED, &ring.completed.to_le_bytes())?;
    write(offset::TAKEN, &ring.taken.to_le_bytes())
}
