//! The seam to whatever holds the pages.
//!
//! A [`PageManagementProvider`] carries out operations on whole ranges. It decides nothing: the manager
//! has checked, placed and charged before it asks. Each operation happens completely or not at all, and a
//! failure says so with an [`Errno`]. The traits are safe; docs/soundness.md lists what a platform's
//! unsafe code relies on the core for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::{Advice, LockAllFlags, MdweFlags, SyncFlags};
use crate::object::MemoryObject;
use crate::prot::{Prot, ProtectionKey};
use crate::region::Region;
use crate::vmmap::Vmmap;

/// What a mapping finds in its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Nothing: the platform fails with `EEXIST` should it know better.
    Vacant,
    /// Possibly other regions, which it replaces in one step.
    Replace,
}

/// Whether pages are made resident at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// As they are touched.
    OnDemand,
    /// Before the call returns, as far as possible.
    Now,
}

/// What becomes of the range that pages are moved away from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// It is unmapped.
    Removed,
    /// It stays mapped and is empty (`MREMAP_DONTUNMAP`).
    Kept,
}

/// What a range holds that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// [Plain](Region::is_plain) memory without a hole, with these rights: a platform may keep the mapping for later,
    /// emptied and out of reach, and nobody can tell.
    Anonymous(Prot),
    /// Anything.
    Other,
}

/// How pages are locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// All pages now.
    Now,
    /// Each page when it is touched (`MLOCK_ONFAULT`).
    OnFault,
    /// Not any more.
    Released,
}

/// What mincore(2) tells of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// The truth.
    Truth,
    /// That all are resident: who reads them has no right to know.
    AllResident,
}

/// Rights together with a protection key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyedProt {
    /// The rights.
    pub prot: Prot,
    /// The key.
    pub key: KeyUse,
}

/// A protection key, and who chose it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyUse {
    /// The guest, or nobody.
    Given(ProtectionKey),
    /// The manager, for memory that can only be executed. A host that chooses such a key by itself has chosen the same.
    ExecuteOnly(ProtectionKey),
}

impl KeyUse {
    /// The key.
    pub const fn key(self) -> ProtectionKey {
        match self {
            Self::Given(key) | Self::ExecuteOnly(key) => key,
        }
    }
}

impl fmt::Display for KeyedProt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.prot, self.key.key())
    }
}

