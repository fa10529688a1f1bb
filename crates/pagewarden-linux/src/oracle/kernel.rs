//! Who answers a program's calls: the host's kernel, the host's kernel in a process that has no room but the range of
//! an arena, an arena there, or a kernel of ours on a machine.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use pagewarden::manager::{Access, FaultSignal, NoReserve, Policy, Privileges, ResourceLimits, Totals};

use super::enclosure::{Counterpart, Enclosure, Range, Sums, WIDE, inside_limit};
use super::files::Files;
use super::interpret::Lineage;
use super::machine::{MachineKernel, MakeHardware};
use super::outcome::Outcome;
use super::program::{PAGE, WINDOW};
use super::raw;
use super::state::{MapLine, WORDS, read_maps};
use crate::arena::{Arena, ArenaOptions, Fork};
use crate::overcommit;
use crate::traced::import;

/// Calls that an arena is not told of.
const ON_FILES: [libc::c_long; 4] = [libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_memfd_create, libc::SYS_fcntl];
/// `SEGV_MAPERR`: in an arena, where all is mapped, the host says so of guards alone.
const GUARD_CODE: u64 = 1;

/// A number of the kernel's, none of which is negative here.
const fn number(raw: i32) -> u64 {
    raw.cast_unsigned() as u64
}

/// Who answers.
#[derive(Debug)]
pub(super) enum Kernel {
    /// The host, with the whole address space.
    Host,
    /// The host, with the range of an arena.
    Enclosed(Enclosure),
    /// pagewarden, in an arena.
    Arena(Box<Inside>),
    /// pagewarden, with a machine of its own.
    Machine(Box<MachineKernel>),
}

/// An arena and what this process would have told the kernel about itself.
#[derive(Debug)]
pub(super) struct Inside {
    arena: Arena,
    limits: ResourceLimits,
    /// What those of address space, data and locked memory may be raised to.
    hard: [u64; 3],
}

