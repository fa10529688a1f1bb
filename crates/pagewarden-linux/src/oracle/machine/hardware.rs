//! All that the little kernel knows of the machine and the pager.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use pagewarden::frame::{FrameError, FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::linux::Request;
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::manager::{Access, FaultSignal, SpaceConfig};
use pagewarden::object::{Extent, ObjectSource};
use pagewarden::pager::{AddressSpace, Fault, Pager, SpacePager};
use pagewarden::{
    Account, Errno, Limits, MemoryObject, ObjectKind, PageCount, PageManager, Resource, ResourceLedger, VirtAddr,
};

use super::disk::Disk;

/// A memory object with pages of the pager's.
pub(super) type Object = Arc<MemoryObject>;
/// The platform of a space.
type Platform = SpacePager<Machine>;

/// How many processors there are.
pub(super) const PROCESSORS: usize = 4;
/// Frames of memory: 128 MiB, which no program fills.
const FRAMES: u64 = 1 << 15;
/// Frames that each processor keeps for itself.
const MAGAZINE_FRAMES: usize = 8;

/// The machine, and the pager that owns its memory.
#[derive(Debug)]
pub(super) struct Hardware {
    machine: Arc<Machine>,
    pager: Arc<Pager<Machine>>,
    ledger: ResourceLedger,
    /// Frames that were free at the start, and what was charged.
    available: u64,
    charged: [u64; Resource::ALL.len()],
    /// Which root table each processor has.
    active: RefCell<[Option<FrameNumber>; PROCESSORS]>,
}

/// An address space.
#[derive(Debug)]
pub(super) struct Space(AddressSpace<Machine>);

/// What became of a fault.
pub(super) enum Resolved {
    /// The access is to be tried again.
    Again,
    /// It ends in this signal.
    Signal(FaultSignal),
    /// There is no frame left.
    OutOfMemory,
}

impl Hardware {
    /// A machine that was just switched on.
    pub(super) fn new() -> io::Result<Self> {
        let config = MachineConfig { frames: FRAMES, processors: PROCESSORS, ..MachineConfig::default() };
        let machine = Arc::new(Machine::new(config));
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let frames = frames().map_err(|error| io::Error::other(format!("no frames: {error:?}")))?;
        let pager = Pager::new(Arc::clone(&machine), frames, ledger.root()).map_err(io::Error::other)?;
        let available = pager.frames().available();
        let charged = Resource::ALL.map(|resource| ledger.root().used(resource));
        Ok(Self { machine, pager, ledger, available, charged, active: RefCell::new([None; PROCESSORS]) })
    }

    /// A new account for a process.
    pub(super) fn account(&self) -> Account {
        self.ledger.root().child(Limits::UNLIMITED)
    }

    /// An empty space; the account of `config` is replaced.
    pub(super) fn space(&self, config: SpaceConfig) -> Result<Space, Errno> {
        let config = SpaceConfig { account: self.account(), ..config };
        AddressSpace::new(&self.pager, config).map(Space)
    }

    /// An object of memory, so many bytes long.
    pub(super) fn object(&self, kind: ObjectKind, name: &str, bytes: u64) -> Result<Object, Errno> {
        self.pager.new_object(kind, name, ObjectSource::Anonymous { bytes })
    }

    /// Gives `object` the pages of the file on `disk`.
    pub(super) fn fill(&self, object: &Object, disk: &Arc<Disk>) -> Result<(), Errno> {
        let disk = Arc::clone(disk);
        self.pager.back(object, ObjectSource::File(disk))
    }

    /// Gives `object` the pages of another.
    pub(super) fn share(&self, object: &Object, other: &Object) -> Result<(), Errno> {
        self.pager.share(object, other)
    }

    /// How long an object is, in bytes.
    pub(super) fn size(&self, object: &Object) -> u64 {
        self.pager.size(object).unwrap_or(0)
    }

    /// Reads from an object, up to its end.
    pub(super) fn read(&self, object: &Object, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        self.pager.read(object, offset, to)
    }

    /// Writes to an object, which grows if need be.
    pub(super) fn write(&self, object: &Object, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        self.pager.write(object, offset, from)
    }

    /// No new map of the object may be written through.
    pub(super) fn seal_writes(&self, object: &Object) -> Result<(), Errno> {
        self.pager.seal_writes(object)
    }

    /// Makes an object longer or shorter.
    pub(super) fn resize(&self, object: &Object, bytes: u64) -> Result<(), Errno> {
        self.pager.resize(object, bytes)
    }

    /// Makes a part of an object zeros.
    pub(super) fn punch(&self, object: &Object, offset: u64, len: u64) -> Result<(), Errno> {
        self.pager.punch(object, offset, len)
    }

