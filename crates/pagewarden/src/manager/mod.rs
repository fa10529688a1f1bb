//! One address space: plan, charge, apply, publish.
//!
//! [`PageManager`] owns the map of the space, its break, its limits, its account and its provider. A
//! request becomes a [`Plan`] without side effects; [`PageManager::apply`] charges what the plan costs,
//! runs its operations in order and publishes the new state. If an operation fails, those before it are
//! undone in reverse, the charge is dropped and the old state was never replaced.
//!
//! ```text
//! Request -> plan: check words -> choose place -> check regions -> edit a copy of the map, note operations
//!         -> apply: charge -> run operations (undo on failure) -> publish the copy, settle the charge
//! ```
//!
//! One file a family of calls: each turns a request into a plan and nothing else. Outside: what a
//! descriptor is and how a page is mapped ([`crate::provider`]).
//!
//! Invariants: what is charged to the account is what the map holds (virtual, committed and locked pages,
//! regions); no request changes a region marked `FIXED`.

mod attached;
mod borrow;
mod brk;
mod capability;
mod charges;
mod config;
pub mod fault;
mod fork;
mod madvise;
mod maps;
mod mdwe;
mod mincore;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod mseal;
mod msync;
mod munmap;
mod name;
mod overcommit;
mod pkey;
mod place;
mod plan;
mod process_madvise;
mod remap_pages;
mod reserve;
mod shm;
mod space;
mod undo;

#[cfg(test)]
pub(crate) mod tests;

pub use capability::{CapabilityRequest, Place};
pub use config::{
    Break, Features, ForkCharge, Layout, NoReserve, Policy, Privileges, ResourceLimits, SpaceConfig, WxPolicy,
};
pub use fault::{Access, FaultPlan, FaultSignal, KeyRights, Signal, SignalCode};
pub use fork::PendingFork;
pub use overcommit::{CommitLimit, Overcommit};
pub use plan::{Cause, Plan, Refusal};
pub(crate) use space::parts;
pub use space::{Attributes, Totals};

use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Account, Resource};
use crate::linux::{MdweFlags, Request};
use crate::provider::{Maps, PageManagementProvider};
use crate::region::{Region, RegionFlags};
use crate::vmmap::Vmmap;

use attached::{Attached, Held};
use charges::Charges;
use space::{Space, State};

/// One address space.
#[derive(Debug)]
pub struct PageManager<P> {
    space: Space,
    charges: Charges,
    /// System V segments that count this space.
    held: Held,
    provider: P,
}

impl<P: PageManagementProvider> PageManager<P> {
    /// An empty space.
    pub fn new(config: SpaceConfig, provider: P) -> Self {
        let state = State {
            // Linux tries gaps without looking at guards and corrects itself; `place` does the same.
            map: Vmmap::new(PageCount::ZERO),
            totals: Totals::default(),
            brk: config.brk.current,
            lock_future: RegionFlags::empty(),
            attributes: Attributes::new(MdweFlags::empty(), config.features),
            uncharged_pages: 0,
            attached: Attached::default(),
            left_locked_pages: 0,
            is_torn: false,
        };
        let charges = Charges::new(&config.account);
        Self {
            space: Space { config, state, generation: space::first_generation() },
            charges,
            held: Held::default(),
            provider,
        }
    }

    /// Takes over a region that is there already, such as what exec mapped. Private writable memory is marked
    /// as committed.
    ///
    /// # Errors
    /// A limit of the account, or `EEXIST` if a page of the range is taken; nothing changes then.
    pub fn import(&mut self, range: PageRange, mut region: Region) -> Result<(), Refusal> {
        if !self.space.state.map.is_free(range) {
            return Err(Errno::Exist.into());
        }
        if self.space.is_accountable(&region) {
            region.flags |= RegionFlags::COMMITTED;
        }
        let mut next = self.space.state.clone();
        next.insert(range, region)?;
        self.raise_to(&next)?;
        self.publish(next);
        Ok(())
    }

