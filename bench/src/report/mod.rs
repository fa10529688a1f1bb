//! What is printed.

mod table;

pub use table::{duration, of_size};
