//! What descriptors and segments are: files of the little kernel's own, which look like those that the host has open
//! for the interpreter, and are as long and as full.
//!
//! The rules are those of `fs/open.c`, `fs/read_write.c`, `mm/memfd.c` and `mm/shmem.c`; those of a regular file are the
//! ones that file systems on a disk have in common.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use pagewarden::linux::{self, FileTraits, PIDFD_SELF_THREAD, PIDFD_SELF_THREAD_GROUP, Segment, TargetProcess};
use pagewarden::object::{Extent, FileId, ObjectSource};
use pagewarden::{Errno, MemoryObject, ObjectKind, PageCount, Prot};

use super::super::files::{FILE_BYTES, Files};
use super::super::outcome::Outcome;
use super::super::program::PAGE;
use super::disk::{Disk, TOO_LARGE};
use super::hardware::{Hardware, Object, Objects};
use super::{MachineKernel, OWN_PROCESS, outcome};
use crate::arena::copy_in;
use crate::traced::files::{self, FileStatus, FileTable};
use crate::traced::segments;

/// The longest name of a memfd (`MFD_NAME_MAX_LEN`).
const MEMFD_NAME_MAX: usize = 249;
/// `ESPIPE`.
const NO_SEEK: Errno = Errno::Other(29);
/// `EISDIR`.
const IS_DIRECTORY: Errno = Errno::Other(21);
/// `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`.
const KEEP_SIZE: u64 = 1;
const PUNCH_HOLE: u64 = 2;
/// What is behind a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    /// Memory, with seals: a memfd, or a file of tmpfs.
    Memory,
    /// A disk.
    Disk,
    /// `/dev/zero`.
    ZeroDevice,
    Directory,
    Pipe,
}

/// A file.
#[derive(Debug)]
struct File {
    object: Object,
    body: Body,
    seals: Cell<i32>,
    /// What is behind it; behind memory nothing is.
    disk: Option<Arc<Disk>>,
}

impl File {
    fn has_seal(&self, seals: i32) -> bool {
        self.body == Body::Memory && self.seals.get() & seals != 0
    }
}

/// A file as it was opened.
#[derive(Clone, Debug)]
struct Descriptor {
    file: Rc<File>,
    traits: FileTraits,
}

/// The descriptors of a process, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenFiles(Vec<Option<Descriptor>>);

impl OpenFiles {
    fn get(&self, fd: u64) -> Result<&Descriptor, Errno> {
        #[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int: the ABI drops the upper half")]
        let fd = usize::try_from(fd as i32).map_err(|_| Errno::BadF)?;
        self.0.get(fd).and_then(Option::as_ref).ok_or(Errno::BadF)
    }

    fn put(&mut self, fd: usize, descriptor: Descriptor) {
        if self.0.len() <= fd {
            self.0.resize_with(fd + 1, || None);
        }
        self.0[fd] = Some(descriptor);
    }

    /// Opens at the lowest number that is free.
    fn add(&mut self, descriptor: Descriptor) -> u64 {
        let fd = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        self.put(fd, descriptor);
        fd as u64
    }
}

/// What all processes have.
#[derive(Debug)]
pub(super) struct Prepared {
    segment: Segment,
    segment_id: u64,
    /// Those of every memfd.
    memfd_traits: FileTraits,
    memfd_device: u64,
    memfds: Cell<u64>,
}

impl Prepared {
    /// A file for each that the interpreter has open on the host, and the segment.
    pub(super) fn new(files: &Files, hardware: &dyn Hardware) -> io::Result<(Self, OpenFiles)> {
        let objects = hardware.objects();
        let memfd_device = segments::memory_device();
        let mut open = OpenFiles::default();
        let mut known: Vec<(FileId, Rc<File>)> = Vec::new();
        for fd in files.descriptors.into_iter().filter(|fd| *fd >= 0) {
            let found = Found::new(fd, memfd_device)?;
            let id = found.status.id;
            let file = match known.iter().find(|(known, _)| *known == id) {
                Some((_, file)) => Rc::clone(file),
                None => Rc::new(found.file(objects)?),
            };
            known.push((id, Rc::clone(&file)));
            open.put(usize::try_from(fd).unwrap_or(0), Descriptor { file, traits: found.traits });
        }
        let memfd = open.get(u64::from(files.descriptors[3].cast_unsigned())).map_err(io::Error::other)?;
        let memfd_traits = memfd.traits;
        let prepared = Self {
            segment: segment(files.segment, hardware)?,
            segment_id: files.segment,
            memfd_traits,
            memfd_device: memfd_device.unwrap_or(0),
            memfds: Cell::new(1 << 40),
        };
        Ok((prepared, open))
    }
}

