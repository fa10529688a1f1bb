//! What the little kernel runs on: memory and address spaces of the pager's, and something that runs programs in them.
//!
//! Whoever has a machine brings a [`Hardware`], which makes a [`Space`] for each process. The rest follows from the pager:
//! what files are kept in ([`Objects`]), and what can be said of a space without running anything in it ([`Books`]).

use std::fmt;
use std::io;
use std::sync::Arc;

use pagewarden::linux::{self, Request};
use pagewarden::manager::{Privileges, ResourceLimits, SpaceConfig, Totals};
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::object::{Extent, ObjectSource};
use pagewarden::pager::{AddressSpace, Pager};
use pagewarden::{Account, Errno, MemoryObject, ObjectKind, Resource, VirtAddr, Vmmap};

use super::super::outcome::Outcome;

/// A memory object with pages of the pager's.
pub type Object = Arc<MemoryObject>;

/// Makes a machine for processes like that of the configuration.
pub type MakeHardware<'a> = &'a dyn Fn(&SpaceConfig) -> io::Result<Box<dyn Hardware>>;

/// A machine that was just switched on.
pub trait Hardware: fmt::Debug {
    /// What its memory is made into.
    fn objects(&self) -> &dyn Objects;

    /// The first space; the account of `config` is replaced by one of the machine's.
    ///
    /// # Errors
    /// No memory for it.
    fn space(&self, config: SpaceConfig) -> Result<Box<dyn Space>, Errno>;

    /// The segment that all spaces attach, if the machine has its own idea of segments; known when there is a space.
    fn segment(&self) -> Option<Object> {
        None
    }

    /// What is allocated, charged or mapped and should not be, once all spaces and objects are gone.
    fn left(&self) -> Vec<String>;
}

/// A process's memory, and what runs there.
pub trait Space: fmt::Debug {
    /// The space itself.
    fn books(&self) -> &dyn Books;

    /// What is mapped where programs may not.
    fn outside(&self) -> Outside {
        Outside::default()
    }

    /// Sets what `setrlimit` would for what programs map.
    fn set_limits(&self, limits: ResourceLimits) {
        self.books().set_limits(limits);
    }

    /// Makes a memory call.
    ///
    /// # Errors
    /// As Linux answers it.
    fn call(&self, call: &MemoryCall<'_>) -> Result<u64, Errno>;

    /// A copy, for a child.
    ///
    /// # Errors
    /// No memory for it.
    fn fork(&self) -> Result<Box<dyn Space>, Errno>;

    /// Loads bytes that lie in one page, on the processor of that number.
    ///
    /// # Errors
    /// The fault that this makes.
    fn load(&self, processor: usize, addr: VirtAddr, to: &mut [u8]) -> Result<(), Outcome>;

    /// Stores bytes that lie in one page.
    ///
    /// # Errors
    /// The fault that this makes.
    fn store(&self, processor: usize, addr: VirtAddr, from: &[u8]) -> Result<(), Outcome>;

    /// Fetches an instruction of one byte.
    ///
    /// # Errors
    /// The fault that this makes.
    fn fetch(&self, processor: usize, addr: VirtAddr) -> Result<(), Outcome>;
}

/// What is mapped of a process that its program does not know of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outside {
    /// All of it, in bytes.
    pub bytes: u64,
    /// What `RLIMIT_DATA` counts of that.
    pub data_bytes: u64,
}

/// A memory call, as it was made and as it was understood.
#[derive(Clone, Copy, Debug)]
pub struct MemoryCall<'a> {
    /// Which.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// The same with files instead of descriptors.
    pub request: &'a Request,
}

/// Memory objects of a pager.
pub trait Objects: fmt::Debug {
    /// A new one, so many bytes long.
    ///
    /// # Errors
    /// No memory.
    fn object(&self, kind: ObjectKind, name: &str, bytes: u64) -> Result<Object, Errno>;

    /// Gives one that has none yet pages.
    ///
    /// # Errors
    /// No memory.
    fn fill(&self, object: &Object, source: ObjectSource) -> Result<(), Errno>;

    /// Gives one the pages of another.
    ///
    /// # Errors
    /// No memory.
    fn share(&self, object: &Object, other: &Object) -> Result<(), Errno>;

    /// How long one is, in bytes.
    fn size(&self, object: &Object) -> u64;

    /// Reads, up to its end.
    ///
    /// # Errors
    /// As [`Pager::read`].
    fn read(&self, object: &Object, offset: u64, to: &mut [u8]) -> Result<usize, Errno>;

    /// Writes; it grows if need be.
    ///
    /// # Errors
    /// As [`Pager::write`].
    fn write(&self, object: &Object, offset: u64, from: &[u8]) -> Result<usize, Errno>;

    /// No new map of it may be written through.
    ///
    /// # Errors
    /// As [`Pager::seal_writes`].
    fn seal_writes(&self, object: &Object) -> Result<(), Errno>;

    /// Makes one longer or shorter.
    ///
    /// # Errors
    /// As [`Pager::resize`].
    fn resize(&self, object: &Object, bytes: u64) -> Result<(), Errno>;

    /// Makes a part zeros.
    ///
    /// # Errors
    /// As [`Pager::punch`].
    fn punch(&self, object: &Object, offset: u64, len: u64) -> Result<(), Errno>;

    /// Gives a part its pages.
    ///
    /// # Errors
    /// As [`Pager::allocate`].
    fn allocate(&self, object: &Object, part: (u64, u64), extent: Extent) -> Result<(), Errno>;
}

