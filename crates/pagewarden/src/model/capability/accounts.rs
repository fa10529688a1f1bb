//! What everything costs, by formula from the states:
//!
//! ```text
//! Virtual        pages that are not free
//! Committed      committed pages + pages of Linux's that have been writable + borrowed pages + windows of handles
//! Capabilities   handles
//! Frames         of the pool: pages of objects, those that snapshots still share once;
//!                of a process: two fixed pages, private pages that have been stored to
//! Regions        runs of pages that are alike
//! ```

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Answer, Capability, Denial, LIMITED, Model, POOL, Page, Process, Target, Value};
use crate::error::Errno;
use crate::ledger::Resource;

/// What pages and handles of one process cost.
impl Process {
    fn count(&self, is_counted: impl Fn(&Page) -> bool) -> u64 {
        self.pages.iter().filter(|page| is_counted(page)).count() as u64
    }

    fn committed(&self) -> u64 {
        let pages = self.count(|page| {
            matches!(page, Page::Committed { .. } | Page::Borrowed { .. } | Page::Linux { is_charged: true, .. })
        });
        let windows = self.handles.iter().flatten().map(|capability| match capability.target {
            Target::Memory(memory) => memory.pages,
            Target::Frames | Target::Space(_) => 0,
        });
        pages + windows.sum::<u64>()
    }

    fn frames(&self) -> Option<u64> {
        let own = self.count(|page| {
            matches!(
                page,
                Page::Fixed { .. } | Page::Committed { byte: Some(_), .. } | Page::Linux { byte: Some(_), .. }
            )
        });
        (!self.has_forked).then_some(own)
    }

    fn regions(&self) -> u64 {
        let joined = self.pages.windows(2).filter(|pair| pair[0].continues_as(pair[1])).count() as u64;
        self.count(|page| *page != Page::Free) - joined
    }

    fn used(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Virtual => Some(self.count(|page| *page != Page::Free)),
            Resource::Committed => Some(self.committed()),
            Resource::Capabilities => Some(self.handles.iter().flatten().count() as u64),
            Resource::Frames => self.frames(),
            Resource::Regions => Some(self.regions()),
            Resource::Locked => Some(0),
            Resource::TableFrames => None,
        }
    }
}

impl Model {
    /// How many frames the pages of objects take.
    pub(crate) fn pool_frames(&self) -> u64 {
        let cells = self.objects.iter().flat_map(|object| object.cells.iter().flatten());
        cells.filter_map(|cell| cell.frame).collect::<BTreeSet<_>>().len() as u64
    }

    /// What an account holds, itself and those below it, where that can be said.
    pub(crate) fn used(&self, account: usize, resource: Resource) -> Option<u64> {
        let pool = if resource == Resource::Frames && self.is_below(POOL, account) { self.pool_frames() } else { 0 };
        let payers = self.processes.iter().filter(|process| self.is_below(process.account, account));
        payers.map(|process| process.used(resource)).try_fold(pool, |sum, used| Some(sum + used?))
    }

    /// How many accounts there are.
    pub(crate) const fn accounts(&self) -> usize {
        self.accounts.len()
    }

    fn is_below(&self, account: usize, above: usize) -> bool {
        let mut at = Some(account);
        while let Some(account) = at {
            if account == above {
                return true;
            }
            at = self.accounts[account].parent;
        }
        false
    }

    /// The limits that are in the way of what `next` costs more.
    pub(super) fn not_affordable(&self, next: &Self) -> Vec<Denial> {
        let mut wrong = Vec::new();
        for (at, account) in next.accounts.iter().enumerate() {
            for (resource, limit) in LIMITED.into_iter().zip(account.limits) {
                let before = if at < self.accounts.len() { self.used(at, resource) } else { Some(0) };
                let is_over = |(before, after): (u64, u64)| after > before && after > limit;
                if limit != u64::MAX && before.zip(next.used(at, resource)).is_some_and(is_over) {
                    let errno = if resource == Resource::Capabilities { Errno::MFile } else { Errno::NoMem };
                    wrong.push(Denial::Errno(errno));
                }
            }
        }
        wrong
    }

    /// The first of all limits, if there are any.
    pub(crate) fn first_limit(&self) -> Option<(usize, Resource)> {
        let of =
            |account: usize| LIMITED.into_iter().zip(self.accounts[account].limits).map(move |limit| (account, limit));
        let found = (0..self.accounts.len()).flat_map(of).find(|(_, (_, limit))| *limit != u64::MAX);
        found.map(|(account, (resource, _))| (account, resource))
    }

    /// A limit is set; nothing is taken back.
    pub(super) fn limit(&self, account: usize, resource: Resource, most: u64) -> (Self, Answer) {
        let mut next = self.clone();
        for (limit, limited) in next.accounts[account].limits.iter_mut().zip(LIMITED) {
            if limited == resource {
                *limit = most;
            }
        }
        (next, Ok(Value::Nothing))
    }

    /// The same, with one handle more.
    pub(super) fn with_handle(&self, process: usize, capability: Capability) -> Self {
        let mut next = self.clone();
        next.processes[process].handles.push(Some(capability));
        next
    }
}
