//! The platform seam: each [`Op`] is one host call on the arena, or two, the first of which is taken back if the
//! second fails.
//!
//! Vacant pages are private anonymous memory without rights. So plain memory is mapped by giving rights to vacant
//! pages, and unmapped by taking them away and discarding what is there; the host's regions split and unite as they
//! would if the pages came and went. Everything else replaces what is there (`MAP_FIXED`). `moves` has what mremap
//! needs, `locks` what mlock does.
//!
//! Invariant: a vacant page's host region is as the reservation made it, but for its list of owners. What a host
//! region keeps that neither the manager's flags nor an mprotect tells is noted in `strays`, and such pages are
//! replaced when they become vacant.

use std::ffi::CString;

use pagewarden::linux::{Advice, MapFlags};
use pagewarden::provider::{Contents, Lock, Populate, Target};
use pagewarden::{
    Errno, MemoryObject, ObjectKind, Op, PAGE_SIZE, PageManagementProvider, PageRange, Prot, Region, RegionFlags,
    VirtAddr,
};

use super::pages::PageSet;
use super::reservation::{Mapping, Reservation};
use crate::traced::provider::{SHM_EXEC, file_flags, map_flags};

/// How the host counts memory that may be written (`vm.overcommit_memory`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accounting {
    /// By what is mapped, and not at all where `MAP_NORESERVE` says so.
    Loose,
    /// Strictly: what a region was charged for stays charged until it is unmapped.
    Strict,
}

/// What the call under way says that an operation does not: a file, and flags that only the file knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileCall {
    pub(super) fd: i32,
    pub(super) flags: MapFlags,
}

/// Carries out operations in one arena.
#[derive(Debug)]
pub struct ArenaProvider {
    pub(super) memory: Reservation,
    accounting: Accounting,
    /// Private anonymous pages that do not become vacant by losing their rights: they have been moved, and the host
    /// does not unite them with what is around them, or have guards in the page tables.
    pub(super) strays: PageSet,
    /// How new pages are locked, after mlockall with `MCL_FUTURE`.
    pub(super) lock_future: Option<Lock>,
    pub(super) call: Option<FileCall>,
    /// What an operation that failed has unmapped.
    lost: Option<PageRange>,
}

impl PageManagementProvider for ArenaProvider {
    fn run(&mut self, op: &Op) -> Result<(), Errno> {
        self.lost = None;
        match op {
            Op::Map { range, region, target, populate } => self.map(*range, region, *target, *populate),
            Op::Unmap { range, contents } => self.unmap(*range, *contents),
            Op::Protect { range, from, to } => self.protect(*range, *from, *to),
            Op::Move { from, to, source, region } => self.move_to(*from, *to, *source, region),
            Op::Grow { from, to, region } => self.grow(*from, *to, region),
            Op::Duplicate { from, to, .. } => self.duplicate(*from, *to),
            Op::Advise { range, advice } => self.advise(*range, *advice),
            Op::Lock { range, mapped, lock } => self.lock(*range, *mapped, *lock),
            Op::LockAll { flags, mapped } => self.lock_all(*flags, mapped),
            Op::Name { range, name } => self.name(*range, name.as_deref()),
            // The manager keeps to these by itself. The host's own would bind the whole process, and for good.
            Op::Seal { .. } | Op::DenyExecGain { .. } => Ok(()),
            // Keys are the process's: an arena has none to give (see `config`).
            Op::ProtectKey { .. } | Op::AllocateKey { .. } | Op::FreeKey { .. } => Err(Errno::NoSys),
            Op::SetBreak { from, to, contents } => self.set_break(*from, *to, *contents),
        }
    }

    fn has_kept(&self, range: PageRange) -> bool {
        self.lost != Some(range)
    }
}

impl ArenaProvider {
    /// A platform over `memory`, all of which is vacant.
    pub(super) fn new(memory: Reservation, accounting: Accounting) -> Self {
        Self { memory, accounting, strays: PageSet::default(), lock_future: None, call: None, lost: None }
    }

    /// Where operations may act.
    pub const fn range(&self) -> PageRange {
        self.memory.range()
    }

    /// Whether vacant pages become plain memory, and plain memory vacant, by a change of rights.
    fn keeps_mappings(&self) -> bool {
        self.accounting == Accounting::Loose
    }

    fn map(&mut self, range: PageRange, region: &Region, target: Target, populate: Populate) -> Result<(), Errno> {
        let is_fast = target == Target::Vacant && populate == Populate::OnDemand && self.keeps_mappings();
        if is_fast && region.is_plain() {
            return match region.prot {
                Prot::NONE => Ok(()),
                prot => self.protect(range, Prot::NONE, prot),
            };
        }
        if let Err(errno) = self.replace(range, region, populate) {
            self.note_loss(range);
            return Err(errno);
        }
        self.strays.remove(range);
        let is_locked_later = region.flags.contains(RegionFlags::LOCK_ON_FAULT);
        if is_locked_later && let Err(errno) = self.memory.lock(range, super::locks::MLOCK_ONFAULT) {
            self.memory.vacate(range)?;
            self.lost = Some(range);
            return Err(errno);
        }
        Ok(())
    }

