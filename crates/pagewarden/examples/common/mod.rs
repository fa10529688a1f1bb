//! A software machine with processes on it, and who pays: what the examples of capabilities run on.

use std::error::Error;
use std::sync::Arc;

use pagewarden::cap::{FixedPlaces, Process};
use pagewarden::frame::{FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::machine::{Machine, MachineConfig, PageFault};
use pagewarden::manager::{Access, Layout, SpaceConfig};
use pagewarden::pager::Pager;
use pagewarden::{Account, Limits, PageCount, Resource, ResourceLedger, VirtAddr};

/// What an example ends with if something goes wrong.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Where each process has the pages that it shares with whoever runs it.
const PLACES: FixedPlaces =
    FixedPlaces { capability_set: VirtAddr::new(0x7000_0000), ring: VirtAddr::new(0x7000_1000) };

/// The machine, its frames, and the account above all others.
pub(crate) struct World {
    pub(crate) machine: Arc<Machine>,
    pub(crate) pager: Arc<Pager<Machine>>,
    pub(crate) ledger: ResourceLedger,
}

impl World {
    pub(crate) fn new() -> Outcome<Self> {
        let machine = Arc::new(Machine::new(MachineConfig::default()));
        let first = FrameNumber::new(0).ok_or("frame 0")?;
        let all = FrameRange::new(first, PageCount::new(machine.frames())).ok_or("no frames")?;
        let mut map = MemoryMap::new();
        map.add(all, MemoryKind::Usable)?;
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let pager = Pager::new(machine.clone(), Frames::new(&map, FramesConfig::default())?, ledger.root())?;
        Ok(Self { machine, pager, ledger })
    }

    pub(crate) fn account(&self, limits: Limits) -> Account {
        self.ledger.root().child(limits)
    }

    /// A process with an empty space, which `account` pays for.
    pub(crate) fn process(&self, account: Account) -> Outcome<Process<Machine>> {
        Ok(Process::new(&self.pager, SpaceConfig::new(Layout::X86_64, account), PLACES)?)
    }

    /// Loads as the program of `process` would: what is not there yet ends in a fault, and the program tries again.
    pub(crate) fn load(&self, process: &Process<Machine>, at: u64, to: &mut [u8]) -> Outcome<()> {
        self.machine.activate(0, process.space().root());
        retry(process, Access::Read, || self.machine.load(0, VirtAddr::new(at), to))
    }

    /// Stores as the program of `process` would.
    pub(crate) fn store(&self, process: &Process<Machine>, at: u64, from: &[u8]) -> Outcome<()> {
        self.machine.activate(0, process.space().root());
        retry(process, Access::Write, || self.machine.store(0, VirtAddr::new(at), from))
    }
}

fn retry(process: &Process<Machine>, access: Access, mut touch: impl FnMut() -> Result<(), PageFault>) -> Outcome<()> {
    while let Err(fault) = touch() {
        process.space().fault(fault.address, access)?;
    }
    Ok(())
}

/// What an account has of address space and of memory, in pages.
pub(crate) fn use_of(account: &Account) -> (u64, u64) {
    (account.used(Resource::Virtual), account.used(Resource::Committed))
}
