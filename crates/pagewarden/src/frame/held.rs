//! Magazines for one user alone, and frames that one user holds alone.
//!
//! A [`HeldFrame`] or [`HeldRun`] cannot be copied: it is released once, and nobody can ask for anything else to be done to its frame
//! by number. So no record is kept of it but the charge, and charges are paid ahead and given back for many frames at
//! once. An allocation or a release is then a few instructions on the magazine, none of them one that processors have
//! to agree on.

use alloc::sync::Arc;
use core::{fmt, mem, ptr};

use super::frames::{Frames, Released};
use super::magazine::{Magazine, Slot};
use super::owner::{Owner, OwnerRecord};
use super::records::{FrameUse, State};
use super::{FrameError, FrameNumber, FrameRange};
use crate::addr::PageCount;
use crate::ledger::Resource;

/// Frames that are paid ahead at once.
const AHEAD: u64 = 64;
/// Frames of 2 MiB.
const LARGE: PageCount = PageCount::new(512);

/// A frame that its holder has alone, without a reference by number: [`Frames::references`] of it is 0, and it can be
/// neither shared nor released by number. It becomes free when it is dropped, or at less cost by
/// [`MagazineGuard::release`]; [`HeldFrame::publish`] makes it one of those that are shared by number.
#[must_use = "a frame that is dropped is free again"]
pub struct HeldFrame<'a> {
    frames: &'a Frames,
    number: FrameNumber,
    /// What its state would be, without references.
    state: State,
}

impl HeldFrame<'_> {
    /// Its number.
    pub const fn number(&self) -> FrameNumber {
        self.number
    }

    /// What it was allocated as.
    pub fn used_as(&self) -> FrameUse {
        self.state.used_as().unwrap_or(FrameUse::Anonymous)
    }

    /// Makes it a frame with one reference by number, to be released with [`Frames::release`].
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if the allocator has given it out twice.
    pub fn publish(self) -> Result<FrameNumber, FrameError> {
        self.frames.records().start(self.number, self.state.with_references(1))?;
        self.frames.count_held(1_u64.wrapping_neg());
        let number = self.number;
        mem::forget(self);
        Ok(number)
    }
}

impl Drop for HeldFrame<'_> {
    fn drop(&mut self) {
        let freed = self.frames.allocator().free(&[self.number]);
        debug_assert!(freed.is_ok(), "it was given out");
        self.frames.count_held(1_u64.wrapping_neg());
        self.frames.owners().give_back(self.state.owner(), self.used_as());
    }
}

impl fmt::Debug for HeldFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldFrame({} {:?})", self.number, self.used_as())
    }
}

/// A run of frames that its holder has alone, as a [`HeldFrame`] is a single one: no record is kept of each of them, so
/// that 2 MiB cost no more than a frame. They become free when it is dropped.
#[must_use = "frames that are dropped are free again"]
pub struct HeldRun<'a> {
    frames: &'a Frames,
    run: FrameRange,
    /// Who pays, for as long as the frames are held.
    record: Option<Arc<OwnerRecord>>,
    used_as: FrameUse,
}

impl Frames {
    /// Takes a run of frames for `owner`, to be held alone. The number of the first is a multiple of `align`.
    ///
    /// # Errors
    /// As [`allocate_run`](Self::allocate_run).
    pub fn hold_run(
        &self,
        frames: PageCount,
        align: PageCount,
        owner: &Owner,
        used_as: FrameUse,
    ) -> Result<HeldRun<'_>, FrameError> {
        let record = self.record_of(owner)?;
        let run = self.charged_run(frames, align, record, used_as)?;
        self.count_held(frames.get());
        Ok(HeldRun { frames: self, run, record: Some(Arc::clone(record)), used_as })
    }
}

impl HeldRun<'_> {
    /// Which frames.
    pub const fn run(&self) -> FrameRange {
        self.run
    }

    /// Makes them frames with one reference by number each, as [`Frames::allocate_run`] gives.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if the allocator has given one of them out twice.
    pub fn publish(mut self) -> Result<FrameRange, FrameError> {
        let Some(record) = self.record.take() else { return Err(FrameError::NotOurs) };
        let frames = self.run.frames().get();
        self.frames.count_held(frames.wrapping_neg());
        let started = self.frames.start_run(self.run, State::shared(record.number(), self.used_as));
        if started.is_err() {
            self.frames.owners().give_back_frames(&record, self.used_as.resource(), frames);
        }
        started
    }
}

impl HeldRun<'_> {
    fn is_of(&self, record: &Arc<OwnerRecord>, used_as: FrameUse) -> bool {
        self.used_as == used_as && self.record.as_ref().is_some_and(|of| Arc::ptr_eq(of, record))
    }

    fn is_large(&self) -> bool {
        self.run.frames() == LARGE && self.run.first().get().is_multiple_of(LARGE.get())
    }

    /// Whether nobody is refused what these frames are charged for.
    fn is_far_from_limit(&self) -> bool {
        let resource = self.used_as.resource();
        self.record.as_ref().is_some_and(|record| record.could_be_charged(resource) >= 16 * AHEAD)
    }
}

