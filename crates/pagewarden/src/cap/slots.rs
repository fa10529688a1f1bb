//! The slots of a table, without its lock.
//!
//! Owns: which slots are free, what the others hold, serials that are drawn and not used yet. What leaves a slot is
//! handed to the caller, who drops it when the lock is released. Slots that are free are a list, the last one freed
//! first, so that all operations but growth take constant time.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use super::handle::Serials;
use super::interface::Capability;
use super::{CapError, Handle, InterfaceId, Rights};
use crate::addr::PageCount;
use crate::error::Errno;
use crate::ledger::{Account, Charge, Resource};
use crate::manager::Refusal;

/// How many slots a table has at most.
pub(super) const SLOTS_MAX: usize = u16::MAX as usize;

/// What a handle is charged: its slot, and the pages that its holder can reach.
#[derive(Debug)]
pub(super) struct Paid {
    slot: Charge,
    pages: Option<Charge>,
}

impl Paid {
    pub(super) fn by(account: &Account, pages: PageCount) -> Result<Self, CapError> {
        let slot = account.charge(Resource::Capabilities, 1)?;
        let pages = match pages.get() {
            0 => None,
            some => Some(account.charge(Resource::Committed, some)?),
        };
        Ok(Self { slot, pages })
    }

    pub(super) fn pages(&self) -> PageCount {
        PageCount::new(self.pages.as_ref().map_or(0, Charge::amount))
    }
}

/// A capability and the charges for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) capability: Capability,
    pub(super) paid: Paid,
}

#[derive(Debug)]
pub(super) enum Content {
    Free {
        next: Option<u16>,
    },
    Reserved,
    Live(Entry),
    /// The entry is the transfer's; what can be said of it.
    InTransit {
        interface: InterfaceId,
        rights: Rights,
    },
}

#[derive(Debug)]
pub(super) struct Slot {
    /// What fits; nothing while it is free.
    handle: Option<Handle>,
    content: Content,
}

/// Where a handle is between being given out and being released.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HandleState {
    /// It can be used.
    Live,
    /// It is being moved to another table: it will be gone, or live again.
    InTransit,
}

/// What is known of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandleInfo {
    /// The handle.
    pub handle: Handle,
    /// What kind of object it is for.
    pub interface: InterfaceId,
    /// What it allows.
    pub rights: Rights,
    /// Whether it can be used.
    pub state: HandleState,
}

#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    first_free: Option<u16>,
    /// How many slots are not free.
    taken: usize,
    serials: Range<u64>,
    source: &'static Serials,
    is_closed: bool,
}

impl Slots {
    pub(super) const fn new(source: &'static Serials) -> Self {
        Self { slots: Vec::new(), first_free: None, taken: 0, serials: 0..0, source, is_closed: false }
    }

    /// How many slots are not free.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    /// The entry that `handle` can be used for.
    #[inline]
    pub(super) fn get(&self, handle: Handle) -> Result<&Entry, CapError> {
        if let Some(slot) = self.slots.get(handle.index())
            && slot.handle == Some(handle)
            && let Content::Live(entry) = &slot.content
        {
            return Ok(entry);
        }
        Err(self.why_not(handle))
    }

    #[cold]
    fn why_not(&self, handle: Handle) -> CapError {
        if self.is_closed {
            return CapError::Closed;
        }
        match self.slots.get(handle.index()) {
            Some(Slot { handle: Some(fits), content: Content::InTransit { .. } }) if *fits == handle => {
                CapError::InTransit
            }
            _ => CapError::BadHandle,
        }
    }

    fn slot_mut(&mut self, handle: Handle) -> Option<&mut Slot> {
        self.slots.get_mut(handle.index()).filter(|slot| slot.handle == Some(handle))
    }

    /// Takes a slot that nobody can look up yet.
    pub(super) fn reserve(&mut self) -> Result<Handle, CapError> {
        if self.is_closed {
            return Err(CapError::Closed);
        }
        let serial = self.draw_serial()?;
        let index = match self.first_free {
            Some(index) => index,
            None => self.grow()?,
        };
        let handle = Handle::new(index, serial).ok_or(CapError::TableFull)?;
        let slot = self.slots.get_mut(usize::from(index)).ok_or(CapError::TableFull)?;
        if let Content::Free { next } = slot.content {
            self.first_free = next;
        }
        *slot = Slot { handle: Some(handle), content: Content::Reserved };
        self.taken += 1;
        Ok(handle)
    }

