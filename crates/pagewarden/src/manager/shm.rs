//! shmat(2) and shmdt(2): `ipc/shm.c`.

use alloc::sync::Arc;

use super::mmap::place_region;
use super::munmap::unmap;
use super::place::{HugeAlignment, PlaceRequest, Placement, find};
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::Segment;
use crate::object::{MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::provider::{Populate, Target};
use crate::region::{Backing, Region, RegionFlags};

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

/// What detaching the segment at `addr` does to `space`: all its pieces go, wherever others lie between.
pub(super) fn plan_detach(space: &Space, addr: u64) -> Result<Plan, Refusal> {
    let start = VirtAddr::new(addr);
    if !start.is_page_aligned() {
        return Err(Errno::Inval.into());
    }
    let all = PageRange::new(start, space.config.layout.task_end).ok_or(Errno::Inval)?;
    let is_piece = |range: PageRange, region: &Region, object: Option<&Arc<MemoryObject>>| {
        let Some(own) = region.object().filter(|own| matches!(own.kind(), ObjectKind::SysV(_))) else { return false };
        let is_in_place = region.page_offset(range.start()) == range.first_page().wrapping_sub(start.page_number());
        is_in_place && object.is_none_or(|object| Arc::ptr_eq(object, own))
    };
    let mut draft = Draft::new(space);
    let first = space.state.map.range(all).find(|entry| is_piece(entry.range, entry.region, None));
    let object = first.and_then(|entry| entry.region.object()).ok_or(Errno::Inval)?;
    for entry in space.state.map.range(all) {
        if is_piece(entry.range, entry.region, Some(object)) {
            unmap(&mut draft, entry.range)?;
        }
    }
    draft.finish(Ok(0))
}
