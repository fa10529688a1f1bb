//! Magazines for one user alone, and frames that one user holds alone.
//!
//! A [`HeldFrame`] or [`HeldRun`] cannot be copied: it is released once, and nobody can ask for anything else to be done to its frame
//! by number. So no record is kept of it but the charge, and charges are paid ahead and given back for many frames at
//! once. An allocation or a release is then a few instructions on the magazine, none of them one that processors have
//! to agree on.
//!
//! Who pays is in what is held as a number. The record with that number stays for as long as frames are charged to it, so
//! it is looked up when a charge is given back, and nothing is counted before.

use alloc::sync::Arc;
use core::{fmt, mem, ptr};

use super::frames::{Frames, Released};
use super::magazine::{Magazine, Slot};
use super::owner::{Owner, OwnerRecord};
use super::records::{FrameUse, State, Tag};
use super::{FrameError, FrameNumber, FrameRange};
use crate::addr::PageCount;

/// Frames that are paid ahead at once.
const AHEAD: u64 = 256;
/// Frames of one owner that are kept paid for.
const KEPT_MOST: u64 = 2 * AHEAD;
/// After so many more frames have been kept, the limits are looked at again.
const LOOK: u64 = 128;
/// How far an owner is from its limits if anything is kept paid for.
const FAR: u64 = 1024;
/// Frames of 2 MiB.
const LARGE: PageCount = PageCount::new(512);

/// A frame and its tag.
#[derive(Clone, Copy)]
struct Held(u64);

impl Held {
    const TAG_SHIFT: u32 = u64::BITS - Tag::BITS;

    #[inline]
    const fn new(number: FrameNumber, tag: Tag) -> Self {
        const { assert!(FrameNumber::END == 1 << Self::TAG_SHIFT) };
        Self((tag.bits() as u64) << Self::TAG_SHIFT | number.get())
    }

    #[inline]
    const fn number(self) -> FrameNumber {
        FrameNumber::in_low_bits(self.0)
    }

    #[inline]
    const fn tag(self) -> Tag {
        Tag::of_bits((self.0 >> Self::TAG_SHIFT) as u32)
    }
}

/// A frame that its holder has alone, without a reference by number: [`Frames::references`] of it is 0, and it can be
/// neither shared nor released by number. It becomes free when it is dropped, or at less cost by
/// [`MagazineGuard::release`]; [`HeldFrame::publish`] makes it one of those that are shared by number.
#[must_use = "a frame that is dropped is free again"]
pub struct HeldFrame<'a> {
    frames: &'a Frames,
    held: Held,
}

impl HeldFrame<'_> {
    /// Its number.
    #[inline]
    pub const fn number(&self) -> FrameNumber {
        self.held.number()
    }

    /// What it was allocated as.
    pub fn used_as(&self) -> FrameUse {
        self.held.tag().used_as().unwrap_or(FrameUse::Anonymous)
    }

    /// Makes it a frame with one reference by number, to be released with [`Frames::release`].
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if the allocator has given it out twice.
    pub fn publish(self) -> Result<FrameNumber, FrameError> {
        let number = self.number();
        self.frames.records().start(number, State::shared(self.held.tag()))?;
        self.frames.count_held(1_u64.wrapping_neg());
        mem::forget(self);
        Ok(number)
    }
}

impl Drop for HeldFrame<'_> {
    fn drop(&mut self) {
        let freed = self.frames.allocator().free(&[self.number()]);
        debug_assert!(freed.is_ok(), "it was given out");
        self.frames.count_held(1_u64.wrapping_neg());
        self.frames.owners().give_back(self.held.tag(), 1);
    }
}

/// Frees a frame where it is from. It is moved here, lest it is in memory where it is not freed.
#[cold]
fn refuse(frame: HeldFrame<'_>) -> Result<(), FrameError> {
    drop(frame);
    Err(FrameError::NotOurs)
}

impl fmt::Debug for HeldFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldFrame({} {:?})", self.number(), self.used_as())
    }
}

/// A run of frames that its holder has alone, as a [`HeldFrame`] is a single one: no record is kept of each of them, so
/// that 2 MiB cost no more than a frame. They become free when it is dropped.
#[must_use = "frames that are dropped are free again"]
pub struct HeldRun<'a> {
    frames: &'a Frames,
    /// The first, and the tag of all.
    first: Held,
    count: u64,
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
        Ok(HeldRun { frames: self, first: Held::new(run.first(), record.tag(used_as)), count: frames.get() })
    }
}

