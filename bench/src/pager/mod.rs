//! The parts of the pager against their peers: frames, page tables, faults and forks.
//!
//! Owns what each row does and with what. Every row is a [`contest`]: all who take part do it in turns, in one process.
//! Outside: what is printed ([`crate::report`]).

pub mod contest;
pub mod frames;
pub mod raw;
pub mod spaces;
pub mod sparse;
pub mod tables;
