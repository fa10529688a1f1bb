//! Which System V segments a space has attached, and how often.
//!
//! Linux counts an attach for each region that shows a segment, so that a split adds one and fork doubles all. A
//! state keeps the counts along with its map: a change counts the regions that it can touch, before and after. The
//! space tells the segments when a state is published ([`Held`]), and takes all back when it ends.
//!
//! Segments that their platform counts by itself, as the host does, are not tracked, and a space without tracked
//! segments pays nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::addr::{PageCount, PageRange};
use crate::error::Errno;
use crate::fallible::try_arc;
use crate::object::MemoryObject;
use crate::object::sysv::Change;
use crate::region::Region;
use crate::vmmap::{Entry, Vmmap};

/// What a state has attached. Counts of what was opened and closed only ever rise.
#[derive(Clone, Debug, Default)]
pub(super) struct Attached(Option<Arc<Vec<Tracked>>>);

#[derive(Clone, Debug)]
struct Tracked {
    object: Arc<MemoryObject>,
    regions: u64,
    opened: u64,
    closed: u64,
}

impl Tracked {
    fn tell(&self, change: Change) {
        if let Some(attachable) = self.object.attachable() {
            attachable.change(change, self.object.charge());
        }
    }
}

/// Regions by segment in the neighbourhood of a change.
struct Census(Vec<(Arc<MemoryObject>, u64)>);

/// What a change does to the regions in its range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They stay; there may be more.
    Keeps,
    /// They go.
    Removes,
}

/// The segment of a region, if it is to be told of attaches.
pub(super) fn tracked(region: &Region) -> Option<&Arc<MemoryObject>> {
    region.object().filter(|object| object.attachable().is_some())
}

/// `range` with its neighbours: no other region can merge or split when it changes.
fn with_neighbours(range: PageRange) -> PageRange {
    let first = range.first_page().saturating_sub(1);
    let pages = range.end_page().saturating_add(1) - first;
    PageRange::from_pages(first, PageCount::new(pages)).unwrap_or(range)
}

fn count<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Result<Census, Errno> {
    let mut counts: Vec<(Arc<MemoryObject>, u64)> = Vec::new();
    for entry in entries {
        let Some(object) = tracked(entry.region) else { continue };
        match counts.iter_mut().find(|(known, _)| Arc::ptr_eq(known, object)) {
            Some((_, count)) => *count += 1,
            None => {
                counts.try_reserve(1).map_err(|_| Errno::NoMem)?;
                counts.push((Arc::clone(object), 1));
            }
        }
    }
    Ok(Census(counts))
}

impl Attached {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Does `change` to `range` of `map` and keeps the counts.
    pub(super) fn follow(
        &mut self,
        map: &mut Vmmap,
        range: PageRange,
        kind: Kind,
        change: impl FnOnce(&mut Vmmap) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let around = with_neighbours(range);
        let before = count(map.range(around))?;
        if kind == Kind::Removes {
            self.note_removed(map, range)?;
        }
        change(map)?;
        let after = count(map.range(around))?;
        let is_new = |object: &Arc<MemoryObject>| before.of(object) == 0;
        for (object, _) in before.0.iter().chain(after.0.iter().filter(|(object, _)| is_new(object))) {
            let (before, after) = (before.of(object), after.of(object));
            if before != after {
                let tracked = self.entry(object)?;
                tracked.regions = (tracked.regions + after).saturating_sub(before);
                tracked.opened += u64::from(after > before);
            }
        }
        Ok(())
    }

    /// What is removed is closed; a region that is removed in part is split first, which opens one.
    fn note_removed(&mut self, map: &Vmmap, range: PageRange) -> Result<(), Errno> {
        for entry in map.range(range) {
            if let Some(object) = tracked(entry.region) {
                let tracked = self.entry(object)?;
                tracked.closed += 1;
                tracked.opened += u64::from(!range.contains_range(entry.range));
            }
        }
        Ok(())
    }

