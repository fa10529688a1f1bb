//! One process's table: its lock, its account, and what can be done with a handle.
//!
//! Owns: the slots (`slots.rs`) behind the lock. Everything that a slot held is dropped here after the lock is released.
//! Moving from table to table is `transfer.rs`.

use alloc::sync::Arc;
use core::{fmt, mem};

use super::handle::{SERIALS, Serials};
use super::interface::Capability;
use super::slots::{Entry, HandleInfo, Paid, Slots};
use super::{CapError, Handle, Interface, Rights};
use crate::addr::PageCount;
use crate::ledger::Account;
use crate::sync::{RwLock, RwLockReadGuard};

/// The capabilities of one process.
///
/// Calls of several threads are one after the other; look-ups run beside each other. A handle that is released while
/// another thread uses what it found there stays usable for that thread until it is done.
pub struct CapTable {
    account: Account,
    slots: RwLock<Slots>,
}

impl CapTable {
    /// An empty table whose slots and pages `account` pays for.
    pub fn new(account: Account) -> Self {
        Self::with_serials(account, &SERIALS)
    }

    pub(super) fn with_serials(account: Account, serials: &'static Serials) -> Self {
        Self { account, slots: RwLock::new(Slots::new(serials)) }
    }

    /// Who pays.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Looks handles up. While the guard is there, calls that change the table wait: the same thread must make none.
    #[inline]
    pub fn read(&self) -> Held<'_> {
        Held(self.slots.read())
    }

    /// The object of `handle` and its rights, to be used without the guard.
    ///
    /// # Errors
    /// Those of [`Held::get`].
    pub fn get_cloned<T: Interface>(&self, handle: Handle, needed: Rights) -> Result<(Arc<T>, Rights), CapError> {
        self.read().get_cloned(handle, needed)
    }

    /// A new handle to `object`, which has `rights`.
    ///
    /// # Errors
    /// Those of [`Self::reserve`]; the object is dropped then.
    pub fn insert<T: Interface>(&self, object: Arc<T>, rights: Rights) -> Result<Handle, CapError> {
        Ok(self.reserve(object.pages())?.fill(object, rights))
    }

    /// A slot, and `pages` pages, for an object that is still to be made: what costs is charged before it is taken from
    /// anywhere.
    ///
    /// # Errors
    /// [`CapError::Closed`]; [`CapError::TableFull`]; [`CapError::Refused`] if the account's limit of slots or committed
    /// pages is in the way (`EMFILE`, `ENOMEM`) or there is no memory for more slots.
    pub fn reserve(&self, pages: PageCount) -> Result<Reservation<'_>, CapError> {
        let paid = Paid::by(&self.account, pages)?;
        let handle = self.slots.write().reserve()?;
        Ok(Reservation { slot: ReservedSlot { table: self, handle }, paid })
    }

    /// Gives `handle` up. Its object goes with its last handle, once nobody uses it any more.
    ///
    /// # Errors
    /// [`CapError::BadHandle`], [`CapError::InTransit`], [`CapError::Closed`].
    pub fn release(&self, handle: Handle) -> Result<(), CapError> {
        let released = self.slots.write().release(handle);
        released.map(drop)
    }

    /// A new handle to the object of `handle`, which has `rights`, is charged like any other, and outlives `handle`.
    ///
    /// # Errors
    /// [`CapError::Rights`] if `handle` has less; those of [`Self::release`] and [`Self::reserve`].
    pub fn duplicate(&self, handle: Handle, rights: Rights) -> Result<Handle, CapError> {
        // Under one lock: a handle that is released or moved meanwhile has its duplicate before that, or not at all. What
        // an error drops under it is never the last reference: the handle's own is still there.
        let mut slots = self.slots.write();
        let entry = slots.get(handle)?;
        if !entry.capability.rights.contains(rights) {
            return Err(CapError::Rights);
        }
        let paid = Paid::by(&self.account, entry.paid.pages())?;
        let entry = Entry { capability: entry.capability.with_rights(rights), paid };
        let duplicate = slots.reserve()?;
        let placed = slots.fill(duplicate, entry);
        drop(slots);
        debug_assert!(placed.is_ok(), "the slot was reserved under the same lock");
        Ok(duplicate)
    }

    /// The process has ended: every handle goes, and nothing can be inserted or received any more. What is in transit is
    /// the transfer's, which may still commit it. Closing again does nothing.
    pub fn close(&self) {
        let entries = self.slots.write().close();
        drop(entries);
    }

    /// How many slots are in use, those included that are reserved or in transit.
    pub fn len(&self) -> usize {
        self.slots.read().taken()
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Recomputes everything that is derived: the list of free slots, counts, charges.
    ///
    /// # Panics
    /// If something does not agree.
    pub fn check_invariants(&self) {
        self.slots.read().check_invariants(&self.account);
    }

    pub(super) const fn slots(&self) -> &RwLock<Slots> {
        &self.slots
    }
}

