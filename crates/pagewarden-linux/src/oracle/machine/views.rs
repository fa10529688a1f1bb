//! The host as a machine: memory is a memfd, and what programs load and store are real accesses to views of it.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use pagewarden::manager::{Access, SpaceConfig};
use pagewarden::{Account, Errno, Limits, ResourceLedger, VirtAddr};

use super::super::outcome::Outcome;
use super::hardware::{Balance, Books, Hardware, MemoryCall, Objects, Space};
use super::touch::fault_outcome;
use crate::host_machine::{HostMemory, HostMemoryOptions, HostSpace, Reservation, install_handler};

/// Bytes of memory, which no program fills.
const BYTES: u64 = 128 << 20;
/// What a view can show, and what nobody maps behind it.
const VIEW: usize = 4 << 30;
const GUARD: usize = 64 << 10;

/// The memory of the host's, and who pays for it.
#[derive(Debug)]
pub(in super::super) struct HostHardware {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Arc<HostMemory>,
    ledger: ResourceLedger,
    balance: Balance,
}

/// A space and its view.
#[derive(Debug)]
struct ViewedSpace {
    shared: Rc<Shared>,
    space: Arc<HostSpace>,
}

impl HostHardware {
    /// Memory of which all is free, with views that may have so many mappings in all. A process that is forked has the
    /// same memory, and its own idea of what is in it: so each makes its own.
    ///
    /// # Errors
    /// What the host says.
    pub(in super::super) fn new(mappings_max: Option<usize>) -> io::Result<Self> {
        install_handler().map_err(io::Error::other)?;
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let options = HostMemoryOptions { bytes: BYTES, mappings_max };
        let memory = HostMemory::new(&options, ledger.root()).map_err(io::Error::other)?;
        let balance = Balance::new(memory.pager(), ledger.root());
        Ok(Self { shared: Rc::new(Shared { memory, ledger, balance }) })
    }
}

impl Shared {
    fn account(&self) -> Account {
        self.ledger.root().child(Limits::UNLIMITED)
    }
}

fn reservation() -> Result<Reservation, Errno> {
    Reservation::new(VIEW, GUARD).map_err(|_| Errno::NoMem)
}

impl Hardware for HostHardware {
    fn objects(&self) -> &dyn Objects {
        self.shared.memory.pager()
    }

    fn space(&self, config: SpaceConfig) -> Result<Box<dyn Space>, Errno> {
        let config = SpaceConfig { account: self.shared.account(), ..config };
        let space = HostSpace::new(&self.shared.memory, reservation()?, config)?;
        Ok(Box::new(ViewedSpace { shared: Rc::clone(&self.shared), space }))
    }

    fn left(&self) -> Vec<String> {
        let mut left = self.shared.balance.left(self.shared.memory.pager(), self.shared.ledger.root());
        let mappings = self.shared.memory.usage().mappings;
        if mappings > 0 {
            left.push(format!("{mappings} mappings of views are left"));
        }
        left
    }
}

impl Space for ViewedSpace {
    fn books(&self) -> &dyn Books {
        self.space.space()
    }

    fn call(&self, call: &MemoryCall<'_>) -> Result<u64, Errno> {
        self.space.space().answer(call.request)
    }

    fn fork(&self) -> Result<Box<dyn Space>, Errno> {
        let space = self.space.fork(reservation()?, &self.shared.account()).map_err(|refusal| refusal.errno)?;
        Ok(Box::new(Self { shared: Rc::clone(&self.shared), space }))
    }

    fn load(&self, _processor: usize, addr: VirtAddr, to: &mut [u8]) -> Result<(), Outcome> {
        self.space.load(addr, to).map_err(|copy| fault_outcome(copy.fault))
    }

    fn store(&self, _processor: usize, addr: VirtAddr, from: &[u8]) -> Result<(), Outcome> {
        self.space.store(addr, from).map_err(|copy| fault_outcome(copy.fault))
    }

    /// Nothing runs in a view: the tables say what a processor would do.
    fn fetch(&self, _processor: usize, addr: VirtAddr) -> Result<(), Outcome> {
        self.space.space().fault(addr, Access::Execute).map_err(fault_outcome)
    }
}
