//! The map as text, in the form of `/proc/PID/maps` and `/proc/PID/smaps`.

use alloc::string::String;
use core::fmt;

use super::PageManager;
use crate::addr::{PageRange, VirtAddr};
use crate::linux::proc_text::{Keys, Landmarks, PageUsage, write_maps, write_smaps};
use crate::region::{Region, RegionFlags};

impl<P> PageManager<P> {
    /// The map, a line a region: bounds, rights, offset, device, inode, name.
    pub fn maps_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_maps(&mut text);
        text
    }

    /// Writes the text of `/proc/PID/maps`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_maps(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write_maps(out, self.map(), &self.landmarks())
    }

    /// Writes the text of `/proc/PID/smaps`; `usage` says what of a region is resident.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_smaps(
        &self,
        out: &mut dyn fmt::Write,
        usage: &mut dyn FnMut(PageRange, &Region) -> PageUsage,
    ) -> fmt::Result {
        write_smaps(out, self.map(), &self.landmarks(), usage)
    }

    /// Heap, stack and keys, as texts show them. The stack is taken to be the highest region that grows down, at or
    /// above the place where searches start.
    pub fn landmarks(&self) -> Landmarks {
        let config = &self.space.config;
        let base = config.layout.mmap_base;
        let above = self.map().iter().rev().take_while(|entry| entry.range.start() >= base);
        let mut stacks = above.filter(|entry| entry.region.flags.contains(RegionFlags::GROWS_DOWN));
        let stack = stacks.next().map_or(VirtAddr::new(0), |entry| VirtAddr::new(entry.range.end().as_u64() - 1));
        Landmarks {
            heap_start: config.brk.start,
            heap_end: self.space.state.brk,
            stack,
            keys: if config.features.has_keys() { Keys::Present } else { Keys::Absent },
            ..Landmarks::default()
        }
    }
}
