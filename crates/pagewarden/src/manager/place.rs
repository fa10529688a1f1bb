//! Where a mapping goes: Linux's search, step by step.
//!
//! Source: `mm/mmap.c:__get_unmapped_area`, `arch/x86/kernel/sys_x86_64.c`, `mm/huge_memory.c:
//! __thp_get_unmapped_area`, all of Linux 6.18. Differs from Linux: the start of `MAP_32BIT` searches is not
//! randomized.

use super::config::Privileges;
use super::space::Space;
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::object::MemoryObject;
use crate::region::RegionFlags;
use crate::vmmap::{Direction, Entry, GapRequest};

/// Pages that Linux keeps free below a region that grows down (`stack_guard_gap`).
pub(super) const STACK_GUARD: PageCount = PageCount::new(256);
/// Bytes in a huge page.
const HUGE_PAGE_SIZE: u64 = 2 << 20;
/// The largest error number (`MAX_ERRNO`).
const ERRNO_MAX: u16 = 4095;
/// Where `MAP_32BIT` searches start and end.
const LOW_WINDOW: (u64, u64) = (0x4000_0000, 0x8000_0000);
/// Where `MAP_ABOVE4G` searches end.
const FOUR_GIB: u64 = 1 << 32;

/// What kind of place is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Exactly at the address given.
    Fixed,
    /// At the hint if it is free, else wherever there is a gap.
    Anywhere,
    /// The same, above 4 GiB.
    Above4G,
    /// The same, in the second GiB.
    Low2G,
}

/// How large mappings of the backing are aligned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HugeAlignment {
    /// Not at all: shared anonymous memory and files of most file systems.
    Never,
    /// Where no hint is given and the length is a multiple of a huge page: private anonymous memory.
    WholeOnly,
    /// Whenever a huge page of the file fits.
    Always,
}

impl HugeAlignment {
    /// How mappings of `object` are aligned.
    pub(super) const fn of(object: &MemoryObject) -> Self {
        if object.is_huge_aligned() { Self::Always } else { Self::Never }
    }
}

/// A place that is looked for.
#[derive(Clone, Copy)]
pub(super) struct PlaceRequest {
    /// Hint or fixed address, as rounded by the caller.
    pub(super) addr: u64,
    /// Bytes, page aligned and not zero.
    pub(super) len: u64,
    /// Offset into the backing, for alignment.
    pub(super) offset: u64,
    pub(super) placement: Placement,
    pub(super) alignment: HugeAlignment,
}

/// The address for `wanted` (`mm/mmap.c:__get_unmapped_area`).
pub(super) fn find(space: &Space, wanted: &PlaceRequest) -> Result<VirtAddr, Errno> {
    if wanted.len > space.task_end() {
        return Err(Errno::NoMem);
    }
    let is_huge = match wanted.alignment {
        HugeAlignment::Never => false,
        HugeAlignment::WholeOnly => wanted.addr == 0 && wanted.len.is_multiple_of(HUGE_PAGE_SIZE),
        HugeAlignment::Always => true,
    };
    let aligned = if is_huge { find_huge(space, wanted) } else { None };
    let addr = match aligned {
        Some(addr) => addr,
        None => search(space, wanted)?,
    };
    if let Ok(errno @ 1..=ERRNO_MAX) = u16::try_from(addr.wrapping_neg()) {
        // A fixed address up there looks like an error to the kernel, and is reported as that.
        return Err(Errno::from_raw(errno));
    }
    if addr > space.task_end() - wanted.len {
        return Err(Errno::NoMem);
    }
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::Inval);
    }
    let may_map_low = space.config.privileges.contains(Privileges::MAP_LOW);
    if addr < space.config.layout.min_fixed_addr.as_u64() && !may_map_low {
        return Err(Errno::Perm);
    }
    Ok(VirtAddr::new(addr))
}

