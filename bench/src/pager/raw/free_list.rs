//! `free-list`, whose frees are unsafe.

use anyhow::{Result, anyhow};
use free_list::{FreeList, PageLayout, PageRange};

use crate::pager::frames::{Allocator, FRAMES, LARGE};

const PAGE: usize = 4096;

/// Sorted ranges; 16 of them in place, as its examples have it.
pub struct FreeListFrames(FreeList<16>);

impl FreeListFrames {
    fn take(&mut self, pages: usize) -> Option<PageRange> {
        let layout = PageLayout::from_size_align(pages * PAGE, pages * PAGE).ok()?;
        self.0.allocate(layout).ok()
    }

    fn put(&mut self, range: PageRange) {
        // SAFETY: the addresses stand for themselves: no memory is reached by them.
        let freed = unsafe { self.0.deallocate(range) };
        debug_assert!(freed.is_ok());
    }
}

impl Allocator for FreeListFrames {
    const NAME: &'static str = "free-list";
    const NOT_MANY: Option<&'static str> =
        Some("each free looks through all ranges that are free, which takes minutes");
    type Frame = PageRange;
    type Large = PageRange;

    fn new() -> Result<Self> {
        let mut list = Self(FreeList::new());
        list.put(PageRange::new(FRAMES * PAGE, 2 * FRAMES * PAGE).map_err(|error| anyhow!("{error}"))?);
        Ok(list)
    }

    fn allocate(&mut self) -> Option<PageRange> {
        self.take(1)
    }

    fn free(&mut self, frame: PageRange) {
        self.put(frame);
    }

    fn allocate_large(&mut self) -> Option<PageRange> {
        self.take(LARGE)
    }

    fn free_large(&mut self, large: PageRange) {
        self.put(large);
    }

    fn number(frame: &PageRange) -> u64 {
        (frame.start() / PAGE) as u64
    }
}
