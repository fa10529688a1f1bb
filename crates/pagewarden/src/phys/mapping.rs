//! A mapping: a window that is in use, and what is reserved for it.

use alloc::boxed::Box;
use core::fmt;

use crate::addr::{PageRange, VirtAddr};
use crate::frame::FrameNumber;
use crate::phys::manager::{Claim, ManagerRef};
use crate::phys::reservation::Held;
use crate::phys::{Permission, PhysError, WindowAccess, Word, pages};

/// Pages of another world, shown at consecutive addresses for as long as this lives, and reserved if that was claimed.
///
/// Dropping it takes the window away first and releases the reservation then. If the platform fails there, the
/// [manager](crate::phys::VmapManager::retained) retains both; [`unmap`](Self::unmap) says so too.
pub struct Mapping<R: ManagerRef> {
    manager: R,
    window: PageRange,
    frames: Box<[FrameNumber]>,
    permission: Permission,
    held: Option<Held>,
    /// Gone when somebody else sees to the window.
    is_open: bool,
}

impl<R: ManagerRef> fmt::Debug for Mapping<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} pages at {}, {:?})", self.frames.len(), self.window, self.permission)
    }
}

impl<R: ManagerRef> Mapping<R> {
    /// Shows `frames`, in this order and wherever they lie, at consecutive pages.
    ///
    /// # Errors
    /// [`PhysError::Invalid`] for no frames, or a claim that does not fit; [`PhysError::DuplicatePage`];
    /// [`PhysError::Owned`]; [`PhysError::Reserved`]; [`PhysError::WindowSpaceExhausted`]; [`PhysError::OutOfMemory`]; what
    /// [`VmapProvider::map`](crate::phys::VmapProvider::map) says. Nothing has changed then, unless the platform does not
    /// even take back what it has mapped already: that is [retained](crate::phys::VmapManager::retained). A reservation
    /// that was handed over is released.
    pub fn new(
        manager: R,
        frames: &[FrameNumber],
        permission: Permission,
        claim: Claim<'_, R::Provider>,
    ) -> Result<Self, PhysError> {
        pages::check_distinct(frames)?;
        manager.validate_unowned(frames)?;
        let copy = pages::copied(frames)?;
        let held = manager.claim(frames, permission, claim)?;
        let (window, held) = manager.open(frames, permission, held)?;
        Ok(Self { manager, window, frames: copy, permission, held, is_open: true })
    }

    /// The addresses of the window. They are for whoever has the platform's own means of access; no reference may ever
    /// be made of them.
    pub const fn window(&self) -> PageRange {
        self.window
    }

    /// What the window shows.
    pub fn frames(&self) -> &[FrameNumber] {
        &self.frames
    }

    /// What it allows.
    pub const fn permission(&self) -> Permission {
        self.permission
    }

    /// The manager it is of.
    pub const fn manager(&self) -> &R {
        &self.manager
    }

    /// Copies the bytes from `offset` on out of the window.
    ///
    /// # Errors
    /// [`PhysError::OutOfBounds`], or [`PhysError::CopyFault`] with what came before it copied.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), PhysError> {
        let from = self.address(offset, to.len())?;
        Ok(self.manager.provider().load(from, to)?)
    }

    /// Copies bytes into the window, from `offset` on.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`PhysError::ReadOnly`].
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), PhysError> {
        let to = self.address(offset, from.len())?;
        self.check_writable()?;
        Ok(self.manager.provider().store(to, from)?)
    }

    /// Replaces the word at `offset` by `new` if it is `current`, in one step. What was there: `current` if it has been
    /// replaced.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`PhysError::Unaligned`].
    #[inline]
    pub fn compare_exchange<W: Word>(&self, offset: usize, current: W, new: W) -> Result<W, PhysError> {
        let at = self.address(offset, size_of::<W>())?;
        if !at.as_u64().is_multiple_of(size_of::<W>() as u64) {
            return Err(PhysError::Unaligned);
        }
        self.check_writable()?;
        let found = self.manager.provider().compare_exchange(at, W::WIDTH, current.into(), new.into())?;
        Ok(W::from_low_bits(found))
    }

    /// Takes the window away, and releases what was reserved for it (vunmap).
    ///
    /// # Errors
    /// The platform's. The manager retains both then.
    #[doc(alias = "vunmap")]
    pub fn unmap(mut self) -> Result<(), PhysError> {
        self.close()
    }

    fn close(&mut self) -> Result<(), PhysError> {
        self.is_open = false;
        self.manager.close(self.window, self.held.take())
    }

    fn check_writable(&self) -> Result<(), PhysError> {
        match self.permission {
            Permission::Read => Err(PhysError::ReadOnly),
            Permission::ReadWrite => Ok(()),
        }
    }

    /// Where `len` bytes from `offset` on are.
    #[inline]
    fn address(&self, offset: usize, len: usize) -> Result<VirtAddr, PhysError> {
        let end = offset.checked_add(len).ok_or(PhysError::Overflow)?;
        if end as u64 > self.window.bytes() {
            return Err(PhysError::OutOfBounds);
        }
        Ok(VirtAddr::new(self.window.start().as_u64() + offset as u64))
    }
}

impl<R: ManagerRef> Drop for Mapping<R> {
    fn drop(&mut self) {
        if self.is_open {
            // What fails is retained; there is nobody here to tell.
            let _ = self.close();
        }
    }
}
