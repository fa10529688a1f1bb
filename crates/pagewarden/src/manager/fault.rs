//! Page faults: `arch/x86/mm/fault.c:do_user_addr_fault` and `mm/vma.c:expand_downwards` of Linux 6.18.
//!
//! A load, store or instruction fetch is allowed, makes a stack grow, or ends in a signal:
//!
//! ```text
//! address                         what the region gives           outcome
//! not canonical                                                   SIGSEGV, SI_KERNEL, address 0
//! in a region                     the right                       allowed
//!                                 not the right                   SIGSEGV, SEGV_ACCERR
//!                                 and its key forbids it          SIGSEGV, SEGV_PKUERR
//! below a region that grows down  may grow                        grows, then as in a region
//!                                 may not grow                    SIGSEGV, SEGV_MAPERR
//! anywhere else                                                   SIGSEGV, SEGV_MAPERR
//! beyond the end of the object    what a page not there gives     SIGBUS, BUS_ADRERR
//! ```
//!
//! Linux makes a stack grow before it looks at its rights, so that an access that ends in a signal may leave a
//! larger stack behind; it does here too. A growth that is refused changes nothing.
//!
//! Outside: what a page holds. Markers of guard pages (`MADV_GUARD_INSTALL`) and poisoned pages are the
//! platform's, and the vsyscall page is nobody's.

use super::PageManager;
use super::place::STACK_GUARD;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::object::MemoryObject;
use crate::prot::{Prot, ProtectionKey};
use crate::provider::{Op, PageManagementProvider, Populate, Target};
use crate::region::{Region, RegionFlags};
use crate::vmmap::Entry;

/// What a guest wants to do at an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// What the protection keys of a thread forbid: its register `PKRU`, with two bits a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct KeyRights(u32);

impl KeyRights {
    /// The register as it is.
    pub const fn new(pkru: u32) -> Self {
        Self(pkru)
    }

    /// Whether `access` to memory with `key` is forbidden. A fetch never is.
    pub(crate) const fn forbid(self, key: ProtectionKey, access: Access) -> bool {
        let forbidden = self.0 >> (2 * key.number());
        match access {
            Access::Read => forbidden & 1 != 0,
            Access::Write => forbidden & 3 != 0,
            Access::Execute => false,
        }
    }
}

/// Which signal a guest gets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// `SIGSEGV`.
    Segv,
    /// `SIGBUS`.
    Bus,
}

impl Signal {
    /// Its number.
    pub const fn raw(self) -> i32 {
        match self {
            Self::Segv => 11,
            Self::Bus => 7,
        }
    }
}

/// Why, as `si_code` says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignalCode {
    /// Nothing is mapped there (`SEGV_MAPERR`).
    MapErr,
    /// The region does not give the right (`SEGV_ACCERR`).
    AccErr,
    /// A protection key does not give the right (`SEGV_PKUERR`).
    PkuErr,
    /// The object has no such page (`BUS_ADRERR`).
    AdrErr,
    /// No address of the processor (`SI_KERNEL`).
    Kernel,
}

impl SignalCode {
    /// Its number.
    pub const fn raw(self) -> i32 {
        match self {
            Self::MapErr => 1,
            Self::AccErr | Self::AdrErr => 2,
            Self::PkuErr => 4,
            Self::Kernel => 0x80,
        }
    }
}

/// The signal that an access ends in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FaultSignal {
    /// Which signal.
    pub signal: Signal,
    /// `si_code`.
    pub code: SignalCode,
    /// `si_addr`.
    pub address: VirtAddr,
}

impl FaultSignal {
    const fn segv(code: SignalCode, address: VirtAddr) -> Self {
        Self { signal: Signal::Segv, code, address }
    }
}

/// What an access does: a stack that grows first, and the outcome.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    /// The growth, if there is one. Should it fail, the access ends as with nothing mapped.
    pub growth: Option<Plan>,
    /// What the guest gets.
    pub outcome: Result<(), FaultSignal>,
}

impl<P: PageManagementProvider> PageManager<P> {
    /// What `access` at `address` does now, by a thread that has changed the rights of no key. Changes nothing.
    pub fn plan_fault(&self, address: VirtAddr, access: Access) -> FaultPlan {
        self.plan_fault_with(address, access, self.key_rights())
    }

    /// What the keys forbid a thread that has changed nothing: to touch memory that can only be executed.
    fn key_rights(&self) -> KeyRights {
        let keys = self.space.state.attributes.keys;
        let all = (0..ProtectionKey::COUNT).filter_map(ProtectionKey::new);
        let execute_only = all.filter(|key| keys.is_execute_only(*key));
        KeyRights(execute_only.fold(0, |pkru, key| pkru | 1 << (2 * key.number())))
    }

