//! madvise(2): `mm/madvise.c:do_madvise`.
//!
//! Regions are visited from the low end. One that the advice does not suit ends the call with an error;
//! a hole is stepped over and reported at the end. Which advices the kernel was built with, and what only
//! a look at the pages can tell, is the platform's answer.

use super::config::Privileges;
use super::plan::{Draft, Plan, Refusal, check_modifiable, check_not_fixed};
use super::space::{Space, State, parts};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, round_up};
use crate::error::Errno;
use crate::linux::Advice;
use crate::object::ObjectKind;
use crate::prot::Prot;
use crate::provider::Op;
use crate::region::{Backing, Region, RegionFlags};

/// Regions of pages that are not ordinary memory (`VM_SPECIAL`).
const SPECIAL: RegionFlags = RegionFlags::PFN_MAP.union(RegionFlags::DONT_EXPAND);

/// What giving `advice` about `len` bytes from `addr` does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64, advice: i32) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let outcome = advise(&mut draft, addr, len, advice)?;
    draft.finish(outcome.map(|()| 0))
}

/// How a call that could be planned will end.
pub(super) type Outcome = Result<(), Refusal>;

/// Notes what the advice does on top of `draft`, and how it ends.
///
/// # Errors
/// No memory to plan it; the draft is of no use then.
pub(super) fn advise(draft: &mut Draft<'_>, addr: u64, len: u64, advice: i32) -> Result<Outcome, Errno> {
    let is_known = |advice: &Advice| draft.space.config.features.knows(*advice);
    let Some(advice) = Advice::from_raw(advice).filter(is_known) else { return Ok(Err(Errno::Inval.into())) };
    let range = match named_range(addr, len) {
        Ok(Some(range)) => range,
        Ok(None) => return Ok(Ok(())),
        Err(errno) => return Ok(Err(errno.into())),
    };
    if matches!(advice, Advice::HwPoison | Advice::SoftOffline) {
        return Ok(offline(draft, range, advice));
    }
    visit(draft, range, advice)
}

/// The pages that a call about `len` bytes from `addr` names, if any; also for names.
pub(super) fn named_range(addr: u64, len: u64) -> Result<Option<PageRange>, Errno> {
    let rounded = round_up(len, PAGE_SIZE);
    let is_wrapped = len != 0 && rounded == 0 || addr.checked_add(rounded).is_none();
    if !addr.is_multiple_of(PAGE_SIZE) || is_wrapped {
        return Err(Errno::Inval);
    }
    match rounded {
        0 => Ok(None),
        _ => PageRange::from_len(VirtAddr::new(addr), rounded).ok_or(Errno::Inval).map(Some),
    }
}

/// Taking frames out of use is for administrators.
fn offline(draft: &mut Draft<'_>, range: PageRange, advice: Advice) -> Outcome {
    if !draft.space.config.privileges.contains(Privileges::ADMIN) {
        return Err(Errno::Perm.into());
    }
    draft.op(Op::Advise { range, advice });
    Ok(())
}

fn visit(draft: &mut Draft<'_>, range: PageRange, advice: Advice) -> Result<Outcome, Errno> {
    let map = draft.next.map.clone();
    let mut run: Option<PageRange> = None;
    let mut next = range.start();
    let mut has_hole = false;
    let stops_at_hole = matches!(advice, Advice::PopulateRead | Advice::PopulateWrite);
    for (part, region) in parts(&map, range) {
        if part.start() != next {
            has_hole = true;
            if stops_at_hole {
                break;
            }
        }
        if let Err(refusal) = suits(region, advice) {
            flush(draft, run, advice)?;
            return Ok(Err(refusal));
        }
        run = match run {
            Some(before) if before.end() == part.start() => PageRange::new(before.start(), part.end()),
            before => {
                flush(draft, before, advice)?;
                Some(part)
            }
        };
        next = part.end();
    }
    has_hole |= next < range.end();
    flush(draft, run, advice)?;
    Ok(if has_hole { Err(Errno::NoMem.into()) } else { Ok(()) })
}

/// Applies the advice to a run of regions without a hole.
fn flush(draft: &mut Draft<'_>, run: Option<PageRange>, advice: Advice) -> Result<(), Errno> {
    let Some(range) = run else { return Ok(()) };
    mark(&mut draft.next, range, advice)?;
    draft.op(Op::Advise { range, advice });
    Ok(())
}

/// What the advice changes in the map.
pub(super) fn mark(state: &mut State, range: PageRange, advice: Advice) -> Result<(), Errno> {
    let (set, clear) = effect(advice);
    if (set | clear).is_empty() {
        return Ok(());
    }
    state.update(range, |region| {
        // Pages that others see, and pages that may be dropped, are never merged (`vma_ksm_compatible`).
        let is_exempt = region.is_shared() || region.flags.intersects(SPECIAL | RegionFlags::DROPPABLE);
        if advice == Advice::Mergeable && is_exempt {
            return;
        }
        region.flags.remove(clear);
        region.flags.insert(set);
    })
}

