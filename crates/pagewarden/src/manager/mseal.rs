//! mseal(2): `mm/mseal.c:do_mseal`.
//!
//! A sealed region stays where it is and as it is: who changes regions asks
//! [`check_modifiable`](super::plan::check_modifiable) first. What a seal does not forbid: locking, naming, growing
//! down, and all advice but such as discards what the guest could not overwrite.

use super::plan::{Draft, Plan, Refusal, check_not_fixed};
use super::space::{Space, parts};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::provider::Op;
use crate::region::RegionFlags;

/// What sealing `len` bytes from `addr` does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64, flags: u64) -> Result<Plan, Refusal> {
    let rounded = round_up(len, PAGE_SIZE);
    let is_wrapped = len != 0 && rounded == 0 || addr.checked_add(rounded).is_none();
    if flags != 0 || !addr.is_multiple_of(PAGE_SIZE) || is_wrapped {
        return Err(Errno::Inval.into());
    }
    let mut draft = Draft::new(space);
    if rounded == 0 {
        return draft.finish(Ok(0));
    }
    let range = PageRange::from_len(VirtAddr::new(addr), rounded).ok_or(Errno::NoMem)?;
    let mut next = range.start();
    let mut has_new = false;
    for (part, region) in parts(&space.state.map, range) {
        if part.start() != next {
            return Err(Errno::NoMem.into());
        }
        check_not_fixed(region)?;
        next = part.end();
        has_new |= !region.flags.contains(RegionFlags::SEALED);
    }
    if next != range.end() {
        return Err(Errno::NoMem.into());
    }
    if has_new {
        draft.next.update(range, |region| region.flags |= RegionFlags::SEALED)?;
        draft.op(Op::Seal { range });
    }
    draft.finish(Ok(0))
}
