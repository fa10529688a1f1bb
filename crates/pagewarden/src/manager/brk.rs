//! brk(2): `mm/mmap.c:SYSCALL_DEFINE1(brk)`.
//!
//! A refusal is an error here, so that it can be counted and explained. The ABI has none: it answers with the
//! break as it is ([`linux::answer`](crate::linux::answer)).

use super::place::guarded_start;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::prot::Prot;
use crate::provider::{Contents, Op};
use crate::region::{Region, RegionFlags};

/// What moving the break to `addr` does to `space`. Below the start of the heap, the call only asks.
pub(super) fn plan(space: &Space, addr: u64) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    if addr < space.config.brk.start.as_u64() {
        return draft.finish(Ok(space.state.brk.as_u64()));
    }
    move_break(&mut draft, VirtAddr::new(addr)).ok_or(Errno::NoMem)?;
    draft.finish(Ok(addr))
}

/// Moves the break in the draft; `None` if it must stay.
fn move_break(draft: &mut Draft<'_>, to: VirtAddr) -> Option<()> {
    let space = draft.space;
    let brk = &space.config.brk;
    let from = space.state.brk;
    let data = to.as_u64().checked_sub(brk.start.as_u64())?.checked_add(brk.data_bytes)?;
    if data > space.config.limits.data {
        return None;
    }
    let (old, new) = (from.page_up()?, to.page_up()?);
    draft.next.brk = to;
    if old == new {
        return Some(());
    }
    let contents =
        if to <= from { shrink(draft, PageRange::new(new, old)?) } else { grow(draft, PageRange::new(old, new)?) }?;
    draft.op(Op::SetBreak { from, to, contents });
    Some(())
}

fn shrink(draft: &mut Draft<'_>, gone: PageRange) -> Option<Contents> {
    let is_mapped = draft.check_modifiable(gone).ok()?;
    if is_mapped { draft.next.remove(gone).ok() } else { None }
}

fn grow(draft: &mut Draft<'_>, added: PageRange) -> Option<Contents> {
    let space = draft.space;
    let mut region = Region::anonymous(Prot::READ | Prot::WRITE);
    region.flags = space.state.lock_future;
    let pages = added.pages().get();
    if added.end().as_u64() > space.task_end() || !space.may_lock(&space.state.totals, &region, pages) {
        return None;
    }
    let map = &space.state.map;
    if let Some(next) = map.at_or_after(added.start()) {
        // A page stays free between the heap and its neighbour, or the neighbour's guard gap.
        if added.end().as_u64() + PAGE_SIZE > guarded_start(&next) {
            return None;
        }
    }
    let is_full = map.len() as u64 > space.config.regions_max;
    if is_full || !space.may_expand(&space.state.totals, &region, pages) {
        return None;
    }
    draft.ask_for(pages, region.flags).ok()?;
    region.flags |= RegionFlags::COMMITTED;
    draft.next.insert(added, region).ok()?;
    Some(Contents::Other)
}
