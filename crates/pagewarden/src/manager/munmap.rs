//! munmap(2): `mm/vma.c:do_vmi_munmap`.

use super::mmap::check_split;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;

/// What unmapping `len` bytes from `addr` does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64) -> Result<Plan, Refusal> {
    let is_inside = addr <= space.task_end() && len <= space.task_end() - addr;
    let start = VirtAddr::new(addr);
    if !start.is_page_aligned() || !is_inside {
        return Err(Errno::Inval.into());
    }
    let range = PageRange::from_len(start, len).ok_or(Errno::Inval)?;
    let mut draft = Draft::new(space);
    unmap(&mut draft, range)?;
    draft.finish(Ok(0))
}

/// Unmaps what is in `range`; nothing at all is no error.
pub(super) fn unmap(draft: &mut Draft<'_>, range: PageRange) -> Result<(), Refusal> {
    check_split(draft.space, range)?;
    if draft.check_modifiable(range)? {
        draft.unmap(range)?;
    }
    Ok(())
}
