//! A platform in memory: what each run of pages is, what stands in each page, and every operation applied to both.
//!
//! It knows nothing of how requests become operations: rights, flags, backing, names and contents are worked out here
//! from the operations alone, by Linux's rules for them. What no plan may ask for (a hole under a change of rights, a
//! page under a new mapping) is a panic.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::runs::{Runs, joined};
use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::{Advice, LockAllFlags};
use crate::object::{MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::provider::{Contents, Lock, Maps, Op, PageManagementProvider, Source, Target};
use crate::region::{Backing, Region, RegionFlags};
use crate::vmmap::Vmmap;

/// What the manager alone knows of a region.
const POLICY_FLAGS: RegionFlags = RegionFlags::COMMITTED.union(RegionFlags::FIXED);
const LOCK_FLAGS: RegionFlags = RegionFlags::LOCKED.union(RegionFlags::LOCK_ON_FAULT);
const UNLOCKABLE: RegionFlags = RegionFlags::PFN_MAP.union(RegionFlags::DONT_EXPAND).union(RegionFlags::DROPPABLE);

/// Pages, and what is in them: a word stands for the contents of a page, 0 for a page that was never written.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    runs: Runs,
    /// Words of private pages that have been written.
    private: BTreeMap<u64, u64>,
    objects: BTreeMap<usize, Words>,
    lock_future: RegionFlags,
    operations: u64,
}

/// What an object holds.
#[derive(Clone, Debug)]
struct Words {
    /// While there is a reference, no other object has the address that it is known by.
    object: Weak<MemoryObject>,
    /// Words by page offset.
    words: BTreeMap<u64, u64>,
}

/// All that can be seen of a [`Platform`]: regions, without what only the manager knows, and contents.
#[derive(Clone, PartialEq, Debug)]
pub struct Picture {
    regions: Vec<(PageRange, Region)>,
    private: BTreeMap<u64, u64>,
    objects: Vec<(usize, BTreeMap<u64, u64>)>,
}

impl Platform {
    /// How many operations have been carried out.
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// What can be seen now.
    pub fn picture(&self) -> Picture {
        let alive = |contents: &Words| contents.object.strong_count() > 0 && !contents.words.is_empty();
        let objects = self.objects.iter().filter(|(_, contents)| alive(contents));
        Picture {
            regions: self.runs.joined(without_policy),
            private: self.private.clone(),
            objects: objects.map(|(id, contents)| (*id, contents.words.clone())).collect(),
        }
    }

