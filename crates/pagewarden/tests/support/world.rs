//! A software machine with a pager, and who pays.

use std::sync::Arc;

use pagewarden::frame::{FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::manager::{Layout, SpaceConfig};
use pagewarden::pager::{AddressSpace, Pager};
use pagewarden::{Limits, PAGE_SIZE, PageCount, Resource, ResourceLedger};

pub(crate) type Space = AddressSpace<Machine>;

/// Where page 0 of the tests is.
pub(crate) const BASE: u64 = 0x10_0000;

pub(crate) struct World {
    pub(crate) ledger: ResourceLedger,
    pub(crate) machine: Arc<Machine>,
    pub(crate) pager: Arc<Pager<Machine>>,
    /// Frames that are free when there is no space.
    pub(crate) free: u64,
}

impl World {
    /// All frames of the machine are usable; small stocks, so that they are filled and emptied often.
    pub(crate) fn new(config: MachineConfig) -> Self {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let machine = Arc::new(Machine::new(config));
        let all = FrameRange::new(FrameNumber::new(0).unwrap(), PageCount::new(config.frames)).unwrap();
        let mut map = MemoryMap::new();
        map.add(all, MemoryKind::Usable).unwrap();
        let config = FramesConfig { processors: config.processors, magazine_frames: 2, zeroed_frames: 1 };
        let pager = Pager::new(machine.clone(), Frames::new(&map, config).unwrap(), ledger.root()).unwrap();
        let free = pager.frames().available();
        Self { ledger, machine, pager, free }
    }

    pub(crate) fn space(&self) -> Space {
        let config = SpaceConfig::new(Layout::X86_64, self.ledger.root().child(Limits::UNLIMITED));
        AddressSpace::new(&self.pager, config).unwrap()
    }

    pub(crate) fn fork(&self, space: &Space) -> Space {
        space.fork(&self.ledger.root().child(Limits::UNLIMITED)).unwrap()
    }

    /// No frame is lost, none of a space that has ended is known to a processor, and nobody pays for any but the zero
    /// frame.
    pub(crate) fn check_empty(&self) {
        for processor in 0..self.machine.processors() {
            assert_eq!(self.machine.known(processor).next(), None, "of a space that has ended");
        }
        self.pager.frames().check_invariants();
        assert_eq!(self.pager.frames().available(), self.free, "frames");
        let used = Resource::ALL.map(|resource| self.ledger.root().used(resource));
        assert_eq!(used, Resource::ALL.map(|resource| u64::from(resource == Resource::Frames)), "the ledger");
    }
}

pub(crate) fn page(number: u64) -> u64 {
    BASE + number * PAGE_SIZE
}

/// Maps readable and writable pages.
pub(crate) fn map(first: u64, pages: u64, flags: MapFlags, source: MapSource) -> Request {
    let flags = flags | MapFlags::FIXED;
    Request::Mmap(MmapRequest { addr: page(first), len: pages * PAGE_SIZE, prot: 3, flags, source, offset: 0 })
}

pub(crate) fn private(first: u64, pages: u64) -> Request {
    map(first, pages, MapFlags::PRIVATE | MapFlags::ANONYMOUS, MapSource::Anonymous)
}
