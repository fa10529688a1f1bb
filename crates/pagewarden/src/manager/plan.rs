//! A plan, and the draft that it is written as.
//!
//! A [`Draft`] edits a copy of the state and notes the operations that make the platform agree. Copying is
//! cheap: the map is persistent. [`Draft::finish`] checks the account and seals the draft as a [`Plan`].

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use smallvec::SmallVec;

use super::space::{Space, State, parts};
use crate::addr::{PageCount, PageRange};
use crate::error::Errno;
use crate::ledger::Resource;
use crate::object::MemoryObject;
use crate::prot::Prot;
use crate::provider::{Op, Populate, Target};
use crate::region::{Region, RegionFlags};

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What the guest is told.
    pub errno: Errno,
    /// Whose decision it was.
    pub cause: Cause,
}

/// Whose decision a refusal was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Linux would refuse it too.
    Linux,
    /// An account has too little left of this.
    Limit(Resource),
    /// Writable and executable memory is not allowed.
    WxPolicy,
    /// The pages belong to the platform.
    FixedRegion,
    /// The pages are not in the state that a capability's call needs.
    PageState,
    /// The platform could not do it.
    Platform,
}

impl Refusal {
    pub(super) const fn new(errno: Errno, cause: Cause) -> Self {
        Self { errno, cause }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::new(errno, Cause::Linux)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.errno, self.cause)
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "Linux",
            Self::Limit(Resource::Virtual) => "reserve limit",
            Self::Limit(Resource::Committed) => "commit limit",
            Self::Limit(Resource::Locked) => "lock limit",
            Self::Limit(Resource::Regions) => "map limit",
            Self::Limit(Resource::Frames) => "frame limit",
            Self::Limit(Resource::TableFrames) => "table limit",
            Self::Limit(Resource::Capabilities) => "capability limit",
            Self::WxPolicy => "W^X policy",
            Self::FixedRegion => "fixed region",
            Self::PageState => "state of the pages",
            Self::Platform => "platform",
        })
    }
}

/// What a request will do: operations, the state they lead to, and the answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Operations in order; what cannot be undone comes last. Most plans have one, which takes no allocation here.
    pub(super) ops: SmallVec<[Op; 1]>,
    /// The state to publish when all operations have succeeded.
    pub(super) next: State,
    /// An object that the request makes, and the pages it costs.
    pub(super) object: Option<(Arc<MemoryObject>, PageCount)>,
    /// What all promises together must stay below (overcommit mode 2).
    pub(super) promise_bound: Option<u64>,
    /// What the guest is told when all operations have succeeded. An error here is one that Linux gives
    /// together with a partial effect.
    pub(super) outcome: Result<u64, Refusal>,
    /// The generation of the space that the plan is for.
    pub(super) generation: u64,
    /// Where the request may end half-way, lowest first: Linux keeps what it has done and tells how much that was.
    pub(super) checkpoints: Vec<Checkpoint>,
}

/// What stands of a request when an operation after this point fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkpoint {
    /// So many operations have run.
    pub(super) ops: usize,
    /// What the guest is told.
    pub(super) value: u64,
}

impl Plan {
    /// The operations, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What the guest is told when the operation at `index` fails: the value of the last checkpoint before it, if there
    /// is one.
    pub(super) fn value_before(&self, index: usize) -> Option<u64> {
        self.checkpoints.iter().rfind(|point| point.ops <= index).map(|point| point.value)
    }

    /// Whether the effect stands although the platform reports an error. Locking marks the pages first and makes
    /// them resident then; only the second step fails (`mm/mlock.c:do_mlock`), and the marks stay.
    pub(super) fn holds_when_it_fails(&self) -> bool {
        matches!(self.ops.as_slice(), [Op::Lock { .. }])
    }

    /// Why the request is refused when the platform fails with `errno`. A lock over a hole is refused by both.
    pub(super) fn refusal_for(&self, errno: Errno) -> Refusal {
        match self.outcome {
            Err(refusal) if self.holds_when_it_fails() && refusal.errno == errno => refusal,
            _ => Refusal::new(errno, Cause::Platform),
        }
    }

    /// Gives back what the object of the request was charged: it has come to nothing, whoever else holds the plan.
    pub(super) fn give_object_back(&self) {
        if let Some((object, pages)) = &self.object
            && let Some(charge) = object.charge()
        {
            charge.give_back(pages.get());
        }
    }

    /// What the guest will be told.
    ///
    /// # Errors
    /// The error that goes with a partial effect.
    pub const fn outcome(&self) -> Result<u64, Refusal> {
        self.outcome
    }
}

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) space: &'a Space,
    pub(super) next: State,
    ops: SmallVec<[Op; 1]>,
    object: Option<(Arc<MemoryObject>, PageCount)>,
    checkpoints: Vec<Checkpoint>,
    /// The state changes even if there is nothing to do for the platform and the outcome is an error.
    keeps_state: bool,
    promise_bound: Option<u64>,
    /// What Linux says where locked memory runs out: it differs from call to call.
    lock_errno: Errno,
}

impl<'a> Draft<'a> {
    pub(super) fn new(space: &'a Space) -> Self {
        Self {
            space,
            next: space.state.clone(),
            ops: SmallVec::new(),
            object: None,
            checkpoints: Vec::new(),
            keeps_state: false,
            promise_bound: None,
            lock_errno: Errno::NoMem,
        }
    }

