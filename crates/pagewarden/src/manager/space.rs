//! The state of a space that requests change, with sums that are kept along.
//!
//! Everything here is plain data: planning reads a [`Space`] and writes a copy of its [`State`].

use core::sync::atomic::{AtomicU64, Ordering};

use super::attached::{Attached, Kind, tracked};
use super::config::{Features, Privileges, SpaceConfig};
use super::pkey::Keys;
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Resource;
use crate::linux::MdweFlags;
use crate::prot::Prot;
use crate::provider::Contents;
use crate::region::{Region, RegionFlags};
use crate::vmmap::{Entry, Vmmap};

/// Pages of the map by what they count for. Each is the sum of what a region counts for over all regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// All pages (`mm->total_vm`).
    pub virtual_pages: u64,
    /// Private writable pages outside stacks, which `RLIMIT_DATA` limits (`mm->data_vm`).
    pub data_pages: u64,
    /// Pages of regions marked `COMMITTED`.
    pub committed_pages: u64,
    /// Pages of regions marked `BORROWED`, which are charged as committed too.
    pub borrowed_pages: u64,
    /// Pages of regions marked `LOCKED` (`mm->locked_vm`).
    pub locked_pages: u64,
    /// Pages of regions that grow down.
    pub stack_pages: u64,
    /// Pages that a fork leaves out.
    pub dont_fork_pages: u64,
}

impl Totals {
    /// What `pages` pages of `region` count for.
    pub(super) fn of(region: &Region, pages: PageCount) -> Self {
        let counted = |is_counted: bool| if is_counted { pages.get() } else { 0 };
        Self {
            virtual_pages: pages.get(),
            data_pages: counted(is_data(region)),
            committed_pages: counted(region.flags.contains(RegionFlags::COMMITTED)),
            borrowed_pages: counted(region.flags.contains(RegionFlags::BORROWED)),
            locked_pages: counted(region.flags.contains(RegionFlags::LOCKED)),
            stack_pages: counted(region.flags.contains(RegionFlags::GROWS_DOWN)),
            dont_fork_pages: counted(region.flags.contains(RegionFlags::DONT_FORK)),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.zip(other, |a, b| a + b);
    }

    pub(super) fn sub(&mut self, other: Self) {
        self.zip(other, |a, b| a - b);
    }

    fn zip(&mut self, other: Self, combine: impl Fn(u64, u64) -> u64) {
        self.virtual_pages = combine(self.virtual_pages, other.virtual_pages);
        self.data_pages = combine(self.data_pages, other.data_pages);
        self.committed_pages = combine(self.committed_pages, other.committed_pages);
        self.borrowed_pages = combine(self.borrowed_pages, other.borrowed_pages);
        self.locked_pages = combine(self.locked_pages, other.locked_pages);
        self.stack_pages = combine(self.stack_pages, other.stack_pages);
        self.dont_fork_pages = combine(self.dont_fork_pages, other.dont_fork_pages);
    }
}

/// Whether `RLIMIT_DATA` counts the region (`mm/vma.c:is_data_mapping`).
pub(super) fn is_data(region: &Region) -> bool {
    region.prot.contains(Prot::WRITE) && !region.flags.intersects(RegionFlags::SHARED | RegionFlags::GROWS_DOWN)
}

/// What a space has besides its map and that the guest's calls set: whether memory may become executable, and which
/// protection keys are given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub(super) mdwe: MdweFlags,
    pub(super) keys: Keys,
}

impl Attributes {
    /// Those of a program whose first process has the flags `mdwe`.
    pub const fn new(mdwe: MdweFlags, features: Features) -> Self {
        Self { mdwe, keys: Keys::new(features) }
    }

    /// Those of the program that is executed in the place of this one.
    #[must_use]
    pub const fn after_exec(self, features: Features) -> Self {
        Self::new(self.mdwe.inherited(), features)
    }

    /// Those of a child with memory of its own.
    #[must_use]
    pub(super) const fn of_child(self) -> Self {
        Self { mdwe: self.mdwe.inherited(), ..self }
    }
}

/// What requests change.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) map: Vmmap,
    /// Sums over `map`.
    pub(super) totals: Totals,
    /// The program break (`mm->brk`).
    pub(super) brk: VirtAddr,
    /// What mlockall with `MCL_FUTURE` gives to new regions: `LOCKED`, `LOCK_ON_FAULT` or nothing.
    pub(super) lock_future: RegionFlags,
    /// What holds for the whole space besides the map.
    pub(super) attributes: Attributes,
    /// Committed pages that are not charged: inherited by a fork that was not asked to pay.
    pub(super) uncharged_pages: u64,
    /// System V segments in the map.
    pub(super) attached: Attached,
    /// Pages that Linux goes on counting as locked although they are not: what `MREMAP_DONTUNMAP` has left behind. They
    /// count for `RLIMIT_MEMLOCK` and are charged to nobody.
    pub(super) left_locked_pages: u64,
    /// There was no memory for an edit, and the sums no longer match the map. Such a state is never published.
    pub(super) is_torn: bool,
}

impl State {
    /// Adds a region to the free `range`.
    pub(super) fn insert(&mut self, range: PageRange, region: Region) -> Result<(), Errno> {
        self.totals.add(Totals::of(&region, range.pages()));
        let edited = if tracked(&region).is_none() {
            self.map.insert(range, region)
        } else {
            self.attached.follow(&mut self.map, range, Kind::Keeps, |map| map.insert(range, region))
        };
        self.note(edited)
    }

    /// Removes whatever is in `range`, and says what it was.
    pub(super) fn remove(&mut self, range: PageRange) -> Result<Contents, Errno> {
        let contents = self.discount(range);
        let edited = if self.attached.is_empty() {
            self.map.remove(range)
        } else {
            self.attached.follow(&mut self.map, range, Kind::Removes, |map| map.remove(range))
        };
        self.note(edited)?;
        Ok(contents)
    }

