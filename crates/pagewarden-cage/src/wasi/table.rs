//! What the parameters of WASI's functions are: which of them are addresses, of how many bytes, read or written.
//!
//! A function that is not in here cannot be imported: how it would reach into memory is not known.

/// One parameter of a function, or the few that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arg {
    /// A number.
    Value,
    /// The address and the length of bytes that are read.
    Bytes,
    /// The address and the length of an array of buffers that are read.
    Gather,
    /// The address and the length of an array of buffers that are written, as far as [`Arg::Count`] says.
    Scatter,
    /// The address and the length of a buffer that is written, as far as [`Arg::Count`] says.
    Buffer,
    /// The addresses of subscriptions and of events, and how many there is room for; [`Arg::Count`] says how many
    /// events there are.
    Events,
    /// The address of a result of so many bytes.
    Result(u32),
    /// The address of a result of four bytes: how much was read, written or found.
    Count,
}

impl Arg {
    /// How many parameters of the function it is.
    #[cfg(test)]
    pub(super) const fn parameters(self) -> usize {
        match self {
            Self::Value | Self::Result(_) | Self::Count => 1,
            Self::Bytes | Self::Gather | Self::Scatter | Self::Buffer => 2,
            Self::Events => 3,
        }
    }
}

/// How a function is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// With each parameter as it says.
    Plain(&'static [Arg]),
    /// With the addresses of an array of pointers and of the strings that they point to; the function of this name
    /// tells how many there are.
    Strings(&'static str),
    /// With a directory, and a buffer for its name, which is as long as `fd_prestat_get` says.
    DirectoryName,
    /// With a buffer that is filled.
    Fill,
    /// Not at all: the program ends.
    Exit,
}

impl Kind {
    /// How many parameters the function has.
    #[cfg(test)]
    pub(super) fn parameters(self) -> usize {
        match self {
            Self::Plain(args) => args.iter().map(|arg| arg.parameters()).sum(),
            Self::Strings(_) | Self::Fill => 2,
            Self::DirectoryName => 3,
            Self::Exit => 1,
        }
    }
}

/// The sizes of what WASI's functions hand over, in bytes.
pub(super) mod size {
    pub(in crate::wasi) const WORD: u32 = 4;
    pub(in crate::wasi) const LONG: u32 = 8;
    pub(in crate::wasi) const BUFFER: u32 = 8;
    pub(in crate::wasi) const FLAGS: u32 = 2;
    pub(in crate::wasi) const PRESTAT: u32 = 8;
    pub(in crate::wasi) const FDSTAT: u32 = 24;
    pub(in crate::wasi) const FILESTAT: u32 = 64;
    pub(in crate::wasi) const SUBSCRIPTION: u32 = 48;
    pub(in crate::wasi) const EVENT: u32 = 32;
}

/// How the function called `name` is called.
pub(super) fn kind(name: &str) -> Option<Kind> {
    use Arg::{Buffer, Bytes, Count, Events, Gather, Result, Scatter, Value};

    const LONG: Arg = Result(size::LONG);
    const FILESTAT: Arg = Result(size::FILESTAT);

    Some(match name {
        "args_get" => Kind::Strings("args_sizes_get"),
        "environ_get" => Kind::Strings("environ_sizes_get"),
        "fd_prestat_dir_name" => Kind::DirectoryName,
        "random_get" => Kind::Fill,
        "proc_exit" => Kind::Exit,
        "args_sizes_get" | "environ_sizes_get" => Kind::Plain(&[Result(size::WORD), Result(size::WORD)]),
        "clock_res_get" => Kind::Plain(&[Value, LONG]),
        "clock_time_get" => Kind::Plain(&[Value, Value, LONG]),
        "sched_yield" => Kind::Plain(&[]),
        "fd_close" | "fd_datasync" | "fd_sync" | "proc_raise" => Kind::Plain(&[Value]),
        "fd_fdstat_set_flags" | "fd_filestat_set_size" | "fd_renumber" | "sock_shutdown" => {
            Kind::Plain(&[Value, Value])
        }
        "fd_allocate" | "fd_fdstat_set_rights" => Kind::Plain(&[Value, Value, Value]),
        "fd_advise" | "fd_filestat_set_times" => Kind::Plain(&[Value, Value, Value, Value]),
        "fd_fdstat_get" => Kind::Plain(&[Value, Result(size::FDSTAT)]),
        "fd_filestat_get" => Kind::Plain(&[Value, FILESTAT]),
        "fd_prestat_get" => Kind::Plain(&[Value, Result(size::PRESTAT)]),
        "fd_tell" => Kind::Plain(&[Value, LONG]),
        "fd_seek" => Kind::Plain(&[Value, Value, Value, LONG]),
        "fd_read" => Kind::Plain(&[Value, Scatter, Count]),
        "fd_pread" => Kind::Plain(&[Value, Scatter, Value, Count]),
        "fd_write" => Kind::Plain(&[Value, Gather, Count]),
        "fd_pwrite" => Kind::Plain(&[Value, Gather, Value, Count]),
        "fd_readdir" => Kind::Plain(&[Value, Buffer, Value, Count]),
        "path_create_directory" | "path_remove_directory" | "path_unlink_file" => Kind::Plain(&[Value, Bytes]),
        "path_filestat_get" => Kind::Plain(&[Value, Value, Bytes, FILESTAT]),
        "path_filestat_set_times" => Kind::Plain(&[Value, Value, Bytes, Value, Value, Value]),
        "path_link" => Kind::Plain(&[Value, Value, Bytes, Value, Bytes]),
        "path_open" => Kind::Plain(&[Value, Value, Bytes, Value, Value, Value, Value, Result(size::WORD)]),
        "path_readlink" => Kind::Plain(&[Value, Bytes, Buffer, Count]),
        "path_rename" => Kind::Plain(&[Value, Bytes, Value, Bytes]),
        "path_symlink" => Kind::Plain(&[Bytes, Value, Bytes]),
        "poll_oneoff" => Kind::Plain(&[Events, Count]),
        "sock_accept" => Kind::Plain(&[Value, Value, Result(size::WORD)]),
        "sock_recv" => Kind::Plain(&[Value, Scatter, Value, Count, Result(size::FLAGS)]),
        "sock_send" => Kind::Plain(&[Value, Gather, Value, Count]),
        _ => return None,
    })
}
