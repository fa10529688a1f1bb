//! The arena's own piece of the process's address space, and the only door from the arena to the host.
//!
//! Owns the reservation from the first mmap to the last munmap. Every call to the host that changes memory is a
//! method here, and each checks that what it changes lies inside: an operation that does not is an error, whatever
//! the manager thought of it. Which host calls carry out an operation is decided by `provider`.
//!
//! Invariants: each page inside is mapped at all times, vacant ones without rights and without host regions of
//! their own, so that no mapping of the process falls into the arena. The one exception is a host call that fails
//! after it has unmapped its target; [`Reservation::close_hole`] mends that at once.

use pagewarden::linux::MapFlags;
use pagewarden::prot::ProtectionKey;
use pagewarden::provider::Populate;
use pagewarden::{Errno, PAGE_SIZE, PageRange, Prot, VirtAddr};

use super::ArenaError;

/// Where arenas go that say nothing: far below what the host places by itself, and above all programs.
const FIRST_PLACE: u64 = 0x2000_0000_0000;
/// From one such place to the next.
const PLACE_STEP: u64 = 0x0100_0000_0000;
/// So many places are tried.
const PLACES: u64 = 32;
/// How vacant pages are mapped.
const VACANT: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANONYMOUS).union(MapFlags::NO_RESERVE);

/// A range of the process's addresses that belongs to one arena.
#[derive(Debug)]
pub(super) struct Reservation {
    range: PageRange,
    /// Whether it goes when this goes.
    is_owned: bool,
}

/// What mmap(2) is told besides where.
#[derive(Clone, Copy)]
pub(super) struct Mapping {
    pub(super) prot: Prot,
    pub(super) flags: MapFlags,
    pub(super) fd: i32,
    pub(super) offset: u64,
}

/// Calls the kernel.
///
/// # Safety
/// What the call changes is memory that nobody has a reference to: pages of a reservation, or pages that a host
/// call of ours has just made. Pointers among `args` are good for what the call does with them.
pub(super) unsafe fn syscall(number: libc::c_long, args: [u64; 6]) -> Result<u64, Errno> {
    #[cfg(test)]
    super::injected::before(number, args)?;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller answers for what the call does.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer != -1 {
        return Ok(answer.cast_unsigned());
    }
    let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(u16::try_from(raw).map_or(Errno::Io, Errno::from_raw))
}

impl Reservation {
    /// Reserves `size` bytes, at `address` or where the host does not put things by itself.
    pub(super) fn new(size: u64, address: Option<u64>) -> Result<Self, ArenaError> {
        let start = VirtAddr::new(address.unwrap_or(FIRST_PLACE));
        let is_aligned = start.is_page_aligned();
        let wanted = PageRange::from_len(start, size).filter(|_| is_aligned).ok_or(ArenaError::Size)?;
        match address {
            Some(_) => Self::at(wanted),
            None => Self::somewhere(wanted),
        }
    }

    /// Reserves exactly `range`.
    fn at(range: PageRange) -> Result<Self, ArenaError> {
        let mut found = Self { range, is_owned: false };
        match found.close_hole(range) {
            Ok(()) => {
                found.is_owned = true;
                Ok(found)
            }
            Err(errno) => Err(ArenaError::Host(errno)),
        }
    }

    /// Reserves as many pages as `wanted` has, there or at the next free of the known places, or where the host
    /// likes.
    fn somewhere(wanted: PageRange) -> Result<Self, ArenaError> {
        for step in 0..PLACES {
            let start = VirtAddr::new(FIRST_PLACE + step * PLACE_STEP);
            let place = PageRange::from_len(start, wanted.bytes()).ok_or(ArenaError::Size)?;
            match Self::at(place) {
                Err(ArenaError::Host(Errno::Exist | Errno::NoMem | Errno::Inval)) => {}
                result => return result,
            }
        }
        // SAFETY: nothing is replaced, and nobody knows of the new pages.
        let start = unsafe { syscall(libc::SYS_mmap, [0, wanted.bytes(), 0, VACANT.bits(), u64::MAX, 0]) };
        let start = start.map_err(ArenaError::Host)?;
        let range = PageRange::from_len(VirtAddr::new(start), wanted.bytes()).ok_or(ArenaError::Size)?;
        Ok(Self { range, is_owned: true })
    }

    /// The same range for another owner; this one only knows of it still.
    pub(super) fn hand_over(&mut self) -> Self {
        Self { range: self.range, is_owned: std::mem::replace(&mut self.is_owned, false) }
    }