impl Kernel {
    /// An arena in the range that an [`Enclosure`] leaves free.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn arena() -> io::Result<Self> {
        let size = WIDE.end - WIDE.start;
        let overcommit = overcommit::of_host()?;
        let policy = Policy { overcommit, no_reserve: NoReserve::Free, ..Policy::default() };
        let options = ArenaOptions { size, address: Some(WIDE.start), policy, ..ArenaOptions::default() };
        let arena = Arena::new(&options).map_err(io::Error::other)?;
        let limits = import::limits(std::process::id().cast_signed())?;
        let hard = [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK].map(hard_limit);
        unlimit_locks();
        Ok(Self::Arena(Box::new(Inside { arena, limits, hard })))
    }

    /// A machine of our own, with the range that an [`Enclosure`] leaves free for each process.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn machine(files: &Files, counterpart: Counterpart, make: MakeHardware<'_>) -> io::Result<Self> {
        Ok(Self::Machine(Box::new(MachineKernel::new(files, counterpart, make)?)))
    }

    /// Who of ours is compared with the host, if programs have not the whole address space.
    const fn counterpart(&self) -> Option<Counterpart> {
        match self {
            Self::Host => None,
            Self::Enclosed(enclosure) => Some(enclosure.counterpart),
            Self::Arena(_) => Some(Counterpart::Arena),
            Self::Machine(machine) => Some(machine.counterpart()),
        }
    }

    /// Where programs may map, if not everywhere.
    fn range(&self) -> Option<Range> {
        self.counterpart().map(Counterpart::range)
    }

    /// Where the window is.
    pub(super) fn window(&self) -> u64 {
        self.range().map_or(WINDOW, |range| range.window)
    }

    /// Makes a system call.
    ///
    /// # Safety
    /// As for [`raw::syscall`].
    pub(super) unsafe fn syscall(&self, number: libc::c_long, args: [u64; 6]) -> Outcome {
        match self {
            // SAFETY: the caller's promise is the same.
            Self::Host => unsafe { raw::syscall(number, args) },
            // SAFETY: the caller's promise is the same.
            Self::Enclosed(enclosure) => unsafe { enclosure.syscall(number, args) },
            // What makes or changes a file changes no space.
            // SAFETY: none of them touches memory.
            Self::Arena(_) if ON_FILES.contains(&number) => unsafe { raw::syscall(number, args) },
            Self::Arena(inside) => match inside.arena.syscall(number.cast_unsigned(), args) {
                Ok(value) => Outcome::Value(value),
                Err(errno) => Outcome::Error(i32::from(errno.raw())),
            },
            Self::Machine(machine) => machine.syscall(number, args),
        }
    }

    /// Maps a page for what mincore(2) tells: an arena writes to no other memory. Programs may do with it what they
    /// like, on both sides.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn map_residence(&self) -> io::Result<()> {
        let Some(page) = self.range().map(Range::residence) else { return Ok(()) };
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED).cast_unsigned();
        // SAFETY: nothing is in the range yet.
        match unsafe { self.syscall(libc::SYS_mmap, [page, PAGE, 3, flags.into(), u64::MAX, 0]) } {
            Outcome::Value(_) => {}
            outcome => return Err(io::Error::other(format!("cannot map a page: {outcome}"))),
        }
        // Where it is itself asked about, it is to be resident on both sides.
        // SAFETY: the page was mapped above.
        let touched = unsafe { self.write_byte(page, 0) };
        touched.map_err(|outcome| io::Error::other(format!("cannot touch a page: {outcome}")))
    }

    /// Whether `page` is where mincore(2) writes: of that, what is worth a comparison is told elsewhere.
    pub(super) fn is_residence(&self, page: u64) -> bool {
        self.range().is_some_and(|range| range.residence() == page)
    }

    /// Where mincore(2) writes; `own` is the interpreter's memory.
    pub(super) fn residence(&self, own: u64) -> u64 {
        self.range().map_or(own, Range::residence)
    }

    /// Fills `told` with what mincore(2) has written, if it does not write there by itself.
    pub(super) fn fetch_residence(&self, told: &mut [u8]) {
        let Some(range) = self.range() else { return };
        let is_compared = self.counterpart().is_some_and(Counterpart::is_kernel);
        told.fill(0);
        for (addr, byte) in (range.residence()..).zip(told).filter(|_| is_compared) {
            // SAFETY: the page is one of the program's.
            *byte = unsafe { self.read_byte(addr) }.unwrap_or(u8::MAX);
        }
    }

    /// Whether pages that read as zeros count as not resident: a host's child has no tables for pages of a mapping that
    /// nobody has written to (`vma_needs_copy`), and on the host as a machine a store takes the pages around with it.
    pub(super) fn forgets_zero_pages(&self, lineage: Lineage) -> bool {
        match self.counterpart() {
            Some(Counterpart::Machine) => lineage == Lineage::Child,
            Some(Counterpart::HostMachine | Counterpart::Cages) => true,
            Some(Counterpart::Arena) | None => false,
        }
    }

    /// The byte at `addr`, or the fault that reading it makes.
    ///
    /// # Safety
    /// As for [`raw::read_byte`].
    pub(super) unsafe fn read_byte(&self, addr: u64) -> Result<u8, Outcome> {
        if let Self::Machine(machine) = self {
            let mut byte = [0];
            return machine.load(addr, &mut byte).map(|()| byte[0]);
        }
        self.touch(addr, Access::Read, || {
            // SAFETY: the caller's promise is the same.
            unsafe { raw::read_byte(addr) }
        })
    }

    /// Stores `value` at `addr`, or tells the fault that doing so makes.
    ///
    /// # Safety
    /// As for [`raw::read_byte`].
    pub(super) unsafe fn write_byte(&self, addr: u64, value: u8) -> Result<(), Outcome> {
        if let Self::Machine(machine) = self {
            return machine.store(addr, &[value]);
        }
        self.touch(addr, Access::Write, || {
            // SAFETY: the caller's promise is the same.
            unsafe { raw::write_byte(addr, value) }
        })
    }

    /// The words of the page at `page`, or the fault that reading it makes.
    ///
    /// # Safety
    /// As for [`raw::read_byte`], for the whole page.
    pub(super) unsafe fn read_page(&self, page: u64, words: &mut [u64; WORDS]) -> Result<(), Outcome> {
        if let Self::Machine(machine) = self {
            let mut bytes = [0; 8 * WORDS];
            machine.load(page, &mut bytes)?;
            let (chunks, _) = bytes.as_chunks();
            words.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = u64::from_ne_bytes(*chunk));
            return Ok(());
        }
        // SAFETY: the caller's promise is the same.
        unsafe { self.read_byte(page) }?;
        for (offset, word) in (0..).step_by(8).zip(words) {
            let place = std::ptr::with_exposed_provenance::<u64>(usize::try_from(page + offset).unwrap_or(0));
            // SAFETY: the first byte of the page could be read, so all of it can; one thread only, so it stays so.
            *word = unsafe { place.read_volatile() };
        }
        Ok(())
    }

    /// A hash of `len` bytes from `addr` on, loaded one after the other, or the fault that the first bad one makes.
    ///
    /// # Safety
    /// As for [`raw::read_run`].
    pub(super) unsafe fn read_run(&self, addr: u64, len: u64) -> Result<u64, Outcome> {
        if let Self::Machine(machine) = self {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            return machine.load(addr, &mut bytes).map(|()| raw::hash(&bytes));
        }
        self.touch(addr, Access::Read, || {
            // SAFETY: the caller's promise is the same.
            unsafe { raw::read_run(addr, len) }
        })
    }

    /// Stores `len` bytes from `addr` on one after the other, or tells the fault that the first bad one makes.
    ///
    /// # Safety
    /// As for [`raw::write_run`].
    pub(super) unsafe fn write_run(&self, addr: u64, len: u64, value: u8) -> Result<(), Outcome> {
        if let Self::Machine(machine) = self {
            return machine.store(addr, &vec![value; usize::try_from(len).unwrap_or(0)]);
        }
        self.touch(addr, Access::Write, || {
            // SAFETY: the caller's promise is the same.
            unsafe { raw::write_run(addr, len, value) }
        })
    }

    /// Calls the function at `addr`, or tells the fault that doing so makes.
    ///
    /// # Safety
    /// As for [`raw::execute`].
    pub(super) unsafe fn execute(&self, addr: u64) -> Result<(), Outcome> {
        if let Self::Machine(machine) = self {
            return machine.execute(addr);
        }
        self.touch(addr, Access::Execute, || {
            // SAFETY: the caller's promise is the same.
            unsafe { raw::execute(addr) }
        })
    }

    /// Touches memory from `addr` on. In an arena the manager says what comes of it, and the host must have done that: it
    /// tells other codes where nothing is, and alone knows where files end and guards are.
    fn touch<T>(&self, addr: u64, access: Access, touch: impl Fn() -> Result<T, Outcome>) -> Result<T, Outcome> {
        let mut touched = touch();
        let Self::Arena(inside) = self else { return touched };
        let mut grown_at = None;
        loop {
            let at = if let Err(Outcome::Fault { addr, .. }) = touched { addr } else { addr };
            if !WIDE.contains(at) {
                return touched;
            }
            let refused = inside.arena.fault(at, access).err();
            if touched.is_ok() || grown_at == Some(at) {
                return agreed(touched, refused, at);
            }
            if refused.is_some() {
                // A stack grows before its rights are looked at: what the host said was of the pages before that.
                return agreed(touch(), refused, at);
            }
            // Without a refusal a stack has grown, maybe; then the fault is gone.
            grown_at = Some(at);
            touched = touch();
        }
    }

    /// Sets the soft limit of a resource, as far as the hard limit goes.
    pub(super) fn set_limit(&mut self, resource: u64, bytes: u64) -> Outcome {
        let bytes = match self {
            Self::Host => bytes,
            Self::Enclosed(enclosure) => enclosure.limit(resource, bytes),
            Self::Arena(inside) => return inside.set_limit(resource, inside_limit(resource, bytes)),
            Self::Machine(machine) => return machine.set_limit(resource, inside_limit(resource, bytes)),
        };
        let mut limit = [0_u64; 2];
        // SAFETY: the kernel writes two words, for which there is room.
        let asked = unsafe { raw::syscall(libc::SYS_prlimit64, [0, resource, 0, limit.as_mut_ptr() as u64, 0, 0]) };
        if asked != Outcome::Value(0) {
            return asked;
        }
        limit[0] = bytes.min(limit[1]);
        // SAFETY: the kernel reads two words.
        unsafe { raw::syscall(libc::SYS_prlimit64, [0, resource, limit.as_ptr() as u64, 0, 0, 0]) }
    }

    /// Gives up all capabilities.
    pub(super) fn drop_capabilities(&mut self) -> Outcome {
        if let Self::Machine(machine) = self {
            machine.drop_capabilities();
            return Outcome::Value(0);
        }
        if let Self::Arena(inside) = self {
            inside.arena.set_privileges(Privileges::empty());
        }
        // Version 3 of the interface, this process; three empty sets in two halves.
        let header = [0x2008_0522_u32, 0];
        let sets = [0_u32; 6];
        // SAFETY: the kernel reads the header and the sets, which have the sizes of version 3.
        unsafe { raw::syscall(libc::SYS_capset, [header.as_ptr() as u64, sets.as_ptr() as u64, 0, 0, 0, 0]) }
    }

    /// The kernel whose processes are all in this one.
    pub(super) const fn as_machine(&mut self) -> Option<&mut MachineKernel> {
        if let Self::Machine(machine) = self { Some(machine) } else { None }
    }

    /// Forks this process; the answer is that of fork(2). The machine's processes are forked elsewhere.
    ///
    /// # Safety
    /// One thread only.
    pub(super) unsafe fn fork(&self) -> libc::pid_t {
        let Self::Arena(inside) = self else {
            // SAFETY: there is one thread, so the child may go on as the parent would.
            return unsafe { libc::fork() };
        };
        // SAFETY: as above, and this process has one arena.
        match unsafe { inside.arena.fork() } {
            Ok(Fork::Parent(child)) => child,
            Ok(Fork::Child) => 0,
            Err(_) => -1,
        }
    }

    /// Fills `buffer` with the list of regions, in the form of `/proc/PID/maps`; returns whether all of it is there.
    pub(super) fn read_maps(&self, buffer: &mut Vec<u8>) -> bool {
        let text = match self {
            Self::Host | Self::Enclosed(_) => return read_maps(buffer),
            Self::Arena(inside) => inside.arena.with_manager(|manager| manager.maps_text()),
            Self::Machine(machine) => machine.maps_text(),
        };
        buffer.clear();
        buffer.write_all(text.as_bytes()).is_ok()
    }

    /// What a program is to see of a region.
    pub(super) fn clip<'a>(&self, line: MapLine<'a>) -> Option<MapLine<'a>> {
        match self {
            Self::Host | Self::Arena(_) => Some(line),
            Self::Enclosed(enclosure) => enclosure.clip(line),
            // A process in a cage has memory below, for what it is run by.
            Self::Machine(machine) => machine.counterpart().range().clip(line),
        }
    }

    /// What is counted in the range of an arena; nothing is told of a process that has the whole address space.
    pub(super) fn sums(&self, room: &mut Vec<u8>) -> Option<Sums> {
        match self {
            Self::Host => None,
            Self::Enclosed(enclosure) => enclosure.sums(room),
            Self::Arena(inside) => {
                Some(inside.arena.with_manager(|manager| sums_of(manager.totals(), manager.locked_pages())))
            }
            Self::Machine(machine) => Some(machine.sums()),
        }
    }

    /// Whether the arena and the host agree on what is mapped there; what differs, if they do not. On the machine,
    /// whether the tables are as the map says.
    pub(super) fn verify(&self) -> Option<String> {
        if let Self::Machine(machine) = self {
            machine.check_invariants();
        }
        let Self::Arena(inside) = self else { return None };
        let words = inside.arena.verify().err()?;
        let mut text = String::new();
        for line in words.lines() {
            let _ = writeln!(text, "arena: {line}");
        }
        Some(text)
    }
}

