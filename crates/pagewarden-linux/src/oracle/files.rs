//! The descriptors and the segment that programs map, with the same contents at the start of each.

use std::ffi::CStr;
use std::io;

use super::guard::SEGMENT_PAGES;
use super::kernel::Kernel;
use super::outcome::Outcome;
use super::program::{FileKind, PAGE};

/// The regular file, in the working directory.
const FILE: &CStr = c"oracle.file";
/// Bytes of each file: not a whole number of pages.
pub(super) const FILE_BYTES: usize = 10 * 4096 + 100;
/// What the segment is full of at the start.
const SEGMENT_BYTE: u8 = 0x5a;
/// How memfds are made that may be sealed.
const SEALABLE: libc::c_uint = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_NOEXEC_SEAL;
/// A descriptor number that is never open.
const CLOSED: u64 = 987;

/// What programs map.
#[derive(Debug)]
pub(super) struct Files {
    /// By the kind of file; those of the last two change.
    pub(super) descriptors: [libc::c_int; 10],
    /// Both ends of the pipe that memory is copied through.
    pub(super) copies: [libc::c_int; 2],
    pub(super) segment: u64,
    attached: *mut u8,
    pattern: Vec<u8>,
}

impl Files {
    /// Opens everything; the regular file is made in the working directory.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn open() -> io::Result<Self> {
        let read_write = open(FILE, libc::O_RDWR | libc::O_CREAT)?;
        let read_only = open(FILE, libc::O_RDONLY)?;
        let write_only = open(FILE, libc::O_WRONLY)?;
        // SAFETY: the name is a C string.
        let memfd = check(unsafe { libc::memfd_create(c"oracle".as_ptr(), libc::MFD_CLOEXEC) })?;
        let zero = open(c"/dev/zero", libc::O_RDWR)?;
        let directory = open(c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut pipe = [0; 2];
        // SAFETY: there is room for two descriptors.
        check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) })?;
        let (segment, attached) = attach_segment()?;
        let descriptors = [read_write, read_only, write_only, memfd, zero, directory, pipe[0], -1, zero, -1];
        let mut copies = [0; 2];
        // SAFETY: there is room for two descriptors.
        check(unsafe { libc::pipe2(copies.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        #[expect(clippy::cast_possible_truncation, reason = "a pattern of bytes, any will do but zero")]
        let pattern = (0..FILE_BYTES).map(|at| (at / 4096 * 7 + at % 251) as u8 | 1).collect();
        let mut files = Self { descriptors, copies, segment, attached, pattern };
        files.descriptors[7] = files.make_sealed()?;
        Ok(files)
    }

    /// Gives every file and the segment its contents.
    pub(super) fn reset(&self, kernel: &Kernel) {
        if let Kernel::Machine(machine) = kernel {
            let files = [self.descriptors[0], self.descriptors[3]].map(|fd| u64::from(fd.cast_unsigned()));
            return machine.reset(files, &self.pattern, SEGMENT_BYTE);
        }
        for descriptor in [self.descriptors[0], self.descriptors[3]] {
            // SAFETY: a descriptor of ours; nothing of it is mapped yet.
            unsafe { libc::ftruncate(descriptor, 0) };
            self.fill(descriptor);
        }
        // SAFETY: the segment is attached there, is this long, and no reference to it exists.
        unsafe { self.attached.write_bytes(SEGMENT_BYTE, usize::try_from(SEGMENT_PAGES * PAGE).unwrap_or(0)) };
    }

    fn fill(&self, descriptor: libc::c_int) {
        // SAFETY: the pointer and the length are the pattern's.
        unsafe { libc::pwrite(descriptor, self.pattern.as_ptr().cast(), self.pattern.len(), 0) };
    }

    /// Makes the sealed memfd anew: a program may have made it shorter, and nothing fills it again.
    pub(super) fn renew_sealed(&mut self, kernel: &Kernel) {
        // On the machine, what a program does to it is gone with the program.
        if !matches!(kernel, Kernel::Machine(_))
            && let Ok(sealed) = self.make_sealed()
        {
            self.descriptors[7] = sealed;
        }
    }

    fn make_sealed(&self) -> io::Result<libc::c_int> {
        // SAFETY: the name is a C string.
        let sealed = check(unsafe { libc::memfd_create(c"sealed".as_ptr(), SEALABLE) })?;
        self.fill(sealed);
        // SAFETY: plain numbers.
        check(unsafe { libc::fcntl(sealed, libc::F_ADD_SEALS, libc::F_SEAL_WRITE) })?;
        Ok(sealed)
    }

    /// Makes the memfd that a program may seal: seals stay for good, so each program needs its own.
    pub(super) fn renew_sealable(&mut self, kernel: &Kernel) {
        let args = [c"sealable".as_ptr() as u64, SEALABLE.into(), 0, 0, 0, 0];
        // SAFETY: the name is a C string.
        let Outcome::Value(fd) = (unsafe { kernel.syscall(libc::SYS_memfd_create, args) }) else { return };
        self.descriptors[8] = libc::c_int::try_from(fd).unwrap_or(-1);
        match kernel {
            Kernel::Machine(machine) => drop(machine.pwrite(fd, 0, &self.pattern)),
            _ => self.fill(self.descriptors[8]),
        }
    }

    /// Makes the memfd that programs know as fresh, with this size.
    pub(super) fn make_memfd(&mut self, kernel: &Kernel, bytes: u64) -> Outcome {
        let name = c"fresh".as_ptr() as u64;
        // SAFETY: the name is a C string.
        let made = unsafe { kernel.syscall(libc::SYS_memfd_create, [name, libc::MFD_CLOEXEC.into(), 0, 0, 0, 0]) };
        let Outcome::Value(fd) = made else { return made };
        self.descriptors[9] = libc::c_int::try_from(fd).unwrap_or(-1);
        // SAFETY: plain numbers, about a memfd of the program's own.
        unsafe { kernel.syscall(libc::SYS_ftruncate, [fd, bytes, 0, 0, 0, 0]) }
    }

    /// Seals it.
    pub(super) fn seal(&self, kernel: &Kernel, seals: u64) -> Outcome {
        let [descriptor, order] = [self.descriptors[8], libc::F_ADD_SEALS].map(|word| u64::from(word.cast_unsigned()));
        // SAFETY: plain numbers, about a memfd of the program's own.
        unsafe { kernel.syscall(libc::SYS_fcntl, [descriptor, order, seals, 0, 0, 0]) }
    }

    /// What a program passes for `kind`.
    pub(super) fn descriptor(&self, kind: FileKind) -> u64 {
        let index = match kind {
            FileKind::None => return u64::MAX,
            FileKind::Closed => return CLOSED,
            FileKind::ReadWrite => 0,
            FileKind::ReadOnly => 1,
            FileKind::WriteOnly => 2,
            FileKind::Memfd => 3,
            FileKind::Zero => 4,
            FileKind::Directory => 5,
            FileKind::Pipe => 6,
            FileKind::Sealed => 7,
            FileKind::Sealable => 8,
            FileKind::Fresh if self.descriptors[9] < 0 => return u64::MAX,
            FileKind::Fresh => 9,
        };
        u64::from(self.descriptors[index].cast_unsigned())
    }
}

fn open(path: &CStr, flags: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the path is a C string.
    check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })
}

/// A segment that goes when its last user does, and where it is attached.
fn attach_segment() -> io::Result<(u64, *mut u8)> {
    let bytes = usize::try_from(SEGMENT_PAGES * PAGE).unwrap_or(0);
    // SAFETY: makes a segment; touches no memory.
    let id = check(unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600) })?;
    // SAFETY: the kernel chooses a free place.
    let attached = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    let failed = attached.addr() == usize::MAX;
    let error = io::Error::last_os_error();
    // SAFETY: removal needs no buffer.
    check(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) })?;
    if failed { Err(error) } else { Ok((u64::from(id.cast_unsigned()), attached.cast())) }
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
