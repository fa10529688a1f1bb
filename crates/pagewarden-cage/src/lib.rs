//! Wasm cages: programs in WebAssembly whose memory is Linux's. They map, unmap and protect pages, move their break, share
//! segments, and fork with copy-on-write; each lives in 4 GiB of its own.
//!
//! ```text
//! Cages::load    the module is changed (bulk instructions become calls), compiled, its data becomes an image
//! Cages::start   a space of the pager, its view as linear memory, an instance
//! Cage::call     loads and stores go to the view; a page that it does not show is a SIGSEGV, which the space resolves
//!                calls go to the pager's tables: no code of the host ever follows a pointer into the view
//! ```
//!
//! Owned here: processes. Outside: addresses and pages ([`pagewarden`]), the host's memory as RAM and its mappings as an MMU
//! ([`pagewarden_linux::host_machine`]), compiled code (Wasmtime).

mod cage;
mod calls;
mod engine;
mod error;
mod family;
mod fork;
mod maps;
mod memory;
mod module;
mod program;
mod record;
mod setup;
mod signals;
mod stack;
mod state;
mod trap;
mod wasi;

#[cfg(test)]
mod tests;

pub use cage::{Cage, Exit};
pub use engine::{CageOptions, Cages};
pub use error::CageError;
pub use module::ModuleError;
pub use program::Program;
pub use record::{KeptMaps, Record, Recorded};
pub use setup::{Directory, Kept, Setup, SharedFiles, Stdio};
pub use trap::{CageTrap, Ended, TrapKind};
pub use wasmtime::Val;
