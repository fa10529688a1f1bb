//! Snapshots: objects that have frames in common until one of them is stored to.
//!
//! A snapshot has the frames that its parent has, and no link to it: from then on both are alike. Which objects have a
//! frame, nobody knows; how many others do, the frame's word counts, from bit 1 on ([`ANOTHER`]). Bit 0 says of a file's
//! page that it is [`DIRTY`](super::memory::DIRTY), and of other pages nothing.
//!
//! Invariants:
//! * as many objects have a frame as its count says, and one more;
//! * nobody can store to a frame that several objects have: no entry that shows it is writable, and none is dirty, so
//!   that none becomes writable without a fault (mprotect(2)). A snapshot takes away all entries of the pages that it
//!   shares, and what shows them later is clean until a store has made this object the only one.
//!
//! A store to such a page copies it first: the copy takes its place in the object, and what shows the old frame goes from
//! all views. An object lets go of a frame after it has hidden it from all who could store, and gives up its place in the
//! count then: who finds the count at 0 is alone, and stores in place. The count rises only while an object that has the
//! frame is locked for writing, so whoever has his locked and finds 0 knows that it stays. Two that let go at once both
//! copy; the second finds 0 and leaves it.
//!
//! The frame of a page that was copied lies where the next free one is: a set of frames that lay one after the other does
//! so no more once it was stored to with a snapshot of it around.
//!
//! Who paid for a frame goes on to do so while any object has it.

use super::memory::{Copies, Kind, ObjectMemory, State};
use super::pages::ObjectPages;
use super::views::Views;
use crate::error::Errno;
use crate::fallible::make_sure_of_tree_nodes;
use crate::frame::{FrameError, FrameNumber, FrameUse};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::sync::Ordering;

/// What another object that has a frame adds to the frame's word.
const ANOTHER: u32 = 2;

impl<M: PhysMem + Mmu> ObjectMemory<M> {
    /// An object that holds what `pages` hold now, and zeros where there are none; `account` pays for
    /// what it will have of its own. Its pages live as long as somebody reaches them: whoever calls holds a window over
    /// them next.
    ///
    /// # Errors
    /// [`Errno::Inval`] for files and memory of devices; [`Errno::Busy`] for a frame that too many objects have; no memory. Nothing has changed then.
    pub(crate) fn snapshot(&self, account: &Account, pages: ObjectPages) -> Result<Self, Errno> {
        if !matches!(self.kind, Kind::Anonymous | Kind::Frames) {
            return Err(Errno::Inval);
        }
        let (start, bytes) = (pages.first(), pages.count().bytes());
        let mut child = Self::empty(&self.pager, account, (Kind::Anonymous, bytes), Views::reaching())?;
        let state = self.state.write();
        let end = pages.end().min(state.page_count()).max(start);
        for (index, frame) in state.pages.range(start..end) {
            make_sure_of_tree_nodes::<1>()?;
            self.have_too(*frame)?;
            child.state.get_mut().pages.insert(index - start, *frame);
        }
        // Nothing fails from here on; what failed has let go of what the child had.
        for (tables, range) in state.views.showing(start, end) {
            tables.drop_pages(range, Copies::Kept);
        }
        drop(state);
        Ok(child)
    }

    /// One object more has the frame.
    fn have_too(&self, frame: FrameNumber) -> Result<(), Errno> {
        let frames = self.pager.frames();
        frames.share(frame).map_err(FrameError::errno)?;
        let more = |word: u32| word.checked_add(ANOTHER);
        if frames.word(frame).fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            self.pager.release(frame);
            return Err(Errno::Busy);
        }
        Ok(())
    }

    /// This object, which hides the frame from everybody already, has it no more.
    pub(super) fn let_go(&self, frame: FrameNumber) {
        // The last one that has it counts no others.
        let less = |word: u32| word.checked_sub(ANOTHER);
        let _ = self.pager.frames().word(frame).fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.pager.release(frame);
    }

    /// Whether other objects have the frame too. Whoever has this object locked and hears that none does may rely on it.
    pub(crate) fn is_common(&self, frame: FrameNumber) -> bool {
        !matches!(self.kind, Kind::Physical(_)) && self.others(frame) > 0
    }

    /// How many other objects have the frame.
    pub(super) fn others(&self, frame: FrameNumber) -> u32 {
        self.pager.frames().word(frame).load(Ordering::Acquire) / ANOTHER
    }

    /// Makes page `index`, if it is there, one that no other object has, so that it may be stored to.
    ///
    /// # Errors
    /// No frame, or a limit.
    pub(crate) fn separate(&self, index: u64) -> Result<(), Errno> {
        self.separate_in(&mut self.state.write(), index).map(drop)
    }

    /// The same, with the object locked; the page's frame then.
    pub(super) fn separate_in(&self, state: &mut State<M>, index: u64) -> Result<Option<FrameNumber>, Errno> {
        let Some(frame) = self.frame(state, index) else { return Ok(None) };
        if !self.is_common(frame) {
            return Ok(Some(frame));
        }
        let own = self.pager.frame(&self.owner, FrameUse::Object)?;
        // Nobody stores to it as long as this object has it too.
        self.pager.machine().copy(frame, own);
        for (tables, range) in state.views.showing(index, index + 1) {
            tables.drop_pages(range, Copies::Kept);
        }
        if let Some(shown) = state.pages.get_mut(&index) {
            *shown = own;
        }
        self.let_go(frame);
        Ok(Some(own))
    }
}

#[cfg(test)]
impl<M: PhysMem + Mmu> ObjectMemory<M> {
    /// The pages that are there, with their frames.
    pub(crate) fn pages_there(&self) -> alloc::vec::Vec<(u64, FrameNumber)> {
        self.state.read().pages.iter().map(|(index, frame)| (*index, *frame)).collect()
    }
}