    /// Checks that `map` says what is here.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self, map: &Vmmap) {
        let expected = joined(map.iter().map(|entry| (entry.range, without_policy(entry.region))));
        assert_eq!(self.runs.joined(without_policy), expected, "the platform (left) and the map (right) differ");
    }

    /// The word in `page`; `None` if nothing is mapped there.
    pub fn read(&self, page: u64) -> Option<u64> {
        let region = self.runs.at(page)?;
        let of_object = || {
            let contents = self.objects.get(&Arc::as_ptr(region.object()?).addr())?;
            contents.words.get(&page.wrapping_add(region.delta)).copied()
        };
        Some(self.private.get(&page).copied().or_else(of_object).unwrap_or(0))
    }

    /// Writes `word` into `page` if it is mapped and writable.
    pub fn write(&mut self, page: u64, word: u64) {
        let Some(region) = self.runs.at(page).filter(|region| region.prot.contains(Prot::WRITE)) else { return };
        match region.object().filter(|_| region.is_shared()) {
            None => self.private.insert(page, word),
            Some(object) => {
                let nothing = || Words { object: Arc::downgrade(object), words: BTreeMap::new() };
                let contents = self.objects.entry(Arc::as_ptr(object).addr()).or_insert_with(nothing);
                contents.words.insert(page.wrapping_add(region.delta), word)
            }
        };
    }

    /// The pages of a child: what is not inherited is left out, locks are forgotten.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut child = Self { lock_future: RegionFlags::empty(), operations: 0, ..self.clone() };
        for (pages, region) in self.runs.joined(Region::clone) {
            if region.flags.contains(RegionFlags::DONT_FORK) {
                child.unmap(pages);
                continue;
            }
            if region.flags.contains(RegionFlags::WIPE_ON_FORK) {
                child.discard(pages);
            }
            child.runs.update(pages, |region| region.flags -= LOCK_FLAGS);
        }
        child
    }

    /// Pages that are said to be plain are that.
    fn check_contents(&self, pages: PageRange, contents: Contents) {
        let is_plain = |(_, region): (PageRange, &Region)| without_policy(region).is_plain();
        assert!(contents == Contents::Other || self.runs.parts(pages).all(is_plain), "{pages} is not plain");
    }

    /// The last page of `pages` is what it is said to be, wherever in its backing.
    fn check_last(&self, pages: PageRange, said: &Region) {
        let last = self.runs.at(pages.end_page() - 1).expect("a page at the end");
        let said = Region { delta: last.delta, ..without_policy(said) };
        assert_eq!(without_policy(last), said, "the last of {pages}");
    }

    /// Takes away what is in `pages`.
    pub(crate) fn unmap(&mut self, pages: PageRange) {
        self.runs.take(pages);
        self.discard(pages);
    }

    fn discard(&mut self, pages: PageRange) {
        take_words(&mut self.private, pages);
    }

    fn map(&mut self, pages: PageRange, region: &Region, target: Target) {
        match target {
            Target::Vacant => assert!(self.runs.is_free(pages), "a map over pages that are mapped: {pages}"),
            Target::Replace => self.unmap(pages),
        }
        self.runs.put(pages, region.clone());
    }

    fn relocate(&mut self, from: PageRange, to: PageRange, source: Source) {
        let shift = to.first_page().wrapping_sub(from.first_page());
        assert_eq!(self.runs.prefix(from), Some(from), "a move with a hole");
        self.unmap(to);
        let regions = self.runs.take(from);
        let mut end = to.first_page();
        for (pages, region) in &regions {
            end = pages.end_page().wrapping_add(shift);
            self.runs.put(super::range(pages.first_page().wrapping_add(shift), end), moved(region, shift));
        }
        if let Some((_, last)) = regions.last().filter(|_| end < to.end_page()) {
            self.runs.put(super::range(end, to.end_page()), moved(last, shift));
        }
        for (page, word) in take_words(&mut self.private, from) {
            self.private.insert(page.wrapping_add(shift), word);
        }
        if source == Source::Kept {
            for (pages, region) in regions {
                self.runs.put(pages, region);
            }
            // All of the region that is there now loses its locks, the moved pages too if they have become part of it.
            let all = self.runs.joined(Region::clone);
            let whole = all.iter().find(|(pages, _)| pages.contains(from.start()));
            let whole = whole.map_or(from, |(pages, _)| *pages);
            self.runs.update(whole, |region| region.flags -= LOCK_FLAGS);
        }
    }

    fn grow(&mut self, from: PageRange, to: PageRange) {
        let last = self.runs.at(from.end_page() - 1).expect("a region grows").clone();
        self.runs.put(super::range(from.end_page(), to.end_page()), last);
    }

    fn lock(&mut self, pages: PageRange, lock: Lock) {
        self.runs.update(pages, |region| {
            if !region.flags.intersects(UNLOCKABLE) {
                region.flags -= LOCK_FLAGS;
                region.flags |= match lock {
                    Lock::Now => RegionFlags::LOCKED,
                    Lock::OnFault => LOCK_FLAGS,
                    Lock::Released => RegionFlags::empty(),
                };
            }
        });
    }

    fn lock_all(&mut self, flags: LockAllFlags) {
        let lock = if flags.contains(LockAllFlags::ON_FAULT) { Lock::OnFault } else { Lock::Now };
        let marks = if lock == Lock::OnFault { LOCK_FLAGS } else { RegionFlags::LOCKED };
        let is_future = flags.contains(LockAllFlags::FUTURE);
        self.lock_future = if is_future { marks } else { RegionFlags::empty() };
        let everything = self.runs.joined(Region::clone);
        for (pages, _) in everything {
            if flags.contains(LockAllFlags::CURRENT) {
                self.lock(pages, lock);
            } else if !is_future {
                self.lock(pages, Lock::Released);
            }
        }
    }

    fn advise(&mut self, pages: PageRange, advice: Advice) {
        match advice {
            Advice::DontNeed | Advice::DontNeedLocked | Advice::Free | Advice::GuardInstall => self.discard(pages),
            Advice::Remove => self.punch(pages),
            _ => self.runs.update(pages, |region| advised(region, advice)),
        }
    }

    /// Empties pages of objects.
    fn punch(&mut self, pages: PageRange) {
        for (part, region) in self.runs.parts(pages) {
            let Some(object) = region.object() else { continue };
            if let Some(contents) = self.objects.get_mut(&Arc::as_ptr(object).addr()) {
                let offset = |page: u64| page.wrapping_add(region.delta);
                let hole = offset(part.first_page())..offset(part.end_page());
                contents.words.retain(|page, _| !hole.contains(page));
            }
        }
    }
}

