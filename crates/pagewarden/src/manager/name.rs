//! prctl(2) with `PR_SET_VMA_ANON_NAME`: `mm/madvise.c:madvise_set_anon_name`.

use alloc::sync::Arc;

use super::madvise::named_range;
use super::plan::{Draft, Plan, Refusal, check_not_fixed};
use super::space::{Space, State, parts};
use crate::addr::PageRange;
use crate::error::Errno;
use crate::object::{MemoryObject, ObjectKind};
use crate::provider::Op;
use crate::region::{Backing, Region};

/// What naming `len` bytes from `addr` does to `space`.
pub(super) fn plan(space: &Space, addr: u64, len: u64, name: Option<&Arc<MemoryObject>>) -> Result<Plan, Refusal> {
    if !space.config.features.has_names() {
        return Err(Errno::Inval.into());
    }
    let mut draft = Draft::new(space);
    let Some(range) = named_range(addr, len)? else {
        return draft.finish(Ok(0));
    };
    let mut next = range.start();
    let mut has_hole = false;
    for (part, region) in parts(&space.state.map, range) {
        has_hole |= part.start() != next;
        next = part.end();
        if !may_be_named(region) {
            return draft.finish(Err(Errno::BadF.into()));
        }
        check_not_fixed(region)?;
        mark(&mut draft.next, part, name)?;
        draft.op(Op::Name { range: part, name: name.cloned() });
    }
    has_hole |= next < range.end();
    draft.finish(if has_hole { Err(Errno::NoMem.into()) } else { Ok(0) })
}

/// What a name changes in the map.
pub(super) fn mark(state: &mut State, range: PageRange, name: Option<&Arc<MemoryObject>>) -> Result<(), Errno> {
    let backing = name.map_or(Backing::Anonymous, |name| Backing::Object(Arc::clone(name)));
    state.update(range, |region| {
        // Shared anonymous memory keeps its object, which says which pages it shows.
        if !region.is_shared() {
            region.backing = backing.clone();
        }
    })
}

/// Only anonymous memory can be named, private or shared.
fn may_be_named(region: &Region) -> bool {
    match &region.backing {
        Backing::Anonymous => true,
        Backing::Object(object) => {
            matches!(object.kind(), ObjectKind::NamedAnonymous | ObjectKind::SharedAnonymous)
        }
    }
}
