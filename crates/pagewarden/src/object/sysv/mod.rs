//! System V segments: `ipc/shm.c` and `ipc/util.c` of Linux 6.18, for platforms that own their memory.
//!
//! A [`SegmentTable`] is one namespace of segments. shmget(2) makes them and charges their pages; shmat(2) looks
//! them up ([`SegmentTable::segment`], what a platform's [`Files`](crate::linux::Files) answers with) and the
//! manager maps them; a segment ends when it has been removed and no space has it attached any more. Attaches are
//! counted by region, as Linux counts them, through fork, split, move and exit: each
//! [`PageManager`](crate::PageManager) tells the object what it has published, and takes everything back when
//! it is dropped.
//!
//! ```text
//! shmget -> charged, in the table -> shmctl(IPC_RMID) -> no key any more -> last detach: charge given back
//! ```
//!
//! Outside: who the caller is ([`Credentials`]) and what time it is ([`Surroundings`]). The table is behind a lock
//! of its platform; what it shares with the regions is atomic. Segments that have ended leave the table before
//! anything else is looked at, so that nobody sees them.
//!
//! Differs from Linux: equal neighbours are one region here, and so one attach, even if they were two regions for a
//! while; pools of huge pages are always empty (`SHM_HUGETLB` is `ENOMEM`); there is no `shm_rmid_forced`.

mod ids;
mod segment;

#[cfg(test)]
mod tests;

pub use segment::Surroundings;
pub(crate) use segment::{Attachable, Change};

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{MemoryObject, ObjectKind};
use crate::addr::PageCount;
use crate::error::Errno;
use crate::ledger::{Account, Charge, Resource};
use crate::linux::Segment;
use crate::manager::{NoReserve, Overcommit, Privileges};
use crate::prot::Prot;
use ids::Ids;
use segment::Shared;

/// `IPC_CREAT`.
const CREATE: i32 = 0o1000;
/// `IPC_EXCL`.
const EXCLUSIVE: i32 = 0o2000;
/// `SHM_HUGETLB`.
const HUGE_TLB: i32 = 0o4000;
/// `SHM_NORESERVE`.
const NO_RESERVE: i32 = 0o10000;
/// `SHM_DEST` in a mode.
const MODE_REMOVED: u32 = 0o1000;
/// `SHM_LOCKED` in a mode.
const MODE_LOCKED: u32 = 0o2000;
/// Who may do what.
const MODE_BITS: u32 = 0o777;
/// The key of segments that are found by identifier alone.
const PRIVATE: i32 = 0;

/// The most of everything (`kernel.shmmax`, `kernel.shmall`, `kernel.shmmni`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentLimits {
    /// Bytes of a segment.
    pub bytes_max: u64,
    /// Pages of all segments together.
    pub pages_max: u64,
    /// Segments.
    pub segments_max: u32,
}

impl Default for SegmentLimits {
    /// What a new namespace has (`SHMMAX`, `SHMALL`, `SHMMNI`).
    fn default() -> Self {
        let nearly_all = u64::MAX - (1 << 24);
        Self { bytes_max: nearly_all, pages_max: nearly_all, segments_max: 4096 }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
    /// The other groups.
    pub groups: &'a [u32],
    /// `ADMIN` and `LOCK` count here.
    pub privileges: Privileges,
    /// Whether permissions do not matter (`CAP_IPC_OWNER`).
    pub ownership: Ownership,
    /// `RLIMIT_MEMLOCK`, in bytes.
    pub lock_limit: u64,
    /// Pages of the caller's address space, which overcommit mode 2 looks at.
    pub virtual_pages: u64,
}

/// Whether the caller counts as owner of every segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ownership {
    /// Of its own alone.
    Own,
    /// Of all (`CAP_IPC_OWNER`).
    All,
}

/// How a segment is looked up for its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusOf {
    /// By identifier, if it may be read (`IPC_STAT`).
    Id,
    /// By slot, if it may be read (`SHM_STAT`).
    Slot,
    /// By slot (`SHM_STAT_ANY`).
    AnySlot,
}

/// What `struct shmid64_ds` says of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentStatus {
    /// Its identifier.
    pub id: i32,
    /// Its key; 0 if it is private or removed.
    pub key: i32,
    /// Owner.
    pub user: u32,
    /// Group of the owner.
    pub group: u32,
    /// Who made it.
    pub creator_user: u32,
    /// The group of who made it.
    pub creator_group: u32,
    /// Permissions, `SHM_DEST` and `SHM_LOCKED`.
    pub mode: u32,
    /// Size in bytes, as asked for.
    pub bytes: u64,
    /// When it was attached last.
    pub attached_at: i64,
    /// When it was detached last.
    pub detached_at: i64,
    /// When it was made, or its owner or permissions were set.
    pub changed_at: i64,
    /// The process that made it.
    pub creator_pid: i32,
    /// The process that attached or detached it last.
    pub last_pid: i32,
    /// How often it is attached.
    pub attaches: u64,
}

