//! The Linux ABI: system-call numbers and flag words in, [`Request`]s out.
//!
//! Owns the meaning of flag bits. What a request does to an address space is the
//! [`manager`](crate::manager)'s; what a descriptor is, is the platform's, asked through [`Files`].

mod flags;
mod iovec;
pub mod proc_text;
mod syscall;

#[cfg(test)]
mod tests;

pub use flags::{Advice, LockAllFlags, MapFlags, MdweFlags, RemapFlags, SyncFlags};
pub(crate) use iovec::is_inside;
pub use syscall::{Files, PIDFD_SELF_THREAD, PIDFD_SELF_THREAD_GROUP, TargetProcess, decode};

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::addr::{PageCount, VirtAddr};
use crate::error::Errno;
use crate::object::MemoryObject;
use crate::prot::Prot;

bitflags::bitflags! {
    /// What mmap(2) must know of an open file besides its object.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct FileTraits: u16 {
        /// Opened for reading (`FMODE_READ`).
        const READABLE = 1 << 0;
        /// Opened for writing (`FMODE_WRITE`).
        const WRITABLE = 1 << 1;
        /// On a file system mounted `noexec`.
        const NO_EXEC = 1 << 2;
        /// The inode is append-only (`chattr +a`).
        const APPEND_ONLY = 1 << 3;
        /// Cannot be mapped: a directory, a pipe, a socket.
        const NOT_MAPPABLE = 1 << 4;
        /// Lies on a file system of huge pages.
        const HUGE_PAGES = 1 << 5;
        /// A regular file, whose offsets are signed.
        const REGULAR = 1 << 6;
        /// The file system knows `MAP_SYNC` (ext4, xfs), whether or not this file can do it.
        const SYNC = 1 << 7;
        /// A memfd that is sealed against writing (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`).
        const WRITE_SEALED = 1 << 8;
    }
}

/// An open file as mmap(2) sees it.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// What it maps.
    pub object: Arc<MemoryObject>,
    /// How it was opened and where it lies.
    pub traits: FileTraits,
}

/// A System V segment as shmat(2) sees it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What it maps.
    pub object: Arc<MemoryObject>,
    /// Its size.
    pub pages: PageCount,
    /// What the caller may do with it.
    pub rights: Prot,
}

/// What mmap(2) maps.
#[derive(Clone, Debug)]
pub enum MapSource {
    /// Zero pages (`MAP_ANONYMOUS`).
    Anonymous,
    /// A file.
    File(OpenFile),
}

/// The arguments of mmap(2).
#[derive(Clone, Debug)]
pub struct MmapRequest {
    /// Hint, or the place with `MAP_FIXED`.
    pub addr: u64,
    /// Length.
    pub len: u64,
    /// `PROT_*` word.
    pub prot: u64,
    /// `MAP_*` word.
    pub flags: MapFlags,
    /// What is mapped.
    pub source: MapSource,
    /// Offset into the file; page aligned (the decoder refuses others).
    pub offset: u64,
}

/// The arguments of mremap(2).
#[derive(Clone, Copy, Debug)]
pub struct MremapRequest {
    /// Old address.
    pub addr: u64,
    /// Old size.
    pub old_len: u64,
    /// New size.
    pub new_len: u64,
    /// `MREMAP_*` word.
    pub flags: RemapFlags,
    /// New address, with `MREMAP_FIXED` or `MREMAP_DONTUNMAP`.
    pub new_addr: u64,
}

/// The arguments of remap_file_pages(2).
#[derive(Clone, Copy, Debug)]
pub struct RemapPagesRequest {
    /// Start.
    pub addr: u64,
    /// Length.
    pub len: u64,
    /// `PROT_*` word; only 0 is accepted.
    pub prot: u64,
    /// The page of the file to show.
    pub page_offset: u64,
    /// `MAP_*` word.
    pub flags: MapFlags,
}

