//! The host kernel's own mappings of a file in memory.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

const PAGE: usize = 4096;

/// A memfd of whole pages.
pub struct HostObject {
    file: OwnedFd,
    bytes: NonZeroUsize,
}

impl HostObject {
    /// One of `bytes` zeros.
    ///
    /// # Errors
    /// Those of the host; no or broken pages.
    pub fn new(bytes: usize) -> Result<Self> {
        let size = NonZeroUsize::new(bytes).filter(|bytes| bytes.get() % PAGE == 0).context("some pages")?;
        let file = memfd_create("pagewarden-bench", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, bytes.try_into()?)?;
        Ok(Self { file, bytes: size })
    }

    /// The file.
    pub const fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Maps all of it, shared, for loads and stores, anywhere.
    ///
    /// # Errors
    /// Those of mmap(2).
    #[inline]
    pub fn map(&self) -> Result<HostMapping<'_>> {
        self.map_part(0, self.bytes)
    }

    /// Maps page number `page` in the same way.
    ///
    /// # Errors
    /// Those of mmap(2); there is no such page.
    #[inline]
    pub fn map_page(&self, page: usize) -> Result<HostMapping<'_>> {
        let offset = page.checked_mul(PAGE).filter(|offset| *offset < self.bytes.get()).context("a page")?;
        self.map_part(offset, const { NonZeroUsize::new(PAGE).expect("pages have bytes") })
    }

    /// Maps bytes that the file has.
    #[inline]
    fn map_part(&self, offset: usize, bytes: NonZeroUsize) -> Result<HostMapping<'_>> {
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses a place where nothing is, so no memory that anybody knows of changes.
        let start = unsafe { mmap(None, bytes, rights, MapFlags::MAP_SHARED, &self.file, offset.try_into()?) }?;
        Ok(HostMapping { start, bytes: bytes.get(), object: PhantomData })
    }
}

/// A mapping of a [`HostObject`], which the file outlives.
#[must_use = "a mapping that is dropped stays for ever"]
pub struct HostMapping<'a> {
    start: NonNull<c_void>,
    bytes: usize,
    object: PhantomData<&'a HostObject>,
}

impl HostMapping<'_> {
    /// Stores to every page.
    #[inline]
    pub fn touch(&self) {
        for offset in (0..self.bytes).step_by(PAGE) {
            // SAFETY: the offset is below the length of the mapping, which is there until `unmap` takes it.
            let byte = unsafe { self.start.cast::<u8>().add(offset) };
            // SAFETY: as above; the file is that long, may be stored to, and no reference leads to its memory.
            unsafe { byte.write_volatile(1) }
        }
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    /// If there are not as many.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len());
        // SAFETY: so many bytes are there from `from` on, and nobody else stores to them; `to` is not among them.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    /// If there are not as many.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }

    /// Copies `len` bytes from `from` on to where `to` is.
    ///
    /// # Panics
    /// If there are not as many at both.
    #[inline]
    pub fn copy(&self, from: usize, to: usize, len: usize) {
        let (from, to) = (self.at(from, len), self.at(to, len));
        // SAFETY: both are inside of the mapping, and may overlap.
        unsafe { from.copy_to(to, len) }
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.bytes && len <= self.bytes - offset, "outside of the mapping");
        // SAFETY: the offset is not beyond the end of the mapping, which is there until `unmap` takes it.
        unsafe { self.start.cast::<u8>().as_ptr().add(offset) }
    }

    /// Unmaps it.
    ///
    /// # Errors
    /// Those of munmap(2).
    #[inline]
    pub fn unmap(self) -> Result<()> {
        // SAFETY: `map` made it, and nobody has a pointer into it.
        Ok(unsafe { munmap(self.start, self.bytes) }?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use nix::sys::uio::pread;

    #[test]
    fn a_touch_reaches_every_page_of_the_file() {
        let object = HostObject::new(3 * PAGE).unwrap();
        let mapping = object.map().unwrap();
        mapping.touch();
        mapping.unmap().unwrap();
        let mut bytes = vec![9; 3 * PAGE];
        assert_eq!(pread(object.file.as_fd(), &mut bytes, 0).unwrap(), bytes.len());
        assert_eq!(bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 3);
        let page = object.map_page(2).unwrap();
        page.write(4090, &[1, 2, 3, 4]);
        page.copy(4090, 8, 4);
        page.read(6, &mut bytes[..8]);
        assert_eq!(bytes[..8], [0, 0, 1, 2, 3, 4, 0, 0]);
        page.unmap().unwrap();
        assert_eq!(pread(object.file(), &mut bytes[..4], (3 * PAGE - 4).try_into().unwrap()).unwrap(), 4);
        assert_eq!(bytes[..4], [3, 4, 0, 0]);
        assert!(object.map_page(3).is_err());
        assert!(HostObject::new(PAGE + 1).is_err() && HostObject::new(0).is_err());
    }
}
