//! Calls of Linux's family, with Linux's numbers.
//!
//! [`call`] is what all are made of. What has a function of its own cannot change memory that Rust knows of.

use core::arch::asm;

/// An error number of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub u16);

impl Errno {
    /// `EPERM`.
    pub const PERM: Self = Self(1);
    /// `ENOENT`.
    pub const NOENT: Self = Self(2);
    /// `ESRCH`.
    pub const SRCH: Self = Self(3);
    /// `ECHILD`.
    pub const CHILD: Self = Self(10);
    /// `EBADF`.
    pub const BADF: Self = Self(9);
    /// `ENOMEM`.
    pub const NOMEM: Self = Self(12);
    /// `EACCES`.
    pub const ACCES: Self = Self(13);
    /// `EFAULT`.
    pub const FAULT: Self = Self(14);
    /// `EBUSY`.
    pub const BUSY: Self = Self(16);
    /// `EEXIST`.
    pub const EXIST: Self = Self(17);
    /// `EINVAL`.
    pub const INVAL: Self = Self(22);
    /// `ENOSYS`.
    pub const NOSYS: Self = Self(38);

    /// That of an answer which stands for one.
    pub(crate) fn of_answer(answer: i64) -> Option<Self> {
        if (-4095..0).contains(&answer) { u16::try_from(-answer).ok().map(Self) } else { None }
    }
}

/// What a call gives.
pub type Result<T> = core::result::Result<T, Errno>;

/// Numbers of calls.
pub mod number {
    /// write(2).
    pub const WRITE: u64 = 1;
    /// mmap(2).
    pub const MMAP: u64 = 9;
    /// mprotect(2).
    pub const MPROTECT: u64 = 10;
    /// munmap(2).
    pub const MUNMAP: u64 = 11;
    /// arch_prctl(2).
    pub const ARCH_PRCTL: u64 = 158;
    /// sched_yield(2).
    pub const SCHED_YIELD: u64 = 24;
    /// mremap(2).
    pub const MREMAP: u64 = 25;
    /// mincore(2).
    pub const MINCORE: u64 = 27;
    /// madvise(2).
    pub const MADVISE: u64 = 28;
    /// getpid(2).
    pub const GETPID: u64 = 39;
    /// clone(2).
    pub const CLONE: u64 = 56;
    /// fork(2).
    pub const FORK: u64 = 57;
    /// exit(2).
    pub const EXIT: u64 = 60;
    /// wait4(2).
    pub const WAIT4: u64 = 61;
    /// gettid(2).
    pub const GETTID: u64 = 186;
    /// exit_group(2).
    pub const EXIT_GROUP: u64 = 231;
}

/// `PROT_*`.
pub mod prot {
    /// `PROT_NONE`.
    pub const NONE: u64 = 0;
    /// `PROT_READ`.
    pub const READ: u64 = 1;
    /// `PROT_WRITE`.
    pub const WRITE: u64 = 2;
    /// Both.
    pub const READ_WRITE: u64 = READ | WRITE;
    /// `PROT_EXEC`.
    pub const EXEC: u64 = 4;
}

/// `MAP_*`.
pub mod map {
    /// `MAP_SHARED`.
    pub const SHARED: u64 = 1;
    /// `MAP_PRIVATE`.
    pub const PRIVATE: u64 = 2;
    /// `MAP_FIXED`.
    pub const FIXED: u64 = 0x10;
    /// `MAP_ANONYMOUS`.
    pub const ANONYMOUS: u64 = 0x20;
}

/// `ARCH_SET_FS`.
pub const SET_FS: u64 = 0x1002;
/// `MADV_DONTNEED`.
pub const DONT_NEED: u64 = 4;

