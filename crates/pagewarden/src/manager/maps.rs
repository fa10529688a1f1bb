//! The map as text, in the form of `/proc/PID/maps` (`fs/proc/task_mmu.c:show_map_vma`).

use alloc::string::String;
use core::fmt::Write;

use super::PageManager;
use crate::addr::{PAGE_SHIFT, PageRange};
use crate::object::{FileId, ObjectKind};
use crate::region::{Region, RegionFlags};

impl<P> PageManager<P> {
    /// The map, a line a region: bounds, rights, offset, device, inode, name.
    pub fn maps_text(&self) -> String {
        let mut text = String::new();
        for entry in self.map().iter() {
            // Writing to a string cannot fail.
            let _ = self.write_line(&mut text, entry.range, entry.region);
        }
        text
    }

    fn write_line(&self, text: &mut String, range: PageRange, region: &Region) -> core::fmt::Result {
        let start = text.len();
        let sharing = if region.is_shared() { 's' } else { 'p' };
        let offset = region.object().map_or(0, |_| region.page_offset(range.start()) << PAGE_SHIFT);
        let file = region.object().and_then(|object| match object.kind() {
            ObjectKind::File(file)
            | ObjectKind::Device(file)
            | ObjectKind::ZeroDevice(file)
            | ObjectKind::Memfd(file) => Some(*file),
            _ => None,
        });
        let FileId { device, inode } = file.unwrap_or(FileId { device: 0, inode: 0 });
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        write!(text, "{range} {}{sharing} {offset:08x} {major:02x}:{minor:02x} {inode}", region.prot)?;
        let name = self.name_of(range, region);
        if !name.is_empty() {
            let width = text.len() - start;
            write!(text, "{:pad$}{name}", "", pad = 73_usize.saturating_sub(width).max(1))?;
        }
        text.write_char('\n')
    }

    /// What the last column shows.
    fn name_of(&self, range: PageRange, region: &Region) -> String {
        if let Some(object) = region.object() {
            let mut name = String::new();
            match object.kind() {
                ObjectKind::NamedAnonymous => {
                    name.push_str("[anon:");
                    name.push_str(object.name());
                    name.push(']');
                }
                _ => name.push_str(object.name()),
            }
            return name;
        }
        let (heap_start, heap_end) = (self.space.config.brk.start, self.space.state.brk);
        if range.start() < heap_end && range.end() > heap_start {
            return String::from("[heap]");
        }
        let is_stack =
            region.flags.contains(RegionFlags::GROWS_DOWN) && range.start() >= self.space.config.layout.mmap_base;
        String::from(if is_stack { "[stack]" } else { "" })
    }
}