impl<M: PhysMem + Mmu + 'static> Objects for Arc<Pager<M>> {
    fn object(&self, kind: ObjectKind, name: &str, bytes: u64) -> Result<Object, Errno> {
        self.new_object(kind, name, ObjectSource::Anonymous { bytes })
    }

    fn fill(&self, object: &Object, source: ObjectSource) -> Result<(), Errno> {
        self.back(object, source)
    }

    fn share(&self, object: &Object, other: &Object) -> Result<(), Errno> {
        Pager::share(self, object, other)
    }

    fn size(&self, object: &Object) -> u64 {
        Pager::size(self, object).unwrap_or(0)
    }

    fn read(&self, object: &Object, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        Pager::read(self, object, offset, to)
    }

    fn write(&self, object: &Object, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        Pager::write(self, object, offset, from)
    }

    fn seal_writes(&self, object: &Object) -> Result<(), Errno> {
        Pager::seal_writes(self, object)
    }

    fn resize(&self, object: &Object, bytes: u64) -> Result<(), Errno> {
        Pager::resize(self, object, bytes)
    }

    fn punch(&self, object: &Object, offset: u64, len: u64) -> Result<(), Errno> {
        Pager::punch(self, object, offset, len)
    }

    fn allocate(&self, object: &Object, part: (u64, u64), extent: Extent) -> Result<(), Errno> {
        Pager::allocate(self, object, part, extent)
    }
}

/// What is known of a space, whatever runs in it.
pub trait Books {
    /// Its map.
    fn map(&self) -> Vmmap;

    /// Its break.
    fn program_break(&self) -> VirtAddr;

    /// Why a request would be refused, if it would be.
    fn refusal(&self, request: &Request) -> Option<Errno>;

    /// Carries out a request and answers as Linux would.
    ///
    /// # Errors
    /// As Linux answers it.
    fn answer(&self, request: &Request) -> Result<u64, Errno>;

    /// Its map, as `/proc/PID/maps` shows it.
    fn maps_text(&self) -> String;

    /// What is counted, and how many pages are locked.
    fn totals(&self) -> (Totals, u64);

    /// Sets what `setrlimit` would.
    fn set_limits(&self, limits: ResourceLimits);

    /// Sets what it may do.
    fn set_privileges(&self, privileges: Privileges);

    /// Compares tables and map.
    ///
    /// # Panics
    /// If they do not agree.
    fn check(&self);

    /// Copies bytes out, as far as they may be read; how many.
    fn copy_out(&self, addr: VirtAddr, to: &mut [u8]) -> usize;

    /// Copies bytes in, as far as they may be written; how many.
    fn copy_in(&self, addr: VirtAddr, from: &[u8]) -> usize;
}

impl<M: PhysMem + Mmu + 'static> Books for AddressSpace<M> {
    fn map(&self) -> Vmmap {
        self.with_manager(|manager| manager.map().clone())
    }

    fn program_break(&self) -> VirtAddr {
        self.with_manager(|manager| manager.program_break())
    }

    fn refusal(&self, request: &Request) -> Option<Errno> {
        self.with_manager(|manager| manager.plan(request).err().map(|refusal| refusal.errno))
    }

    fn answer(&self, request: &Request) -> Result<u64, Errno> {
        let result = self.call(request).map_err(|refusal| refusal.errno);
        linux::answer(request, result, self.program_break())
    }

    fn maps_text(&self) -> String {
        self.with_manager(|manager| manager.maps_text())
    }

    fn totals(&self) -> (Totals, u64) {
        self.with_manager(|manager| (*manager.totals(), manager.locked_pages()))
    }

    fn set_limits(&self, limits: ResourceLimits) {
        self.with_manager_mut(|manager| manager.set_limits(limits));
    }

    fn set_privileges(&self, privileges: Privileges) {
        self.with_manager_mut(|manager| manager.set_privileges(privileges));
    }

    fn check(&self) {
        self.check_invariants();
    }

    fn copy_out(&self, addr: VirtAddr, to: &mut [u8]) -> usize {
        let wanted = to.len();
        self.copy_from_user(addr, to).map_or_else(|fault| fault.copied, |()| wanted)
    }

    fn copy_in(&self, addr: VirtAddr, from: &[u8]) -> usize {
        self.copy_to_user(addr, from).map_or_else(|fault| fault.copied, |()| from.len())
    }
}

/// What was free and charged when a machine was switched on.
#[derive(Clone, Copy, Debug)]
pub struct Balance {
    available: u64,
    charged: [u64; Resource::ALL.len()],
}

impl Balance {
    /// What there is now; `account` pays for all.
    pub fn new<M: PhysMem + Mmu + 'static>(pager: &Pager<M>, account: &Account) -> Self {
        Self { available: pager.frames().available(), charged: Resource::ALL.map(|resource| account.used(resource)) }
    }

    /// What is missing since.
    pub fn left<M: PhysMem + Mmu + 'static>(&self, pager: &Pager<M>, account: &Account) -> Vec<String> {
        let now = Self::new(pager, account);
        let mut left = Vec::new();
        if now.available != self.available {
            left.push(format!("{} frames are free, and {} were at the start", now.available, self.available));
        }
        for (resource, (used, charged)) in Resource::ALL.into_iter().zip(now.charged.into_iter().zip(self.charged)) {
            if used != charged {
                left.push(format!("{used} of {resource:?} are charged, and {charged} were at the start"));
            }
        }
        left
    }
}