    /// Puts a region in the place of what is there.
    pub(super) fn replace(&self, range: PageRange, region: &Region, populate: Populate) -> Result<(), Errno> {
        // A stack is grown by the manager; a host that grew it might leave the arena.
        let mut flags = map_flags(region, Target::Replace, populate) - MapFlags::GROWS_DOWN;
        let locked = region.flags & (RegionFlags::LOCKED | RegionFlags::LOCK_ON_FAULT);
        if locked == RegionFlags::LOCKED {
            flags |= MapFlags::LOCKED;
        }
        let (fd, offset) = match region.object().map(|object| object.kind()) {
            None | Some(ObjectKind::NamedAnonymous) => {
                flags |= MapFlags::ANONYMOUS | MapFlags::NO_RESERVE;
                (-1, 0)
            }
            Some(ObjectKind::SharedAnonymous) => {
                flags |= MapFlags::ANONYMOUS;
                (-1, 0)
            }
            Some(ObjectKind::SysV { id, .. }) => return self.attach(*id, range, region),
            Some(ObjectKind::Special) => return Err(Errno::NoSys),
            Some(ObjectKind::File(_) | ObjectKind::Device(_) | ObjectKind::ZeroDevice(_) | ObjectKind::Memfd(_)) => {
                let call = self.call.ok_or(Errno::NoSys)?;
                flags |= file_flags(call.flags) - MapFlags::GROWS_DOWN;
                (call.fd, region.page_offset(range.start()).wrapping_mul(PAGE_SIZE))
            }
        };
        self.memory.map(range, Mapping { prot: region.prot, flags, fd, offset })
    }

    fn attach(&self, id: i32, range: PageRange, region: &Region) -> Result<(), Errno> {
        let mut flags = 0;
        if !region.prot.contains(Prot::WRITE) {
            flags |= u64::from(libc::SHM_RDONLY.unsigned_abs());
        }
        if region.prot.contains(Prot::EXEC) {
            flags |= SHM_EXEC;
        }
        self.memory.attach(range, id, flags)?;
        if region.flags.contains(RegionFlags::LOCKED) && !region.flags.contains(RegionFlags::LOCK_ON_FAULT) {
            // As with mlockall(2) before shmat(2): what cannot be made resident is locked all the same.
            let _ = self.memory.lock(range, 0);
        }
        Ok(())
    }

    /// A host call that was to replace `range` has failed: makes what it has unmapped vacant, and takes note.
    pub(super) fn note_loss(&mut self, range: PageRange) {
        if self.memory.close_hole(range).is_ok() {
            self.strays.remove(range);
            self.lost = Some(range);
        }
    }

    /// Makes pages vacant.
    pub(super) fn unmap(&mut self, range: PageRange, contents: Contents) -> Result<(), Errno> {
        let is_plain = contents == Contents::Anonymous && !self.strays.intersects(range);
        // Nothing is lost before the rights are gone. If they cannot be taken (the host has no room for one region
        // more), replacing may still do.
        if is_plain
            && self.keeps_mappings()
            && self.memory.protect(range, Prot::NONE).is_ok()
            && self.memory.advise(range, libc::MADV_DONTNEED).is_ok()
        {
            return Ok(());
        }
        if let Err(errno) = self.memory.vacate(range) {
            self.note_loss(range);
            return Err(errno);
        }
        self.strays.remove(range);
        Ok(())
    }

    /// Changes rights, which are `from` on all pages.
    pub(super) fn protect(&self, range: PageRange, from: Prot, to: Prot) -> Result<(), Errno> {
        self.memory.protect(range, to).inspect_err(|_| {
            // The host may have changed its first regions when it fails at a later one.
            let _ = self.memory.protect(range, from);
        })
    }

    fn advise(&mut self, range: PageRange, advice: Advice) -> Result<(), Errno> {
        if advice == Advice::GuardInstall {
            self.strays.insert(range);
        }
        self.memory.advise(range, advice.raw())
    }

    pub(super) fn name(&self, range: PageRange, name: Option<&MemoryObject>) -> Result<(), Errno> {
        let name = name.map(|name| CString::new(name.name())).transpose().map_err(|_| Errno::Inval)?;
        self.memory.name(range, name.as_deref())
    }

    fn set_break(&mut self, from: VirtAddr, to: VirtAddr, contents: Contents) -> Result<(), Errno> {
        let (Some(from), Some(to)) = (from.page_up(), to.page_up()) else { return Err(Errno::Inval) };
        if let Some(gone) = PageRange::new(to, from) {
            return self.unmap(gone, contents);
        }
        let Some(added) = PageRange::new(from, to) else { return Ok(()) };
        let mut region = Region::anonymous(Prot::READ | Prot::WRITE);
        region.flags = self.new_locks();
        self.map(added, &region, Target::Vacant, Populate::OnDemand)
    }

    /// Maps pages like `region` where nothing is.
    pub(super) fn map_vacant(&mut self, range: PageRange, region: &Region) -> Result<(), Errno> {
        self.map(range, region, Target::Vacant, Populate::OnDemand)
    }
}
