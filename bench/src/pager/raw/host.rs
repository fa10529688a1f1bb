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

    /// Maps all of it, shared, for loads and stores, anywhere.
    ///
    /// # Errors
    /// Those of mmap(2).
    #[inline]
    pub fn map(&self) -> Result<HostMapping<'_>> {
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses a place where nothing is, so no memory that anybody knows of changes.
        let start = unsafe { mmap(None, self.bytes, rights, MapFlags::MAP_SHARED, &self.file, 0) }?;
        Ok(HostMapping { start, bytes: self.bytes.get(), object: PhantomData })
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
        assert!(HostObject::new(PAGE + 1).is_err() && HostObject::new(0).is_err());
    }
}
