//! An address space and its view.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagewarden::linux::Request;
use pagewarden::manager::{Access, FaultSignal, Refusal, Signal, SignalCode, SpaceConfig};
use pagewarden::pager::{AddressSpace, CopyFault, Fault};
use pagewarden::{Account, Errno, PageCount, PageRange, VirtAddr};

use super::entered::{self, Entered};
use super::streams::Streams;
use super::view::{Filled, View, Wanted};
use super::{HostMachine, HostMemory, Reservation};

/// Pages around a load that are shown too, if they are there.
const AROUND: u64 = 16;

/// A view for as long as flushes reach it.
#[derive(Debug)]
struct Listed {
    machine: Arc<HostMachine>,
    view: Arc<View>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.machine.remove(&self.view);
    }
}

/// An address space of the pager's, and its view in host addresses.
///
/// Guest code may use the addresses of the view while its thread has [entered](Self::enter) the space and a handler of
/// signals calls [`resolve`](super::resolve). Nobody may make a Rust reference into it.
#[derive(Debug)]
pub struct HostSpace {
    // In this order they go: no view shows a space that has ended, and no reservation is free that a view shows.
    listed: Listed,
    space: AddressSpace<HostMachine>,
    reservation: Reservation,
    memory: Arc<HostMemory>,
    streams: Mutex<Streams>,
}

impl HostSpace {
    /// An empty space that is seen in `reservation`. Addresses beyond the reservation are no addresses of the view: a
    /// layout that ends there is best.
    ///
    /// # Errors
    /// As [`AddressSpace::new`].
    pub fn new(memory: &Arc<HostMemory>, reservation: Reservation, config: SpaceConfig) -> Result<Arc<Self>, Errno> {
        let space = AddressSpace::new(memory.pager(), config)?;
        Ok(Self::showing(memory, space, reservation))
    }

    /// A child of the space, which has what this one has and pays by `account`, in a reservation of its own.
    ///
    /// # Errors
    /// As [`AddressSpace::fork`].
    pub fn fork(&self, reservation: Reservation, account: &Account) -> Result<Arc<Self>, Refusal> {
        let space = self.space.fork(account)?;
        Ok(Self::showing(&self.memory, space, reservation))
    }

    fn showing(memory: &Arc<HostMemory>, space: AddressSpace<HostMachine>, reservation: Reservation) -> Arc<Self> {
        let view = Arc::new(View::new(space.root(), reservation.start(), reservation.bytes()));
        memory.machine().add(&view);
        let listed = Listed { machine: Arc::clone(memory.machine()), view };
        Arc::new(Self { listed, space, reservation, memory: Arc::clone(memory), streams: Mutex::default() })
    }

