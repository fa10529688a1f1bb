//! mremap(2): `mm/mremap.c` of Linux 6.18, where `MREMAP_FIXED` without a change of size may move several
//! regions at once.
//!
//! ```text
//! new size        no new address            MREMAP_FIXED / MREMAP_DONTUNMAP
//! smaller         unmap the tail            unmap the target, unmap the tail, move
//! the same        nothing                   unmap the target, move (region by region)
//! larger          grow in place, else move  unmap the target, move and grow
//! old size 0      map the shared pages again, at a new place
//! ```
//!
//! Differs from Linux: what `MREMAP_DONTUNMAP` leaves behind stays charged, since it can be written again.
//! Linux forgets that charge.

use super::munmap::unmap;
use super::place::{HugeAlignment, PlaceRequest, Placement, find};
use super::plan::{Draft, Plan, Refusal, check_modifiable};
use super::space::{Space, State, parts};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::linux::{MremapRequest, RemapFlags};
use crate::object::ObjectKind;
use crate::provider::{Op, Source, Target};
use crate::region::{Backing, Region, RegionFlags};
use crate::vmmap::Entry;

/// Regions that must not be grown, and whose old place cannot be kept.
const UNGROWABLE: RegionFlags = RegionFlags::DONT_EXPAND.union(RegionFlags::PFN_MAP);

/// The call with its sizes rounded to pages and its words checked.
struct Remap {
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: RemapFlags,
    new_addr: u64,
}

/// What `call` does to `space`.
pub(super) fn plan(space: &Space, call: &MremapRequest) -> Result<Plan, Refusal> {
    let remap = check_words(space, call)?;
    if remap.flags.contains(RemapFlags::FIXED) && remap.old_len == remap.new_len {
        return move_all(space, &remap);
    }
    let entry = space.state.map.get(VirtAddr::new(remap.addr)).ok_or(Errno::Fault)?;
    check_region(space, &remap, &entry)?;
    let mut draft = Draft::new(space);
    draft.lock_errno(Errno::Again);
    let outcome = if remap.has_new_addr() {
        move_to(&mut draft, &remap, entry.region)
    } else if remap.new_len <= remap.old_len {
        shrink(&mut draft, &remap).map(|()| remap.addr)
    } else {
        expand(&mut draft, &remap, entry.region)
    };
    // What was unmapped at the target stays so when the move is refused after it.
    draft.finish(outcome)
}

impl Remap {
    /// Whether the pages certainly go elsewhere.
    fn has_new_addr(&self) -> bool {
        self.flags.intersects(RemapFlags::FIXED | RemapFlags::DONT_UNMAP)
    }

    fn growth(&self) -> u64 {
        self.old_len.abs_diff(self.new_len) >> PAGE_SHIFT
    }

    fn source(&self) -> Source {
        if self.flags.contains(RemapFlags::DONT_UNMAP) { Source::Kept } else { Source::Removed }
    }
}

/// The checks that need no region (`check_mremap_params`).
fn check_words(space: &Space, call: &MremapRequest) -> Result<Remap, Errno> {
    let remap = Remap {
        addr: call.addr,
        old_len: round_up(call.old_len, PAGE_SIZE),
        new_len: round_up(call.new_len, PAGE_SIZE),
        flags: call.flags,
        new_addr: call.new_addr,
    };
    let known = RemapFlags::MAY_MOVE | RemapFlags::FIXED | RemapFlags::DONT_UNMAP;
    let task_end = space.task_end();
    if !known.contains(remap.flags)
        || !remap.addr.is_multiple_of(PAGE_SIZE)
        || remap.new_len == 0
        || remap.new_len > task_end
    {
        return Err(Errno::Inval);
    }
    if !remap.has_new_addr() {
        return Ok(remap);
    }
    let is_resized = remap.old_len != remap.new_len;
    let old_end = remap.addr.wrapping_add(remap.old_len);
    if remap.new_addr > task_end - remap.new_len
        || !remap.new_addr.is_multiple_of(PAGE_SIZE)
        || !remap.flags.contains(RemapFlags::MAY_MOVE)
        || remap.flags.contains(RemapFlags::DONT_UNMAP) && is_resized
        || old_end > remap.new_addr && remap.new_addr + remap.new_len > remap.addr
    {
        return Err(Errno::Inval);
    }
    if space.state.map.len() as u64 + 2 >= space.config.regions_max.saturating_sub(3) {
        return Err(Errno::NoMem);
    }
    Ok(remap)
}

