//! What is in pages: whether they are resident, whether they have been written back, which of an object's they are.

use pagewarden::linux::SyncFlags;
use pagewarden::provider::Populate;
use pagewarden::{Errno, PageCount, PageRange, Region, RegionFlags, VirtAddr};

use super::locks::MLOCK_ONFAULT;
use super::provider::ArenaProvider;

/// Pages that the host is asked about at once.
const PAGES_AT_ONCE: usize = 512;

impl ArenaProvider {
    /// Shows other pages of the object that `range` shows.
    pub(super) fn remap_pages(&mut self, range: PageRange, region: &Region, populate: Populate) -> Result<(), Errno> {
        let page = region.page_offset(range.start());
        self.memory.remap_pages(range, page, populate).inspect_err(|_| self.note_loss(range))?;
        // The host locks as it was locked before; what mlockall(2) wants of new mappings it does not know.
        let how = if region.flags.contains(RegionFlags::LOCK_ON_FAULT) { MLOCK_ONFAULT } else { 0 };
        if region.flags.contains(RegionFlags::LOCKED) {
            // What cannot be made resident is locked all the same.
            let _ = self.memory.lock(range, how);
        }
        Ok(())
    }

    /// msync(2).
    pub(super) fn sync(&self, range: PageRange, flags: SyncFlags) -> Result<(), Errno> {
        self.memory.sync(range, flags.bits())
    }

    /// Tells of each page whether it is resident; where the host does not say, it is.
    pub(super) fn tell_residency(&self, range: PageRange, each: &mut dyn FnMut(bool)) {
        let mut first = range.first_page();
        while first < range.end_page() {
            let count = (range.end_page() - first).min(PAGES_AT_ONCE as u64);
            let mut told = [1_u8; PAGES_AT_ONCE];
            if let Some(part) = PageRange::from_pages(first, PageCount::new(count)) {
                let _ = self.memory.residency(part, &mut told);
            }
            told.iter().zip(0..count).for_each(|(byte, _)| each(byte & 1 != 0));
            first += count;
        }
    }

    /// Copies bytes into the arena, as far as the guest may write there.
    pub(super) fn copy_in(&self, addr: VirtAddr, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = addr.checked_add(bytes.len() as u64).and_then(VirtAddr::page_up).ok_or(Errno::Fault)?;
        let pages = PageRange::new(addr.page_down(), end).ok_or(Errno::Fault)?;
        self.memory.store(pages, addr, bytes)
    }
}