/// One operation of a platform. A plan is a list of these.
#[derive(Clone, Debug)]
pub enum Op {
    /// Put a region in place.
    Map {
        /// Where.
        range: PageRange,
        /// What: rights, flags, backing and offset.
        region: Region,
        /// What may be there now.
        target: Target,
        /// When pages become resident.
        populate: Populate,
    },
    /// Take away whatever is in the range.
    Unmap {
        /// Where.
        range: PageRange,
        /// What is there.
        contents: Contents,
    },
    /// Change rights; the whole range is mapped.
    Protect {
        /// Where.
        range: PageRange,
        /// What the rights were, for undo.
        from: Prot,
        /// What they become.
        to: Prot,
    },
    /// Change rights and protection key; the whole range is mapped.
    ProtectKey {
        /// Where.
        range: PageRange,
        /// What both were, for undo.
        from: KeyedProt,
        /// What they become.
        to: KeyedProt,
    },
    /// Seal mapped pages. Nothing takes this back.
    Seal {
        /// Where; the whole range is mapped.
        range: PageRange,
    },
    /// Give out a protection key.
    AllocateKey {
        /// The lowest that is free.
        key: ProtectionKey,
        /// The `PKEY_DISABLE_*` word for the calling thread.
        rights: u64,
    },
    /// Take a protection key back. Regions that have it keep it.
    FreeKey {
        /// Which.
        key: ProtectionKey,
    },
    /// Let nothing become executable any more. Nothing takes this back.
    DenyExecGain {
        /// How.
        flags: MdweFlags,
    },
    /// Move pages with their contents, replacing what is at the target. `to` is as long as `from`, or longer.
    Move {
        /// Where the pages are.
        from: PageRange,
        /// Where they go.
        to: PageRange,
        /// What becomes of `from`.
        source: Source,
        /// The last page that moves, as it was: the pages that `to` has more become like it.
        region: Region,
    },
    /// Make a region longer in place; the pages after it are free.
    Grow {
        /// What is mapped now.
        from: PageRange,
        /// What will be; starts where `from` does.
        to: PageRange,
        /// The last page of `from`: the new pages become like it.
        region: Region,
    },
    /// Show the shared pages at `from` a second time (mremap(2) with an old size of 0).
    Duplicate {
        /// A page of the shared region.
        from: VirtAddr,
        /// Where the second view goes.
        to: PageRange,
        /// What may be there now.
        target: Target,
    },
    /// Apply an advice of madvise(2) to mapped pages.
    Advise {
        /// Where.
        range: PageRange,
        /// Which.
        advice: Advice,
    },
    /// Show other pages of the shared object that the range shows already, as the regions' one new region says.
    RemapPages {
        /// Where.
        range: PageRange,
        /// What: rights, flags, backing and offset.
        region: Region,
        /// When pages become resident.
        populate: Populate,
    },
    /// Write changed pages of a shared region back to its file.
    Sync {
        /// Where.
        range: PageRange,
        /// How.
        flags: SyncFlags,
    },
    /// Write a byte a page, its lowest bit for residency, into the guest. The manager carries this out itself, by
    /// [`PageManagementProvider::residency`] and [`PageManagementProvider::store`].
    Residency {
        /// Of which pages.
        range: PageRange,
        /// Where the first byte goes.
        vector: VirtAddr,
        /// What is told.
        telling: Telling,
    },
    /// Lock or unlock the pages up to the end of the range or the first hole. An error says that there is a hole, or
    /// that not all of them could be made resident; they are locked all the same, as with mlock(2).
    Lock {
        /// Where.
        range: PageRange,
        /// The part of it up to the first hole.
        mapped: PageRange,
        /// How.
        lock: Lock,
    },
    /// mlockall(2), or munlockall(2) with no flag.
    LockAll {
        /// What is locked.
        flags: LockAllFlags,
        /// The range of each region, lowest first: those that cannot be made resident do not keep others from it.
        /// Nothing if the call does not change what is there already.
        mapped: Vec<PageRange>,
    },
    /// Name private anonymous pages, or take their name away.
    Name {
        /// Where.
        range: PageRange,
        /// The named object that the pages belong to from now on.
        name: Option<Arc<MemoryObject>>,
    },
    /// Move the program break; pages between the two are mapped private, readable and writable, or unmapped.
    SetBreak {
        /// Where it was.
        from: VirtAddr,
        /// Where it goes.
        to: VirtAddr,
        /// What is there that goes, if it is moved down.
        contents: Contents,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map { range, region, target, populate } => {
                write!(f, "map {range} {}", region.prot)?;
                f.write_str(if region.is_shared() { "s" } else { "p" })?;
                if *target == Target::Replace {
                    f.write_str(" replace")?;
                }
                if *populate == Populate::Now {
                    f.write_str(" populate")?;
                }
                Ok(())
            }
            Self::Unmap { range, .. } => write!(f, "unmap {range}"),
            Self::Protect { range, from, to } => write!(f, "protect {range} {from} -> {to}"),
            Self::ProtectKey { range, from, to } => write!(f, "protect {range} {from} -> {to}"),
            Self::Seal { range } => write!(f, "seal {range}"),
            Self::AllocateKey { key, rights } => write!(f, "allocate {key} rights {rights:#x}"),
            Self::FreeKey { key } => write!(f, "free {key}"),
            Self::DenyExecGain { flags } => write!(f, "deny-exec-gain {flags:?}"),
            Self::Move { from, to, source: Source::Removed, .. } => write!(f, "move {from} -> {to}"),
            Self::Move { from, to, source: Source::Kept, .. } => write!(f, "move {from} -> {to} keep"),
            Self::Grow { from, to, .. } => write!(f, "grow {from} -> {to}"),
            Self::Duplicate { from, to, .. } => write!(f, "duplicate {from} -> {to}"),
            Self::Advise { range, advice } => write!(f, "advise {range} {advice:?}"),
            Self::RemapPages { range, region, .. } => {
                write!(f, "remap {range} to page {:#x}", region.page_offset(range.start()))
            }
            Self::Sync { range, flags } => write!(f, "sync {range} {flags:?}"),
            Self::Residency { range, .. } => write!(f, "residency {range}"),
            Self::Lock { range, lock, .. } => write!(f, "lock {range} {lock:?}"),
            Self::LockAll { flags, .. } => write!(f, "lock-all {flags:?}"),
            Self::Name { range, name: Some(name) } => write!(f, "name {range} {}", name.name()),
            Self::Name { range, name: None } => write!(f, "unname {range}"),
            Self::SetBreak { from, to, .. } => write!(f, "break {from} -> {to}"),
        }
    }
}

