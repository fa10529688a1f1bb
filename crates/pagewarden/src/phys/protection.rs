//! Memory that the other world is kept from for a while, where the platform has a say in that.

use core::fmt;

use crate::frame::FrameRange;
use crate::phys::manager::ManagerRef;
use crate::phys::{OtherAccess, PhysError};

/// Frames that the other world cannot use as it likes, for as long as this lives.
///
/// Dropping it gives the other world back what it had. If the platform fails there, the
/// [manager](crate::phys::VmapManager::retained) retains the protection; [`unprotect`](Self::unprotect) says so too.
pub struct Protection<R: ManagerRef> {
    manager: R,
    frames: FrameRange,
    access: OtherAccess,
    is_on: bool,
}

impl<R: ManagerRef> fmt::Debug for Protection<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protection({:?}, {:?} left to the other world)", self.frames, self.access)
    }
}

impl<R: ManagerRef> Protection<R> {
    /// Leaves the other world `access` to `frames`, and no more.
    ///
    /// # Errors
    /// [`PhysError::Invalid`] for [`OtherAccess::Full`]; [`PhysError::Owned`] if some of it is not the other world's;
    /// [`PhysError::Reserved`] if some of it is protected already; [`PhysError::OutOfMemory`]; what
    /// [`set_other_access`](crate::phys::VmapProvider::set_other_access) says. Nothing has changed then.
    pub fn new(manager: R, frames: FrameRange, access: OtherAccess) -> Result<Self, PhysError> {
        if access == OtherAccess::Full {
            return Err(PhysError::Invalid);
        }
        manager.validate_foreign(frames.iter())?;
        manager.begin_protection(frames, access)?;
        Ok(Self { manager, frames, access, is_on: true })
    }

    /// Gives the other world back what it had.
    ///
    /// # Errors
    /// The platform's. The manager retains the protection then.
    pub fn unprotect(mut self) -> Result<(), PhysError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), PhysError> {
        self.is_on = false;
        self.manager.unprotect(self.frames)
    }
}

impl<R: ManagerRef> Drop for Protection<R> {
    fn drop(&mut self) {
        if self.is_on {
            // What fails is retained; there is nobody here to tell.
            let _ = self.end();
        }
    }
}
