//! Which addresses of the window space are in use, and what is stuck there.

use alloc::vec::Vec;

use crate::addr::{PageCount, PageRange};
use crate::frame::FrameRange;
use crate::phys::PhysError;
use crate::phys::reservation::Held;
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};
use crate::vmmap::{Direction, GapRequest, Vmmap};

/// Pages before and behind each window that stay empty, so that no two windows touch.
const GUARD_PAGES: u64 = 1;

/// What the platform would not take back.
#[derive(Debug)]
pub(super) enum Retained {
    /// A window that may still show something, with what was reserved for it.
    Window(PageRange, Option<Held>),
    /// Frames that may still be protected against the other world.
    Protection(FrameRange),
}

/// The window space. Each window is a region of the map; which mapping it belongs to, only that mapping knows.
pub(super) struct Windows {
    space: PageRange,
    map: Vmmap,
    /// Windows and protections that are in use and not retained.
    live: usize,
    /// There is always room for all that live: who fails to give something back must not fail to say so.
    retained: Vec<Retained>,
}

impl Windows {
    pub(super) fn new(space: PageRange) -> Self {
        Self { space, map: Vmmap::new(PageCount::ZERO), live: 0, retained: Vec::new() }
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    pub(super) const fn retained(&self) -> usize {
        self.retained.len()
    }

    /// Counts one more that lives.
    pub(super) fn begin(&mut self) -> Result<(), PhysError> {
        let live = self.live + 1;
        self.retained.try_reserve(live).map_err(|_| PhysError::OutOfMemory)?;
        self.live = live;
        Ok(())
    }

    /// Counts one less.
    pub(super) fn end(&mut self) {
        self.live -= 1;
    }

    /// What lived is retained now.
    pub(super) fn retain(&mut self, what: Retained) {
        debug_assert!(self.retained.capacity() > self.retained.len(), "room was made when it began to live");
        self.retained.push(what);
        self.end();
    }

    /// What has been retained for longest lives again, for another try.
    pub(super) fn resume(&mut self) -> Option<Retained> {
        if self.retained.is_empty() {
            return None;
        }
        self.live += 1;
        Some(self.retained.remove(0))
    }

    /// A window of `pages` pages that is not in use; it lives.
    pub(super) fn take(&mut self, pages: PageCount) -> Result<PageRange, PhysError> {
        let with_guards = pages.get().checked_add(2 * GUARD_PAGES).ok_or(PhysError::WindowSpaceExhausted)?;
        let gap = self.map.find_gap(&GapRequest {
            pages: PageCount::new(with_guards),
            window: self.space,
            direction: Direction::BottomUp,
            align_offset: 0,
            align_pages: 1,
        });
        let window = gap
            .and_then(|gap| PageRange::from_pages(gap.first_page() + GUARD_PAGES, pages))
            .ok_or(PhysError::WindowSpaceExhausted)?;
        self.begin()?;
        if self.map.insert(window, in_use()).is_err() {
            self.end();
            return Err(PhysError::OutOfMemory);
        }
        Ok(window)
    }

    /// Takes back a window that shows nothing any more.
    ///
    /// # Errors
    /// [`PhysError::OutOfMemory`]: it stays in use, and lives.
    pub(super) fn give_back(&mut self, window: PageRange) -> Result<(), PhysError> {
        self.map.remove(window).map_err(|_| PhysError::OutOfMemory)?;
        self.end();
        Ok(())
    }

    /// # Panics
    /// If what is counted does not agree with what is there.
    pub(super) fn check_invariants(&self) {
        self.map.check_invariants();
        let mut end = self.space.first_page() + GUARD_PAGES;
        for entry in self.map.iter() {
            assert!(self.space.contains_range(entry.range), "{} is outside of the window space", entry.range);
            assert!(entry.range.first_page() >= end, "{} follows another window without a gap", entry.range);
            end = entry.range.end_page() + GUARD_PAGES;
        }
        assert!(end <= self.space.end_page(), "the last window has no page behind it");
        assert!(self.map.len() <= self.live + self.retained.len(), "a window is in use and nobody's");
        assert!(self.retained.capacity() - self.retained.len() >= self.live, "no room to retain all that live");
        for what in &self.retained {
            if let Retained::Window(window, _) = what {
                assert!(!self.map.is_free(*window), "the retained window {window} is not in use");
            }
        }
    }
}

fn in_use() -> Region {
    let mut region = Region::anonymous(Prot::NONE);
    region.flags = RegionFlags::FIXED;
    region
}
