//! What the guest's descriptors and segments are, as the decoder asks.
//!
//! A descriptor is looked up in the table of the very thread that calls. Another thread may put another
//! file in its place before the host call runs; then the map names the wrong file. No charge depends on
//! which file it is, and rights are checked by the host again.
//!
//! Objects are kept by device, inode and name for as long as a region holds them, so that two maps of one
//! file are the same object.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, HUGETLBFS_MAGIC, Statfs, XFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::FsFlags;
use pagewarden::linux::{
    FileTraits, Files, OpenFile, PIDFD_SELF_THREAD, PIDFD_SELF_THREAD_GROUP, Segment, TargetProcess,
};
use pagewarden::object::FileId;
use pagewarden::{Errno, MemoryObject, ObjectKind, PAGE_SIZE, PageCount};

use super::fork::{KCMP_VM, thread_group};
use super::ptrace::{self, Tid};
use super::segments::Segments;

/// File systems of which nothing may be executed however they are mounted (`SB_I_NOEXEC`): of pipes, sockets and
/// other descriptors without a file, of processes, of the system.
const NO_EXEC_KINDS: [i64; 5] = [0x5049_5045, 0x534f_434b, 0x0904_1934, 0x9fa0, 0x6265_6572];
/// What the host calls pidfds.
const PIDFD_NAMES: [&[u8]; 2] = [b"anon_inode:[pidfd]", b"pidfd:["];
/// Objects are looked through for dead ones when there are this many, and then at each doubling.
const SWEEP_MIN: usize = 256;

/// The objects that regions map.
#[derive(Debug, Default)]
pub(crate) struct FileTable {
    objects: HashMap<(u64, u64), Vec<Weak<MemoryObject>>>,
    sweep_at: usize,
    /// By device: whether large maps of its files are placed on huge-page boundaries.
    huge_aligned: HashMap<u64, bool>,
}

impl FileTable {
    /// The object of this kind and name, made if there is none alive. Only files and memfds have
    /// an identity to be found by. A file can be looked at by `path`.
    pub(crate) fn intern(&mut self, kind: ObjectKind, name: &str, path: &str) -> Arc<MemoryObject> {
        let key = match &kind {
            ObjectKind::File(file)
            | ObjectKind::Device(file)
            | ObjectKind::ZeroDevice(file)
            | ObjectKind::Memfd(file) => (file.device, file.inode),
            _ => return MemoryObject::new(kind, name),
        };
        self.sweep();
        let known = self.objects.entry(key).or_default();
        known.retain(|object| object.strong_count() > 0);
        let found =
            known.iter().filter_map(Weak::upgrade).find(|object| *object.kind() == kind && object.name() == name);
        found.unwrap_or_else(|| {
            let is_huge_aligned = match &kind {
                ObjectKind::File(file) => aligned_by_device(&mut self.huge_aligned, file.device, path),
                ObjectKind::ZeroDevice(_) => true,
                _ => false,
            };
            let make = if is_huge_aligned { MemoryObject::new_huge_aligned } else { MemoryObject::new };
            let object = make(kind, name);
            known.push(Arc::downgrade(&object));
            object
        })
    }

    fn sweep(&mut self) {
        if self.objects.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.objects.retain(|_, known| known.iter().any(|object| object.strong_count() > 0));
        self.sweep_at = self.objects.len() * 2;
    }

    /// Whether a region maps this file.
    pub(super) fn is_mapped(&self, file: FileId) -> bool {
        let known = self.objects.get(&(file.device, file.inode));
        known.is_some_and(|known| known.iter().any(|object| object.strong_count() > 0))
    }
}

fn aligned_by_device(known: &mut HashMap<u64, bool>, device: u64, path: &str) -> bool {
    if let Some(answer) = known.get(&device) {
        return *answer;
    }
    // A path that leads nowhere any more says nothing of its device.
    let Some(answer) = is_huge_aligned(path) else { return false };
    known.insert(device, answer);
    answer
}

