//! fork(2) of an address space: `kernel/fork.c:dup_mmap`.
//!
//! The child's map is the parent's, shared, unless the parent has regions that are not inherited or are
//! locked: locks are not inherited.

use super::PageManager;
use super::attached::Held;
use super::charges::Charges;
use super::config::{ForkCharge, SpaceConfig};
use super::overcommit;
use super::plan::{Cause, Refusal};
use super::space::{Space, State, first_generation};
use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Account;
use crate::provider::PageManagementProvider;
use crate::region::RegionFlags;

/// A space that a fork is about to make: charged, not yet alive. Dropped, it gives everything back.
#[derive(Debug)]
pub struct PendingFork {
    config: SpaceConfig,
    state: State,
    charges: Charges,
    held: Held,
}

/// Charges `account` for a copy of `space`.
pub(super) fn prepare(space: &Space, account: Account) -> Result<PendingFork, Refusal> {
    let state = child_state(space)?;
    let charges = Charges::new(&account);
    charges.raise_to(&state).map_err(|over| Refusal::new(Errno::NoMem, Cause::Limit(over.resource)))?;
    overcommit::check_fork(space, &state, &account)?;
    let mut config = space.config.clone();
    config.account = account;
    let held = Held::new(&state.attached);
    Ok(PendingFork { config, state, charges, held })
}

fn child_state(space: &Space) -> Result<State, Errno> {
    let mut state = space.state.clone();
    state.lock_future = RegionFlags::empty();
    state.left_locked_pages = 0;
    state.attributes = state.attributes.of_child();
    if state.totals.dont_fork_pages > 0 {
        for entry in space.state.map.iter().filter(|entry| entry.region.flags.contains(RegionFlags::DONT_FORK)) {
            state.remove(entry.range)?;
        }
    }
    if state.totals.locked_pages > 0
        && let Some(all) = PageRange::new(VirtAddr::new(0), space.config.layout.task_end)
    {
        state.update(all, |region| region.flags -= RegionFlags::LOCKED | RegionFlags::LOCK_ON_FAULT)?;
    }
    state.uncharged_pages = match space.config.policy.fork_charge {
        ForkCharge::Full => 0,
        ForkCharge::Free => state.totals.committed_pages,
    };
    Ok(state)
}

impl PendingFork {
    /// The child space, once the platform has made the child.
    pub fn finish<P: PageManagementProvider>(self, provider: P) -> PageManager<P> {
        let Self { config, state, charges, held } = self;
        PageManager { space: Space { config, state, generation: first_generation() }, charges, held, provider }
    }
}
