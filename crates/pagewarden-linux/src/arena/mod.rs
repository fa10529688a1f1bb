//! An arena: a piece of this process's own address space that behaves like a whole one of Linux.
//!
//! ```text
//!   Arena::syscall(number, registers) -> linux::decode -> PageManager -> ArenaProvider -> the host, inside the arena
//! ```
//!
//! For embedders (emulators, library operating systems) and for fast tests. The arena is reserved when it is made;
//! memory calls place, change and remove mappings inside it and nowhere else. Its end is the end of the address
//! space as far as the manager knows (`TASK_SIZE`), its start is the lowest address that may be mapped, and the
//! program break starts there. So what lies beyond is refused as Linux refuses it, and `reservation` checks once
//! more before the host is called.
//!
//! `reservation` owns the range and makes the host calls, `provider` turns operations into them (with `warm`,
//! `moves`, `carrier`, `locks`, `keys` and `contents`), `files` knows this process's descriptors, `fork` makes children.
//!
//! # Soundness
//! Pages of the arena change under whoever looks at them: a guest may unmap what it likes. What makes this safe is
//! that Rust never has a reference into the arena: the range is new when it is reserved, no function here hands out
//! a reference or a slice, and only raw pointers reach it. To read or write through such a pointer is unsafe, and
//! whoever does it answers for what is mapped there, as with memory that another process maps. Nobody else in the
//! process may unmap or map over the range; safe Rust cannot.
//!
//! # No boundary
//! The guest's code, if it runs in this process, can do what the process can: make system calls by itself, or write
//! over the manager. The arena keeps a guest's memory calls apart from the process's memory. It does not keep a
//! hostile guest apart from anything.
//!
//! # Locks
//! One mutex an arena, held for a whole call and over fork; nothing else is locked under it. A thread that panics
//! with the lock held leaves the state as it was or as it was to be, and the next call goes on with that.

mod carrier;
mod contents;
mod files;
mod fork;
#[cfg(test)]
mod injected;
mod keys;
mod locks;
mod mark;
mod moves;
mod outside;
mod provider;
mod reservation;
mod verify;
mod warm;

pub use carrier::PageMoves;
pub(crate) use files::copy_in;
pub use fork::Fork;
pub use provider::ArenaProvider;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagewarden::linux::{self, MapFlags, MapSource, Request};
use pagewarden::manager::{
    Access, Break, CapabilityRequest, Cause, FaultSignal, Layout, Policy, Privileges, Refusal, ResourceLimits,
    SpaceConfig,
};
use pagewarden::vmmap::Direction;
use pagewarden::{Errno, Limits, MemoryObject, ObjectKind, PageManager, PageRange, Resource, ResourceLedger, VirtAddr};

use crate::traced::import;
use carrier::Carrier;
use files::OwnFiles;
use provider::{Accounting, FileCall};
use reservation::Reservation;

/// What an arena is made from.
#[derive(Clone, Debug, Default)]
pub struct ArenaOptions {
    /// Bytes of address space, rounded up to pages.
    pub size: u64,
    /// Where it is to be; a place is chosen if nothing is said.
    pub address: Option<u64>,
    /// W^X, `MAP_NORESERVE` and fork.
    pub policy: Policy,
    /// Most committed memory, in bytes.
    pub commit_limit: Option<u64>,
    /// How pages are moved.
    pub moves: PageMoves,
}

/// Why there is no arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArenaError {
    /// No size, or one that fits nowhere, or an address that is not page aligned.
    #[error("an arena needs at least a page, and a page-aligned address")]
    Size,
    /// The host refuses.
    #[error("the host cannot reserve the arena: {0}")]
    Host(Errno),
}

/// A piece of this process's address space with a manager of its own. See the [module](self).
#[derive(Debug)]
pub struct Arena {
    inner: Mutex<Inner>,
    range: PageRange,
}

#[derive(Debug)]
struct Inner {
    manager: PageManager<ArenaProvider>,
    files: OwnFiles,
    /// A part of the arena was lost: nothing is done in it any more.
    is_broken: bool,
}

impl Arena {
    /// Reserves an arena in which nothing is mapped.
    ///
    /// # Errors
    /// [`ArenaError`]: the size or the address will not do, or the host has no room there.
    pub fn new(options: &ArenaOptions) -> Result<Self, ArenaError> {
        let memory = Reservation::new(options.size, options.address)?;
        let range = memory.range();
        let config = config(range, options).map_err(|_| ArenaError::Host(Errno::Io))?;
        let is_strict = import::number_in("/proc/sys/vm/overcommit_memory") == Some(2);
        let accounting = if is_strict { Accounting::Strict } else { Accounting::Loose };
        let mut provider = ArenaProvider::new(memory, accounting);
        provider.carrier = Carrier::new(options.moves);
        let manager = PageManager::new(config, provider);
        let inner = Inner { manager, files: OwnFiles::new(), is_broken: false };
        Ok(Self { inner: Mutex::new(inner), range })
    }

    /// Where it is.
    pub const fn range(&self) -> PageRange {
        self.range
    }

