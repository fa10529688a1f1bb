//! From one table to another: exactly once, or not at all.
//!
//! Three steps, each of which may be the last: [`CapTable::offer`] checks the sender's side, [`Transfer::reserve`] takes
//! a slot and charges at the receiver's, [`ReservedTransfer::commit`] makes the new handle live. Dropping what a step
//! returned undoes all steps so far. No two tables are locked at once: between two steps a handle that is moved is *in
//! transit*, which bars everything else from it, so the steps need not be one.
//!
//! A move charges the receiver before the sender's charge is given back. The other way round there would be a moment
//! when nobody pays: somebody else could take the budget, and rolling back could fail for want of it. So accounts above
//! both need room for the capability twice for that long. In the same order the receiver's slot is filled before the
//! sender's is freed: the only error, a receiver that was closed meanwhile, is known while the sender still has it all.
//!
//! A transfer may be committed after the sender was closed. What is moved is the transfer's from the offer on, with the
//! sender's charges: so the sender's account pays until the receiver does, however long a kernel keeps the transfer. A
//! copy is made from what the sender had when it was offered, and may be committed after the sender has given up its own
//! handle. From then on until the receiver reserves nobody pays for it: whoever keeps transfers for longer than a call
//! duplicates the handle and moves the duplicate.

use super::interface::{Binding, Capability};
use super::slots::Entry;
use super::table::{CapTable, Reservation};
use super::{CapError, Handle, InterfaceId, Rights};
use crate::addr::PageCount;

/// What becomes of the sender's handle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferMode {
    /// It stays.
    Copy,
    /// It is stale once the transfer is committed.
    Move,
}

impl CapTable {
    /// Offers `handle` to another table, with `rights`, which may be fewer than the handle has. A handle that is to be
    /// moved is in transit from now on. The receiver may be this table.
    ///
    /// # Errors
    /// [`CapError::BadHandle`], [`CapError::InTransit`] or [`CapError::Closed`] if the handle cannot be used;
    /// [`CapError::Rights`] if it lacks [`Rights::TRANSFER`] or one of `rights`; [`CapError::Bound`] if the object cannot
    /// be transferred at all.
    pub fn offer(&self, handle: Handle, mode: TransferMode, rights: Rights) -> Result<Transfer<'_>, CapError> {
        let mut slots = self.slots().write();
        let entry = slots.get(handle)?;
        let held = entry.capability.rights;
        if !held.contains(Rights::TRANSFER) {
            return Err(CapError::Rights);
        }
        if entry.capability.binding == Binding::Bound {
            return Err(CapError::Bound);
        }
        if !held.contains(rights) {
            return Err(CapError::Rights);
        }
        let (capability, pages) = (entry.capability.with_rights(rights), entry.paid.pages());
        let moved = match mode {
            TransferMode::Copy => None,
            TransferMode::Move => {
                let entry = slots.begin_transit(handle)?;
                Some(SlotInTransit { table: self, handle, entry: Some(entry) })
            }
        };
        drop(slots);
        Ok(Transfer { moved, capability, pages })
    }
}

/// A capability that is offered. Dropped, it is as if it had never been.
#[must_use = "a transfer that is dropped is rolled back at once"]
#[derive(Debug)]
pub struct Transfer<'a> {
    /// The sender's slot, of a move.
    moved: Option<SlotInTransit<'a>>,
    /// What the receiver is to have.
    capability: Capability,
    pages: PageCount,
}

impl<'a> Transfer<'a> {
    /// Takes a slot and charges at the receiver's.
    ///
    /// # Errors
    /// Those of [`CapTable::reserve`]; the transfer is rolled back then.
    pub fn reserve(self, receiver: &'a CapTable) -> Result<ReservedTransfer<'a>, CapError> {
        let reservation = receiver.reserve(self.pages)?;
        Ok(ReservedTransfer { transfer: self, reservation })
    }
}

/// A transfer that only has to be committed. Dropped, it is as if it had never been.
#[must_use = "a transfer that is dropped is rolled back at once"]
#[derive(Debug)]
pub struct ReservedTransfer<'a> {
    transfer: Transfer<'a>,
    reservation: Reservation<'a>,
}

impl ReservedTransfer<'_> {
    /// The interface of what the receiver is to have.
    pub(super) fn interface(&self) -> InterfaceId {
        self.transfer.capability.interface
    }

    /// Makes the receiver's handle live; the sender's, if it is moved, is stale.
    ///
    /// # Errors
    /// [`CapError::Closed`] if the receiver has been closed meanwhile; the transfer is rolled back then.
    pub fn commit(self) -> Result<Handle, CapError> {
        let Transfer { moved, capability, .. } = self.transfer;
        let handle = self.reservation.place(capability)?;
        if let Some(slot) = moved {
            slot.leave();
        }
        Ok(handle)
    }
}

/// The slot of a handle that is being moved out, with what was in it and the charges for that. Dropped, the handle is live
/// again, if its table is still open.
#[derive(Debug)]
struct SlotInTransit<'a> {
    table: &'a CapTable,
    handle: Handle,
    /// Nothing once the capability has left.
    entry: Option<Entry>,
}

impl SlotInTransit<'_> {
    /// The capability has left: the handle is stale, and the sender is given back what it paid.
    fn leave(mut self) {
        let left = self.table.slots().write().free(self.handle);
        drop((left, self.entry.take()));
    }
}

impl Drop for SlotInTransit<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            // What is given back, if the table has been closed, goes when it is not locked any more.
            let returned = self.table.slots().write().fill(self.handle, entry);
            drop(returned);
        }
    }
}
