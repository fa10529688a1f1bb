//! Who answers a program's calls: the host's kernel, the host's kernel in a process that has no room but the range of
//! an arena, or an arena there.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use pagewarden::VirtAddr;
use pagewarden::manager::{Privileges, ResourceLimits};

use super::enclosure::{self, Enclosure, inside_limit};
use super::outcome::Outcome;
use super::raw;
use super::state::{MapLine, read_maps};
use crate::arena::{Arena, ArenaOptions};
use crate::traced::import;

/// Who answers.
#[derive(Debug)]
pub(super) enum Kernel {
    /// The host, with the whole address space.
    Host,
    /// The host, with the range of an arena.
    Enclosed(Enclosure),
    /// pagewarden, in an arena.
    Arena(Box<Inside>),
}

/// An arena and what this process would have told the kernel about itself.
#[derive(Debug)]
pub(super) struct Inside {
    arena: Arena,
    limits: ResourceLimits,
}

impl Kernel {
    /// An arena in the range that an [`Enclosure`] leaves free.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn arena() -> io::Result<Self> {
        let size = enclosure::END - enclosure::START;
        let options = ArenaOptions { size, address: Some(enclosure::START), ..ArenaOptions::default() };
        let arena = Arena::new(&options).map_err(io::Error::other)?;
        let limits = import::limits(std::process::id().cast_signed())?;
        Ok(Self::Arena(Box::new(Inside { arena, limits })))
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
            Self::Arena(inside) => match inside.arena.syscall(number.cast_unsigned(), args) {
                Ok(value) => Outcome::Value(value),
                Err(errno) => Outcome::Error(i32::from(errno.raw())),
            },
        }
    }

    /// The byte at `addr`, or the fault that reading it makes.
    ///
    /// # Safety
    /// As for [`raw::read_byte`].
    pub(super) unsafe fn read_byte(&self, addr: u64) -> Result<u8, Outcome> {
        // SAFETY: the caller's promise is the same.
        let read = unsafe { raw::read_byte(addr) };
        self.judged(addr, read)
    }

    /// Stores `value` at `addr`, or tells the fault that doing so makes.
    ///
    /// # Safety
    /// As for [`raw::read_byte`].
    pub(super) unsafe fn write_byte(&self, addr: u64, value: u8) -> Result<(), Outcome> {
        // SAFETY: the caller's promise is the same.
        let written = unsafe { raw::write_byte(addr, value) };
        self.judged(addr, written)
    }

    /// Pages of an arena where nothing is are mapped without rights on the host, which tells the fault of another kind.
    fn judged<T>(&self, addr: u64, access: Result<T, Outcome>) -> Result<T, Outcome> {
        let (Self::Arena(inside), Err(Outcome::Fault { signal, addr: at, .. })) = (self, &access) else {
            return access;
        };
        let is_inside = (enclosure::START..enclosure::END).contains(&addr);
        if !is_inside || *signal != u64::from(libc::SIGSEGV.cast_unsigned()) {
            return access;
        }
        let is_mapped = inside.arena.with_manager(|manager| manager.map().get(VirtAddr::new(addr)).is_some());
        Err(Outcome::Fault { signal: *signal, code: if is_mapped { 2 } else { 1 }, addr: *at })
    }

    /// Sets the soft limit of a resource, as far as the hard limit goes.
    pub(super) fn set_limit(&mut self, resource: u64, bytes: u64) -> Outcome {
        let mut limit = [0_u64; 2];
        // SAFETY: the kernel writes two words, for which there is room.
        let asked = unsafe { raw::syscall(libc::SYS_prlimit64, [0, resource, 0, limit.as_mut_ptr() as u64, 0, 0]) };
        if asked != Outcome::Value(0) {
            return asked;
        }
        let bytes = match self {
            Self::Host => bytes,
            Self::Enclosed(enclosure) => enclosure.limit(resource, bytes),
            Self::Arena(_) => inside_limit(resource, bytes),
        };
        limit[0] = bytes.min(limit[1]);
        if let Self::Arena(inside) = self {
            return inside.set_limit(resource, limit[0]);
        }
        // SAFETY: the kernel reads two words.
        unsafe { raw::syscall(libc::SYS_prlimit64, [0, resource, limit.as_ptr() as u64, 0, 0, 0]) }
    }

    /// Gives up all capabilities.
    pub(super) fn drop_capabilities(&self) -> Outcome {
        if let Self::Arena(inside) = self {
            // This process keeps what it may: its own limits are not those that the arena has.
            inside.arena.set_privileges(Privileges::empty());
            return Outcome::Value(0);
        }
        // Version 3 of the interface, this process; three empty sets in two halves.
        let header = [0x2008_0522_u32, 0];
        let sets = [0_u32; 6];
        // SAFETY: the kernel reads the header and the sets, which have the sizes of version 3.
        unsafe { raw::syscall(libc::SYS_capset, [header.as_ptr() as u64, sets.as_ptr() as u64, 0, 0, 0, 0]) }
    }

    /// Forks; the answer is that of fork(2).
    ///
    /// # Safety
    /// One thread only.
    pub(super) unsafe fn fork(&self) -> libc::pid_t {
        // SAFETY: there is one thread, so the child may go on as the parent would.
        unsafe { libc::fork() }
    }

    /// Fills `buffer` with the list of regions, in the form of `/proc/PID/maps`; returns whether all of it is there.
    pub(super) fn read_maps(&self, buffer: &mut Vec<u8>) -> bool {
        let Self::Arena(inside) = self else { return read_maps(buffer) };
        buffer.clear();
        buffer.write_all(inside.arena.with_manager(|manager| manager.maps_text()).as_bytes()).is_ok()
    }

    /// What a program is to see of a region.
    pub(super) fn clip<'a>(&self, line: MapLine<'a>) -> Option<MapLine<'a>> {
        match self {
            Self::Host | Self::Arena(_) => Some(line),
            Self::Enclosed(enclosure) => enclosure.clip(line),
        }
    }

    /// Whether the arena and the host agree on what is mapped there; what differs, if they do not.
    pub(super) fn verify(&self) -> Option<String> {
        let Self::Arena(inside) = self else { return None };
        let words = inside.arena.verify().err()?;
        let mut text = String::new();
        for line in words.lines() {
            let _ = writeln!(text, "arena: {line}");
        }
        Some(text)
    }
}

impl Inside {
    fn set_limit(&mut self, resource: u64, bytes: u64) -> Outcome {
        let limits = &mut self.limits;
        match u32::try_from(resource) {
            Ok(libc::RLIMIT_AS) => limits.address_space = bytes,
            Ok(libc::RLIMIT_DATA) => limits.data = bytes,
            Ok(libc::RLIMIT_MEMLOCK) => limits.locked = bytes,
            _ => return Outcome::Error(libc::EINVAL),
        }
        self.arena.set_limits(limits.clone());
        Outcome::Value(0)
    }
}
