//! A little kernel over the pager and a machine, as much of one as programs of memory calls can tell.
//!
//! ```text
//!   system call -> linux::decode -> AddressSpace -> PageManager -> Pager -> tables in the machine's memory
//!   load, store -> the machine: TLB, walk -> fault -> AddressSpace::fault -> once more, or a signal
//! ```
//!
//! All its processes are in one process of the host: `family` copies what a fork copies of the interpreter. `hardware` says
//! what a machine is, `software` is one in software, `views` is the host as one; `touch` is what a processor does, `copies` what a kernel copies,
//! `files` what descriptors are, `disk` what is behind a regular file.
//!
//! Threads and children run on processors in turn, and a processor is told of a space only when it has run in another, so
//! that what it remembers is old. When a program has ended so has every space, and nothing may be left that was
//! allocated or charged.

mod copies;
mod disk;
mod family;
mod files;
mod hardware;
mod software;
mod touch;
mod views;
mod watch;

pub use hardware::{Balance, Books, Hardware, MakeHardware, MemoryCall, Object, Objects, Outside, Space};
pub(super) use software::SoftwareMachine;
pub use touch::fault_outcome;
pub(super) use views::HostHardware;
pub(super) use watch::run_watched;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io;

use pagewarden::linux::{self, FileTraits, MapFlags, MapSource, Request};
use pagewarden::manager::{NoReserve, Policy, Privileges, ResourceLimits};
use pagewarden::{Errno, ObjectKind, PageRange, VirtAddr};

use super::enclosure::{Counterpart, Range, Sums};
use super::files::Files;
use super::kernel::{hard_limit, sums_of};
use super::outcome::Outcome;
use super::program::PAGE;
use crate::arena::{self, ArenaOptions};
use crate::overcommit;
use files::{GuestFiles, OpenFiles, Prepared};

/// The descriptor that names the process that uses it.
pub(super) const OWN_PROCESS: i32 = 986;

/// Which process.
type ProcessId = usize;

/// The kernel.
#[derive(Debug)]
pub(super) struct MachineKernel {
    /// The youngest last.
    processes: Vec<Process>,
    current: ProcessId,
    /// Processes made so far.
    made: usize,
    /// The thread that runs, if not the first.
    thread: Option<usize>,
    prepared: Option<Prepared>,
    /// What those of address space, data and locked memory may be raised to.
    hard: [u64; 3],
    counterpart: Counterpart,
    hardware: Box<dyn Hardware>,
}

/// A process of a program.
#[derive(Debug)]
struct Process {
    /// Which of all that ever were.
    number: usize,
    space: Box<dyn Space>,
    open: RefCell<OpenFiles>,
    limits: ResourceLimits,
    is_capable: Cell<bool>,
}

impl MachineKernel {
    /// A machine with one process, which has open what `files` has and may map where `counterpart` may.
    pub(super) fn new(files: &Files, counterpart: Counterpart, make: MakeHardware<'_>) -> io::Result<Self> {
        let overcommit = overcommit::of_host()?;
        let policy = Policy { overcommit, no_reserve: NoReserve::Free, ..Policy::default() };
        let Range { start, end, .. } = counterpart.range();
        let options = ArenaOptions { size: end - start, address: Some(start), policy, ..ArenaOptions::default() };
        let range = PageRange::new(address(start), address(end)).ok_or(io::ErrorKind::InvalidInput)?;
        let mut config = arena::config(range, &options)?;
        // The host's search from below begins above all that is free there, also for what is to lie above 4 GiB.
        config.layout.bottom_up_base = range.end();
        let limits = config.limits.clone();
        let hardware = make(&config)?;
        let space = hardware.space(config).map_err(io::Error::other)?;
        let (prepared, open) = Prepared::new(files, &*hardware)?;
        let first = Process { number: 0, space, open: RefCell::new(open), limits, is_capable: Cell::new(true) };
        Ok(Self {
            processes: vec![first],
            current: 0,
            made: 1,
            thread: None,
            prepared: Some(prepared),
            hard: [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK].map(hard_limit),
            counterpart,
            hardware,
        })
    }

    fn process(&self) -> &Process {
        &self.processes[self.current]
    }

    fn space(&self) -> &dyn Space {
        &*self.process().space
    }

    fn books(&self) -> &dyn Books {
        self.space().books()
    }

    fn objects(&self) -> &dyn Objects {
        self.hardware.objects()
    }

    /// As whom it is compared with the host.
    pub(super) const fn counterpart(&self) -> Counterpart {
        self.counterpart
    }

    /// The number of the processor that runs the present thread.
    fn processor(&self) -> usize {
        let first = self.process().number;
        self.thread.map_or(first, |thread| first + 1 + thread % 2)
    }

    /// Has another thread of the process run, or the first again.
    pub(super) const fn run_on(&mut self, thread: Option<usize>) {
        self.thread = thread;
    }

    /// Answers a system call about memory or files.
    pub(super) fn syscall(&self, number: libc::c_long, args: [u64; 6]) -> Outcome {
        let answer = match number {
            libc::SYS_ftruncate => self.truncate(args[0], args[1]),
            libc::SYS_fallocate => self.allocate(args),
            libc::SYS_memfd_create => self.make_memfd(args[0], args[1]),
            libc::SYS_fcntl => self.add_seals(args[0], args[2]),
            _ => self.memory_call(number, args),
        };
        outcome(answer)
    }