/// The checks of the region at the old address (`check_prep_vma`).
fn check_region(space: &Space, remap: &Remap, entry: &Entry<'_>) -> Result<(), Refusal> {
    let region = entry.region;
    check_modifiable(region)?;
    if !remap.has_new_addr() && remap.new_len <= remap.old_len {
        return Ok(());
    }
    if remap.old_len == 0 && !region.is_shared() {
        return Err(Errno::Inval.into());
    }
    if remap.flags.contains(RemapFlags::DONT_UNMAP) && region.flags.intersects(UNGROWABLE) {
        return Err(Errno::Inval.into());
    }
    // A tail that is cut off first may lie in other regions, or nowhere.
    let moved_len = remap.old_len.min(remap.new_len);
    let is_beyond = |end: VirtAddr| moved_len > end.as_u64() - remap.addr;
    if is_beyond(entry.range.end()) && is_beyond(extent_end(space, entry)) {
        return Err(Errno::Fault.into());
    }
    if moved_len == remap.new_len {
        return Ok(());
    }
    let offset = region.page_offset(VirtAddr::new(remap.addr));
    if offset.checked_add(remap.new_len >> PAGE_SHIFT).is_none() {
        return Err(Errno::Inval.into());
    }
    if region.flags.intersects(UNGROWABLE) {
        return Err(Errno::Fault.into());
    }
    if !space.may_lock(&space.state.totals, region, remap.growth()) {
        return Err(Errno::Again.into());
    }
    if !space.may_expand(&space.state.totals, region, remap.growth()) {
        return Err(Errno::NoMem.into());
    }
    Ok(())
}

/// Where the run of regions ends that Linux sees as one with `entry`: what we charge tells them apart for us
/// alone.
fn extent_end(space: &Space, entry: &Entry<'_>) -> VirtAddr {
    let mut last = *entry;
    while let Some(next) = space.state.map.get(last.range.end()) {
        if !is_one_to_linux(last.region, next.region) {
            break;
        }
        last = next;
    }
    last.range.end()
}

fn is_one_to_linux(a: &Region, b: &Region) -> bool {
    let plain = |flags: RegionFlags| flags - RegionFlags::COMMITTED;
    a.backing == b.backing
        && a.delta == b.delta
        && a.prot == b.prot
        && a.prot_max == b.prot_max
        && a.key == b.key
        && plain(a.flags) == plain(b.flags)
}

/// What is beyond the new size, whatever lies there.
fn tail(space: &Space, remap: &Remap) -> Result<Option<PageRange>, Errno> {
    if remap.new_len >= remap.old_len {
        return Ok(None);
    }
    let (start, len) = (remap.addr + remap.new_len, remap.old_len - remap.new_len);
    if start > space.task_end() || len > space.task_end() - start {
        return Err(Errno::Inval);
    }
    PageRange::from_len(VirtAddr::new(start), len).ok_or(Errno::Inval).map(Some)
}

/// Unmaps the tail (`shrink_vma`).
fn shrink(draft: &mut Draft<'_>, remap: &Remap) -> Result<(), Refusal> {
    match tail(draft.space, remap)? {
        Some(tail) => unmap(draft, tail),
        None => Ok(()),
    }
}

/// Grows in place if the region ends here and there is room, else moves if that is allowed (`expand_vma`).
fn expand(draft: &mut Draft<'_>, remap: &Remap, region: &Region) -> Result<u64, Refusal> {
    let space = draft.space;
    if let Some((from, to)) = room_to_grow(space, remap) {
        let last = space.state.map.get(VirtAddr::new(remap.addr + remap.old_len - 1)).ok_or(Errno::Fault)?;
        let added = to.from(from.end()).ok_or(Errno::Inval)?;
        ask_for_growth(draft, remap, region.flags)?;
        draft.next.insert(added, last.region.clone())?;
        draft.op(Op::Grow { from, to, region: last.region.clone() });
        return Ok(remap.addr);
    }
    if !remap.flags.contains(RemapFlags::MAY_MOVE) {
        return Err(Errno::NoMem.into());
    }
    let place = find_place(space, remap, region)?;
    check_move(draft, remap, region)?;
    relocate(draft, remap, &Destination { start: place, target: Target::Vacant })
}

/// Asks for what Linux charges for a region that grows, or that stays behind (`vrm_calc_charge`).
fn ask_for_growth(draft: &mut Draft<'_>, remap: &Remap, flags: RegionFlags) -> Result<(), Refusal> {
    if !flags.contains(RegionFlags::COMMITTED) {
        return Ok(());
    }
    let is_kept = remap.source() == Source::Kept;
    draft.ask_for(if is_kept { remap.new_len >> PAGE_SHIFT } else { remap.growth() }, flags)
}

