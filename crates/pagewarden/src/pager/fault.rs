//! Page faults: what a page becomes when it is touched (`mm/memory.c:handle_mm_fault`).
//!
//! Whether the access is allowed the manager has said. Here a frame is found for it, under the lock of the tables for
//! reading: threads that fault on different pages do not wait for each other, and of those that fault on one page the
//! first to put its entry in wins; the others give back what they had taken and look again.

use alloc::sync::Arc;
use core::fmt;

use super::leaf::{self, Sharing};
use super::{SpacePager, SpaceTables};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameUse};
use crate::manager::{Access, FaultSignal, Signal, SignalCode};
use crate::mmu::{Mmu, PhysMem};
use crate::object::ObjectKind;
use crate::object::memory::{ObjectMemory, State};
use crate::page_table::{Entry, Root, Slot};
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};
use crate::vmmap;

/// Pages that a load from an object shows at once, if they are there: the aligned 64 KiB around it.
const FAULT_AROUND: u64 = (64 << 10) / PAGE_SIZE;

/// Why an access cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The guest gets a signal.
    Signal(FaultSignal),
    /// There is no frame for the page, and nobody gave one back; or an account may not have more.
    OutOfMemory,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(FaultSignal { signal: Signal::Segv, address, .. }) => write!(f, "SIGSEGV at {address}"),
            Self::Signal(FaultSignal { signal: Signal::Bus, address, .. }) => write!(f, "SIGBUS at {address}"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

impl core::error::Error for Fault {}

impl From<FaultSignal> for Fault {
    fn from(signal: FaultSignal) -> Self {
        Self::Signal(signal)
    }
}

/// What is wanted of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch<'a> {
    pub(super) address: VirtAddr,
    pub(super) access: Access,
    pub(super) region: &'a Region,
    /// The pages of the region.
    pub(super) range: PageRange,
}

impl<'a> Touch<'a> {
    pub(super) fn new(entry: &vmmap::Entry<'a>, address: VirtAddr, access: Access) -> Self {
        Self { address, access, region: entry.region, range: entry.range }
    }

    pub(super) fn page(&self) -> VirtAddr {
        self.address.page_down()
    }

    pub(super) const fn is_store(&self) -> bool {
        matches!(self.access, Access::Write)
    }

    pub(super) const fn sharing(&self) -> Sharing {
        if self.region.is_shared() {
            Sharing::Shared
        } else if self.region.flags.contains(RegionFlags::DROPPABLE) {
            Sharing::Droppable
        } else {
            Sharing::Private
        }
    }

    fn readable(&self, frame: FrameNumber) -> Entry {
        leaf::readable(frame, self.region.prot, self.region.key, self.sharing())
    }

    pub(super) fn stored(&self, frame: FrameNumber) -> Entry {
        leaf::stored(frame, self.region.prot, self.region.key, self.sharing())
    }

    fn signal(&self, signal: Signal, code: SignalCode) -> Failure {
        Failure::Ended(Fault::Signal(FaultSignal { signal, code, address: self.address }))
    }
}

/// Why a page was not made present.
enum Failure {
    /// It cannot be.
    Ended(Fault),
    /// Page `index` of the object is not there yet.
    Missing(u64),
    /// Other objects have page `index` too: it cannot be stored to before it is this one's alone.
    Common(u64),
    /// No frame, no table, or nobody to pay for it.
    NoMemory,
}

impl From<Errno> for Failure {
    fn from(_: Errno) -> Self {
        Self::NoMemory
    }
}

