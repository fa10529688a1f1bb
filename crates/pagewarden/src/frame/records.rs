//! What is known of every frame: a word of state, and a word for whoever uses it.
//!
//! The state of an allocated frame has a count of references, what it is used for and who pays: all in one word, so
//! that whoever takes the last reference learns in the same step to whom the charge goes back.
//!
//! ```text
//! 0                                free, or held alone by a HeldFrame, which knows the rest
//! tag (owner and use) | references allocated, with references by number
//! all ones                         not ours
//! ```

use alloc::vec::Vec;

use super::sections::Sections;
use super::{FrameError, FrameNumber, MemoryMap};
use crate::ledger::Resource;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameUse {
    /// A private page.
    Anonymous,
    /// A page of a memory object.
    Object,
    /// A page table.
    Table,
}

impl FrameUse {
    /// What it is charged as.
    pub const fn resource(self) -> Resource {
        match self {
            Self::Anonymous | Self::Object => Resource::Frames,
            Self::Table => Resource::TableFrames,
        }
    }
}

/// Who pays for a frame, and as what.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tag(u32);

impl Tag {
    /// That of no frame.
    pub(super) const NOBODY: Self = Self(0);
    const USE_BITS: u32 = 2;
    /// How many bits it has.
    pub(super) const BITS: u32 = 24;
    /// Numbers of owners are below this.
    pub(super) const OWNERS_MAX: u32 = 1 << (Self::BITS - Self::USE_BITS);

    #[inline]
    pub(super) const fn new(owner: u32, used_as: FrameUse) -> Self {
        debug_assert!(owner < Self::OWNERS_MAX);
        Self(owner << Self::USE_BITS | (used_as as u32 + 1))
    }

    /// The tag that has these bits.
    #[inline]
    pub(super) const fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline]
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) const fn owner(self) -> u32 {
        self.0 >> Self::USE_BITS
    }

    #[inline]
    pub(super) const fn used_as(self) -> Option<FrameUse> {
        match self.0 % (1 << Self::USE_BITS) {
            1 => Some(FrameUse::Anonymous),
            2 => Some(FrameUse::Object),
            3 => Some(FrameUse::Table),
            _ => None,
        }
    }

    /// What its frames are charged as.
    #[inline]
    pub(super) const fn resource(self) -> Resource {
        match self.used_as() {
            Some(used_as) => used_as.resource(),
            None => Resource::Frames,
        }
    }
}

