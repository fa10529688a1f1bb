//! Cages as a machine: a process is a cage, which a driver in WebAssembly makes calls in and touches memory for.
//!
//! A cage has what the driver needs below the range of programs: a page for bytes, and the segment, which all attach. Files
//! are those of the oracle's kernel: what it has found behind a descriptor a cage is told when it asks.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use pagewarden::linux::{Files, MapSource, OpenFile, Request, Segment};
use pagewarden::manager::{ResourceLimits, SpaceConfig};
use pagewarden::{Errno, PAGE_SIZE, VirtAddr};
use pagewarden_cage::{Cage, CageOptions, CageTrap, Cages, Ended, Program, Setup, TrapKind, Val};
use pagewarden_linux::host_machine::HostSpace;
use pagewarden_linux::oracle::outcome::Outcome;
use pagewarden_linux::oracle::{Balance, Books, Hardware, MemoryCall, Object, Objects, Outside, Space};

/// What runs in each cage.
const DRIVER: &[u8] = include_bytes!("driver.wat");
/// Bytes of memory, which no program fills.
const MEMORY_BYTES: u64 = 128 << 20;
/// The page for bytes.
const BYTES: u32 = 0x1000;
/// Where the segment is attached, and how long it is.
const SEGMENT: u32 = 0x8000;
const SEGMENT_BYTES: u32 = 0x8000;
/// Asks how many segments there are.
const SHM_INFO: i32 = 14;
/// Where what a program knows nothing of begins and ends.
const OUTSIDE: [u64; 2] = [0x1000, 0x1_0000];

/// The file that the next call is about.
#[derive(Debug, Default)]
struct Relay(Option<OpenFile>);

impl Files for Relay {
    fn open_file(&mut self, _fd: i32) -> Result<OpenFile, Errno> {
        self.0.clone().ok_or(Errno::BadF)
    }

    /// A cage has segments of its own.
    fn segment(&mut self, _id: i32) -> Result<Segment, Errno> {
        Err(Errno::Inval)
    }

    /// And reads its memory by itself.
    fn string(&mut self, _addr: u64, _len_max: usize) -> Result<Vec<u8>, Errno> {
        Err(Errno::Fault)
    }

    fn bytes(&mut self, _addr: u64, _len: usize) -> Vec<u8> {
        Vec::new()
    }
}

/// Cages, and what runs in them.
#[derive(Debug)]
pub(crate) struct CageHardware {
    cages: Cages,
    program: Program,
    balance: Balance,
    relay: Arc<Mutex<Relay>>,
    segment: RefCell<Option<Object>>,
}

/// A process.
#[derive(Debug)]
struct CageSpace {
    cage: RefCell<Cage>,
    space: Arc<HostSpace>,
    /// The identifier of the segment.
    segment: u64,
    outside: Outside,
    relay: Arc<Mutex<Relay>>,
}

impl CageHardware {
    /// Cages that have just been set up, for processes like that of `config`.
    ///
    /// # Errors
    /// What they say.
    pub(crate) fn new(config: &SpaceConfig) -> io::Result<Self> {
        let (policy, memory_bytes) = (config.policy.clone(), MEMORY_BYTES);
        let options = CageOptions { policy, memory_bytes, ..CageOptions::default() };
        let cages = Cages::new(&options).map_err(io::Error::other)?;
        let program = cages.load(DRIVER, "driver").map_err(io::Error::other)?;
        let balance = Balance::new(cages.memory().pager(), cages.account());
        Ok(Self { cages, program, balance, relay: Arc::default(), segment: RefCell::new(None) })
    }
}

impl Hardware for CageHardware {
    fn objects(&self) -> &dyn Objects {
        self.cages.memory().pager()
    }

    fn space(&self, config: SpaceConfig) -> Result<Box<dyn Space>, Errno> {
        let files: Arc<Mutex<Relay>> = Arc::clone(&self.relay);
        let setup = Setup { files: Some(files), ..Setup::default() };
        let mut cage = self.cages.start(&self.program, setup).map_err(|_| Errno::NoMem)?;
        share_bytes(&mut cage)?;
        let segment = attach_segment(&mut cage)?;
        let space = Arc::clone(cage.space());
        let map = space.space().map();
        let attached = map.get(VirtAddr::new(SEGMENT.into())).and_then(|entry| entry.region.object().cloned());
        self.segment.replace(attached);
        let (totals, _) = space.space().totals();
        let outside = Outside { bytes: totals.virtual_pages * PAGE_SIZE, data_bytes: totals.data_pages * PAGE_SIZE };
        space.space().set_privileges(config.privileges);
        let new = CageSpace { cage: RefCell::new(cage), space, segment, outside, relay: Arc::clone(&self.relay) };
        new.set_limits(config.limits);
        Ok(Box::new(new))
    }

