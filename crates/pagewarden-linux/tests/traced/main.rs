//! Small C programs run under [`pagewarden_linux::run`]: what they see is what they would see without us.
//!
//! `guests/` is one program with many cases. Each case checks itself and ends with status 99 when a check
//! fails; what it has to tell goes line by line to a file. Most cases are run twice, by the host alone and
//! by us, and both must end and tell alike. Every run is watched: one that hangs is killed and fails, and
//! one that leaves a process behind fails too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod advice;
mod budget;
mod calls;
mod errors;
mod leftovers;
mod processes;
mod refusals;
mod sealed;
mod signals;
mod support;
