//! Page tables in physical memory.

mod entry;

pub use entry::{Entry, EntryFlags, Level};