    /// Puts a region in the place of whatever is in `range`.
    pub(super) fn replace(&mut self, range: PageRange, region: Region) -> Result<(), Errno> {
        self.discount(range);
        self.totals.add(Totals::of(&region, range.pages()));
        let edited = if self.attached.is_empty() && tracked(&region).is_none() {
            self.map.replace(range, region)
        } else {
            self.attached.follow(&mut self.map, range, Kind::Removes, |map| map.replace(range, region))
        };
        self.note(edited)
    }

    /// Takes what is in `range` out of the sums, and says what it is.
    fn discount(&mut self, range: PageRange) -> Contents {
        let mut gone = Totals::default();
        let mut contents = Contents::Other;
        for (part, region) in parts(&self.map, range) {
            gone.add(Totals::of(region, part.pages()));
            if part == range && region.is_plain() {
                contents = Contents::Anonymous(region.prot);
            }
        }
        self.totals.sub(gone);
        self.uncharged_pages -= gone.committed_pages.min(self.uncharged_pages);
        contents
    }

    /// Changes the regions in `range`.
    pub(super) fn update(&mut self, range: PageRange, mut change: impl FnMut(&mut Region)) -> Result<(), Errno> {
        let totals = &mut self.totals;
        let change = |part: PageRange, region: &mut Region| {
            totals.sub(Totals::of(region, part.pages()));
            change(region);
            totals.add(Totals::of(region, part.pages()));
        };
        let edited = if self.attached.is_empty() {
            self.map.update(range, change)
        } else {
            self.attached.follow(&mut self.map, range, Kind::Keeps, |map| map.update(range, change))
        };
        self.note(edited)
    }

    /// The edit of the map that belongs to a change of the sums has gone like this.
    fn note(&mut self, edited: Result<(), Errno>) -> Result<(), Errno> {
        self.is_torn |= edited.is_err();
        edited
    }

    /// What the account holds for this state.
    pub(super) fn charged(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Virtual => self.totals.virtual_pages,
            // What is borrowed is paid by everyone who shows it, whatever a fork was forgiven: else somebody could map
            // an object, let its handle go and keep the memory for nothing.
            Resource::Committed => self.totals.committed_pages - self.uncharged_pages + self.totals.borrowed_pages,
            Resource::Locked => self.totals.locked_pages,
            Resource::Regions => self.map.len() as u64,
            // Charged by those who give out frames and handles.
            Resource::Frames | Resource::TableFrames | Resource::Capabilities => 0,
        }
    }
}

/// The parts of regions that lie inside `range`, lowest first.
pub(crate) fn parts(map: &Vmmap, range: PageRange) -> impl DoubleEndedIterator<Item = (PageRange, &Region)> {
    map.range(range).filter_map(move |Entry { range: bounds, region }| Some((bounds.intersection(range)?, region)))
}

/// One address space without its platform: what planning looks at.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) config: SpaceConfig,
    pub(super) state: State,
    /// Counts published states, so that a plan for an older one is recognised.
    pub(super) generation: u64,
}

/// Where a new space starts to count: far from all others, so that a plan for another one is recognised too.
pub(super) fn first_generation() -> u64 {
    const APART: u64 = 1 << 40;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(APART, Ordering::Relaxed)
}

impl Space {
    /// The end of the addresses that programs may use.
    pub(super) const fn task_end(&self) -> u64 {
        self.config.layout.task_end.as_u64()
    }

    /// Whether `region` must be charged page by page (`mm/vma.c:accountable_mapping`).
    ///
    /// Differs from Linux: `MAP_NORESERVE` is charged too unless the policy trusts it, as Linux does in
    /// overcommit mode 2; else a budget could be escaped by setting a flag.
    pub(super) fn is_accountable(&self, region: &Region) -> bool {
        region.prot.contains(Prot::WRITE)
            && !region.is_shared()
            && !region.flags.contains(RegionFlags::DROPPABLE)
            && !self.is_free_of_charge(region)
    }

    /// Whether `more` pages of a region like `region` stay within `RLIMIT_AS` and `RLIMIT_DATA`
    /// (`mm/vma.c:may_expand_vm`).
    pub(super) fn may_expand(&self, totals: &Totals, region: &Region, more: u64) -> bool {
        let limit = |bytes: u64| PageCount::from_bytes_down(bytes).get();
        let limits = &self.config.limits;
        if totals.virtual_pages.saturating_add(more) > limit(limits.address_space) {
            return false;
        }
        !is_data(region) || totals.data_pages.saturating_add(more) <= limit(self.data_limit())
    }

    /// `RLIMIT_DATA` in bytes, as it counts.
    pub(super) const fn data_limit(&self) -> u64 {
        let limits = &self.config.limits;
        if limits.data == 0 { limits.data_max } else { limits.data }
    }

    /// Whether `more` pages of a region like `region` stay within `RLIMIT_MEMLOCK`
    /// (`mm/mmap.c:mlock_future_ok`).
    pub(super) fn may_lock(&self, totals: &Totals, region: &Region, more: u64) -> bool {
        if !region.flags.contains(RegionFlags::LOCKED) || self.config.privileges.contains(Privileges::LOCK) {
            return true;
        }
        let locked = totals.locked_pages.saturating_add(self.state.left_locked_pages);
        locked.saturating_add(more) <= PageCount::from_bytes_down(self.config.limits.locked).get()
    }

    /// Whether the guest may lock anything at all (`mm/mlock.c:can_do_mlock`).
    pub(super) fn can_lock(&self) -> bool {
        self.config.limits.locked != 0 || self.config.privileges.contains(Privileges::LOCK)
    }
}
