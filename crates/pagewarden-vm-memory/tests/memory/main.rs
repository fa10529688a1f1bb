//! Guest memory in windows: against that of `vm-memory` itself, when its file is cut, and below a virtqueue.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod accesses;
mod layout;
mod lost;
mod queue;
mod support;
