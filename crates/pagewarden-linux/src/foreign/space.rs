//! The window space: addresses for windows and nothing else, and the only door from windows to the host.
//!
//! Owns the space from the first mmap to the last munmap. Invariant: each page in it is mapped at all times, without
//! rights where no window is, so that the host puts nothing of the program there. Linux before 6.13 may unmap the target
//! of a mapping before it fails; such a hole is closed at once, by a call that replaces nothing. In the moment
//! between, nothing gets in: spaces lie where the host places nothing by itself, unless all of those places were taken.
//! Where a hole cannot be closed, the space is given up: no address is in it any more for any access, no call changes it
//! again, and it outlives its owner.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewarden::phys::{CopyFault, Permission};
use pagewarden::{Errno, PageCount, PageRange, VirtAddr};

use super::lost::LostPages;
use super::regions::Run;
use crate::faults::errno_of;

/// Where spaces go: far below what the host places by itself, and above what programs are linked to.
const FIRST_PLACE: u64 = 0x1000_0000_0000;
/// There are none from here on.
const PLACES_END: u64 = 0x2000_0000_0000;
/// From one place to the next, unless spaces are larger: few enough are tried.
const PLACE_STEP: u64 = 0x0010_0000_0000;
/// How addresses without a window are mapped.
const VACANT: Mapping = Mapping {
    protection: libc::PROT_NONE,
    flags: libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    file: -1,
    offset: 0,
};

/// Pages of zeroes in the place of others.
pub(super) const ZEROES: Mapping = Mapping {
    protection: libc::PROT_READ | libc::PROT_WRITE,
    flags: libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
    ..VACANT
};

/// What mmap(2) is told besides where.
#[derive(Clone, Copy)]
pub(super) struct Mapping {
    protection: i32,
    flags: i32,
    file: i32,
    offset: i64,
}

/// A range of the process's addresses that is nobody's.
#[derive(Debug)]
pub(super) struct WindowSpace {
    pages: PageRange,
    /// So many bytes from its start on may be accessed: all, or none once it is given up.
    reach: AtomicU64,
    lost: LostPages,
}

/// Maps `bytes` bytes; at `start` if the flags say so. Says where. For signal handlers too.
///
/// # Safety
/// What is replaced is a part of a window space, or nothing is.
pub(super) unsafe fn mmap(start: u64, bytes: u64, mapping: Mapping) -> Result<u64, Errno> {
    #[cfg(test)]
    super::injected::before(start, bytes, mapping.flags)?;
    // The kernel takes whole registers.
    let [protection, flags, file] = [mapping.protection, mapping.flags, mapping.file].map(i64::from);
    // The call itself: what takes the place of the C library's, such as a sanitizer's, has its own ideas of addresses.
    // SAFETY: the caller answers for what is replaced; the new pages are nobody's.
    let answer = unsafe { libc::syscall(libc::SYS_mmap, start, bytes, protection, flags, file, mapping.offset) };
    if answer == -1 { Err(errno_of(nix::Error::last())) } else { Ok(answer.cast_unsigned()) }
}

impl WindowSpace {
    /// Reserves `pages` pages, at least one.
    pub(super) fn new(pages: PageCount) -> Result<Self, Errno> {
        let bytes = pages.bytes();
        let fixed = Mapping { flags: VACANT.flags | libc::MAP_FIXED_NOREPLACE, ..VACANT };
        let mut place = FIRST_PLACE;
        while place.checked_add(bytes).is_some_and(|end| end <= PLACES_END) {
            // SAFETY: nothing is replaced.
            match unsafe { mmap(place, bytes, fixed) } {
                Ok(start) if start == place => return Self::at(start, pages),
                // A kernel that does not know the flag takes the address for a hint.
                Ok(start) => unmap(start, bytes),
                Err(Errno::Exist) => {}
                Err(errno) => return Err(errno),
            }
            place += bytes.max(PLACE_STEP);
        }
        // SAFETY: nothing is replaced.
        let start = unsafe { mmap(0, bytes, VACANT) }?;
        Self::at(start, pages)
    }

    fn at(start: u64, pages: PageCount) -> Result<Self, Errno> {
        let start = VirtAddr::new(start);
        let found = PageRange::from_pages(start.page_number(), pages).ok_or(Errno::NoMem)?;
        Ok(Self { pages: found, reach: AtomicU64::new(found.bytes()), lost: LostPages::new(found) })
    }

    /// All of it.
    pub(super) const fn pages(&self) -> PageRange {
        self.pages
    }

    /// How many pages were replaced under somebody's access.
    pub(super) fn lost_pages(&self) -> u64 {
        self.lost.count()
    }

