//! The pages of an object, where frames are ours: which of them are there, how many there may be, and who shows them.
//!
//! ```text
//! what it is of        a page that is not there      its frames                     private copies
//! anonymous            zeros                         taken when a page is touched   yes
//! file                 read from its source          likewise; may go when clean    yes
//! frames               -                             all there from the beginning   yes
//! physical range       -                             not ours: a device's           never
//! ```
//!
//! Outside: which regions map an object, and what they may do with it; how long pages live that only live as long as
//! somebody reaches them (`windows`); which frames objects have in common (`snapshot`).
//!
//! Invariants: each frame in `pages` has one reference for being there, and one for each entry that shows it; each
//! entry that shows one lies in a view, but for those of a space that ends, in which nobody runs; no page beyond the end
//! is shown.
//!
//! Locks: `state`, then the tables of a space that shows the object, never the other way round, and nobody's tables
//! twice. Held for reading while a page is shown, for writing while pages come or go. Sources are called with neither.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::pages::ObjectPages;
use super::source::{PageBytes, PageSource};
use super::views::Views;
use crate::addr::{PAGE_LEN, PAGE_SIZE, PageCount};
use crate::error::Errno;
use crate::fallible::make_sure_of_tree_nodes;
use crate::frame::{FrameNumber, FrameRange, FrameUse, Owner};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::pager::{Pager, SpaceTables};
use crate::sync::{AtomicU32, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The bit of a frame's word that says: its contents are not in the file yet. The other bits are those of `snapshot`.
pub(crate) const DIRTY: u32 = 1;
/// As many bytes as a file can have (`MAX_LFS_FILESIZE`).
const BYTES_MAX: u64 = i64::MAX as u64;

/// What a new object is made of.
#[derive(Clone, Debug)]
pub enum ObjectSource {
    /// Zeros, this many bytes.
    Anonymous {
        /// Its size.
        bytes: u64,
    },
    /// A file.
    File(Arc<dyn PageSource>),
    /// A fixed set of frames, taken at once and zeroed.
    Frames {
        /// How many.
        pages: PageCount,
        /// Where they lie.
        placement: Placement,
    },
    /// Memory of a device, which is not ours to give out, copy or free.
    Physical(FrameRange),
}

/// Where the frames of a fixed set lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Anywhere.
    Scattered,
    /// One after the other.
    Contiguous,
}

/// The pages of an object.
pub(crate) struct ObjectMemory<M: PhysMem + Mmu> {
    pub(super) pager: Arc<Pager<M>>,
    pub(super) owner: Owner,
    pub(super) kind: Kind,
    /// Not 0 once no new view may be written through.
    sealed: AtomicU32,
    pub(super) state: RwLock<State<M>>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Anonymous,
    File(Arc<dyn PageSource>),
    Frames,
    Physical(FrameRange),
}

/// What an object has now.
pub(crate) struct State<M: PhysMem + Mmu> {
    pub(super) bytes: u64,
    pub(super) pages: BTreeMap<u64, FrameNumber>,
    pub(crate) views: Views<SpaceTables<M>>,
    /// Counts what took pages away, so that one that was being read meanwhile is read again.
    losses: u64,
}

impl<M: PhysMem + Mmu> fmt::Debug for ObjectMemory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectMemory").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Which pages of a view are taken away with a page of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Copies {
    /// The page itself where it is shown; private copies of it stay.
    Kept,
    /// Those too.
    Dropped,
}

impl<M: PhysMem + Mmu> State<M> {
    /// How many pages can be touched.
    pub(crate) const fn page_count(&self) -> u64 {
        self.bytes.div_ceil(PAGE_SIZE)
    }

    /// The frame of a page that is there.
    pub(crate) fn frame(&self, index: u64) -> Option<FrameNumber> {
        self.pages.get(&index).copied()
    }
}

