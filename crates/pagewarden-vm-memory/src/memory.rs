//! The memory of a guest: regions, each in a window of its own.

use std::sync::Arc;

use pagewarden::frame::FrameNumber;
use pagewarden::phys::{PhysError, VmapManager};
use pagewarden_linux::foreign::ForeignMemory;
use thiserror::Error;
use vm_memory::{GuestAddress, GuestRegionCollection, GuestRegionCollectionError};

use crate::WindowRegion;

/// Whose windows regions are.
pub type WindowManager = VmapManager<ForeignMemory>;

/// All regions of a guest's memory. It is cheap to clone, and `vm_memory::GuestMemoryAtomic` holds it where the
/// guest's memory changes while a device runs.
pub type WindowMemory = GuestRegionCollection<WindowRegion>;

/// Why there is no memory for a guest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// A region has no window.
    #[error("no window for guest memory at {start:#x}: {source}")]
    Window {
        /// Where the guest has it.
        start: u64,
        /// What is in the way.
        source: PhysError,
    },
    /// A region ends beyond the last address of a guest.
    #[error("guest memory at {0:#x} has no end")]
    Overflow(u64),
    /// The regions are not in order, or overlap, or there are none.
    #[error(transparent)]
    Layout(#[from] GuestRegionCollectionError),
}

/// Shows the memory of a guest: at each address the frames that the guest has there, in their order. Addresses ascend.
///
/// # Errors
/// [`MapError`]; no window is left behind.
pub fn map_regions(
    manager: &Arc<WindowManager>,
    regions: &[(GuestAddress, &[FrameNumber])],
) -> Result<WindowMemory, MapError> {
    let shown = |(start, frames): &(GuestAddress, &[FrameNumber])| WindowRegion::new(manager.clone(), *start, frames);
    let regions = regions.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(WindowMemory::from_regions(regions)?)
}
