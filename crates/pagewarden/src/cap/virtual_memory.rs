//! The right to change one address space: addresses that are reserved, and memory in them that comes and goes.
//!
//! It belongs to the process whose space it is and cannot be handed on. What can be asked of it concerns reservations
//! alone ([`CapabilityRequest::Reserve`] and those after it): what Linux's calls have mapped, what was borrowed from an
//! object and what is fixed are not in it.

use alloc::sync::Arc;
use core::fmt;

use super::{Binding, CapError, Interface, InterfaceId};
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::manager::{CapabilityRequest, Place};
use crate::mmu::{Mmu, PhysMem};
use crate::pager::AddressSpace;
use crate::prot::Prot;

/// The right to change one address space.
pub struct VirtualMemory<M: PhysMem + Mmu + 'static> {
    space: Arc<AddressSpace<M>>,
}

impl<M: PhysMem + Mmu + 'static> VirtualMemory<M> {
    /// The right to change `space`.
    pub const fn new(space: Arc<AddressSpace<M>>) -> Self {
        Self { space }
    }

    /// Keeps `pages` pages of addresses free. They cost address space and no memory.
    ///
    /// # Errors
    /// Those of [`PageManager::plan_capability`](crate::PageManager::plan_capability), as all of these.
    pub fn reserve(&self, pages: PageCount, place: Place) -> Result<PageRange, CapError> {
        let start = self.space.call_capability(&CapabilityRequest::Reserve { place, pages })?;
        PageRange::from_len(VirtAddr::new(start), pages.bytes()).ok_or_else(|| Errno::Inval.into())
    }

    /// Makes reserved pages memory, all zeros.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn commit(&self, range: PageRange, prot: Prot) -> Result<(), CapError> {
        self.ask(&CapabilityRequest::Commit { range, prot })
    }

    /// Gives up the memory of committed pages, and what it holds.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn decommit(&self, range: PageRange) -> Result<(), CapError> {
        self.ask(&CapabilityRequest::Decommit { range })
    }

    /// Changes the rights of committed pages. Without any, a page keeps what it holds.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn protect(&self, range: PageRange, prot: Prot) -> Result<(), CapError> {
        self.ask(&CapabilityRequest::Protect { range, prot })
    }

    /// Gives up reserved pages, committed or not.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn unmap(&self, range: PageRange) -> Result<(), CapError> {
        self.ask(&CapabilityRequest::Unmap { range })
    }

    fn ask(&self, request: &CapabilityRequest) -> Result<(), CapError> {
        self.space.call_capability(request)?;
        Ok(())
    }
}

impl<M: PhysMem + Mmu + 'static> fmt::Debug for VirtualMemory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VirtualMemory").field(&self.space).finish()
    }
}

impl<M: PhysMem + Mmu + 'static> Interface for VirtualMemory<M> {
    const ID: InterfaceId = InterfaceId::VIRTUAL_MEMORY;

    fn binding(&self) -> Binding {
        Binding::Bound
    }
}