    /// Running out of locked memory is reported as `errno`.
    pub(super) fn lock_errno(&mut self, errno: Errno) {
        self.lock_errno = errno;
    }

    /// What has changed in the state stays whatever the outcome.
    pub(super) fn keep_state(&mut self) {
        self.keeps_state = true;
    }

    /// The request makes `object`, which costs `pages` by itself.
    pub(super) fn make_object(&mut self, object: Arc<MemoryObject>, pages: PageCount) {
        self.object = Some((object, pages));
    }

    /// All promises together must stay below `bound`.
    pub(super) fn promise_bound(&mut self, bound: u64) {
        self.promise_bound = Some(bound);
    }

    /// Notes an operation. If there is no memory for it, [`Self::finish`] says so.
    pub(super) fn op(&mut self, op: Op) {
        match self.ops.try_reserve(1) {
            Ok(()) => self.ops.push(op),
            Err(_) => self.next.is_torn = true,
        }
    }

    /// What has been noted so far stands, whatever the platform says later; the guest is told `value` then.
    pub(super) fn checkpoint(&mut self, value: u64) {
        match self.checkpoints.try_reserve(1) {
            Ok(()) => self.checkpoints.push(Checkpoint { ops: self.ops.len(), value }),
            Err(_) => self.next.is_torn = true,
        }
    }

    /// What is mapped in `range` goes, in the map and on the platform.
    pub(super) fn unmap(&mut self, range: PageRange) -> Result<(), Errno> {
        let contents = self.next.remove(range)?;
        self.op(Op::Unmap { range, contents });
        Ok(())
    }

    /// Maps `region` in the free `range`, in the map and on the platform; its pages come as they are touched.
    pub(super) fn map_vacant(&mut self, range: PageRange, region: Region) -> Result<(), Errno> {
        self.op(Op::Map { range, region: region.clone(), target: Target::Vacant, populate: Populate::OnDemand });
        self.next.insert(range, region)
    }

    /// Notes that the platform gives the mapped `range` the rights `prot`, where it has others.
    pub(super) fn protect(&mut self, range: PageRange, prot: Prot) {
        for (part, region) in parts(&self.space.state.map, range).filter(|(_, region)| region.prot != prot) {
            self.op(Op::Protect { range: part, from: region.prot, to: prot });
        }
    }

    /// Gives `range` to `region` in the map; `Target::Replace` removes what is there.
    pub(super) fn place(&mut self, range: PageRange, region: Region, target: Target) -> Result<(), Errno> {
        match target {
            Target::Replace => self.next.replace(range, region),
            Target::Vacant => self.next.insert(range, region),
        }
    }

    /// Refuses to touch sealed regions (Linux) and those of the platform. Says whether anything is mapped in `range`.
    pub(super) fn check_modifiable(&self, range: PageRange) -> Result<bool, Refusal> {
        parts(&self.next.map, range).try_fold(false, |_, (_, region)| check_modifiable(region).map(|()| true))
    }

    /// Whether `pages` more can be committed on top of what the draft commits so far.
    pub(super) fn can_commit(&self, pages: u64) -> bool {
        let before = self.space.state.charged(Resource::Committed);
        let growth = (self.next.charged(Resource::Committed) + pages).saturating_sub(before);
        growth <= self.space.config.account.available(Resource::Committed)
    }

    /// Seals the draft.
    ///
    /// # Errors
    /// The outcome's, if nothing was done before it; the first limit of the account that is exceeded; or `ENOMEM`,
    /// whatever the outcome, if there was no memory for a part of the plan: then it has no effect at all.
    pub(super) fn finish(self, outcome: Result<u64, Refusal>) -> Result<Plan, Refusal> {
        if self.next.is_torn {
            return Err(Errno::NoMem.into());
        }
        if self.ops.is_empty() && !self.keeps_state {
            outcome?;
        }
        let account = &self.space.config.account;
        let object_pages = self.object.as_ref().map_or(0, |(_, pages)| pages.get());
        for resource in Resource::OF_MAP {
            let (before, after) = (self.space.state.charged(resource), self.next.charged(resource));
            let extra = if resource == Resource::Committed { object_pages } else { 0 };
            let growth = after.saturating_sub(before) + extra;
            if growth > 0 && growth > account.available(resource) {
                return Err(self.over(resource));
            }
        }
        let Self { space, next, ops, object, checkpoints, promise_bound, .. } = self;
        Ok(Plan { ops, next, object, promise_bound, outcome, generation: space.generation, checkpoints })
    }

    fn over(&self, resource: Resource) -> Refusal {
        Refusal::new(if resource == Resource::Locked { self.lock_errno } else { Errno::NoMem }, Cause::Limit(resource))
    }
}

/// Refuses to change a region of the platform.
pub(super) const fn check_not_fixed(region: &Region) -> Result<(), Refusal> {
    if region.flags.contains(RegionFlags::FIXED) {
        return Err(Refusal::new(Errno::Perm, Cause::FixedRegion));
    }
    Ok(())
}

/// Refuses to change a sealed region (Linux) or one of the platform.
pub(super) fn check_modifiable(region: &Region) -> Result<(), Refusal> {
    check_not_fixed(region)?;
    if region.flags.contains(RegionFlags::SEALED) {
        return Err(Refusal::new(Errno::Perm, Cause::Linux));
    }
    Ok(())
}
