//! Whether more memory may be promised than there is: `mm/util.c:__vm_enough_memory`, in the three modes of
//! `vm.overcommit_memory`.
//!
//! What Linux counts for the whole system (`Committed_AS`) is here what the account at the root holds. The
//! limits of the accounts hold in every mode: they are the platform's, not Linux's.
//!
//! Linux asks whenever it charges something, with what is charged by that step alone: mode 0 refuses a single step
//! that is larger than the machine, and adds nothing up. So each file of `manager/` asks where its call charges.
//!
//! Differs from Linux: what becomes read-only before it was ever touched stays charged, since whether it was touched
//! is not known here; and a stack without rights is asked for as it grows and not charged, where Linux charges it and
//! never gives that back.

use super::config::{ForkCharge, NoReserve, Privileges};
use super::plan::{Cause, Draft, Refusal};
use super::space::{Space, State};
use crate::addr::PageCount;
use crate::error::Errno;
use crate::ledger::{Account, Resource};
use crate::region::{Region, RegionFlags};

/// When a promise of memory is refused, besides the limits of the accounts (`vm.overcommit_memory`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overcommit {
    /// Mode 0: what could not be had even if nobody else had any is refused.
    Heuristic {
        /// Memory of the machine, and swap space.
        ram_and_swap: PageCount,
    },
    /// Mode 1: never.
    #[default]
    Always,
    /// Mode 2: what is promised stays below a limit, and `MAP_NORESERVE` has no meaning.
    Never(CommitLimit),
}

impl Overcommit {
    /// Whether a step that has charged `pages` to `account` is refused: for what is not part of a space.
    pub(crate) fn refuses(&self, account: &Account, pages: u64, virtual_pages: u64, privileges: Privileges) -> bool {
        match self {
            Self::Always => false,
            Self::Heuristic { ram_and_swap } => pages > ram_and_swap.get(),
            Self::Never(limit) => promised(account) >= limit.bound(virtual_pages, privileges),
        }
    }

    /// Whether memory asked for without reserve must be had all the same. Elsewhere it may be larger than the machine,
    /// even where a policy charges it to the account.
    pub(crate) const fn asks_without_reserve(&self) -> bool {
        matches!(self, Self::Never(_))
    }
}

impl NoReserve {
    /// Whether memory asked for without reserve costs nothing.
    pub(crate) const fn is_free_in(self, overcommit: Overcommit) -> bool {
        matches!(self, Self::Free) && !overcommit.asks_without_reserve()
    }
}

/// How much may be promised in mode 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitLimit {
    /// Less than this (`CommitLimit` of `/proc/meminfo`).
    pub limit: PageCount,
    /// Kept for those who have [`Privileges::ADMIN`] (`vm.admin_reserve_kbytes`).
    pub admin_reserve: PageCount,
    /// Kept so that one large space does not take all: this, or a 32nd of the space if that is less
    /// (`vm.user_reserve_kbytes`).
    pub user_reserve: PageCount,
}

impl CommitLimit {
    /// A limit of `limit` pages, nothing of it reserved.
    pub const fn new(limit: PageCount) -> Self {
        Self { limit, admin_reserve: PageCount::ZERO, user_reserve: PageCount::ZERO }
    }

    /// The limit of a machine (`mm/util.c:vm_commit_limit`): `ratio` percent of `ram`, and all of `swap`.
    #[must_use]
    pub const fn of_machine(ram: PageCount, swap: PageCount, ratio: u64) -> Self {
        let allowed = (ram.get().saturating_mul(ratio) / 100).saturating_add(swap.get());
        Self::new(PageCount::new(allowed))
    }

    /// What must stay above the sum of all promises when a space of `virtual_pages` asks.
    fn bound(&self, virtual_pages: u64, privileges: Privileges) -> u64 {
        let admin = if privileges.contains(Privileges::ADMIN) { 0 } else { self.admin_reserve.get() };
        let user = self.user_reserve.get().min(virtual_pages / 32);
        self.limit.get().saturating_sub(admin).saturating_sub(user)
    }
}

impl Space {
    /// Whether a promise for `region` can be had for nothing because it was made with `MAP_NORESERVE`.
    pub(super) fn is_free_of_charge(&self, region: &Region) -> bool {
        let policy = &self.config.policy;
        region.flags.contains(RegionFlags::NO_RESERVE) && policy.no_reserve.is_free_in(policy.overcommit)
    }
}

/// What all spaces together have been promised.
pub(super) fn promised(account: &Account) -> u64 {
    account.root().used(Resource::Committed)
}

impl Draft<'_> {
    /// Asks for `pages` more of a region with `flags` to be promised, before the draft counts them.
    ///
    /// # Errors
    /// `ENOMEM` if the mode refuses it.
    pub(super) fn ask_for(&mut self, pages: u64, flags: RegionFlags) -> Result<(), Refusal> {
        let config = &self.space.config;
        let is_unasked = flags.contains(RegionFlags::NO_RESERVE) && !config.policy.overcommit.asks_without_reserve();
        if pages == 0 || is_unasked {
            return Ok(());
        }
        match config.policy.overcommit {
            Overcommit::Always => Ok(()),
            Overcommit::Heuristic { ram_and_swap } if pages > ram_and_swap.get() => Err(Errno::NoMem.into()),
            Overcommit::Heuristic { .. } => Ok(()),
            Overcommit::Never(limit) => {
                let bound = limit.bound(self.next.totals.virtual_pages, config.privileges);
                let before = self.space.state.charged(Resource::Committed);
                let after = self.next.charged(Resource::Committed).saturating_add(pages);
                if promised(&config.account).saturating_add(after).saturating_sub(before) >= bound {
                    return Err(over());
                }
                self.promise_bound(bound);
                Ok(())
            }
        }
    }
}

/// Whether a child with `state`, which `account` has been charged for, may be promised its memory
/// (`kernel/fork.c:dup_mmap`, region by region).
pub(super) fn check_fork(space: &Space, state: &State, account: &Account) -> Result<(), Refusal> {
    let config = &space.config;
    if config.policy.fork_charge == ForkCharge::Free || state.totals.committed_pages == 0 {
        return Ok(());
    }
    match config.policy.overcommit {
        Overcommit::Always => Ok(()),
        Overcommit::Heuristic { ram_and_swap } => {
            let is_asked =
                |flags: RegionFlags| flags.contains(RegionFlags::COMMITTED) && !flags.contains(RegionFlags::NO_RESERVE);
            let mut asked = state.map.iter().filter(|entry| is_asked(entry.region.flags));
            let is_too_large = asked.any(|entry| entry.range.pages() > ram_and_swap);
            if is_too_large { Err(Errno::NoMem.into()) } else { Ok(()) }
        }
        Overcommit::Never(limit) => {
            let bound = limit.bound(space.state.totals.virtual_pages, config.privileges);
            if promised(account) >= bound { Err(over()) } else { Ok(()) }
        }
    }
}

/// More is promised than the limit of mode 2 allows.
pub(super) const fn over() -> Refusal {
    Refusal::new(Errno::NoMem, Cause::Limit(Resource::Committed))
}
