//! mprotect(2) and pkey_mprotect(2): `mm/mprotect.c:do_mprotect_pkey`.
//!
//! Regions are changed one by one from the low end. The first that cannot be changed, or a hole, ends the
//! call with an error, and what came before it stays changed.

use super::mdwe;
use super::plan::{Cause, Draft, Plan, Refusal, check_modifiable};
use super::space::{Space, State, parts};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::ledger::Resource;
use crate::linux::prot_from_word;
use crate::prot::{Prot, ProtectionKey};
use crate::provider::{KeyedProt, Op};
use crate::region::{Region, RegionFlags};

/// `PROT_SEM`: accepted, without effect on x86.
const PROT_SEM: u64 = 0x8;
/// `PROT_GROWSDOWN`: from the start of a region that grows down.
const PROT_GROWS_DOWN: u64 = 0x0100_0000;
/// `PROT_GROWSUP`: to the end of a region that grows up; there are none.
const PROT_GROWS_UP: u64 = 0x0200_0000;

/// What regions become.
struct Wanted {
    prot: Prot,
    key: WantedKey,
}

enum WantedKey {
    /// The one that the guest has named.
    Named(ProtectionKey),
    /// That of memory that can only be executed.
    ExecuteOnly,
    /// The one that each region has, unless it is that of memory that can only be executed.
    Kept,
}

/// What giving `len` bytes from `addr` the rights of the word `prot`, and the protection key numbered `key` if there
/// is one, does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64, prot: u64, key: Option<i32>) -> Result<Plan, Refusal> {
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
    let key = match key {
        Some(number) => WantedKey::Named(space.state.attributes.keys.given(number).ok_or(Errno::Inval)?),
        None if word == Prot::EXEC.bits().into() => WantedKey::ExecuteOnly,
        None => WantedKey::Kept,
    };
    let whole = PageRange::from_len(VirtAddr::new(addr), len).ok_or(Errno::NoMem)?;
    let range = if grows == 0 { whole } else { start_at_region(space, whole, grows)? };
    protect(space, range, &Wanted { prot: prot_from_word(word), key })
}

/// The key that `region` gets (`__arch_override_mprotect_pkey`).
fn key_for(draft: &mut Draft<'_>, region: &Region, wanted: &Wanted) -> ProtectionKey {
    let features = draft.space.config.features;
    let keys = &mut draft.next.attributes.keys;
    match wanted.key {
        WantedKey::Named(key) => key,
        WantedKey::ExecuteOnly => {
            // The first key, should the guest have freed it, denies nothing.
            let own = keys.for_execute_only(features).filter(|key| *key != ProtectionKey::DEFAULT);
            own.unwrap_or(region.key)
        }
        WantedKey::Kept if region.prot == Prot::EXEC && keys.is_execute_only(region.key) => ProtectionKey::DEFAULT,
        WantedKey::Kept => region.key,
    }
}

/// The range to change, which `PROT_GROWSDOWN` begins where its first region does.
fn start_at_region(space: &Space, whole: PageRange, grows: u64) -> Result<PageRange, Refusal> {
    let first = space.state.map.range(whole).next().ok_or(Errno::NoMem)?;
    if grows == PROT_GROWS_DOWN {
        let is_stack = first.region.flags.contains(RegionFlags::GROWS_DOWN);
        let range = PageRange::new(first.range.start(), whole.end()).ok_or(Errno::NoMem)?;
        return if is_stack { Ok(range) } else { Err(Errno::Inval.into()) };
    }
    let errno = if first.range.start() > whole.start() { Errno::NoMem } else { Errno::Inval };
    Err(errno.into())
}

fn protect(space: &Space, range: PageRange, wanted: &Wanted) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let mut next = range.start();
    for (part, region) in parts(&space.state.map, range) {
        if part.start() != next {
            return draft.finish(Err(Errno::NoMem.into()));
        }
        if let Err(refusal) = protect_part(&mut draft, part, region, wanted) {
            return draft.finish(Err(refusal));
        }
        next = part.end();
    }
    let outcome = if next < range.end() { Err(Errno::NoMem.into()) } else { Ok(0) };
    draft.finish(outcome)
}

fn protect_part(draft: &mut Draft<'_>, part: PageRange, region: &Region, wanted: &Wanted) -> Result<(), Refusal> {
    let space = draft.space;
    let prot = wanted.prot;
    if !region.prot_max.contains(prot) {
        return Err(Errno::Acces.into());
    }
    mdwe::check(space, region.prot, prot)?;
    check_modifiable(region)?;
    let key = key_for(draft, region, wanted);
    if (region.prot, region.key) == (prot, key) {
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
    if is_new_charge {
        draft.ask_for(pages, region.flags)?;
        if !draft.can_commit(pages) {
            return Err(Refusal::new(Errno::NoMem, Cause::Limit(Resource::Committed)));
        }
    }
    set(space, &mut draft.next, part, prot, Some(key))?;
    let keys = draft.next.attributes.keys;
    let keyed = |prot, key| KeyedProt { prot, key: keys.usage(key) };
    draft.op(if region.key == key {
        Op::Protect { range: part, from: region.prot, to: prot }
    } else {
        Op::ProtectKey { range: part, from: keyed(region.prot, region.key), to: keyed(prot, key) }
    });
    Ok(())
}

/// Gives all of `range` the rights `prot`, and `key` if there is one. What has once been writable stays charged.
pub(super) fn set(
    space: &Space,
    state: &mut State,
    range: PageRange,
    prot: Prot,
    key: Option<ProtectionKey>,
) -> Result<(), Errno> {
    state.update(range, |region| {
        region.prot = prot;
        region.key = key.unwrap_or(region.key);
        if space.is_accountable(region) {
            region.flags |= RegionFlags::COMMITTED;
        }
    })
}
