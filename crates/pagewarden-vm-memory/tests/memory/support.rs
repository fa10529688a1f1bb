//! A guest whose memory is a memfd, and every access that `Bytes` has.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use pagewarden::PageCount;
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{Permission, VmapManager};
use pagewarden_linux::foreign::{ForeignMemory, ForeignOptions, ForeignRegion, FutexEvents};
use pagewarden_vm_memory::{WindowManager, WindowMemory, map_regions};
use vm_memory::{AtomicAccess, Bytes, GuestAddress, GuestMemoryError};

pub(crate) const PAGE: usize = 4096;
/// The first frame of a guest.
pub(crate) const FIRST: u64 = 0x100;

/// A memfd of `pages` pages, each byte of which tells where it is.
pub(crate) fn file(pages: usize) -> File {
    let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all_at(&pattern(pages * PAGE), 0).unwrap();
    file
}

/// Bytes that differ from their neighbours, and those of one page from the next's.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at + at / PAGE * 13) % 251).unwrap()).collect()
}

/// Windows on the first `pages` pages of a file, which are the frames from [`FIRST`] on.
pub(crate) fn manager(file: &File, pages: usize) -> Arc<WindowManager> {
    let frames = FrameRange::new(frame(0), PageCount::new(pages as u64)).unwrap();
    let file = file.as_fd().try_clone_to_owned().unwrap();
    let region = ForeignRegion { frames, file, offset: 0, permission: Permission::ReadWrite };
    let options = ForeignOptions { regions: vec![region], owned: Vec::new(), window_bytes: 1 << 24 };
    Arc::new(VmapManager::new(ForeignMemory::new(options).unwrap(), FutexEvents::new()))
}

/// Frame number `index` of the guest.
pub(crate) fn frame(index: u64) -> FrameNumber {
    FrameNumber::new(FIRST + index).unwrap()
}

/// So many frames from number `first` on.
pub(crate) fn frames(first: u64, pages: u64) -> Vec<FrameNumber> {
    (first..first + pages).map(frame).collect()
}

/// A guest with one region at each address, of so many pages, which lie in the file one after the other.
pub(crate) struct Guest {
    pub(crate) file: File,
    pub(crate) manager: Arc<WindowManager>,
    pub(crate) memory: WindowMemory,
}

impl Guest {
    pub(crate) fn new(regions: &[(u64, usize)]) -> Self {
        let pages = regions.iter().map(|(_, pages)| pages).sum();
        let file = file(pages);
        let manager = manager(&file, pages);
        let mut first = 0;
        let mut all = Vec::new();
        for (start, pages) in regions {
            all.push((GuestAddress(*start), frames(first, *pages as u64)));
            first += *pages as u64;
        }
        let all: Vec<_> = all.iter().map(|(start, frames)| (*start, frames.as_slice())).collect();
        let memory = map_regions(&manager, &all).unwrap();
        Self { file, manager, memory }
    }

    /// What is in the file.
    pub(crate) fn contents(&self) -> Vec<u8> {
        let len = usize::try_from(self.file.metadata().unwrap().len()).unwrap();
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

/// An access, of as many bytes as it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadSlice,
    ReadObject,
    WriteTo,
    WriteAllTo,
    Load,
    Write,
    WriteSlice,
    WriteObject,
    ReadFrom,
    ReadExactFrom,
    Store,
}

impl Access {
    pub(crate) const ALL: [Self; 12] = [
        Self::Read,
        Self::ReadSlice,
        Self::ReadObject,
        Self::WriteTo,
        Self::WriteAllTo,
        Self::Load,
        Self::Write,
        Self::WriteSlice,
        Self::WriteObject,
        Self::ReadFrom,
        Self::ReadExactFrom,
        Self::Store,
    ];

    /// Does it, and tells what came of it.
    pub(crate) fn perform<A, B: Bytes<A, E = GuestMemoryError>>(self, memory: &B, at: A, count: usize) -> String {
        let mut bytes = vec![0; count];
        let fresh = vec![0xee; count];
        let done = match self {
            Self::Read => memory.read(&mut bytes, at).map(|count| format!("{count}")),
            Self::ReadSlice => memory.read_slice(&mut bytes, at).map(|()| String::new()),
            Self::ReadObject => memory.read_obj::<[u16; 5]>(at).map(|object| format!("{object:?}")),
            Self::WriteTo => {
                memory.write_volatile_to(at, &mut bytes.as_mut_slice(), count).map(|count| count.to_string())
            }
            Self::WriteAllTo => {
                memory.write_all_volatile_to(at, &mut bytes.as_mut_slice(), count).map(|()| String::new())
            }
            Self::Load => load(memory, at, count),
            Self::Write => memory.write(&fresh, at).map(|count| format!("{count}")),
            Self::WriteSlice => memory.write_slice(&fresh, at).map(|()| String::new()),
            Self::WriteObject => memory.write_obj([0xdddd_u16; 5], at).map(|()| String::new()),
            Self::ReadFrom => {
                memory.read_volatile_from(at, &mut fresh.as_slice(), count).map(|count| count.to_string())
            }
            Self::ReadExactFrom => {
                memory.read_exact_volatile_from(at, &mut fresh.as_slice(), count).map(|()| String::new())
            }
            Self::Store => store(memory, at, count),
        };
        format!("{self:?} of {count}: {done:?} {bytes:?}")
    }
}

/// Loads a word of `count` bytes, or of one if there is no such word.
fn load<A, B: Bytes<A, E = GuestMemoryError>>(memory: &B, at: A, count: usize) -> Result<String, GuestMemoryError> {
    fn one<T: AtomicAccess + ToString, A, B: Bytes<A, E = GuestMemoryError>>(
        memory: &B,
        at: A,
    ) -> Result<String, GuestMemoryError> {
        memory.load::<T>(at, Ordering::Acquire).map(|word| word.to_string())
    }
    match count {
        2 => one::<u16, A, B>(memory, at),
        4 => one::<i32, A, B>(memory, at),
        8 => one::<u64, A, B>(memory, at),
        _ => one::<i8, A, B>(memory, at),
    }
}

/// Stores such a word.
fn store<A, B: Bytes<A, E = GuestMemoryError>>(memory: &B, at: A, count: usize) -> Result<String, GuestMemoryError> {
    let stored = match count {
        2 => memory.store(0x1234_u16, at, Ordering::Release),
        4 => memory.store(-0x1234_5678, at, Ordering::Relaxed),
        8 => memory.store(0x1234_5678_9abc_def0_u64, at, Ordering::SeqCst),
        _ => memory.store(-0x12_i8, at, Ordering::SeqCst),
    };
    stored.map(|()| String::new())
}

/// Whether this is the error of an access to memory that is gone.
pub(crate) fn is_fault(error: &GuestMemoryError) -> bool {
    matches!(error, GuestMemoryError::IOError(error) if error.raw_os_error() == Some(14))
}
