//! From an ELF image to an address space.
//!
//! ```text
//! Image::parse  ->  brk    (into the SpaceConfig)  ->  AddressSpace::new
//!               ->  map    (segments, with their rights)
//!               ->  map_stack (arguments and auxiliary vector)  ->  rsp, entry
//! ```
//!
//! Owns which images are accepted and where their parts go. Outside: who pays, which fixed pages a process has, threads
//! and registers.
//!
//! Static executables for x86-64 alone: no interpreter, no relocation, nothing writable and executable, no two segments in
//! one page. An image may hold anything: whatever is in it, it is refused or loaded in time linear in its length and the
//! number of its headers, which is bounded.
//!
//! Memory is mapped, filled and protected by the calls that a guest has, in its own name. What fails leaves
//! nothing behind. No locks here but those of the space, for one step at a time.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod error;
mod image;
mod load;
mod stack;

#[cfg(test)]
mod tests;

pub use error::{ImageError, LoadError};
pub use image::Image;
pub use stack::{Arguments, STACK_PAGES, STACK_TOP, map_stack};
