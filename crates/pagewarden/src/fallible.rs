//! Allocations that say so when there is no memory.
//!
//! Requests of a guest must not end the program that serves them, so whatever planning allocates is asked for here
//! or with `try_reserve`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;

use crate::error::Errno;

/// `value` behind an `Arc`.
///
/// # Errors
/// [`Errno::NoMem`].
pub(crate) fn try_arc<T>(value: T) -> Result<Arc<T>, Errno> {
    make_sure_of_memory::<T>()?;
    Ok(Arc::new(value))
}

/// Fails if there is no memory for an `Arc` of a `T`.
///
/// `Arc::try_new` is not stable, so memory of the same size and alignment is asked for in a way that may fail, and
/// given back for the `Arc` that follows.
#[cold]
pub(crate) fn make_sure_of_memory<T>() -> Result<(), Errno> {
    let mut probe: Vec<([usize; 2], T)> = Vec::new();
    let probed = probe.try_reserve_exact(1).map_err(|_| Errno::NoMem);
    // An allocation that is not used may be left out by the compiler.
    black_box(&probe);
    probed
}

/// Fails if there is no memory for `N` more nodes of a `BTreeMap` with keys and values of a few words: what so many
/// inserts may allocate. A split allocates one node a level; the rare split of several levels at once is not made sure of.
pub(crate) fn make_sure_of_tree_nodes<const N: usize>() -> Result<(), Errno> {
    make_sure_of_memory::<[[u64; 96]; N]>()
}