    /// A pointer to the `len` bytes from `at` on, if all of them lie inside.
    #[inline]
    pub(super) fn pointer(&self, at: VirtAddr, len: usize) -> Option<*mut u8> {
        let reach = self.reach.load(Ordering::Relaxed);
        // Addresses below the space become large numbers.
        let offset = at.as_u64().wrapping_sub(self.pages.start().as_u64());
        let is_inside = offset <= reach && len as u64 <= reach - offset;
        is_inside.then(|| std::ptr::with_exposed_provenance_mut(usize::try_from(at.as_u64()).unwrap_or(0)))
    }

    /// A pointer to the word at `at`, if it lies inside and is aligned.
    #[inline]
    pub(super) fn word<W>(&self, at: VirtAddr) -> Result<*mut W, CopyFault> {
        let word = self.pointer(at, size_of::<W>()).map(<*mut u8>::cast::<W>);
        word.filter(|word| word.is_aligned()).ok_or(CopyFault { copied: 0 })
    }

    /// Shows `run`, which is as long, at `window`.
    pub(super) fn show(&self, window: PageRange, run: Run<'_>, permission: Permission) -> Result<(), Errno> {
        let protection = match permission {
            Permission::Read => libc::PROT_READ,
            Permission::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let offset = i64::try_from(run.offset).map_err(|_| Errno::Overflow)?;
        self.replace(window, Mapping { protection, flags: libc::MAP_SHARED, file: run.file.as_raw_fd(), offset })
    }

    /// Takes away whatever is at `window`.
    pub(super) fn vacate(&self, window: PageRange) -> Result<(), Errno> {
        self.replace(window, VACANT)
    }

    /// Puts a mapping in the place of what is at `window`. If that fails, what was there is there, or nothing is.
    fn replace(&self, window: PageRange, mapping: Mapping) -> Result<(), Errno> {
        if !self.pages.contains_range(window) {
            return Err(Errno::Fault);
        }
        if self.is_given_up() {
            return Err(Errno::Io);
        }
        let fixed = Mapping { flags: mapping.flags | libc::MAP_FIXED, ..mapping };
        // SAFETY: the window lies in the space, where nobody has references, and which has no hole.
        let replaced = unsafe { mmap(window.start().as_u64(), window.bytes(), fixed) };
        replaced.map(drop).inspect_err(|_| self.close_hole(window))
    }

    /// Makes `window` vacant if it is not mapped at all.
    fn close_hole(&self, window: PageRange) {
        let start = window.start().as_u64();
        let fixed = Mapping { flags: VACANT.flags | libc::MAP_FIXED_NOREPLACE, ..VACANT };
        // SAFETY: nothing is replaced.
        match unsafe { mmap(start, window.bytes(), fixed) } {
            Err(Errno::Exist) => {}
            Ok(at) if at == start => {}
            Ok(at) => unmap(at, window.bytes()),
            Err(_) => self.give_up(),
        }
    }

    fn give_up(&self) {
        self.lost.stop();
        self.reach.store(0, Ordering::Relaxed);
    }

    fn is_given_up(&self) -> bool {
        self.reach.load(Ordering::Relaxed) == 0
    }
}

/// Unmaps pages that nobody knows of: what mmap has just placed, or a space at its end.
pub(super) fn unmap(start: u64, bytes: u64) {
    // SAFETY: nobody uses these pages.
    unsafe { libc::syscall(libc::SYS_munmap, start, bytes) };
}

impl Drop for WindowSpace {
    fn drop(&mut self) {
        // Somebody else may be in the hole of one that was given up.
        if !self.is_given_up() {
            self.lost.stop();
            unmap(self.pages.start().as_u64(), self.pages.bytes());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Somebody else's memory in a hole of a space.

    use super::*;

    /// Pages of zeroes that the space does not know of.
    pub(in super::super) struct Stranger(*const u8);

    /// Puts a stranger into a hole.
    pub(in super::super) fn occupy(hole: PageRange) -> Stranger {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let mapping = Mapping { protection: libc::PROT_READ, flags, ..VACANT };
        let start = hole.start().as_u64();
        // SAFETY: nothing is replaced.
        assert_eq!(unsafe { mmap(start, hole.bytes(), mapping) }, Ok(start));
        Stranger(std::ptr::with_exposed_provenance(usize::try_from(start).unwrap()))
    }

    impl Stranger {
        /// Whether it is still there.
        pub(in super::super) fn is_untouched(&self) -> bool {
            // SAFETY: the page was mapped by `occupy`; the test dies if it is not there any more.
            unsafe { self.0.read_volatile() == 0 }
        }
    }
}
