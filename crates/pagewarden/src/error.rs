//! The one error of the crate: a Linux error number.

use core::fmt;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why a request failed, as Linux numbers it (errno(3)).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Errno {
            $($(#[$doc])* $name,)*
            /// A number that the memory calls do not give by themselves; a platform may.
            Other(u16),
        }

        impl Errno {
            /// The error numbered `raw` (a positive number below 4096, as in the kernel's `MAX_ERRNO`).
            pub const fn from_raw(raw: u16) -> Self {
                match raw {
                    $($value => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// The number.
            pub const fn raw(self) -> u16 {
                match self {
                    $(Self::$name => $value,)*
                    Self::Other(raw) => raw,
                }
            }

            /// The name as C programs spell it, such as `ENOMEM`; `E?` for [`Errno::Other`].
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(_) => "E?",
                }
            }
        }
    };
}

errnos! {
    /// The caller lacks a privilege, or the region is sealed.
    Perm = 1, "EPERM";
    /// There is no such thing.
    NoEnt = 2, "ENOENT";
    /// There is no such process or mapping.
    Srch = 3, "ESRCH";
    /// Interrupted by a signal.
    Intr = 4, "EINTR";
    /// The backing store failed.
    Io = 5, "EIO";
    /// Not an open descriptor, or one that does not allow the request.
    BadF = 9, "EBADF";
    /// A limit on locked memory, or a passing shortage.
    Again = 11, "EAGAIN";
    /// No address space, no budget, no region count left, or a hole where there must be none.
    NoMem = 12, "ENOMEM";
    /// The rights asked for exceed those that the backing or the policy gives.
    Acces = 13, "EACCES";
    /// The address range is not what the request needs (mremap(2)).
    Fault = 14, "EFAULT";
    /// The range is locked or in use.
    Busy = 16, "EBUSY";
    /// Something is mapped there already (`MAP_FIXED_NOREPLACE`).
    Exist = 17, "EEXIST";
    /// The file cannot be mapped.
    NoDev = 19, "ENODEV";
    /// An argument makes no sense.
    Inval = 22, "EINVAL";
    /// No descriptor or slot is left.
    MFile = 24, "EMFILE";
    /// The file is in use as a program or as swap space.
    TxtBsy = 26, "ETXTBSY";
    /// No space on the backing store.
    NoSpc = 28, "ENOSPC";
    /// The request is not implemented.
    NoSys = 38, "ENOSYS";
    /// An offset plus a length does not fit.
    Overflow = 75, "EOVERFLOW";
    /// The flag is known but not for this kind of backing.
    OpNotSupp = 95, "EOPNOTSUPP";
    /// The time to wait was over.
    TimedOut = 110, "ETIMEDOUT";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(raw) => write!(f, "errno {raw}"),
            known => f.write_str(known.name()),
        }
    }
}

impl core::error::Error for Errno {}
