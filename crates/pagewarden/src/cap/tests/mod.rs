//! Tests of the table of capabilities.