impl PageManagementProvider for Platform {
    fn run(&mut self, op: &Op, _maps: Maps<'_>) -> Result<(), Errno> {
        self.operations += 1;
        match op {
            Op::Map { range, region, target, .. } => self.map(*range, region, *target),
            Op::Unmap { range, contents } => {
                self.check_contents(*range, *contents);
                self.unmap(*range);
            }
            Op::Protect { range, to, .. } => {
                assert_eq!(self.runs.prefix(*range), Some(*range), "{op}: a hole");
                self.runs.update(*range, |region| region.prot = *to);
            }
            Op::ProtectKey { range, to, .. } => {
                assert_eq!(self.runs.prefix(*range), Some(*range), "{op}: a hole");
                self.runs.update(*range, |region| (region.prot, region.key) = (to.prot, to.key.key()));
            }
            Op::Seal { range } => self.runs.update(*range, |region| region.flags |= RegionFlags::SEALED),
            Op::RemapPages { range, region, .. } => {
                assert_eq!(self.runs.prefix(*range), Some(*range), "{op}: a hole");
                self.map(*range, region, Target::Replace);
            }
            Op::Residency { .. } => panic!("{op} is not for platforms"),
            // Nothing here depends on which keys are given out, or on who forbids what before it gets here.
            Op::Sync { .. } | Op::AllocateKey { .. } | Op::FreeKey { .. } | Op::DenyExecGain { .. } => {}
            Op::Move { from, to, source, region } => {
                self.check_last(*from, region);
                self.relocate(*from, *to, *source);
            }
            Op::Grow { from, to, region } => {
                self.check_last(*from, region);
                self.grow(*from, *to);
            }
            Op::Duplicate { from, to, target } => {
                let shown = self.runs.at(from.page_number()).expect("a page to duplicate");
                let shift = to.first_page().wrapping_sub(from.page_number());
                let region = Region { delta: shown.delta.wrapping_sub(shift), ..shown.clone() };
                self.map(*to, &region, *target);
            }
            Op::Advise { range, advice } => self.advise(*range, *advice),
            Op::Lock { range, mapped, lock } => {
                assert_eq!(self.runs.prefix(*range), Some(*mapped), "{op}: what is mapped");
                self.lock(*mapped, *lock);
                return if mapped == range { Ok(()) } else { Err(Errno::NoMem) };
            }
            Op::LockAll { flags, mapped } => {
                if *flags != LockAllFlags::FUTURE && *flags != LockAllFlags::FUTURE | LockAllFlags::ON_FAULT {
                    let nothing = Region::anonymous(Prot::empty());
                    let all = self.runs.joined(|_| nothing.clone());
                    // The regions of the map are smaller where policy tells them apart.
                    let named = joined(mapped.iter().map(|pages| (*pages, nothing.clone())));
                    assert_eq!(named, all, "{op}: what is mapped");
                }
                self.lock_all(*flags);
            }
            Op::Name { range, name } => self.runs.update(*range, |region| {
                if !region.is_shared() {
                    region.backing = name.clone().map_or(Backing::Anonymous, Backing::Object);
                }
            }),
            Op::SetBreak { from, to, contents } => {
                let (old, new) = (from.page_up().expect("a page"), to.page_up().expect("a page"));
                if let Some(gone) = PageRange::new(new, old) {
                    self.check_contents(gone, *contents);
                    self.unmap(gone);
                } else if let Some(added) = PageRange::new(old, new) {
                    let flags = self.lock_future;
                    self.map(added, &Region { flags, ..Region::anonymous(Prot::READ | Prot::WRITE) }, Target::Vacant);
                }
            }
        }
        Ok(())
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], _map: &Vmmap) -> Result<(), Errno> {
        let end = addr.checked_add(bytes.len() as u64).and_then(VirtAddr::page_up).ok_or(Errno::Fault)?;
        for page in addr.page_number()..end.page_number() {
            let region = self.runs.at(page).filter(|region| region.prot.contains(Prot::WRITE)).ok_or(Errno::Fault)?;
            let word = u64::from(region.prot.bits()) << 32 | bytes.len() as u64;
            self.write(page, word);
        }
        Ok(())
    }
}