/// The segment that the interpreter has made on the host.
fn segment(id: u64, hardware: &dyn Hardware) -> io::Result<Segment> {
    let id = i32::try_from(id).map_err(io::Error::other)?;
    let status = segments::segment_status(id).ok_or_else(io::Error::last_os_error)?;
    let pages = PageCount::from_bytes_up(status.bytes);
    let name = format!("/SYSV{:08x} (deleted)", status.key);
    let make = || hardware.objects().object(ObjectKind::SysV { id, pages }, &name, pages.bytes());
    let object = hardware.segment().map_or_else(make, Ok).map_err(io::Error::other)?;
    let rights = segments::rights(std::process::id().cast_signed(), &status);
    Ok(Segment { object, pages, rights })
}

/// What the host has behind a descriptor.
struct Found {
    fd: i32,
    status: FileStatus,
    kind: ObjectKind,
    name: String,
    traits: FileTraits,
    body: Body,
}

impl Found {
    fn new(fd: i32, memfd_device: Option<u64>) -> io::Result<Self> {
        // SAFETY: the descriptor is open as long as the interpreter lives, and is only asked about.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let status = files::status_of(fd)?;
        let name = fs::read_link(format!("/proc/self/fd/{fd}"))?;
        let name = String::from_utf8_lossy(name.as_os_str().as_bytes()).into_owned();
        // SAFETY: asks for the flags of a descriptor and changes nothing.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        let file_system = fstatfs(borrowed).ok();
        let traits = files::traits(file_system, &status, flags);
        let kind = status.kind(memfd_device);
        let is_in_memory = file_system.is_some_and(|data| data.filesystem_type() == TMPFS_MAGIC);
        let body = match &kind {
            ObjectKind::Memfd(_) => Body::Memory,
            ObjectKind::ZeroDevice(_) => Body::ZeroDevice,
            _ if status.is_directory() => Body::Directory,
            _ if !traits.contains(FileTraits::REGULAR) => Body::Pipe,
            _ if is_in_memory => Body::Memory,
            _ => Body::Disk,
        };
        Ok(Self { fd, status, kind, name, traits, body })
    }

    /// A file of ours that is as this one.
    fn file(&self, objects: &dyn Objects) -> io::Result<File> {
        let like = FileTable::default().intern(self.kind.clone(), &self.name, &format!("/proc/self/fd/{}", self.fd));
        let disk = (self.body == Body::Disk).then(|| Arc::new(Disk::new(file_bytes_max(self.fd))));
        let object = match self.body {
            Body::Memory => objects.object(self.kind.clone(), &self.name, 0),
            _ => disk
                .as_ref()
                .map_or(Ok(()), |disk| objects.fill(&like, ObjectSource::File(Arc::<Disk>::clone(disk))))
                .map(|()| like),
        };
        // SAFETY: asks for the seals and changes nothing. What has none answers with an error, and has all but the one
        // that forbids more.
        let seals = unsafe { libc::fcntl(self.fd, libc::F_GET_SEALS) };
        let seals = if seals < 0 { libc::F_SEAL_SEAL } else { seals };
        let object = object.map_err(io::Error::other)?;
        let file = File { object, body: self.body, seals: Cell::new(seals), disk };
        if matches!(self.body, Body::Memory | Body::Disk) && self.traits.contains(FileTraits::READABLE) {
            let mut contents = vec![0; FILE_BYTES];
            // SAFETY: the pointer and the length are the vector's.
            let len = unsafe { libc::pread(self.fd, contents.as_mut_ptr().cast(), contents.len(), 0) };
            let part = contents.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
            objects.write(&file.object, 0, part).map_err(io::Error::other)?;
        }
        Ok(file)
    }
}

