//! The software machine: processors that remember translations, each in one space until it has run in another.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use pagewarden::frame::{FrameError, FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::manager::{Access, SpaceConfig};
use pagewarden::pager::{AddressSpace, Pager};
use pagewarden::{Account, Errno, Limits, PageCount, ResourceLedger, VirtAddr};

use super::super::outcome::Outcome;
use super::hardware::{Balance, Books, Hardware, MemoryCall, Objects, Space};
use super::touch::fault_outcome;

/// How many processors there are.
const PROCESSORS: usize = 4;
/// Frames of memory: 128 MiB, which no program fills.
const FRAMES: u64 = 1 << 15;
/// Frames that each processor keeps for itself.
const MAGAZINE_FRAMES: usize = 8;
/// A fault that comes back so often is not resolved.
const TRIES: usize = 8;

/// The machine, and the pager that owns its memory.
#[derive(Debug)]
pub(in super::super) struct SoftwareMachine {
    shared: Rc<Shared>,
}

/// What its spaces use.
#[derive(Debug)]
struct Shared {
    machine: Arc<Machine>,
    pager: Arc<Pager<Machine>>,
    ledger: ResourceLedger,
    balance: Balance,
    /// Which root table each processor has.
    active: RefCell<[Option<FrameNumber>; PROCESSORS]>,
}

/// An address space.
#[derive(Debug)]
struct SoftwareSpace {
    shared: Rc<Shared>,
    space: AddressSpace<Machine>,
}

impl SoftwareMachine {
    /// A machine that was just switched on.
    ///
    /// # Errors
    /// No memory for it.
    pub(in super::super) fn new() -> io::Result<Self> {
        let config = MachineConfig { frames: FRAMES, processors: PROCESSORS, ..MachineConfig::default() };
        let machine = Arc::new(Machine::new(config));
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let frames = frames().map_err(|error| io::Error::other(format!("no frames: {error:?}")))?;
        let pager = Pager::new(Arc::clone(&machine), frames, ledger.root()).map_err(io::Error::other)?;
        let balance = Balance::new(&pager, ledger.root());
        let active = RefCell::new([None; PROCESSORS]);
        Ok(Self { shared: Rc::new(Shared { machine, pager, ledger, balance, active }) })
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

impl Shared {
    /// A new account for a process.
    fn account(&self) -> Account {
        self.ledger.root().child(Limits::UNLIMITED)
    }
}

impl Hardware for SoftwareMachine {
    fn objects(&self) -> &dyn Objects {
        &self.shared.pager
    }

    fn space(&self, config: SpaceConfig) -> Result<Box<dyn Space>, Errno> {
        let config = SpaceConfig { account: self.shared.account(), ..config };
        let space = AddressSpace::new(&self.shared.pager, config)?;
        Ok(Box::new(SoftwareSpace { shared: Rc::clone(&self.shared), space }))
    }

    fn left(&self) -> Vec<String> {
        self.shared.balance.left(&self.shared.pager, self.shared.ledger.root())
    }
}

impl SoftwareSpace {
    /// Has a processor run here; which.
    fn enter(&self, processor: usize) -> usize {
        let processor = processor % PROCESSORS;
        let mut active = self.shared.active.borrow_mut();
        let root = self.space.root();
        if active[processor] != Some(root) {
            self.shared.machine.activate(processor, root);
            active[processor] = Some(root);
        }
        processor
    }

    /// Makes an access, with faults resolved as they come; `attempt` says whether there was none.
    fn access(&self, addr: VirtAddr, access: Access, mut attempt: impl FnMut() -> bool) -> Result<(), Outcome> {
        for _ in 0..TRIES {
            if attempt() {
                return Ok(());
            }
            self.space.fault(addr, access).map_err(fault_outcome)?;
        }
        Err(Outcome::Broken("the fault comes back"))
    }
}

impl Space for SoftwareSpace {
    fn books(&self) -> &dyn Books {
        &self.space
    }

    fn call(&self, call: &MemoryCall<'_>) -> Result<u64, Errno> {
        self.space.answer(call.request)
    }

    fn fork(&self) -> Result<Box<dyn Space>, Errno> {
        let space = self.space.fork(&self.shared.account()).map_err(|refusal| refusal.errno)?;
        Ok(Box::new(Self { shared: Rc::clone(&self.shared), space }))
    }

    fn load(&self, processor: usize, addr: VirtAddr, to: &mut [u8]) -> Result<(), Outcome> {
        let processor = self.enter(processor);
        self.access(addr, Access::Read, || self.shared.machine.load(processor, addr, to).is_ok())
    }

    fn store(&self, processor: usize, addr: VirtAddr, from: &[u8]) -> Result<(), Outcome> {
        let processor = self.enter(processor);
        self.access(addr, Access::Write, || self.shared.machine.store(processor, addr, from).is_ok())
    }

    fn fetch(&self, processor: usize, addr: VirtAddr) -> Result<(), Outcome> {
        let processor = self.enter(processor);
        self.access(addr, Access::Execute, || self.shared.machine.fetch(processor, addr, &mut [0]).is_ok())
    }
}

impl Drop for SoftwareSpace {
    /// Has no processor run here any more.
    fn drop(&mut self) {
        let root = self.space.root();
        for (processor, active) in self.shared.active.borrow_mut().iter_mut().enumerate() {
            if *active == Some(root) {
                self.shared.machine.deactivate(processor);
                *active = None;
            }
        }
    }
}
