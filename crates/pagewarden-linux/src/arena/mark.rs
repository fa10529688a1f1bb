//! A mark that only the process that made it sees.
//!
//! A child with memory of its own must not use what works on its parent's. To ask the host for the number of the
//! process costs a call each time; a page that the host empties in children (`MADV_WIPEONFORK`, madvise(2)) costs a
//! load. A child that shares the memory (vfork(2)) sees the mark: there, what works on that memory is right.

use pagewarden::PAGE_SIZE;

use super::reservation::syscall;

/// One page, which holds a byte that is not 0.
#[derive(Debug)]
pub(super) struct ProcessMark {
    addr: usize,
}

impl ProcessMark {
    /// A mark of this process; `None` if the host has no page, or does not empty it in children.
    pub(super) fn new() -> Option<Self> {
        let rights = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs().into();
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs().into();
        // SAFETY: the host chooses a place where nothing is.
        let addr = unsafe { syscall(libc::SYS_mmap, [0, PAGE_SIZE, rights, flags, u64::MAX, 0]) }.ok()?;
        let mark = Self { addr: usize::try_from(addr).ok()? };
        let advice = libc::MADV_WIPEONFORK.unsigned_abs().into();
        // SAFETY: the page is ours, and has nothing in it yet.
        unsafe { syscall(libc::SYS_madvise, [addr, PAGE_SIZE, advice, 0, 0, 0]) }.ok()?;
        // SAFETY: the page is ours and may be written; nobody has a reference to it.
        unsafe { mark.byte().write_volatile(1) };
        Some(mark)
    }

    /// Whether this is the process that made the mark, or one that shares its memory.
    pub(super) fn is_ours(&self) -> bool {
        // SAFETY: the page is mapped for as long as the mark lives, and nobody writes to it any more.
        let byte = unsafe { self.byte().read_volatile() };
        byte != 0
    }

    fn byte(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addr)
    }
}

impl Drop for ProcessMark {
    fn drop(&mut self) {
        // SAFETY: the page is ours, in a child its copy, and nobody uses the mark any more.
        let _ = unsafe { syscall(libc::SYS_munmap, [self.addr as u64, PAGE_SIZE, 0, 0, 0, 0]) };
    }
}