    /// What `request` would do now. Changes nothing.
    ///
    /// # Errors
    /// Why it can have no effect at all.
    pub fn plan(&self, request: &Request) -> Result<Plan, Refusal> {
        let space = &self.space;
        match request {
            Request::Mmap(call) => mmap::plan(space, call),
            Request::Munmap { addr, len } => munmap::plan(space, *addr, *len),
            Request::Mprotect { addr, len, prot } => mprotect::plan(space, *addr, *len, *prot, None),
            Request::PkeyMprotect { addr, len, prot, key } => {
                mprotect::plan(space, *addr, *len, *prot, Some(*key).filter(|key| *key != -1))
            }
            Request::PkeyAlloc { flags, rights } => pkey::plan_allocate(space, *flags, *rights),
            Request::PkeyFree { key } => pkey::plan_free(space, *key),
            Request::Mseal { addr, len, flags } => mseal::plan(space, *addr, *len, *flags),
            Request::SetMdwe { flags } => mdwe::plan_set(space, *flags),
            Request::Mdwe => mdwe::plan_get(space),
            Request::Mremap(call) => mremap::plan(space, call),
            Request::Brk { addr } => brk::plan(space, *addr),
            Request::Madvise { addr, len, advice } => madvise::plan(space, *addr, *len, *advice),
            Request::ProcessMadvise { ranges, advice } => process_madvise::plan(space, ranges, *advice),
            Request::RemapPages(call) => {
                remap_pages::plan(space, call, &|range| self.provider.is_write_sealed(range, &space.state.map))
            }
            Request::Msync { addr, len, flags } => msync::plan(space, *addr, *len, *flags),
            Request::Mincore { addr, len, vector } => {
                mincore::plan(space, *addr, *len, *vector, &|object| self.provider.may_know(object))
            }
            Request::Mlock { addr, len, flags } => mlock::plan_lock(space, *addr, *len, *flags),
            Request::Munlock { addr, len } => mlock::plan_unlock(space, *addr, *len),
            Request::Mlockall { flags } => mlock::plan_lock_all(space, *flags),
            Request::Munlockall => mlock::plan_unlock_all(space),
            Request::Shmat { segment, addr, flags } => shm::plan_attach(space, segment, *addr, *flags),
            Request::Shmdt { addr } => shm::plan_detach(space, *addr),
            Request::NameAnonymous { addr, len, name } => name::plan(space, *addr, *len, name.as_ref()),
        }
    }

    /// Carries out a plan made for the present state of this space.
    ///
    /// # Errors
    /// A limit, or the platform's refusal, or `EAGAIN` for a plan that is out of date: then nothing has
    /// changed. Or the error that goes with a partial effect.
    pub fn apply(&mut self, plan: Plan) -> Result<u64, Refusal> {
        if plan.generation != self.space.generation {
            return Err(Refusal::new(Errno::Again, Cause::Platform));
        }
        self.raise_to(&plan.next)?;
        if let Err(refusal) = self.charge_rest(&plan) {
            self.charges.lower_to(&self.space.state);
            return Err(refusal);
        }
        let maps = Maps { before: &self.space.state.map, after: &plan.next.map };
        if let Err(failure) = undo::run_all(&mut self.provider, &plan.ops, maps) {
            plan.give_object_back();
            let (value, refusal) = (plan.value_before(failure.at), plan.refusal_for(failure.errno));
            self.settle_failure(plan, failure.at);
            return value.ok_or(refusal);
        }
        self.publish(plan.next);
        plan.outcome
    }

    /// Plans and applies.
    ///
    /// # Errors
    /// As [`Self::plan`] and [`Self::apply`].
    pub fn call(&mut self, request: &Request) -> Result<u64, Refusal> {
        self.call_observed(request, |_| ())
    }

