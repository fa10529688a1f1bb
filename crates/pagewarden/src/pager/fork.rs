//! Fork: a space that shows what another does (`mm/memory.c:copy_page_range`).
//!
//! Frames are shared and protected against stores; whoever stores first gets a copy. Tables in which there are private
//! anonymous pages only are shared as such, at the highest level where that is so: what that costs does not depend on how
//! much memory there is. Pages of objects are left out, the child finds them where the parent did.

use super::fault::object_behind;
use super::{SpacePager, SpaceTables, leaf};
use crate::addr::{PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::FrameUse;
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, ForkPolicy, Level, Share, TableOwner};
use crate::region::{Region, RegionFlags};
use crate::vmmap::Vmmap;

/// What a child gets of a parent whose map this is.
struct Inheritance<'a, M: PhysMem + Mmu> {
    map: &'a Vmmap,
    parent: &'a SpaceTables<M>,
}

/// Whether a child has nothing of the region's pages.
fn is_left_out(region: &Region) -> bool {
    region.flags.intersects(RegionFlags::DONT_FORK.union(RegionFlags::WIPE_ON_FORK))
}

impl<M: PhysMem + Mmu> ForkPolicy for Inheritance<'_, M> {
    fn decide(&mut self, span: PageRange) -> Share {
        let mut some = false;
        let mut all = true;
        for entry in self.map.range(span) {
            let is_inherited = !is_left_out(entry.region);
            some |= is_inherited;
            all &= is_inherited && object_behind(entry.region).is_none();
            if some && !all {
                return Share::Inside;
            }
        }
        match (some, all) {
            (true, true) => Share::All,
            (true, false) => Share::Inside,
            (false, _) => Share::Nothing,
        }
    }

    fn copy_leaf(&mut self, page: VirtAddr, entry: Entry, level: Level) -> Result<Option<(Entry, Entry)>, Errno> {
        let Some(region) = self.map.get(page).map(|entry| entry.region).filter(|region| !is_left_out(region)) else {
            return Ok(None);
        };
        let is_of_object = leaf::has_frame(entry)
            && object_behind(region).is_some()
            && self.parent.pager().frames().used_as(entry.frame()) != Some(FrameUse::Anonymous);
        if is_of_object {
            return Ok(None);
        }
        let shown = self.parent.share_leaf(entry, level)?;
        Ok(Some((shown, shown.without(EntryFlags::ACCESSED))))
    }
}

impl<M: PhysMem + Mmu> SpaceTables<M> {
    /// Gives `child`, in which there is nothing, what a fork inherits of this space, whose map is `map`.
    ///
    /// # Errors
    /// No frame for a table, or a limit; the child is empty then.
    pub(super) fn fork_into<'s>(&'s self, child: &'s Self, map: &Vmmap) -> Result<(), Errno> {
        let forked = self.with_root_mut(|parent_root, gather| {
            child.with_root_mut(|child_root, _| {
                let mut policy = Inheritance { map, parent: self };
                child.tables().fork(parent_root, child_root, gather, &mut policy)
            })
        });
        forked.flatten().unwrap_or(Err(Errno::Srch))
    }
}

impl<M: PhysMem + Mmu + 'static> SpacePager<M> {
    /// The platform of a child of this space, whose map is `map`.
    ///
    /// # Errors
    /// No memory, or a limit of `account`, which pays.
    pub(super) fn fork(&self, account: &Account, map: &Vmmap) -> Result<Self, Errno> {
        let child = Self::new(self.pager(), account)?;
        child.inherit_views(map)?;
        self.tables().fork_into(child.tables(), map).inspect_err(|_| child.leave(map))?;
        Ok(child)
    }

    fn inherit_views(&self, map: &Vmmap) -> Result<(), Errno> {
        let inherited = map.iter().filter(|entry| !entry.region.flags.contains(RegionFlags::DONT_FORK));
        let mut inherited = inherited;
        let noted = inherited.try_for_each(|entry| self.note_view(entry.range, entry.region));
        noted.inspect_err(|_| self.leave(map))
    }
}
