//! Programs of memory calls, as plain data.
//!
//! A [`Program`] says nothing about what its steps should answer: that is for the host kernel to say. Steps name
//! addresses by where they come from (the window, the break, the answer of an earlier step), so that a step can
//! be taken out and the others keep their meaning.

use libc::c_long;

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Where programs map at fixed addresses; free when a program starts.
pub const WINDOW: u64 = 0x10_0000_0000;
/// Pages of the window (64 MiB).
pub const WINDOW_PAGES: u64 = 16_384;
/// mseal(2).
pub(super) const SYS_MSEAL: c_long = 462;
/// `PR_SET_MDWE` (linux/prctl.h).
pub(super) const PR_SET_MDWE: u64 = 65;
/// `PR_GET_MDWE` (linux/prctl.h).
pub(super) const PR_GET_MDWE: u64 = 66;
/// Most steps of a program.
pub const MAX_STEPS: usize = 256;

/// A list of steps, run from first to last in a fresh process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One call with its arguments; those after the last that the call takes are `Value(0)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What is called.
    pub call: Call,
    /// With what.
    pub args: [Arg; 6],
}

/// An argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A number, as it is.
    Value(u64),
    /// An address this far from a base.
    At(Base, i64),
    /// A descriptor of this file.
    File(FileKind),
}

/// What an address is relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The start of the window.
    Window,
    /// The present break.
    Break,
    /// What the step of this index answered.
    Answer(u16),
}

macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($(#[$item_doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $kind {
            $($(#[$item_doc])* $name,)*
        }

        impl $kind {
            /// Every one, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// How it is written.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The one that is written so.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }
    };
}

names! {
    /// A file that a guest has open; all have the same contents at the start of each program.
    FileKind {
        /// No descriptor: -1.
        None = "none",
        /// A number that is not open.
        Closed = "closed",
        /// A regular file opened for both.
        ReadWrite = "rw",
        /// The same file opened for reading.
        ReadOnly = "ro",
        /// The same file opened for writing.
        WriteOnly = "wo",
        /// A memfd.
        Memfd = "memfd",
        /// A memfd sealed against writing.
        Sealed = "sealed",
        /// A memfd of the program's own, which it may seal.
        Sealable = "sealable",
        /// The memfd that the program has made last; no descriptor before.
        Fresh = "fresh",
        /// `/dev/zero`.
        Zero = "zero",
        /// A directory.
        Directory = "dir",
        /// The reading end of a pipe.
        Pipe = "pipe",
    }
}

names! {
    /// What a step does.
    Call {
        /// mmap(addr, length, prot, flags, file, offset).
        Mmap = "mmap",
        /// munmap(addr, length).
        Munmap = "munmap",
        /// mprotect(addr, length, prot).
        Mprotect = "mprotect",
        /// pkey_mprotect(addr, length, prot, key).
        PkeyMprotect = "pkey_mprotect",
        /// pkey_alloc(flags, rights).
        PkeyAlloc = "pkey_alloc",
        /// pkey_free(key).
        PkeyFree = "pkey_free",
        /// mseal(addr, length, flags).
        Mseal = "mseal",
        /// prctl(`PR_SET_MDWE` or `PR_GET_MDWE`, flags, a word that must be 0).
        Mdwe = "mdwe",
        /// mremap(addr, old length, new length, flags, new addr).
        Mremap = "mremap",
        /// brk(addr).
        Brk = "brk",
        /// madvise(addr, length, advice).
        Madvise = "madvise",
        /// process_madvise(advice, how, addr, length, addr, length); `how` is the interpreter's.
        ProcessMadvise = "process_madvise",
        /// remap_file_pages(addr, length, prot, page offset, flags).
        RemapPages = "remap_pages",
        /// Seals the sealable memfd (seals).
        Seal = "seal",
        /// mlock(addr, length).
        Mlock = "mlock",
        /// mlock2(addr, length, flags).
        Mlock2 = "mlock2",
        /// munlock(addr, length).
        Munlock = "munlock",
        /// mlockall(flags).
        Mlockall = "mlockall",
        /// munlockall().
        Munlockall = "munlockall",
        /// msync(addr, length, flags).
        Msync = "msync",
        /// mincore(addr, length); where it writes is the interpreter's.
        Mincore = "mincore",
        /// prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, length, "oracle").
        NameAnonymous = "name",
        /// shmat of the segment(addr, flags).
        Shmat = "shmat",
        /// shmdt(addr).
        Shmdt = "shmdt",
        /// Sets the soft limit of a resource (resource, bytes).
        Limit = "limit",
        /// Gives up all capabilities.
        DropCapabilities = "dropcaps",
        /// Writes a byte (addr, byte).
        Write = "write",
        /// Reads a byte (addr).
        Read = "read",
        /// Records regions, contents and break.
        State = "state",
        /// Forks; the child alone runs the next steps (count) and then ends.
        Fork = "fork",
        /// Forks; child and parent run the next steps (count) by turns, the child first.
        Twin = "twin",
        /// Makes a child in the same memory that runs the next steps (count) while its parent waits.
        Vfork = "vfork",
        /// The next step is run by another thread (which: 0 or 1).
        Thread = "thread",
        /// Two threads map, protect and unmap at once, each in a place of its own (seed).
        Storm = "storm",
        /// ftruncate(file, bytes).
        Resize = "resize",
        /// fallocate(file, mode, offset, length).
        Allocate = "allocate",
        /// memfd_create, and ftruncate to its size (bytes); it is the file `fresh` from now on.
        NewMemfd = "memfd_create",
        /// pwrite of this many equal bytes (file, offset, length, byte).
        FileWrite = "pwrite",
        /// pread (file, offset, length).
        FileRead = "pread",
        /// Loads byte by byte (addr, length).
        Load = "load",
        /// Stores byte by byte (addr, length, byte).
        Store = "store",
        /// write(2) of memory into a pipe (addr, length).
        CopyOut = "copy_out",
        /// read(2) of equal bytes out of a pipe into memory (addr, length, byte).
        CopyIn = "copy_in",
        /// process_vm_readv of the process itself (addr, length).
        VmRead = "vm_read",
        /// Calls what is at an address, if that is a return or cannot be read (addr).
        Execute = "execute",
    }
}

impl Call {
    /// How many arguments it takes.
    pub const fn arity(self) -> usize {
        match self {
            Self::Twin | Self::Vfork | Self::Thread | Self::Storm | Self::NewMemfd | Self::Execute => 1,
            Self::Resize | Self::Load | Self::CopyOut | Self::VmRead => 2,
            Self::FileRead | Self::Store | Self::CopyIn => 3,
            Self::Allocate | Self::FileWrite => 4,
            Self::Munlockall | Self::State | Self::DropCapabilities => 0,
            Self::Brk | Self::Seal | Self::Mlockall | Self::Shmdt | Self::Read | Self::Fork | Self::PkeyFree => 1,
            Self::Munmap | Self::Mlock | Self::Munlock | Self::Mincore | Self::NameAnonymous => 2,
            Self::Shmat | Self::Limit | Self::Write | Self::PkeyAlloc => 2,
            Self::Mprotect | Self::Mseal | Self::Mdwe | Self::Madvise | Self::Mlock2 | Self::Msync => 3,
            Self::PkeyMprotect => 4,
            Self::Mremap | Self::RemapPages => 5,
            Self::Mmap | Self::ProcessMadvise => 6,
        }
    }

    /// The system call that takes the step's arguments as they stand, if there is one.
    pub const fn number(self) -> Option<c_long> {
        Some(match self {
            Self::Resize => libc::SYS_ftruncate,
            Self::Allocate => libc::SYS_fallocate,
            Self::Mmap => libc::SYS_mmap,
            Self::Munmap => libc::SYS_munmap,
            Self::Mprotect => libc::SYS_mprotect,
            Self::PkeyMprotect => libc::SYS_pkey_mprotect,
            Self::PkeyAlloc => libc::SYS_pkey_alloc,
            Self::PkeyFree => libc::SYS_pkey_free,
            Self::Mseal => SYS_MSEAL,
            Self::Mdwe => libc::SYS_prctl,
            Self::Mremap => libc::SYS_mremap,
            Self::Brk => libc::SYS_brk,
            Self::Madvise => libc::SYS_madvise,
            Self::RemapPages => libc::SYS_remap_file_pages,
            Self::Mlock => libc::SYS_mlock,
            Self::Mlock2 => libc::SYS_mlock2,
            Self::Munlock => libc::SYS_munlock,
            Self::Mlockall => libc::SYS_mlockall,
            Self::Munlockall => libc::SYS_munlockall,
            Self::Msync => libc::SYS_msync,
            Self::Shmdt => libc::SYS_shmdt,
            _ => return None,
        })
    }
}

impl Step {
    /// A step; of `args` it takes as many as the call has.
    pub fn new(call: Call, args: &[Arg]) -> Self {
        let mut all = [Arg::Value(0); 6];
        for (place, arg) in all.iter_mut().zip(args).take(call.arity()) {
            *place = *arg;
        }
        Self { call, args: all }
    }

    /// The arguments that its call takes.
    pub fn used_args(&self) -> &[Arg] {
        &self.args[..self.call.arity()]
    }
}

impl Program {
    /// How many of its steps call the kernel or touch memory; the others only look.
    pub fn calls(&self) -> usize {
        self.steps.iter().filter(|step| step.call != Call::State).count()
    }

    /// The program without the steps for which `drop` holds, and without those that need an answer of theirs.
    #[must_use]
    pub fn without(&self, drop: impl Fn(usize) -> bool) -> Self {
        let mut moved: Vec<Option<u16>> = Vec::with_capacity(self.steps.len());
        let mut steps: Vec<Step> = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let mut kept = *step;
            let mut whole = !drop(index);
            for arg in &mut kept.args {
                if let Arg::At(Base::Answer(of), delta) = *arg {
                    match moved.get(usize::from(of)).copied().flatten() {
                        Some(now) => *arg = Arg::At(Base::Answer(now), delta),
                        None => whole = false,
                    }
                }
            }
            moved.push(if whole { u16::try_from(steps.len()).ok() } else { None });
            if whole {
                steps.push(kept);
            }
        }
        Self { steps }
    }
}
