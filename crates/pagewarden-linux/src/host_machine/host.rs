//! The host calls that change mappings.

use std::os::fd::{AsRawFd, BorrowedFd};

use pagewarden::Errno;

use crate::faults::errno_of;

/// How pages are mapped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'a> {
    /// Not at all: no access goes through, and the host puts nothing there.
    Nothing,
    /// Pages of zeros, to be read.
    Zeros,
    /// Bytes of a file from `offset` on.
    File { file: BorrowedFd<'a>, offset: u64, is_writable: bool },
}

/// Memory that nothing is charged for before it is touched.
const SPARSE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Calls mmap(2).
///
/// # Safety
/// If the flags have the new mapping replace what is there, nobody has a reference to that.
unsafe fn mmap(start: usize, bytes: usize, protection: i32, flags: i32, file: (i32, i64)) -> Result<usize, Errno> {
    let [protection, flags] = [protection, flags].map(i64::from);
    // The call itself: what takes the place of the C library's, such as a sanitizer's, has its own ideas of addresses.
    // SAFETY: the caller answers for what is replaced.
    let answer = unsafe { libc::syscall(libc::SYS_mmap, start, bytes, protection, flags, i64::from(file.0), file.1) };
    if answer == -1 { Err(errno_of(nix::Error::last())) } else { usize::try_from(answer).map_err(|_| Errno::NoMem) }
}

/// Maps a file to be read and written, wherever the host likes.
pub(super) fn map_file(bytes: usize, file: BorrowedFd<'_>) -> Result<usize, Errno> {
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    // SAFETY: nothing is replaced.
    unsafe { mmap(0, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, (file.as_raw_fd(), 0)) }
}

/// Maps addresses without any rights: at `start` if nothing is there, or wherever the host likes if it is 0.
pub(super) fn reserve(start: usize, bytes: usize) -> Result<usize, Errno> {
    let flags = if start == 0 { SPARSE } else { SPARSE | libc::MAP_FIXED_NOREPLACE };
    // SAFETY: nothing is replaced.
    unsafe { mmap(start, bytes, libc::PROT_NONE, flags, (-1, 0)) }
}

/// Maps `bytes` bytes to be read and written, and `guard` bytes without rights below them. Where the guard begins.
pub(super) fn map_stack(guard: usize, bytes: usize) -> Result<usize, Errno> {
    let start = reserve(0, guard + bytes)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the pages were mapped just now, and nobody knows of them.
    let mapped = unsafe { mmap(start + guard, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, (-1, 0)) };
    // SAFETY: as above.
    mapped.map(|_| start).inspect_err(|_| unsafe { unmap(start, guard + bytes) })
}

/// Replaces what is mapped at `bytes` bytes from `start` on.
///
/// # Safety
/// They lie in a reservation, and nobody has a reference into it.
pub(super) unsafe fn show(start: usize, bytes: usize, shown: Shown<'_>) -> Result<(), Errno> {
    let (protection, flags, file) = match shown {
        Shown::Nothing => (libc::PROT_NONE, SPARSE, (-1, 0)),
        Shown::Zeros => (libc::PROT_READ, SPARSE, (-1, 0)),
        Shown::File { file, offset, is_writable } => {
            // Each first store to a page would be a fault of its own, which loads are not: there the host looks around.
            let rights = if is_writable {
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_POPULATE)
            } else {
                (libc::PROT_READ, 0)
            };
            let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | rights.1;
            (rights.0, flags, (file.as_raw_fd(), i64::try_from(offset).map_err(|_| Errno::Overflow)?))
        }
    };
    // SAFETY: the caller answers for the range.
    unsafe { mmap(start, bytes, protection, flags | libc::MAP_FIXED, file) }.map(drop)
}

/// Takes the right to store away from mapped pages.
///
/// # Safety
/// As [`show`].
pub(super) unsafe fn make_read_only(start: usize, bytes: usize) -> Result<(), Errno> {
    // SAFETY: the caller answers for the range.
    let answer = unsafe { libc::syscall(libc::SYS_mprotect, start, bytes, i64::from(libc::PROT_READ)) };
    if answer == -1 { Err(errno_of(nix::Error::last())) } else { Ok(()) }
}

/// Unmaps pages.
///
/// # Safety
/// The caller has mapped them, and nobody has a reference to them.
pub(super) unsafe fn unmap(start: usize, bytes: usize) {
    // SAFETY: the caller answers for the range.
    unsafe { libc::syscall(libc::SYS_munmap, start, bytes) };
}
