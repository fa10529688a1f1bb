//! mprotect(2): `mm/mprotect.c:do_mprotect_pkey`.
//!
//! Regions are changed one by one from the low end. The first that cannot be changed, or a hole, ends the
//! call with an error, and what came before it stays changed.

use super::config::WxPolicy;
use super::plan::{Cause, Draft, Plan, Refusal, check_modifiable};
use super::space::{Space, State, parts};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::ledger::Resource;
use crate::linux::prot_from_word;
use crate::prot::Prot;
use crate::provider::Op;
use crate::region::{Region, RegionFlags};

/// `PROT_SEM`: accepted, without effect on x86.
const PROT_SEM: u64 = 0x8;
/// `PROT_GROWSDOWN`: from the start of a region that grows down.
const PROT_GROWS_DOWN: u64 = 0x0100_0000;
/// `PROT_GROWSUP`: to the end of a region that grows up; there are none.
const PROT_GROWS_UP: u64 = 0x0200_0000;

/// What giving `len` bytes from `addr` the rights of the word `prot` does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64, prot: u64) -> Result<Plan, Refusal> {
    let grows = prot & (PROT_GROWS_DOWN | PROT_GROWS_UP);
    let word = prot & !(PROT_GROWS_DOWN | PROT_GROWS_UP);
    if grows == PROT_GROWS_DOWN | PROT_GROWS_UP || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::Inval.into());
    }
    if len == 0 {
        return Draft::new(space).finish(Ok(0));
    }
    let len = round_up(len, PAGE_SIZE);
    if addr.wrapping_add(len) <= addr {
        return Err(Errno::NoMem.into());
    }
    if word & !(u64::from(Prot::all().bits()) | PROT_SEM) != 0 {
        return Err(Errno::Inval.into());
    }
    let range = start_at_region(space, addr, len, grows)?;
    protect(space, range, prot_from_word(word))
}

/// The range to change; for `PROT_GROWSDOWN` it begins where its first region does.
fn start_at_region(space: &Space, addr: u64, len: u64, grows: u64) -> Result<PageRange, Refusal> {
    let whole = PageRange::from_len(VirtAddr::new(addr), len).ok_or(Errno::NoMem)?;
    let first = space.state.map.range(whole).next().ok_or(Errno::NoMem)?;
    match grows {
        PROT_GROWS_DOWN if !first.region.flags.contains(RegionFlags::GROWS_DOWN) => Err(Errno::Inval.into()),
        PROT_GROWS_DOWN => Ok(PageRange::new(first.range.start(), whole.end()).ok_or(Errno::NoMem)?),
        _ if first.range.start() > whole.start() => Err(Errno::NoMem.into()),
        PROT_GROWS_UP => Err(Errno::Inval.into()),
        _ => Ok(whole),
    }
}

fn protect(space: &Space, range: PageRange, prot: Prot) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let mut next = range.start();
    for (part, region) in parts(&space.state.map, range) {
        if part.start() != next {
            return draft.finish(Err(Errno::NoMem.into()));
        }
        if let Err(refusal) = protect_part(&mut draft, part, region, prot) {
            return draft.finish(Err(refusal));
        }
        next = part.end();
    }
    let outcome = if next < range.end() { Err(Errno::NoMem.into()) } else { Ok(0) };
    draft.finish(outcome)
}

fn protect_part(draft: &mut Draft<'_>, part: PageRange, region: &Region, prot: Prot) -> Result<(), Refusal> {
    let space = draft.space;
    if !region.prot_max.contains(prot) {
        return Err(Errno::Acces.into());
    }
    check_wx(space, region, prot)?;
    check_modifiable(region)?;
    if region.prot == prot {
        return Ok(());
    }
    let mut changed = region.clone();
    changed.prot = prot;
    let pages = part.pages().get();
    if prot.contains(Prot::WRITE) {
        let totals = &draft.next.totals;
        if !space.may_expand(totals, &changed, pages) && space.may_expand(totals, region, pages) {
            return Err(Errno::NoMem.into());
        }
    }
    let is_new_charge = space.is_accountable(&changed) && !region.flags.contains(RegionFlags::COMMITTED);
    if is_new_charge && !draft.can_commit(pages) {
        return Err(Refusal::new(Errno::NoMem, Cause::Limit(Resource::Committed)));
    }
    set(space, &mut draft.next, part, prot)?;
    draft.op(Op::Protect { range: part, from: region.prot, to: prot });
    Ok(())
}

/// Gives all of `range` the rights `prot`. What has once been writable stays charged.
pub(super) fn set(space: &Space, state: &mut State, range: PageRange, prot: Prot) -> Result<(), Errno> {
    state.update(range, |region| {
        region.prot = prot;
        if space.is_accountable(region) {
            region.flags |= RegionFlags::COMMITTED;
        }
    })
}

/// W^X at mprotect (`include/linux/mman.h:map_deny_write_exec`).
fn check_wx(space: &Space, region: &Region, prot: Prot) -> Result<(), Refusal> {
    let becomes_exec = prot.contains(Prot::EXEC) && !region.prot.contains(Prot::EXEC);
    let is_denied = becomes_exec || prot.contains(Prot::WRITE | Prot::EXEC);
    if space.config.policy.wx == WxPolicy::Deny && is_denied {
        return Err(Refusal::new(Errno::Acces, Cause::WxPolicy));
    }
    Ok(())
}