/// What `SHM_INFO` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableUsage {
    /// Segments.
    pub segments: u32,
    /// Pages of all segments.
    pub pages: u64,
    /// The highest slot in use, which the call returns.
    pub highest_slot: i32,
}

/// One segment.
#[derive(Debug)]
struct Entry {
    id: i32,
    key: i32,
    owner: (u32, u32),
    creator: (u32, u32),
    mode: u32,
    bytes: u64,
    changed_at: i64,
    creator_pid: i32,
    /// The user that `SHM_LOCK` counts it for.
    locked_by: u32,
    object: Arc<MemoryObject>,
}

impl Entry {
    fn pages(&self) -> u64 {
        PageCount::from_bytes_up(self.bytes).get()
    }

    fn attachable(&self) -> Option<&Attachable> {
        self.object.attachable()
    }

    fn is_locked(&self) -> bool {
        self.mode & MODE_LOCKED != 0
    }

    fn is_owned_by(&self, user: u32) -> bool {
        user == self.owner.0 || user == self.creator.0
    }

    /// What `caller` may do, in the three bits of one class of users (`ipc/util.c:ipcperms`).
    fn granted(&self, caller: &Credentials<'_>) -> u32 {
        if caller.ownership == Ownership::All {
            return 7;
        }
        let is_member = |group: u32| caller.group == group || caller.groups.contains(&group);
        let shift = match self {
            entry if entry.is_owned_by(caller.user) => 6,
            entry if is_member(entry.creator.1) || is_member(entry.owner.1) => 3,
            _ => 0,
        };
        self.mode >> shift & 7
    }

    fn status(&self) -> SegmentStatus {
        let (attached_at, detached_at, last_pid) = self.attachable().map_or((0, 0, 0), Attachable::last);
        SegmentStatus {
            id: self.id,
            key: self.key,
            user: self.owner.0,
            group: self.owner.1,
            creator_user: self.creator.0,
            creator_group: self.creator.1,
            mode: self.mode,
            bytes: self.bytes,
            attached_at,
            detached_at,
            changed_at: self.changed_at,
            creator_pid: self.creator_pid,
            last_pid,
            attaches: self.attachable().map_or(0, Attachable::attaches),
        }
    }
}

/// How segments are paid for.
#[derive(Clone, Debug)]
pub struct SegmentPolicy {
    /// Who pays.
    pub account: Account,
    /// Promises of more memory than there is.
    pub overcommit: Overcommit,
    /// What `SHM_NORESERVE` costs.
    pub no_reserve: NoReserve,
}

/// One namespace of segments.
pub struct SegmentTable {
    limits: SegmentLimits,
    policy: SegmentPolicy,
    shared: Arc<Shared>,
    segments: Ids<Entry>,
    by_key: BTreeMap<i32, i32>,
    /// Pages of all segments.
    pages: u64,
}

impl fmt::Debug for SegmentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limits, segments, pages, .. } = self;
        f.debug_struct("SegmentTable")
            .field("limits", limits)
            .field("segments", segments)
            .field("pages", pages)
            .finish_non_exhaustive()
    }
}

impl SegmentTable {
    /// A namespace without segments.
    pub fn new(limits: SegmentLimits, policy: SegmentPolicy, surroundings: Arc<dyn Surroundings>) -> Self {
        let shared = Arc::new(Shared { surroundings, has_ended: AtomicBool::new(false) });
        Self { limits, policy, shared, segments: Ids::new(), by_key: BTreeMap::new(), pages: 0 }
    }

    /// The limits (`IPC_INFO`).
    pub const fn limits(&self) -> &SegmentLimits {
        &self.limits
    }

    /// Replaces the limits; what is there stays.
    pub const fn set_limits(&mut self, limits: SegmentLimits) {
        self.limits = limits;
    }

    /// shmget(2): the segment with `key`, or a new one.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `EINVAL` for a size that is not allowed, `ENOSPC` for too many segments or
    /// pages, `ENOMEM` if an account or the overcommit mode refuses.
    pub fn get(&mut self, caller: &Credentials<'_>, key: i32, bytes: u64, flags: i32) -> Result<i32, Errno> {
        self.sweep();
        let found = self.by_key.get(&key).and_then(|id| self.segments.get(*id)).filter(|_| key != PRIVATE);
        match found {
            None if key == PRIVATE || flags & CREATE != 0 => self.make(caller, key, bytes, flags),
            None => Err(Errno::NoEnt),
            Some(_) if flags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE => Err(Errno::Exist),
            Some(entry) if entry.bytes < bytes => Err(Errno::Inval),
            Some(entry) => {
                let flags = flags.cast_unsigned();
                let wanted = (flags >> 6 | flags >> 3 | flags) & 7;
                if wanted & !entry.granted(caller) == 0 { Ok(entry.id) } else { Err(Errno::Acces) }
            }
        }
    }

