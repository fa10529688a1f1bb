//! Who pays for frames.
//!
//! An owner's record has the charges for its frames and a count of its users: handles, frames, and what a magazine has
//! paid ahead. The record goes when the last user does, whoever that is: a thread that frees the last frame of an owner
//! that was dropped long ago.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::records::Tag;
use super::{FrameError, FrameUse};
use crate::fallible::make_sure_of_memory;
use crate::ledger::{Account, Charge, Resource};
use crate::sync::{AtomicU64, Ordering, RwLock};

/// What is known of an owner.
#[derive(Debug)]
pub(super) struct OwnerRecord {
    number: u32,
    account: Account,
    frames: Charge,
    tables: Charge,
    users: AtomicU64,
}

impl OwnerRecord {
    /// The tag of frames that it pays for and that are used so.
    #[inline]
    pub(super) const fn tag(&self, used_as: FrameUse) -> Tag {
        Tag::new(self.number, used_as)
    }

    /// Whether it is the owner that frames with `tag` have, given that there are such frames. Its number may be another
    /// owner's by now, but then it has had no users since.
    #[inline]
    pub(super) fn pays_for(&self, tag: Tag) -> bool {
        self.number == tag.owner() && self.users.load(Ordering::Relaxed) > 0
    }

    fn charge(&self, resource: Resource) -> &Charge {
        if resource == Resource::TableFrames { &self.tables } else { &self.frames }
    }

    /// Whether its account could be charged `frames` frames now.
    pub(super) fn could_be_charged(&self, resource: Resource, frames: u64) -> bool {
        self.account.available(resource) >= frames
    }

    /// Charges `frames` frames. The caller is a user already, by a handle or a frame.
    pub(super) fn charge_frames(&self, resource: Resource, frames: u64) -> Result<(), FrameError> {
        self.charge(resource).raise(frames)?;
        self.users.fetch_add(frames, Ordering::Relaxed);
        Ok(())
    }

    /// Takes `users` users off; whether those were the last.
    fn forget(&self, users: u64) -> bool {
        self.users.fetch_sub(users, Ordering::AcqRel) == users
    }
}

#[derive(Default, Debug)]
struct Table {
    records: Vec<Option<Arc<OwnerRecord>>>,
    unused: Vec<u32>,
}

/// The owners of frames.
pub(super) struct Owners(RwLock<Table>);

impl Owners {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Table::default()))
    }

    /// A new owner, whose frames `account` pays for.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for its record, [`FrameError::TooManyReferences`] if there are as
    /// many owners as can be told apart.
    pub(super) fn add(self: &Arc<Self>, account: &Account) -> Result<Owner, FrameError> {
        make_sure_of_memory::<OwnerRecord>().map_err(|_| FrameError::Exhausted)?;
        let mut table = self.0.write();
        let Table { records, unused } = &mut *table;
        if unused.is_empty() {
            let number = u32::try_from(records.len()).unwrap_or(u32::MAX);
            if number >= Tag::OWNERS_MAX {
                return Err(FrameError::TooManyReferences);
            }
            // Room for every number to become unused, so that forgetting an owner needs no memory.
            unused.try_reserve(records.len() + 1).map_err(|_| FrameError::Exhausted)?;
            records.try_reserve(1).map_err(|_| FrameError::Exhausted)?;
            records.push(None);
            unused.push(number);
        }
        let number = unused.pop().ok_or(FrameError::Exhausted)?;
        let record = Arc::new(OwnerRecord {
            number,
            account: account.clone(),
            frames: account.empty_charge(Resource::Frames),
            tables: account.empty_charge(Resource::TableFrames),
            users: AtomicU64::new(1),
        });
        records[number as usize] = Some(Arc::clone(&record));
        Ok(Owner { record, owners: Arc::clone(self) })
    }

    /// The record of an owner with frames.
    pub(super) fn get(&self, number: u32) -> Option<Arc<OwnerRecord>> {
        self.0.read().records.get(number as usize)?.clone()
    }

    /// Gives back the charge for `frames` frames with `tag`.
    pub(super) fn give_back(&self, tag: Tag, frames: u64) {
        if let Some(record) = self.get(tag.owner()) {
            self.give_back_frames(&record, tag.resource(), frames);
        }
    }

    /// Gives back the charge for `frames` frames of `record`.
    pub(super) fn give_back_frames(&self, record: &OwnerRecord, resource: Resource, frames: u64) {
        record.charge(resource).give_back(frames);
        self.forget(record, frames);
    }

    fn forget(&self, record: &OwnerRecord, users: u64) {
        if record.forget(users) {
            let mut table = self.0.write();
            // Dropped after the lock: an account's last clone may go with it.
            let gone = table.records.get_mut(record.number as usize).and_then(Option::take);
            table.unused.push(record.number);
            drop(table);
            drop(gone);
        }
    }

    /// How many owners there are.
    pub(super) fn count(&self) -> usize {
        self.0.read().records.iter().flatten().count()
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} owners", self.count())
    }
}

/// Who pays for frames. When it is dropped, the frames stay, and stay charged, until they are released.
#[derive(Debug)]
pub struct Owner {
    record: Arc<OwnerRecord>,
    owners: Arc<Owners>,
}

impl Owner {
    /// The account that pays.
    pub fn account(&self) -> &Account {
        &self.record.account
    }

    pub(super) fn record(&self) -> &Arc<OwnerRecord> {
        &self.record
    }

    pub(super) fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }
}

impl Clone for Owner {
    fn clone(&self) -> Self {
        self.record.users.fetch_add(1, Ordering::Relaxed);
        Self { record: Arc::clone(&self.record), owners: Arc::clone(&self.owners) }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.owners.forget(&self.record, 1);
    }
}