impl fmt::Debug for CapTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapTable").finish_non_exhaustive()
    }
}

/// A table that does not change while this is there.
pub struct Held<'a>(RwLockReadGuard<'a, Slots>);

impl Held<'_> {
    /// The object of `handle`, and all rights that the handle has.
    ///
    /// # Errors
    /// [`CapError::BadHandle`], [`CapError::InTransit`] or [`CapError::Closed`] if the handle cannot be used;
    /// [`CapError::WrongType`] if its object is no `T`; [`CapError::Rights`] if it lacks one that is `needed`.
    #[inline]
    pub fn get<T: Interface>(&self, handle: Handle, needed: Rights) -> Result<(&T, Rights), CapError> {
        self.find(handle, needed).map(|(object, capability)| (object, capability.rights))
    }

    /// As [`Self::get`], to be used after the guard is gone.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    #[inline]
    pub fn get_cloned<T: Interface>(&self, handle: Handle, needed: Rights) -> Result<(Arc<T>, Rights), CapError> {
        let (_, capability) = self.find::<T>(handle, needed)?;
        Ok((capability.shared_object().ok_or(CapError::WrongType)?, capability.rights))
    }

    #[inline]
    fn find<T: Interface>(&self, handle: Handle, needed: Rights) -> Result<(&T, &Capability), CapError> {
        let capability = &self.0.get(handle)?.capability;
        let object = capability.object().ok_or(CapError::WrongType)?;
        if !capability.rights.contains(needed) {
            return Err(CapError::Rights);
        }
        Ok((object, capability))
    }

    /// All handles in the order of their slots.
    pub fn handles(&self) -> impl Iterator<Item = HandleInfo> + '_ {
        self.0.infos()
    }
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.handles()).finish()
    }
}

/// A slot and pages that are paid for and hold nothing yet. Dropped, it gives everything back.
#[must_use = "a reservation that is dropped is given back at once"]
#[derive(Debug)]
pub struct Reservation<'a> {
    // Before the charges, so that a slot is free before its charge is given back.
    slot: ReservedSlot<'a>,
    paid: Paid,
}

impl Reservation<'_> {
    /// Puts `object` with `rights` into the slot. The pages that were reserved are what the handle is charged.
    ///
    /// It cannot fail. If the table has been closed meanwhile, it is as if it had been closed just afterwards: the handle
    /// is stale and the object is dropped.
    pub fn fill<T: Interface>(self, object: Arc<T>, rights: Rights) -> Handle {
        let handle = self.slot.handle;
        // Closed is the only error.
        let _ = self.place(Capability::new(object, rights));
        handle
    }

    /// Puts `capability` into the slot, unless the table has been closed: then both are dropped.
    pub(super) fn place(self, capability: Capability) -> Result<Handle, CapError> {
        let Self { slot, paid } = self;
        let (table, handle) = (slot.table, slot.handle);
        // The slot is settled below: filled, or gone with the table.
        mem::forget(slot);
        let placed = table.slots.write().fill(handle, Entry { capability, paid });
        placed.map(|()| handle).map_err(|_| CapError::Closed)
    }
}

/// A reserved slot; free again when this is dropped.
#[derive(Debug)]
struct ReservedSlot<'a> {
    table: &'a CapTable,
    handle: Handle,
}

impl Drop for ReservedSlot<'_> {
    fn drop(&mut self) {
        self.table.slots.write().free(self.handle);
    }
}