/// What one file is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    /// Which file.
    pub(crate) id: FileId,
    /// Its length, or what is set aside for it if that is more: fallocate(2) reaches beyond the end.
    pub(super) bytes: u64,
    /// For a device: which.
    pub(super) device: u64,
    mode: u32,
    is_append_only: bool,
}

impl FileStatus {
    /// Whether it is `/dev/zero`.
    pub(crate) fn is_zero_device(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.device == libc::makedev(1, 5)
    }

    /// Whether it is a directory.
    pub(crate) const fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// What maps of it show; memfds live on `memory_device`.
    pub(crate) fn kind(&self, memory_device: Option<u64>) -> ObjectKind {
        if memory_device == Some(self.id.device) {
            ObjectKind::Memfd(self.id)
        } else if self.is_zero_device() {
            ObjectKind::ZeroDevice(self.id)
        } else if matches!(self.mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK) {
            ObjectKind::Device(self.id)
        } else {
            ObjectKind::File(self.id)
        }
    }

    /// Whether it is an empty regular file that its owner may read and write, and nobody else.
    pub(super) const fn is_owners_alone(&self) -> bool {
        self.mode == libc::S_IFREG | 0o600 && self.bytes == 0
    }
}

/// Looks at what a path leads to, following links; as the host knows it, without asking a server that may be
/// a guest itself.
pub(super) fn status(path: &str) -> io::Result<FileStatus> {
    statx(libc::AT_FDCWD, &CString::new(path)?, libc::AT_STATX_DONT_SYNC)
}

/// Looks at what a descriptor of this process is.
pub(crate) fn status_of(fd: i32) -> io::Result<FileStatus> {
    statx(fd, c"", libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH)
}

fn statx(folder: i32, path: &CStr, flags: i32) -> io::Result<FileStatus> {
    let mut data = MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_TYPE | libc::STATX_MODE | libc::STATX_INO | libc::STATX_SIZE | libc::STATX_BLOCKS;
    // SAFETY: the path ends with a zero and `data` has room for the structure.
    let result = unsafe { libc::statx(folder, path.as_ptr(), flags, wanted, data.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, statx filled it, and every bit pattern is valid.
    let data = unsafe { data.assume_init() };
    let id = FileId { device: libc::makedev(data.stx_dev_major, data.stx_dev_minor), inode: data.stx_ino };
    Ok(FileStatus {
        id,
        bytes: data.stx_size.max(data.stx_blocks.saturating_mul(512)),
        device: libc::makedev(data.stx_rdev_major, data.stx_rdev_minor),
        mode: data.stx_mode.into(),
        is_append_only: data.stx_attributes & libc::STATX_ATTR_APPEND.cast_unsigned() as u64 != 0,
    })
}

/// Where the host shows descriptor `fd` of `tid`.
pub(super) fn fd_path(tid: Tid, fd: i32) -> String {
    format!("/proc/{tid}/fd/{fd}")
}

/// The path behind a descriptor as `/proc/PID/maps` would print it.
pub(super) fn fd_name(tid: Tid, fd: i32) -> io::Result<String> {
    let name = fs::read_link(fd_path(tid, fd))?;
    Ok(String::from_utf8_lossy(name.as_os_str().as_bytes()).replace('\n', "\\012"))
}

/// Answers for one call of one thread.
pub(super) struct FileView<'a> {
    pub(super) tid: Tid,
    pub(super) table: &'a mut FileTable,
    pub(super) segments: &'a mut Segments,
    /// Whether the file that was asked for is `/dev/zero`.
    pub(super) is_zero_device: bool,
}

impl Files for FileView<'_> {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        if fd < 0 {
            return Err(Errno::BadF);
        }
        let path = fd_path(self.tid, fd);
        let status = status(&path).map_err(|_| Errno::BadF)?;
        let flags = open_flags(self.tid, fd).ok_or(Errno::BadF)?;
        if flags & libc::O_PATH != 0 {
            return Err(Errno::BadF);
        }
        self.is_zero_device = status.is_zero_device();
        let name = fd_name(self.tid, fd).map_err(|_| Errno::BadF)?;
        let kind = status.kind(self.segments.memory_device());
        let mut traits = traits(file_system(&path), &status, flags);
        if let ObjectKind::Memfd(file) = kind {
            self.segments.note_memfd(file, status.bytes).map_err(|_| Errno::NoMem)?;
            traits.set(FileTraits::WRITE_SEALED, has_write_seal(self.tid, fd));
        }
        Ok(OpenFile { object: self.table.intern(kind, &name, &path), traits })
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        if !super::segments::shares_namespace(self.tid) {
            // Numbers of another namespace mean other segments, and cannot be looked up from here.
            return Err(Errno::Inval);
        }
        let status = super::segments::segment_status(id).ok_or(Errno::Inval)?;
        let name = format!("/SYSV{:08x} (deleted)", status.key);
        let pages = PageCount::from_bytes_up(status.bytes);
        // Each attachment is an open file of its own (`ipc/shm.c:do_shmat`): regions of two never become one.
        let object = MemoryObject::new(ObjectKind::SysV { id, pages }, name);
        let rights = super::segments::rights(self.tid, &status);
        Ok(Segment { object, pages, rights })
    }

    fn string(&mut self, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
        read_string(self.tid, addr, len_max)
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        read_bytes(self.tid, addr, len)
    }

    fn process(&mut self, pidfd: i32) -> Result<TargetProcess, Errno> {
        let pid = match pidfd {
            PIDFD_SELF_THREAD => return Ok(TargetProcess::Own),
            PIDFD_SELF_THREAD_GROUP => thread_group(self.tid).ok_or(Errno::Srch)?,
            _ => pidfd_process(self.tid, pidfd)?,
        };
        // What one cannot be asked about is not the caller's own.
        // SAFETY: plain numbers.
        let order = unsafe { libc::syscall(libc::SYS_kcmp, self.tid, pid, KCMP_VM, 0, 0) };
        Ok(if order == 0 { TargetProcess::Own } else { TargetProcess::Other })
    }
}