    fn segment(&self) -> Option<Object> {
        self.segment.borrow().clone()
    }

    fn left(&self) -> Vec<String> {
        self.segment.take();
        // A segment that has ended goes when somebody next looks at segments.
        if let Ok(mut cage) = self.cages.start(&self.program, Setup::default()) {
            let looked = called(&mut cage, "shmctl", &[Val::I32(0), Val::I32(SHM_INFO), Val::I32(BYTES.cast_signed())]);
            debug_assert!(looked.is_ok(), "{looked:?}");
        }
        let mut left = self.balance.left(self.cages.memory().pager(), self.cages.account());
        let (processes, mappings) = (self.cages.processes(), self.cages.memory().usage().mappings);
        if processes > 0 || mappings > 0 {
            left.push(format!("{processes} processes and {mappings} mappings of views are left"));
        }
        left
    }
}

/// Has all processes share the driver's own memory: shared memory is nothing that `RLIMIT_DATA` counts, which the break looks
/// at too, but not at what is mapped.
fn share_bytes(cage: &mut Cage) -> Result<(), Errno> {
    let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED).cast_unsigned();
    let words = [BYTES, SEGMENT - BYTES, 3, flags, u32::MAX].map(|word| Val::I32(word.cast_signed()));
    called(cage, "mmap", &[&words[..], &[Val::I64(0)]].concat()).map(drop)
}

/// Makes the segment, which goes with the last process; its identifier.
fn attach_segment(cage: &mut Cage) -> Result<u64, Errno> {
    let word = |word: u32| Val::I32(word.cast_signed());
    let flags = (libc::IPC_CREAT | 0o600).cast_unsigned();
    let private = libc::IPC_PRIVATE.cast_unsigned();
    let id = called(cage, "shmget", &[word(private), word(SEGMENT_BYTES), word(flags)])?;
    let id = u32::try_from(id).map_err(|_| Errno::Inval)?;
    called(cage, "shmat", &[word(id), word(SEGMENT), word(libc::SHM_REMAP.cast_unsigned())])?;
    called(cage, "shmctl", &[word(id), word(libc::IPC_RMID.cast_unsigned()), word(0)])?;
    Ok(id.into())
}

/// Calls an export of the driver that makes a call, which returns.
///
/// # Panics
/// If it does not.
fn called(cage: &mut Cage, export: &str, args: &[Val]) -> Result<u64, Errno> {
    let results = cage.call(export, args).unwrap_or_else(|ended| panic!("{export} does not return: {ended}"));
    let answer = match results.first() {
        // Only error numbers have their sign turned; what else is as large is an address.
        Some(Val::I32(word @ -4095..0)) => i64::from(*word),
        Some(Val::I32(word)) => word.cast_unsigned().into(),
        Some(Val::I64(word)) => *word,
        other => panic!("{export} returns {other:?}"),
    };
    match u16::try_from(-i128::from(answer)) {
        Ok(errno @ 1..=4095) => Err(Errno::from_raw(errno)),
        _ => Ok(answer.cast_unsigned()),
    }
}

/// The export for a system call and what it is given: one with 32 bits for each argument, if there is one and they fit.
fn export_for(number: u64, args: [u64; 6]) -> (&'static str, Vec<Val>) {
    let word = |word: u64| u32::try_from(word).ok().map(|word| Val::I32(word.cast_signed()));
    let words = |count: usize| args[..count].iter().map(|arg| word(*arg)).collect::<Option<Vec<Val>>>();
    let fd = |fd: u64| if fd == u64::MAX { Some(Val::I32(-1)) } else { word(fd) };
    let narrow = match libc::c_long::try_from(number).unwrap_or(-1) {
        libc::SYS_mmap => words(4).zip(fd(args[4])).map(|(mut words, fd)| {
            words.extend([fd, Val::I64(args[5].cast_signed())]);
            ("mmap", words)
        }),
        libc::SYS_munmap => words(2).map(|words| ("munmap", words)),
        libc::SYS_mprotect => words(3).map(|words| ("mprotect", words)),
        libc::SYS_mremap => words(5).map(|words| ("mremap", words)),
        libc::SYS_madvise => words(3).map(|words| ("madvise", words)),
        libc::SYS_msync => words(3).map(|words| ("msync", words)),
        libc::SYS_brk => words(1).map(|words| ("brk", words)),
        libc::SYS_shmat => words(3).map(|words| ("shmat", words)),
        libc::SYS_shmdt => words(1).map(|words| ("shmdt", words)),
        _ => None,
    };
    narrow.unwrap_or_else(|| {
        let wide = std::iter::once(number).chain(args).map(|word| Val::I64(word.cast_signed()));
        ("syscall", wide.collect())
    })
}

