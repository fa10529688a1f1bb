//! What all cages of an embedder have in common: Wasmtime's engine, the memory of the host, accounts, System V segments.
//!
//! Owned here: options and what is made from them once. Outside: one program ([`crate::program`]), one process
//! ([`crate::cage`]).

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pagewarden::manager::Policy;
use pagewarden::object::sysv::{SegmentLimits, SegmentPolicy, SegmentTable, Surroundings};
use pagewarden::{Account, Limits, Resource, ResourceLedger};
use pagewarden_linux::host_machine::{HostMemory, HostMemoryOptions};
use wasmtime::{Config, Engine, Linker};

use crate::cage::Cage;
use crate::calls;
use crate::error::CageError;
use crate::family::{Census, Family};
use crate::memory::{CAGE_BYTES, CageMemories, GUARD_BYTES};
use crate::program::Program;
use crate::setup::Setup;
use crate::state::CageState;
use crate::wasi;

/// What the stack of a thread has besides what compiled code may use: host calls run there, and Wasmtime.
pub(crate) const HOST_STACK_BYTES: usize = 512 << 10;
/// No stack is larger.
const STACK_BYTES_MAX: usize = 1 << 30;
/// None is smaller.
const STACK_BYTES_MIN: usize = 64 << 10;

/// What cages may have.
#[derive(Clone, Debug)]
pub struct CageOptions {
    /// The most memory that all processes together are promised, in bytes.
    pub commit_limit: Option<u64>,
    /// The most addresses that all processes together map, in bytes.
    pub reserve_limit: Option<u64>,
    /// The most memory that one process is promised, in bytes.
    pub process_commit_limit: Option<u64>,
    /// The most processes at once, each with a thread of the host while it runs.
    pub processes_max: usize,
    /// What is decided once for all spaces.
    pub policy: Policy,
    /// The size of the file that is RAM, in bytes. It is sparse: what is not in use costs the host nothing.
    pub memory_bytes: u64,
    /// What compiled code may use of a thread's stack, in bytes.
    pub stack_bytes: usize,
}

impl Default for CageOptions {
    /// No limits but 1024 processes; RAM of 16 GiB, stacks of 1 MiB.
    fn default() -> Self {
        Self {
            commit_limit: None,
            reserve_limit: None,
            process_commit_limit: None,
            processes_max: 1024,
            policy: Policy::default(),
            memory_bytes: 16 << 30,
            stack_bytes: 1 << 20,
        }
    }
}

/// What all cages of one [`Cages`] have in common.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) linker: Linker<CageState>,
    pub(crate) census: Arc<Census>,
    pub(crate) policy: Policy,
    pub(crate) stack_bytes: usize,
    /// Pays for everything.
    account: Account,
    process_limits: Limits,
    segments: Mutex<SegmentTable>,
}

impl Shared {
    /// An account for a new process.
    pub(crate) fn new_account(&self) -> Account {
        self.account.child(self.process_limits)
    }

    /// The System V segments.
    pub(crate) fn segments(&self) -> MutexGuard<'_, SegmentTable> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs programs in cages.
///
/// Clones are the same.
#[derive(Clone)]
pub struct Cages(Arc<Shared>);

impl fmt::Debug for Cages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cages").field("processes", &self.processes()).finish_non_exhaustive()
    }
}

impl Cages {
    /// An engine, and memory for its cages.
    ///
    /// # Errors
    /// Options that make no sense, or the host has no memory.
    pub fn new(options: &CageOptions) -> Result<Self, CageError> {
        if !(STACK_BYTES_MIN..=STACK_BYTES_MAX).contains(&options.stack_bytes) {
            return Err(CageError::Options("a stack has between 64 KiB and 1 GiB"));
        }
        let engine = Engine::new(&config(options)).map_err(CageError::wasmtime("cannot set up Wasmtime"))?;
        let limits = Limits::UNLIMITED
            .with_bytes(Resource::Committed, options.commit_limit)
            .with_bytes(Resource::Virtual, options.reserve_limit);
        let account = ResourceLedger::new(limits).root().clone();
        let memory_options = HostMemoryOptions { bytes: options.memory_bytes, mappings_max: None };
        let memory = HostMemory::new(&memory_options, &account)?;
        let Policy { overcommit, no_reserve, .. } = options.policy;
        let segments = SegmentTable::new(
            SegmentLimits::default(),
            SegmentPolicy { account: account.clone(), overcommit, no_reserve },
            Arc::new(World),
        );
        let mut linker = Linker::new(&engine);
        calls::link(&mut linker).map_err(CageError::wasmtime("cannot link the cage's own calls"))?;
        wasi::link(&mut linker).map_err(CageError::wasmtime("cannot link WASI"))?;
        Ok(Self(Arc::new(Shared {
            engine,
            memory,
            linker,
            census: Census::new(options.processes_max),
            policy: options.policy.clone(),
            stack_bytes: options.stack_bytes,
            account,
            process_limits: Limits::UNLIMITED.with_bytes(Resource::Committed, options.process_commit_limit),
            segments: Mutex::new(segments),
        })))
    }

    /// Compiles a module, or the text of one, for cages. `name` is what maps call its data.
    ///
    /// # Errors
    /// It is not a module, or one that cannot run in a cage.
    pub fn load(&self, wasm_or_wat: &[u8], name: &str) -> Result<Program, CageError> {
        Program::new(&self.0, wasm_or_wat, name)
    }

    /// Makes a process of `program`, the first of its family. Its start function, if it has one, has run.
    ///
    /// # Errors
    /// A limit, or the host has no memory or addresses for it; or the start function did not return.
    pub fn start(&self, program: &Program, setup: Setup) -> Result<Cage, CageError> {
        let census = &self.0.census;
        let permit = census.admit().ok_or(CageError::TooManyProcesses(census.most()))?;
        Cage::start(&self.0, program, &Arc::new(setup), Arc::new(Family::first(permit)))
    }

    /// How many processes there are: those that live, and those whose end their parent has not asked for.
    pub fn processes(&self) -> usize {
        self.0.census.count()
    }

    /// The account that pays for all of them.
    pub fn account(&self) -> &Account {
        &self.0.account
    }

    /// The memory that all of them have pages of.
    pub fn memory(&self) -> &Arc<HostMemory> {
        &self.0.memory
    }
}

/// Loads and stores without checks of bounds, in a memory that never moves; no epochs and no fuel, which cost a program that
/// only computes.
fn config(options: &CageOptions) -> Config {
    let mut config = Config::new();
    config
        .with_host_memory(Arc::new(CageMemories))
        .memory_reservation(CAGE_BYTES as u64)
        .memory_guard_size(GUARD_BYTES as u64)
        .memory_may_move(false)
        .memory_init_cow(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .async_stack_size(options.stack_bytes + HOST_STACK_BYTES)
        .max_wasm_stack(options.stack_bytes);
    config
}

thread_local! {
    /// The process that this thread works for.
    static PID: Cell<i32> = const { Cell::new(0) };
}

/// Notes for which process this thread works.
pub(crate) fn work_for(pid: i32) {
    PID.set(pid);
}

/// The time, and which process asks.
struct World;

impl Surroundings for World {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs().try_into().unwrap_or(i64::MAX)
    }

    fn pid(&self) -> i32 {
        PID.get()
    }
}