/// Flags that an advice sets and clears.
const fn effect(advice: Advice) -> (RegionFlags, RegionFlags) {
    const NONE: RegionFlags = RegionFlags::empty();
    match advice {
        Advice::Normal => (NONE, RegionFlags::SEQUENTIAL.union(RegionFlags::RANDOM)),
        Advice::Sequential => (RegionFlags::SEQUENTIAL, RegionFlags::RANDOM),
        Advice::Random => (RegionFlags::RANDOM, RegionFlags::SEQUENTIAL),
        Advice::DontFork => (RegionFlags::DONT_FORK, NONE),
        Advice::DoFork => (NONE, RegionFlags::DONT_FORK),
        Advice::WipeOnFork => (RegionFlags::WIPE_ON_FORK, NONE),
        Advice::KeepOnFork => (NONE, RegionFlags::WIPE_ON_FORK),
        Advice::DontDump => (RegionFlags::DONT_DUMP, NONE),
        Advice::DoDump => (NONE, RegionFlags::DONT_DUMP),
        Advice::Mergeable => (RegionFlags::MERGEABLE, NONE),
        Advice::Unmergeable => (NONE, RegionFlags::MERGEABLE),
        Advice::HugePage => (RegionFlags::HUGE_PAGE, RegionFlags::NO_HUGE_PAGE),
        Advice::NoHugePage => (RegionFlags::NO_HUGE_PAGE, RegionFlags::HUGE_PAGE),
        _ => (NONE, NONE),
    }
}

/// Whether the region is anonymous memory by way of `/dev/zero`.
fn is_zero_device(region: &Region) -> bool {
    !region.is_shared() && region.object().is_some_and(|object| matches!(object.kind(), ObjectKind::ZeroDevice(_)))
}

/// Whether `region` is private anonymous memory to Linux (`vma_is_anonymous`).
fn is_anonymous(region: &Region) -> bool {
    let is_named = region.object().is_some_and(|object| *object.kind() == ObjectKind::NamedAnonymous);
    !region.is_shared() && (region.object().is_none() || is_named) || is_zero_device(region)
}

/// Refuses to discard pages of a sealed region that the guest could not overwrite; those of files it may
/// (`can_madvise_modify`). What the protection key of a region denies to the calling thread, only the platform knows.
fn check_discard(region: &Region, advice: Advice) -> Result<(), Refusal> {
    let is_discard = matches!(
        advice,
        Advice::Free
            | Advice::DontNeed
            | Advice::DontNeedLocked
            | Advice::Remove
            | Advice::DontFork
            | Advice::WipeOnFork
            | Advice::GuardInstall
    );
    let is_protected = is_anonymous(region) && !region.prot.contains(Prot::WRITE);
    if is_discard && is_protected { check_modifiable(region) } else { Ok(()) }
}

/// Whether `region` may be given `advice` (`madvise_vma_behavior` and what it calls).
fn suits(region: &Region, advice: Advice) -> Result<(), Refusal> {
    check_not_fixed(region)?;
    check_discard(region, advice)?;
    let flags = region.flags;
    let is_plain = matches!(region.backing, Backing::Anonymous) && !region.is_shared();
    let inval_if = |is_bad: bool| if is_bad { Err(Errno::Inval.into()) } else { Ok(()) };
    match advice {
        Advice::DontNeed | Advice::DontNeedLocked | Advice::Free => {
            let is_locked = flags.contains(RegionFlags::LOCKED) && advice != Advice::DontNeedLocked;
            inval_if(flags.contains(RegionFlags::PFN_MAP) || is_locked)?;
            inval_if(advice == Advice::Free && !is_plain && !is_zero_device(region))
        }
        Advice::Remove => {
            inval_if(flags.contains(RegionFlags::LOCKED) || region.object().is_none())?;
            let is_shared_writable = region.is_shared() && region.prot_max.contains(Prot::WRITE);
            if is_shared_writable { Ok(()) } else { Err(Errno::Acces.into()) }
        }
        Advice::Cold | Advice::PageOut => inval_if(flags.intersects(RegionFlags::LOCKED | RegionFlags::PFN_MAP)),
        Advice::WipeOnFork => inval_if(!is_plain),
        Advice::KeepOnFork => inval_if(flags.contains(RegionFlags::DROPPABLE)),
        Advice::DoFork => inval_if(flags.contains(RegionFlags::PFN_MAP)),
        Advice::DoDump => inval_if(flags.intersects(SPECIAL | RegionFlags::DROPPABLE)),
        Advice::PopulateRead => inval_if(!region.prot.contains(Prot::READ)),
        Advice::PopulateWrite => inval_if(!region.prot.contains(Prot::WRITE)),
        Advice::GuardInstall => inval_if(flags.intersects(SPECIAL | RegionFlags::LOCKED)),
        Advice::GuardRemove => inval_if(flags.intersects(SPECIAL)),
        _ => Ok(()),
    }
}