impl Drop for HeldRun<'_> {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let freed = self.frames.allocator().free_run(self.run);
        debug_assert!(freed.is_ok(), "it was given out");
        let frames = self.run.frames().get();
        self.frames.count_held(frames.wrapping_neg());
        self.frames.owners().give_back_frames(&record, self.used_as.resource(), frames);
    }
}

impl fmt::Debug for HeldRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldRun({:?} {:?})", self.run, self.used_as)
    }
}

/// Frames that an owner has been charged for and does not use at the moment.
struct Prepaid {
    record: Arc<OwnerRecord>,
    /// The state that they would have, without references: who pays, and as what.
    state: State,
    resource: Resource,
    frames: u64,
}

/// The magazine of a processor, taken by one user until this is dropped. Others that ask for the magazine's processor
/// go to the allocator meanwhile.
///
/// An owner may be charged for up to 128 frames and 2 MiB more than it uses as long as this is there; what is paid ahead
/// is never taken when the owner is within 1024 frames of a limit.
pub struct MagazineGuard<'a> {
    frames: &'a Frames,
    slot: &'a Slot,
    magazine: Magazine,
    prepaid: Option<Prepaid>,
    /// The 2 MiB that were released last, which are still paid for.
    spare: Option<HeldRun<'a>>,
    /// Frames that were taken to be held less those that were released, wrapping.
    held: u64,
}

impl Frames {
    /// The magazine of `processor` for the caller alone; `None` if somebody else has it.
    pub fn magazine(&self, processor: usize) -> Option<MagazineGuard<'_>> {
        let slot = self.slot(processor);
        let magazine = slot.take()?;
        Some(MagazineGuard { frames: self, slot, magazine, prepaid: None, spare: None, held: 0 })
    }
}