    /// `ipc/shm.c:newseg`.
    fn make(&mut self, caller: &Credentials<'_>, key: i32, bytes: u64, flags: i32) -> Result<i32, Errno> {
        if bytes == 0 || bytes > self.limits.bytes_max {
            return Err(Errno::Inval);
        }
        let pages = PageCount::from_bytes_up(bytes);
        let all_pages = self.pages.checked_add(pages.get()).filter(|sum| *sum <= self.limits.pages_max);
        let all_pages = all_pages.ok_or(Errno::NoSpc)?;
        check_backing(bytes, flags)?;
        let charge = self.charge(caller, pages, flags)?;
        let locked = self.policy.account.empty_charge(Resource::Locked);
        let attachable = Attachable::new(Arc::clone(&self.shared), charge.amount(), locked);
        let (now, creator_pid) = (self.shared.surroundings.now(), self.shared.surroundings.pid());
        let owner = (caller.user, caller.group);
        let mode = flags.cast_unsigned() & MODE_BITS;
        let id = self.segments.add(self.limits.segments_max, |id| {
            let name = format!("/SYSV{key:08x} (deleted)");
            let object = MemoryObject::segment(ObjectKind::SysV { id, pages }, name, charge, attachable)?;
            Ok(Entry {
                id,
                key,
                owner,
                creator: owner,
                mode,
                bytes,
                changed_at: now,
                creator_pid,
                locked_by: 0,
                object,
            })
        })?;
        if key != PRIVATE {
            self.by_key.insert(key, id);
        }
        self.pages = all_pages;
        Ok(id)
    }

    fn charge(&self, caller: &Credentials<'_>, pages: PageCount, flags: i32) -> Result<Charge, Errno> {
        let SegmentPolicy { account, overcommit, no_reserve } = &self.policy;
        let is_without_reserve = flags & NO_RESERVE != 0;
        if is_without_reserve && no_reserve.is_free_in(*overcommit) {
            return Ok(account.empty_charge(Resource::Committed));
        }
        let charge = account.charge(Resource::Committed, pages.get()).map_err(|_| Errno::NoMem)?;
        let is_asked = !is_without_reserve || overcommit.asks_without_reserve();
        let is_refused = is_asked && overcommit.refuses(account, pages.get(), caller.virtual_pages, caller.privileges);
        if is_refused { Err(Errno::NoMem) } else { Ok(charge) }
    }

    /// The segment `id` for shmat(2), with what the caller may do.
    ///
    /// # Errors
    /// `EINVAL` if there is none.
    pub fn segment(&mut self, caller: &Credentials<'_>, id: i32) -> Result<Segment, Errno> {
        self.sweep();
        let entry = self.segments.get(id).ok_or(Errno::Inval)?;
        let granted = entry.granted(caller);
        let mut rights = Prot::NONE;
        rights.set(Prot::READ, granted & 4 != 0);
        rights.set(Prot::WRITE, granted & 2 != 0);
        rights.set(Prot::EXEC, granted & 1 != 0);
        Ok(Segment { object: Arc::clone(&entry.object), pages: PageCount::new(entry.pages()), rights })
    }

    /// shmctl(2) with `IPC_STAT`, which returns 0, or `SHM_STAT` and `SHM_STAT_ANY`, which return the identifier.
    ///
    /// # Errors
    /// `EINVAL` if there is none, `EACCES` if it may not be read.
    pub fn status(&mut self, caller: &Credentials<'_>, id: i32, of: StatusOf) -> Result<SegmentStatus, Errno> {
        self.sweep();
        let entry = if of == StatusOf::Id { self.segments.get(id) } else { self.segments.in_slot_of(id) };
        let entry = entry.ok_or(Errno::Inval)?;
        if of != StatusOf::AnySlot && entry.granted(caller) & 4 == 0 {
            return Err(Errno::Acces);
        }
        Ok(entry.status())
    }

    /// `ipc/util.c:ipcctl_obtain_check`.
    fn owned(&mut self, caller: &Credentials<'_>, id: i32) -> Result<&mut Entry, Errno> {
        self.sweep();
        let entry = self.segments.get_mut(id).ok_or(Errno::Inval)?;
        let is_allowed = entry.is_owned_by(caller.user) || caller.privileges.contains(Privileges::ADMIN);
        if is_allowed { Ok(entry) } else { Err(Errno::Perm) }
    }

