//! One region of guest memory, in a window.

use std::fmt;
use std::sync::Arc;

use pagewarden::VirtAddr;
use pagewarden::frame::FrameNumber;
use pagewarden::phys::{Claim, Mapping, Permission};
use vm_memory::bitmap::BS;
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryResult, GuestUsize, MemoryRegionAddress,
    VolatileSlice,
};

use crate::{MapError, WindowManager};

/// Consecutive guest-physical addresses, and the window that shows what is there.
///
/// Its `Bytes<MemoryRegionAddress>` never makes a `VolatileSlice` of the window: it copies, and memory that is gone is
/// an `IOError` with `EFAULT`. What [`get_slice`](GuestMemoryRegion::get_slice) hands out is a `VolatileSlice`; see the
/// [crate](crate) for what that means.
pub struct WindowRegion {
    start: GuestAddress,
    mapping: Mapping<Arc<WindowManager>>,
}

impl fmt::Debug for WindowRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowRegion({:#x}, {:?})", self.start.0, self.mapping)
    }
}

impl WindowRegion {
    /// Shows `frames` as what the guest has from `start` on, for loads and stores. No reservation is in the way of the
    /// window, and it is in nobody's.
    ///
    /// # Errors
    /// [`MapError::Overflow`], [`MapError::Window`].
    pub fn new(manager: Arc<WindowManager>, start: GuestAddress, frames: &[FrameNumber]) -> Result<Self, MapError> {
        let window = |source| MapError::Window { start: start.0, source };
        let mapping = Mapping::new(manager, frames, Permission::ReadWrite, Claim::Beside).map_err(window)?;
        match start.0.checked_add(mapping.window().bytes() - 1) {
            Some(_) => Ok(Self { start, mapping }),
            None => Err(MapError::Overflow(start.0)),
        }
    }

    /// The window.
    #[inline]
    pub const fn mapping(&self) -> &Mapping<Arc<WindowManager>> {
        &self.mapping
    }

    /// The `count` bytes from `offset` on, as far as there are so many. `offset` may be where the region ends.
    ///
    /// # Errors
    /// `InvalidBackendAddress`, as other regions say if `offset` is beyond that.
    #[inline]
    pub(crate) fn piece(&self, offset: MemoryRegionAddress, count: usize) -> GuestMemoryResult<(usize, usize)> {
        let left = self.len().checked_sub(offset.0).ok_or(GuestMemoryError::InvalidBackendAddress)?;
        let count = usize::try_from(left).map_or(count, |left| left.min(count));
        let offset = usize::try_from(offset.0).map_err(|_| GuestMemoryError::InvalidBackendAddress)?;
        Ok((offset, count))
    }

    /// Where the `count` bytes from `offset` on begin, if there are so many.
    ///
    /// # Errors
    /// `InvalidBackendAddress`.
    pub(crate) fn whole(&self, offset: MemoryRegionAddress, count: usize) -> GuestMemoryResult<usize> {
        match self.piece(offset, count)? {
            (offset, there) if there == count => Ok(offset),
            _ => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }
}

impl GuestMemoryRegion for WindowRegion {
    type B = ();

    #[inline]
    fn len(&self) -> GuestUsize {
        self.mapping.window().bytes()
    }

    #[inline]
    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> BS<'_, Self::B> {}

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> GuestMemoryResult<VolatileSlice<'_, BS<'_, Self::B>>> {
        let offset = self.whole(offset, count)?;
        let at = VirtAddr::new(self.mapping.window().start().as_u64() + offset as u64);
        let provider = self.mapping.manager().provider();
        let start = provider.window_pointer(at, count).ok_or(GuestMemoryError::HostAddressNotAvailable)?;
        // SAFETY: all `count` bytes are addresses of the window, which shows them for loads and stores for as long as
        // the mapping lives, and the slice borrows the region that has it. They are no object of the program: others
        // may write to them at any time, which is what a `VolatileSlice` is made for, and we never make a reference of
        // them. Where the file under them ends meanwhile, the provider puts a page of zeroes there. Whoever takes the
        // window away behind the manager's back makes accesses fault, and no more: the addresses stay the space's own,
        // which gives up none that a host call was not about.
        Ok(unsafe { VolatileSlice::new(start, count) })
    }
}
