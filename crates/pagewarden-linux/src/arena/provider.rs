//! The platform seam: each [`Op`] is one host call on the arena, or two, the first of which is taken back if the
//! second fails.
//!
//! Vacant pages are private anonymous memory without rights. Plain memory is mapped by giving rights to vacant pages.
//! A few plain pages are unmapped by guards (`warm`); everything else replaces what is there (`MAP_FIXED`). `moves`
//! has what mremap needs, `locks` what mlock does.
//!
//! Invariant: a vacant page that is not warm belongs to a host region as the reservation made it. Whatever a region
//! has of its own is gone with it: nobody need know which advice, name, lock or guard a page once had.

use std::ffi::CString;
use std::os::fd::AsFd;

use pagewarden::linux::{Advice, MapFlags};
use pagewarden::prot::ProtectionKey;
use pagewarden::provider::{Contents, Lock, Maps, Populate, Target};
use pagewarden::{
    Errno, MemoryObject, ObjectKind, Op, PAGE_SIZE, PageManagementProvider, PageRange, Prot, Region, RegionFlags,
    VirtAddr, Vmmap,
};

use super::carrier::{Carrier, PageMoves};
use super::reservation::{Mapping, Reservation};
use super::warm::{self, WarmPages};
use crate::traced::files::is_write_sealed;
use crate::traced::provider::{SHM_EXEC, file_flags, map_flags, mapped_file};

/// How the host counts memory that may be written (`vm.overcommit_memory`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accounting {
    /// By what is mapped, and not at all where `MAP_NORESERVE` says so.
    Loose,
    /// Strictly: what a region was charged for stays charged until it is unmapped.
    Strict,
}

/// What the region says, and not the call: how it grows, and how it is locked.
const NOT_THE_FILES: MapFlags = MapFlags::GROWS_DOWN.union(MapFlags::LOCKED);

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
    pub(super) accounting: Accounting,
    pub(super) warm: WarmPages,
    pub(super) carrier: Carrier,
    /// How new pages are locked, after mlockall with `MCL_FUTURE`.
    pub(super) lock_future: Option<Lock>,
    pub(super) call: Option<FileCall>,
    /// Protection keys that the guest has.
    pub(super) keys: Vec<ProtectionKey>,
    /// What an operation that failed has unmapped.
    lost: Option<PageRange>,
}

impl PageManagementProvider for ArenaProvider {
    fn run(&mut self, op: &Op, _maps: Maps<'_>) -> Result<(), Errno> {
        self.lost = None;
        match op {
            Op::Map { range, region, target, populate } => self.map(*range, region, *target, *populate),
            Op::Unmap { range, contents } => self.unmap(*range, *contents),
            Op::Protect { range, from, to } => self.protect(*range, *from, *to),
            Op::ProtectKey { range, from, to } => self.protect_key(*range, *from, *to),
            Op::AllocateKey { key, rights } => self.allocate_key(*key, *rights),
            Op::FreeKey { key } => self.free_key(*key),
            // The host's own seals and denials last as long as the process, and the latter hold for all of it. The
            // manager keeps both.
            Op::Seal { .. } | Op::DenyExecGain { .. } => Ok(()),
            Op::Move { from, to, source, region } => self.move_to(*from, *to, *source, region),
            Op::Grow { from, to, region } => self.grow(*from, *to, region),
            Op::Duplicate { from, to, .. } => self.duplicate(*from, *to),
            Op::Advise { range, advice } => self.advise(*range, *advice),
            Op::RemapPages { range, region, populate } => self.remap_pages(*range, region, *populate),
            Op::Sync { range, flags } => self.sync(*range, *flags),
            // The manager's own.
            Op::Residency { .. } => Err(Errno::NoSys),
            Op::Lock { range, mapped, lock } => self.lock(*range, *mapped, *lock),
            Op::LockAll { flags, mapped } => self.lock_all(*flags, mapped),
            Op::Name { range, name } => self.name(*range, name.as_deref()),
            Op::SetBreak { from, to, contents } => self.set_break(*from, *to, *contents),
        }
    }

