//! Stacks that the platform grows by itself.

use super::{BASE, RW, config, mmap};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, ResourceLedger};
use crate::linux::MapFlags;
use crate::manager::PageManager;
use crate::provider::{Maps, Op, PageManagementProvider};

/// Has grown every stack down to this address.
struct Growing(u64);

impl PageManagementProvider for Growing {
    fn run(&mut self, _: &Op, _: Maps<'_>) -> Result<(), Errno> {
        Ok(())
    }

    fn stack_start(&self, region: PageRange) -> VirtAddr {
        region.start().min(VirtAddr::new(self.0))
    }
}

#[test]
fn a_search_keeps_away_from_what_a_stack_has_grown() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut manager = PageManager::new(config(&ledger), Growing(u64::MAX));
    let stack = manager.call(&mmap(0, 4, RW, MapFlags::PRIVATE | MapFlags::GROWS_DOWN)).unwrap();
    manager.provider_mut().0 = stack - 3 * PAGE_SIZE;
    // A hint that is far from the stack and taken.
    manager.call(&mmap(1, 1, RW, MapFlags::PRIVATE | MapFlags::FIXED)).unwrap();
    let below = manager.call(&mmap(1, 2, RW, MapFlags::PRIVATE)).unwrap();
    let guard = 256 * PAGE_SIZE;
    assert_eq!(below, stack - 3 * PAGE_SIZE - guard - 2 * PAGE_SIZE);
    assert!(below > BASE);
    manager.check_invariants();
}