/// The range now and then, if the pages to be added are free (`vrm_can_expand_in_place`).
fn room_to_grow(space: &Space, remap: &Remap) -> Option<(PageRange, PageRange)> {
    let start = VirtAddr::new(remap.addr);
    let from = PageRange::from_len(start, remap.old_len)?;
    let to = PageRange::from_len(start, remap.new_len)?;
    let is_region_end = match space.state.map.get(VirtAddr::new(from.end().as_u64() - 1)) {
        Some(last) => last.range.end() == from.end(),
        None => false,
    };
    let is_free =
        is_region_end && to.end().as_u64() <= space.task_end() && space.state.map.is_free(to.from(from.end())?);
    is_free.then_some((from, to))
}

/// `MREMAP_FIXED` and `MREMAP_DONTUNMAP` (`mremap_to`).
fn move_to(draft: &mut Draft<'_>, remap: &Remap, region: &Region) -> Result<u64, Refusal> {
    let place = find_place(draft.space, remap, region);
    let mut replaced = None;
    if remap.flags.contains(RemapFlags::FIXED) {
        let range = PageRange::from_len(VirtAddr::new(remap.new_addr), remap.new_len).ok_or(Errno::Inval)?;
        if draft.check_modifiable(range)? {
            replaced = Some(Op::Unmap { range, contents: draft.next.remove(range)? });
        }
    }
    let target = if replaced.is_some() { Target::Replace } else { Target::Vacant };
    if let Err(refusal) = check_after_unmap(draft, remap, region) {
        replaced.into_iter().for_each(|unmap| draft.op(unmap));
        return Err(refusal);
    }
    let kept = Remap { old_len: remap.old_len.min(remap.new_len), ..*remap };
    let place = place.map_err(Refusal::from).and_then(|start| check_move(draft, &kept, region).map(|()| start));
    let start = match place {
        Ok(start) => start,
        Err(refusal) => {
            // Linux looks at the place, and at what the move costs, last of all: the tail is gone by then too.
            replaced.into_iter().for_each(|unmap| draft.op(unmap));
            shrink(draft, remap)?;
            return Err(refusal);
        }
    };
    // Linux unmaps the tail first; the end is the same, and what cannot be undone comes last.
    let moved = relocate(draft, &kept, &Destination { start, target })?;
    shrink(draft, remap)?;
    Ok(moved)
}

/// What Linux looks at only when the target has been unmapped, which it stays whatever comes of the move.
fn check_after_unmap(draft: &Draft<'_>, remap: &Remap, region: &Region) -> Result<(), Refusal> {
    // A second view of pages that the target covers: they are gone by now.
    draft.next.map.get(VirtAddr::new(remap.addr)).ok_or(Errno::Fault)?;
    if let Some(tail) = tail(draft.space, remap)? {
        draft.check_modifiable(tail)?;
    }
    let pages = remap.old_len >> PAGE_SHIFT;
    let has_room = draft.space.may_expand(&draft.next.totals, region, pages);
    if remap.flags.contains(RemapFlags::DONT_UNMAP) && !has_room { Err(Errno::NoMem.into()) } else { Ok(()) }
}

/// Where the pages go (`vrm_set_new_addr`).
fn find_place(space: &Space, remap: &Remap, region: &Region) -> Result<VirtAddr, Errno> {
    let is_fixed = remap.flags.contains(RemapFlags::FIXED);
    let alignment = region.object().map_or(HugeAlignment::WholeOnly, |object| HugeAlignment::of(object));
    let offset = match region.backing {
        Backing::Anonymous => 0,
        Backing::Object(_) => region.page_offset(VirtAddr::new(remap.addr)) << PAGE_SHIFT,
    };
    find(
        space,
        &PlaceRequest {
            addr: if remap.has_new_addr() { remap.new_addr } else { 0 },
            len: remap.new_len,
            offset,
            placement: if is_fixed { Placement::Fixed } else { Placement::Anywhere },
            alignment,
        },
    )
}

/// Where pages go, and what is there before.
struct Destination {
    start: VirtAddr,
    target: Target,
}

/// Whether Linux makes the move, when all but the move is done (`move_vma`).
fn check_move(draft: &mut Draft<'_>, remap: &Remap, region: &Region) -> Result<(), Refusal> {
    if draft.next.map.len() as u64 >= draft.space.config.regions_max.saturating_sub(3) {
        return Err(Errno::NoMem.into());
    }
    // A second view is of shared pages, which have been paid for.
    if remap.old_len == 0 { Ok(()) } else { ask_for_growth(draft, remap, region.flags) }
}

