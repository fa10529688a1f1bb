//! Reservations: addresses kept free, and memory in them that comes and goes page by page.
//!
//! ```text
//! reserve            free -> reserved
//! commit             reserved -> committed, zeros
//! decommit           committed -> reserved, what it held is lost
//! protect            committed -> committed; without rights a page keeps what it holds and cannot be reached
//! unmap              reserved, committed -> free
//! ```

use super::capability::{Place, check_pages, choose_range, finish, wrong_state};
use super::mdwe;
use super::place::HugeAlignment;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::addr::{PageCount, PageRange};
use crate::error::Errno;
use crate::prot::Prot;
use crate::provider::{Op, Populate, Target};
use crate::region::{Region, RegionFlags};

/// What a reserved page is.
fn reserved(space: &Space) -> Region {
    let mut region = Region::anonymous(Prot::NONE);
    region.flags = RegionFlags::RESERVATION | space.state.lock_future;
    region
}

/// What reserving `pages` pages does to `space`.
pub(super) fn plan_reserve(space: &Space, place: Place, pages: PageCount) -> Result<Plan, Refusal> {
    let region = reserved(space);
    let range = choose_range(space, place, pages, HugeAlignment::WholeOnly)?;
    let totals = &space.state.totals;
    if !space.may_lock(totals, &region, pages.get()) {
        return Err(Errno::Again.into());
    }
    if !space.may_expand(totals, &region, pages.get()) {
        return Err(Errno::NoMem.into());
    }
    let mut draft = Draft::new(space);
    draft.map_vacant(range, region)?;
    finish(draft, range.start().as_u64())
}

/// What committing `range` does to `space`.
pub(super) fn plan_commit(space: &Space, range: PageRange, prot: Prot) -> Result<Plan, Refusal> {
    check_pages(space, range, |_, region| {
        check_reservation(region)?;
        let is_committed = region.flags.contains(RegionFlags::COMMITTED);
        if is_committed { Err(wrong_state(Errno::Exist)) } else { Ok(()) }
    })?;
    // As for memory that is new: what was there before it could not be run.
    mdwe::check(space, prot, prot)?;
    let mut draft = Draft::new(space);
    draft.ask_for(range.pages().get(), RegionFlags::empty())?;
    set_rights(&mut draft, range, prot)?;
    finish(draft, 0)
}

/// What decommitting `range` does to `space`: one operation, whatever its pages are now.
pub(super) fn plan_decommit(space: &Space, range: PageRange) -> Result<Plan, Refusal> {
    check_pages(space, range, |_, region| check_committed(region))?;
    let region = reserved(space);
    let mut draft = Draft::new(space);
    draft.op(Op::Map { range, region: region.clone(), target: Target::Replace, populate: Populate::OnDemand });
    draft.next.replace(range, region)?;
    finish(draft, 0)
}

/// What giving `range` the rights `prot` does to `space`.
pub(super) fn plan_protect(space: &Space, range: PageRange, prot: Prot) -> Result<Plan, Refusal> {
    check_pages(space, range, |_, region| {
        check_committed(region)?;
        mdwe::check(space, region.prot, prot)
    })?;
    let mut draft = Draft::new(space);
    set_rights(&mut draft, range, prot)?;
    finish(draft, 0)
}

/// What unmapping `range` does to `space`.
pub(super) fn plan_unmap(space: &Space, range: PageRange) -> Result<Plan, Refusal> {
    check_pages(space, range, |_, region| check_reservation(region))?;
    let mut draft = Draft::new(space);
    draft.unmap(range)?;
    finish(draft, 0)
}

fn check_reservation(region: &Region) -> Result<(), Refusal> {
    if region.flags.contains(RegionFlags::RESERVATION) { Ok(()) } else { Err(wrong_state(Errno::Inval)) }
}

fn check_committed(region: &Region) -> Result<(), Refusal> {
    check_reservation(region)?;
    if region.flags.contains(RegionFlags::COMMITTED) { Ok(()) } else { Err(wrong_state(Errno::Inval)) }
}

/// All of `range` is committed from now on, with these rights.
fn set_rights(draft: &mut Draft<'_>, range: PageRange, prot: Prot) -> Result<(), Refusal> {
    let space = draft.space;
    draft.next.update(range, |region| {
        region.prot = prot;
        region.flags |= RegionFlags::COMMITTED;
    })?;
    let (before, after) = (space.state.totals.data_pages, draft.next.totals.data_pages);
    if after > before && after > PageCount::from_bytes_down(space.data_limit()).get() {
        return Err(Errno::NoMem.into());
    }
    draft.protect(range, prot);
    Ok(())
}