impl<M: PhysMem + Mmu + 'static> SpacePager<M> {
    /// Makes the page present for an access that its region allows.
    ///
    /// # Errors
    /// A signal, for guard pages, pages beyond the end of an object and pages that cannot be read; no memory.
    pub(super) fn touch(&self, touch: &Touch<'_>) -> Result<(), Fault> {
        let object = match object_behind(touch.region) {
            None => None,
            Some(object) => Some(self.pager().memory_of(object).map_err(|_| Fault::OutOfMemory)?),
        };
        loop {
            let outcome = match &object {
                None => self.tables().try_touch_anonymous(touch),
                Some(memory) => self.tables().try_touch_object(touch, memory),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(Failure::Ended(fault)) => return Err(fault),
                Err(Failure::Missing(index)) => self.prepare(touch, object.as_ref(), |memory| memory.fetch(index))?,
                Err(Failure::Common(index)) => self.prepare(touch, object.as_ref(), |memory| memory.separate(index))?,
                Err(Failure::NoMemory) if self.pager().reclaim_some() => {}
                Err(Failure::NoMemory) => return Err(Fault::OutOfMemory),
            }
        }
    }

    /// Has the object do something about a page, with nothing locked.
    fn prepare(
        &self,
        touch: &Touch<'_>,
        object: Option<&Arc<ObjectMemory<M>>>,
        work: impl Fn(&ObjectMemory<M>) -> Result<(), Errno>,
    ) -> Result<(), Fault> {
        let Some(memory) = object else { return Err(Fault::OutOfMemory) };
        match self.pager().reclaiming(|| work(memory)) {
            Ok(()) => Ok(()),
            Err(Errno::NoMem) => Err(Fault::OutOfMemory),
            Err(_) => {
                let (signal, code) = (Signal::Bus, SignalCode::AdrErr);
                Err(Fault::Signal(FaultSignal { signal, code, address: touch.address }))
            }
        }
    }
}

/// The object whose pages a region shows; private memory that only has a name has none.
pub(super) fn object_behind(region: &Region) -> Option<&Arc<crate::object::MemoryObject>> {
    region.object().filter(|object| {
        let is_private_zero = matches!(object.kind(), ObjectKind::ZeroDevice(_)) && !region.is_shared();
        *object.kind() != ObjectKind::NamedAnonymous && !is_private_zero
    })
}

impl<M: PhysMem + Mmu> SpaceTables<M> {
    fn try_touch_anonymous(&self, touch: &Touch<'_>) -> Result<(), Failure> {
        self.try_touch(touch, &mut |root, slot, _| {
            if touch.is_store() {
                if touch.sharing() == Sharing::Droppable {
                    self.note_droppable();
                }
                let new = self.pager().zeroed_frame(self.owner(), FrameUse::Anonymous)?;
                return Ok(self.show_new(touch, root, (slot, Entry::EMPTY), new));
            }
            let zero = touch.readable(self.pager().zero);
            Ok(self.tables().install(root, slot, Entry::EMPTY, zero).is_ok())
        })
    }

    fn try_touch_object(&self, touch: &Touch<'_>, memory: &ObjectMemory<M>) -> Result<(), Failure> {
        let index = touch.region.page_offset(touch.address);
        let state = memory.read_state();
        if index >= state.page_count() {
            return Err(touch.signal(Signal::Bus, SignalCode::AdrErr));
        }
        self.try_touch(touch, &mut |root, slot, entry| {
            let frame = memory.frame(&state, index).ok_or(Failure::Missing(index))?;
            // That it is not common stays so as long as the object is locked.
            if touch.is_store() && touch.region.is_shared() && memory.is_common(frame) {
                return Err(Failure::Common(index));
            }
            if !entry.is_empty() {
                return Ok(self.tables().install(root, slot, entry, leaf::made_writable(entry)).is_ok());
            }
            if touch.is_store() && !touch.region.is_shared() {
                let copy = self.copy_of(frame)?;
                return Ok(self.show_new(touch, root, (slot, Entry::EMPTY), copy));
            }
            let is_shown = self.show(touch, root, slot, frame)?;
            if is_shown {
                self.show_around(touch, root, (memory, &state));
            }
            Ok(is_shown)
        })
    }