impl HeldRun<'_> {
    /// Which frames.
    pub const fn run(&self) -> FrameRange {
        FrameRange::known(self.first.number(), self.count)
    }

    /// Makes them frames with one reference by number each, as [`Frames::allocate_run`] gives.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if the allocator has given one of them out twice.
    pub fn publish(self) -> Result<FrameRange, FrameError> {
        let (frames, run, tag) = (self.frames, self.run(), self.first.tag());
        let count = self.count;
        mem::forget(self);
        frames.count_held(count.wrapping_neg());
        let started = frames.start_run(run, State::shared(tag));
        if started.is_err() {
            frames.owners().give_back(tag, count);
        }
        started
    }

    #[inline]
    const fn is_large(&self) -> bool {
        self.count == LARGE.get() && self.first.number().get().is_multiple_of(LARGE.get())
    }
}

impl Drop for HeldRun<'_> {
    fn drop(&mut self) {
        let freed = self.frames.allocator().free_run(self.run());
        debug_assert!(freed.is_ok(), "it was given out");
        self.frames.count_held(self.count.wrapping_neg());
        self.frames.owners().give_back(self.first.tag(), self.count);
    }
}

impl fmt::Debug for HeldRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldRun({:?} {:?})", self.run(), self.first.tag().used_as().unwrap_or(FrameUse::Anonymous))
    }
}

/// Frames that an owner has been charged for and does not use at the moment.
#[derive(Default)]
struct Prepaid {
    /// Who pays, if there are any; whoever paid last, otherwise.
    record: Option<Arc<OwnerRecord>>,
    /// The tag that they would have; nobody's exactly if there are none.
    tag: Tag,
    frames: u64,
    /// When there are so many, limits are looked at before more are kept.
    look_at: u64,
}

impl Prepaid {
    /// Charges for frames with `tag`, which `record` pays for. Nothing may be paid ahead yet.
    fn pay(&mut self, record: &Arc<OwnerRecord>, tag: Tag) -> Result<(), FrameError> {
        let resource = tag.resource();
        let is_ahead = record.could_be_charged(resource, FAR) && record.charge_frames(resource, AHEAD).is_ok();
        if !is_ahead {
            // Close to a limit every frame is paid by itself, so that nobody is refused what is only paid ahead.
            record.charge_frames(resource, 1)?;
        }
        if !self.record.as_ref().is_some_and(|last| Arc::ptr_eq(last, record)) {
            self.record = Some(Arc::clone(record));
        }
        self.tag = tag;
        self.frames = if is_ahead { AHEAD } else { 1 };
        self.look_at = if is_ahead { AHEAD + LOOK } else { 0 };
        Ok(())
    }

    /// A frame that was paid for is used.
    #[inline]
    fn use_one(&mut self) {
        self.frames -= 1;
        if self.frames == 0 {
            self.tag = Tag::NOBODY;
        }
    }
}

/// The magazine of a processor, taken by one user until this is dropped. Others that ask for the magazine's processor
/// go to the allocator meanwhile.
///
/// An owner may be charged for up to 512 frames and 2 MiB more than it uses as long as this is there. Nothing is paid
/// ahead, and nothing that is released stays paid for, when the owner is within 1024 frames of a limit: that is looked
/// at before frames are paid ahead, whenever 128 more have been released, and with every release of 2 MiB.
pub struct MagazineGuard<'a> {
    frames: &'a Frames,
    slot: &'a Slot,
    magazine: Magazine,
    prepaid: Prepaid,
    /// The 2 MiB that were released last, which are still paid for.
    spare: Option<HeldRun<'a>>,
    /// Who paid for the 2 MiB that were released last.
    payer: Option<Arc<OwnerRecord>>,
    /// Frames that were taken to be held less those that were released, wrapping.
    held: u64,
}

impl Frames {
    /// The magazine of `processor` for the caller alone; `None` if somebody else has it.
    pub fn magazine(&self, processor: usize) -> Option<MagazineGuard<'_>> {
        let slot = self.slot(processor);
        let magazine = slot.take()?;
        let prepaid = Prepaid::default();
        Some(MagazineGuard { frames: self, slot, magazine, prepaid, spare: None, payer: None, held: 0 })
    }
}

