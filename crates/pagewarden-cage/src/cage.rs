//! One process: a store, an instance, a space and an account.
//!
//! Owned here: how one begins, how it is called, and how it ends. What a fork copies is [`crate::fork`]'s.

use std::fmt;
use std::sync::Arc;

use pagewarden::manager::{Break, Features, Layout, SpaceConfig};
use pagewarden::pager::CopyFault;
use pagewarden::vmmap::Direction;
use pagewarden::{Account, PAGE_SIZE, VirtAddr};
use pagewarden_linux::host_machine::HostSpace;
use wasmtime::{Func, Instance, Store, Val};

use crate::engine::{Shared, work_for};
use crate::error::CageError;
use crate::family::Process;
use crate::fork::{self, asyncify};
use crate::program::{LOWEST, Program};
use crate::setup::Setup;
use crate::stack::with_stack;
use crate::state::CageState;
use crate::trap::{CageTrap, Ended, ended};
use crate::{maps, memory, signals};

/// The end of what a guest can map: the last page stays free, so that no address looks like an error number.
const TASK_END: u64 = 0xffff_f000;

/// One process in a cage.
pub struct Cage {
    pub(crate) store: Store<CageState>,
    pub(crate) instance: Instance,
    space: Arc<HostSpace>,
    /// The last to go: whoever is told of the end finds the rest gone.
    process: Arc<Process>,
}

impl fmt::Debug for Cage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cage").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// Where a process begins.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// At an exported function.
    Export {
        /// Its name.
        name: String,
        /// What it is given.
        args: Vec<Val>,
    },
    /// At a function that a table has, given one number.
    Function {
        /// Its place among the program's functions.
        id: usize,
        /// The number.
        argument: i32,
    },
}

impl Entry {
    /// Whether it means the same in another store: references do not.
    pub(crate) fn is_portable(&self) -> bool {
        match self {
            Self::Export { args, .. } => args
                .iter()
                .all(|arg| matches!(arg, Val::I32(_) | Val::I64(_) | Val::F32(_) | Val::F64(_) | Val::V128(_))),
            Self::Function { .. } => true,
        }
    }
}

/// How a process has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// What it was stopped for; none if it ended by itself.
    pub trap: Option<Box<CageTrap>>,
    /// What it gave to exit, as it gave it; 0 if it was stopped.
    pub code: i32,
    /// Its map at the end, as `/proc/PID/maps` would show it.
    pub maps: String,
}

impl Exit {
    /// As wait(2) says it.
    pub fn status(&self) -> i32 {
        self.trap.as_ref().map_or((self.code & 0xff) << 8, |trap| trap.signal())
    }

    /// As a shell says it: the code, or 128 and the number of the signal.
    pub fn shell_code(&self) -> i32 {
        self.trap.as_ref().map_or(self.code & 0xff, |trap| 128 + trap.signal())
    }
}

