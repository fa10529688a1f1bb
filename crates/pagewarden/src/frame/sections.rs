//! Where the data of a frame is: the usable ranges of a memory map, laid end to end.
//!
//! A section is a run of whole chunks (2 MiB) that hold usable memory. Frames of sections are numbered without the
//! holes between them, so that data of frames is a plain array and a hole costs nothing: a frame is found by a binary
//! search among the sections. Between two sections one chunk is left out, so that frames whose indices follow each
//! other follow each other in memory too.

use alloc::vec::Vec;

use super::{FrameError, FrameNumber, FrameRange, MemoryMap};
use crate::addr::PageCount;

/// Frames in a chunk.
pub(super) const CHUNK: usize = 1 << CHUNK_SHIFT;
/// [`CHUNK`], as a count of frames is kept in.
pub(super) const CHUNK_FRAMES: u16 = 1 << CHUNK_SHIFT;
/// log2 of [`CHUNK`].
pub(super) const CHUNK_SHIFT: u32 = 9;

#[derive(Clone, Copy, Debug)]
struct Section {
    /// Number of the first frame, the first of a chunk.
    first: u64,
    /// Number after the last.
    end: u64,
    /// Index of the first frame.
    index: usize,
}

/// Chunks that follow each other in memory as they do in a group of chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The number of the first frame.
    pub(super) first: u64,
    /// Place of the first chunk in the group.
    pub(super) chunk: usize,
    pub(super) chunks: usize,
}

impl Span {
    /// The place of `frame` in the group, if it is in one of these chunks.
    pub(super) fn place(&self, frame: FrameNumber) -> Option<usize> {
        let offset = usize::try_from(frame.get().checked_sub(self.first)?).ok()?;
        (offset >> CHUNK_SHIFT < self.chunks).then_some((self.chunk << CHUNK_SHIFT) + offset)
    }
}

/// The sections of a memory map.
#[derive(Debug)]
pub(super) struct Sections {
    sections: Vec<Section>,
    /// Indices are below this.
    frames: usize,
    usable: u64,
}

impl Sections {
    /// Those of `map`.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for them.
    pub(super) fn new(map: &MemoryMap) -> Result<Self, FrameError> {
        let mut all = Self { sections: Vec::new(), frames: 0, usable: 0 };
        all.sections.try_reserve_exact(MemoryMap::RANGES_MAX).map_err(|_| FrameError::Exhausted)?;
        for range in map.usable() {
            all.usable += range.frames().get();
            let first = range.first().get() >> CHUNK_SHIFT << CHUNK_SHIFT;
            let end = range.end().next_multiple_of(CHUNK as u64);
            match all.sections.last_mut() {
                Some(last) if first <= last.end => last.end = end,
                _ => all.sections.push(Section { first, end, index: 0 }),
            }
        }
        for section in &mut all.sections {
            let frames = usize::try_from(section.end - section.first).map_err(|_| FrameError::Exhausted)?;
            section.index = all.frames;
            all.frames = section.index.checked_add(frames + CHUNK).ok_or(FrameError::Exhausted)?;
        }
        // Nothing follows the last section.
        all.frames = all.frames.saturating_sub(CHUNK);
        Ok(all)
    }

    /// Indices are below this; a multiple of [`CHUNK`].
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// How many frames of the map are usable.
    pub(super) fn usable(&self) -> u64 {
        self.usable
    }

    /// The index of `frame`, if it lies in a chunk with usable memory.
    #[inline]
    pub(super) fn index(&self, frame: FrameNumber) -> Option<usize> {
        let section = match self.sections.as_slice() {
            [only] => only,
            many => many.get(many.partition_point(|section| section.end <= frame.get()))?,
        };
        if frame.get() < section.first || frame.get() >= section.end {
            return None;
        }
        usize::try_from(frame.get() - section.first).ok().map(|offset| section.index + offset)
    }

    /// The group of frames whose indices differ only below bit `shift` that has `frame`, and the chunks of its section
    /// there.
    pub(super) fn span(&self, frame: FrameNumber, shift: u32) -> Option<(usize, Span)> {
        let index = self.index(frame)?;
        let section = self.section_of(index)?;
        let group = index >> shift;
        let start = section.index.max(group << shift);
        let end = (group + 1) << shift;
        let first = section.first + (start - section.index) as u64;
        let frames = usize::try_from(section.end - first).map_or(end - start, |frames| frames.min(end - start));
        let chunk = (start - (group << shift)) >> CHUNK_SHIFT;
        Some((group, Span { first, chunk, chunks: frames >> CHUNK_SHIFT }))
    }

    /// The index of the first frame of `range`, if all of it lies in one section.
    pub(super) fn range(&self, range: FrameRange) -> Option<usize> {
        let first = self.index(range.first())?;
        let last = self.index(FrameNumber::new(range.end() - 1)?)?;
        (last.checked_sub(first)? as u64 == range.frames().get() - 1).then_some(first)
    }

    /// The section that has this index, if one has.
    #[inline]
    fn section_of(&self, index: usize) -> Option<&Section> {
        match self.sections.as_slice() {
            [only] => Some(only),
            many => many.get(many.partition_point(|section| section.index <= index).checked_sub(1)?),
        }
    }

    /// The frame with this index, if there is one.
    #[inline]
    pub(super) fn frame(&self, index: usize) -> Option<FrameNumber> {
        let section = self.section_of(index)?;
        let number = section.first + (index - section.index) as u64;
        if number < section.end { FrameNumber::new(number) } else { None }
    }

    /// The chunk from `index` on, the index of the first frame of one.
    #[inline]
    pub(super) fn chunk(&self, index: usize) -> Option<FrameRange> {
        FrameRange::new(self.frame(index)?, PageCount::new(CHUNK as u64))
    }

    /// The frames from `index` on, `frames` many, if they lie in one section.
    pub(super) fn run(&self, index: usize, frames: usize) -> Option<FrameRange> {
        let run = FrameRange::new(self.frame(index)?, PageCount::new(frames as u64))?;
        (self.range(run) == Some(index)).then_some(run)
    }
}