/// Takes the words of `pages` out of `words`.
fn take_words(words: &mut BTreeMap<u64, u64>, pages: PageRange) -> BTreeMap<u64, u64> {
    let mut taken = words.split_off(&pages.first_page());
    words.append(&mut taken.split_off(&pages.end_page()));
    taken
}

fn without_policy(region: &Region) -> Region {
    let is_borrowed = region.flags.contains(RegionFlags::BORROWED);
    // What borrowed pages may become grows with the rights of those who ask, of which no platform is told.
    let prot_max = if is_borrowed { Prot::all() } else { region.prot_max };
    Region { flags: region.flags - POLICY_FLAGS, prot_max, ..region.clone() }
}

/// `region` after its pages have moved up by `shift`.
fn moved(region: &Region, shift: u64) -> Region {
    let has_offset = region.object().is_some_and(|object| *object.kind() != ObjectKind::NamedAnonymous);
    let delta = if has_offset { region.delta.wrapping_sub(shift) } else { region.delta };
    Region { delta, ..region.clone() }
}

/// What an advice marks.
fn advised(region: &mut Region, advice: Advice) {
    const ORDER: RegionFlags = RegionFlags::SEQUENTIAL.union(RegionFlags::RANDOM);
    const HUGE: RegionFlags = RegionFlags::HUGE_PAGE.union(RegionFlags::NO_HUGE_PAGE);
    let is_ordinary = !region.is_shared() && !region.flags.intersects(UNLOCKABLE);
    let (forgotten, marked) = match advice {
        Advice::Normal => (ORDER, RegionFlags::empty()),
        Advice::Sequential => (ORDER, RegionFlags::SEQUENTIAL),
        Advice::Random => (ORDER, RegionFlags::RANDOM),
        Advice::HugePage => (HUGE, RegionFlags::HUGE_PAGE),
        Advice::NoHugePage => (HUGE, RegionFlags::NO_HUGE_PAGE),
        Advice::DontFork => (RegionFlags::empty(), RegionFlags::DONT_FORK),
        Advice::DoFork => (RegionFlags::DONT_FORK, RegionFlags::empty()),
        Advice::WipeOnFork => (RegionFlags::empty(), RegionFlags::WIPE_ON_FORK),
        Advice::KeepOnFork => (RegionFlags::WIPE_ON_FORK, RegionFlags::empty()),
        Advice::DontDump => (RegionFlags::empty(), RegionFlags::DONT_DUMP),
        Advice::DoDump => (RegionFlags::DONT_DUMP, RegionFlags::empty()),
        Advice::Mergeable if is_ordinary => (RegionFlags::empty(), RegionFlags::MERGEABLE),
        Advice::Unmergeable => (RegionFlags::MERGEABLE, RegionFlags::empty()),
        _ => return,
    };
    region.flags = (region.flags - forgotten) | marked;
}