/// An address congruent to the offset modulo a huge page, if the mapping is large enough and there is room.
fn find_huge(space: &Space, wanted: &PlaceRequest) -> Option<u64> {
    let end = wanted.offset.checked_add(wanted.len)?;
    let aligned = wanted.offset.checked_next_multiple_of(HUGE_PAGE_SIZE)?;
    if end <= aligned || end - aligned < HUGE_PAGE_SIZE {
        return None;
    }
    let len = wanted.len.checked_add(HUGE_PAGE_SIZE)?;
    wanted.offset.checked_add(len)?;
    let found = search(space, &PlaceRequest { len, ..*wanted }).ok()?;
    if found == wanted.addr {
        return (found != 0).then_some(found);
    }
    let shift = wanted.offset.wrapping_sub(found) & (HUGE_PAGE_SIZE - 1);
    let is_top_down = space.config.layout.direction == Direction::TopDown;
    let addr = if is_top_down && shift == 0 { found + HUGE_PAGE_SIZE } else { found + shift };
    (addr != 0).then_some(addr)
}

/// The hint if it is free, or a gap (`arch_get_unmapped_area_topdown`, `arch_get_unmapped_area`).
fn search(space: &Space, wanted: &PlaceRequest) -> Result<u64, Errno> {
    if wanted.len > space.task_end() {
        return Err(Errno::NoMem);
    }
    if wanted.placement == Placement::Fixed {
        return Ok(wanted.addr);
    }
    if wanted.placement == Placement::Low2G || space.config.layout.direction == Direction::BottomUp {
        return bottom_up(space, wanted);
    }
    let hint = wanted.addr & !(PAGE_SIZE - 1);
    if hint != 0 && hint <= space.task_end() - wanted.len && hint_is_free(space, hint, wanted.len) {
        return Ok(hint);
    }
    let low = if wanted.placement == Placement::Above4G { FOUR_GIB } else { PAGE_SIZE };
    let window = (low, space.config.layout.mmap_base.as_u64());
    match gap(space, window, wanted.len, Direction::TopDown) {
        Some(addr) => Ok(addr),
        None => bottom_up(space, wanted),
    }
}

fn bottom_up(space: &Space, wanted: &PlaceRequest) -> Result<u64, Errno> {
    let window = match wanted.placement {
        Placement::Low2G => LOW_WINDOW,
        _ => (space.config.layout.bottom_up_base.as_u64(), space.task_end()),
    };
    if wanted.len > window.1 {
        return Err(Errno::NoMem);
    }
    if wanted.addr != 0 {
        let hint = round_up(wanted.addr, PAGE_SIZE);
        if hint <= window.1 - wanted.len && hint_is_free(space, hint, wanted.len) {
            return Ok(hint);
        }
    }
    gap(space, window, wanted.len, Direction::BottomUp).ok_or(Errno::NoMem)
}

/// Whether nothing, and no guard gap, is in the way of `len` bytes at `hint`.
fn hint_is_free(space: &Space, hint: u64, len: u64) -> bool {
    let map = &space.state.map;
    match map.at_or_after(VirtAddr::new(hint)) {
        None => true,
        Some(next) => hint + len <= guarded_start(&next),
    }
}

/// Where a region starts, or the guard gap below it if it grows down (`vm_start_gap`).
pub(super) fn guarded_start(entry: &Entry<'_>) -> u64 {
    let start = entry.range.start().as_u64();
    let grows = entry.region.flags.contains(RegionFlags::GROWS_DOWN);
    if grows { start.saturating_sub(STACK_GUARD.bytes()) } else { start }
}

/// The first gap that is large enough and not in the guard of a region above it (`mm/vma.c:unmapped_area` and
/// `unmapped_area_topdown`). A gap that is moves the end of the window, so that the search may go on beyond gaps
/// that would have done: that is Linux's way too, and linear in the regions that grow down.
fn gap(space: &Space, window: (u64, u64), len: u64, direction: Direction) -> Option<u64> {
    let (mut low, mut high) = (window.0.max(space.config.layout.min_addr.as_u64()), window.1);
    loop {
        let request = GapRequest {
            pages: PageCount::from_bytes_up(len),
            window: PageRange::new(VirtAddr::new(low).page_up()?, VirtAddr::new(high).page_down())?,
            direction,
            align_offset: 0,
            align_pages: 1,
        };
        let found = space.state.map.find_gap(&request)?;
        if space.state.totals.stack_pages == 0 {
            return Some(found.start().as_u64());
        }
        let next = space.state.map.at_or_after(found.end());
        match next.filter(|next| guarded_start(next) < found.end().as_u64()) {
            None => return Some(found.start().as_u64()),
            Some(next) if direction == Direction::TopDown => high = guarded_start(&next),
            Some(next) => low = next.range.end().as_u64(),
        }
    }
}
