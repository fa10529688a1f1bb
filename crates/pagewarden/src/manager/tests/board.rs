//! A platform that is an array of pages, and fails on command.

use std::collections::BTreeMap;

use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::manager::PageManager;
use crate::prot::{Prot, ProtectionKey};
use crate::provider::{Op, PageManagementProvider, Source, Target};
use crate::region::{Region, RegionFlags};

/// What a page shows: rights, sharing, and the page of the backing if it has an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Page {
    prot: Prot,
    key: ProtectionKey,
    is_sealed: bool,
    is_shared: bool,
    offset: Option<u64>,
}

impl Page {
    fn of(region: &Region, page: u64) -> Self {
        let offset = region.object().map(|_| page.wrapping_add(region.delta));
        let is_sealed = region.flags.contains(RegionFlags::SEALED);
        Self { prot: region.prot, key: region.key, is_sealed, is_shared: region.is_shared(), offset }
    }
}

/// The pages, and how many operations may still succeed.
#[derive(Default, Debug, Clone)]
pub(super) struct Board {
    pub(super) pages: BTreeMap<u64, Page>,
    pub(super) fail_after: Option<usize>,
    pub(super) runs: usize,
}

impl PageManagementProvider for Board {
    fn run(&mut self, op: &Op) -> Result<(), Errno> {
        self.runs += 1;
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                // Only the first failure is injected: undo must be able to run.
                self.fail_after = None;
                return Err(Errno::Io);
            }
            *left -= 1;
        }
        self.apply(op)
    }
}

impl Board {
    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::Map { range, region, target, .. } => {
                if *target == Target::Vacant && self.take(*range).is_some() {
                    panic!("{op} over a page that is mapped");
                }
                self.put(*range, |page| Page::of(region, page));
            }
            Op::Unmap { range, .. } => drop(self.take(*range)),
            Op::Protect { range, to, .. } => {
                for page in range.first_page()..range.end_page() {
                    self.pages.get_mut(&page).unwrap_or_else(|| panic!("{op}: hole")).prot = *to;
                }
            }
            Op::ProtectKey { range, to, .. } => {
                for page in range.first_page()..range.end_page() {
                    let page = self.pages.get_mut(&page).unwrap_or_else(|| panic!("{op}: hole"));
                    (page.prot, page.key) = (to.prot, to.key.key());
                }
            }
            Op::Move { from, to, source, .. } => self.relocate(*from, *to, *source),
            Op::Grow { from, to, .. } => {
                let last = self.pages[&(from.end_page() - 1)].clone();
                let added = to.from(from.end()).unwrap();
                let first_new = from.end_page();
                self.put(added, |page| Page {
                    offset: last.offset.map(|at| at + 1 + page - first_new),
                    ..last.clone()
                });
            }
            Op::Duplicate { from, to, .. } => {
                let first = self.pages[&from.page_number()].clone();
                let start = to.first_page();
                self.put(*to, |page| Page { offset: first.offset.map(|at| at + page - start), ..first.clone() });
            }
            Op::SetBreak { from, to, .. } => {
                let (old, new) = (from.page_up().unwrap(), to.page_up().unwrap());
                if let Some(added) = PageRange::new(old, new) {
                    let region = Region::anonymous(Prot::READ | Prot::WRITE);
                    self.put(added, |page| Page::of(&region, page));
                } else if let Some(gone) = PageRange::new(new, old) {
                    self.take(gone);
                }
            }
            Op::RemapPages { range, region, .. } => {
                let old = self.take(*range).unwrap_or_default();
                assert_eq!(old.len() as u64, range.pages().get(), "{op}: hole");
                self.put(*range, |page| Page::of(region, page));
            }
            Op::Seal { range } => {
                for page in range.first_page()..range.end_page() {
                    self.pages.get_mut(&page).unwrap_or_else(|| panic!("{op}: hole")).is_sealed = true;
                }
            }
            Op::Residency { .. } => panic!("{op} is not for platforms"),
            Op::AllocateKey { .. } | Op::FreeKey { .. } | Op::DenyExecGain { .. } => {}
            Op::Advise { .. } | Op::Lock { .. } | Op::LockAll { .. } | Op::Name { .. } | Op::Sync { .. } => {}
        }
        Ok(())
    }

    fn put(&mut self, range: PageRange, make: impl Fn(u64) -> Page) {
        for page in range.first_page()..range.end_page() {
            self.pages.insert(page, make(page));
        }
    }

    /// Removes the pages; `None` if there was none.
    fn take(&mut self, range: PageRange) -> Option<BTreeMap<u64, Page>> {
        let mut taken = self.pages.split_off(&range.first_page());
        self.pages.append(&mut taken.split_off(&range.end_page()));
        (!taken.is_empty()).then_some(taken)
    }

    fn relocate(&mut self, from: PageRange, to: PageRange, source: Source) {
        let moved = match source {
            Source::Removed => self.take(from).unwrap(),
            Source::Kept => {
                self.pages.range(from.first_page()..from.end_page()).map(|(k, v)| (*k, v.clone())).collect()
            }
        };
        let shift = to.first_page().wrapping_sub(from.first_page());
        self.take(to);
        let last = moved.values().next_back().unwrap().clone();
        for (page, state) in moved {
            self.pages.insert(page.wrapping_add(shift), state);
        }
        let end = VirtAddr::new(to.start().as_u64() + from.bytes());
        if let Some(added) = to.from(end) {
            let first = added.first_page();
            self.put(added, |page| Page { offset: last.offset.map(|at| at + 1 + page - first), ..last.clone() });
        }
    }
}

/// Checks that manager, platform and ledger agree.
pub(super) fn check(manager: &PageManager<Board>) {
    manager.check_invariants();
    let mut expected = BTreeMap::new();
    for entry in manager.map().iter() {
        for page in entry.range.first_page()..entry.range.end_page() {
            expected.insert(page, Page::of(entry.region, page));
        }
    }
    assert_eq!(manager.provider().pages, expected, "the platform and the map differ");
}
