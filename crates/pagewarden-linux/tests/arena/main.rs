//! The arena: each call against the host's own list of mappings, after every step.

mod calls;
mod support;
