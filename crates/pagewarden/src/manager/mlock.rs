//! mlock(2), mlock2(2), munlock(2), mlockall(2), munlockall(2): `mm/mlock.c`.

use alloc::vec::Vec;

use super::config::Privileges;
use super::plan::{Draft, Plan, Refusal, check_not_fixed};
use super::space::{Space, parts};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::linux::LockAllFlags;
use crate::provider::{Lock, Op};
use crate::region::{Region, RegionFlags};

/// `MLOCK_ONFAULT`.
const ON_FAULT: u64 = 1;
/// Both flags of a locked region.
const BOTH: RegionFlags = RegionFlags::LOCKED.union(RegionFlags::LOCK_ON_FAULT);

/// What locking `len` bytes from `addr` does to `space`.
pub(super) fn plan_lock(space: &Space, addr: u64, len: u64, flags: u64) -> Result<Plan, Refusal> {
    if flags & !ON_FAULT != 0 {
        return Err(Errno::Inval.into());
    }
    if !space.can_lock() {
        return Err(Errno::Perm.into());
    }
    let (start, len) = whole_pages(addr, len);
    check_limit(space, start, len)?;
    let lock = if flags & ON_FAULT == 0 { Lock::Now } else { Lock::OnFault };
    set_lock(space, start, len, lock)
}

/// What unlocking `len` bytes from `addr` does to `space`.
pub(super) fn plan_unlock(space: &Space, addr: u64, len: u64) -> Result<Plan, Refusal> {
    let (start, len) = whole_pages(addr, len);
    set_lock(space, start, len, Lock::Released)
}

/// The pages that hold the bytes, as the kernel rounds: sums may wrap.
const fn whole_pages(addr: u64, len: u64) -> (u64, u64) {
    let inside = addr & (PAGE_SIZE - 1);
    let len = round_up(len.wrapping_add(inside), PAGE_SIZE);
    (addr - inside, len)
}

fn check_limit(space: &Space, start: u64, len: u64) -> Result<(), Refusal> {
    if space.config.privileges.contains(Privileges::LOCK) {
        return Ok(());
    }
    let limit = PageCount::from_bytes_down(space.config.limits.locked).get();
    let mut locked =
        PageCount::from_bytes_down(len).get() + space.state.totals.locked_pages + space.state.left_locked_pages;
    if locked > limit {
        let in_space = len.min(space.task_end().saturating_sub(start));
        let already = PageRange::from_len(VirtAddr::new(start), in_space).map_or(0, |range| {
            let locked =
                parts(&space.state.map, range).filter(|(_, region)| region.flags.contains(RegionFlags::LOCKED));
            locked.map(|(part, _)| part.pages().get()).sum()
        });
        locked = locked.saturating_sub(already);
    }
    if locked > limit { Err(Errno::NoMem.into()) } else { Ok(()) }
}

/// Sets the lock of each region from the low end up to the first hole (`apply_vma_lock_flags`).
fn set_lock(space: &Space, start: u64, len: u64, lock: Lock) -> Result<Plan, Refusal> {
    if start.checked_add(len).is_none() {
        return Err(Errno::Inval.into());
    }
    let mut draft = Draft::new(space);
    let Some(range) = PageRange::from_len(VirtAddr::new(start), len) else {
        return draft.finish(Ok(0));
    };
    let mut next = range.start();
    for (part, region) in parts(&space.state.map, range) {
        if part.start() != next {
            break;
        }
        check_not_fixed(region)?;
        next = part.end();
    }
    if let Some(done) = PageRange::new(range.start(), next) {
        draft.next.update(done, |region| relock(region, lock))?;
        // The platform is told of the whole range: where it has a hole, nothing is made resident.
        draft.op(Op::Lock { range, mapped: done, lock });
    }
    draft.finish(if next < range.end() { Err(Errno::NoMem.into()) } else { Ok(0) })
}

/// Pages that are not ordinary memory are never locked.
const NEVER_LOCKED: RegionFlags =
    RegionFlags::PFN_MAP.union(RegionFlags::DONT_EXPAND).union(RegionFlags::DROPPABLE).union(RegionFlags::FIXED);

fn relock(region: &mut Region, lock: Lock) {
    if region.flags.intersects(NEVER_LOCKED) {
        return;
    }
    region.flags -= BOTH;
    region.flags |= match lock {
        Lock::Now => RegionFlags::LOCKED,
        Lock::OnFault => BOTH,
        Lock::Released => RegionFlags::empty(),
    };
}

/// What mlockall with the word `flags` does to `space`.
pub(super) fn plan_lock_all(space: &Space, flags: u64) -> Result<Plan, Refusal> {
    let flags = LockAllFlags::from_bits_retain(flags);
    let known = LockAllFlags::CURRENT | LockAllFlags::FUTURE | LockAllFlags::ON_FAULT;
    if flags.is_empty() || !known.contains(flags) || flags == LockAllFlags::ON_FAULT {
        return Err(Errno::Inval.into());
    }
    if !space.can_lock() {
        return Err(Errno::Perm.into());
    }
    let limit = PageCount::from_bytes_down(space.config.limits.locked).get();
    let is_over = flags.contains(LockAllFlags::CURRENT) && space.state.totals.virtual_pages > limit;
    if is_over && !space.config.privileges.contains(Privileges::LOCK) {
        return Err(Errno::NoMem.into());
    }
    set_all(space, flags)
}

/// What munlockall does to `space`.
pub(super) fn plan_unlock_all(space: &Space) -> Result<Plan, Refusal> {
    set_all(space, LockAllFlags::empty())
}

fn set_all(space: &Space, flags: LockAllFlags) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let lock = if flags.contains(LockAllFlags::ON_FAULT) { Lock::OnFault } else { Lock::Now };
    let wanted = if lock == Lock::OnFault { BOTH } else { RegionFlags::LOCKED };
    let is_future = flags.contains(LockAllFlags::FUTURE);
    draft.next.lock_future = if is_future { wanted } else { RegionFlags::empty() };
    let is_current = flags.contains(LockAllFlags::CURRENT);
    // With MCL_FUTURE alone the regions of now stay as they are; otherwise they are locked or unlocked.
    let mut mapped = Vec::new();
    if is_current || !is_future {
        let lock = if is_current { lock } else { Lock::Released };
        let all = PageRange::new(VirtAddr::new(0), space.config.layout.task_end).ok_or(Errno::NoMem)?;
        draft.next.update(all, |region| relock(region, lock))?;
        mapped = ranges(space)?;
    }
    draft.op(Op::LockAll { flags, mapped });
    draft.finish(Ok(0))
}

/// The ranges of all regions.
fn ranges(space: &Space) -> Result<Vec<PageRange>, Errno> {
    let map = &space.state.map;
    let mut ranges = Vec::new();
    ranges.try_reserve_exact(map.len()).map_err(|_| Errno::NoMem)?;
    ranges.extend(map.iter().map(|entry| entry.range));
    Ok(ranges)
}
