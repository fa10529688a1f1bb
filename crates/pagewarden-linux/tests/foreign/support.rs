//! Another world in a file, and windows on it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{Permission, VmapProvider};
use pagewarden::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use pagewarden_linux::foreign::{ForeignMemory, ForeignOptions, ForeignRegion};

pub(crate) const PAGE: usize = 4096;
/// The first frame of the first region.
pub(crate) const FIRST: u64 = 0x100;

/// A file without a name.
pub(crate) fn file(pages: u64) -> File {
    let file = File::from(memfd_create(c"foreign", MFdFlags::empty()).unwrap());
    file.set_len(pages * PAGE_SIZE).unwrap();
    file
}

/// A file whose bytes say where they are.
pub(crate) fn patterned(pages: u64) -> File {
    let file = file(pages);
    let bytes: Vec<u8> = (0..usize::try_from(pages).unwrap() * PAGE).map(byte_at).collect();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file
}

pub(crate) fn byte_at(index: usize) -> u8 {
    u8::try_from((index * 31 + index / PAGE) % 251).unwrap()
}

pub(crate) fn frame(number: u64) -> FrameNumber {
    FrameNumber::new(number).unwrap()
}

pub(crate) fn frames(first: u64, count: u64) -> FrameRange {
    FrameRange::new(frame(first), PageCount::new(count)).unwrap()
}

/// A region from the start of a file on.
pub(crate) fn region(first: u64, pages: u64, file: &File) -> ForeignRegion {
    let file = OwnedFd::from(file.try_clone().unwrap());
    ForeignRegion { frames: frames(first, pages), file, offset: 0, permission: Permission::ReadWrite }
}

pub(crate) fn options(regions: Vec<ForeignRegion>) -> ForeignOptions {
    ForeignOptions { regions, window_bytes: 1 << 30, ..ForeignOptions::default() }
}

/// A file of a pattern as the frames from [`FIRST`] on.
pub(crate) fn world(pages: u64) -> (File, ForeignMemory) {
    let file = patterned(pages);
    let memory = ForeignMemory::new(options(vec![region(FIRST, pages, &file)])).unwrap();
    (file, memory)
}

/// `pages` pages of the window space, `skipped` pages behind its start.
pub(crate) fn window(memory: &ForeignMemory, skipped: u64, pages: u64) -> PageRange {
    PageRange::from_pages(memory.window_space().first_page() + skipped, PageCount::new(pages)).unwrap()
}

/// A window on the frames from `first` on.
pub(crate) fn shown(memory: &ForeignMemory, first: u64, pages: u64) -> PageRange {
    let window = window(memory, 3, pages);
    memory.map(window, frames(first, pages), Permission::ReadWrite).unwrap();
    window
}

/// An address in a window.
pub(crate) fn at(window: PageRange, offset: usize) -> VirtAddr {
    window.start().checked_add(offset as u64).unwrap()
}

/// Tells the threads of a test that it is over, also when it fails.
#[derive(Default)]
pub(crate) struct Over(AtomicBool);

/// Whoever has this ends the test by dropping it.
pub(crate) struct Ends<'o>(&'o Over);

impl Over {
    pub(crate) fn is_it(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn ends_here(&self) -> Ends<'_> {
        Ends(self)
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