/// Copies a string of at most `len_max` bytes, without its terminating zero, out of a stopped thread's memory.
pub(super) fn read_string(tid: Tid, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut at = addr & !7;
    while bytes.len() <= len_max + 8 {
        let word = ptrace::peek(tid, at).map_err(|_| Errno::Fault)?.to_le_bytes();
        let skipped = usize::try_from(addr.saturating_sub(at)).unwrap_or(0);
        bytes.extend_from_slice(&word[skipped..]);
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
            return if end > len_max { Err(Errno::Inval) } else { Ok(bytes) };
        }
        at = at.checked_add(8).ok_or(Errno::Fault)?;
    }
    Err(Errno::Inval)
}

/// Copies bytes out of a stopped thread's memory, as far as the thread itself could read them.
fn read_bytes(tid: Tid, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
    let (mut at, mut left) = (addr, len as u64);
    let mut remote = Vec::new();
    // The host copies whole pieces only.
    while left > 0 {
        let piece = left.min(PAGE_SIZE - at % PAGE_SIZE);
        let Ok(iov_len) = usize::try_from(piece) else { break };
        let iov_base = std::ptr::without_provenance_mut(usize::try_from(at).unwrap_or(0));
        remote.push(libc::iovec { iov_base, iov_len });
        (at, left) = (at.wrapping_add(piece), left - piece);
    }
    let count = remote.len() as libc::c_ulong;
    // SAFETY: the local piece is the vector, which is alive and as long as it says; the others are addresses of the
    // guest, which the host checks.
    let read = unsafe { libc::process_vm_readv(tid, &raw const local, 1, remote.as_ptr(), count, 0) };
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    bytes
}

/// The process that a pidfd of `tid` is about.
fn pidfd_process(tid: Tid, pidfd: i32) -> Result<Tid, Errno> {
    let link = fs::read_link(fd_path(tid, pidfd)).map_err(|_| Errno::BadF)?;
    if !PIDFD_NAMES.iter().any(|name| link.as_os_str().as_bytes().starts_with(name)) {
        return Err(Errno::BadF);
    }
    let pid: Tid = fd_info(tid, pidfd, "Pid:").and_then(|pid| pid.parse().ok()).ok_or(Errno::BadF)?;
    // A thread that is not the first of its process has no process of its own.
    if thread_group(pid) == Some(pid) { Ok(pid) } else { Err(Errno::Srch) }
}

