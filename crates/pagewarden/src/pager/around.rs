//! Fault-around for stores: pages near one that is stored to get frames with it.
//!
//! Owned here: which pages of a window can be stored to without anybody seeing a difference, and how they get frames
//! that follow each other, with one flush. Outside: the page of the access, which `fault` makes present whatever becomes
//! of the window, and how large a window is worth while.
//!
//! Only private pages take part: what is empty and anonymous, what shows the zero frame, and what is common after a
//! fork. A page of a file stays what it is, since it shows what is stored to the file until it is stored to itself;
//! guards and pages that may be dropped stay so too. Nothing is reclaimed, and neither a limit nor a want of frames is an
//! error.
//!
//! Locks as in `fault`: the manager and the tables for reading. Of two that store to one page the first to put its entry
//! in wins; the other gives back the frame that it had for it.

use arrayvec::ArrayVec;

use super::SpaceTables;
use super::fault::{Touch, object_behind};
use super::leaf::{self, Sharing};
use super::reclaim::FEW;
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::frame::{FrameNumber, FrameUse};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, Root, Slot};

/// Pages that are made ready at once, at most: those of an aligned block of this size, which is in one table.
const MOST: usize = 64;

/// A page that a store would find a frame for.
struct Place<'r> {
    page: VirtAddr,
    slot: Slot<'r>,
    entry: Entry,
}

/// Such pages, lowest first.
type Places<'r> = ArrayVec<Place<'r>, MOST>;

impl<M: PhysMem + Mmu> SpaceTables<M> {
    /// Makes private pages of `window` ready for a store like that of `touch`, its own page among them, if they are in
    /// the same region and near. Nothing happens if that page is ready, or a guard.
    pub(super) fn touch_around(&self, touch: &Touch<'_>, window: PageRange) {
        if !touch.is_store() || touch.sharing() != Sharing::Private {
            return;
        }
        let block = touch.page().page_number() & !(MOST as u64 - 1);
        let block = PageRange::from_pages(block, PageCount::new(MOST as u64));
        let near = block.and_then(|block| block.intersection(window)).and_then(|near| near.intersection(touch.range));
        let Some(near) = near else { return };
        let _ = self.with_root(|root| {
            let mut places = Places::new();
            if self.look_around(touch, root, near, &mut places).is_some() {
                self.store_to_all(touch, root, &places);
            }
        });
    }

    /// Finds the pages of `near` that want frames, and lets stores to those through that have one. `None` if nothing is
    /// to be done.
    fn look_around<'r>(&self, touch: &Touch<'_>, root: &'r Root, near: PageRange, to: &mut Places<'r>) -> Option<()> {
        let slot = self.tables().slot(root, touch.page()).ok()?;
        let entry = self.tables().load(&slot);
        if leaf::is_guard(entry) || leaf::is_writable(entry) {
            return None;
        }
        let is_anonymous = object_behind(touch.region).is_none();
        for page in (near.first_page()..near.end_page()).filter_map(VirtAddr::from_page_number) {
            let slot = self.tables().slot(root, page).ok()?;
            let entry = self.tables().load(&slot);
            if entry.is_empty() && is_anonymous || self.is_to_be_copied(entry) {
                to.try_push(Place { page, slot, entry }).ok()?;
            } else if self.may_be_stored_to(entry) {
                // If it has changed meanwhile, somebody has seen to it.
                let _ = self.tables().install(root, &slot, entry, leaf::made_writable(entry));
            }
        }
        Some(())
    }

    /// Whether a store has to copy the page, and a copy made before shows no difference.
    fn is_to_be_copied(&self, entry: Entry) -> bool {
        let frame = entry.frame();
        let is_nobodys =
            frame == self.pager().zero || self.pager().frames().used_as(frame) == Some(FrameUse::Anonymous);
        is_private(entry) && is_nobodys && !self.is_own(entry)
    }

    /// Whether only the right is missing.
    fn may_be_stored_to(&self, entry: Entry) -> bool {
        is_private(entry) && self.is_own(entry)
    }

    /// Gives each of `places` a frame of its own.
    fn store_to_all(&self, touch: &Touch<'_>, root: &Root, places: &Places<'_>) {
        let (pager, count) = (self.pager(), PageCount::new(places.len() as u64));
        // The last frames are for whoever cannot do without.
        if places.is_empty() || pager.frames().available() < count.get() + FEW {
            return;
        }
        let run = pager.frames().allocate_run(count, PageCount::new(1), self.owner(), FrameUse::Anonymous);
        let Ok(run) = run else { return };
        let mut replaced: ArrayVec<(VirtAddr, FrameNumber), MOST> = ArrayVec::new();
        for (place, new) in places.iter().zip(run.iter()) {
            let shown = place.entry.frame();
            if place.entry.is_empty() || shown == pager.zero {
                pager.machine().zero(new);
            } else {
                pager.machine().copy(shown, new);
            }
            if self.tables().install(root, &place.slot, place.entry, touch.stored(new)).is_err() {
                self.release_frame(new);
            } else if !place.entry.is_empty() {
                replaced.push((place.page, shown));
            }
        }
        self.forget_all(root, &replaced);
    }

    /// Has processors forget what they know of pages, lowest first, and gives back the frames that these showed.
    fn forget_all(&self, root: &Root, replaced: &[(VirtAddr, FrameNumber)]) {
        let (Some((first, _)), Some((last, _))) = (replaced.first(), replaced.last()) else { return };
        let count = PageCount::new(last.page_number() - first.page_number() + 1);
        let Some(range) = PageRange::from_pages(first.page_number(), count) else { return };
        self.pager().machine().flush(root.frame(), range);
        replaced.iter().for_each(|(_, frame)| self.release_frame(*frame));
    }
}

/// Whether the page is this space's to store to, may not be dropped, and a store would fault.
fn is_private(entry: Entry) -> bool {
    entry.is_present() && !leaf::is_writable(entry) && !leaf::is_shared(entry) && !leaf::is_droppable(entry)
}
