//! What descriptors, segments and strings are, as the decoder asks: those of this process.

use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use nix::sys::statfs::fstatfs;
use pagewarden::linux::{FileTraits, Files, OpenFile, Segment};
use pagewarden::{Errno, MemoryObject, ObjectKind, PageCount};

use crate::traced::files::{self, FileTable};
use crate::traced::segments;

/// The files and segments that regions of one arena map.
#[derive(Debug)]
pub(super) struct OwnFiles {
    table: FileTable,
    /// The file system inside the host that memfds live on; `None` if it could not be found out.
    memory_device: Option<u64>,
    /// Whether the file that was asked for last is `/dev/zero`.
    pub(super) is_zero_device: bool,
}

impl OwnFiles {
    pub(super) fn new() -> Self {
        Self { table: FileTable::default(), memory_device: segments::memory_device(), is_zero_device: false }
    }
}

impl Files for OwnFiles {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        if fd < 0 {
            return Err(Errno::BadF);
        }
        // SAFETY: asks for the flags of a descriptor and changes nothing.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags < 0 || flags & libc::O_PATH != 0 {
            return Err(Errno::BadF);
        }
        let status = files::status_of(fd).map_err(|_| Errno::BadF)?;
        self.is_zero_device = status.is_zero_device();
        let path = format!("/proc/self/fd/{fd}");
        let name = fs::read_link(&path).map_err(|_| Errno::BadF)?;
        let name = String::from_utf8_lossy(name.as_os_str().as_bytes()).replace('\n', "\\012");
        let object = self.table.intern(status.kind(self.memory_device), &name, &path);
        // SAFETY: the descriptor was open a moment ago, and is only asked about.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let mut traits = files::traits(fstatfs(fd).ok(), &status, flags);
        let is_memfd = matches!(object.kind(), ObjectKind::Memfd(_));
        traits.set(FileTraits::WRITE_SEALED, is_memfd && files::is_write_sealed(fd));
        Ok(OpenFile { object, traits })
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        let status = segments::segment_status(id).ok_or(Errno::Inval)?;
        let pages = PageCount::from_bytes_up(status.bytes);
        let name = format!("/SYSV{:08x} (deleted)", status.key);
        // Each attachment is an open file of its own (`ipc/shm.c:do_shmat`): regions of two never become one.
        let object = MemoryObject::new(ObjectKind::SysV { id, pages }, name);
        let rights = segments::rights(std::process::id().cast_signed(), &status);
        Ok(Segment { object, pages, rights })
    }

    fn string(&mut self, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0_u8; len_max + 1];
        let copied = copy_in(addr, &mut bytes);
        bytes.truncate(copied);
        match CStr::from_bytes_until_nul(&bytes) {
            Ok(string) => Ok(string.to_bytes().to_vec()),
            Err(_) if copied > len_max => Err(Errno::Inval),
            Err(_) => Err(Errno::Fault),
        }
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let copied = copy_in(addr, &mut bytes);
        bytes.truncate(copied);
        bytes
    }
}

/// Copies bytes of this process from `addr` on, as far as they can be read; says how many.
pub(crate) fn copy_in(addr: u64, bytes: &mut [u8]) -> usize {
    let Ok(addr) = usize::try_from(addr) else { return 0 };
    // SAFETY: this cannot fail, and changes nothing.
    let own = unsafe { libc::getpid() };
    let mut done = 0;
    // By pages, so that a hole after the string does not matter.
    while done < bytes.len() {
        let Some(at) = addr.checked_add(done) else { break };
        let step = (4096 - at % 4096).min(bytes.len() - done);
        let local = libc::iovec { iov_base: bytes[done..].as_mut_ptr().cast(), iov_len: step };
        let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(at), iov_len: step };
        // SAFETY: the kernel writes at most `step` bytes into `bytes`, and checks the other side itself.
        let copied = unsafe { libc::process_vm_readv(own, &raw const local, 1, &raw const remote, 1, 0) };
        if usize::try_from(copied) != Ok(step) {
            break;
        }
        done += step;
    }
    done
}