/// The state of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    pub(super) const FREE: Self = Self(0);
    const NOT_OURS: Self = Self(u64::MAX);
    const TAG_SHIFT: u32 = 32;

    /// Allocated, with one reference.
    pub(super) const fn shared(tag: Tag) -> Self {
        Self((tag.bits() as u64) << Self::TAG_SHIFT | 1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub(super) const fn references(self) -> u32 {
        self.0 as u32
    }

    /// Who pays, and as what: nobody, unless it is allocated.
    pub(super) const fn tag(self) -> Tag {
        if self.0 == Self::NOT_OURS.0 { Tag::NOBODY } else { Tag::of_bits((self.0 >> Self::TAG_SHIFT) as u32) }
    }

    /// Allocated and shared by number, or why it is not.
    fn as_shared(self) -> Result<Self, FrameError> {
        match self {
            Self::FREE => Err(FrameError::NotAllocated),
            Self::NOT_OURS => Err(FrameError::NotOurs),
            shared => Ok(shared),
        }
    }

    pub(super) const fn with_references(self, references: u32) -> Self {
        Self(self.0 >> Self::TAG_SHIFT << Self::TAG_SHIFT | references as u64)
    }
}

/// The data of every frame: 12 bytes each.
pub(super) struct Records {
    sections: Sections,
    states: Vec<AtomicU64>,
    words: Vec<AtomicU32>,
}

impl Records {
    /// All of them free.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for them.
    pub(super) fn new(map: &MemoryMap) -> Result<Self, FrameError> {
        let sections = Sections::new(map)?;
        let (mut states, mut words) = (Vec::new(), Vec::new());
        let frames = sections.frames();
        states.try_reserve_exact(frames).map_err(|_| FrameError::Exhausted)?;
        words.try_reserve_exact(frames).map_err(|_| FrameError::Exhausted)?;
        states.extend((0..frames).map(|_| AtomicU64::new(State::NOT_OURS.0)));
        words.extend((0..frames).map(|_| AtomicU32::new(0)));
        for range in map.usable() {
            let first = sections.range(range).ok_or(FrameError::NotOurs)?;
            let end = first + range.iter().len();
            states[first..end].iter().for_each(|state| state.store(State::FREE.0, Ordering::Relaxed));
        }
        Ok(Self { sections, states, words })
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.states.as_slice()) + size_of_val(self.words.as_slice())
    }

    /// How many frames are ours.
    pub(super) fn total(&self) -> u64 {
        self.sections.usable()
    }

    #[inline]
    fn word_of_state(&self, frame: FrameNumber) -> Result<&AtomicU64, FrameError> {
        self.sections.index(frame).and_then(|index| self.states.get(index)).ok_or(FrameError::NotOurs)
    }

    /// The state of `frame`, if it is ours.
    #[inline]
    pub(super) fn state(&self, frame: FrameNumber) -> Option<State> {
        let state = State(self.word_of_state(frame).ok()?.load(Ordering::Acquire));
        (state != State::NOT_OURS).then_some(state)
    }

    /// The word of `frame` for whoever uses it.
    pub(super) fn word(&self, frame: FrameNumber) -> Option<&AtomicU32> {
        self.sections.index(frame).and_then(|index| self.words.get(index))
    }

    /// Marks a frame that the allocator has given out.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] if it is not one of ours, or is in use already: the allocator is wrong, and the frame is
    /// nobody's to use.
    #[inline]
    pub(super) fn start(&self, frame: FrameNumber, state: State) -> Result<(), FrameError> {
        let index = self.sections.index(frame).ok_or(FrameError::NotOurs)?;
        let (Some(slot), Some(word)) = (self.states.get(index), self.words.get(index)) else {
            return Err(FrameError::NotOurs);
        };
        // Nobody else writes to the state of a free frame: whoever took it off the allocator is alone with it.
        if slot.load(Ordering::Relaxed) != State::FREE.0 {
            return Err(FrameError::NotOurs);
        }
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
        slot.store(state.0, Ordering::Release);
        Ok(())
    }

    /// One reference more; how many there are then.
    ///
    /// # Errors
    /// Why it is not shared, or [`FrameError::TooManyReferences`].
    pub(super) fn share(&self, frame: FrameNumber) -> Result<u32, FrameError> {
        self.update(frame, |state| {
            let more = state.references().checked_add(1).ok_or(FrameError::TooManyReferences)?;
            Ok(state.with_references(more))
        })
        .map(|state| state.references() + 1)
    }

    /// One reference less; what the state was before. The frame is free to use if it had one.
    ///
    /// # Errors
    /// Why it is not shared.
    pub(super) fn release(&self, frame: FrameNumber) -> Result<State, FrameError> {
        self.update(frame, |state| match state.references() {
            1 => Ok(State::FREE),
            more => Ok(state.with_references(more - 1)),
        })
    }

    /// The same, unless it is the last one: then nothing changes. What there was before.
    pub(super) fn release_unless_last(&self, frame: FrameNumber) -> Result<State, FrameError> {
        self.update(frame, |state| match state.references() {
            1 => Ok(state),
            more => Ok(state.with_references(more - 1)),
        })
    }

    /// Replaces the state of a frame that is shared; what it was before.
    fn update(
        &self,
        frame: FrameNumber,
        mut change: impl FnMut(State) -> Result<State, FrameError>,
    ) -> Result<State, FrameError> {
        let slot = self.word_of_state(frame)?;
        let mut current = slot.load(Ordering::Relaxed);
        loop {
            let next = change(State(current).as_shared()?)?;
            match slot.compare_exchange_weak(current, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(State(current)),
                Err(other) => current = other,
            }
        }
    }

    /// Every frame that is ours, with its state, lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (FrameNumber, State)> + '_ {
        let states = self.states.iter().map(|state| State(state.load(Ordering::Acquire)));
        let ours = states.enumerate().filter(|(_, state)| *state != State::NOT_OURS);
        ours.filter_map(|(index, state)| Some((self.sections.frame(index)?, state)))
    }
}