impl<'a> MagazineGuard<'a> {
    /// Takes a frame for `owner`, to be held alone. Its bytes are whatever they were.
    ///
    /// # Errors
    /// As [`Frames::allocate`].
    #[inline]
    pub fn allocate(&mut self, owner: &Owner, used_as: FrameUse) -> Result<HeldFrame<'a>, FrameError> {
        let (number, state) = self.take(owner, used_as)?;
        self.held = self.held.wrapping_add(1);
        Ok(HeldFrame { frames: self.frames, number, state })
    }

    /// Takes a frame for `owner` with one reference by number, as [`Frames::allocate`] does.
    ///
    /// # Errors
    /// As [`Frames::allocate`].
    #[inline]
    pub fn allocate_shared(&mut self, owner: &Owner, used_as: FrameUse) -> Result<FrameNumber, FrameError> {
        let (number, state) = self.take(owner, used_as)?;
        let started = self.frames.records().start(number, state.with_references(1));
        if started.is_err() {
            self.give_back(state);
        }
        started.map(|()| number)
    }

    /// Releases a frame that is held alone: it is free now.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if it is held from other frames than these; it is free there, then.
    #[inline]
    pub fn release(&mut self, frame: HeldFrame<'_>) -> Result<(), FrameError> {
        if !ptr::eq(frame.frames, self.frames) {
            return Err(FrameError::NotOurs);
        }
        let (number, state) = (frame.number, frame.state);
        mem::forget(frame);
        self.held = self.held.wrapping_sub(1);
        self.put_back(number, state)
    }

    /// One reference by number less, as [`Frames::release`] does.
    ///
    /// # Errors
    /// As [`Frames::release`].
    #[inline]
    pub fn release_shared(&mut self, frame: FrameNumber) -> Result<Released, FrameError> {
        let before = self.frames.records().release(frame)?;
        if before.references() > 1 {
            return Ok(Released::StillUsed);
        }
        self.put_back(frame, before.with_references(0)).map(|()| Released::Last)
    }

    /// Takes 512 frames that follow each other from a multiple of 512 on, to be held alone: 2 MiB.
    ///
    /// # Errors
    /// As [`Frames::hold_run`].
    #[inline]
    pub fn hold_large(&mut self, owner: &Owner, used_as: FrameUse) -> Result<HeldRun<'a>, FrameError> {
        let record = self.frames.record_of(owner)?;
        if let Some(spare) = self.spare.take_if(|spare| spare.is_of(record, used_as)) {
            return Ok(spare);
        }
        self.spare = None;
        self.frames.hold_run(LARGE, LARGE, owner, used_as)
    }

    /// Releases frames that are held alone: they are free now. The last 2 MiB that were released stay at hand.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if they are held from other frames than these; they are free there, then.
    #[inline]
    pub fn release_run(&mut self, mut run: HeldRun<'_>) -> Result<(), FrameError> {
        if !ptr::eq(run.frames, self.frames) {
            return Err(FrameError::NotOurs);
        }
        if run.is_large() && self.spare.is_none() && run.is_far_from_limit() {
            let HeldRun { run: frames, used_as, .. } = run;
            self.spare = Some(HeldRun { frames: self.frames, run: frames, record: run.record.take(), used_as });
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, owner: &Owner, used_as: FrameUse) -> Result<(FrameNumber, State), FrameError> {
        let record = self.frames.record_of(owner)?;
        let state = State::unreferenced(record.number(), used_as);
        let number = match &mut self.prepaid {
            Some(paid) if paid.state == state && paid.frames > 0 => match self.magazine.pop_stocked() {
                Some(number) => {
                    paid.frames -= 1;
                    number
                }
                None => self.take_slowly(record, state)?,
            },
            _ => self.take_slowly(record, state)?,
        };
        Ok((number, state))
    }

    /// Takes a frame when it has to be paid first, or the magazine is empty.
    #[cold]
    fn take_slowly(&mut self, record: &Arc<OwnerRecord>, state: State) -> Result<FrameNumber, FrameError> {
        if !self.prepaid.as_ref().is_some_and(|paid| paid.state == state && paid.frames > 0) {
            self.pay_ahead(record, state)?;
        }
        let frame = self.magazine.pop(self.frames.allocator());
        self.slot.tell(&self.magazine);
        let frame = frame.or_else(|| self.frames.any_free_frame()).or_else(|| self.part_of_spare());
        let frame = frame.ok_or(FrameError::Exhausted)?;
        if let Some(paid) = &mut self.prepaid {
            paid.frames -= 1;
        }
        Ok(frame)
    }

    /// A frame of the 2 MiB that were kept, when there is no other.
    fn part_of_spare(&mut self) -> Option<FrameNumber> {
        drop(self.spare.take()?);
        self.magazine.pop(self.frames.allocator())
    }

    #[inline]
    fn put_back(&mut self, frame: FrameNumber, state: State) -> Result<(), FrameError> {
        match &mut self.prepaid {
            Some(paid) if paid.state == state && paid.frames < 2 * AHEAD => paid.frames += 1,
            _ => self.give_back(state),
        }
        if self.magazine.has_room() {
            self.magazine.put(frame);
            return Ok(());
        }
        self.spill(frame)
    }

    /// Charges for more frames of one owner, instead of another.
    fn pay_ahead(&mut self, record: &Arc<OwnerRecord>, state: State) -> Result<(), FrameError> {
        self.settle(0);
        let resource = state.used_as().map_or(Resource::Frames, FrameUse::resource);
        // Close to a limit every frame is paid by itself, so that nobody is refused what is only paid ahead.
        let frames = if record.could_be_charged(resource) >= 16 * AHEAD { AHEAD } else { 1 };
        record.charge_frames(resource, frames)?;
        self.prepaid = Some(Prepaid { record: Arc::clone(record), state, resource, frames });
        Ok(())
    }

    /// A frame was released that is not of the kind that is paid ahead, or enough of them are.
    #[cold]
    fn give_back(&mut self, state: State) {
        let is_same = self.prepaid.as_ref().is_some_and(|paid| paid.state == state);
        self.settle(if is_same { AHEAD } else { 0 });
        match &mut self.prepaid {
            Some(paid) => paid.frames += 1,
            // The charge for the frame is one that can be used again.
            None => {
                let resource = state.used_as().map_or(Resource::Frames, FrameUse::resource);
                let record = self.frames.owners().get(state.owner());
                self.prepaid = record.map(|record| Prepaid { record, state, resource, frames: 1 });
            }
        }
    }

    /// Gives all but `keep` of what is paid ahead back.
    fn settle(&mut self, keep: u64) {
        if let Some(mut paid) = self.prepaid.take() {
            let surplus = paid.frames.saturating_sub(keep);
            if surplus > 0 {
                self.frames.owners().give_back_frames(&paid.record, paid.resource, surplus);
            }
            paid.frames -= surplus;
            self.prepaid = (paid.frames > 0).then_some(paid);
        }
    }

    #[cold]
    fn spill(&mut self, frame: FrameNumber) -> Result<(), FrameError> {
        if !self.magazine.push(self.frames.allocator(), frame) {
            return self.frames.allocator().free(&[frame]);
        }
        self.slot.tell(&self.magazine);
        Ok(())
    }
}

impl Drop for MagazineGuard<'_> {
    fn drop(&mut self) {
        self.spare = None;
        self.settle(0);
        self.frames.count_held(self.held);
        self.slot.put(mem::take(&mut self.magazine));
    }
}

impl fmt::Debug for MagazineGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paid = self.prepaid.as_ref().map_or(0, |paid| paid.frames);
        write!(f, "MagazineGuard({} frames, {paid} paid ahead)", self.magazine.frames().len())
    }
}
