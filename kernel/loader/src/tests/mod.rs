//! Images that are made by hand, and spaces on the software machine to load them into.

mod corrupted;
mod elf;
mod images;
mod loading;
mod shortage;
mod stacks;

use std::sync::Arc;
use std::vec::Vec;

use pagewarden::frame::{FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::manager::{Layout, SpaceConfig};
use pagewarden::pager::{AddressSpace, Pager};
use pagewarden::{Errno, Limits, PageCount, PageRange, Prot, Resource, ResourceLedger, VirtAddr};

type Space = AddressSpace<Machine>;

/// A machine with a pager, and who pays.
struct World {
    machine: Arc<Machine>,
    ledger: ResourceLedger,
    pager: Arc<Pager<Machine>>,
    unused: Usage,
}

/// Frames that are free, and what is charged.
type Usage = (u64, [u64; Resource::ALL.len()]);

impl World {
    fn new() -> Self {
        Self::with_frames(512)
    }

    fn with_frames(frames: u64) -> Self {
        let machine = Arc::new(Machine::new(MachineConfig { frames, ..MachineConfig::default() }));
        let mut map = MemoryMap::new();
        let all = FrameRange::new(FrameNumber::new(0).unwrap(), PageCount::new(frames)).unwrap();
        map.add(all, MemoryKind::Usable).unwrap();
        let frames = Frames::new(&map, FramesConfig::default()).unwrap();
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let pager = Pager::new(machine.clone(), frames, ledger.root()).unwrap();
        let unused = usage(&pager, &ledger);
        Self { machine, ledger, pager, unused }
    }

    fn config(&self) -> SpaceConfig {
        SpaceConfig::new(Layout::X86_64, self.ledger.root().child(Limits::UNLIMITED))
    }

    fn space(&self) -> Space {
        self.space_of(self.config()).unwrap()
    }

    fn space_of(&self, config: SpaceConfig) -> Result<Space, Errno> {
        AddressSpace::new(&self.pager, config)
    }

    fn usage(&self) -> Usage {
        usage(&self.pager, &self.ledger)
    }

    /// There are no spaces any more, and nothing of them.
    fn check_empty(&self) {
        self.pager.frames().check_invariants();
        assert_eq!(self.usage(), self.unused);
    }
}

fn usage(pager: &Pager<Machine>, ledger: &ResourceLedger) -> Usage {
    (pager.frames().available(), Resource::ALL.map(|resource| ledger.root().used(resource)))
}

/// Where the regions of a space are, and what may be done with them.
fn regions(space: &Space) -> Vec<(PageRange, Prot)> {
    space.check_invariants();
    space.with_manager(|manager| manager.map().iter().map(|entry| (entry.range, entry.region.prot)).collect())
}

fn pages(start: u64, end: u64) -> PageRange {
    PageRange::new(VirtAddr::new(start), VirtAddr::new(end)).unwrap()
}

fn read(space: &Space, from: u64, bytes: usize) -> Vec<u8> {
    let mut read = std::vec![0xee; bytes];
    space.copy_from_user(VirtAddr::new(from), &mut read).unwrap();
    read
}