    /// All of it.
    pub(super) const fn range(&self) -> PageRange {
        self.range
    }

    /// Refuses what does not lie inside.
    pub(super) const fn check(&self, range: PageRange) -> Result<(), Errno> {
        if self.range.contains_range(range) { Ok(()) } else { Err(Errno::Fault) }
    }

    /// A host call about pages inside; `number` changes nothing outside of `range`.
    fn change(&self, number: libc::c_long, range: PageRange, more: [u64; 4]) -> Result<u64, Errno> {
        self.check(range)?;
        let [c, d, e, f] = more;
        // SAFETY: the range lies in the reservation, where nobody has references; its pointers, if any, are the
        // caller's, all of whom lie in this file.
        unsafe { syscall(number, [range.start().as_u64(), range.bytes(), c, d, e, f]) }
    }

    /// mprotect(2).
    pub(super) fn protect(&self, range: PageRange, prot: Prot) -> Result<(), Errno> {
        self.change(libc::SYS_mprotect, range, [prot.bits().into(), 0, 0, 0]).map(drop)
    }

    /// madvise(2).
    pub(super) fn advise(&self, range: PageRange, advice: i32) -> Result<(), Errno> {
        self.change(libc::SYS_madvise, range, [u64::from(advice.cast_unsigned()), 0, 0, 0]).map(drop)
    }

    /// mlock2(2), with `MLOCK_*` flags.
    pub(super) fn lock(&self, range: PageRange, flags: u64) -> Result<(), Errno> {
        self.change(libc::SYS_mlock2, range, [flags, 0, 0, 0]).map(drop)
    }

    /// munlock(2).
    pub(super) fn unlock(&self, range: PageRange) -> Result<(), Errno> {
        self.change(libc::SYS_munlock, range, [0; 4]).map(drop)
    }

    /// Makes pages vacant, whatever is there.
    pub(super) fn vacate(&self, range: PageRange) -> Result<(), Errno> {
        let flags = VACANT | MapFlags::FIXED;
        self.change(libc::SYS_mmap, range, [0, flags.bits(), u64::MAX, 0]).map(drop)
    }

    /// Makes pages vacant that are not mapped at all.
    ///
    /// # Errors
    /// `EEXIST` if some are mapped after all.
    pub(super) fn close_hole(&self, range: PageRange) -> Result<(), Errno> {
        let flags = VACANT | MapFlags::FIXED_NO_REPLACE;
        let at = self.change(libc::SYS_mmap, range, [0, flags.bits(), u64::MAX, 0])?;
        if at == range.start().as_u64() {
            return Ok(());
        }
        // A kernel that does not know the flag takes the address for a hint.
        // SAFETY: these pages were made by the call above, and nobody knows of them.
        let _ = unsafe { syscall(libc::SYS_munmap, [at, range.bytes(), 0, 0, 0, 0]) };
        Err(Errno::Exist)
    }

    /// Puts a mapping in the place of what is there.
    pub(super) fn map(&self, range: PageRange, mapping: Mapping) -> Result<(), Errno> {
        let Mapping { prot, flags, fd, offset } = mapping;
        let flags = (flags - MapFlags::FIXED_NO_REPLACE) | MapFlags::FIXED;
        let fd = i64::from(fd).cast_unsigned();
        self.change(libc::SYS_mmap, range, [prot.bits().into(), flags.bits(), fd, offset]).map(drop)
    }

    /// Puts segment `id` in the place of what is there. `range` is as long as the segment.
    pub(super) fn attach(&self, range: PageRange, id: i32, flags: u64) -> Result<(), Errno> {
        self.check(range)?;
        let flags = flags | u64::from(libc::SHM_REMAP.unsigned_abs());
        let args = [u64::from(id.cast_unsigned()), range.start().as_u64(), flags, 0, 0, 0];
        // SAFETY: the segment covers the range alone, whose length is its own, and the range lies in the reservation.
        unsafe { syscall(libc::SYS_shmat, args) }.map(drop)
    }

    /// Names anonymous pages, or takes their name away. `name` ends with a zero.
    pub(super) fn name(&self, range: PageRange, name: Option<&std::ffi::CStr>) -> Result<(), Errno> {
        self.check(range)?;
        let option = u64::from(libc::PR_SET_VMA.unsigned_abs());
        let name = name.map_or(0, |name| name.as_ptr().addr() as u64);
        let args = [option, 0, range.start().as_u64(), range.bytes(), name, 0];
        // SAFETY: the range lies in the reservation, and the name outlives the call.
        unsafe { syscall(libc::SYS_prctl, args) }.map(drop)
    }

