//! mincore(2): `mm/mincore.c`.
//!
//! A byte a page is written up to the first hole, which is reported then. Which pages are resident, and where the bytes
//! go, is the platform's. Pages of a file are all told to be resident to those who have no business knowing.

use super::plan::{Draft, Plan, Refusal, check_not_fixed};
use super::space::{Space, parts};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::is_inside;
use crate::object::{MemoryObject, ObjectKind};
use crate::provider::{Op, PageManagementProvider, Telling};
use crate::region::Region;
use crate::vmmap::Vmmap;

/// Pages that the platform is asked about at once.
const CHUNK: usize = 512;

/// What asking about `len` bytes from `addr` does, with the answer at `vector`. `may_know` tells whether the guest may
/// know which pages of a file are resident.
pub(super) fn plan(
    space: &Space,
    addr: u64,
    len: u64,
    vector: u64,
    may_know: &dyn Fn(&MemoryObject) -> bool,
) -> Result<Plan, Refusal> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::Inval.into());
    }
    if !is_inside(addr, len, space.task_end()) {
        return Err(Errno::NoMem.into());
    }
    let pages = PageCount::from_bytes_up(len);
    if !is_inside(vector, pages.get(), space.task_end()) {
        return Err(Errno::Fault.into());
    }
    let mut draft = Draft::new(space);
    let Some(range) = PageRange::from_pages(VirtAddr::new(addr).page_number(), pages) else {
        return draft.finish(Ok(0));
    };
    let mut next = range.start();
    for (part, region) in parts(&space.state.map, range) {
        if part.start() != next {
            break;
        }
        check_not_fixed(region)?;
        next = part.end();
        let place = VirtAddr::new(vector + (part.first_page() - range.first_page()));
        draft.op(Op::Residency { range: part, vector: place, telling: telling(region, may_know) });
    }
    draft.finish(if next < range.end() { Err(Errno::NoMem.into()) } else { Ok(0) })
}

/// What is told of a region's pages (`can_do_mincore`).
fn telling(region: &Region, may_know: &dyn Fn(&MemoryObject) -> bool) -> Telling {
    let is_known = region.object().is_none_or(|object| match object.kind() {
        ObjectKind::NamedAnonymous => true,
        ObjectKind::ZeroDevice(_) if !region.is_shared() => true,
        ObjectKind::Special => false,
        _ => may_know(object),
    });
    if is_known { Telling::Truth } else { Telling::AllResident }
}

/// Writes a byte for each page of `range` to the guest, from `vector` on.
pub(super) fn tell(
    provider: &mut impl PageManagementProvider,
    map: &Vmmap,
    range: PageRange,
    vector: VirtAddr,
    telling: Telling,
) -> Result<(), Errno> {
    let mut rest = Some(range);
    while let Some(now) = rest {
        let pages = usize::try_from(now.pages().get()).unwrap_or(CHUNK).min(CHUNK);
        let part = PageRange::from_pages(now.first_page(), PageCount::new(pages as u64)).ok_or(Errno::Fault)?;
        let mut bytes = [u8::from(telling == Telling::AllResident); CHUNK];
        if telling == Telling::Truth {
            let mut places = bytes.iter_mut();
            provider.residency(part, map, &mut |is_resident| {
                if let Some(place) = places.next() {
                    *place = is_resident.into();
                }
            });
        }
        let place = vector.checked_add(part.first_page() - range.first_page()).ok_or(Errno::Fault)?;
        provider.store(place, &bytes[..pages], map)?;
        rest = now.from(part.end());
    }
    Ok(())
}
