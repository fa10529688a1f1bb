//! What a processor does: loads, stores and fetches through its translations, with faults resolved as they come.

use pagewarden::manager::Access;

use super::super::outcome::Outcome;
use super::super::program::PAGE;
use super::hardware::Resolved;
use super::{MachineKernel, address};

/// A fault that comes back so often is not resolved.
const TRIES: usize = 8;

impl MachineKernel {
    /// Loads bytes one page after the other, or tells the fault at the first that cannot be.
    pub(in super::super) fn load(&self, addr: u64, to: &mut [u8]) -> Result<(), Outcome> {
        let mut rest = to;
        let mut addr = addr;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(in_page(addr, rest.len()));
            self.touch(addr, Access::Read, || self.hardware.load(self.space(), self.processor(), address(addr), part))?;
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
            self.touch(addr, Access::Write, || {
                self.hardware.store(self.space(), self.processor(), address(addr), part)
            })?;
            addr = addr.wrapping_add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }

    /// Fetches the byte at `addr`, as a call of it would.
    pub(in super::super) fn execute(&self, addr: u64) -> Result<(), Outcome> {
        self.touch(addr, Access::Execute, || {
            self.hardware.fetch(self.space(), self.processor(), address(addr), &mut [0])
        })
    }

    /// Accesses what lies in the page of `addr`, from there on.
    fn touch(&self, addr: u64, access: Access, mut attempt: impl FnMut() -> bool) -> Result<(), Outcome> {
        for _ in 0..TRIES {
            if attempt() {
                return Ok(());
            }
            match self.space().resolve(address(addr), access) {
                Resolved::Again => {}
                Resolved::Signal(signal) => {
                    let at = signal.address.as_u64();
                    let [signal, code] =
                        [signal.signal.raw(), signal.code.raw()].map(|raw| u64::from(raw.cast_unsigned()));
                    return Err(Outcome::Fault { signal, code, addr: at });
                }
                Resolved::OutOfMemory => return Err(Outcome::Broken("out of memory")),
            }
        }
        Err(Outcome::Broken("the fault comes back"))
    }
}

/// How many of `len` bytes from `addr` on lie in its page.
pub(super) fn in_page(addr: u64, len: usize) -> usize {
    usize::try_from(PAGE - addr % PAGE).unwrap_or(len).min(len)
}