impl<'a> MagazineGuard<'a> {
    /// Takes a frame for `owner`, to be held alone. Its bytes are whatever they were.
    ///
    /// # Errors
    /// As [`Frames::allocate`].
    #[inline]
    pub fn allocate(&mut self, owner: &Owner, used_as: FrameUse) -> Result<HeldFrame<'a>, FrameError> {
        let (number, tag) = self.take(owner, used_as)?;
        self.held = self.held.wrapping_add(1);
        Ok(HeldFrame { frames: self.frames, held: Held::new(number, tag) })
    }

    /// Takes a frame for `owner` with one reference by number, as [`Frames::allocate`] does.
    ///
    /// # Errors
    /// As [`Frames::allocate`].
    #[inline]
    pub fn allocate_shared(&mut self, owner: &Owner, used_as: FrameUse) -> Result<FrameNumber, FrameError> {
        let (number, tag) = self.take(owner, used_as)?;
        let started = self.frames.records().start(number, State::shared(tag));
        if started.is_err() {
            self.give_back(tag);
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
            return refuse(frame);
        }
        let held = frame.held;
        mem::forget(frame);
        self.held = self.held.wrapping_sub(1);
        self.put_back(held.number(), held.tag())
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
        self.put_back(frame, before.tag()).map(|()| Released::Last)
    }

    /// Takes 512 frames that follow each other from a multiple of 512 on, to be held alone: 2 MiB.
    ///
    /// # Errors
    /// As [`Frames::hold_run`].
    #[inline]
    pub fn hold_large(&mut self, owner: &Owner, used_as: FrameUse) -> Result<HeldRun<'a>, FrameError> {
        let tag = self.frames.record_of(owner)?.tag(used_as);
        if let Some(spare) = self.spare.take_if(|spare| spare.first.tag() == tag) {
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
    pub fn release_run(&mut self, run: HeldRun<'_>) -> Result<(), FrameError> {
        if !ptr::eq(run.frames, self.frames) {
            return Err(FrameError::NotOurs);
        }
        if run.is_large() && self.spare.is_none() && self.may_keep(run.first.tag()) {
            self.spare = Some(HeldRun { frames: self.frames, first: run.first, count: run.count });
            mem::forget(run);
        }
        Ok(())
    }

    /// Whether nobody is refused what frames with this tag are charged for.
    #[inline]
    fn may_keep(&mut self, tag: Tag) -> bool {
        if !self.payer.as_ref().is_some_and(|payer| payer.pays_for(tag)) {
            self.payer = self.frames.owners().get(tag.owner());
        }
        self.payer.as_ref().is_some_and(|payer| payer.could_be_charged(tag.resource(), FAR))
    }

    #[inline]
    fn take(&mut self, owner: &Owner, used_as: FrameUse) -> Result<(FrameNumber, Tag), FrameError> {
        let record = self.frames.record_of(owner)?;
        let tag = record.tag(used_as);
        if self.prepaid.tag == tag
            && let Some(number) = self.magazine.pop_stocked()
        {
            self.prepaid.use_one();
            return Ok((number, tag));
        }
        Ok((self.take_slowly(record, tag)?, tag))
    }

    /// Takes a frame when it has to be paid first, or the magazine is empty.
    #[cold]
    fn take_slowly(&mut self, record: &Arc<OwnerRecord>, tag: Tag) -> Result<FrameNumber, FrameError> {
        if self.prepaid.tag != tag {
            self.settle(0);
            self.prepaid.pay(record, tag)?;
        }
        let frame = self.magazine.pop(self.frames.allocator());
        self.slot.tell(&self.magazine);
        let frame = frame.or_else(|| self.frames.any_free_frame()).or_else(|| self.part_of_spare());
        let frame = frame.ok_or(FrameError::Exhausted)?;
        self.prepaid.use_one();
        Ok(frame)
    }

    /// A frame of the 2 MiB that were kept, when there is no other.
    fn part_of_spare(&mut self) -> Option<FrameNumber> {
        drop(self.spare.take()?);
        self.magazine.pop(self.frames.allocator())
    }

    #[inline]
    fn put_back(&mut self, frame: FrameNumber, tag: Tag) -> Result<(), FrameError> {
        if self.prepaid.tag == tag && self.prepaid.frames < self.prepaid.look_at {
            self.prepaid.frames += 1;
        } else {
            self.give_back(tag);
        }
        if self.magazine.has_room() {
            self.magazine.put(frame);
            return Ok(());
        }
        self.spill(frame)
    }

    /// A frame was released that is not of the kind that is paid ahead, or limits have to be looked at.
    #[cold]
    fn give_back(&mut self, tag: Tag) {
        if self.prepaid.tag != tag {
            self.settle(0);
            if !self.prepaid.record.as_ref().is_some_and(|last| last.pays_for(tag)) {
                self.prepaid.record = self.frames.owners().get(tag.owner());
            }
            self.prepaid.tag = tag;
        }
        // The charge for the frame is one that can be used again.
        self.prepaid.frames += 1;
        let is_far = self.prepaid.record.as_ref().is_some_and(|record| record.could_be_charged(tag.resource(), FAR));
        if !is_far {
            self.settle(0);
        } else if self.prepaid.frames > KEPT_MOST {
            self.settle(AHEAD);
        }
        self.prepaid.look_at = KEPT_MOST.min(self.prepaid.frames + LOOK);
    }

    /// Gives all but `keep` of what is paid ahead back.
    fn settle(&mut self, keep: u64) {
        let Prepaid { record, tag, frames, .. } = &mut self.prepaid;
        let surplus = frames.saturating_sub(keep);
        if let Some(record) = record
            && surplus > 0
        {
            self.frames.owners().give_back_frames(record, tag.resource(), surplus);
        }
        *frames -= surplus;
        if *frames == 0 {
            *tag = Tag::NOBODY;
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
        let paid = self.prepaid.frames;
        write!(f, "MagazineGuard({} frames, {paid} paid ahead)", self.magazine.frames().len())
    }
}
