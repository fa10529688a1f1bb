//! remap_file_pages(2), as Linux emulates it: `mm/mmap.c:remap_file_pages` of Linux 6.18.
//!
//! The range becomes a new shared mapping of the file that it shows already, with the rights that it has. Nothing else of
//! the old regions stays but a lock.

use super::mmap::{check_write_seal, prepare};
use super::place::{HugeAlignment, PlaceRequest, Placement, find};
use super::plan::{Draft, Plan, Refusal};
use super::space::{Space, parts};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::{MapFlags, RemapPagesRequest};
use crate::object::ObjectKind;
use crate::prot::Prot;
use crate::provider::{Op, Populate, Target};
use crate::region::{Region, RegionFlags};

/// What `call` does to `space`; `is_sealed` tells whether the memfd that a range shows is sealed against writing by now.
pub(super) fn plan(
    space: &Space,
    call: &RemapPagesRequest,
    is_sealed: &dyn Fn(PageRange) -> bool,
) -> Result<Plan, Refusal> {
    let range = named_pages(call)?;
    let old = shared_region(space, range)?;
    let region = new_region(space, call, range, old, is_sealed)?;
    let populate = if call.flags.contains(MapFlags::NON_BLOCK) { Populate::OnDemand } else { Populate::Now };
    let mut draft = Draft::new(space);
    let keys = &mut draft.next.attributes.keys;
    let key = if region.prot == Prot::EXEC { keys.for_execute_only(space.config.features) } else { None };
    let region = Region { key: key.unwrap_or_default(), ..region };
    let region = prepare(&mut draft, range, region)?;
    draft.op(Op::RemapPages { range, region: region.clone(), populate });
    draft.place(range, region, Target::Replace)?;
    draft.finish(Ok(0))
}

/// The whole pages that the call names: both the start and the length are rounded down.
fn named_pages(call: &RemapPagesRequest) -> Result<PageRange, Errno> {
    let start = VirtAddr::new(call.addr).page_down();
    let len = call.len & !(PAGE_SIZE - 1);
    if call.prot != 0 || call.page_offset.checked_add(len >> PAGE_SHIFT).is_none() {
        return Err(Errno::Inval);
    }
    // A sum that is one page too long for a range to hold is not mapped either.
    PageRange::from_len(start, len).ok_or(Errno::Inval)
}

/// The region at the start of `range`, if all of it shows one file in one way and may be remapped.
fn shared_region(space: &Space, range: PageRange) -> Result<&Region, Errno> {
    let mut next = range.start();
    let mut first: Option<&Region> = None;
    for (part, region) in parts(&space.state.map, range) {
        let is_like_first = first.is_none_or(|first| is_alike(first, region));
        if part.start() != next || !is_like_first {
            return Err(Errno::Inval);
        }
        first.get_or_insert(region);
        next = part.end();
    }
    let is_whole = next == range.end();
    // Who has borrowed pages may map no others of their object by that.
    let may_change = |first: &Region| is_writable_file(first) && !first.flags.contains(RegionFlags::BORROWED);
    first.filter(|first| is_whole && may_change(first)).ok_or(Errno::Inval)
}

/// Whether both show the same file with the same properties, whatever its pages.
fn is_alike(a: &Region, b: &Region) -> bool {
    a.backing == b.backing && a.prot == b.prot && a.prot_max == b.prot_max && a.key == b.key && a.flags == b.flags
}

/// Whether the region is shared and its file is open for writing (`VM_SHARED`).
pub(super) const fn is_writable_file(region: &Region) -> bool {
    region.is_shared() && (region.prot_max.contains(Prot::WRITE) || region.flags.contains(RegionFlags::WRITE_SEALED))
}

/// The region that mmap would make (`mm/mmap.c:do_mmap`), in its order of checks.
fn new_region(
    space: &Space,
    call: &RemapPagesRequest,
    range: PageRange,
    old: &Region,
    is_sealed: &dyn Fn(PageRange) -> bool,
) -> Result<Region, Refusal> {
    if space.state.map.len() as u64 > space.config.regions_max {
        return Err(Errno::NoMem.into());
    }
    let (addr, len) = (range.start().as_u64(), range.bytes());
    let (placement, alignment) = (Placement::Fixed, HugeAlignment::Never);
    find(space, &PlaceRequest { addr, len, offset: 0, placement, alignment })?;
    let mut region = old.clone();
    region.flags = RegionFlags::SHARED | old.flags & RegionFlags::LOCKED | space.state.lock_future;
    if old.flags.contains(RegionFlags::LOCKED) && !space.can_lock() {
        return Err(Errno::Perm.into());
    }
    // What is locked there already counts too: it is still mapped.
    if !space.may_lock(&space.state.totals, &region, range.pages().get()) {
        return Err(Errno::Again.into());
    }
    if call.page_offset > (size_max(old) - len) >> PAGE_SHIFT {
        return Err(Errno::Overflow.into());
    }
    // A seal stays for good, and only memfds have them.
    region.prot_max |= Prot::WRITE;
    let is_memfd = old.object().is_some_and(|object| matches!(object.kind(), ObjectKind::Memfd(_)));
    if old.flags.contains(RegionFlags::WRITE_SEALED) || is_memfd && is_sealed(range) {
        check_write_seal(&mut region)?;
    }
    region.delta = call.page_offset.wrapping_sub(range.first_page());
    Ok(region)
}

/// Where files end at the latest; offsets of devices have no sign.
fn size_max(region: &Region) -> u64 {
    let is_device = region.object().is_some_and(|object| matches!(object.kind(), ObjectKind::Device(_)));
    if is_device { u64::MAX } else { i64::MAX.unsigned_abs() }
}
