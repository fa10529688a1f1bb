//! What an address space is made from: layout, limits, privileges and policy.

use crate::addr::VirtAddr;
use crate::ledger::Account;
use crate::linux::Advice;
use crate::vmmap::Direction;

use super::overcommit::Overcommit;

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
    /// No hint or search goes below: `vm.mmap_min_addr`, or more if a security module says so.
    pub min_addr: VirtAddr,
    /// `MAP_FIXED` below this needs [`Privileges::MAP_LOW`] (`vm.mmap_min_addr`).
    pub min_fixed_addr: VirtAddr,
}

impl Layout {
    /// That of a process on x86-64 that nothing is random for.
    pub const X86_64: Self = Self {
        task_end: VirtAddr::new(0x7fff_ffff_f000),
        mmap_base: VirtAddr::new(0x7fff_f7ff_f000),
        bottom_up_base: VirtAddr::new(0x2aaa_aaaa_b000),
        direction: Direction::TopDown,
        min_addr: VirtAddr::new(0x1_0000),
        min_fixed_addr: VirtAddr::new(0x1_0000),
    };
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
    /// The hard limit of `RLIMIT_DATA`, which counts for mmap(2) when the soft one is 0.
    pub data_max: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
}

impl ResourceLimits {
    /// Nothing is limited but the stack, to 8 MiB.
    pub const DEFAULT: Self =
        Self { address_space: u64::MAX, data: u64::MAX, data_max: u64::MAX, stack: 8 << 20, locked: u64::MAX };
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

/// What the kernel that is imitated was built with: the advices that it knows, names of anonymous memory;
/// and whether the processor has protection keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// A bit for each advice, by its number.
    advices: u128,
    has_names: bool,
    has_keys: bool,
}

impl Features {
    /// Everything.
    pub const ALL: Self = Self { advices: u128::MAX, has_names: true, has_keys: true };

    /// Without `advice`.
    #[must_use]
    pub const fn without_advice(self, advice: Advice) -> Self {
        Self { advices: self.advices & !(1 << advice.raw()), ..self }
    }

    /// Without names of anonymous memory (`CONFIG_ANON_VMA_NAME`).
    #[must_use]
    pub const fn without_names(self) -> Self {
        Self { has_names: false, ..self }
    }

    /// Without protection keys (`X86_FEATURE_OSPKE`).
    #[must_use]
    pub const fn without_keys(self) -> Self {
        Self { has_keys: false, ..self }
    }

    pub(super) const fn knows(self, advice: Advice) -> bool {
        self.advices & (1 << advice.raw()) != 0
    }

    pub(super) const fn has_names(self) -> bool {
        self.has_names
    }

    pub(super) const fn has_keys(self) -> bool {
        self.has_keys
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
    /// Promises of more memory than there is.
    pub overcommit: Overcommit,
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
    /// What the kernel knows.
    pub features: Features,
    /// What is decided once.
    pub policy: Policy,
    /// Who pays.
    pub account: Account,
}

impl SpaceConfig {
    /// The most regions of a process unless its administrator says otherwise (`DEFAULT_MAX_MAP_COUNT`).
    pub const REGIONS_MAX: u64 = 65_530;

    /// A space without a program break, for a guest without privileges; other fields can be set afterwards.
    pub fn new(layout: Layout, account: Account) -> Self {
        Self {
            layout,
            brk: Break::default(),
            limits: ResourceLimits::DEFAULT,
            privileges: Privileges::empty(),
            regions_max: Self::REGIONS_MAX,
            features: Features::ALL,
            policy: Policy::default(),
            account,
        }
    }
}
