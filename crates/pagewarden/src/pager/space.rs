//! An address space of our own: a manager, the pager as its platform, and the lock around both.

use alloc::sync::Arc;
use core::fmt;

use super::fault::Touch;
use super::{Fault, Pager, SpacePager};
use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::FrameNumber;
use crate::ledger::Account;
use crate::linux::Request;
use crate::manager::{
    Access, CapabilityRequest, Cause, FaultPlan, FaultSignal, KeyRights, PageManager, Refusal, Signal, SignalCode,
    SpaceConfig,
};
use crate::mmu::{Mmu, PhysMem};
use crate::sync::RwLock;

/// An address space whose pages are a [`Pager`]'s. Calls have it alone; faults and copies go on beside each other.
pub struct AddressSpace<M: PhysMem + Mmu + 'static> {
    manager: RwLock<PageManager<SpacePager<M>>>,
}

impl<M: PhysMem + Mmu + 'static> fmt::Debug for AddressSpace<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("root", &self.root()).finish_non_exhaustive()
    }
}

impl<M: PhysMem + Mmu + 'static> AddressSpace<M> {
    /// An empty space.
    ///
    /// # Errors
    /// [`Errno::NoMem`] if there is no frame for the root table, or its account may not have one; [`Errno::Srch`] if the
    /// pager was given a kernel space ([`Pager::set_kernel`]) that is gone.
    pub fn new(pager: &Arc<Pager<M>>, config: SpaceConfig) -> Result<Self, Errno> {
        let platform = pager.reclaiming(|| SpacePager::new(pager, &config.account))?;
        Ok(Self { manager: RwLock::new(PageManager::new(config, platform)) })
    }

    /// Carries out a request of the guest.
    ///
    /// # Errors
    /// As [`PageManager::call`].
    pub fn call(&self, request: &Request) -> Result<u64, Refusal> {
        self.manager.write().call(request)
    }

    /// Carries out a request that a capability speaks for.
    ///
    /// # Errors
    /// As [`PageManager::call_capability`].
    pub fn call_capability(&self, request: &CapabilityRequest) -> Result<u64, Refusal> {
        self.manager.write().call_capability(request)
    }

    /// Makes the page at `address` present for an access that has failed: then the guest tries again. A stack may grow.
    ///
    /// # Errors
    /// The signal that the guest gets, or that there is no memory.
    pub fn fault(&self, address: VirtAddr, access: Access) -> Result<(), Fault> {
        self.fault_by((address, access), None, None)
    }

    /// The same, and after a store to private memory pages of `window` near it are ready for stores too, if they are in the
    /// same region and there are frames to spare: a guest that walks through its memory faults less then, and its frames
    /// follow each other. A guest can tell by mincore(2) alone.
    ///
    /// # Errors
    /// As [`Self::fault`], for the page at `address`; nothing that the others want makes it fail.
    pub fn fault_around(&self, address: VirtAddr, access: Access, window: PageRange) -> Result<(), Fault> {
        self.fault_by((address, access), None, Some(window))
    }

    /// The same, by a thread with these rights.
    ///
    /// # Errors
    /// As [`Self::fault`].
    pub fn fault_with(&self, address: VirtAddr, access: Access, rights: KeyRights) -> Result<(), Fault> {
        self.fault_by((address, access), Some(rights), None)
    }

    fn fault_by(
        &self,
        (address, access): (VirtAddr, Access),
        rights: Option<KeyRights>,
        window: Option<PageRange>,
    ) -> Result<(), Fault> {
        loop {
            let manager = self.manager.read();
            let FaultPlan { growth, outcome } = match rights {
                Some(rights) => manager.plan_fault_with(address, access, rights),
                None => manager.plan_fault(address, access),
            };
            if growth.is_none() {
                outcome.map_err(|signal| before_others(&manager, signal, access))?;
                let entry = manager.map().get(address);
                let Some(entry) = entry else { return Err(super::provider::unreachable_page(address)) };
                let touch = Touch::new(&entry, address, access);
                if let Some(window) = window {
                    manager.provider().tables().touch_around(&touch, window);
                }
                return manager.provider().touch(&touch);
            }
            drop(manager);
            // Whoever is first makes it grow; the others find it grown.
            self.manager.write().fault(address, access)?;
        }
    }

    /// A child of the space, which shows what this one does and pays by `account`.
    ///
    /// # Errors
    /// A limit of the account, or no memory for its tables.
    pub fn fork(&self, account: &Account) -> Result<Self, Refusal> {
        let no_memory = |errno| Refusal { errno, cause: Cause::Platform };
        let mut manager = self.manager.write();
        let pending = manager.prepare_fork(account.clone())?;
        let pager = manager.provider().pager();
        let child = pager.reclaiming(|| manager.provider().fork(account, manager.map())).map_err(no_memory)?;
        Ok(Self { manager: RwLock::new(pending.finish(child)) })
    }

    /// The root table, for a processor that is to run in the space.
    pub fn root(&self) -> FrameNumber {
        self.manager.read().provider().tables().frame()
    }

    /// The tables, whoever has the space.
    #[cfg(test)]
    pub(super) fn tables(&self) -> Arc<super::SpaceTables<M>> {
        self.manager.read().provider().tables().clone()
    }

    /// Lets `look` at the manager.
    pub fn with_manager<T>(&self, look: impl FnOnce(&PageManager<SpacePager<M>>) -> T) -> T {
        look(&self.manager.read())
    }

    /// Lets `change` have the manager, to set limits or privileges.
    pub fn with_manager_mut<T>(&self, change: impl FnOnce(&mut PageManager<SpacePager<M>>) -> T) -> T {
        change(&mut self.manager.write())
    }

    /// Recomputes what is derived, of the manager, the tables and the objects that are mapped.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn check_invariants(&self) {
        let manager = self.manager.write();
        manager.check_invariants();
        manager.provider().check_invariants(manager.map());
    }
}

/// The signal that an access ends in. A guard is met before anybody looks where an object ends, and before a fetch is
/// refused: until a page is there, a fetch is a load (`arch/x86/mm/fault.c:access_error`).
fn before_others<M: PhysMem + Mmu + 'static>(
    manager: &PageManager<SpacePager<M>>,
    signal: FaultSignal,
    access: Access,
) -> FaultSignal {
    let region = manager.map().get(signal.address).map(|entry| entry.region);
    let is_load = access == Access::Execute && region.is_some_and(|region| !region.prot.is_empty());
    let is_late = signal.signal == Signal::Bus || is_load && signal.code == SignalCode::AccErr;
    if is_late && manager.provider().has_guard(signal.address) {
        return FaultSignal { signal: Signal::Segv, code: SignalCode::MapErr, ..signal };
    }
    signal
}

impl<M: PhysMem + Mmu + 'static> Drop for AddressSpace<M> {
    fn drop(&mut self) {
        let manager = self.manager.get_mut();
        manager.provider().leave(manager.map());
    }
}
