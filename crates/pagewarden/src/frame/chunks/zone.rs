//! A zone: up to some hundred chunks behind one lock.
//!
//! Invariants: a chunk's count is the number of its free bits; `whole` has the chunks with a count of 512 and `partial`
//! those with another count that is not 0; `changed` has every chunk whose summaries are out of date. Frames and chunks
//! are numbered from the first of the zone.

use alloc::vec::Vec;

use super::field::Field;
use super::runs::{Found, Run, RunTree};
use super::summary::Summary;
use crate::frame::sections::{CHUNK, CHUNK_FRAMES as ALL, CHUNK_SHIFT, Span};
use crate::frame::{FrameError, FrameNumber};

/// How many frames of a chunk are free and usable, and whether it is listed as changed, in a word: that there is
/// nothing to look after but the number of free frames takes one comparison.
///
/// ```text
/// 0..16     free frames
/// 16..31    frames that are not usable
/// 31        not listed as changed
/// ```
#[derive(Clone, Copy, Debug)]
struct Counts(u32);

impl Counts {
    const MISSING_SHIFT: u32 = 16;
    const UNCHANGED: u32 = 1 << 31;
    /// No frame usable.
    const NONE: Self = Self(Self::UNCHANGED | (ALL as u32) << Self::MISSING_SHIFT);

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    const fn free(self) -> u16 {
        self.0 as u16
    }

    const fn set_free(&mut self, free: u16) {
        self.0 = self.0 >> Self::MISSING_SHIFT << Self::MISSING_SHIFT | free as u32;
    }

    #[inline]
    const fn usable(self) -> u16 {
        ALL - ((self.0 & !Self::UNCHANGED) >> Self::MISSING_SHIFT) as u16
    }

    const fn add_usable(&mut self, frames: u16) {
        self.0 -= (frames as u32) << Self::MISSING_SHIFT;
    }

    const fn is_changed(self) -> bool {
        self.0 & Self::UNCHANGED == 0
    }

    const fn set_changed(&mut self) {
        self.0 &= !Self::UNCHANGED;
    }

    const fn set_unchanged(&mut self) {
        self.0 |= Self::UNCHANGED;
    }

    /// The same with one free frame more, if nothing else depends on it, whichever frame of the chunk it is: it is
    /// usable, the chunk is listed as changed, and used in part before and after.
    #[inline]
    const fn with_one_more(self) -> Option<Self> {
        if self.0.wrapping_sub(1) < ALL as u32 - 2 { Some(Self(self.0 + 1)) } else { None }
    }
}

/// What others may know of a zone without its lock.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Hints {
    pub(super) partial: bool,
    pub(super) whole: bool,
}

#[derive(Debug)]
pub(super) struct Zone {
    free: Vec<Field>,
    counts: Vec<Counts>,
    /// Which frames can be given out, of chunks where not all can; sorted by chunk.
    holed: Vec<(usize, Field)>,
    partial: Summary,
    whole: Summary,
    /// Has room for every chunk.
    changed: Vec<usize>,
    /// All free frames.
    runs: RunTree,
    /// Those of whole chunks only.
    whole_runs: RunTree,
    available: usize,
    published: Hints,
}