    /// Answers the Linux system call `number` with the six `args`, as far as it is a memory call.
    ///
    /// # Errors
    /// What Linux would answer; `ENOSYS` for calls that are not about memory.
    pub fn syscall(&self, number: u64, args: [u64; 6]) -> Result<u64, Errno> {
        let mut inner = self.lock();
        inner.check()?;
        let Inner { manager, files, .. } = &mut *inner;
        files.is_zero_device = false;
        let mut request = linux::decode(number, args, files)?.ok_or(Errno::NoSys)?;
        if files.is_zero_device {
            share_zero_pages(manager, &mut request);
        }
        let [.., fd, _] = args;
        if let Request::Mmap(call) = &request {
            #[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int: the ABI drops the upper half")]
            let fd = fd as i32;
            manager.provider_mut().call = Some(FileCall { fd, flags: call.flags });
        }
        let result = self.carry_out(manager, &request).map_err(|refusal| refusal.errno);
        manager.provider_mut().call = None;
        linux::answer(&request, result, manager.program_break())
    }

    /// Carries out a request. A file is mapped through [`Self::syscall`] alone, which knows its descriptor.
    ///
    /// # Errors
    /// What Linux would answer, and whose decision it was.
    pub fn call(&self, request: &Request) -> Result<u64, Refusal> {
        let mut inner = self.lock();
        inner.check().map_err(|errno| Refusal { errno, cause: Cause::Platform })?;
        self.carry_out(&mut inner.manager, request)
    }

    /// Carries out what a holder of capabilities asks: to reserve addresses, and to commit and decommit memory in them.
    /// The host's frames are in nobody's objects, so none can be borrowed (`ENOSYS`).
    ///
    /// # Errors
    /// As [`PageManager::plan_capability`], or the host's reason.
    pub fn call_capability(&self, request: &CapabilityRequest) -> Result<u64, Refusal> {
        let mut inner = self.lock();
        inner.check().map_err(|errno| Refusal { errno, cause: Cause::Platform })?;
        inner.manager.call_capability(request)
    }

    /// What a load, store or fetch at `address` does; a stack may grow, and then the access is to be tried again. The
    /// host's own signal does not say: where nothing is, it has pages without rights.
    ///
    /// # Errors
    /// The signal that the guest is to get.
    pub fn fault(&self, address: u64, access: Access) -> Result<(), FaultSignal> {
        self.lock().manager.fault(VirtAddr::new(address), access)
    }

    /// Shows the manager to `look`, with the arena locked.
    pub fn with_manager<R>(&self, look: impl FnOnce(&PageManager<ArenaProvider>) -> R) -> R {
        look(&self.lock().manager)
    }

    /// Replaces the resource limits that memory calls are held to; those of this process are not touched.
    pub fn set_limits(&self, limits: ResourceLimits) {
        self.lock().manager.set_limits(limits);
    }

    /// Replaces what the guest may do besides what everybody may.
    pub fn set_privileges(&self, privileges: Privileges) {
        self.lock().manager.set_privileges(privileges);
    }

    /// Compares the manager's map with what the host says is mapped in the arena.
    ///
    /// # Errors
    /// The first difference, in words, or why the host's list could not be read.
    pub fn verify(&self) -> Result<(), String> {
        verify::verify(&self.lock().manager)
    }

    fn carry_out(&self, manager: &mut PageManager<ArenaProvider>, request: &Request) -> Result<u64, Refusal> {
        // Linux unmaps nothing below the lowest mapping and says that all is well. Here something else is there.
        if let Request::Munmap { addr, len } = request
            && *addr < self.range.start().as_u64()
            && *len > 0
        {
            return Err(Refusal { errno: Errno::Inval, cause: Cause::FixedRegion });
        }
        manager.call(request)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    const fn check(&self) -> Result<(), Errno> {
        if self.is_broken { Err(Errno::NoMem) } else { Ok(()) }
    }
}

/// A shared map of `/dev/zero` is new shared memory.
fn share_zero_pages(manager: &PageManager<ArenaProvider>, request: &mut Request) {
    let Request::Mmap(call) = request else { return };
    let MapSource::File(file) = &mut call.source else { return };
    let is_shared = call.flags.contains(MapFlags::SHARED);
    if is_shared {
        let charge = manager.account().empty_charge(Resource::Committed);
        file.object = MemoryObject::with_charge(ObjectKind::SharedAnonymous, "/dev/zero (deleted)", charge);
    }
}

/// What the manager of an arena at `range` is told.
pub(crate) fn config(range: PageRange, options: &ArenaOptions) -> io::Result<SpaceConfig> {
    let pid = std::process::id().cast_signed();
    let limits = Limits::UNLIMITED.with_bytes(Resource::Committed, options.commit_limit);
    Ok(SpaceConfig {
        layout: Layout {
            task_end: range.end(),
            mmap_base: range.end(),
            bottom_up_base: range.start(),
            direction: Direction::TopDown,
            min_addr: range.start(),
            min_fixed_addr: range.start(),
        },
        brk: Break { start: range.start(), current: range.start(), data_bytes: 0 },
        limits: import::limits(pid)?,
        // Nobody maps below the arena, and nobody takes frames from the whole machine.
        privileges: import::privileges(pid)? - Privileges::MAP_LOW - Privileges::ADMIN,
        regions_max: import::number_in("/proc/sys/vm/max_map_count").unwrap_or(65_530),
        features: import::features(),
        policy: options.policy.clone(),
        account: ResourceLedger::new(limits).root().clone(),
    })
}