/// How long the file behind a descriptor of the host's can be: where a hole may end at most, which changes nothing
/// behind the end of the file. Without holes there is no telling.
fn file_bytes_max(fd: i32) -> u64 {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let is_too_large = |bytes: i64| {
        // SAFETY: plain numbers; there is nothing so far behind the end of the file.
        let failed = unsafe { libc::fallocate(fd, mode, bytes - 1, 1) } < 0;
        failed && io::Error::last_os_error().raw_os_error() == Some(libc::EFBIG)
    };
    let (mut fits, mut is_over) = (1_i64 << 30, i64::MAX);
    if !is_too_large(is_over) {
        return is_over.cast_unsigned();
    }
    while is_over - fits > 1 {
        let middle = fits + (is_over - fits) / 2;
        if is_too_large(middle) { is_over = middle } else { fits = middle }
    }
    fits.cast_unsigned()
}

/// The descriptors of a process, as the decoder asks for them.
pub(super) struct GuestFiles<'a> {
    pub(super) open: &'a mut OpenFiles,
    pub(super) prepared: &'a Prepared,
    pub(super) objects: &'a dyn Objects,
    pub(super) is_capable: bool,
    /// Whether the file that was asked for last is `/dev/zero`.
    pub(super) is_zero: bool,
}

impl linux::Files for GuestFiles<'_> {
    fn open_file(&mut self, fd: i32) -> Result<linux::OpenFile, Errno> {
        let Descriptor { file, traits } = self.open.get(i64::from(fd).cast_unsigned())?;
        self.is_zero = file.body == Body::ZeroDevice;
        let mut traits = *traits;
        traits.set(FileTraits::WRITE_SEALED, file.has_seal(libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE));
        Ok(linux::OpenFile { object: Arc::clone(&file.object), traits })
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        if i64::from(id).cast_unsigned() != self.prepared.segment_id {
            return Err(Errno::Inval);
        }
        let mut segment = self.prepared.segment.clone();
        // Each attachment is an open file of its own (`ipc/shm.c:do_shmat`): regions of two never become one.
        let attached = MemoryObject::new(segment.object.kind().clone(), segment.object.name());
        self.objects.share(&attached, &segment.object)?;
        segment.object = attached;
        if !self.is_capable {
            // The owner may read it and write to it.
            segment.rights &= Prot::READ | Prot::WRITE;
        }
        Ok(segment)
    }

    /// Strings are the interpreter's.
    fn string(&mut self, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
        own_string(addr, len_max)
    }

    /// So are vectors of ranges.
    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let copied = copy_in(addr, &mut bytes);
        bytes.truncate(copied);
        bytes
    }

    fn process(&mut self, pidfd: i32) -> Result<TargetProcess, Errno> {
        match pidfd {
            PIDFD_SELF_THREAD | PIDFD_SELF_THREAD_GROUP | OWN_PROCESS => Ok(TargetProcess::Own),
            _ => Err(Errno::BadF),
        }
    }
}

/// A string of this process.
fn own_string(addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len_max + 1];
    let copied = copy_in(addr, &mut bytes);
    match bytes[..copied].iter().position(|byte| *byte == 0) {
        Some(end) => {
            bytes.truncate(end);
            Ok(bytes)
        }
        None if copied > len_max => Err(Errno::Inval),
        None => Err(Errno::Fault),
    }
}

impl MachineKernel {
    fn descriptor(&self, fd: u64) -> Result<Descriptor, Errno> {
        self.process().open.borrow().get(fd).cloned()
    }

    /// Gives the files that programs change, and the segment, what they hold when a program starts.
    pub(in super::super) fn reset(&self, files: [u64; 2], pattern: &[u8], segment_byte: u8) {
        for fd in files {
            let _ = self.truncate(fd, 0);
            self.pwrite(fd, 0, pattern);
        }
        if let Some(prepared) = &self.prepared {
            let full = vec![segment_byte; usize::try_from(prepared.segment.pages.bytes()).unwrap_or(0)];
            let _ = self.objects().write(&prepared.segment.object, 0, &full);
        }
    }