    fn has_kept(&self, range: PageRange) -> bool {
        self.lost != Some(range)
    }

    fn is_write_sealed(&self, range: PageRange, _map: &Vmmap) -> bool {
        mapped_file("self", range.start()).is_some_and(|file| is_write_sealed(file.as_fd()))
    }

    fn residency(&mut self, range: PageRange, _map: &Vmmap, each: &mut dyn FnMut(bool)) {
        self.tell_residency(range, each);
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], _map: &Vmmap) -> Result<(), Errno> {
        self.copy_in(addr, bytes)
    }
}

impl ArenaProvider {
    /// A platform over `memory`, all of which is vacant.
    pub(super) fn new(memory: Reservation, accounting: Accounting) -> Self {
        let warm = WarmPages::default();
        let carrier = Carrier::new(PageMoves::Fastest);
        Self { memory, accounting, warm, carrier, lock_future: None, call: None, keys: Vec::new(), lost: None }
    }

    /// Where operations may act.
    pub const fn range(&self) -> PageRange {
        self.memory.range()
    }

    fn map(&mut self, range: PageRange, region: &Region, target: Target, populate: Populate) -> Result<(), Errno> {
        let is_plain = target == Target::Vacant && populate == Populate::OnDemand && region.is_plain();
        if is_plain && self.accounting == Accounting::Loose {
            if self.warm.contains(range) {
                return self.map_warm(range, region.prot);
            }
            if !self.warm.intersects(range) {
                return match region.prot {
                    Prot::NONE => Ok(()),
                    prot => self.protect(range, Prot::NONE, prot),
                };
            }
        }
        if let Err(errno) = self.replace(range, region, populate) {
            self.note_loss(range);
            return Err(errno);
        }
        self.warm.remove(range);
        if let Err(errno) = self.give_properties(range, region) {
            self.memory.vacate(range)?;
            self.lost = Some(range);
            return Err(errno);
        }
        Ok(())
    }

    /// Gives new pages what mmap(2) does not: pages that a region grows by are like those that it has.
    fn give_properties(&self, range: PageRange, region: &Region) -> Result<(), Errno> {
        let advised = [
            (RegionFlags::DONT_FORK, libc::MADV_DONTFORK),
            (RegionFlags::MERGEABLE, libc::MADV_MERGEABLE),
            (RegionFlags::HUGE_PAGE, libc::MADV_HUGEPAGE),
            (RegionFlags::SEQUENTIAL, libc::MADV_SEQUENTIAL),
            (RegionFlags::RANDOM, libc::MADV_RANDOM),
            (RegionFlags::WIPE_ON_FORK, libc::MADV_WIPEONFORK),
            (RegionFlags::DONT_DUMP, libc::MADV_DONTDUMP),
        ];
        // Memory that may be dropped has the last two by itself.
        let count = if region.flags.contains(RegionFlags::DROPPABLE) { advised.len() - 2 } else { advised.len() };
        for (_, advice) in advised[..count].iter().filter(|(flag, _)| region.flags.contains(*flag)) {
            self.memory.advise(range, *advice)?;
        }
        if region.key != ProtectionKey::DEFAULT && region.prot != Prot::EXEC {
            self.memory.protect_key(range, region.prot, region.key)?;
        }
        if let Some(name) = region.object().filter(|object| *object.kind() == ObjectKind::NamedAnonymous) {
            self.name(range, Some(name))?;
        }
        if region.flags.contains(RegionFlags::LOCK_ON_FAULT) {
            self.memory.lock(range, super::locks::MLOCK_ONFAULT)?;
        }
        Ok(())
    }

