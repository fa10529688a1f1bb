//! A region: what a run of pages with the same properties is (Linux: a VMA).
//!
//! A region does not know its bounds; the [`Vmmap`](crate::Vmmap) does. It stores where its backing lies
//! as `delta = page offset - page number`, so that splitting a region changes nothing in it and two
//! neighbours may be merged exactly when they are equal.

use alloc::sync::Arc;

use crate::addr::VirtAddr;
use crate::object::MemoryObject;
use crate::prot::{Prot, ProtectionKey};

bitflags::bitflags! {
    /// Properties of a region besides its rights. Names follow the kernel's `VM_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RegionFlags: u32 {
        /// Stores go to the backing and are seen by all who map it (`VM_MAYSHARE`).
        const SHARED = 1 << 0;
        /// Grows downwards on a fault just below it, up to the stack limit (`VM_GROWSDOWN`).
        const GROWS_DOWN = 1 << 1;
        /// Its pages stay resident (`VM_LOCKED`).
        const LOCKED = 1 << 2;
        /// With [`Self::LOCKED`]: pages are locked as they are touched (`VM_LOCKONFAULT`).
        const LOCK_ON_FAULT = 1 << 3;
        /// Mapped with `MAP_NORESERVE` (`VM_NORESERVE`).
        const NO_RESERVE = 1 << 4;
        /// Private and once writable, so each of its pages is charged as committed (`VM_ACCOUNT`). Stays
        /// set when the region is made read-only: its pages may hold data.
        const COMMITTED = 1 << 5;
        /// Not inherited over fork (`VM_DONTCOPY`).
        const DONT_FORK = 1 << 6;
        /// Zero in the child after fork (`VM_WIPEONFORK`).
        const WIPE_ON_FORK = 1 << 7;
        /// Left out of core dumps (`VM_DONTDUMP`).
        const DONT_DUMP = 1 << 8;
        /// mremap must not grow it (`VM_DONTEXPAND`).
        const DONT_EXPAND = 1 << 9;
        /// Pages that are not ordinary memory, such as [vvar] (`VM_IO | VM_PFNMAP`).
        const PFN_MAP = 1 << 10;
        /// Huge pages wanted (`VM_HUGEPAGE`).
        const HUGE_PAGE = 1 << 11;
        /// Huge pages not wanted (`VM_NOHUGEPAGE`; set by `MAP_STACK` too).
        const NO_HUGE_PAGE = 1 << 12;
        /// Equal pages may be merged (`VM_MERGEABLE`).
        const MERGEABLE = 1 << 13;
        /// Will be read in order (`VM_SEQ_READ`).
        const SEQUENTIAL = 1 << 14;
        /// Will be read in no order (`VM_RAND_READ`).
        const RANDOM = 1 << 15;
        /// Its mapping may not be changed (`VM_SEALED`).
        const SEALED = 1 << 16;
        /// May be dropped under memory pressure (`VM_DROPPABLE`).
        const DROPPABLE = 1 << 17;
        /// Mapped with `MAP_SYNC` (`VM_SYNC`): stores to persistent memory are durable.
        const SYNC = 1 << 19;
        /// Shared, of a file that is open for writing but sealed against it (`VM_SHARED` without `VM_MAYWRITE`).
        const WRITE_SEALED = 1 << 24;
        /// Belongs to the platform: no request of a guest touches it.
        const FIXED = 1 << 18;
        /// Anonymous memory that a [`VirtualMemory`](crate::cap::VirtualMemory) capability has reserved. With
        /// [`Self::COMMITTED`] its pages can be touched if its rights allow it; without, they are only kept free.
        const RESERVATION = 1 << 20;
        /// Shows pages of an object by way of a [capability](crate::cap::MemoryCap); each page is charged.
        const BORROWED = 1 << 21;
    }
}

/// What is behind the pages of a region.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Zero pages, private to the space.
    Anonymous,
    /// Pages of an object: a file, shared memory, or a named kind of anonymous memory.
    Object(Arc<MemoryObject>),
}

impl PartialEq for Backing {
    /// Two backings are equal when they are the same object, or anonymous memory of the same name.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a.is_same_name_as(b),
            _ => false,
        }
    }
}

impl Eq for Backing {}

/// A run of pages with the same properties. Equal neighbours in a map are one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What is behind the pages.
    pub backing: Backing,
    /// Page offset into the backing minus page number, wrapping; 0 for anonymous memory.
    pub delta: u64,
    /// What a guest may do with the pages now.
    pub prot: Prot,
    /// What `prot` may become (`VM_MAYREAD` and so on).
    pub prot_max: Prot,
    /// The protection key of the pages.
    pub key: ProtectionKey,
    /// The other properties.
    pub flags: RegionFlags,
}

impl Region {
    /// Private anonymous memory with rights `prot`, allowed to become anything.
    pub const fn anonymous(prot: Prot) -> Self {
        Self {
            backing: Backing::Anonymous,
            delta: 0,
            prot,
            prot_max: Prot::all(),
            key: ProtectionKey::DEFAULT,
            flags: RegionFlags::empty(),
        }
    }

    /// Whether the region is private anonymous memory without any property but its rights, and how it is charged:
    /// nothing of it outlives its pages.
    pub fn is_plain(&self) -> bool {
        matches!(self.backing, Backing::Anonymous)
            && self.key == ProtectionKey::DEFAULT
            && (self.flags - RegionFlags::COMMITTED - RegionFlags::NO_RESERVE).is_empty()
    }

    /// The object behind the region, if it is not plain anonymous memory.
    pub fn object(&self) -> Option<&Arc<MemoryObject>> {
        match &self.backing {
            Backing::Anonymous => None,
            Backing::Object(object) => Some(object),
        }
    }

    /// The page of the backing that `address` shows.
    pub const fn page_offset(&self, address: VirtAddr) -> u64 {
        address.page_number().wrapping_add(self.delta)
    }

    /// Whether stores are seen by others who map the same object.
    pub const fn is_shared(&self) -> bool {
        self.flags.contains(RegionFlags::SHARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_three_words() {
        assert_eq!(size_of::<Region>(), 24, "leaves of the map are full of regions");
    }
}