    /// memfd_create(2); the name is the interpreter's.
    pub(super) fn make_memfd(&self, name: u64, flags: u64) -> Result<u64, Errno> {
        let prepared = self.prepared.as_ref().ok_or(Errno::NoSys)?;
        let has = |flag: libc::c_uint| flags & u64::from(flag) != 0;
        let name = own_string(name, MEMFD_NAME_MAX)?;
        let name = format!("/memfd:{} (deleted)", String::from_utf8_lossy(&name));
        let inode = prepared.memfds.get();
        prepared.memfds.set(inode + 1);
        let id = FileId { device: prepared.memfd_device, inode };
        let object = self.objects().object(ObjectKind::Memfd(id), &name, 0)?;
        let seals = match has(libc::MFD_NOEXEC_SEAL) {
            true => libc::F_SEAL_EXEC,
            false if has(libc::MFD_ALLOW_SEALING) => 0,
            false => libc::F_SEAL_SEAL,
        };
        let file = Rc::new(File { object, body: Body::Memory, seals: Cell::new(seals), disk: None });
        Ok(self.process().open.borrow_mut().add(Descriptor { file, traits: prepared.memfd_traits }))
    }

    /// `F_ADD_SEALS` (`mm/memfd.c:memfd_add_seals`).
    pub(super) fn add_seals(&self, fd: u64, seals: u64) -> Result<u64, Errno> {
        let Descriptor { file, traits } = self.descriptor(fd)?;
        if file.body != Body::Memory {
            return Err(Errno::Inval);
        }
        let all = libc::F_SEAL_SEAL
            | libc::F_SEAL_SHRINK
            | libc::F_SEAL_GROW
            | libc::F_SEAL_WRITE
            | libc::F_SEAL_FUTURE_WRITE
            | libc::F_SEAL_EXEC;
        let seals = i32::try_from(seals).ok().filter(|seals| seals & !all == 0);
        if !traits.contains(FileTraits::WRITABLE) {
            return Err(Errno::Perm);
        }
        let seals = seals.ok_or(Errno::Inval)?;
        if file.has_seal(libc::F_SEAL_SEAL) {
            return Err(Errno::Perm);
        }
        if seals & libc::F_SEAL_WRITE != 0 && !file.has_seal(libc::F_SEAL_WRITE) && self.may_be_written(&file.object) {
            return Err(Errno::Busy);
        }
        file.seals.set(file.seals.get() | seals);
        if file.has_seal(libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) {
            self.objects().seal_writes(&file.object)?;
        }
        Ok(0)
    }

    /// Whether some process has a shared map of the object that may be written to, or may become so.
    fn may_be_written(&self, object: &Object) -> bool {
        let is_writable = |process: &super::Process| {
            process.space.books().map().iter().any(|entry| {
                let is_its = entry.region.object().is_some_and(|other| Arc::ptr_eq(other, object));
                is_its && entry.region.is_shared() && entry.region.prot_max.contains(Prot::WRITE)
            })
        };
        self.processes.iter().any(is_writable)
    }

    /// ftruncate(2).
    pub(super) fn truncate(&self, fd: u64, bytes: u64) -> Result<u64, Errno> {
        if i64::try_from(bytes).is_err() {
            return Err(Errno::Inval);
        }
        let Descriptor { file, traits } = self.descriptor(fd)?;
        if !traits.contains(FileTraits::REGULAR | FileTraits::WRITABLE) {
            return Err(Errno::Inval);
        }
        let old = self.objects().size(&file.object);
        if let Some(disk) = &file.disk {
            disk.check(bytes)?;
            self.objects().resize(&file.object, bytes)?;
            disk.truncate(bytes);
            self.forget_tail(&file, old, bytes);
            return Ok(0);
        }
        let is_forbidden =
            bytes < old && file.has_seal(libc::F_SEAL_SHRINK) || bytes > old && file.has_seal(libc::F_SEAL_GROW);
        if is_forbidden {
            return Err(Errno::Perm);
        }
        // A memfd is made with VM_NORESERVE: no size is too large.
        self.objects().resize(&file.object, bytes).map(|()| 0)
    }

    /// What a map has stored behind the end of a file on a disk is gone when the file becomes longer: up to the new end,
    /// or to that of the page (`pagecache_isize_extended`).
    fn forget_tail(&self, file: &File, old: u64, end: u64) {
        let end = end.min(old.next_multiple_of(PAGE));
        if file.body == Body::Disk && old < end {
            let zeros = vec![0; usize::try_from(end - old).unwrap_or(0)];
            let _ = self.objects().write(&file.object, old, &zeros);
        }
    }

