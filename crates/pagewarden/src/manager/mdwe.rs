//! Memory that is writable and executable: prctl(2) with `PR_SET_MDWE` (`kernel/sys.c`), which a guest sets for
//! itself, and [`WxPolicy::Deny`], which is set for it. Both are one rule
//! (`include/linux/mman.h:map_deny_write_exec`).

use super::config::WxPolicy;
use super::plan::{Cause, Draft, Plan, Refusal};
use super::space::Space;
use crate::error::Errno;
use crate::linux::MdweFlags;
use crate::prot::Prot;
use crate::provider::Op;

impl MdweFlags {
    /// What a child has of them, and a program that is executed (`include/linux/sched/coredump.h:mmf_init_flags`).
    #[must_use]
    pub const fn inherited(self) -> Self {
        if self.contains(Self::NO_INHERIT) { Self::empty() } else { self }
    }
}

/// What setting `flags` does to `space`.
pub(super) fn plan_set(space: &Space, flags: MdweFlags) -> Result<Plan, Refusal> {
    let known = MdweFlags::REFUSE_EXEC_GAIN | MdweFlags::NO_INHERIT;
    if !known.contains(flags) || flags == MdweFlags::NO_INHERIT {
        return Err(Errno::Inval.into());
    }
    let now = space.state.attributes.mdwe;
    if !now.is_empty() && now != flags {
        return Err(Errno::Perm.into());
    }
    let mut draft = Draft::new(space);
    if now != flags {
        draft.next.attributes.mdwe = flags;
        draft.op(Op::DenyExecGain { flags });
    }
    draft.finish(Ok(0))
}

/// The flags that are set.
pub(super) fn plan_get(space: &Space) -> Result<Plan, Refusal> {
    Draft::new(space).finish(Ok(space.state.attributes.mdwe.bits()))
}

/// Refuses to give `after` to pages that had `before`. Those of a new region had the same before.
pub(super) fn check(space: &Space, before: Prot, after: Prot) -> Result<(), Refusal> {
    let gains = after.contains(Prot::EXEC) && (after.contains(Prot::WRITE) || !before.contains(Prot::EXEC));
    if !gains {
        return Ok(());
    }
    // What Linux would refuse too is not put down to the policy.
    if space.state.attributes.mdwe.contains(MdweFlags::REFUSE_EXEC_GAIN) {
        return Err(Refusal::new(Errno::Acces, Cause::Linux));
    }
    match space.config.policy.wx {
        WxPolicy::Allow => Ok(()),
        WxPolicy::Deny => Err(Refusal::new(Errno::Acces, Cause::WxPolicy)),
    }
}