    /// Plans, shows the plan to `observe`, and applies. Stacks that the platform has grown by itself where it
    /// matters to the request are noted first; should a place that looked free turn out to be taken by one, the request
    /// is planned once more.
    ///
    /// # Errors
    /// As [`Self::plan`] and [`Self::apply`].
    pub fn call_observed(&mut self, request: &Request, mut observe: impl FnMut(&Plan)) -> Result<u64, Refusal> {
        if self.space.state.totals.stack_pages > 0 && (self.has_low_stack() || self.may_touch_stack(request)) {
            self.note_stack_growth();
        }
        let plan = self.plan(request)?;
        observe(&plan);
        let taken = Refusal::new(Errno::Exist, Cause::Platform);
        match self.apply(plan) {
            Err(refusal) if refusal == taken => {
                self.note_stack_growth();
                let plan = self.plan(request)?;
                observe(&plan);
                self.apply(plan)
            }
            answer => answer,
        }
    }

    /// Whether a region that grows down lies where searches go: how far it has grown bears on every place.
    fn has_low_stack(&self) -> bool {
        let state = &self.space.state;
        let mut pages_left = state.totals.stack_pages;
        // The stack of the first thread is among the highest regions, so without others the walk is short.
        for entry in state.map.iter().rev() {
            if pages_left == 0 {
                return false;
            }
            if entry.region.flags.contains(RegionFlags::GROWS_DOWN) {
                if entry.range.start() < self.space.config.layout.mmap_base {
                    return true;
                }
                pages_left -= entry.range.pages().get();
            }
        }
        false
    }

    /// Whether a region that grows down lies in the ranges that the request names, or is the next above one.
    fn may_touch_stack(&self, request: &Request) -> bool {
        let moved = match request {
            Request::Mremap(call) => Some((call.addr, call.old_len)),
            _ => None,
        };
        request.named_range().into_iter().chain(moved).any(|(addr, len)| self.is_near_stack(addr, len))
    }

    fn is_near_stack(&self, addr: u64, len: u64) -> bool {
        let map = &self.space.state.map;
        let grows = |region: &Region| region.flags.contains(RegionFlags::GROWS_DOWN);
        let end = addr.saturating_add(len);
        let range = PageRange::from_len(VirtAddr::new(addr).page_down(), len.saturating_add(PAGE_SIZE));
        range.is_some_and(|range| map.range(range).any(|entry| grows(entry.region)))
            || map.at_or_after(VirtAddr::new(end)).is_some_and(|entry| grows(entry.region))
    }

    /// Makes the state say what is there after operation `failed` of the plan has failed.
    fn settle_failure(&mut self, plan: Plan, failed: usize) {
        if plan.holds_when_it_fails() {
            return self.publish(plan.next);
        }
        match undo::take_back(&mut self.provider, &self.space, (&plan.ops, &plan.next.map), failed) {
            Some(next) => {
                self.charges.raise_past_limit(&next);
                self.publish(next);
            }
            None => self.charges.lower_to(&self.space.state),
        }
    }

    fn raise_to(&mut self, next: &State) -> Result<(), Refusal> {
        self.charges.raise_to(next).map_err(|over| {
            self.charges.lower_to(&self.space.state);
            Refusal::new(Errno::NoMem, Cause::Limit(over.resource))
        })
    }

    /// Charges the object that the plan makes, and looks whether all promises together are still small enough:
    /// another space may have asked since the plan was made.
    fn charge_rest(&self, plan: &Plan) -> Result<(), Refusal> {
        if let Some((object, pages)) = &plan.object
            && let Some(charge) = object.charge()
        {
            charge.raise(pages.get()).map_err(|over| Refusal::new(Errno::NoMem, Cause::Limit(over.resource)))?;
        }
        let promised = overcommit::promised(self.account());
        if plan.promise_bound.is_some_and(|bound| promised >= bound) {
            plan.give_object_back();
            return Err(overcommit::over());
        }
        Ok(())
    }

    fn publish(&mut self, mut next: State) {
        self.held.settle(&mut next.attached);
        self.space.state = next;
        self.space.generation += 1;
        self.charges.lower_to(&self.space.state);
    }

