//! Page faults, as the processor reports them.

use core::fmt;

use crate::addr::VirtAddr;
use crate::manager::Access;

bitflags::bitflags! {
    /// Why an access ended in a fault: the processor's error code.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct FaultCode: u32 {
        /// All entries were present: something forbids the access. Without it, an entry was not present.
        const PRESENT = 1 << 0;
        /// It was a store.
        const WRITE = 1 << 1;
        /// It was made by user code; always, here.
        const USER = 1 << 2;
        /// A reserved bit of an entry is set; together with `PRESENT`.
        const RESERVED = 1 << 3;
        /// It was an instruction fetch.
        const FETCH = 1 << 4;
        /// The rights of the protection key forbid it, whatever else may.
        const KEY = 1 << 5;
        /// The address is none of the processor's. Not a bit of its error code: it raises another exception for that.
        const NOT_CANONICAL = 1 << 31;
    }
}

impl FaultCode {
    /// What is known before anything has been looked at.
    pub(super) const fn of(access: Access) -> Self {
        match access {
            Access::Read => Self::USER,
            Access::Write => Self::USER.union(Self::WRITE),
            Access::Execute => Self::USER.union(Self::FETCH),
        }
    }
}

/// An access that the processor could not make.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageFault {
    /// The first byte that could not be reached.
    pub address: VirtAddr,
    /// What was to be done.
    pub access: Access,
    /// Why it could not.
    pub code: FaultCode,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}: {:?}", self.access, self.address, self.code)
    }
}

impl core::error::Error for PageFault {}