/// What is counted, in bytes.
pub(super) const fn sums_of(totals: &Totals, locked_pages: u64) -> Sums {
    Sums { size: totals.virtual_pages * PAGE, locked: locked_pages * PAGE, data: totals.data_pages * PAGE }
}

/// What came of touching `addr`, if the host did what the manager says.
fn agreed<T>(touched: Result<T, Outcome>, refused: Option<FaultSignal>, addr: u64) -> Result<T, Outcome> {
    match (touched, refused) {
        (Ok(value), None) => Ok(value),
        // Where files end and guards are the host alone knows; it looks there before it minds what may be executed.
        (Err(Outcome::Fault { signal, code, addr }), _) if signal == number(libc::SIGBUS) || code == GUARD_CODE => {
            Err(Outcome::Fault { signal, code, addr })
        }
        (Err(Outcome::Fault { signal, .. }), Some(refusal)) if signal == number(refusal.signal.raw()) => {
            let (code, addr) = (number(refusal.code.raw()), refusal.address.as_u64());
            Err(Outcome::Fault { signal, code, addr })
        }
        // The manager and the host do not agree; no fault of a kernel looks like this.
        (touched, refused) => {
            let host = if let Err(Outcome::Fault { code, .. }) = touched { code } else { 0 };
            let ours = refused.map_or(0, |refusal| number(refusal.code.raw()));
            Err(Outcome::Fault { signal: 0, code: host << 8 | ours, addr })
        }
    }
}

impl Inside {
    fn set_limit(&mut self, resource: u64, bytes: u64) -> Outcome {
        let limits = &mut self.limits;
        let (limit, hard) = match u32::try_from(resource) {
            Ok(libc::RLIMIT_AS) => (&mut limits.address_space, self.hard[0]),
            Ok(libc::RLIMIT_DATA) => (&mut limits.data, self.hard[1]),
            Ok(libc::RLIMIT_MEMLOCK) => (&mut limits.locked, self.hard[2]),
            _ => return Outcome::Error(libc::EINVAL),
        };
        *limit = bytes.min(hard);
        self.arena.set_limits(limits.clone());
        Outcome::Value(0)
    }
}

pub(super) fn hard_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is alive and has the type of a limit.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit.rlim_max
}

/// Lets this process lock what it likes, as far as it may: how much a program locks is for the manager to say.
fn unlimit_locks() {
    for most in [libc::RLIM_INFINITY, hard_limit(libc::RLIMIT_MEMLOCK)] {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: `limit` is alive and has the type of a limit.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } == 0 {
            return;
        }
    }
}
