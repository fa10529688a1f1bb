//! The platform fails at each operation of generated programs in turn: afterwards manager, platform and ledger agree,
//! nothing has leaked, and the failed call has had no effect.
//!
//! Here the platform is the core's model, which holds the contents of pages.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod model;
mod program;