/// The map around a plan. The operations of a plan touch different pages, so for each page of an operation `before`
/// says what was there when it began, and `after` what will be when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Maps<'a> {
    /// Before the plan.
    pub before: &'a Vmmap,
    /// After it.
    pub after: &'a Vmmap,
}

/// A platform that can map pages.
pub trait PageManagementProvider {
    /// Carries out one operation, completely or not at all. `maps` is for platforms that own their pages; one over a
    /// host, which has a map of its own, needs it not.
    ///
    /// # Errors
    /// The platform's own reason, such as [`Errno::NoMem`]. The manager then undoes what came before.
    fn run(&mut self, op: &Op, maps: Maps<'_>) -> Result<(), Errno>;

    /// Whether what was mapped in `range` is still there after an operation that was to replace it has failed.
    /// Linux unmaps first and may fail after that; a platform over it says so here, others keep the default.
    fn has_kept(&self, range: PageRange) -> bool {
        let _ = range;
        true
    }

    /// Whether the object that `range` shows is sealed against writing by now (`F_SEAL_FUTURE_WRITE`), so that a new
    /// view of it can never be written. A platform that cannot tell keeps the default.
    fn is_write_sealed(&self, range: PageRange, map: &Vmmap) -> bool {
        let _ = (range, map);
        false
    }

    /// Tells of each page of `range`, lowest first, whether it is resident; a few hundred pages at a time are asked for.
    /// By default all are: a platform that takes no pages away.
    fn residency(&mut self, range: PageRange, map: &Vmmap, each: &mut dyn FnMut(bool)) {
        let _ = map;
        for _ in 0..range.pages().get() {
            each(true);
        }
    }

    /// Whether the guest may know which pages of `object` are resident: whether it owns the file or could write it.
    fn may_know(&self, object: &MemoryObject) -> bool {
        let _ = object;
        true
    }

    /// Copies bytes into the guest's memory.
    ///
    /// # Errors
    /// [`Errno::Fault`] if not all can be written, or if the platform cannot write at all, as by default.
    fn store(&mut self, addr: VirtAddr, bytes: &[u8], map: &Vmmap) -> Result<(), Errno> {
        let _ = (addr, bytes, map);
        Err(Errno::Fault)
    }

    /// Where the region at `region`, which grows down, starts by now. A platform whose host grows stacks
    /// without telling the manager says so here; others keep the default.
    fn stack_start(&self, region: PageRange) -> VirtAddr {
        region.start()
    }

    /// How many pages `object` has now, beyond which a mapping of it cannot be touched; `None` where the manager
    /// need not know, because the pages themselves say so.
    fn object_pages(&self, object: &MemoryObject) -> Option<PageCount> {
        let _ = object;
        None
    }
}
