//! Processes and threads, as far as they are not memory.
//!
//! A process's memory ([`Memory`]) is its threads': it goes with the last of them, and only then is the process said to be
//! over. So whoever has waited for it finds all that it had given back. A process that ends has its other threads end at
//! their next trap.
//!
//! Locks: those of a process's children, output and ring, each by itself; the ring's is held while its calls are carried
//! out, so whatever they lock comes after it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pagewarden::cap::{self, Binding, CapError, FixedPlaces, Interface, InterfaceId};
use pagewarden::manager::{Layout, SpaceConfig};
use pagewarden::{Account, Errno, Limits, VirtAddr};
use pagewarden_kernel_abi as abi;
use pagewarden_kernel_loader::{Arguments, Image, ImageError, LoadError, map_stack};
use spin::Mutex;

use crate::calls::{CallInProgress, Ring};
use crate::machine::kernel;
use crate::memory::Hardware;
use crate::trap::Context;
use crate::{memory, random, schedule, transcript};

/// What a process has: an address space, capabilities, an account.
pub(crate) type Memory = cap::Process<Hardware>;

/// The most threads there are at a time.
const THREADS_MOST: usize = 256;
/// No status yet.
const RUNS: u64 = u64::MAX;
/// The longest line that is kept until it is complete.
const LINE_MOST: usize = 200;

static THREADS: AtomicUsize = AtomicUsize::new(0);
static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Why there is no new process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SpawnError {
    /// The kernel has no such program.
    NoProgram,
    /// What the program is made of is no image.
    Image(ImageError),
    /// Its memory cannot be had.
    Memory(CapError),
    /// What should be in it does not fit.
    Load(LoadError),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => f.write_str("no such program"),
            Self::Image(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
        }
    }
}

impl From<SpawnError> for Errno {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::NoProgram => Self::NoEnt,
            SpawnError::Image(error) => error.into(),
            SpawnError::Memory(error) => error.errno(),
            SpawnError::Load(error) => error.into(),
        }
    }
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) limits: Limits,
    memory: Weak<Memory>,
    /// What its first thread will be.
    unstarted: Mutex<Option<(Arc<Memory>, Context)>>,
    pub(crate) children: Mutex<Vec<Arc<Self>>>,
    pub(crate) ring: Mutex<Ring>,
    output: Mutex<String>,
    status: AtomicU64,
    threads: AtomicUsize,
    is_over: AtomicBool,
}

impl Interface for Process {
    const ID: InterfaceId = InterfaceId(abi::interface::PROCESS);

    /// Two processes that have not been started, each with a handle to the other, would keep each other for good.
    fn binding(&self) -> Binding {
        Binding::Bound
    }
}

/// A thread that does not run, or the processor's that runs it.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) id: u64,
    pub(crate) process: Arc<Process>,
    /// Always there but while it is dropped.
    memory: Option<Arc<Memory>>,
    pub(crate) context: Context,
    /// A call that waits, and is tried again before the thread goes on.
    pub(crate) in_progress: Option<CallInProgress>,
    /// What the process ends with if this is its last thread.
    pub(crate) status: u64,
    _place: Place,
}

/// The right to be one of the threads that there may be.
#[derive(Debug)]
struct Place;

