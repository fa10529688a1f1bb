//! Linear memories: where Wasmtime finds the addresses of a cage.
//!
//! Wasmtime asks an engine's [`MemoryCreator`] for each memory that a module defines, and does not say for which instance.
//! So whoever makes an instance hands the space over first, on the same thread ([`hand_over`]), and takes it back after.
//!
//! Invariants:
//!
//! * A memory is given once for each hand-over: a second one, or one that nobody has handed over, is refused.
//! * What compiled code may reach lies in the space's reservation: 4 GiB, and a guard behind that nothing is ever mapped in.
//!   The memory keeps the space, and the space its reservation, so no compiled code outlives it.

use std::cell::RefCell;
use std::sync::Arc;

use pagewarden_linux::host_machine::{HostSpace, Reservation};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::error::CageError;

/// What 32-bit addresses reach.
pub(crate) const CAGE_BYTES: usize = 4 << 30;
/// What no access without an explicit check reaches beyond: its largest offset is checked by the compiled code.
pub(crate) const GUARD_BYTES: usize = 2 << 30;

thread_local! {
    /// The space whose instance this thread is making.
    static HANDED_OVER: RefCell<Option<Arc<HostSpace>>> = const { RefCell::new(None) };
}

/// Addresses for a cage.
pub(crate) fn reserve() -> Result<Reservation, CageError> {
    Reservation::new(CAGE_BYTES, GUARD_BYTES).map_err(CageError::Reservation)
}

/// Has the memory that `make` defines be `space`.
pub(crate) fn hand_over<T>(space: &Arc<HostSpace>, make: impl FnOnce() -> T) -> T {
    struct TakeBack;
    impl Drop for TakeBack {
        fn drop(&mut self) {
            HANDED_OVER.take();
        }
    }
    HANDED_OVER.replace(Some(Arc::clone(space)));
    let _take_back = TakeBack;
    make()
}

/// The memory of one cage.
struct CageMemory(Arc<HostSpace>);

// SAFETY: the base never moves and never changes. All of `byte_size` is the space's reservation, which the space keeps for as
// long as it lives, and this keeps the space. Bytes there that nothing is mapped at fault, as Wasmtime allows: the code that it
// compiles is prepared for a fault at each load and store, and none of its own code touches the memory, since bulk
// instructions, data segments and host calls go through the space's tables instead.
unsafe impl LinearMemory for CageMemory {
    fn byte_size(&self) -> usize {
        CAGE_BYTES
    }

    fn byte_capacity(&self) -> usize {
        CAGE_BYTES
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        if size <= CAGE_BYTES { Ok(()) } else { Err(wasmtime::Error::msg("a cage ends at 4 GiB")) }
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}

/// Gives each instance the space that was handed over for it.
pub(crate) struct CageMemories;

// SAFETY: what is given out has 4 GiB and the guard behind it, or the request is refused. A new space has no page, so each that
// is touched later begins with zeros or with what the program maps there.
unsafe impl MemoryCreator for CageMemories {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let space = HANDED_OVER.take().ok_or("this memory is no cage's")?;
        if minimum != CAGE_BYTES || reserved != Some(CAGE_BYTES) || guard > GUARD_BYTES {
            return Err(format!("a cage has 4 GiB, not {minimum} bytes with a guard of {guard}"));
        }
        Ok(Box::new(CageMemory(space)))
    }
}