impl Zone {
    /// A zone of `chunks` chunks with no usable frame.
    pub(super) fn new(chunks: usize) -> Result<Self, FrameError> {
        let (mut free, mut counts, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        changed.try_reserve_exact(chunks).map_err(|_| FrameError::Exhausted)?;
        free.try_reserve_exact(chunks).map_err(|_| FrameError::Exhausted)?;
        counts.try_reserve_exact(chunks).map_err(|_| FrameError::Exhausted)?;
        free.resize(chunks, Field::default());
        counts.resize(chunks, Counts::NONE);
        Ok(Self {
            free,
            counts,
            holed: Vec::new(),
            partial: Summary::new(chunks)?,
            whole: Summary::new(chunks)?,
            changed,
            runs: RunTree::new(chunks)?,
            whole_runs: RunTree::new(chunks)?,
            available: 0,
            published: Hints::default(),
        })
    }

    /// Makes frames usable, and free; by ascending numbers.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory to remember which.
    pub(super) fn add(&mut self, first: usize, frames: usize) -> Result<(), FrameError> {
        for (chunk, from, to) in pieces(first, frames) {
            self.counts[chunk].add_usable(size(from, to));
            if self.counts[chunk].usable() < ALL {
                if self.holed.last().is_none_or(|(last, _)| *last != chunk) {
                    self.holed.try_reserve(1).map_err(|_| FrameError::Exhausted)?;
                    self.holed.push((chunk, Field::default()));
                }
                if let Some((_, usable)) = self.holed.last_mut() {
                    usable.insert_range(from, to);
                }
            }
        }
        self.put(first, frames);
        Ok(())
    }

    #[inline]
    pub(super) fn available(&self) -> usize {
        self.available
    }

    /// What others were told last, and are told now.
    #[inline]
    pub(super) fn update_hints(&mut self) -> (Hints, Hints) {
        let now = Hints { partial: !self.partial.is_empty(), whole: !self.whole.is_empty() };
        (core::mem::replace(&mut self.published, now), now)
    }

    pub(super) fn is_free(&self, place: usize) -> bool {
        self.free[place / CHUNK].contains(place % CHUNK)
    }

    fn is_usable(&self, chunk: usize, from: usize, to: usize) -> bool {
        if self.counts[chunk].usable() == ALL {
            return true;
        }
        let holed = self.holed.binary_search_by_key(&chunk, |(chunk, _)| *chunk);
        holed.is_ok_and(|at| self.holed[at].1.has_all(from, to))
    }

    /// Takes up to `most` frames of one chunk: of one that is used in part, or of a whole one if there is none.
    #[inline]
    pub(super) fn take_singles(&mut self, most: usize, kind: Singles) -> Option<(usize, Field)> {
        let chunk = match kind {
            Singles::OfPartial => self.partial.first(),
            Singles::OfWhole => self.whole.first(),
        };
        let chunk = chunk.filter(|_| most > 0)?;
        let taken = self.free[chunk].split_lowest(most);
        let count = most.min(usize::from(self.counts[chunk].free()));
        self.recount(chunk, self.counts[chunk].free() - size(0, count));
        Some((chunk, taken))
    }

    /// Frees frames as long as they are of `span`, which is of this zone; the others.
    pub(super) fn put_singles<'a>(
        &mut self,
        span: Span,
        mut batch: &'a [FrameNumber],
        outcome: &mut Result<(), FrameError>,
    ) -> &'a [FrameNumber] {
        loop {
            let chunks = span.chunk..span.chunk + span.chunks;
            let (fields, counts) = (&mut self.free[chunks.clone()], &mut self.counts[chunks]);
            let plain = put_plain(fields, counts, span.first, batch);
            self.available += plain;
            batch = &batch[plain..];
            let Some(place) = batch.first().and_then(|frame| span.place(*frame)) else { return batch };
            if let Err(wrong) = self.put_single(place) {
                *outcome = outcome.and(Err(wrong));
            }
            batch = &batch[1..];
        }
    }

    /// Frees a frame.
    fn put_single(&mut self, place: usize) -> Result<(), FrameError> {
        let (chunk, bit) = (place / CHUNK, place % CHUNK);
        if self.free[chunk].contains(bit) {
            return Err(FrameError::NotAllocated);
        }
        if !self.is_usable(chunk, bit, bit + 1) {
            return Err(FrameError::NotOurs);
        }
        self.free[chunk].insert(bit);
        self.recount(chunk, self.counts[chunk].free() + 1);
        Ok(())
    }

    /// Takes a whole chunk; its first frame.
    pub(super) fn take_whole(&mut self) -> Option<usize> {
        let chunk = self.whole.first()?;
        self.free[chunk] = Field::default();
        self.recount(chunk, 0);
        Some(chunk << CHUNK_SHIFT)
    }

    /// Frees a whole chunk; `None` if that is not what is there.
    pub(super) fn put_whole(&mut self, first: usize) -> Option<()> {
        let chunk = first / CHUNK;
        if self.counts[chunk].free() > 0 || self.counts[chunk].usable() != ALL {
            return None;
        }
        self.free[chunk] = Field::ALL;
        self.recount(chunk, ALL);
        Some(())
    }

    /// Takes frames that are all free.
    pub(super) fn take(&mut self, first: usize, frames: usize) {
        for (chunk, from, to) in pieces(first, frames) {
            debug_assert!(self.free[chunk].has_all(from, to));
            self.free[chunk].remove_range(from, to);
            self.recount(chunk, self.counts[chunk].free() - size(from, to));
        }
    }

    /// Frees frames that are all taken.
    pub(super) fn put(&mut self, first: usize, frames: usize) {
        for (chunk, from, to) in pieces(first, frames) {
            debug_assert!(!self.free[chunk].has_any(from, to));
            self.free[chunk].insert_range(from, to);
            self.recount(chunk, self.counts[chunk].free() + size(from, to));
        }
    }

    /// Whether all of these frames may be freed.
    pub(super) fn is_allocated(&self, first: usize, frames: usize) -> Result<(), FrameError> {
        for (chunk, from, to) in pieces(first, frames) {
            if !self.is_usable(chunk, from, to) {
                return Err(FrameError::NotOurs);
            }
            if self.free[chunk].has_any(from, to) {
                return Err(FrameError::NotAllocated);
            }
        }
        Ok(())
    }

    /// The bits of a chunk have changed: so many are free now.
    fn recount(&mut self, chunk: usize, now: u16) {
        let counts = &mut self.counts[chunk];
        let before = counts.free();
        counts.set_free(now);
        self.available = self.available + usize::from(now) - usize::from(before);
        if !counts.is_changed() {
            counts.set_changed();
            self.changed.push(chunk);
        }
        let [was, is] = [before, now].map(Kind::of);
        if was == is {
            return;
        }
        match was {
            Kind::Partial => self.partial.remove(chunk),
            Kind::Whole => self.whole.remove(chunk),
            Kind::Used => {}
        }
        match is {
            Kind::Partial => self.partial.insert(chunk),
            Kind::Whole => self.whole.insert(chunk),
            Kind::Used => {}
        }
    }

    /// Brings the summaries up to date.
    fn refresh(&mut self) {
        while let Some(chunk) = self.changed.pop() {
            self.counts[chunk].set_unchanged();
            let is_whole = self.counts[chunk].free() == ALL;
            self.runs.set(chunk, if is_whole { Run::WHOLE } else { self.free[chunk].summarise() });
            self.whole_runs.set(chunk, if is_whole { Run::WHOLE } else { Run::default() });
        }
    }

    /// The first frame of a run that has room for `frames` frames from a multiple of `align` on.
    pub(super) fn find_run(&mut self, frames: usize, align: usize) -> Option<usize> {
        self.refresh();
        if align >= CHUNK {
            let needed = frames.div_ceil(CHUNK).checked_mul(CHUNK)?.checked_add(align - CHUNK)?;
            match self.whole_runs.find(needed) {
                Some(Found::At(first)) => return Some(first),
                Some(Found::In(chunk)) => return Some(chunk << CHUNK_SHIFT),
                None => {}
            }
        }
        let order = frames.max(align).checked_next_power_of_two()?.ilog2();
        let holder = if align > 1 && order <= CHUNK_SHIFT { self.runs.find_order(order) } else { None };
        if let Some(chunk) = holder {
            return Some((chunk << CHUNK_SHIFT) + self.free[chunk].find_block(order)?);
        }
        let needed = frames.checked_add(align - 1)?;
        match self.runs.find(needed)? {
            Found::At(first) => Some(first),
            Found::In(chunk) => Some((chunk << CHUNK_SHIFT) + self.free[chunk].find_run(needed)?),
        }
    }

    /// How many frames are free from the first on, and up to the last, and whether those are all.
    pub(super) fn ends(&mut self, among: Among) -> (usize, usize, bool) {
        self.refresh();
        let runs = if among == Among::Whole { &self.whole_runs } else { &self.runs };
        let all = runs.all();
        (all.start as usize, all.end as usize, self.available == self.free.len() * CHUNK)
    }

    /// Recomputes what is derived and compares; how many frames are usable.
    pub(super) fn check_invariants(&mut self) -> usize {
        let (mut usable, mut available) = (0, 0);
        for (chunk, (field, counts)) in self.free.iter().zip(&self.counts).enumerate() {
            let (free, kind) = (field.count(), Kind::of(counts.free()));
            assert_eq!(free, usize::from(counts.free()), "count of chunk {chunk}");
            assert_eq!(self.partial.contains(chunk), kind == Kind::Partial, "chunk {chunk} among the partial");
            assert_eq!(self.whole.contains(chunk), kind == Kind::Whole, "chunk {chunk} among the whole");
            let holed = self.holed.iter().find(|(holed, _)| *holed == chunk && counts.usable() < ALL);
            let all = holed.map_or(if counts.usable() == ALL { Field::ALL } else { Field::default() }, |(_, all)| *all);
            assert!(field.is_subset(&all), "chunk {chunk} gives out what is not usable");
            assert_eq!(all.count(), usize::from(counts.usable()), "usable frames of chunk {chunk}");
            assert_eq!(self.changed.contains(&chunk), counts.is_changed(), "chunk {chunk} among the changed");
            if !counts.is_changed() {
                assert_eq!(self.runs.get(chunk), field.summarise(), "runs of chunk {chunk}");
            }
            usable += usize::from(counts.usable());
            available += free;
        }
        assert_eq!(available, self.available, "free frames of a zone");
        self.refresh();
        self.runs.check_invariants();
        self.whole_runs.check_invariants();
        usable
    }
}