    fn memory_call(&self, number: libc::c_long, args: [u64; 6]) -> Result<u64, Errno> {
        let mut open = self.process().open.borrow_mut();
        let Some(prepared) = &self.prepared else { return Err(Errno::NoSys) };
        let is_capable = self.process().is_capable.get();
        let objects = self.objects();
        let mut files = GuestFiles { open: &mut open, prepared, objects, is_capable, is_zero: false };
        let request = linux::decode(number.cast_unsigned(), args, &mut files)?;
        let is_zero = files.is_zero;
        let mut request = request.ok_or(Errno::NoSys)?;
        if is_zero {
            self.share_zero_pages(&mut request)?;
        }
        match self.refused_by_file(&request) {
            Some(errno) => Err(errno),
            None => self.space().call(&MemoryCall { number: number.cast_unsigned(), args, request: &request }),
        }
    }

    /// A shared map of `/dev/zero` is new shared memory.
    fn share_zero_pages(&self, request: &mut Request) -> Result<(), Errno> {
        let Request::Mmap(call) = request else { return Ok(()) };
        let MapSource::File(file) = &mut call.source else { return Ok(()) };
        if call.flags.contains(MapFlags::SHARED) && call.len <= self.counterpart.range().end {
            let bytes = call.len.next_multiple_of(PAGE);
            file.object = self.objects().object(ObjectKind::SharedAnonymous, "/dev/zero (deleted)", bytes)?;
        }
        Ok(())
    }

    /// What a file on a disk says to `MAP_SYNC`, as the last to be asked: there is no memory behind it that would keep
    /// what is stored.
    fn refused_by_file(&self, request: &Request) -> Option<Errno> {
        let Request::Mmap(call) = request else { return None };
        let MapSource::File(file) = &call.source else { return None };
        if !call.flags.contains(MapFlags::SYNC) || !file.traits.contains(FileTraits::SYNC) {
            return None;
        }
        if let Some(errno) = self.books().refusal(request) {
            return Some(errno);
        }
        if call.flags.contains(MapFlags::FIXED) {
            // By then what was there is gone.
            let _ = self.books().answer(&Request::Munmap { addr: call.addr, len: call.len });
        }
        Some(Errno::OpNotSupp)
    }

    /// Sets a limit of the process, as far as it goes.
    pub(super) fn set_limit(&mut self, resource: u64, bytes: u64) -> Outcome {
        let process = &mut self.processes[self.current];
        let limits = &mut process.limits;
        let (limit, hard) = match u32::try_from(resource) {
            Ok(libc::RLIMIT_AS) => (&mut limits.address_space, self.hard[0]),
            Ok(libc::RLIMIT_DATA) => (&mut limits.data, self.hard[1]),
            Ok(libc::RLIMIT_MEMLOCK) => (&mut limits.locked, self.hard[2]),
            _ => return Outcome::Error(libc::EINVAL),
        };
        *limit = bytes.min(hard);
        process.space.set_limits(process.limits.clone());
        Outcome::Value(0)
    }

    /// Takes all privileges from the process.
    pub(super) fn drop_capabilities(&self) {
        self.process().is_capable.set(false);
        self.books().set_privileges(Privileges::empty());
    }

    /// The regions of the process, as `/proc/PID/maps` lists them.
    pub(super) fn maps_text(&self) -> String {
        self.books().maps_text()
    }

    /// What is counted for it.
    pub(super) fn sums(&self) -> Sums {
        let (totals, locked) = self.books().totals();
        let (all, outside) = (sums_of(&totals, locked), self.space().outside());
        Sums { size: all.size.saturating_sub(outside.bytes), data: all.data.saturating_sub(outside.data_bytes), ..all }
    }

    /// Compares the tables with the map.
    ///
    /// # Panics
    /// If they do not agree.
    pub(super) fn check_invariants(&self) {
        self.books().check();
    }

    /// The process that runs.
    const fn current(&self) -> ProcessId {
        self.current
    }

    /// Has another run.
    const fn change_to(&mut self, process: ProcessId) {
        self.current = process;
    }

    /// Makes a child of the process that runs, which goes on.
    fn fork(&mut self) -> Result<ProcessId, Errno> {
        let space = self.space().fork()?;
        let parent = self.process();
        let child = Process {
            number: self.made,
            space,
            open: parent.open.clone(),
            limits: parent.limits.clone(),
            is_capable: parent.is_capable.clone(),
        };
        self.made += 1;
        self.processes.push(child);
        Ok(self.processes.len() - 1)
    }

    /// Ends the youngest process.
    fn end_process(&mut self) {
        self.processes.pop();
    }

    /// Ends every process and says what is left that should not be.
    pub(super) fn end(&mut self) -> String {
        while !self.processes.is_empty() {
            self.end_process();
        }
        self.prepared = None;
        let mut text = String::new();
        for left in self.hardware.left() {
            let _ = writeln!(text, "machine: {left}");
        }
        text
    }
}

fn outcome(answer: Result<u64, Errno>) -> Outcome {
    match answer {
        Ok(value) => Outcome::Value(value),
        Err(errno) => Outcome::Error(i32::from(errno.raw())),
    }
}

const fn address(addr: u64) -> VirtAddr {
    VirtAddr::new(addr)
}
