//! msync(2): `mm/msync.c`.
//!
//! Regions are visited from the low end; a hole is stepped over and reported at the end. Linux looks no further at a hole
//! if there is nothing to do anyway, which nobody can tell.

use super::plan::{Draft, Plan, Refusal, check_not_fixed};
use super::remap_pages::is_writable_file;
use super::space::{Space, parts};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::linux::SyncFlags;
use crate::provider::Op;
use crate::region::RegionFlags;

/// What syncing `len` bytes from `addr` by the word `flags` does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64, flags: u64) -> Result<Plan, Refusal> {
    let flags = SyncFlags::from_bits_retain(flags);
    let is_known = (SyncFlags::ASYNC | SyncFlags::INVALIDATE | SyncFlags::SYNC).contains(flags);
    if !is_known || !addr.is_multiple_of(PAGE_SIZE) || flags.contains(SyncFlags::ASYNC | SyncFlags::SYNC) {
        return Err(Errno::Inval.into());
    }
    let len = round_up(len, PAGE_SIZE);
    if len == 0 {
        return Draft::new(space).finish(Ok(0));
    }
    let range = PageRange::from_len(VirtAddr::new(addr), len).ok_or(Errno::NoMem)?;
    visit(space, range, flags)
}

fn visit(space: &Space, range: PageRange, flags: SyncFlags) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let mut next = range.start();
    let mut has_hole = false;
    for (part, region) in parts(&space.state.map, range) {
        check_not_fixed(region)?;
        has_hole |= part.start() != next;
        next = part.end();
        if flags.contains(SyncFlags::INVALIDATE) && region.flags.contains(RegionFlags::LOCKED) {
            return draft.finish(Err(Errno::Busy.into()));
        }
        if flags.contains(SyncFlags::SYNC) && is_writable_file(region) {
            draft.op(Op::Sync { range: part, flags });
        }
    }
    has_hole |= next < range.end();
    draft.finish(if has_hole { Err(Errno::NoMem.into()) } else { Ok(0) })
}