    /// The entry of `object`, made if there is none, in a list of this state's own.
    fn entry(&mut self, object: &Arc<MemoryObject>) -> Result<&mut Tracked, Errno> {
        let mut list = self.copy_if(|_| true)?;
        let index = list.iter().position(|tracked| Arc::ptr_eq(&tracked.object, object)).unwrap_or(list.len());
        if index == list.len() {
            list.try_reserve(1).map_err(|_| Errno::NoMem)?;
            list.push(Tracked { object: Arc::clone(object), regions: 0, opened: 0, closed: 0 });
        }
        self.0 = Some(try_arc(list)?);
        let list = self.0.as_mut().and_then(Arc::get_mut).ok_or(Errno::NoMem)?;
        list.get_mut(index).ok_or(Errno::NoMem)
    }

    /// The entries that `is_wanted` wants, in a list of their own.
    fn copy_if(&self, is_wanted: impl Fn(&Tracked) -> bool) -> Result<Vec<Tracked>, Errno> {
        let mut list = Vec::new();
        list.try_reserve(self.list().len()).map_err(|_| Errno::NoMem)?;
        list.extend(self.list().iter().filter(|tracked| is_wanted(tracked)).cloned());
        Ok(list)
    }

    fn list(&self) -> &[Tracked] {
        self.0.as_ref().map_or(&[], |list| list.as_slice())
    }

    /// Forgets segments that are not attached any more. Without memory for it they stay, which does no harm.
    fn forget_detached(&mut self) {
        let is_attached = |tracked: &Tracked| tracked.regions > 0;
        if self.list().iter().all(is_attached) {
            return;
        }
        let left =
            self.copy_if(is_attached).and_then(|left| if left.is_empty() { Ok(None) } else { try_arc(left).map(Some) });
        if let Ok(left) = left {
            self.0 = left;
        }
    }

    /// Whether the counts are those of `map`.
    pub(super) fn matches(&self, map: &Vmmap) -> bool {
        let Ok(counted) = count(map.iter()) else { return false };
        let held: Vec<&Tracked> = self.list().iter().filter(|tracked| tracked.regions > 0).collect();
        held.len() == counted.0.len() && held.iter().all(|tracked| counted.of(&tracked.object) == tracked.regions)
    }
}

impl Census {
    fn of(&self, object: &Arc<MemoryObject>) -> u64 {
        self.0.iter().find(|(known, _)| Arc::ptr_eq(known, object)).map_or(0, |(_, count)| *count)
    }
}

/// What a space has told its segments. Dropped, it detaches all.
#[derive(Debug, Default)]
pub(super) struct Held(Attached);

impl Held {
    /// A new space, such as a fork makes, has everything in `state` attached for the first time.
    pub(super) fn new(state: &Attached) -> Self {
        for tracked in state.list().iter().filter(|tracked| tracked.regions > 0) {
            let change = Change { more: tracked.regions.cast_signed(), is_opened: true, is_closed: false };
            tracked.tell(change);
        }
        Self(state.clone())
    }

    /// Tells segments what `next`, the state in force from now on, has attached.
    pub(super) fn settle(&mut self, next: &mut Attached) {
        if self.0.is_empty() && next.is_empty() {
            return;
        }
        self.tell(next);
        next.forget_detached();
        self.0 = next.clone();
    }

    fn tell(&self, next: &Attached) {
        let of = |list: &[Tracked], object: &Arc<MemoryObject>| {
            let known = list.iter().find(|tracked| Arc::ptr_eq(&tracked.object, object));
            known.map_or((0, 0, 0), |tracked| (tracked.regions, tracked.opened, tracked.closed))
        };
        for tracked in next.list() {
            let before = of(self.0.list(), &tracked.object);
            let change = Change {
                more: tracked.regions.cast_signed() - before.0.cast_signed(),
                is_opened: tracked.opened > before.1,
                is_closed: tracked.closed > before.2,
            };
            tracked.tell(change);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for tracked in self.0.list().iter().filter(|tracked| tracked.regions > 0) {
            let change = Change { more: -tracked.regions.cast_signed(), is_opened: false, is_closed: true };
            tracked.tell(change);
        }
    }
}
