//! Pages that live as long as somebody reaches them: memory that processes hold by handles.
//!
//! Who holds such an object by a handle has a [`Window`]: a run of its pages. A page is there as long as a window or a
//! view has it, and goes with the last of both, be it a window that is dropped, a view that is cut (unmapped, replaced,
//! moved away) or a space that ends. So one page that is mapped keeps one page, however large the object was.
//!
//! Owned here: when pages go. Outside: who pays for reaching them, and what handles may do.
//!
//! Invariant: each page that is there is reached, as the [`Reach`](super::reach::Reach) of the object counts.
//!
//! Views are cut after the entries in them have gone and processors have forgotten them: whoever unmaps clears, and
//! whoever moves has moved the entries to a view that was noted before. Only where a space ends are views cut before the
//! entries; each of those has a reference of its own on its frame, which so is nobody else's until the tables have gone,
//! and no processor runs in the space.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::memory::{Kind, ObjectMemory, ObjectSource, Placement, State};
use super::pages::ObjectPages;
use super::views::{SpaceId, Views, shown_by};
use crate::addr::{PAGE_SIZE, PageCount, PageRange};
use crate::error::Errno;
use crate::fallible::make_sure_of_tree_nodes;
use crate::frame::FrameUse;
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::pager::Pager;

/// Pages of an object that its holder can reach. When it is dropped, those that nobody else reaches are freed; whoever
/// drops it holds no lock of tables or objects.
pub struct Window<M: PhysMem + Mmu> {
    memory: Arc<ObjectMemory<M>>,
    pages: ObjectPages,
}

impl<M: PhysMem + Mmu> fmt::Debug for Window<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({})", self.pages)
    }
}

impl<M: PhysMem + Mmu> Window<M> {
    /// Which pages; some may lie beyond the end of the object.
    pub const fn pages(&self) -> ObjectPages {
        self.pages
    }
}

impl<M: PhysMem + Mmu> Drop for Window<M> {
    fn drop(&mut self) {
        let mut state = self.memory.write_state();
        let range = self.pages.first()..self.pages.end();
        if let Some(reach) = state.views.reach_mut() {
            reach.take(range.clone(), &range);
        }
        self.memory.free_unreached(&mut state, range);
    }
}

impl<M: PhysMem + Mmu> ObjectMemory<M> {
    /// The memory of a new object whose pages live as long as somebody reaches them: a fixed set of frames, or anonymous
    /// memory that can be resized. All frames are taken at once and paid by `account`. Whoever calls holds a window over
    /// them next.
    ///
    /// # Errors
    /// No frames, a limit; [`Errno::Inval`] for other sources.
    pub(crate) fn new_reached(pager: &Arc<Pager<M>>, account: &Account, source: ObjectSource) -> Result<Self, Errno> {
        let (kind, pages, placement) = match source {
            ObjectSource::Anonymous { bytes } => {
                (Kind::Anonymous, PageCount::from_bytes_up(bytes), Placement::Scattered)
            }
            ObjectSource::Frames { pages, placement } => (Kind::Frames, pages, placement),
            ObjectSource::File(_) | ObjectSource::Physical(_) => return Err(Errno::Inval),
        };
        // There is no use in beginning.
        if pages.get() > pager.frames().total() {
            return Err(Errno::NoMem);
        }
        let memory = Self::empty(pager, account, (kind, pages.bytes()), Views::reaching())?;
        if pages.get() > 0 {
            memory.take_frames(pages, placement)?;
        }
        Ok(memory)
    }

    /// Reaches `pages` until the window is dropped.
    ///
    /// # Errors
    /// [`Errno::Inval`] for an object whose pages live as long as it does; no memory.
    pub(crate) fn hold_window(self: &Arc<Self>, pages: ObjectPages) -> Result<Window<M>, Errno> {
        make_sure_of_tree_nodes::<2>()?;
        self.write_state().views.reach_mut().ok_or(Errno::Inval)?.add(pages.first()..pages.end());
        Ok(Window { memory: Arc::clone(self), pages })
    }

    /// Forgets what `range` of the space shows. Its entries have gone; whoever calls has made sure of memory for a view
    /// that falls in two.
    pub(crate) fn cut_view(&self, space: SpaceId, range: PageRange, delta: u64) {
        let mut state = self.write_state();
        state.views.cut(space, range);
        self.free_unreached(&mut state, shown_by(range.first_page()..range.end_page(), delta));
    }

    /// Frees those of the pages that nobody reaches. Needs no memory.
    fn free_unreached(&self, state: &mut State<M>, range: Range<u64>) {
        let State { pages, views, .. } = state;
        let Some(reach) = views.reach() else { return };
        let mut at = range.start;
        while at < range.end {
            let end = reach.next_edge(at).min(range.end);
            if !reach.has(at) {
                self.let_go_of(pages, at..end);
            }
            at = end;
        }
    }

    /// Takes frames for the pages from the end to byte `bytes` that somebody reaches, all or none of them. The others,
    /// and those of objects whose pages nobody has to reach, come when they are touched.
    ///
    /// # Errors
    /// No frames, or a limit.
    pub(super) fn grow(&self, state: &mut State<M>, bytes: u64) -> Result<(), Errno> {
        if state.views.reach().is_none() {
            return Ok(());
        }
        let added = state.page_count()..bytes.div_ceil(PAGE_SIZE);
        if !added.is_empty() && added.end > self.pager.frames().total() {
            return Err(Errno::NoMem);
        }
        let mut taken = Vec::new();
        for index in added {
            if state.frame(index).is_some() || !state.views.may_have(index) {
                continue;
            }
            let outcome = taken.try_reserve(1).map_err(|_| Errno::NoMem).and_then(|()| self.take_page(state, index));
            if let Err(errno) = outcome {
                taken.into_iter().for_each(|index| self.let_go_of(&mut state.pages, index..index + 1));
                return Err(errno);
            }
            taken.push(index);
        }
        Ok(())
    }

    fn take_page(&self, state: &mut State<M>, index: u64) -> Result<(), Errno> {
        make_sure_of_tree_nodes::<1>()?;
        let frame = self.pager.zeroed_frame(&self.owner, FrameUse::Object)?;
        state.pages.insert(index, frame);
        Ok(())
    }
}