/// Moves the pages, or shows them a second time if the old size is 0.
fn relocate(draft: &mut Draft<'_>, remap: &Remap, destination: &Destination) -> Result<u64, Refusal> {
    let to = PageRange::from_len(destination.start, remap.new_len).ok_or(Errno::Inval)?;
    let Some(from) = PageRange::from_len(VirtAddr::new(remap.addr), remap.old_len) else {
        return duplicate(draft, remap, to, destination.target);
    };
    let last = relocate_regions(&mut draft.next, from, to, remap.source())?;
    draft.op(Op::Move { from, to, source: remap.source(), region: last });
    Ok(to.start().as_u64())
}

/// What a move to the free range `to` changes in the map. Gives the last region that moves, as it was.
pub(super) fn relocate_regions(
    state: &mut State,
    from: PageRange,
    to: PageRange,
    source: Source,
) -> Result<Region, Errno> {
    // The regions are read from a version of their own, which costs no list.
    let before = state.map.clone();
    if source == Source::Removed {
        state.remove(from)?;
    }
    let mut last = None;
    for (part, region) in parts(&before, from) {
        last = Some(region);
        let start = to.first_page() + (part.first_page() - from.first_page());
        let here = PageRange::from_pages(start, part.pages()).ok_or(Errno::Inval)?;
        state.insert(here, shifted(region, part, here))?;
    }
    let last = last.ok_or(Errno::Fault)?;
    let end_of_moved = VirtAddr::new(to.start().as_u64() + from.bytes());
    if let Some(added) = to.from(end_of_moved) {
        state.insert(added, shifted(last, from, to))?;
    }
    if source == Source::Kept {
        unlock_source(state, from)?;
    }
    Ok(last.clone())
}

/// What stays behind is not locked any more. Linux says so of the whole region, even where the pages that have
/// just moved have become part of it (`dontunmap_complete`).
fn unlock_source(state: &mut State, from: PageRange) -> Result<(), Errno> {
    let Some(range) = state.map.get(from.start()).map(|entry| entry.range) else { return Ok(()) };
    let before = state.totals.locked_pages;
    state.update(range, |region| region.flags -= RegionFlags::LOCKED | RegionFlags::LOCK_ON_FAULT)?;
    // Linux does not count them out.
    state.left_locked_pages += before - state.totals.locked_pages;
    Ok(())
}

fn duplicate(draft: &mut Draft<'_>, remap: &Remap, to: PageRange, target: Target) -> Result<u64, Refusal> {
    let from = VirtAddr::new(remap.addr);
    let entry = draft.next.map.get(from).ok_or(Errno::Fault)?;
    let mut region = entry.region.clone();
    region.delta = region.page_offset(from).wrapping_sub(to.first_page());
    draft.next.insert(to, region)?;
    draft.op(Op::Duplicate { from, to, target });
    Ok(to.start().as_u64())
}

/// `region` as it is after a move of its pages from `from` to `to`.
fn shifted(region: &Region, from: PageRange, to: PageRange) -> Region {
    let mut region = region.clone();
    // Anonymous memory has no offset, whether it has a name or not.
    if region.object().is_some_and(|object| *object.kind() != ObjectKind::NamedAnonymous) {
        region.delta = region.delta.wrapping_add(from.first_page()).wrapping_sub(to.first_page());
    }
    region
}

/// A move without a change of size takes all regions of the range along, each to its own place, and leaves
/// gaps as they are (`remap_move`).
fn move_all(space: &Space, remap: &Remap) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    draft.lock_errno(Errno::Again);
    let range = PageRange::from_len(VirtAddr::new(remap.addr), remap.old_len).ok_or(Errno::Fault)?;
    let mut outcome: Result<u64, Refusal> = Err(Errno::Fault.into());
    for entry in space.state.map.range(range) {
        let Some(part) = entry.range.intersection(range) else { continue };
        let is_first = outcome.is_err();
        if is_first && part.start() != range.start() {
            break;
        }
        if !may_move_along(entry.region) && (!is_first || part.end() < range.end()) {
            outcome = Err(Errno::Fault.into());
            break;
        }
        let piece = Remap {
            addr: part.start().as_u64(),
            old_len: part.bytes(),
            new_len: part.bytes(),
            new_addr: remap.new_addr + (part.start().as_u64() - remap.addr),
            flags: remap.flags,
        };
        let moved = check_region(space, &piece, &entry).and_then(|()| move_to(&mut draft, &piece, entry.region));
        if let Err(refusal) = moved {
            outcome = Err(refusal);
            break;
        }
        if is_first {
            outcome = moved;
        }
    }
    draft.finish(outcome)
}

/// Whether a region may move together with others: not if its backing has a say in where it goes
/// (`vma_multi_allowed`).
fn may_move_along(region: &Region) -> bool {
    !region.object().is_some_and(|object| {
        matches!(object.kind(), ObjectKind::SysV { .. } | ObjectKind::Device(_) | ObjectKind::ZeroDevice(_))
    })
}
