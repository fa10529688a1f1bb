//! One address space: plan, charge, apply, publish.
//!
//! [`PageManager`] owns the map of the space, its break, its limits, its account and its provider. A
//! request becomes a [`Plan`] without side effects; [`PageManager::apply`] charges what the plan costs,
//! runs its operations in order and publishes the new map. If an operation fails, those before it are
//! undone in reverse, the charge is dropped and the old map was never replaced.
//!
//! Outside: what a descriptor is and how a page is mapped ([`crate::provider`]).
//!
//! Invariants: what is charged to the account is what the map holds (virtual, committed and locked pages,
//! regions); no request changes a region marked `FIXED`.

use alloc::vec::Vec;

use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Account, Resource};
use crate::linux::Request;
use crate::provider::{Op, PageManagementProvider};
use crate::region::Region;
use crate::vmmap::{Direction, Vmmap};

/// Where things go in an address space.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The end of the space that programs use (`TASK_SIZE`).
    pub task_end: VirtAddr,
    /// Where top-down searches start (`mm->mmap_base`).
    pub mmap_base: VirtAddr,
    /// Where bottom-up searches start (`mm->mmap_legacy_base`).
    pub bottom_up_base: VirtAddr,
    /// Which of the two is used first.
    pub direction: Direction,
    /// No hint or search goes below (`vm.mmap_min_addr`).
    pub min_addr: VirtAddr,
}

/// The program break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Break {
    /// Where the heap starts (`mm->start_brk`).
    pub start: VirtAddr,
    /// The break itself; any byte.
    pub current: VirtAddr,
    /// Bytes of the program's own data, which `RLIMIT_DATA` counts too (`end_data - start_data`).
    pub data_bytes: u64,
}

/// The guest's resource limits, in bytes; `u64::MAX` is no limit (getrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
}

bitflags::bitflags! {
    /// What the guest may do besides what everybody may.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Privileges: u8 {
        /// Map below `vm.mmap_min_addr` (`CAP_SYS_RAWIO`).
        const MAP_LOW = 1 << 0;
        /// Lock without limit (`CAP_IPC_LOCK`).
        const LOCK = 1 << 1;
        /// Offline pages (`CAP_SYS_ADMIN`).
        const ADMIN = 1 << 2;
    }
}

/// Whether memory may be writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WxPolicy {
    /// As the guest likes.
    #[default]
    Allow,
    /// Never at once, and nothing becomes executable later (`PR_SET_MDWE`).
    Deny,
}

/// What a mapping made with `MAP_NORESERVE` costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NoReserve {
    /// As much as any other: the budget cannot be escaped.
    #[default]
    Charged,
    /// Nothing.
    Free,
}

/// What a fork charges for the private writable memory of the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ForkCharge {
    /// All of it: each page can be written without failing.
    #[default]
    Full,
    /// None of it.
    Free,
}

/// What is decided once for a space.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Writable and executable memory.
    pub wx: WxPolicy,
    /// `MAP_NORESERVE`.
    pub no_reserve: NoReserve,
    /// Fork.
    pub fork_charge: ForkCharge,
}

/// All that a new space is made from.
#[derive(Clone, Debug)]
pub struct SpaceConfig {
    /// Where things go.
    pub layout: Layout,
    /// The program break.
    pub brk: Break,
    /// The guest's own limits.
    pub limits: ResourceLimits,
    /// What else it may do.
    pub privileges: Privileges,
    /// The most regions (`vm.max_map_count`).
    pub regions_max: u64,
    /// What is decided once.
    pub policy: Policy,
    /// Who pays.
    pub account: Account,
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What the guest is told.
    pub errno: Errno,
    /// Whose decision it was.
    pub cause: Cause,
}

/// Whose decision a refusal was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Linux would refuse it too.
    Linux,
    /// An account has too little left of this.
    Limit(Resource),
    /// Writable and executable memory is not allowed.
    WxPolicy,
    /// The pages belong to the platform.
    FixedRegion,
    /// The platform could not do it.
    Platform,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, cause: Cause::Linux }
    }
}

/// What a request will do: operations, the map they lead to, and the answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Operations in order; what cannot be undone comes last.
    ops: Vec<Op>,
    /// What the guest is told when all of them have succeeded. An error here is one that Linux gives
    /// together with a partial effect.
    outcome: Result<u64, Refusal>,
}

impl Plan {
    /// The operations, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What the guest will be told.
    pub const fn outcome(&self) -> Result<u64, Refusal> {
        self.outcome
    }
}

/// A space that a fork is about to make: charged, not yet alive.
#[derive(Debug)]
pub struct PendingFork {}

/// One address space.
#[derive(Debug)]
pub struct PageManager<P> {
    map: Vmmap,
    config: SpaceConfig,
    provider: P,
}

impl<P: PageManagementProvider> PageManager<P> {
    /// An empty space.
    pub fn new(config: SpaceConfig, provider: P) -> Self {
        let _ = (&config, &provider);
        todo!()
    }

    /// Takes over a region that is there already, such as what exec mapped.
    ///
    /// # Errors
    /// A limit of the account; nothing changes then.
    pub fn import(&mut self, range: PageRange, region: Region) -> Result<(), Refusal> {
        let _ = (range, region);
        todo!()
    }

    /// What `request` would do now. Changes nothing.
    ///
    /// # Errors
    /// Why it can have no effect at all.
    pub fn plan(&self, request: &Request) -> Result<Plan, Refusal> {
        let _ = request;
        todo!()
    }

    /// Carries out a plan made for the present state of this space.
    ///
    /// # Errors
    /// A limit, or the platform's refusal: then nothing has changed; or the error that goes with a partial effect.
    pub fn apply(&mut self, plan: Plan) -> Result<u64, Refusal> {
        let _ = plan;
        todo!()
    }

    /// Takes note of stacks that the platform has grown without a request, and charges them.
    pub fn note_stack_growth(&mut self) {
        todo!()
    }

    /// Charges `account`, a new one, for a child of this space. Give the child life with [`PendingFork::finish`].
    ///
    /// # Errors
    /// A limit of the account.
    pub fn prepare_fork(&mut self, account: Account) -> Result<PendingFork, Refusal> {
        let _ = account;
        todo!()
    }

    /// The map.
    pub const fn map(&self) -> &Vmmap {
        &self.map
    }

    /// The program break.
    pub const fn brk(&self) -> &Break {
        &self.config.brk
    }

    /// What the space was made from; limits and break as they are now.
    pub const fn config(&self) -> &SpaceConfig {
        &self.config
    }

    /// Replaces the guest's resource limits after it has changed them.
    pub fn set_limits(&mut self, limits: ResourceLimits) {
        self.config.limits = limits;
    }

    /// The account that pays.
    pub const fn account(&self) -> &Account {
        &self.config.account
    }

    /// The platform.
    pub const fn provider(&self) -> &P {
        &self.provider
    }

    /// The platform, to tell it for whom it works next.
    pub const fn provider_mut(&mut self) -> &mut P {
        &mut self.provider
    }
}

impl PendingFork {
    /// The child space, once the platform has made the child.
    pub fn finish<P: PageManagementProvider>(self, provider: P) -> PageManager<P> {
        let _ = provider;
        todo!()
    }
}
