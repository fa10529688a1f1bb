//! A page-array model of a map of regions and random edits biased to edges, shared by the property test, the fuzz
//! target and the bench.
//!
//! Owns what is too simple to be wrong: [`PageArray`] keeps the region of each page and answers by looking at
//! every page. A [`Step`] is any twelve bytes; it names its places by the edges that the array has, because that is
//! where maps go wrong. A [`World`] does a step on a [`Vmmap`](crate::Vmmap) and on the array and compares all that
//! can be asked of both.
//!
//! A [`Platform`] is the same for operations: pages and what is in them, to run plans on. [`Failing`] makes any platform
//! fail on command. [`run_calls`] and [`run_failing_calls`] are guests made of bytes.
//!
//! There only with the feature `model` and in the crate's own tests. What differs is a panic: this is for tests.

#[cfg(test)]
pub(crate) mod capability;
mod check;
mod failing;
mod guest;
mod pages;
mod place;
mod platform;
mod runs;
mod step;
mod world;

use alloc::vec::Vec;

use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::manager::Layout;
use crate::object::{MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::region::{Backing, Region, RegionFlags};
use crate::vmmap::Direction;

pub use failing::{Failing, Failures, Loss};
pub use guest::{run_calls, run_failing_calls};
pub use pages::PageArray;
pub use platform::{Picture, Platform};
pub use step::{Action, Edit, Step};
pub use world::World;

/// A space of 16 MiB.
pub const SMALL_LAYOUT: Layout = Layout {
    task_end: VirtAddr::new(0x110_0000),
    mmap_base: VirtAddr::new(0x100_0000),
    bottom_up_base: VirtAddr::new(0x40_0000),
    direction: Direction::TopDown,
    min_addr: VirtAddr::new(0x1_0000),
    min_fixed_addr: VirtAddr::new(0x1000),
};

/// Regions that differ from each other in one thing each. Objects are new ones at each call.
pub fn palette() -> Vec<Region> {
    let object = MemoryObject::new(ObjectKind::SharedAnonymous, "object");
    let shown = |delta| Region { backing: Backing::Object(object.clone()), delta, ..Region::anonymous(Prot::READ) };
    Vec::from([
        Region::anonymous(Prot::READ),
        Region::anonymous(Prot::READ | Prot::WRITE),
        Region { flags: RegionFlags::GROWS_DOWN, ..Region::anonymous(Prot::READ | Prot::WRITE) },
        shown(0),
        shown(7u64.wrapping_neg()),
        Region { prot_max: Prot::READ, ..Region::anonymous(Prot::READ) },
    ])
}

/// The pages from `first` to below `end`.
///
/// # Panics
/// If there are none.
fn range(first: u64, end: u64) -> PageRange {
    PageRange::from_pages(first, PageCount::new(end - first)).expect("pages that exist")
}