/// What the host says of a descriptor.
fn fd_info(tid: Tid, fd: i32, field: &str) -> Option<String> {
    let info = fs::read_to_string(PathBuf::from(format!("/proc/{tid}/fdinfo/{fd}"))).ok()?;
    info.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
}

/// How the descriptor was opened.
fn open_flags(tid: Tid, fd: i32) -> Option<i32> {
    i32::from_str_radix(&fd_info(tid, fd, "flags:")?, 8).ok()
}

/// Whether descriptor `fd` of `tid` is sealed against writing.
fn has_write_seal(tid: Tid, fd: i32) -> bool {
    // SAFETY: plain numbers; `PIDFD_THREAD` is `O_EXCL`.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, libc::O_EXCL) };
    // SAFETY: plain numbers.
    owned(pidfd)
        .and_then(|pidfd| owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) }))
        .map_or_else(
            // An older host knows processes alone; opened anew, it is the same file.
            || fs::File::open(fd_path(tid, fd)).is_ok_and(|file| is_write_sealed(file.as_fd())),
            |file| is_write_sealed(file.as_fd()),
        )
}

/// The descriptor that a call has just made.
fn owned(answer: libc::c_long) -> Option<OwnedFd> {
    let fd = libc::c_int::try_from(answer).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the host has just made it for us, and nobody else knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether an open file is sealed against writing.
pub(crate) fn is_write_sealed(file: BorrowedFd<'_>) -> bool {
    // SAFETY: plain numbers.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals > 0 && seals & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) != 0
}

/// What the file allows: where it lies, what it is, and the `O_*` word that it was opened with.
pub(crate) fn traits(file_system: Option<Statfs>, status: &FileStatus, flags: i32) -> FileTraits {
    let mut traits = FileTraits::empty();
    traits.set(FileTraits::READABLE, matches!(flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR));
    traits.set(FileTraits::WRITABLE, matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR));
    traits.set(FileTraits::APPEND_ONLY, status.is_append_only);
    let is_mappable = !matches!(status.mode & libc::S_IFMT, libc::S_IFDIR | libc::S_IFIFO | libc::S_IFSOCK);
    traits.set(FileTraits::NOT_MAPPABLE, !is_mappable);
    traits.set(FileTraits::REGULAR, status.mode & libc::S_IFMT == libc::S_IFREG);
    if let Some(data) = file_system {
        let kind = data.filesystem_type();
        let is_no_exec = data.flags().contains(FsFlags::ST_NOEXEC) || NO_EXEC_KINDS.contains(&kind.0);
        traits.set(FileTraits::NO_EXEC, is_no_exec);
        // Directories of the same file system do not know MAP_SYNC.
        let knows_sync = matches!(kind, EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC);
        traits.set(FileTraits::SYNC, knows_sync && traits.contains(FileTraits::REGULAR));
        traits.set(FileTraits::HUGE_PAGES, kind == HUGETLBFS_MAGIC);
    }
    traits
}

/// The file system that a path leads to.
pub(super) fn file_system(path: &str) -> Option<Statfs> {
    statfs(path).ok()
}

/// Whether the file system places large maps on huge-page boundaries.
fn is_huge_aligned(path: &str) -> Option<bool> {
    Some(matches!(file_system(path)?.filesystem_type(), EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC | BTRFS_SUPER_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_beyond_the_end_of_a_memfd_counts() {
        // SAFETY: the name ends with a zero.
        let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: plain numbers.
        assert_eq!(unsafe { libc::fallocate(fd.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, 1 << 20) }, 0);
        // SAFETY: plain numbers.
        assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), 4096) }, 0);
        assert!(status(&format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().bytes >= 1 << 20);
    }
}