    /// Gives a part of an object its pages.
    pub(super) fn allocate(&self, object: &Object, part: (u64, u64), extent: Extent) -> Result<(), Errno> {
        self.pager.allocate(object, part, extent)
    }

    /// Has a processor run in `space`.
    fn enter(&self, space: &Space, processor: usize) {
        let mut active = self.active.borrow_mut();
        let root = space.0.root();
        if active[processor] != Some(root) {
            self.machine.activate(processor, root);
            active[processor] = Some(root);
        }
    }

    /// Has no processor run in `space` any more, which is about to go.
    pub(super) fn leave(&self, space: &Space) {
        let root = space.0.root();
        for (processor, active) in self.active.borrow_mut().iter_mut().enumerate() {
            if *active == Some(root) {
                self.machine.deactivate(processor);
                *active = None;
            }
        }
    }

    /// Loads bytes that lie in one page; whether there was no fault.
    pub(super) fn load(&self, space: &Space, processor: usize, addr: VirtAddr, to: &mut [u8]) -> bool {
        self.enter(space, processor);
        self.machine.load(processor, addr, to).is_ok()
    }

    /// Stores bytes that lie in one page; whether there was no fault.
    pub(super) fn store(&self, space: &Space, processor: usize, addr: VirtAddr, from: &[u8]) -> bool {
        self.enter(space, processor);
        self.machine.store(processor, addr, from).is_ok()
    }

    /// Fetches bytes that lie in one page; whether there was no fault.
    pub(super) fn fetch(&self, space: &Space, processor: usize, addr: VirtAddr, to: &mut [u8]) -> bool {
        self.enter(space, processor);
        self.machine.fetch(processor, addr, to).is_ok()
    }

    /// What is allocated or charged; nothing, once all spaces and objects are gone.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let available = self.pager.frames().available();
        if available != self.available {
            left.push(format!("{available} frames are free, and {} were at the start", self.available));
        }
        for (resource, charged) in Resource::ALL.into_iter().zip(self.charged) {
            let used = self.ledger.root().used(resource);
            if used != charged {
                left.push(format!("{used} of {resource:?} are charged, and {charged} were at the start"));
            }
        }
        left
    }
}

/// All memory is there to be given out.
fn frames() -> Result<Frames, FrameError> {
    let mut map = MemoryMap::new();
    let all = FrameNumber::new(0).and_then(|first| FrameRange::new(first, PageCount::new(FRAMES)));
    map.add(all.ok_or(FrameError::InvalidRange)?, MemoryKind::Usable)?;
    let config = FramesConfig { processors: PROCESSORS, magazine_frames: MAGAZINE_FRAMES, zeroed_frames: 0 };
    Frames::new(&map, config)
}

impl Space {
    /// Answers a memory call.
    pub(super) fn call(&self, request: &Request) -> Result<u64, Errno> {
        self.0.call(request).map_err(|refusal| refusal.errno)
    }

    /// A copy, for a child.
    pub(super) fn fork(&self, account: Account) -> Result<Self, Errno> {
        self.0.fork(&account).map(Self).map_err(|refusal| refusal.errno)
    }

    /// What an access does that the machine could not make.
    pub(super) fn resolve(&self, addr: VirtAddr, access: Access) -> Resolved {
        match self.0.fault(addr, access) {
            Ok(()) => Resolved::Again,
            Err(Fault::Signal(signal)) => Resolved::Signal(signal),
            Err(Fault::OutOfMemory) => Resolved::OutOfMemory,
        }
    }

    /// Copies bytes out of the space, as far as they may be read; how many.
    pub(super) fn copy_from_user(&self, addr: VirtAddr, to: &mut [u8]) -> usize {
        let wanted = to.len();
        self.0.copy_from_user(addr, to).map_or_else(|fault| fault.copied, |()| wanted)
    }

    /// Copies bytes into the space, as far as they may be written; how many.
    pub(super) fn copy_to_user(&self, addr: VirtAddr, from: &[u8]) -> usize {
        self.0.copy_to_user(addr, from).map_or_else(|fault| fault.copied, |()| from.len())
    }

    /// Shows the manager.
    pub(super) fn with_manager<R>(&self, look: impl FnOnce(&PageManager<Platform>) -> R) -> R {
        self.0.with_manager(look)
    }

    /// Lends it.
    pub(super) fn with_manager_mut<R>(&self, change: impl FnOnce(&mut PageManager<Platform>) -> R) -> R {
        self.0.with_manager_mut(change)
    }

    /// Compares tables and map.
    ///
    /// # Panics
    /// If they do not agree.
    pub(super) fn check_invariants(&self) {
        self.0.check_invariants();
    }
}
