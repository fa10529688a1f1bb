//! What a processor does: loads, stores and fetches, a page at a time.

use pagewarden::pager::Fault;

use super::super::outcome::Outcome;
use super::super::program::PAGE;
use super::{MachineKernel, address};

impl MachineKernel {
    /// Loads bytes one page after the other, or tells the fault at the first that cannot be.
    pub(in super::super) fn load(&self, addr: u64, to: &mut [u8]) -> Result<(), Outcome> {
        let mut rest = to;
        let mut addr = addr;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(in_page(addr, rest.len()));
            self.space().load(self.processor(), address(addr), part)?;
            addr = addr.wrapping_add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }

    /// Stores bytes one page after the other, or tells the fault at the first that cannot be.
    pub(in super::super) fn store(&self, addr: u64, from: &[u8]) -> Result<(), Outcome> {
        let mut rest = from;
        let mut addr = addr;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(in_page(addr, rest.len()));
            self.space().store(self.processor(), address(addr), part)?;
            addr = addr.wrapping_add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }

    /// Fetches the byte at `addr`, as a call of it would.
    pub(in super::super) fn execute(&self, addr: u64) -> Result<(), Outcome> {
        self.space().fetch(self.processor(), address(addr))
    }
}

/// How many of `len` bytes from `addr` on lie in its page.
pub(super) fn in_page(addr: u64, len: usize) -> usize {
    usize::try_from(PAGE - addr % PAGE).unwrap_or(len).min(len)
}

/// What a program is told of a fault that is not resolved.
pub fn fault_outcome(fault: Fault) -> Outcome {
    match fault {
        Fault::Signal(signal) => {
            let addr = signal.address.as_u64();
            let [signal, code] = [signal.signal.raw(), signal.code.raw()].map(|raw| u64::from(raw.cast_unsigned()));
            Outcome::Fault { signal, code, addr }
        }
        Fault::OutOfMemory => Outcome::Broken("out of memory"),
    }
}
