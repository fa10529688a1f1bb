//! Windows by our own page tables: what kernels have, and the software machine.
//!
//! Owned here: what the tables show in the window space; the tables themselves, unless they are a [`KernelSpace`]'s.
//! Outside: the frames that they are made of ([`Pager`]), and how bytes are copied ([`WindowAccess`]), by code that runs
//! with these tables.
//!
//! Lock order: the tables' lock, then what is inside of the pager's frames.

use alloc::sync::Arc;
use core::fmt;

use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::fallible::try_arc;
use crate::frame::{FrameNumber, FrameRange};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::EntryFlags;
use crate::pager::{KernelSpace, Pager, SpaceTables};
use crate::phys::{CopyFault, EventCount, OtherAccess, Permission, PhysError, VmapProvider, WindowAccess, WordWidth};

/// How code that runs with the tables of windows reaches them, and what only the platform knows of the other world.
pub trait WindowProcessor: WindowAccess {
    /// How its threads wait.
    type Events: EventCount;

    /// What a leaf of a window says besides its rights: [`EntryFlags::USER`] where accesses are user code's,
    /// [`EntryFlags::GLOBAL`] where all spaces have these tables.
    const LEAF: EntryFlags;

    /// Whether a frame that is not our allocator's is memory of the other world: it exists, and no device or firmware
    /// of ours has it.
    fn is_foreign(&self, frame: FrameNumber) -> bool;

    /// As [`VmapProvider::set_other_access`].
    ///
    /// # Errors
    /// As there.
    fn set_other_access(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        let _ = (frames, access);
        Err(PhysError::Unsupported)
    }
}

/// A window space in page tables of its own, or in a kernel's. Windows are never executable.
pub struct PageTableWindows<M: PhysMem + Mmu, A> {
    tables: Arc<SpaceTables<M>>,
    space: PageRange,
    processor: A,
}

impl<M: PhysMem + Mmu, A> fmt::Debug for PageTableWindows<M, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageTableWindows({}, tables at {})", self.space, self.tables.frame())
    }
}

impl<M: PhysMem + Mmu, A: WindowProcessor> PageTableWindows<M, A> {
    /// An empty window space at `space`, in tables of its own that `account` pays for.
    ///
    /// # Errors
    /// [`PhysError::OutOfTableFrames`] if there is no frame for the root, [`PhysError::OutOfMemory`].
    pub fn new(pager: &Arc<Pager<M>>, account: &Account, space: PageRange, processor: A) -> Result<Self, PhysError> {
        let tables = SpaceTables::uncounted(pager, account).map_err(|_| PhysError::OutOfTableFrames)?;
        let tables = try_arc(tables).map_err(|_| PhysError::OutOfMemory)?;
        Ok(Self { tables, space, processor })
    }

    /// An empty window space at `space` in the tables of a kernel, where every space sees the windows. Nobody else maps
    /// anything there.
    ///
    /// # Errors
    /// [`PhysError::Invalid`] if the kernel has no place for all of `space`.
    pub fn within(kernel: &KernelSpace<M>, space: PageRange, processor: A) -> Result<Self, PhysError> {
        if !kernel.has_place_for(space) {
            return Err(PhysError::Invalid);
        }
        Ok(Self { tables: Arc::clone(kernel.tables()), space, processor })
    }

    /// The root table, for the processors that are to see the windows.
    pub fn root(&self) -> FrameNumber {
        self.tables.frame()
    }

    /// Who reaches the windows.
    pub const fn processor(&self) -> &A {
        &self.processor
    }

    /// That an access is to the window space as a whole. Of other addresses the processor may have some that are not
    /// the caller's.
    #[inline]
    fn check(&self, at: VirtAddr, len: usize) -> Result<(), CopyFault> {
        match at.as_u64().checked_add(len as u64) {
            Some(end) if self.space.start() <= at && end <= self.space.end().as_u64() => Ok(()),
            _ => Err(CopyFault { copied: 0 }),
        }
    }
}

impl<M: PhysMem + Mmu, A: WindowProcessor> VmapProvider for PageTableWindows<M, A> {
    type Events = A::Events;

    fn window_space(&self) -> PageRange {
        self.space
    }

    fn is_foreign(&self, frame: FrameNumber) -> bool {
        !self.tables.pager().frames().is_ours(frame) && self.processor.is_foreign(frame)
    }

    fn map(&self, window: PageRange, frames: FrameRange, permission: Permission) -> Result<(), PhysError> {
        let mut flags = A::LEAF | EntryFlags::PRESENT | EntryFlags::NO_EXECUTE;
        flags.set(EntryFlags::WRITABLE, permission == Permission::ReadWrite);
        self.tables.map(window.start(), frames, flags).map_err(|error| match error {
            Errno::Exist => PhysError::AlreadyMapped,
            Errno::NoMem => PhysError::OutOfTableFrames,
            other => PhysError::Platform(other),
        })
    }

    fn unmap(&self, window: PageRange) -> Result<(), PhysError> {
        self.tables.unmap(window).map_err(PhysError::Platform)
    }

    fn set_other_access(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        self.processor.set_other_access(frames, access)
    }
}

impl<M: PhysMem + Mmu, A: WindowProcessor> WindowAccess for PageTableWindows<M, A> {
    #[inline]
    fn load(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        self.check(from, to.len())?;
        self.processor.load(from, to)
    }

    #[inline]
    fn store(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        self.check(to, from.len())?;
        self.processor.store(to, from)
    }

    #[inline]
    fn compare_exchange(&self, at: VirtAddr, width: WordWidth, current: u64, new: u64) -> Result<u64, CopyFault> {
        self.check(at, width.bytes())?;
        self.processor.compare_exchange(at, width, current, new)
    }
}