    /// Maps warm pages: takes their guards away.
    fn map_warm(&mut self, range: PageRange, prot: Prot) -> Result<(), Errno> {
        let writable = Prot::READ | Prot::WRITE;
        if prot != writable {
            self.protect(range, writable, prot)?;
        }
        // Taking guards away needs no memory, and cannot fail on pages that have some.
        self.memory.advise(range, Advice::GuardRemove.raw()).inspect_err(|_| {
            let _ = self.memory.protect(range, writable);
        })?;
        self.warm.remove(range);
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
            // Made by mapping /dev/zero, it keeps the offset, which may lie beyond its end.
            Some(ObjectKind::SharedAnonymous)
                if let Some(call) = self.call
                    && !call.flags.contains(MapFlags::ANONYMOUS) =>
            {
                flags |= file_flags(call.flags) - NOT_THE_FILES;
                (call.fd, region.page_offset(range.start()).wrapping_mul(PAGE_SIZE))
            }
            Some(ObjectKind::SharedAnonymous) => {
                flags |= MapFlags::ANONYMOUS;
                (-1, 0)
            }
            Some(ObjectKind::SysV { id, .. }) => return self.attach(*id, range, region),
            Some(ObjectKind::Special | ObjectKind::Capability) => return Err(Errno::NoSys),
            Some(ObjectKind::File(_) | ObjectKind::Device(_) | ObjectKind::ZeroDevice(_) | ObjectKind::Memfd(_)) => {
                let call = self.call.ok_or(Errno::NoSys)?;
                flags |= file_flags(call.flags) - NOT_THE_FILES;
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

    /// An operation that has replaced at least a part of `range` has failed: makes all of it vacant, and takes note.
    pub(super) fn lose(&mut self, range: PageRange) {
        // There may be memory again for a host that is asked twice.
        let attempts = [Reservation::vacate, Reservation::close_hole, Reservation::vacate];
        if attempts.iter().any(|attempt| attempt(&self.memory, range).is_ok()) {
            self.warm.remove(range);
            self.lost = Some(range);
        }
    }

    /// A host call that was to replace `range` has failed: makes what it has unmapped vacant, and takes note.
    pub(super) fn note_loss(&mut self, range: PageRange) {
        if self.memory.close_hole(range).is_ok() {
            self.warm.remove(range);
            self.lost = Some(range);
        }
    }

    /// Makes pages vacant.
    pub(super) fn unmap(&mut self, range: PageRange, contents: Contents) -> Result<(), Errno> {
        let is_writable = contents == Contents::Anonymous(Prot::READ | Prot::WRITE);
        if is_writable && range.pages().get() <= warm::PAGES_MAX && self.accounting == Accounting::Loose {
            // Without guards (before Linux 6.13, or on pages that the process has locked) nothing has happened.
            if self.memory.advise(range, Advice::GuardInstall.raw()).is_ok() {
                if let Some(excess) = self.warm.insert(range) {
                    self.cool(excess);
                }
                return Ok(());
            }
        }
        // A host that has unmapped the pages and failed then leaves a hole, which is to be vacant anyway.
        if let Err(errno) = self.memory.vacate(range)
            && self.memory.close_hole(range).is_err()
        {
            return Err(errno);
        }
        self.warm.remove(range);
        Ok(())
    }

    /// Replaces warm pages, which are in the set no more, by what vacant pages are.
    fn cool(&mut self, range: PageRange) {
        if self.memory.vacate(range).is_err() && self.memory.close_hole(range).is_err() {
            self.warm.keep(range);
        }
    }

    /// Makes every vacant page what the reservation made it.
    pub(super) fn cool_all(&mut self) {
        let runs: Vec<PageRange> = self.warm.drain().collect();
        runs.into_iter().for_each(|run| self.cool(run));
    }

    /// Changes rights, which are `from` on all pages.
    pub(super) fn protect(&self, range: PageRange, from: Prot, to: Prot) -> Result<(), Errno> {
        self.memory.protect(range, to).inspect_err(|_| {
            // The host may have changed its first regions when it fails at a later one.
            let _ = self.memory.protect(range, from);
        })
    }

    fn advise(&self, range: PageRange, advice: Advice) -> Result<(), Errno> {
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
