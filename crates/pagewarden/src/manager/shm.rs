//! shmat(2) and shmdt(2): `ipc/shm.c`.

use alloc::sync::Arc;

use super::mmap::place_region;
use super::munmap::unmap;
use super::place::{HugeAlignment, PlaceRequest, Placement, find};
use super::plan::{Draft, Plan, Refusal, check_modifiable};
use super::space::Space;
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::Segment;
use crate::object::ObjectKind;
use crate::prot::Prot;
use crate::provider::{Populate, Target};
use crate::region::{Backing, Region, RegionFlags};
use crate::vmmap::Entry;

/// `SHM_RDONLY`.
const READ_ONLY: u64 = 0o10_000;
/// `SHM_RND`: round the address down.
const ROUND: u64 = 0o20_000;
/// `SHM_REMAP`: replace what is there.
const REMAP: u64 = 0o40_000;
/// `SHM_EXEC`.
const EXEC: u64 = 0o100_000;

/// What attaching `segment` does to `space`.
pub(super) fn plan_attach(space: &Space, segment: &Segment, addr: u64, flags: u64) -> Result<Plan, Refusal> {
    let is_fixed = addr != 0;
    let addr = attach_addr(addr, flags)?;
    if !segment.rights.contains(wanted_rights(flags)) {
        return Err(Errno::Acces.into());
    }
    let len = segment.pages.bytes();
    if addr != 0 && flags & REMAP == 0 {
        let end = addr.checked_add(len).ok_or(Errno::Inval)?;
        let wanted = PageRange::new(VirtAddr::new(addr), VirtAddr::new(end)).ok_or(Errno::Inval)?;
        if !space.state.map.is_free(wanted) {
            return Err(Errno::Inval.into());
        }
    }
    let placement = if is_fixed { Placement::Fixed } else { Placement::Anywhere };
    let wanted = PlaceRequest { addr, len, offset: 0, placement, alignment: HugeAlignment::Never };
    let range = PageRange::from_len(find(space, &wanted)?, len).ok_or(Errno::Inval)?;
    let region = attached(space, segment, flags, range);
    if !space.may_lock(&space.state.totals, &region, range.pages().get()) {
        return Err(Errno::Again.into());
    }
    let target = if space.state.map.is_free(range) { Target::Vacant } else { Target::Replace };
    let mut draft = Draft::new(space);
    place_region(&mut draft, range, region, target, Populate::OnDemand)?;
    draft.finish(Ok(range.start().as_u64()))
}

fn attach_addr(addr: u64, flags: u64) -> Result<u64, Errno> {
    let must_replace = flags & REMAP != 0;
    if addr == 0 {
        return if must_replace { Err(Errno::Inval) } else { Ok(0) };
    }
    if addr.is_multiple_of(PAGE_SIZE) {
        return Ok(addr);
    }
    let rounded = addr & !(PAGE_SIZE - 1);
    if flags & ROUND == 0 || rounded == 0 && must_replace {
        return Err(Errno::Inval);
    }
    Ok(rounded)
}

fn wanted_rights(flags: u64) -> Prot {
    let mut prot = Prot::READ;
    prot.set(Prot::WRITE, flags & READ_ONLY == 0);
    prot.set(Prot::EXEC, flags & EXEC != 0);
    prot
}

fn attached(space: &Space, segment: &Segment, flags: u64, range: PageRange) -> Region {
    let mut region = Region::anonymous(wanted_rights(flags));
    region.prot_max.set(Prot::WRITE, flags & READ_ONLY == 0);
    region.flags = RegionFlags::SHARED | space.state.lock_future;
    region.backing = Backing::Object(Arc::clone(&segment.object));
    region.delta = range.first_page().wrapping_neg();
    region
}

/// What detaching the segment at `addr` does to `space`: its first piece goes, and all others within its size,
/// wherever other regions lie between. Linux does not ask whether a piece could be unmapped: what is sealed stays, and
/// the call says nothing of it.
pub(super) fn plan_detach(space: &Space, addr: u64) -> Result<Plan, Refusal> {
    let start = VirtAddr::new(addr);
    if !start.is_page_aligned() {
        return Err(Errno::Inval.into());
    }
    let all = PageRange::new(start, space.config.layout.task_end).ok_or(Errno::Inval)?;
    let in_place = |entry: &Entry<'_>| {
        let offset = entry.range.first_page().wrapping_sub(start.page_number());
        segment_pages(entry.region).is_some() && entry.region.page_offset(entry.range.start()) == offset
    };
    let mut entries = space.state.map.range(all);
    let first = entries.find(in_place).ok_or(Errno::Inval)?;
    let end = segment_pages(first.region).map_or(0, PageCount::get).saturating_add(start.page_number());
    let mut draft = Draft::new(space);
    let others = entries
        .take_while(|entry| entry.range.end_page() <= end)
        .filter(|entry| in_place(entry) && entry.region.backing == first.region.backing);
    for piece in core::iter::once(first).chain(others) {
        if check_modifiable(piece.region).is_ok() {
            unmap(&mut draft, piece.range)?;
        }
    }
    draft.finish(Ok(0))
}

/// The size of the segment that a region shows, if it shows one.
fn segment_pages(region: &Region) -> Option<PageCount> {
    match region.object()?.kind() {
        ObjectKind::SysV { pages, .. } => Some(*pages),
        _ => None,
    }
}
