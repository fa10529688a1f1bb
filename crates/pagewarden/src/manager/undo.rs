//! Running the operations of a plan, all or none.
//!
//! What none means when the platform fails: operations are taken back newest first, and what cannot be taken back
//! is written into the state, so that the map always says what the platform has. That happens where
//!
//! - Linux itself keeps a prefix (madvise, names, the pieces of a detached segment): there is no way back;
//! - the target of a `MAP_FIXED` or of a move was unmapped first: it stays empty;
//! - a move that leaves its old place mapped has unlocked the region there;
//! - the way back fails too.

use super::space::{Space, State, parts};
use super::{madvise, mincore, mprotect, mremap, name};
use crate::addr::PageRange;
use crate::error::Errno;
use crate::provider::{Maps, Op, PageManagementProvider, Source, Target};
use crate::region::RegionFlags;
use crate::vmmap::Vmmap;

/// Which operation of a plan failed, and why.
pub(super) struct Failure {
    /// Its index; those before it were carried out.
    pub(super) at: usize,
    pub(super) errno: Errno,
}

/// Runs `ops` in order, up to the first that fails.
pub(super) fn run_all(provider: &mut impl PageManagementProvider, ops: &[Op], maps: Maps<'_>) -> Result<(), Failure> {
    ops.iter().enumerate().try_for_each(|(at, op)| run(provider, op, maps).map_err(|errno| Failure { at, errno }))
}

fn run(provider: &mut impl PageManagementProvider, op: &Op, maps: Maps<'_>) -> Result<(), Errno> {
    match op {
        Op::Residency { range, vector, telling } => mincore::tell(provider, maps.before, *range, *vector, *telling),
        _ => provider.run(op, maps),
    }
}

/// Takes back what was done before operation `failed`. The state that is in force then, if it is another one than
/// before. `planned` is the map that the plan was to lead to.
///
/// Without memory to write it down, the old state stays in force: a guest that touches what is gone faults.
pub(super) fn take_back(
    provider: &mut impl PageManagementProvider,
    space: &Space,
    (ops, planned): (&[Op], &Vmmap),
    failed: usize,
) -> Option<State> {
    let back = Maps { before: planned, after: &space.state.map };
    let mut now = Residue { space, state: None };
    if let Some(range) = ops.get(failed).and_then(emptied_range) {
        now.check_kept(provider, range);
    }
    for op in ops.iter().take(failed).rev() {
        match inverse(op) {
            None => now.stays(op),
            Some(inverse) if provider.run(&inverse, back).is_ok() => now.is_taken_back(op, &inverse),
            Some(inverse) => {
                now.stays(op);
                if let Some(range) = emptied_range(&inverse) {
                    now.check_kept(provider, range);
                }
            }
        }
    }
    now.state.filter(|state| !state.is_torn)
}

/// What of a failed plan cannot be taken back. The operations of a plan touch different pages, so that it does not
/// matter in which order they are looked at.
struct Residue<'a> {
    space: &'a Space,
    /// The state that says so, if there is any such thing.
    state: Option<State>,
}

impl Residue<'_> {
    fn edit(&mut self, edit: impl FnOnce(&Space, &mut State) -> Result<(), Errno>) {
        let state = self.state.get_or_insert_with(|| self.space.state.clone());
        // A state that could not be edited is torn, and says so itself.
        if !state.is_torn {
            let _ = edit(self.space, state);
        }
    }

    fn check_kept(&mut self, provider: &impl PageManagementProvider, range: PageRange) {
        let map = self.state.as_ref().map_or(&self.space.state.map, |state| &state.map);
        if !map.is_free(range) && !provider.has_kept(range) {
            self.is_gone(range);
        }
    }

    fn is_taken_back(&mut self, op: &Op, inverse: &Op) {
        match op {
            // Where the old place was kept, all of its region has lost its locks, not only what has come back.
            Op::Move { from, source: Source::Kept, .. } if self.is_locked(*from) => {
                self.stays(op);
                self.stays(inverse);
            }
            Op::Move { to, .. } if !self.space.state.map.is_free(*to) => self.is_gone(*to),
            _ => {}
        }
    }

    fn is_locked(&self, range: PageRange) -> bool {
        parts(&self.space.state.map, range).any(|(_, region)| region.flags.contains(RegionFlags::LOCKED))
    }

    fn is_gone(&mut self, range: PageRange) {
        self.edit(|_, state| state.remove(range).map(drop));
    }

    fn stays(&mut self, op: &Op) {
        match op {
            Op::Unmap { range, .. } => self.is_gone(*range),
            Op::Protect { range, to, .. } => self.edit(|space, state| mprotect::set(space, state, *range, *to, None)),
            Op::ProtectKey { range, to, .. } => {
                self.edit(|space, state| mprotect::set(space, state, *range, to.prot, Some(to.key.key())));
            }
            Op::Move { from, to, source, .. } => self.edit(|_, state| {
                state.remove(*to)?;
                mremap::relocate_regions(state, *from, *to, *source).map(drop)
            }),
            Op::Advise { range, advice } => self.edit(|_, state| madvise::mark(state, *range, *advice)),
            Op::Name { range, name } => self.edit(|_, state| name::mark(state, *range, name.as_ref())),
            // These change no region.
            Op::Sync { .. } | Op::Residency { .. } => {}
            // Nothing comes after these in a plan.
            Op::Map { .. }
            | Op::RemapPages { .. }
            | Op::Grow { .. }
            | Op::Duplicate { .. }
            | Op::Lock { .. }
            | Op::LockAll { .. }
            | Op::Seal { .. }
            | Op::AllocateKey { .. }
            | Op::FreeKey { .. }
            | Op::DenyExecGain { .. }
            | Op::SetBreak { .. } => {}
        }
    }
}

/// The way back, if there is one.
fn inverse(op: &Op) -> Option<Op> {
    match op {
        Op::Protect { range, from, to } => Some(Op::Protect { range: *range, from: *to, to: *from }),
        Op::ProtectKey { range, from, to } => Some(Op::ProtectKey { range: *range, from: *to, to: *from }),
        // Where the old place was kept it is empty, and the way back replaces it.
        Op::Move { from, to, region, .. } if from.pages() == to.pages() => {
            Some(Op::Move { from: *to, to: *from, source: Source::Removed, region: region.clone() })
        }
        _ => None,
    }
}

/// Where the operation takes away what is there, before it does what else it is for: a platform may fail after that.
fn emptied_range(op: &Op) -> Option<PageRange> {
    match op {
        Op::Unmap { range, .. } | Op::RemapPages { range, .. } => Some(*range),
        Op::Map { range, target: Target::Replace, .. } => Some(*range),
        Op::Move { to, .. } | Op::Duplicate { to, target: Target::Replace, .. } => Some(*to),
        Op::SetBreak { from, to, .. } => PageRange::new(to.page_up()?, from.page_up()?),
        _ => None,
    }
}