    /// fallocate(2).
    pub(super) fn allocate(&self, [fd, mode, offset, len, ..]: [u64; 6]) -> Result<u64, Errno> {
        let mode = mode & 0xffff_ffff;
        let Descriptor { file, traits } = self.descriptor(fd)?;
        let [start, bytes] = [offset, len].map(i64::try_from);
        if start.is_err() || !bytes.is_ok_and(|bytes| bytes > 0) {
            return Err(Errno::Inval);
        }
        if ![0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE].contains(&mode) {
            return Err(Errno::OpNotSupp);
        }
        if !traits.contains(FileTraits::WRITABLE) {
            return Err(Errno::BadF);
        }
        match file.body {
            Body::Pipe => return Err(NO_SEEK),
            Body::Directory => return Err(IS_DIRECTORY),
            Body::ZeroDevice => return Err(Errno::NoDev),
            Body::Memory | Body::Disk => {}
        }
        let end = offset + len;
        i64::try_from(end).map_err(|_| TOO_LARGE)?;
        file.disk.as_ref().map_or(Ok(()), |disk| disk.check(end))?;
        if mode & PUNCH_HOLE == 0 { self.set_aside(&file, mode, offset, end) } else { self.punch(&file, offset, len) }
    }

    fn set_aside(&self, file: &File, mode: u64, offset: u64, end: u64) -> Result<u64, Errno> {
        let old = self.objects().size(&file.object);
        if file.has_seal(libc::F_SEAL_GROW) && end > old {
            return Err(Errno::Perm);
        }
        let extent = if mode & KEEP_SIZE == 0 { Extent::Grows } else { Extent::Stays };
        self.objects().allocate(&file.object, (offset, end - offset), extent)?;
        self.forget_tail(file, old, self.objects().size(&file.object));
        Ok(0)
    }

    fn punch(&self, file: &File, offset: u64, len: u64) -> Result<u64, Errno> {
        if file.has_seal(libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) {
            return Err(Errno::Perm);
        }
        self.objects().punch(&file.object, offset, len).map(|()| 0)
    }

    /// pwrite(2).
    pub(in super::super) fn pwrite(&self, fd: u64, offset: u64, from: &[u8]) -> Outcome {
        outcome(self.write_at(fd, offset, from))
    }

    fn write_at(&self, fd: u64, offset: u64, from: &[u8]) -> Result<u64, Errno> {
        let file = self.positioned(fd, offset, FileTraits::WRITABLE)?;
        match file.body {
            Body::ZeroDevice => return Ok(from.len() as u64),
            _ if from.is_empty() => return Ok(0),
            _ => {}
        }
        let end = end_of(offset, from.len())?;
        let old = self.objects().size(&file.object);
        let is_forbidden = file.has_seal(libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE)
            || end > old && file.has_seal(libc::F_SEAL_GROW);
        if is_forbidden {
            return Err(Errno::Perm);
        }
        file.disk.as_ref().map_or(Ok(()), |disk| disk.check(end))?;
        let written = self.objects().write(&file.object, offset, from)?;
        self.forget_tail(&file, old, offset.max(old));
        Ok(written as u64)
    }

    /// pread(2).
    pub(in super::super) fn pread(&self, fd: u64, offset: u64, to: &mut [u8]) -> Outcome {
        outcome(self.read_at(fd, offset, to))
    }

    fn read_at(&self, fd: u64, offset: u64, to: &mut [u8]) -> Result<u64, Errno> {
        let file = self.positioned(fd, offset, FileTraits::READABLE)?;
        match file.body {
            Body::ZeroDevice => {
                to.fill(0);
                return Ok(to.len() as u64);
            }
            Body::Directory => return Err(IS_DIRECTORY),
            _ => {}
        }
        end_of(offset, to.len())?;
        let left = self.objects().size(&file.object).saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(to.len());
        self.objects().read(&file.object, offset, &mut to[..len]).map(|count| count as u64)
    }

    /// The file to be read or written at `offset`.
    fn positioned(&self, fd: u64, offset: u64, wanted: FileTraits) -> Result<Rc<File>, Errno> {
        i64::try_from(offset).map_err(|_| Errno::Inval)?;
        let Descriptor { file, traits } = self.descriptor(fd)?;
        match file.body {
            Body::Pipe => Err(NO_SEEK),
            _ if !traits.contains(wanted) => Err(Errno::BadF),
            _ => Ok(file),
        }
    }
}

/// Where so many bytes end.
fn end_of(offset: u64, len: usize) -> Result<u64, Errno> {
    offset.checked_add(len as u64).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::Inval)
}