/// Makes a call.
///
/// # Errors
/// What it answers, if that stands for an error.
///
/// # Safety
/// It changes no memory that Rust knows of, but as the caller allows for.
pub unsafe fn call(number: u64, [a, b, c, d, e, f]: [u64; 6]) -> Result<u64> {
    let answer: i64;
    // SAFETY: the caller answers for what the call does; the instruction itself changes the two registers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match Errno::of_answer(answer) {
        Some(errno) => Err(errno),
        None => Ok(answer.cast_unsigned()),
    }
}

/// Writes `bytes`; how many were taken.
///
/// # Errors
/// Those of write(2).
pub fn write(descriptor: u64, bytes: &[u8]) -> Result<u64> {
    let address = bytes.as_ptr().expose_provenance() as u64;
    // SAFETY: write(2) reads memory, and this is there to be read.
    unsafe { call(number::WRITE, [descriptor, address, bytes.len() as u64, 0, 0, 0]) }
}

/// Lets others run.
pub fn yield_now() {
    // SAFETY: it changes no memory.
    let answer = unsafe { call(number::SCHED_YIELD, [0; 6]) };
    debug_assert!(answer.is_ok(), "Linux knows no error of it");
}

/// The number of this process.
pub fn process_id() -> u64 {
    // SAFETY: it changes no memory.
    let answer = unsafe { call(number::GETPID, [0; 6]) };
    answer.unwrap_or(0)
}

/// The number of this thread.
pub fn thread_id() -> u64 {
    // SAFETY: it changes no memory.
    let answer = unsafe { call(number::GETTID, [0; 6]) };
    answer.unwrap_or(0)
}

/// Ends the process.
pub fn exit_group(code: u8) -> ! {
    // SAFETY: nothing comes after it.
    let answer = unsafe { call(number::EXIT_GROUP, [u64::from(code), 0, 0, 0, 0, 0]) };
    unreachable!("a process has outlived its end: {answer:?}");
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// By itself, with this code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

/// `SIGILL`.
pub const ILLEGAL: Ended = Ended::Killed(4);
/// `SIGTRAP`.
pub const TRAP: Ended = Ended::Killed(5);
/// `SIGFPE`.
pub const ARITHMETIC: Ended = Ended::Killed(8);
/// `SIGSEGV`.
pub const SEGMENT: Ended = Ended::Killed(11);

impl Ended {
    /// What a status of wait(2) says. Whether a host has kept a dump of memory does not matter.
    pub const fn from_status(status: u32) -> Self {
        let [low, code, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Self::Exited(code),
            signal => Self::Killed(signal),
        }
    }
}

/// A child that was forked and has not been waited for.
#[derive(Debug)]
#[must_use = "a child that nobody waits for is never gone"]
pub struct Child {
    id: u64,
}

impl Child {
    /// Forks a child that runs `body` and exits with what that gives.
    ///
    /// # Errors
    /// Those of fork(2).
    pub fn run(body: impl FnOnce() -> u8) -> Result<Self> {
        // SAFETY: the child has a copy of all memory, and nothing that it does waits for another thread of its parent.
        let id = unsafe { call(number::FORK, [0; 6]) }?;
        if id == 0 {
            exit_group(body());
        }
        Ok(Self { id })
    }

    /// The number of its process.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Those of wait4(2).
    pub fn wait(self) -> Result<Ended> {
        let mut status = 0_u32;
        let place = (&raw mut status).expose_provenance() as u64;
        // SAFETY: the status goes where there is room for it, and nobody refers to that meanwhile.
        let id = unsafe { call(number::WAIT4, [self.id, place, 0, 0, 0, 0]) }?;
        // SAFETY: it is a word of this function's own, which the call may have written to.
        let status = unsafe { (&raw const status).read_volatile() };
        if id == self.id { Ok(Ended::from_status(status)) } else { Err(Errno::CHILD) }
    }
}

/// How a child ends that runs `body`.
///
/// # Errors
/// Those of fork(2) and wait4(2).
pub fn end_of(body: impl FnOnce() -> u8) -> Result<Ended> {
    Child::run(body)?.wait()
}
