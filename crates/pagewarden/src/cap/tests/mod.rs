//! Tests of the table of capabilities.

mod process;