/// Frees frames as long as they are in these chunks, of which `first` is the first frame, and nothing but the count of
/// their chunk depends on them; how many it freed.
///
/// Apart from the zone, so that what it takes for a frame is in registers.
#[inline]
fn put_plain(fields: &mut [Field], counts: &mut [Counts], first: u64, batch: &[FrameNumber]) -> usize {
    // One check is enough for both.
    let counts = &mut counts[..fields.len()];
    for (freed, frame) in batch.iter().enumerate() {
        let Ok(place) = usize::try_from(frame.get().wrapping_sub(first)) else { return freed };
        let (Some(field), Some(counts)) = (fields.get_mut(place / CHUNK), counts.get_mut(place / CHUNK)) else {
            return freed;
        };
        let Some(more) = counts.with_one_more() else { return freed };
        if !field.insert_new(place % CHUNK) {
            return freed;
        }
        *counts = more;
    }
    batch.len()
}

/// Which frames a run may be of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Among {
    /// All that are free.
    All,
    /// Those of whole chunks.
    Whole,
}

/// Where single frames are taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Singles {
    OfPartial,
    OfWhole,
}

/// How much of a chunk is free.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Used,
    Partial,
    Whole,
}

impl Kind {
    #[inline]
    const fn of(free: u16) -> Self {
        match free {
            0 => Self::Used,
            ALL => Self::Whole,
            _ => Self::Partial,
        }
    }
}

/// How many bits of a chunk `from..to` are.
#[expect(clippy::cast_possible_truncation, reason = "at most 512")]
const fn size(from: usize, to: usize) -> u16 {
    (to - from) as u16
}

/// The parts of a run of frames: chunk, first bit, end.
fn pieces(first: usize, frames: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = first + frames;
    (first / CHUNK..end.div_ceil(CHUNK)).map(move |chunk| {
        let start = chunk * CHUNK;
        (chunk, first.max(start) - start, end.min(start + CHUNK) - start)
    })
}
