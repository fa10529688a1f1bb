//! One implementation of "what is at this address, who may touch it, who pays for it".
//!
//! The crate turns memory requests into plans and plans into operations of a platform:
//!
//! ```text
//! linux::Request  ->  PageManager::plan  ->  Plan { ops, next map, charge }
//!                     PageManager::apply ->  charge, run the ops, publish the map
//!                                            (an op fails: undo, drop the charge, keep the old map)
//! ```
//!
//! [`vmmap::Vmmap`] is the map of regions, [`ledger::Account`] says who pays, and
//! [`provider::PageManagementProvider`] is the seam to whatever holds the pages. Policy never knows the
//! platform; a platform never decides anything. The crate is `no_std` and has no unsafe code.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod cap;
pub mod error;
mod fallible;
pub mod frame;
pub mod ledger;
pub mod linux;
pub mod machine;
pub mod manager;
pub mod mmu;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod object;
pub mod page_table;
pub mod pager;
pub mod phys;
pub mod prot;
pub mod provider;
pub mod region;
mod sync;
pub mod vmmap;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, PageCount, PageRange, PhysAddr, VirtAddr};
pub use error::Errno;
pub use ledger::{Account, Charge, Limits, Resource, ResourceLedger};
pub use manager::{PageManager, Plan};
pub use object::{MemoryObject, ObjectKind};
pub use prot::{Prot, ProtectionKey};
pub use provider::{Op, PageManagementProvider};
pub use region::{Backing, Region, RegionFlags};
pub use vmmap::Vmmap;