impl<M: PhysMem + Mmu> ObjectMemory<M> {
    /// The memory of a new object, paid by `account`.
    ///
    /// # Errors
    /// No frames for those that are taken at once, a limit, or too many pages.
    pub(crate) fn new(pager: &Arc<Pager<M>>, account: &Account, source: ObjectSource) -> Result<Self, Errno> {
        let (kind, bytes) = match &source {
            ObjectSource::Anonymous { bytes } => (Kind::Anonymous, *bytes),
            ObjectSource::File(file) => (Kind::File(Arc::clone(file)), file.size()),
            ObjectSource::Frames { pages, .. } => (Kind::Frames, pages.bytes()),
            ObjectSource::Physical(range) => (Kind::Physical(*range), range.frames().bytes()),
        };
        let memory = Self::empty(pager, account, (kind, bytes), Views::default())?;
        if let ObjectSource::Frames { pages, placement } = source {
            memory.take_frames(pages, placement)?;
        }
        Ok(memory)
    }

    /// An object in which there are no pages yet.
    pub(super) fn empty(
        pager: &Arc<Pager<M>>,
        account: &Account,
        (kind, bytes): (Kind, u64),
        views: Views<SpaceTables<M>>,
    ) -> Result<Self, Errno> {
        let owner = pager.frames().add_owner(account).map_err(|error| error.errno())?;
        if bytes > BYTES_MAX {
            return Err(Errno::Inval);
        }
        let state = RwLock::new(State { bytes, pages: BTreeMap::new(), views, losses: 0 });
        Ok(Self { pager: Arc::clone(pager), owner, kind, sealed: AtomicU32::new(0), state })
    }

    /// Takes all frames of a new object at once. What was taken before one fails goes with the object.
    pub(super) fn take_frames(&self, pages: PageCount, placement: Placement) -> Result<(), Errno> {
        let mut state = self.state.write();
        let pager = &self.pager;
        if placement == Placement::Contiguous {
            let one = PageCount::new(1);
            let run = pager.frames().allocate_run(pages, one, &self.owner, FrameUse::Object);
            let mut outcome = Ok(());
            for (index, frame) in (0..).zip(run.map_err(|error| error.errno())?.iter()) {
                outcome = outcome.and_then(|()| make_sure_of_tree_nodes::<1>());
                if outcome.is_err() {
                    pager.release(frame);
                    continue;
                }
                pager.machine().zero(frame);
                state.pages.insert(index, frame);
            }
            return outcome;
        }
        for index in 0..pages.get() {
            make_sure_of_tree_nodes::<1>()?;
            let frame = pager.zeroed_frame(&self.owner, FrameUse::Object)?;
            state.pages.insert(index, frame);
        }
        Ok(())
    }

