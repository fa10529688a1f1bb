//! What a cage starts with: arguments, environment, directories, standard streams, descriptors that can be mapped.
//!
//! Owned here: the values alone. What a program sees of them by WASI is made from them for each process anew, also for
//! a forked child.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pagewarden::linux::Files;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

use crate::record::Record;

/// What mmap(2) and its like ask about a guest's descriptors; all processes of a family ask the same.
pub type SharedFiles = Arc<Mutex<dyn Files + Send>>;

/// What a cage starts with. The default is no arguments, no environment, no directories, and no input or output.
#[derive(Clone, Default)]
pub struct Setup {
    /// The arguments, the program's name first.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Directories of the host that the program can open files in.
    pub dirs: Vec<Directory>,
    /// The standard streams.
    pub stdio: Stdio,
    /// What the guest's descriptors are to its memory calls; without it, no descriptor is open.
    pub files: Option<SharedFiles>,
    /// Where the family's processes are noted when they end.
    pub record: Option<Record>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { args, env, dirs, stdio, files: _, record: _ } = self;
        f.debug_struct("Setup")
            .field("args", args)
            .field("env", env)
            .field("dirs", dirs)
            .field("stdio", stdio)
            .finish_non_exhaustive()
    }
}

/// A directory that a program can open files in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    /// Where it is on the host.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
}

/// Where standard input comes from, where output goes.
#[derive(Clone, Debug, Default)]
pub enum Stdio {
    /// Nowhere: input is at its end, output is thrown away.
    #[default]
    Nothing,
    /// This process's own.
    Inherited,
    /// Input is these bytes; output is kept.
    Kept {
        /// What can be read.
        input: Vec<u8>,
        /// What has been written to standard output.
        output: Kept,
        /// What has been written to standard error.
        errors: Kept,
    },
}

/// Output that is kept in memory, of all processes of a family. Clones are the same.
#[derive(Clone, Debug)]
pub struct Kept(MemoryOutputPipe);

impl Kept {
    /// Nothing yet, and at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(MemoryOutputPipe::new(bytes_max))
    }

    /// What has been written.
    pub fn contents(&self) -> Vec<u8> {
        self.0.contents().to_vec()
    }

    /// The end that is written to.
    pub(crate) fn pipe(&self) -> MemoryOutputPipe {
        self.0.clone()
    }
}
