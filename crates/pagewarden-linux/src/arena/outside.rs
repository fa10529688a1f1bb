//! Mappings on their way: pages of the arena that the host has put, for a moment, in a place of its own choice.
//!
//! Where files and shared memory grow, the host alone can map more of them, and it grows mappings only where there is
//! nothing. The arena has no such place. What is outside is nobody's but the call's that made it; it comes back into
//! the arena or is unmapped.

use pagewarden::{Errno, PAGE_SIZE, PageRange, VirtAddr};

use super::reservation::{Reservation, syscall};

/// A mapping outside of the arena.
#[derive(Debug)]
pub(super) struct Outside {
    start: u64,
    bytes: u64,
}

impl Outside {
    /// A second view of the shared pages from `page` on, `bytes` long.
    pub(super) fn view(memory: &Reservation, page: PageRange, bytes: u64) -> Result<Self, Errno> {
        memory.check(page)?;
        let flags = u64::from(libc::MREMAP_MAYMOVE.unsigned_abs());
        // SAFETY: an old size of 0 changes nothing at the page, and the view is new.
        let start = unsafe { syscall(libc::SYS_mremap, [page.start().as_u64(), 0, bytes, flags, 0, 0]) }?;
        Ok(Self { start, bytes })
    }

    /// The pages of `range`, which stay mapped and are empty until they come back.
    pub(super) fn take(memory: &Reservation, range: PageRange) -> Result<Self, Errno> {
        memory.check(range)?;
        let flags = u64::from((libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP).unsigned_abs());
        let bytes = range.bytes();
        // SAFETY: the pages lie in the reservation, and where they go is new.
        let start = unsafe { syscall(libc::SYS_mremap, [range.start().as_u64(), bytes, bytes, flags, 0, 0]) }?;
        Ok(Self { start, bytes })
    }

    /// Makes it longer.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Errno> {
        let flags = u64::from(libc::MREMAP_MAYMOVE.unsigned_abs());
        // SAFETY: these pages are ours alone.
        self.start = unsafe { syscall(libc::SYS_mremap, [self.start, self.bytes, bytes, flags, 0, 0]) }?;
        self.bytes = bytes;
        Ok(())
    }

    /// Puts what lies behind the first page in the place of what is at `to`, which is as long.
    pub(super) fn bring_rest(&mut self, memory: &Reservation, to: PageRange) -> Result<(), Errno> {
        if self.bytes - PAGE_SIZE != to.bytes() {
            return Err(Errno::Inval);
        }
        bring(self.start + PAGE_SIZE, memory, to)?;
        self.bytes = PAGE_SIZE;
        Ok(())
    }

    /// Puts it in the place of what is at `to`, which is as long as it is or was.
    pub(super) fn bring_back(mut self, memory: &Reservation, to: PageRange) -> Result<(), Errno> {
        if self.bytes < to.bytes() {
            return Err(Errno::Inval);
        }
        bring(self.start, memory, to)?;
        self.start += to.bytes();
        self.bytes -= to.bytes();
        Ok(())
    }
}

fn bring(start: u64, memory: &Reservation, to: PageRange) -> Result<(), Errno> {
    memory.check(to)?;
    let flags = u64::from((libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED).unsigned_abs());
    let args = [start, to.bytes(), to.bytes(), flags, to.start().as_u64(), 0];
    // SAFETY: the pages are those of an `Outside` and ours alone, and `to` lies in the reservation.
    unsafe { syscall(libc::SYS_mremap, args) }.map(drop)
}

impl Drop for Outside {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: these pages are ours alone.
            let _ = unsafe { syscall(libc::SYS_munmap, [self.start, self.bytes, 0, 0, 0, 0]) };
        }
    }
}

/// The last page of a range.
pub(super) fn last_page(range: PageRange) -> Result<PageRange, Errno> {
    PageRange::from_len(VirtAddr::new(range.end().as_u64() - PAGE_SIZE), PAGE_SIZE).ok_or(Errno::Inval)
}