    fn draw_serial(&mut self) -> Result<u64, CapError> {
        if self.serials.is_empty() {
            self.serials = self.source.draw().ok_or(CapError::TableFull)?;
        }
        self.serials.next().ok_or(CapError::TableFull)
    }

    /// One more slot, which is free but not in the list.
    fn grow(&mut self) -> Result<u16, CapError> {
        if self.slots.len() >= SLOTS_MAX {
            return Err(CapError::TableFull);
        }
        let index = u16::try_from(self.slots.len()).map_err(|_| CapError::TableFull)?;
        self.slots.try_reserve(1).map_err(|_| Refusal::from(Errno::NoMem))?;
        self.slots.push(Slot { handle: None, content: Content::Free { next: None } });
        Ok(index)
    }

    /// Makes a slot live that is reserved or in transit; gives the entry back if the slot is gone, for the table was closed.
    pub(super) fn fill(&mut self, handle: Handle, entry: Entry) -> Result<(), Entry> {
        match self.slot_mut(handle) {
            Some(slot) => {
                slot.content = Content::Live(entry);
                Ok(())
            }
            None => Err(entry),
        }
    }

    /// Frees the slot of a live handle.
    pub(super) fn release(&mut self, handle: Handle) -> Result<Option<Content>, CapError> {
        self.get(handle)?;
        Ok(self.free(handle))
    }

    /// Frees the slot that `handle` fits, if any.
    pub(super) fn free(&mut self, handle: Handle) -> Option<Content> {
        let next = self.first_free;
        let slot = self.slot_mut(handle)?;
        let freed = mem::replace(slot, Slot { handle: None, content: Content::Free { next } });
        self.first_free = u16::try_from(handle.index()).ok();
        self.taken -= 1;
        Some(freed.content)
    }

    /// Takes the entry of a live handle, which cannot be used until it is freed or [filled](Self::fill) again.
    pub(super) fn begin_transit(&mut self, handle: Handle) -> Result<Entry, CapError> {
        let Capability { interface, rights, .. } = self.get(handle)?.capability;
        let slot = self.slot_mut(handle).ok_or(CapError::BadHandle)?;
        match mem::replace(&mut slot.content, Content::InTransit { interface, rights }) {
            Content::Live(entry) => Ok(entry),
            other => {
                slot.content = other;
                Err(CapError::BadHandle)
            }
        }
    }

    /// All slots are gone for good; what they held.
    pub(super) fn close(&mut self) -> Vec<Slot> {
        self.is_closed = true;
        (self.first_free, self.taken) = (None, 0);
        mem::take(&mut self.slots)
    }

    /// All handles in the order of their slots.
    pub(super) fn infos(&self) -> impl Iterator<Item = HandleInfo> + '_ {
        self.slots.iter().filter_map(|slot| {
            let (interface, rights, state) = match &slot.content {
                Content::Live(Entry { capability, .. }) => (capability.interface, capability.rights, HandleState::Live),
                Content::InTransit { interface, rights } => (*interface, *rights, HandleState::InTransit),
                Content::Free { .. } | Content::Reserved => return None,
            };
            Some(HandleInfo { handle: slot.handle?, interface, rights, state })
        })
    }

    /// Panics unless the derived figures are what they should be and `account` holds at least what the entries say.
    pub(super) fn check_invariants(&self, account: &Account) {
        let mut free = 0;
        let mut at = self.first_free;
        while let Some(index) = at {
            let slot = self.slots.get(usize::from(index));
            let Some(Slot { handle: None, content: Content::Free { next } }) = slot else {
                panic!("slot {index} is in the list of free ones: {slot:?}");
            };
            (at, free) = (*next, free + 1);
            assert!(free <= self.slots.len(), "the list of free slots is a ring");
        }
        assert_eq!(free + self.taken, self.slots.len(), "each slot is in the list or taken");
        assert!(self.slots.len() <= SLOTS_MAX);
        assert!(!self.is_closed || self.slots.is_empty(), "a closed table has nothing");
        let mut pages = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let is_free = matches!(slot.content, Content::Free { .. });
            assert_eq!(is_free, slot.handle.is_none(), "slot {index}: {slot:?}");
            assert!(slot.handle.is_none_or(|handle| handle.index() == index), "slot {index}: {slot:?}");
            if let Content::Live(entry) = &slot.content {
                assert_eq!(entry.paid.slot.amount(), 1, "slot {index}");
                pages += entry.paid.pages().get();
            }
        }
        assert!(account.used(Resource::Capabilities) >= self.taken as u64, "a slot that nobody pays for");
        assert!(account.used(Resource::Committed) >= pages, "pages that nobody pays for");
    }
}
