//! The host kernel as the oracle: random programs of memory calls, run on it directly and under pagewarden, must
//! answer the same, leave the same regions and the same bytes.
//!
//! [`generate()`] makes a [`Program`] from a seed, [`guest`] runs programs in a process of their own, [`compare`]
//! runs that process on both sides, [`shrink()`] makes a differing program small, [`c_source`] prints it as C, and
//! [`check`] is all of that together.
//! Both sides have the same address-space layout (no randomisation, same arguments and environment), so addresses
//! are compared as they are.

mod accounts;
pub mod c_source;
pub mod check;
pub mod compare;
mod copies;
mod enclosure;
mod family;
mod files;
pub mod generate;
mod guard;
pub mod guest;
mod interpret;
mod kernel;
mod machine;
pub mod outcome;
pub mod program;
mod raw;
mod seams;
pub mod shrink;
pub mod state;
pub mod text;
mod threads;

pub use check::{Check, Finding, Outcomes};
pub use compare::{Difference, Runner, Side, Transcript};
pub use generate::{World, generate, generate_in};
pub use machine::{Balance, Books, Hardware, MakeHardware, MemoryCall, Object, Objects, Outside, Space, fault_outcome};
pub use program::{Arg, Base, Call, FileKind, Program, Step};
pub use shrink::shrink;
