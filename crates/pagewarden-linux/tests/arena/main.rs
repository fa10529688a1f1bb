//! The arena: each call against the host's own list of mappings, after every step.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bounds;
mod calls;
mod capabilities;
mod failures;
mod faults;
mod files;
mod fork;
mod locks;
mod rare;
mod stress;
mod support;
mod threads;
