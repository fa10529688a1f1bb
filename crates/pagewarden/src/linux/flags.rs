//! Flag words of the memory calls, with the numbers of x86-64.

bitflags::bitflags! {
    /// The `MAP_*` word of mmap(2). Bits without a name are kept: Linux ignores them, except with
    /// `MAP_SHARED_VALIDATE`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct MapFlags: u64 {
        /// Both bits of the type at once.
        const TYPE = 0x0f;
        /// `MAP_SHARED`.
        const SHARED = 0x01;
        /// `MAP_PRIVATE`.
        const PRIVATE = 0x02;
        /// `MAP_SHARED_VALIDATE`.
        const SHARED_VALIDATE = 0x03;
        /// `MAP_DROPPABLE`.
        const DROPPABLE = 0x08;
        /// `MAP_FIXED`.
        const FIXED = 0x10;
        /// `MAP_ANONYMOUS`.
        const ANONYMOUS = 0x20;
        /// `MAP_32BIT`.
        const LOW_2G = 0x40;
        /// `MAP_ABOVE4G`.
        const ABOVE_4G = 0x80;
        /// `MAP_GROWSDOWN`.
        const GROWS_DOWN = 0x100;
        /// `MAP_DENYWRITE`: ignored.
        const DENY_WRITE = 0x800;
        /// `MAP_EXECUTABLE`: ignored.
        const EXECUTABLE = 0x1000;
        /// `MAP_LOCKED`.
        const LOCKED = 0x2000;
        /// `MAP_NORESERVE`.
        const NO_RESERVE = 0x4000;
        /// `MAP_POPULATE`.
        const POPULATE = 0x8000;
        /// `MAP_NONBLOCK`: takes the effect of `MAP_POPULATE` away.
        const NON_BLOCK = 0x1_0000;
        /// `MAP_STACK`.
        const STACK = 0x2_0000;
        /// `MAP_HUGETLB`.
        const HUGE_TLB = 0x4_0000;
        /// `MAP_SYNC`.
        const SYNC = 0x8_0000;
        /// `MAP_FIXED_NOREPLACE`.
        const FIXED_NO_REPLACE = 0x10_0000;
        /// `MAP_UNINITIALIZED`: ignored with an MMU.
        const UNINITIALIZED = 0x400_0000;
        const _ = !0;
    }

    /// The `MREMAP_*` word of mremap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct RemapFlags: u64 {
        /// `MREMAP_MAYMOVE`.
        const MAY_MOVE = 1;
        /// `MREMAP_FIXED`.
        const FIXED = 2;
        /// `MREMAP_DONTUNMAP`.
        const DONT_UNMAP = 4;
        const _ = !0;
    }

    /// The `MS_*` word of msync(2).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct SyncFlags: u64 {
        /// `MS_ASYNC`.
        const ASYNC = 1;
        /// `MS_INVALIDATE`.
        const INVALIDATE = 2;
        /// `MS_SYNC`.
        const SYNC = 4;
        const _ = !0;
    }

    /// The `PR_MDWE_*` word of prctl(2) with `PR_SET_MDWE`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct MdweFlags: u64 {
        /// `PR_MDWE_REFUSE_EXEC_GAIN`: nothing is writable and executable at once, and nothing becomes executable.
        const REFUSE_EXEC_GAIN = 1;
        /// `PR_MDWE_NO_INHERIT`: children and programs that are executed start without it.
        const NO_INHERIT = 2;
        const _ = !0;
    }

    /// The `MCL_*` word of mlockall(2).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct LockAllFlags: u64 {
        /// `MCL_CURRENT`.
        const CURRENT = 1;
        /// `MCL_FUTURE`.
        const FUTURE = 2;
        /// `MCL_ONFAULT`.
        const ON_FAULT = 4;
        const _ = !0;
    }
}

macro_rules! advices {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// An advice of madvise(2), numbered as Linux does.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Advice {
            $($(#[$doc])* $name = $value,)*
        }

        impl Advice {
            /// The advice numbered `raw`, if Linux knows it.
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The number.
            pub const fn raw(self) -> i32 {
                self as i32
            }

            /// Whether process_madvise(2) gives it to other processes too. None of these changes a region.
            pub const fn is_for_others(self) -> bool {
                matches!(self, Self::Cold | Self::PageOut | Self::WillNeed | Self::Collapse)
            }
        }
    };
}

advices! {
    /// `MADV_NORMAL`: no special treatment.
    Normal = 0,
    /// `MADV_RANDOM`: will be read in no order.
    Random = 1,
    /// `MADV_SEQUENTIAL`: will be read in order.
    Sequential = 2,
    /// `MADV_WILLNEED`: read ahead.
    WillNeed = 3,
    /// `MADV_DONTNEED`: discard; private pages read as the backing again.
    DontNeed = 4,
    /// `MADV_FREE`: may be discarded until written again.
    Free = 8,
    /// `MADV_REMOVE`: punch a hole in the backing.
    Remove = 9,
    /// `MADV_DONTFORK`: not inherited.
    DontFork = 10,
    /// `MADV_DOFORK`: inherited again.
    DoFork = 11,
    /// `MADV_MERGEABLE`: equal pages may be merged.
    Mergeable = 12,
    /// `MADV_UNMERGEABLE`: not any more.
    Unmergeable = 13,
    /// `MADV_HUGEPAGE`: huge pages wanted.
    HugePage = 14,
    /// `MADV_NOHUGEPAGE`: huge pages not wanted.
    NoHugePage = 15,
    /// `MADV_DONTDUMP`: left out of core dumps.
    DontDump = 16,
    /// `MADV_DODUMP`: dumped again.
    DoDump = 17,
    /// `MADV_WIPEONFORK`: zero in the child.
    WipeOnFork = 18,
    /// `MADV_KEEPONFORK`: copied to the child again.
    KeepOnFork = 19,
    /// `MADV_COLD`: reclaim these first.
    Cold = 20,
    /// `MADV_PAGEOUT`: reclaim these now.
    PageOut = 21,
    /// `MADV_POPULATE_READ`: make readable pages resident.
    PopulateRead = 22,
    /// `MADV_POPULATE_WRITE`: make writable pages resident.
    PopulateWrite = 23,
    /// `MADV_DONTNEED_LOCKED`: discard, locked pages too.
    DontNeedLocked = 24,
    /// `MADV_COLLAPSE`: into huge pages, now.
    Collapse = 25,
    /// `MADV_HWPOISON`: treat the page as broken; needs `CAP_SYS_ADMIN`.
    HwPoison = 100,
    /// `MADV_SOFT_OFFLINE`: take the frame out of use; needs `CAP_SYS_ADMIN`.
    SoftOffline = 101,
    /// `MADV_GUARD_INSTALL`: a guard in the page tables.
    GuardInstall = 102,
    /// `MADV_GUARD_REMOVE`: takes such guards away.
    GuardRemove = 103,
}
