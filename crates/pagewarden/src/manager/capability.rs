//! What holders of capabilities ask of a space. Whether somebody may ask, and for what, [`crate::cap`] has looked at;
//! what it means for the map, and what it costs, is decided here, like Linux's calls.
//!
//! ```text
//! state of a page   its region                                      charged
//! free              none                                            -
//! reserved          RESERVATION                                     virtual
//! committed         RESERVATION | COMMITTED                         virtual, committed
//!   out of reach    the same, without rights: keeps its frame       virtual, committed
//! borrowed          BORROWED | SHARED | DONT_EXPAND, of an object   virtual, committed
//! fixed             FIXED                                           virtual
//! ```
//!
//! Everything else in a map is there by Linux's calls, and no request here changes it. Linux's calls, for their part,
//! change all but what is fixed: the space is the guest's own. A request is carried out for the whole of its range or
//! refused.

use alloc::sync::Arc;

use super::place::{HugeAlignment, PlaceRequest, Placement, find};
use super::plan::{Cause, Draft, Plan, Refusal, check_modifiable};
use super::space::{Space, parts};
use super::{PageManager, borrow, reserve};
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::object::{MemoryObject, ObjectPages};
use crate::prot::Prot;
use crate::provider::PageManagementProvider;
use crate::region::{Region, RegionFlags};

/// Where something new goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Where Linux would put it.
    Anywhere,
    /// There, if nothing is in the way.
    At(VirtAddr),
}

/// A request for which a capability speaks.
#[derive(Clone, Debug)]
pub enum CapabilityRequest {
    /// Keep addresses free for later. Answers with the first.
    Reserve {
        /// Where.
        place: Place,
        /// How many pages.
        pages: PageCount,
    },
    /// Make reserved pages memory, all zeros.
    Commit {
        /// Reserved pages that are no memory yet.
        range: PageRange,
        /// What may be done with them.
        prot: Prot,
    },
    /// Give up what committed pages hold; they stay reserved, as if they had just been.
    Decommit {
        /// Committed pages.
        range: PageRange,
    },
    /// Change the rights of committed pages. Without any they keep what they hold.
    Protect {
        /// Committed pages.
        range: PageRange,
        /// What may be done with them.
        prot: Prot,
    },
    /// Give up reserved pages, committed or not.
    Unmap {
        /// Reserved pages.
        range: PageRange,
    },
    /// Show pages of an object. Answers with the first address.
    Borrow {
        /// Whose.
        object: Arc<MemoryObject>,
        /// Which.
        pages: ObjectPages,
        /// What may be done with them now; part of `prot_max`.
        prot: Prot,
        /// What may ever be done with them there.
        prot_max: Prot,
        /// Where.
        place: Place,
    },
    /// Change the rights of borrowed pages.
    ProtectBorrowed {
        /// Pages that show this object.
        range: PageRange,
        /// Whose.
        object: Arc<MemoryObject>,
        /// Which of its pages they may be.
        window: ObjectPages,
        /// What may be done with them.
        prot: Prot,
    },
    /// Show borrowed pages no more.
    Return {
        /// Pages that show this object.
        range: PageRange,
        /// Whose.
        object: Arc<MemoryObject>,
        /// Which of its pages they may be.
        window: ObjectPages,
    },
}