    /// Takes note of stacks that the platform has grown without a request, and charges them, past the limit
    /// if need be: the pages are there.
    pub fn note_stack_growth(&mut self) {
        let mut pages_left = self.space.state.totals.stack_pages;
        if pages_left == 0 {
            return;
        }
        // The walk is over a version of its own, which costs no list.
        let map = self.space.state.map.clone();
        // The stack of the first thread is the highest region that grows, so the walk is short.
        for entry in map.iter().rev() {
            if pages_left == 0 {
                break;
            }
            if !entry.region.flags.contains(RegionFlags::GROWS_DOWN) {
                continue;
            }
            pages_left -= entry.range.pages().get();
            let start = self.provider.stack_start(entry.range);
            if let Some(added) = PageRange::new(start, entry.range.start()) {
                self.note_grown(added, entry.region.clone());
            }
        }
    }

    fn note_grown(&mut self, added: PageRange, region: Region) {
        if !self.space.state.map.is_free(added) {
            return;
        }
        let mut next = self.space.state.clone();
        // Without memory to note it now, the next request does.
        if next.insert(added, region).is_err() {
            return;
        }
        self.charges.raise_past_limit(&next);
        self.publish(next);
    }

    /// Charges `account`, a new one, for a child of this space. Give the child life with
    /// [`PendingFork::finish`].
    ///
    /// # Errors
    /// A limit of the account.
    pub fn prepare_fork(&mut self, account: Account) -> Result<PendingFork, Refusal> {
        self.note_stack_growth();
        fork::prepare(&self.space, account)
    }
}

impl<P> PageManager<P> {
    /// The map.
    pub const fn map(&self) -> &Vmmap {
        &self.space.state.map
    }

    /// Sums over the map.
    pub const fn totals(&self) -> &Totals {
        &self.space.state.totals
    }

    /// Pages that `RLIMIT_MEMLOCK` counts (`mm->locked_vm`): those of locked regions, and those that moves have left
    /// counted.
    pub const fn locked_pages(&self) -> u64 {
        self.space.state.totals.locked_pages + self.space.state.left_locked_pages
    }

    /// The program break.
    pub const fn program_break(&self) -> VirtAddr {
        self.space.state.brk
    }

    /// What the space was made from; limits as they are now.
    pub const fn config(&self) -> &SpaceConfig {
        &self.space.config
    }

    /// Replaces the guest's resource limits after it has changed them.
    pub fn set_limits(&mut self, limits: ResourceLimits) {
        self.space.config.limits = limits;
        self.space.generation += 1;
    }

    /// Replaces what the guest may do, after it has changed its credentials.
    pub fn set_privileges(&mut self, privileges: Privileges) {
        self.space.config.privileges = privileges;
        self.space.generation += 1;
    }

    /// What the guest's calls have set for the whole space.
    pub const fn attributes(&self) -> Attributes {
        self.space.state.attributes
    }

    /// Replaces what the guest's calls have set: at exec by what is inherited.
    pub fn set_attributes(&mut self, attributes: Attributes) {
        self.space.state.attributes = attributes;
        self.space.generation += 1;
    }

    /// The account that pays.
    pub const fn account(&self) -> &Account {
        &self.space.config.account
    }

    /// The platform.
    pub const fn provider(&self) -> &P {
        &self.provider
    }

    /// The platform, to tell it for whom it works next.
    pub const fn provider_mut(&mut self) -> &mut P {
        &mut self.provider
    }

    /// Recomputes every derived figure and compares.
    ///
    /// # Panics
    /// If one is wrong.
    pub fn check_invariants(&self) {
        let state = &self.space.state;
        state.map.check_invariants();
        let mut totals = Totals::default();
        for entry in state.map.iter() {
            totals.add(Totals::of(entry.region, entry.range.pages()));
        }
        assert_eq!(totals, state.totals, "sums do not match the map");
        assert!(state.attached.matches(&state.map), "attaches do not match the map");
        for resource in Resource::OF_MAP {
            assert_eq!(self.charges.held(resource), state.charged(resource), "charge of {resource:?}");
        }
    }
}