impl CageSpace {
    /// Has the driver touch `len` bytes at `addr`.
    fn touch(&self, export: &str, addr: VirtAddr, len: usize) -> Result<(), Outcome> {
        let words = [addr.as_u64(), len as u64].map(u32::try_from);
        let [Ok(addr), Ok(len)] = words else { return Err(Outcome::Broken("no address of a cage")) };
        let args = [addr, len].map(|word| Val::I32(word.cast_signed()));
        match self.cage.borrow_mut().call(export, &args) {
            Ok(_) => Ok(()),
            Err(Ended::Trap(trap)) => Err(outcome(&trap)),
            Err(_) => Err(Outcome::Broken("the driver does not return")),
        }
    }

    /// Takes locks from what a program knows nothing of.
    fn unlock_outside(&self) {
        let [start, end] = OUTSIDE;
        let _ = self.space.space().answer(&Request::Munlock { addr: start, len: end - start });
    }
}

/// What a trap tells a program: the signal that a process of the host would get.
fn outcome(trap: &CageTrap) -> Outcome {
    let code = match &trap.kind {
        TrapKind::Hole => 1,
        TrapKind::Rights | TrapKind::BeyondObject => 2,
        TrapKind::OutOfMemory => return Outcome::Broken("out of memory"),
        _ => return Outcome::Broken("another trap"),
    };
    let Some(addr) = trap.address else { return Outcome::Broken("a trap without an address") };
    Outcome::Fault { signal: trap.signal().unsigned_abs().into(), code, addr }
}

impl Space for CageSpace {
    fn books(&self) -> &dyn Books {
        self.space.space()
    }

    fn outside(&self) -> Outside {
        self.outside
    }

    fn set_limits(&self, mut limits: ResourceLimits) {
        limits.address_space = limits.address_space.saturating_add(self.outside.bytes);
        limits.data = limits.data.saturating_add(self.outside.data_bytes);
        self.books().set_limits(limits);
    }

    fn call(&self, call: &MemoryCall<'_>) -> Result<u64, Errno> {
        let mut args = call.args;
        let number = libc::c_long::try_from(call.number).unwrap_or(-1);
        let mut file = None;
        match call.request {
            Request::Mmap(mmap) => {
                if let MapSource::File(found) = &mmap.source {
                    file = Some(found.clone());
                }
            }
            Request::Shmat { .. } => args[0] = self.segment,
            _ => {}
        }
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).0 = file;
        let (export, words) = export_for(call.number, args);
        let answer = called(&mut self.cage.borrow_mut(), export, &words);
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).0 = None;
        if number == libc::SYS_mlockall && answer.is_ok() {
            self.unlock_outside();
        }
        answer
    }

    fn fork(&self) -> Result<Box<dyn Space>, Errno> {
        let cage = self.cage.borrow_mut().fork().map_err(|_| Errno::NoMem)?;
        let space = Arc::clone(cage.space());
        let relay = Arc::clone(&self.relay);
        Ok(Box::new(Self { cage: RefCell::new(cage), space, segment: self.segment, outside: self.outside, relay }))
    }

    fn load(&self, _processor: usize, addr: VirtAddr, to: &mut [u8]) -> Result<(), Outcome> {
        self.touch("load", addr, to.len())?;
        self.cage.borrow().read(BYTES, to).map_err(|_| Outcome::Broken("the page for bytes is gone"))
    }

    fn store(&self, _processor: usize, addr: VirtAddr, from: &[u8]) -> Result<(), Outcome> {
        let written = self.cage.borrow().write(BYTES, from);
        written.map_err(|_| Outcome::Broken("the page for bytes is gone"))?;
        self.touch("store", addr, from.len())
    }

    fn fetch(&self, _processor: usize, _addr: VirtAddr) -> Result<(), Outcome> {
        Err(Outcome::Broken("nothing runs in a cage's memory"))
    }
}
