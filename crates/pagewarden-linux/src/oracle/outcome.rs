//! What a step answered.

use std::fmt;

/// What a step answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// This value.
    Value(u64),
    /// This error number.
    Error(i32),
    /// This signal, with its code and address.
    Fault {
        /// The signal.
        signal: u64,
        /// Its `si_code`.
        code: u64,
        /// Its `si_addr`.
        addr: u64,
    },
    /// So many bytes, with this hash.
    Bytes {
        /// How many.
        count: u64,
        /// Their hash.
        hash: u64,
    },
    /// Something that no kernel answers, in words: a mistake of ours.
    Broken(&'static str),
    /// Not done: it would have hit the interpreter's own memory, or filled the machine's.
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Value(value) => write!(f, "= {value:#x}"),
            Self::Error(errno) => match errno_name(errno) {
                Some(name) => write!(f, "! {name}"),
                None => write!(f, "! {errno}"),
            },
            Self::Fault { signal, code, addr } => write!(f, "fault signal {signal} code {code} at {addr:#x}"),
            Self::Bytes { count, hash } => write!(f, "= {count:#x} bytes {hash:#x}"),
            Self::Broken(words) => write!(f, "broken: {words}"),
            Self::Skipped => f.write_str("skipped"),
        }
    }
}

/// The name of an error that memory calls make.
fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "EPERM",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::ENOSPC => "ENOSPC",
        libc::EFBIG => "EFBIG",
        libc::ESPIPE => "ESPIPE",
        libc::EISDIR => "EISDIR",
        libc::ETXTBSY => "ETXTBSY",
        libc::EINVAL => "EINVAL",
        libc::ENOSYS => "ENOSYS",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        _ => return None,
    })
}