    /// Makes the access go through. Where nothing is there yet, or a frame that others see stores to, `show` does it and
    /// says whether the entry was still there.
    fn try_touch(
        &self,
        touch: &Touch<'_>,
        show: &mut dyn FnMut(&Root, &Slot<'_>, Entry) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let touched = self.with_root(|root| {
            loop {
                let slot = self.tables().slot(root, touch.page())?;
                let entry = self.tables().load(&slot);
                let is_done = is_done(touch, entry)?
                    || if entry.is_empty() || leaf::is_shared(entry) {
                        show(root, &slot, entry)?
                    } else {
                        self.store_private(touch, root, (&slot, entry))?
                    };
                if is_done {
                    return Ok(());
                }
            }
        });
        touched.unwrap_or(Err(Failure::NoMemory))
    }

    /// Makes processors look at the entry again.
    fn forget(&self, root: &Root, page: VirtAddr) {
        self.pager().machine().flush(root.frame(), PageRange::of_page(page.page_number()));
    }

    /// A frame of the space's own that holds what `frame` does.
    fn copy_of(&self, frame: FrameNumber) -> Result<FrameNumber, Errno> {
        if frame == self.pager().zero {
            return self.pager().zeroed_frame(self.owner(), FrameUse::Anonymous);
        }
        let copy = self.pager().frame(self.owner(), FrameUse::Anonymous)?;
        self.pager().machine().copy(frame, copy);
        Ok(copy)
    }

    /// Puts `new`, a frame of the space's own, at `slot`, in place of `entry`. Whether that was still there; if not, the
    /// frame is given back.
    fn show_new(&self, touch: &Touch<'_>, root: &Root, (slot, entry): (&Slot<'_>, Entry), new: FrameNumber) -> bool {
        let is_shown = self.tables().install(root, slot, entry, touch.stored(new)).is_ok();
        if !is_shown {
            self.release_frame(new);
        } else if !entry.is_empty() {
            // Before the frame that was shown may become something else.
            self.forget(root, touch.page());
            self.release_frame(entry.frame());
        }
        is_shown
    }

    /// Gives a private page that shows `entry` a frame that can be stored to: the one that it has, if nobody else shows
    /// that, or a copy. Whether the entry was still there.
    fn store_private(
        &self,
        touch: &Touch<'_>,
        root: &Root,
        (slot, entry): (&Slot<'_>, Entry),
    ) -> Result<bool, Failure> {
        if self.is_own(entry) {
            return Ok(self.tables().install(root, slot, entry, leaf::made_writable(entry)).is_ok());
        }
        let copy = self.copy_of(entry.frame())?;
        Ok(self.show_new(touch, root, (slot, entry), copy))
    }

    /// Shows a frame of an object where nothing is. Whether nothing was there.
    fn show(&self, touch: &Touch<'_>, root: &Root, slot: &Slot<'_>, frame: FrameNumber) -> Result<bool, Failure> {
        self.share_frame(frame)?;
        let entry = if touch.is_store() { touch.stored(frame) } else { touch.readable(frame) };
        let is_shown = self.tables().install(root, slot, Entry::EMPTY, entry).is_ok();
        if !is_shown {
            self.release_frame(frame);
        }
        Ok(is_shown)
    }

    /// Shows pages near the one that was loaded from, as far as they are there. Nothing depends on it.
    fn show_around(&self, touch: &Touch<'_>, root: &Root, (memory, state): (&ObjectMemory<M>, &State<M>)) {
        if touch.is_store() || !memory.has_copies() {
            return;
        }
        let first = touch.page().page_number() & !(FAULT_AROUND - 1);
        let Some(window) = PageRange::from_pages(first, PageCount::new(FAULT_AROUND)) else { return };
        let Some(window) = window.intersection(touch.range) else { return };
        for page in window.first_page()..window.end_page() {
            let Some(address) = VirtAddr::from_page_number(page) else { return };
            let index = touch.region.page_offset(address);
            let Some(frame) = memory.frame(state, index).filter(|_| index < state.page_count()) else { continue };
            let near = Touch { address, ..*touch };
            let Ok(slot) = self.tables().slot(root, address) else { return };
            if self.tables().load(&slot).is_empty() && self.show(&near, root, &slot, frame).is_err() {
                return;
            }
        }
    }
}

/// Whether the access goes through by now, as it may if another thread was here first. A processor that has faulted has
/// forgotten what it knew of the page.
fn is_done(touch: &Touch<'_>, entry: Entry) -> Result<bool, Failure> {
    if leaf::is_guard(entry) {
        return Err(touch.signal(Signal::Segv, SignalCode::MapErr));
    }
    let is_there = if touch.is_store() { leaf::is_writable(entry) } else { entry.is_present() };
    Ok(is_there)
}

/// Whether a page of the region is made resident by a store, as mlock(2) and `MAP_POPULATE` do
/// (`mm/gup.c:populate_vma_page_range`).
pub(super) fn populating_access(region: &Region) -> Access {
    if region.prot.contains(Prot::WRITE) && !region.is_shared() { Access::Write } else { Access::Read }
}
