//! Spaces whose pages are shown by the host, by real loads and stores.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod basics;
mod memory;
mod objects;
mod random;
mod spaces;
mod support;