    /// Ends the space; its reservation can be used for another.
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }

    /// The memory.
    pub const fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// The space as such.
    pub const fn space(&self) -> &AddressSpace<HostMachine> {
        &self.space
    }

    /// Where address 0 of the space is in the view.
    pub fn base(&self) -> *mut u8 {
        self.reservation.base()
    }

    /// Carries out a request of the guest.
    ///
    /// # Errors
    /// As [`AddressSpace::call`].
    pub fn call(&self, request: &Request) -> Result<u64, Refusal> {
        self.space.call(request)
    }

    /// Copies bytes out of the space, not through its view.
    ///
    /// # Errors
    /// [`CopyFault`] at the first byte that cannot be read; those before are in `to`.
    pub fn read(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        self.space.copy_from_user(from, to)
    }

    /// Copies bytes into the space, not through its view.
    ///
    /// # Errors
    /// [`CopyFault`] at the first byte that cannot be written; those before are there.
    pub fn write(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        self.space.copy_to_user(to, from)
    }

    /// Enters the space: until what is returned is dropped, faults of this thread in the view are this space's. Spaces can
    /// be entered one in another; the last one counts. The thread gets an alternative signal stack that is large enough.
    ///
    /// # Panics
    /// On an alternative signal stack that is too small: a handler of signals runs no guest. If there is no memory for a
    /// stack.
    pub fn enter(self: &Arc<Self>) -> Entered<'_> {
        entered::enter(self)
    }

    /// Loads bytes through the view, as guest code does: for embedders that have [installed](super::install_handler) the
    /// handler and run no guest code of their own.
    ///
    /// # Errors
    /// [`CopyFault`] at the first byte that cannot be read; those before are in `to`.
    pub fn load(self: &Arc<Self>, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        let place = self.reach(from, to.len())?;
        let _entered = self.enter();
        // SAFETY: `to` is ours. `place` lies in the reservation, which is nobody's; where the handler is not installed the
        // process ends by a signal.
        let loaded = unsafe { pagewarden_copy::copy(to.as_mut_ptr(), place, to.len()) };
        loaded.map_err(|fault| refused(from, fault.copied))
    }

    /// Stores bytes through the view, as guest code does: see [`Self::load`].
    ///
    /// # Errors
    /// [`CopyFault`] at the first byte that cannot be written; those before are there.
    pub fn store(self: &Arc<Self>, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        let place = self.reach(to, from.len())?;
        let _entered = self.enter();
        // SAFETY: as for loads, the other way round; nobody has a reference into the reservation.
        let stored = unsafe { pagewarden_copy::copy(place, from.as_ptr(), from.len()) };
        stored.map_err(|fault| refused(to, fault.copied))
    }

    /// Recomputes what is derived, and compares what the view shows with the tables. Nobody may be at work meanwhile.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn check_invariants(&self) {
        self.space.check_invariants();
        self.listed.view.check_invariants(&self.listed.machine);
    }

    /// Where `len` bytes from `address` on are in the view, if all of them are.
    fn reach(&self, address: VirtAddr, len: usize) -> Result<*mut u8, CopyFault> {
        let offset = usize::try_from(address.as_u64()).ok();
        let offset = offset.filter(|offset| offset.checked_add(len).is_some_and(|end| end <= self.reservation.bytes()));
        let signal = FaultSignal { signal: Signal::Segv, code: SignalCode::MapErr, address };
        let outside = CopyFault { address, copied: 0, fault: Fault::Signal(signal) };
        offset.map(|offset| self.base().wrapping_add(offset)).ok_or(outside)
    }

    /// Makes an access to `offset` in the view go through, or says why it cannot.
    pub(super) fn resolve(&self, offset: u64, access: Access) -> Result<(), Fault> {
        let (machine, view, address) = (&self.listed.machine, &self.listed.view, VirtAddr::new(offset));
        let window = self.streams().window(address.page_number());
        // A store alone is best served alone: a mapping more costs more than a page.
        let near = if access == Access::Write { window } else { around(window) };
        let wanted = Wanted { page: address.page_number(), access, near };
        // As a processor does, which asks nobody if the tables allow it.
        let filled = match machine.fill(view, wanted) {
            Filled::Refused => {
                self.space.fault_around(address, access, window)?;
                machine.fill(view, wanted)
            }
            filled => filled,
        };
        machine.count_fault();
        if let Filled::Shown(shown) = filled {
            self.streams().note(shown);
        }
        // What is refused now was taken away by another thread meanwhile: the guest's next try finds out.
        if matches!(filled, Filled::Full | Filled::Nowhere) { Err(Fault::OutOfMemory) } else { Ok(()) }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far into the view the host's address `address` is, if it is.
    pub(super) fn offset(&self, address: usize) -> Option<u64> {
        self.listed.view.offset(address)
    }
}

/// The whole 64 KiB that hold `window`.
fn around(window: PageRange) -> PageRange {
    let first = window.first_page() & !(AROUND - 1);
    let pages = window.end_page().next_multiple_of(AROUND) - first;
    PageRange::from_pages(first, PageCount::new(pages)).unwrap_or(window)
}

/// How an access through the view has ended, as the handler has noted it.
fn refused(start: VirtAddr, copied: usize) -> CopyFault {
    let noted = super::take_refused();
    let address = VirtAddr::new(start.as_u64().saturating_add(copied as u64));
    CopyFault { address, copied, fault: noted.map_or(Fault::OutOfMemory, |noted| noted.fault) }
}