impl<P: PageManagementProvider> PageManager<P> {
    /// What `request` would do now. Changes nothing.
    ///
    /// # Errors
    /// `EINVAL` where pages are not in the state that the request is for, `EEXIST` where something is in the way (or
    /// committed already), `EACCES` for rights that a policy denies, `EPERM` for pages that are sealed or fixed,
    /// `ENOMEM` for a limit.
    pub fn plan_capability(&self, request: &CapabilityRequest) -> Result<Plan, Refusal> {
        let space = &self.space;
        match request {
            CapabilityRequest::Reserve { place, pages } => reserve::plan_reserve(space, *place, *pages),
            CapabilityRequest::Commit { range, prot } => reserve::plan_commit(space, *range, *prot),
            CapabilityRequest::Decommit { range } => reserve::plan_decommit(space, *range),
            CapabilityRequest::Protect { range, prot } => reserve::plan_protect(space, *range, *prot),
            CapabilityRequest::Unmap { range } => reserve::plan_unmap(space, *range),
            CapabilityRequest::Borrow { object, pages, prot, prot_max, place } => {
                borrow::plan_borrow(space, (object, *pages), (*prot, *prot_max), *place)
            }
            CapabilityRequest::ProtectBorrowed { range, object, window, prot } => {
                borrow::plan_protect(space, *range, (object, *window), *prot)
            }
            CapabilityRequest::Return { range, object, window } => {
                borrow::plan_return(space, *range, (object, *window))
            }
        }
    }

    /// Maps pages that are the platform's own in this space: no request changes them, and no child inherits them.
    ///
    /// # Errors
    /// `EEXIST` if something is there, or a limit, or the platform's reason; nothing changes then.
    pub fn map_fixed(&mut self, range: PageRange, mut region: Region) -> Result<(), Refusal> {
        if !self.space.state.map.is_free(range) {
            return Err(wrong_state(Errno::Exist));
        }
        region.flags |= RegionFlags::FIXED | RegionFlags::DONT_FORK;
        let mut draft = Draft::new(&self.space);
        draft.map_vacant(range, region)?;
        let plan = finish(draft, 0)?;
        self.apply(plan).map(drop)
    }

    /// Plans and applies.
    ///
    /// # Errors
    /// As [`Self::plan_capability`] and [`Self::apply`].
    pub fn call_capability(&mut self, request: &CapabilityRequest) -> Result<u64, Refusal> {
        let plan = self.plan_capability(request)?;
        self.apply(plan)
    }
}

/// The pages are not in the state that the request is for.
pub(super) const fn wrong_state(errno: Errno) -> Refusal {
    Refusal::new(errno, Cause::PageState)
}

/// A place for `pages` pages, of which nothing else is asked but room.
pub(super) fn choose_range(
    space: &Space,
    place: Place,
    pages: PageCount,
    alignment: HugeAlignment,
) -> Result<PageRange, Refusal> {
    if pages == PageCount::ZERO {
        return Err(Errno::Inval.into());
    }
    let len = pages.bytes();
    let (addr, placement) = match place {
        Place::Anywhere => (0, Placement::Anywhere),
        Place::At(address) => (address.as_u64(), Placement::Fixed),
    };
    let start = find(space, &PlaceRequest { addr, len, offset: 0, placement, alignment })?;
    let range = PageRange::from_len(start, len).ok_or(Errno::NoMem)?;
    if !space.state.map.is_free(range) {
        return Err(wrong_state(Errno::Exist));
    }
    Ok(range)
}

/// Refuses a range with a page that `is_meant` does not hold for, or one that may not be changed.
pub(super) fn check_pages(
    space: &Space,
    range: PageRange,
    mut is_meant: impl FnMut(PageRange, &Region) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut next = range.start();
    for (part, region) in parts(&space.state.map, range) {
        check_modifiable(region)?;
        if part.start() != next {
            return Err(wrong_state(Errno::Inval));
        }
        is_meant(part, region)?;
        next = part.end();
    }
    if next < range.end() { Err(wrong_state(Errno::Inval)) } else { Ok(()) }
}

/// Seals a draft that answers with `value`, unless it leads to more regions than there may be.
pub(super) fn finish(draft: Draft<'_>, value: u64) -> Result<Plan, Refusal> {
    let (before, after) = (draft.space.state.map.len() as u64, draft.next.map.len() as u64);
    if after > before && after > draft.space.config.regions_max {
        return Err(Errno::NoMem.into());
    }
    draft.finish(Ok(value))
}