    /// pkey_mprotect(2).
    pub(super) fn protect_key(&self, range: PageRange, prot: Prot, key: ProtectionKey) -> Result<(), Errno> {
        let key = u64::from(key.number());
        self.change(libc::SYS_pkey_mprotect, range, [prot.bits().into(), key, 0, 0]).map(drop)
    }

    /// msync(2).
    pub(super) fn sync(&self, range: PageRange, flags: u64) -> Result<(), Errno> {
        self.change(libc::SYS_msync, range, [flags, 0, 0, 0]).map(drop)
    }

    /// remap_file_pages(2), to the object's page `page`.
    pub(super) fn remap_pages(&self, range: PageRange, page: u64, populate: Populate) -> Result<(), Errno> {
        let flags = if populate == Populate::Now { MapFlags::empty() } else { MapFlags::NON_BLOCK };
        self.change(libc::SYS_remap_file_pages, range, [0, page, flags.bits(), 0]).map(drop)
    }

    /// mincore(2): a byte for each page of `range`, of which there are no more than bytes in `told`.
    pub(super) fn residency(&self, range: PageRange, told: &mut [u8]) -> Result<(), Errno> {
        if range.pages().get() > told.len() as u64 {
            return Err(Errno::Inval);
        }
        let vector = told.as_mut_ptr().expose_provenance() as u64;
        self.change(libc::SYS_mincore, range, [vector, 0, 0, 0]).map(drop)
    }

    /// Copies `bytes` to `addr`; they lie in `pages`, and are copied as far as those may be written.
    pub(super) fn store(&self, pages: PageRange, addr: VirtAddr, bytes: &[u8]) -> Result<(), Errno> {
        self.check(pages)?;
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let at = usize::try_from(addr.as_u64()).map_err(|_| Errno::Fault)?;
        let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(at), iov_len: bytes.len() };
        let own = std::process::id().cast_signed();
        // SAFETY: the bytes are only read; where they go lies in the reservation, and the kernel looks whether it may
        // be written.
        let copied = unsafe { libc::process_vm_writev(own, &raw const local, 1, &raw const remote, 1, 0) };
        if usize::try_from(copied) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::Fault) }
    }

    /// Moves the pages of `from`, which stay mapped and are empty then, in the place of what is at `to`.
    pub(super) fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Errno> {
        self.check(from)?;
        self.check(to)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let bytes = from.bytes();
        let args = [from.start().as_u64(), bytes, bytes, flags.unsigned_abs().into(), to.start().as_u64(), 0];
        // SAFETY: as many pages as `from` has, all in the reservation, go to `to`, which is as long or longer.
        unsafe { syscall(libc::SYS_mremap, args) }.map(drop)
    }

    /// Shows the shared pages from `from` on a second time, in the place of what is at `to`.
    pub(super) fn duplicate(&self, from: VirtAddr, to: PageRange) -> Result<(), Errno> {
        self.check(to)?;
        let page = PageRange::from_len(from, PAGE_SIZE).ok_or(Errno::Fault)?;
        self.check(page)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let args = [from.as_u64(), 0, to.bytes(), flags.unsigned_abs().into(), to.start().as_u64(), 0];
        // SAFETY: an old size of 0 changes nothing at `from`, and `to` lies in the reservation.
        unsafe { syscall(libc::SYS_mremap, args) }.map(drop)
    }
}

/// Takes a protection key of the process; says which.
pub(super) fn allocate_key(rights: u64) -> Result<u64, Errno> {
    // SAFETY: a new key guards no pages yet, and changes the rights of this thread to it alone.
    unsafe { syscall(libc::SYS_pkey_alloc, [0, rights, 0, 0, 0, 0]) }
}

/// Gives a key back that [`allocate_key`] has taken.
pub(super) fn free_key(key: u64) -> Result<(), Errno> {
    // SAFETY: pages keep their key, and nobody's rights change.
    unsafe { syscall(libc::SYS_pkey_free, [key, 0, 0, 0, 0, 0]) }.map(drop)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_owned {
            let _ = self.change(libc::SYS_munmap, self.range, [0; 4]);
        }
    }
}
