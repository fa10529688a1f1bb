//! What a run is asked to do.

use std::ffi::OsString;

use pagewarden::manager::Policy;

/// A program to run and the rules for it.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The program: a path, or a name to look up in `PATH`.
    pub program: OsString,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// Most committed memory of the whole tree of processes, in bytes.
    pub commit_limit: Option<u64>,
    /// Most address space of the whole tree, in bytes.
    pub reserve_limit: Option<u64>,
    /// Most locked memory of the whole tree, in bytes.
    pub lock_limit: Option<u64>,
    /// Most regions of each process.
    pub map_limit: Option<u64>,
    /// W^X, `MAP_NORESERVE` and fork.
    pub policy: Policy,
    /// Whether the manager's map is compared with the host's.
    pub verify: Verify,
    /// What becomes of processes that outlive the program.
    pub on_exit: OnExit,
    /// Whether the map of each process is kept for [`crate::Report`] when it ends.
    pub keep_maps: bool,
}

/// Whether the manager's map is compared with the host's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// Never.
    #[default]
    Off,
    /// After every memory call; the first difference ends the run.
    EachCall,
}

/// What becomes of processes that the program leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnExit {
    /// The run lasts until they end too.
    #[default]
    Wait,
    /// They are killed.
    Kill,
}