    /// What there is now, to show a page of it.
    pub(crate) fn read_state(&self) -> RwLockReadGuard<'_, State<M>> {
        self.state.read()
    }

    /// What there is now, to change it.
    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State<M>> {
        self.state.write()
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.read().bytes
    }

    /// From now on no new view may be written through.
    pub(crate) fn seal_writes(&self) {
        self.sealed.store(1, Ordering::Release);
    }

    /// Whether that is so.
    pub(crate) fn is_write_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire) != 0
    }

    /// Whether private copies can be made of its pages.
    pub(crate) const fn has_copies(&self) -> bool {
        !matches!(self.kind, Kind::Physical(_))
    }

    /// Whether pages that are clean may go, because they can be read again.
    pub(crate) const fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// The frame of page `index`, if it is there.
    pub(crate) fn frame(&self, state: &State<M>, index: u64) -> Option<FrameNumber> {
        match &self.kind {
            Kind::Physical(range) => {
                FrameNumber::new(range.first().get().checked_add(index)?).filter(|frame| range.contains(*frame))
            }
            _ => state.frame(index),
        }
    }

    /// Makes page `index` be there.
    ///
    /// # Errors
    /// No frame, or the source's reason; [`Errno::Inval`] for a page that nobody reaches and that goes with the last who
    /// does.
    pub(crate) fn fetch(&self, index: u64) -> Result<(), Errno> {
        loop {
            let losses = {
                let state = self.state.read();
                if self.frame(&state, index).is_some() {
                    return Ok(());
                }
                state.losses
            };
            make_sure_of_tree_nodes::<1>()?;
            let frame = self.read_page(index)?;
            let mut state = self.state.write();
            let is_reached = state.views.may_have(index);
            if state.frame(index).is_none() && state.losses == losses && is_reached {
                state.pages.insert(index, frame);
                return Ok(());
            }
            drop(state);
            // Somebody else was faster, or what was read is out of date.
            self.pager.release(frame);
            if !is_reached {
                return Err(Errno::Inval);
            }
        }
    }

    fn read_page(&self, index: u64) -> Result<FrameNumber, Errno> {
        let Kind::File(source) = &self.kind else {
            return match self.kind {
                Kind::Anonymous => self.pager.zeroed_frame(&self.owner, FrameUse::Object),
                _ => Err(Errno::Inval),
            };
        };
        let mut page: PageBytes = [0; PAGE_LEN];
        source.read_page(index, &mut page)?;
        let within = self.bytes().saturating_sub(index * PAGE_SIZE);
        if let Some(rest) = usize::try_from(within).ok().and_then(|within| page.get_mut(within..)) {
            rest.fill(0);
        }
        let frame = self.pager.frame(&self.owner, FrameUse::Object)?;
        self.pager.machine().write(frame.start(), &page);
        Ok(frame)
    }

    /// Changes the size. What lies beyond a smaller one is gone, in private copies too; what comes is zeros, and there at
    /// once where pages live as long as somebody reaches them.
    ///
    /// # Errors
    /// [`Errno::Inval`] for memory that has the size it has; no frames. The size is what it was then.
    pub(crate) fn resize(&self, bytes: u64) -> Result<(), Errno> {
        if matches!(self.kind, Kind::Frames | Kind::Physical(_)) || bytes > BYTES_MAX {
            return Err(Errno::Inval);
        }
        let mut state = self.state.write();
        let shrinks = bytes < state.bytes;
        if !shrinks {
            self.grow(&mut state, bytes)?;
            state.bytes = bytes;
            return Ok(());
        }
        let rest = (bytes / PAGE_SIZE, bytes % PAGE_SIZE..PAGE_SIZE);
        self.prepare_to_zero(&mut state, &rest)?;
        state.bytes = bytes;
        self.take_away(&mut state, bytes.div_ceil(PAGE_SIZE), ObjectPages::END, Copies::Dropped);
        self.zero_part(&state, rest);
        Ok(())
    }

    /// Makes bytes zeros, and whole pages of them a hole. The size stays.
    ///
    /// # Errors
    /// [`Errno::Perm`] if it is sealed (`mm/shmem.c:shmem_fallocate`), the source's reason, [`Errno::OpNotSupp`] for
    /// memory that has no holes, or no frame for a page that others have too: then nothing has changed.
    pub(crate) fn punch(&self, start: u64, end: u64) -> Result<(), Errno> {
        if self.is_write_sealed() {
            return Err(Errno::Perm);
        }
        let (first, last) = (start.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        match &self.kind {
            Kind::Anonymous => {}
            Kind::File(source) if first < last => source.punch(first, last - first)?,
            Kind::File(_) => {}
            Kind::Frames | Kind::Physical(_) => return Err(Errno::OpNotSupp),
        }
        // What is to be zeroed at either end; the second is nothing where both are in one page.
        let parts = if first > last {
            [(last, start % PAGE_SIZE..end % PAGE_SIZE), (last, 0..0)]
        } else {
            [(start / PAGE_SIZE, start % PAGE_SIZE..PAGE_SIZE), (last, 0..end % PAGE_SIZE)]
        };
        let mut state = self.state.write();
        parts.iter().try_for_each(|part| self.prepare_to_zero(&mut state, part))?;
        self.take_away(&mut state, first, last, Copies::Kept);
        parts.into_iter().for_each(|part| self.zero_part(&state, part));
        Ok(())
    }

    /// Takes pages `first..end` away, from those who show them too.
    fn take_away(&self, state: &mut State<M>, first: u64, end: u64, copies: Copies) {
        state.losses += 1;
        for (tables, range) in state.views.showing(first, end) {
            tables.drop_pages(range, copies);
        }
        self.let_go_of(&mut state.pages, first..end);
    }

    /// Gives pages back that nobody shows any more. Needs no memory.
    pub(super) fn let_go_of(&self, pages: &mut BTreeMap<u64, FrameNumber>, range: Range<u64>) {
        let mut next = range.start;
        while next < range.end {
            let Some(index) = pages.range(next..range.end).next().map(|(index, _)| *index) else { return };
            if let Some(frame) = pages.remove(&index) {
                self.let_go(frame);
            }
            next = index + 1;
        }
    }

    /// Makes certain that the page of a part can be stored to.
    fn prepare_to_zero(&self, state: &mut State<M>, (index, bytes): &(u64, Range<u64>)) -> Result<(), Errno> {
        if is_part(bytes) { self.separate_in(state, *index).map(drop) } else { Ok(()) }
    }

    /// Makes bytes of a page zeros if it is there and they are not the whole of it.
    fn zero_part(&self, state: &State<M>, (index, bytes): (u64, Range<u64>)) {
        let Some(frame) = state.frame(index).filter(|_| is_part(&bytes)) else { return };
        let zeros: PageBytes = [0; PAGE_LEN];
        let len = usize::try_from(bytes.end - bytes.start).unwrap_or(0);
        self.pager.machine().write(frame.at(bytes.start), &zeros[..len]);
        self.mark_dirty(frame);
    }

    /// Notes that the frame holds what the file does not, if there is a file: nobody else asks, and the frames of a
    /// device have nowhere to note it.
    fn mark_dirty(&self, frame: FrameNumber) {
        if self.is_file() {
            self.pager.frames().word(frame).fetch_or(DIRTY, Ordering::AcqRel);
        }
    }

    /// Copies bytes from `offset` on, up to the end; how many.
    ///
    /// # Errors
    /// A page cannot be read.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < to.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::Overflow)?;
            let rest = self.bytes().saturating_sub(at);
            let len = piece(at, rest.min((to.len() - done) as u64));
            if len == 0 {
                break;
            }
            let part = &mut to[done..done + len];
            if self.is_file() {
                self.fetch(at / PAGE_SIZE)?;
            }
            let state = self.state.read();
            match self.frame(&state, at / PAGE_SIZE) {
                Some(frame) => self.pager.machine().read(frame.at(at), part),
                None => part.fill(0),
            }
            done += len;
        }
        Ok(done)
    }

    /// Copies bytes to `offset`; the object grows if need be, unless somebody has to reach its pages. How many were
    /// copied before the first page that cannot be had.
    ///
    /// # Errors
    /// The first page cannot be had, or the object cannot be so large.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < from.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::Overflow)?;
            let len = piece(at, self.room(at).min((from.len() - done) as u64));
            if len == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::Inval) };
            }
            match self.fetch(at / PAGE_SIZE) {
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
                Ok(()) => {}
            }
            let mut state = self.state.write();
            let frame = match self.separate_in(&mut state, at / PAGE_SIZE) {
                Ok(Some(frame)) => frame,
                // It was taken away meanwhile: then it is fetched once more.
                Ok(None) => continue,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            self.pager.machine().write(frame.at(at), &from[done..done + len]);
            self.mark_dirty(frame);
            if state.views.reach().is_none() {
                state.bytes = state.bytes.max(at + len as u64);
            }
            done += len;
        }
        Ok(done)
    }

    /// How many bytes can be written from `at` on.
    fn room(&self, at: u64) -> u64 {
        let state = self.state.read();
        let end = if state.views.reach().is_some() { state.bytes } else { ObjectPages::END * PAGE_SIZE };
        end.saturating_sub(at)
    }

    /// Makes all pages from `start` to `end` be there; with `Extent::Grows` they become part of the object.
    ///
    /// # Errors
    /// A page cannot be had; those before stay.
    pub(crate) fn allocate(&self, start: u64, end: u64, extent: Extent) -> Result<(), Errno> {
        if end > BYTES_MAX {
            return Err(Errno::Inval);
        }
        for index in start / PAGE_SIZE..end.div_ceil(PAGE_SIZE) {
            self.fetch(index)?;
        }
        if extent == Extent::Grows {
            let mut state = self.state.write();
            state.bytes = state.bytes.max(end);
        }
        Ok(())
    }

    /// Writes the dirty ones of pages `first..end` back to the file.
    ///
    /// # Errors
    /// The first that the source reports; pages that could not be written stay dirty.
    pub(crate) fn write_back(&self, first: u64, end: u64) -> Result<(), Errno> {
        let Kind::File(source) = &self.kind else { return Ok(()) };
        let mut outcome = Ok(());
        let mut next = first;
        while let Some((index, frame)) = self.next_dirty(next, end) {
            let mut page: PageBytes = [0; PAGE_LEN];
            self.pager.machine().read(frame.start(), &mut page);
            let within = self.bytes().saturating_sub(index * PAGE_SIZE).min(PAGE_SIZE);
            let bytes = &page[..usize::try_from(within).unwrap_or(0)];
            if let Err(errno) = if bytes.is_empty() { Ok(()) } else { source.write_page(index, bytes) } {
                self.mark_dirty(frame);
                outcome = outcome.and(Err(errno));
            }
            self.pager.release(frame);
            next = index + 1;
        }
        outcome
    }

    /// The first dirty one of pages `first..end`, clean from now on, with a reference on its frame.
    fn next_dirty(&self, first: u64, end: u64) -> Option<(u64, FrameNumber)> {
        let state = self.state.write();
        for (&index, &frame) in state.pages.range(first..end.max(first)) {
            self.learn_of_stores(&state, index);
            if self.is_dirty(frame) && self.pager.frames().share(frame).is_ok() {
                self.pager.frames().word(frame).fetch_and(!DIRTY, Ordering::AcqRel);
                return Some((index, frame));
            }
        }
        None
    }

    /// Asks those who show page `index` whether something was stored.
    fn learn_of_stores(&self, state: &State<M>, index: u64) {
        for (tables, range) in state.views.showing(index, index + 1) {
            tables.clean_pages(range);
        }
    }

    /// Takes pages away that can be read again and that nobody has stored to; at most `wanted`. How many.
    ///
    /// They are hidden from all who show them first: only then is it certain that nobody stores any more.
    pub(crate) fn drop_clean(&self, wanted: u64) -> u64 {
        let mut state = self.state.write();
        let mut clean = Vec::new();
        for (&index, &frame) in &state.pages {
            if clean.len() as u64 >= wanted || clean.try_reserve(1).is_err() {
                break;
            }
            if self.is_dirty(frame) || state.views.is_locked(index) {
                continue;
            }
            for (tables, range) in state.views.showing(index, index + 1) {
                tables.drop_pages(range, Copies::Kept);
            }
            if !self.is_dirty(frame) {
                clean.push(index);
            }
        }
        state.losses += 1;
        for frame in clean.iter().filter_map(|index| state.pages.remove(index)) {
            self.pager.release(frame);
        }
        clean.len() as u64
    }

    fn is_dirty(&self, frame: FrameNumber) -> bool {
        self.pager.frames().word(frame).load(Ordering::Acquire) & DIRTY != 0
    }

    /// Recomputes what can be, and compares.
    ///
    /// # Panics
    /// If something is wrong.
    pub(crate) fn check_invariants(&self) {
        let state = self.state.read();
        state.views.check_invariants();
        for (index, frame) in &state.pages {
            assert_eq!(self.pager.frames().used_as(*frame), Some(FrameUse::Object), "{frame} of an object");
            assert!(state.views.may_have(*index), "page {index}, {frame}, is there and nobody reaches it");
            let others = self.others(*frame);
            assert!(self.pager.frames().references(*frame) > others, "{frame}, which {others} others have");
        }
        let views = state.views.list();
        for pair in views.windows(2) {
            let is_apart = pair[0].0 != pair[1].0 || !pair[0].1.intersects(pair[1].1);
            assert!(is_apart, "two views of one space: {} and {}", pair[0].1, pair[1].1);
        }
    }
}

/// Whether an allocation beyond the end moves the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// It does.
    Grows,
    /// It does not (`FALLOC_FL_KEEP_SIZE`).
    Stays,
}

/// Whether some bytes of a page are not all of it.
fn is_part(bytes: &Range<u64>) -> bool {
    !bytes.is_empty() && *bytes != (0..PAGE_SIZE)
}

/// How many of `rest` bytes from `at` on lie in its page.
fn piece(at: u64, rest: u64) -> usize {
    usize::try_from(rest.min(PAGE_SIZE - at % PAGE_SIZE)).unwrap_or(0)
}

impl<M: PhysMem + Mmu> Drop for ObjectMemory<M> {
    fn drop(&mut self) {
        let pages = core::mem::take(&mut self.state.get_mut().pages);
        pages.into_values().for_each(|frame| self.let_go(frame));
    }
}