impl Cage {
    /// A process of `program`, whose start function has run.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        program: &Program,
        setup: &Arc<Setup>,
        process: Arc<Process>,
    ) -> Result<Self, CageError> {
        let account = shared.new_account();
        let config = space_config(shared, program, &account);
        let space = HostSpace::new(&shared.memory, memory::reserve()?, config);
        let space = space.map_err(CageError::refused("no memory for a space"))?;
        program.map(&space)?;
        let state = CageState::new(shared, program, setup, (space, account), &process);
        let mut cage = Self::new(state)?;
        if let Some(start) = &program.0.start {
            let started = cage.call(start, &[]);
            started.map_err(|ended| CageError::Start(Box::new(ended)))?;
        }
        Ok(cage)
    }

    /// An instance for a process whose memory is there.
    pub(crate) fn new(state: CageState) -> Result<Self, CageError> {
        let (space, process) = (Arc::clone(&state.space), Arc::clone(&state.process));
        let program = state.program.clone();
        let mut store = Store::new(&state.shared.engine.clone(), state);
        store.limiter(|state| &mut state.limits);
        signals::watch(&mut store);
        let instance = memory::hand_over(&space, || program.0.instance.instantiate(&mut store));
        let instance = instance.map_err(CageError::wasmtime("cannot make an instance"))?;
        store.data_mut().instance = Some(instance);
        Ok(Self { store, instance, space, process })
    }

    /// Calls an exported function. A guest that was stopped can be called again; what it did before stays.
    ///
    /// # Errors
    /// How the guest has ended, or why it was not called.
    pub fn call(&mut self, export: &str, args: &[Val]) -> Result<Vec<Val>, Ended> {
        self.drive(&Entry::Export { name: export.into(), args: args.to_vec() })
    }

    /// Runs the program from `_start` to its end, and ends the process. Children go on by themselves.
    ///
    /// # Errors
    /// There is no such function.
    pub fn run(mut self) -> Result<Exit, CageError> {
        let ended = self.drive(&Entry::Export { name: "_start".into(), args: Vec::new() });
        self.exit(ended)
    }

    /// Lives as a child that a guest has asked for, until the end.
    pub(crate) fn live(mut self, entry: &Entry) {
        let ended = self.drive(entry);
        // Without a function to call it is as if killed; whoever made the child has seen that there is one.
        drop(self.exit(ended));
    }

    fn exit(self, ended: Result<Vec<Val>, Ended>) -> Result<Exit, CageError> {
        let maps = self.maps_text();
        let exit = match ended {
            Ok(results) => Exit { trap: None, code: code_of(&results), maps },
            Err(Ended::Exit(code)) => Exit { trap: None, code, maps },
            Err(Ended::Trap(trap)) => Exit { trap: Some(trap), code: 0, maps },
            Err(Ended::NotCalled(error)) => return Err(error),
        };
        if let Some(record) = &self.store.data().setup.record {
            record.end(self.store.data(), &exit);
        }
        let Self { store, space, process, .. } = self;
        let shared = Arc::clone(&store.data().shared);
        drop((store, space));
        // With it a segment that was removed may have ended.
        shared.segments().sweep();
        process.end(exit.status());
        Ok(exit)
    }

    /// Calls the function, and again as often as a fork has taken it apart.
    fn drive(&mut self, entry: &Entry) -> Result<Vec<Val>, Ended> {
        let stack_bytes = self.store.data().shared.stack_bytes;
        with_stack(stack_bytes, || self.drive_here(entry)).unwrap_or_else(|error| Err(CageError::Thread(error).into()))
    }

    fn drive_here(&mut self, entry: &Entry) -> Result<Vec<Val>, Ended> {
        let space = Arc::clone(&self.space);
        let _entered = space.enter();
        work_for(self.pid());
        let (function, args) = self.function(entry)?;
        signals::forget_last();
        let driven = self.drive_function(entry, &function, &args).map_err(|error| ended(&error, &space));
        asyncify::give_up(self);
        driven
    }

    fn drive_function(&mut self, entry: &Entry, function: &Func, args: &[Val]) -> wasmtime::Result<Vec<Val>> {
        loop {
            asyncify::before_call(self)?;
            let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
            function.call(&mut self.store, args, &mut results)?;
            if !asyncify::after_call(self, entry)? {
                return Ok(results);
            }
        }
    }

    /// What to call for `entry`.
    fn function(&mut self, entry: &Entry) -> Result<(Func, Vec<Val>), CageError> {
        match entry {
            Entry::Export { name, args } => {
                let function = self.instance.get_func(&mut self.store, name);
                let function = function.ok_or_else(|| CageError::NoFunction(name.clone()))?;
                let wanted = function.ty(&self.store);
                let is_fitting = wanted.params().len() == args.len()
                    && wanted.params().zip(args).all(|(ty, arg)| arg.matches_ty(&self.store, &ty).unwrap_or(false));
                if is_fitting { Ok((function, args.clone())) } else { Err(CageError::Arguments(name.clone())) }
            }
            Entry::Function { id, argument } => {
                let function = fork::function(&mut self.store, *id);
                let function = function.ok_or_else(|| CageError::NoFunction(format!("number {id}")))?;
                Ok((function, vec![Val::I32(*argument)]))
            }
        }
    }

    /// A process with a copy of the memory, the globals and the tables, that is at no place of the program. It is of the
    /// same family, and no guest waits for it.
    ///
    /// # Errors
    /// A limit, or the host has no memory or addresses for it.
    pub fn fork(&mut self) -> Result<Self, CageError> {
        fork::duplicate(&mut self.store, Process::unwaited)
    }

    /// Its memory.
    pub const fn space(&self) -> &Arc<HostSpace> {
        &self.space
    }

    /// Copies bytes out of its memory.
    ///
    /// # Errors
    /// The first byte that cannot be read.
    pub fn read(&self, from: u32, to: &mut [u8]) -> Result<(), CopyFault> {
        self.space.read(VirtAddr::new(from.into()), to)
    }

    /// Copies bytes into its memory.
    ///
    /// # Errors
    /// The first byte that cannot be written.
    pub fn write(&self, to: u32, from: &[u8]) -> Result<(), CopyFault> {
        self.space.write(VirtAddr::new(to.into()), from)
    }

    /// Its map, as `/proc/PID/maps` would show it.
    pub fn maps_text(&self) -> String {
        maps::text(&self.space)
    }

    /// What pays for its memory.
    pub fn account(&self) -> &Account {
        &self.store.data().account
    }

    /// Its number in its family; the first process has number 1.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }
}

/// What a function that returns gives to exit: the first number, if there is one.
fn code_of(results: &[Val]) -> i32 {
    match results.first() {
        Some(Val::I32(code)) => *code,
        _ => 0,
    }
}

fn space_config(shared: &Shared, program: &Program, account: &Account) -> SpaceConfig {
    let layout = Layout {
        task_end: VirtAddr::new(TASK_END),
        mmap_base: VirtAddr::new(TASK_END),
        // Nothing is found from there on: not above 4 GiB, and not what a search from the top has not found.
        bottom_up_base: VirtAddr::new(TASK_END),
        direction: Direction::TopDown,
        min_addr: VirtAddr::new(16 * PAGE_SIZE),
        min_fixed_addr: VirtAddr::new(LOWEST),
    };
    let end = VirtAddr::new(program.initial_end());
    let mut config = SpaceConfig::new(layout, account.clone());
    config.brk = Break { start: end, current: end, data_bytes: 0 };
    // Compiled code has no register of rights by key.
    config.features = Features::ALL.without_keys();
    config.policy = shared.policy.clone();
    config
}