/// A memory call with its arguments as the guest gave them. Sizes and addresses are in bytes and not yet
/// checked.
#[derive(Clone, Debug)]
pub enum Request {
    /// mmap(2).
    Mmap(MmapRequest),
    /// munmap(2).
    Munmap {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
    },
    /// mprotect(2).
    Mprotect {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// `PROT_*` word.
        prot: u64,
    },
    /// pkey_mprotect(2).
    PkeyMprotect {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// `PROT_*` word.
        prot: u64,
        /// The protection key; -1 makes it mprotect(2).
        key: i32,
    },
    /// pkey_alloc(2).
    PkeyAlloc {
        /// Flags: none are known.
        flags: u64,
        /// `PKEY_DISABLE_*` word.
        rights: u64,
    },
    /// pkey_free(2).
    PkeyFree {
        /// The protection key.
        key: i32,
    },
    /// mseal(2).
    Mseal {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// Flags: none are known.
        flags: u64,
    },
    /// prctl(2) with `PR_SET_MDWE`.
    SetMdwe {
        /// `PR_MDWE_*` word.
        flags: MdweFlags,
    },
    /// prctl(2) with `PR_GET_MDWE`.
    Mdwe,
    /// mremap(2).
    Mremap(MremapRequest),
    /// brk(2).
    Brk {
        /// The break wanted; anything impossible asks for the present one.
        addr: u64,
    },
    /// madvise(2).
    Madvise {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// `MADV_*` value.
        advice: i32,
    },
    /// process_madvise(2) on the caller's own memory.
    ProcessMadvise {
        /// Starts and lengths, in the order in which they are advised.
        ranges: Vec<(u64, u64)>,
        /// `MADV_*` value.
        advice: i32,
    },
    /// remap_file_pages(2).
    RemapPages(RemapPagesRequest),
    /// msync(2).
    Msync {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// `MS_*` word.
        flags: u64,
    },
    /// mincore(2).
    Mincore {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// Where a byte a page is written.
        vector: u64,
    },
    /// mlock(2), mlock2(2).
    Mlock {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// `MLOCK_*` word.
        flags: u64,
    },
    /// munlock(2).
    Munlock {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
    },
    /// mlockall(2).
    Mlockall {
        /// `MCL_*` word.
        flags: u64,
    },
    /// munlockall(2).
    Munlockall,
    /// shmat(2).
    Shmat {
        /// What is attached.
        segment: Segment,
        /// Where, or 0.
        addr: u64,
        /// `SHM_*` word.
        flags: u64,
    },
    /// shmdt(2).
    Shmdt {
        /// Where the segment was attached.
        addr: u64,
    },
    /// prctl(2) with `PR_SET_VMA` and `PR_SET_VMA_ANON_NAME`.
    NameAnonymous {
        /// Start.
        addr: u64,
        /// Length.
        len: u64,
        /// An object of kind [`ObjectKind::NamedAnonymous`](crate::ObjectKind), or none to take the name away.
        name: Option<Arc<MemoryObject>>,
    },
}

/// What the guest is told of the manager's `result`. brk(2) has no error; it answers with `program_break`, the
/// break as it is now.
///
/// # Errors
/// That of `result`, for all other calls.
pub fn answer(request: &Request, result: Result<u64, Errno>, program_break: VirtAddr) -> Result<u64, Errno> {
    match (request, result) {
        (Request::Brk { .. }, Err(_)) => Ok(program_break.as_u64()),
        (_, result) => result,
    }
}

/// Longer than any address space.
const EVERYWHERE: u64 = 1 << 62;

impl Request {
    /// The address and length that the request names, if it names a place; of a move, the target.
    pub fn named_range(&self) -> Option<(u64, u64)> {
        let (addr, len) = match self {
            Self::Mmap(call) => (call.addr, call.len),
            Self::Mremap(call) if call.new_addr != 0 => (call.new_addr, call.new_len),
            Self::Mremap(call) => (call.addr, call.old_len.max(call.new_len)),
            Self::Brk { addr } => (*addr, 0),
            Self::Shmat { segment, addr, .. } => (*addr, segment.pages.bytes()),
            Self::Shmdt { addr } => (*addr, 0),
            Self::RemapPages(call) => (call.addr, call.len),
            Self::ProcessMadvise { ranges, .. } => {
                let start = ranges.iter().map(|range| range.0).min()?;
                let end = ranges.iter().map(|(addr, len)| addr.saturating_add(*len)).max()?;
                (start, end - start)
            }
            Self::Munmap { addr, len }
            | Self::Mprotect { addr, len, .. }
            | Self::PkeyMprotect { addr, len, .. }
            | Self::Mseal { addr, len, .. }
            | Self::Madvise { addr, len, .. }
            | Self::Msync { addr, len, .. }
            | Self::Mincore { addr, len, .. }
            | Self::Mlock { addr, len, .. }
            | Self::Munlock { addr, len }
            | Self::NameAnonymous { addr, len, .. } => (*addr, *len),
            Self::Mlockall { .. } | Self::Munlockall => return Some((0, EVERYWHERE)),
            Self::PkeyAlloc { .. } | Self::PkeyFree { .. } | Self::SetMdwe { .. } | Self::Mdwe => return None,
        };
        (addr != 0).then_some((addr, len))
    }
}

/// `PROT_*` bits that are rights.
pub(crate) const fn prot_from_word(word: u64) -> Prot {
    #[expect(clippy::cast_possible_truncation, reason = "the three bits that are kept lie in the lowest byte")]
    Prot::from_bits_truncate(word as u8)
}
