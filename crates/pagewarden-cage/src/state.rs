//! What belongs to one process besides Wasmtime's own: its space, its number, what it was started with.
//!
//! Owned here: the data of a [`Store`](wasmtime::Store). It lives as long as the instance; when it goes, so do the space's
//! pages and charges.

use std::sync::Arc;

use pagewarden::Account;
use pagewarden_linux::CallTally;
use pagewarden_linux::host_machine::HostSpace;
use wasmtime::{Instance, StoreLimits, StoreLimitsBuilder};

use crate::engine::Shared;
use crate::family::Process;
use crate::fork::{Numbers, Phase};
use crate::program::Program;
use crate::record::{Alive, Record};
use crate::setup::Setup;
use crate::wasi::Wasi;

/// The most elements of a table: what they take is the host's memory, not the cage's.
const TABLE_ELEMENTS_MAX: usize = 1 << 17;
/// The most tables of a store.
const TABLES_MAX: usize = 8;
/// The instances of a store: the program's, and one for WASI.
const INSTANCES_MAX: usize = 4;

/// What a host call finds of the process that makes it.
pub(crate) struct CageState {
    /// Its memory.
    pub(crate) space: Arc<HostSpace>,
    /// What its calls of WASI work on; made by the first.
    pub(crate) wasi: Option<Wasi>,
    /// What it was started with.
    pub(crate) setup: Arc<Setup>,
    /// What pays for its memory.
    pub(crate) account: Account,
    /// What all cages have in common.
    pub(crate) shared: Arc<Shared>,
    /// What it runs.
    pub(crate) program: Program,
    /// Its instance, once there is one.
    pub(crate) instance: Option<Instance>,
    /// Which passive data segments it has dropped.
    pub(crate) dropped: Vec<bool>,
    /// What references to its functions are, once a fork has asked.
    pub(crate) numbers: Option<Arc<Numbers>>,
    /// Where a fork stands that returns twice.
    pub(crate) phase: Phase,
    /// Its memory calls, for its report.
    pub(crate) calls: CallTally,
    /// That it lives, for the family's record.
    _alive: Option<Alive>,
    /// What Wasmtime may allocate for it.
    pub(crate) limits: StoreLimits,
    /// Its place among processes.
    pub(crate) process: Arc<Process>,
}

impl CageState {
    /// That of a process of `program` that has not begun.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        program: &Program,
        setup: &Arc<Setup>,
        (space, account): (Arc<HostSpace>, Account),
        process: &Arc<Process>,
    ) -> Self {
        let limits = StoreLimitsBuilder::new()
            .table_elements(TABLE_ELEMENTS_MAX)
            .tables(TABLES_MAX)
            .instances(INSTANCES_MAX)
            .memories(INSTANCES_MAX)
            .build();
        Self {
            space,
            wasi: None,
            setup: Arc::clone(setup),
            account,
            shared: Arc::clone(shared),
            program: program.clone(),
            instance: None,
            dropped: Vec::new(),
            numbers: None,
            phase: Phase::Running,
            calls: CallTally::default(),
            _alive: setup.record.as_ref().map(Record::begin),
            limits,
            process: Arc::clone(process),
        }
    }
}