    /// What `access` at `address` does now, by a thread with these rights. Changes nothing.
    pub fn plan_fault_with(&self, address: VirtAddr, access: Access, rights: KeyRights) -> FaultPlan {
        let ended = |signal| FaultPlan { growth: None, outcome: Err(signal) };
        if !is_canonical(address) {
            return ended(FaultSignal::segv(SignalCode::Kernel, VirtAddr::new(0)));
        }
        let unmapped = ended(FaultSignal::segv(SignalCode::MapErr, address));
        let Some(entry) = self.space.state.map.at_or_after(address) else { return unmapped };
        let growth = if entry.range.contains(address) {
            None
        } else {
            match plan_growth(&self.space, &entry, address) {
                Ok(plan) => Some(plan),
                Err(_) => return unmapped,
            }
        };
        let outcome = match rights.forbid(entry.region.key, access) {
            true => Err(FaultSignal::segv(SignalCode::PkuErr, address)),
            false => self.judge(entry.region, address, access),
        };
        FaultPlan { growth, outcome }
    }

    /// Does what [`Self::plan_fault`] says: a stack may grow, be the access allowed or not.
    ///
    /// # Errors
    /// The signal that the guest gets.
    pub fn fault(&mut self, address: VirtAddr, access: Access) -> Result<(), FaultSignal> {
        self.fault_with(address, access, self.key_rights())
    }

    /// The same, by a thread with these rights.
    ///
    /// # Errors
    /// The signal that the guest gets.
    pub fn fault_with(&mut self, address: VirtAddr, access: Access, rights: KeyRights) -> Result<(), FaultSignal> {
        let FaultPlan { growth, outcome } = self.plan_fault_with(address, access, rights);
        if let Some(plan) = growth
            && self.apply(plan).is_err()
        {
            return Err(FaultSignal::segv(SignalCode::MapErr, address));
        }
        outcome
    }

    /// Whether `region`, which is at `address` or will be, allows `access` there.
    fn judge(&self, region: &Region, address: VirtAddr, access: Access) -> Result<(), FaultSignal> {
        let denied = FaultSignal::segv(SignalCode::AccErr, address);
        let is_accessible = !region.prot.is_empty();
        // Until the page is there, a fetch is a load to the kernel (`access_error`).
        let may_make_present = if access == Access::Write { region.prot.contains(Prot::WRITE) } else { is_accessible };
        if !may_make_present {
            return Err(denied);
        }
        let pages = region.object().and_then(|object| self.object_pages(object));
        if pages.is_some_and(|pages| region.page_offset(address) >= pages) {
            return Err(FaultSignal { signal: Signal::Bus, code: SignalCode::AdrErr, address });
        }
        // Every page that is there can be read: the processor knows none that can only be written or run.
        if access == Access::Execute && !region.prot.contains(Prot::EXEC) { Err(denied) } else { Ok(()) }
    }

    /// How many pages there are to touch, where that is known: a mapping may be longer than its object.
    fn object_pages(&self, object: &MemoryObject) -> Option<u64> {
        object.pages().or_else(|| self.provider.object_pages(object)).map(PageCount::get)
    }
}

/// Whether the processor has such an address, with 48 bits of it.
const fn is_canonical(address: VirtAddr) -> bool {
    let sign = address.as_u64() >> 47;
    sign == 0 || sign == u64::MAX >> 47
}

/// What it takes that the stack `entry` reaches down to `address` (`expand_downwards`, `acct_stack_growth`).
fn plan_growth(space: &Space, entry: &Entry<'_>, address: VirtAddr) -> Result<Plan, Refusal> {
    let region = entry.region;
    if !region.flags.contains(RegionFlags::GROWS_DOWN) {
        return Err(Errno::Fault.into());
    }
    let start = address.page_down();
    if start < space.config.layout.min_addr || start.as_u64() < PAGE_SIZE {
        return Err(Errno::Perm.into());
    }
    let is_near = |below: &Entry<'_>| {
        let is_obstacle = !below.region.flags.contains(RegionFlags::GROWS_DOWN) && !below.region.prot.is_empty();
        is_obstacle && start.as_u64() - below.range.end().as_u64() < STACK_GUARD.bytes()
    };
    if space.state.map.before(start).is_some_and(|below| is_near(&below)) {
        return Err(Errno::NoMem.into());
    }
    let added = PageRange::new(start, entry.range.start()).ok_or(Errno::NoMem)?;
    let size = entry.range.end().as_u64() - start.as_u64();
    let (totals, pages) = (&space.state.totals, added.pages().get());
    let is_within_limits = space.may_expand(totals, region, pages)
        && size <= space.config.limits.stack
        && space.may_lock(totals, region, pages);
    if !is_within_limits {
        return Err(Errno::NoMem.into());
    }
    let mut draft = Draft::new(space);
    draft.ask_for(pages, region.flags)?;
    draft.next.insert(added, region.clone())?;
    draft.op(Op::Map { range: added, region: region.clone(), target: Target::Vacant, populate: Populate::OnDemand });
    draft.finish(Ok(0))
}
