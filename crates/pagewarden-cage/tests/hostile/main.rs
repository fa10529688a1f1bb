//! Guests that mean harm. Whatever they do is an error or a trap that says where: the host lives, and no other cage's memory
//! changes, for which a witness checks its own all the while.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod accesses;
mod calls;
mod control;
mod forks;
mod mutants;
mod ranges;
mod support;
mod wasi;
