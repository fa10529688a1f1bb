//! Which capabilities this process was given: the page that `crates/pagewarden/src/cap/fixed.rs` describes.

use pagewarden_kernel_abi::CAPABILITY_SET;

use crate::Pages;

/// The name of a process's own address space.
pub const OWN_MEMORY: [u8; 8] = *b"memory\0\0";

/// What a handle allows.
pub mod rights {
    /// Look at the contents.
    pub const READ: u64 = 1;
    /// Change the contents.
    pub const WRITE: u64 = 2;
    /// Make it appear in an address space.
    pub const MAP: u64 = 8;
    /// Hand it to others.
    pub const TRANSFER: u64 = 16;
}

/// Interfaces that are not the kernel's own.
pub mod interface {
    /// Memory.
    pub const MEMORY: u64 = 1;
    /// An address space.
    pub const ADDRESS_SPACE: u64 = 3;
}

/// A capability that was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// Names it in calls.
    pub handle: u64,
    /// What kind of object it is for.
    pub interface: u64,
    /// What it allows.
    pub rights: u64,
}

const BYTES: u64 = 32;

/// The page of the set.
pub const fn page() -> Pages {
    // SAFETY: the kernel has put the page there for good, and it is for nothing else.
    unsafe { Pages::at(CAPABILITY_SET, 1) }
}

/// How many there are.
pub fn count() -> u64 {
    page().load(0)
}

/// The first that was given under `name`.
pub fn find(name: [u8; 8]) -> Option<Given> {
    let page = page();
    let at = (1..=count()).map(|number| number * BYTES).find(|at| page.load(at + 24) == u64::from_le_bytes(name))?;
    Some(Given { handle: page.load(at), interface: page.load(at + 8), rights: page.load(at + 16) })
}

/// The handle of what was given under `name`.
///
/// # Panics
/// If nothing was: the program cannot do without.
pub fn handle(name: [u8; 8]) -> u64 {
    match find(name) {
        Some(given) => given.handle,
        None => panic!("no capability {:?} was given", core::str::from_utf8(&name)),
    }
}
