//! mlock and its family: pages of the arena, never the rest of the process.

use pagewarden::linux::LockAllFlags;
use pagewarden::provider::Lock;
use pagewarden::{Errno, PageRange, RegionFlags};

use super::provider::ArenaProvider;

/// `MLOCK_ONFAULT`.
pub(super) const MLOCK_ONFAULT: u64 = 1;

impl ArenaProvider {
    /// Locks or unlocks `mapped`, the part of `range` up to its first hole.
    pub(super) fn lock(&self, range: PageRange, mapped: PageRange, lock: Lock) -> Result<(), Errno> {
        match lock {
            Lock::Released => self.memory.unlock(mapped),
            Lock::OnFault => self.memory.lock(mapped, MLOCK_ONFAULT),
            // Where there is a hole Linux marks the pages up to it and makes none of them resident.
            //
            // Differs from Linux: private pages so marked do not become resident when mprotect makes them writable
            // later. The host has no call that marks pages without making them resident but this one, and it goes by
            // the mark.
            Lock::Now if mapped != range => self.memory.lock(mapped, MLOCK_ONFAULT),
            Lock::Now => self.memory.lock(mapped, 0),
        }
    }

    /// mlockall(2) on what is `mapped`; what cannot be made resident is locked all the same.
    pub(super) fn lock_all(&mut self, flags: LockAllFlags, mapped: &[PageRange]) -> Result<(), Errno> {
        let wanted = if flags.contains(LockAllFlags::ON_FAULT) { Lock::OnFault } else { Lock::Now };
        let lock = if flags.contains(LockAllFlags::CURRENT) { wanted } else { Lock::Released };
        for (done, range) in mapped.iter().enumerate() {
            match self.lock(*range, *range, lock) {
                Ok(()) | Err(Errno::NoMem | Errno::Again) => {}
                Err(errno) => {
                    for range in &mapped[..done] {
                        let _ = self.memory.unlock(*range);
                    }
                    return Err(errno);
                }
            }
        }
        self.lock_future = flags.contains(LockAllFlags::FUTURE).then_some(wanted);
        Ok(())
    }

    /// The flags of pages that come without a region of their own.
    pub(super) fn new_locks(&self) -> RegionFlags {
        match self.lock_future {
            Some(Lock::Now) => RegionFlags::LOCKED,
            Some(Lock::OnFault) => RegionFlags::LOCKED | RegionFlags::LOCK_ON_FAULT,
            Some(Lock::Released) | None => RegionFlags::empty(),
        }
    }
}