impl Place {
    /// # Errors
    /// `EAGAIN` if there are too many.
    fn take() -> Result<Self, Errno> {
        let place = Self;
        let others = THREADS.fetch_add(1, Ordering::Relaxed);
        if others < THREADS_MOST { Ok(place) } else { Err(Errno::Again) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Process {
    fn new(name: &str, limits: Limits, memory: &Arc<Memory>) -> Self {
        Self {
            id: next_id(),
            name: String::from(name),
            limits,
            memory: Arc::downgrade(memory),
            unstarted: Mutex::new(None),
            children: Mutex::new(Vec::new()),
            ring: Mutex::new(Ring::default()),
            output: Mutex::new(String::new()),
            status: AtomicU64::new(RUNS),
            threads: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// A process for a program, which does not run yet. `account` pays for it.
    ///
    /// # Errors
    /// What is wrong with the image, or what it takes that is not there. Nothing stays of it then.
    pub(crate) fn load(name: &str, bytes: &[u8], account: Account, limits: Limits) -> Result<Arc<Self>, SpawnError> {
        memory::check_heap().map_err(|errno| SpawnError::Memory(errno.into()))?;
        let image = Image::parse(bytes).map_err(SpawnError::Image)?;
        let config = SpaceConfig { brk: image.brk(), ..SpaceConfig::new(Layout::X86_64, account) };
        let places = FixedPlaces { capability_set: VirtAddr::new(abi::CAPABILITY_SET), ring: VirtAddr::new(abi::RING) };
        let memory = Memory::new(&kernel().pager, config, places).map_err(SpawnError::Memory)?;
        image.map(memory.space()).map_err(SpawnError::Load)?;
        let arguments = Arguments { image, name: name.as_bytes(), others: &[], random: random::bytes() };
        let rsp = map_stack(memory.space(), &arguments).map_err(SpawnError::Load)?;
        let memory = Arc::new(memory);
        let process = Self::new(name, limits, &memory);
        *process.unstarted.lock() = Some((memory, Context::new(image.entry().as_u64(), rsp.as_u64())));
        Ok(Arc::new(process))
    }

    /// Lets it run.
    ///
    /// # Errors
    /// `EBUSY` if it does already; `EAGAIN` for too many threads.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Errno> {
        let place = Place::take()?;
        let first = self.unstarted.lock().take().ok_or(Errno::Busy)?;
        schedule::add(Thread::new(place, self.id, self, first));
        Ok(())
    }

    /// A process with a copy of `thread`'s memory and registers, which runs from now on. The call answers 0 there.
    ///
    /// # Errors
    /// No frames, a limit, or too many threads.
    pub(crate) fn fork(thread: &Thread) -> Result<Box<Thread>, Errno> {
        memory::check_heap()?;
        let place = Place::take()?;
        let parent = &thread.process;
        let account = kernel().ledger.root().child(parent.limits);
        let memory = Arc::new(thread.memory().fork(account).map_err(CapError::errno)?);
        let child = Arc::new(Self::new(&parent.name, parent.limits, &memory));
        let mut context = thread.context.clone();
        context.rax = 0;
        let forked = Thread::new(place, child.id, &child, (memory, context));
        parent.children.lock().push(child);
        Ok(forked)
    }

    /// Its memory, as long as it has some.
    pub(crate) fn memory(&self) -> Option<Arc<Memory>> {
        self.memory.upgrade()
    }

    /// Ends it with a status, as wait(2) tells it, unless it has ended before.
    pub(crate) fn end(&self, status: u64) {
        if self.status.compare_exchange(RUNS, status, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            if let Some(memory) = self.memory() {
                memory.exit();
            }
            schedule::event();
        }
    }

    /// Whether it ends, or has.
    pub(crate) fn has_ended(&self) -> bool {
        self.status.load(Ordering::Acquire) != RUNS
    }

    /// Its status, once nothing of it is left.
    pub(crate) fn status(&self) -> Option<u64> {
        self.is_over.load(Ordering::Acquire).then(|| self.status.load(Ordering::Acquire))
    }

    /// Takes text that the process writes; each line that is complete is logged.
    pub(crate) fn write(&self, text: &str) {
        let mut output = self.output.lock();
        for character in text.chars() {
            if character == '\n' || output.len() >= LINE_MOST {
                transcript::report_program(&self.name, &output);
                output.clear();
            }
            if !character.is_control() {
                output.push(character);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let output = self.output.get_mut();
        if !output.is_empty() {
            transcript::report_program(&self.name, output);
        }
    }
}

impl Thread {
    fn new(place: Place, id: u64, process: &Arc<Process>, (memory, context): (Arc<Memory>, Context)) -> Box<Self> {
        process.threads.fetch_add(1, Ordering::Relaxed);
        let (process, memory) = (Arc::clone(process), Some(memory));
        Box::new(Self { id, process, memory, context, in_progress: None, status: 0, _place: place })
    }

    /// One more thread of the same process.
    ///
    /// # Errors
    /// `EAGAIN` for too many, `ENOMEM`.
    pub(crate) fn beside(&self, context: Context) -> Result<Box<Self>, Errno> {
        memory::check_heap()?;
        Ok(Self::new(Place::take()?, next_id(), &self.process, (Arc::clone(self.memory()), context)))
    }

    /// The memory that it is in.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        self.memory.as_ref().unwrap_or_else(|| unreachable!("only its end takes it"))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.in_progress = None;
        self.memory = None;
        if self.process.threads.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.process.end(self.status);
            self.process.is_over.store(true, Ordering::Release);
            schedule::event();
        }
    }
}

fn next_id() -> u64 {
    LAST_ID.fetch_add(1, Ordering::Relaxed) + 1
}
