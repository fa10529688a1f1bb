//! Borrowed pages: an object shown by way of a capability, for as long as it is shown.
//!
//! Each page is charged as committed besides what a handle to the object costs: so nobody can map an object, let the
//! handle go and keep the memory for nothing. The mapping stays what it is: it cannot grow, and it shows no other pages
//! of its object than those it was made for.

use alloc::sync::Arc;

use super::capability::{Place, check_pages, choose_range, finish, wrong_state};
use super::mdwe;
use super::place::HugeAlignment;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::addr::PageRange;
use crate::error::Errno;
use crate::object::{MemoryObject, ObjectPages};
use crate::prot::Prot;
use crate::region::{Backing, Region, RegionFlags};

/// What every borrowed page is.
const FLAGS: RegionFlags = RegionFlags::SHARED.union(RegionFlags::BORROWED).union(RegionFlags::DONT_EXPAND);

/// What showing `pages` of `object` does to `space`. They can have the second of the rights, and have the first now.
pub(super) fn plan_borrow(
    space: &Space,
    (object, pages): (&Arc<MemoryObject>, ObjectPages),
    (prot, prot_max): (Prot, Prot),
    place: Place,
) -> Result<Plan, Refusal> {
    if !prot_max.contains(prot) {
        return Err(Errno::Acces.into());
    }
    let range = choose_range(space, place, pages.count(), HugeAlignment::of(object))?;
    let mut region = Region::anonymous(prot);
    region.backing = Backing::Object(Arc::clone(object));
    region.delta = pages.first().wrapping_sub(range.first_page());
    region.prot_max = prot_max;
    region.flags = FLAGS;
    mdwe::check(space, prot, prot)?;
    if !space.may_expand(&space.state.totals, &region, range.pages().get()) {
        return Err(Errno::NoMem.into());
    }
    let mut draft = Draft::new(space);
    draft.ask_for(range.pages().get(), RegionFlags::empty())?;
    draft.map_vacant(range, region)?;
    finish(draft, range.start().as_u64())
}

/// What giving `range`, which shows pages of `window`, the rights `prot` does to `space`.
pub(super) fn plan_protect(
    space: &Space,
    range: PageRange,
    shown: (&Arc<MemoryObject>, ObjectPages),
    prot: Prot,
) -> Result<Plan, Refusal> {
    check_pages(space, range, |part, region| {
        check_shows(part, region, shown)?;
        mdwe::check(space, region.prot, prot)
    })?;
    let mut draft = Draft::new(space);
    draft.next.update(range, |region| {
        region.prot = prot;
        region.prot_max |= prot;
    })?;
    draft.protect(range, prot);
    finish(draft, 0)
}

/// What showing `range`, which shows pages of `window`, no more does to `space`.
pub(super) fn plan_return(
    space: &Space,
    range: PageRange,
    shown: (&Arc<MemoryObject>, ObjectPages),
) -> Result<Plan, Refusal> {
    check_pages(space, range, |part, region| check_shows(part, region, shown))?;
    let mut draft = Draft::new(space);
    draft.unmap(range)?;
    finish(draft, 0)
}

/// Refuses pages that were not borrowed from this object, or that show others of its pages than those of the window.
fn check_shows(
    part: PageRange,
    region: &Region,
    (object, window): (&Arc<MemoryObject>, ObjectPages),
) -> Result<(), Refusal> {
    let is_borrowed = region.flags.contains(RegionFlags::BORROWED);
    let is_same = region.object().is_some_and(|shown| Arc::ptr_eq(shown, object));
    let first = region.page_offset(part.start());
    let pages = ObjectPages::new(first, part.pages());
    let is_inside = pages.is_some_and(|pages| window.first() <= pages.first() && pages.end() <= window.end());
    if is_borrowed && is_same && is_inside { Ok(()) } else { Err(wrong_state(Errno::Inval)) }
}
