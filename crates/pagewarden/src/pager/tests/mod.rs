//! The pager on the software machine: real tables, processors that remember, and a ledger that must be empty at the end.

mod advice;
mod around;
mod audit;
mod basics;
mod failing;
mod files;
mod flushes;
mod held_random;
mod kernel;
mod random;
mod snapshots;
mod states;
mod windows;

use alloc::sync::Arc;

use super::{AddressSpace, Fault, Pager};
use crate::addr::{PAGE_SIZE, PageCount, VirtAddr};
use crate::frame::{BitmapAllocator, FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, Request};
use crate::machine::{FailPoint, Machine, MachineConfig};
use crate::manager::{Access, Break, SpaceConfig};
use crate::model::SMALL_LAYOUT;
use crate::object::{MemoryObject, ObjectKind, ObjectPages, ObjectSource};
use failing::FailingAllocator;

/// Where the tests map things.
pub(crate) const BASE: u64 = 0x10_0000;
/// So many frames after the usable ones there is memory of a device, far from all that is known of frames.
pub(crate) const DEVICE_AFTER: u64 = 1 << 14;
pub(crate) const RW: u64 = 3;
pub(crate) const READ: u64 = 1;

/// A machine with a pager, and who pays.
pub(crate) struct World {
    pub(crate) ledger: ResourceLedger,
    pub(crate) machine: Arc<Machine>,
    pub(crate) pager: Arc<Pager<Machine>>,
    /// Each frame that is taken passes here.
    pub(crate) frame_taken: FailPoint,
    free_at_start: u64,
}

impl World {
    /// A machine with so many frames.
    pub(crate) fn new(frames: u64) -> Self {
        // What lies beyond is a device's.
        let config = MachineConfig { frames: frames + DEVICE_AFTER + 2, ..MachineConfig::default() };
        Self::on(Machine::new(config), frames)
    }

    /// A pager for the first `frames` frames of a machine.
    pub(crate) fn on(machine: Machine, frames: u64) -> Self {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let machine = Arc::new(machine);
        let mut map = MemoryMap::new();
        let all = FrameRange::new(FrameNumber::new(0).unwrap(), PageCount::new(frames)).unwrap();
        map.add(all, MemoryKind::Usable).unwrap();
        // Without magazines, so that each frame that is taken may fail by itself.
        let config = FramesConfig { processors: 2, magazine_frames: 0, zeroed_frames: 0 };
        let frame_taken = FailPoint::new("frame");
        let allocator = FailingAllocator { inner: BitmapAllocator::new(&map).unwrap(), taken: frame_taken.clone() };
        let frames = Frames::with_allocator(&map, config, alloc::boxed::Box::new(allocator)).unwrap();
        let pager = Pager::new(machine.clone(), frames, ledger.root()).unwrap();
        let free_at_start = pager.frames().available();
        Self { ledger, machine, pager, frame_taken, free_at_start }
    }

    pub(crate) fn config(&self) -> SpaceConfig {
        let brk = Break { start: VirtAddr::new(0x20_0000), current: VirtAddr::new(0x20_0000), data_bytes: 0 };
        SpaceConfig { brk, ..SpaceConfig::new(SMALL_LAYOUT, self.ledger.root().child(Limits::UNLIMITED)) }
    }

    pub(crate) fn space(&self) -> AddressSpace<Machine> {
        AddressSpace::new(&self.pager, self.config()).unwrap()
    }

    pub(crate) fn memfd(&self, pages: u64) -> OpenFile {
        let kind = ObjectKind::Memfd(crate::object::FileId { device: 1, inode: 2 });
        let source = ObjectSource::Anonymous { bytes: pages * PAGE_SIZE };
        self.open(self.pager.new_object(kind, "/memfd:a (deleted)", source).unwrap())
    }

    pub(crate) fn open(&self, object: Arc<MemoryObject>) -> OpenFile {
        OpenFile { object, traits: FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR }
    }

    /// Has `processor` run in the space of `root`. It keeps what it knows if it does already.
    pub(crate) fn run(&self, processor: usize, root: FrameNumber) {
        if self.machine.active(processor) != Some(root) {
            self.machine.activate(processor, root);
        }
    }

    /// Loads a byte as a guest, with faults handled.
    pub(crate) fn load(&self, space: &AddressSpace<Machine>, address: u64) -> Result<u8, Fault> {
        self.run(0, space.root());
        let mut byte = [0];
        for _ in 0..8 {
            match self.machine.load(0, VirtAddr::new(address), &mut byte) {
                Ok(()) => return Ok(byte[0]),
                Err(fault) => space.fault(fault.address, Access::Read)?,
            }
        }
        panic!("{address:#x} faults for ever");
    }

    /// Stores a byte as a guest, with faults handled.
    pub(crate) fn store(&self, space: &AddressSpace<Machine>, address: u64, byte: u8) -> Result<(), Fault> {
        self.run(0, space.root());
        for _ in 0..8 {
            match self.machine.store(0, VirtAddr::new(address), &[byte]) {
                Ok(()) => return Ok(()),
                Err(fault) => space.fault(fault.address, Access::Write)?,
            }
        }
        panic!("{address:#x} faults for ever");
    }

    /// Nothing is left over: every frame is free again, and nobody pays for any but the zero frame.
    pub(crate) fn check_empty(&self) {
        self.pager.frames().check_invariants();
        assert_eq!(self.pager.frames().available(), self.free_at_start, "frames");
        let used = Resource::ALL.map(|resource| self.ledger.root().used(resource));
        assert_eq!(used, Resource::ALL.map(|resource| u64::from(resource == Resource::Frames)), "the ledger");
    }
}

/// Pages of an object.
pub(crate) fn object_pages(first: u64, count: u64) -> ObjectPages {
    ObjectPages::new(first, PageCount::new(count)).unwrap()
}

pub(crate) fn page(number: u64) -> u64 {
    BASE + number * PAGE_SIZE
}

pub(crate) fn map_anonymous(first: u64, pages: u64, prot: u64, flags: MapFlags) -> Request {
    map(first, pages, prot, flags | MapFlags::ANONYMOUS, MapSource::Anonymous)
}

pub(crate) fn private(first: u64, pages: u64, prot: u64) -> Request {
    map_anonymous(first, pages, prot, MapFlags::PRIVATE)
}

pub(crate) fn map_file(first: u64, pages: u64, prot: u64, flags: MapFlags, file: &OpenFile) -> Request {
    map(first, pages, prot, flags, MapSource::File(file.clone()))
}

fn map(first: u64, pages: u64, prot: u64, flags: MapFlags, source: MapSource) -> Request {
    let flags = flags | MapFlags::FIXED;
    Request::Mmap(MmapRequest { addr: page(first), len: pages * PAGE_SIZE, prot, flags, source, offset: 0 })
}

pub(crate) fn munmap(first: u64, pages: u64) -> Request {
    Request::Munmap { addr: page(first), len: pages * PAGE_SIZE }
}

pub(crate) fn mprotect(first: u64, pages: u64, prot: u64) -> Request {
    Request::Mprotect { addr: page(first), len: pages * PAGE_SIZE, prot }
}