    /// shmctl(2) with `IPC_SET`: owner and permissions.
    ///
    /// # Errors
    /// `EINVAL` if there is none or for a user or group -1, `EPERM` if it is not the caller's.
    pub fn set(&mut self, caller: &Credentials<'_>, id: i32, owner: (u32, u32), mode: u32) -> Result<(), Errno> {
        let now = self.shared.surroundings.now();
        let entry = self.owned(caller, id)?;
        if owner.0 == u32::MAX || owner.1 == u32::MAX {
            return Err(Errno::Inval);
        }
        entry.owner = owner;
        entry.mode = entry.mode & !MODE_BITS | mode & MODE_BITS;
        entry.changed_at = now;
        Ok(())
    }

    /// shmctl(2) with `IPC_RMID`: the key goes at once, the segment with its last attach.
    ///
    /// # Errors
    /// `EINVAL` if there is none, `EPERM` if it is not the caller's.
    pub fn remove(&mut self, caller: &Credentials<'_>, id: i32) -> Result<(), Errno> {
        let entry = self.owned(caller, id)?;
        entry.mode |= MODE_REMOVED;
        let key = core::mem::replace(&mut entry.key, PRIVATE);
        if let Some(attachable) = entry.attachable() {
            attachable.remove(entry.object.charge());
        }
        if key != PRIVATE {
            self.by_key.remove(&key);
        }
        self.sweep();
        Ok(())
    }

    /// shmctl(2) with `SHM_LOCK`.
    ///
    /// # Errors
    /// `EINVAL` if there is none, `EPERM` if it is not the caller's or nothing may be locked, `ENOMEM` past a limit.
    pub fn lock(&mut self, caller: &Credentials<'_>, id: i32) -> Result<(), Errno> {
        self.sweep();
        let may_lock_all = caller.privileges.contains(Privileges::LOCK);
        let locked: u64 = self
            .segments
            .iter()
            .filter(|entry| entry.is_locked() && entry.locked_by == caller.user)
            .map(Entry::pages)
            .sum();
        let entry = self.segments.get_mut(id).ok_or(Errno::Inval)?;
        if !may_lock_all && (!entry.is_owned_by(caller.user) || caller.lock_limit == 0) {
            return Err(Errno::Perm);
        }
        if entry.is_locked() {
            return Ok(());
        }
        let pages = entry.pages();
        let limit = PageCount::from_bytes_down(caller.lock_limit).get();
        if !may_lock_all && locked.saturating_add(pages) > limit {
            return Err(Errno::NoMem);
        }
        if let Some(attachable) = entry.attachable() {
            attachable.locked.raise(pages).map_err(|_| Errno::NoMem)?;
        }
        entry.mode |= MODE_LOCKED;
        entry.locked_by = caller.user;
        Ok(())
    }

    /// shmctl(2) with `SHM_UNLOCK`.
    ///
    /// # Errors
    /// `EINVAL` if there is none, `EPERM` if it is not the caller's.
    pub fn unlock(&mut self, caller: &Credentials<'_>, id: i32) -> Result<(), Errno> {
        self.sweep();
        let entry = self.segments.get_mut(id).ok_or(Errno::Inval)?;
        if !caller.privileges.contains(Privileges::LOCK) && !entry.is_owned_by(caller.user) {
            return Err(Errno::Perm);
        }
        entry.mode &= !MODE_LOCKED;
        if let Some(attachable) = entry.attachable() {
            attachable.locked.give_back(u64::MAX);
        }
        Ok(())
    }

    /// What there is altogether (`SHM_INFO`; `IPC_INFO` returns the highest slot too).
    pub fn usage(&mut self) -> TableUsage {
        self.sweep();
        TableUsage { segments: self.segments.len(), pages: self.pages, highest_slot: self.segments.highest_slot() }
    }

    /// Forgets what has ended, and gives its pages back. Every other call does it first; whoever ends a space may do it at
    /// once. Nobody asks for what has ended by key: that went when it was removed.
    pub fn sweep(&mut self) {
        if !self.shared.has_ended.swap(false, Ordering::AcqRel) {
            return;
        }
        let pages = &mut self.pages;
        self.segments.retain(|entry| {
            let has_ended = entry.attachable().is_some_and(Attachable::has_ended);
            if has_ended {
                *pages -= entry.pages();
            }
            !has_ended
        });
    }
}

/// What shmem and the pools of huge pages can hold (`shmem_kernel_file_setup`, `hugetlb_file_setup`).
const fn check_backing(bytes: u64, flags: i32) -> Result<(), Errno> {
    if flags & HUGE_TLB != 0 {
        return match flags.cast_unsigned() >> 26 & 0x3f {
            0 | 21 | 30 => Err(Errno::NoMem),
            _ => Err(Errno::Inval),
        };
    }
    if bytes > i64::MAX.cast_unsigned() { Err(Errno::Inval) } else { Ok(()) }
}
