//! The boot memory map: what each range of physical memory is.
//!
//! Needs no heap, so that a kernel can build it first and carve the heap out of it. Ranges are kept sorted, apart and
//! merged; where entries overlap, the stricter kind wins, whatever came first.

use arrayvec::ArrayVec;

use super::{FrameError, FrameNumber, FrameRange};
use crate::addr::PageCount;

/// What a range of physical memory is; the later ones here are stricter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum MemoryKind {
    /// Memory to be given out.
    Usable,
    /// Taken for the memory manager itself: its metadata, its heap.
    Metadata,
    /// The kernel's image, boot modules, tables that are in use.
    Kernel,
    /// The screen.
    Framebuffer,
    /// Tables of the firmware.
    Acpi,
    /// Whatever the firmware keeps.
    Reserved,
    /// Memory that does not work.
    Bad,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    first: u64,
    end: u64,
    kind: MemoryKind,
}

impl Entry {
    fn range(self) -> Option<FrameRange> {
        let frames = PageCount::new(self.end.checked_sub(self.first)?);
        FrameRange::new(FrameNumber::new(self.first)?, frames)
    }
}

type Entries = ArrayVec<Entry, { MemoryMap::RANGES_MAX }>;

/// A boot memory map. What no entry speaks of is not memory.
#[derive(Clone, Default, Debug)]
pub struct MemoryMap {
    /// Sorted, apart; neighbours that touch differ in kind.
    entries: Entries,
}

impl MemoryMap {
    /// A map has at most this many ranges of different kinds.
    pub const RANGES_MAX: usize = 256;

    /// A map of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `range` is `kind`; where an entry says something stricter, that stays.
    ///
    /// # Errors
    /// [`FrameError::InvalidRange`] if the map would get more than [`RANGES_MAX`](Self::RANGES_MAX) ranges; it stays
    /// as it was.
    pub fn add(&mut self, range: FrameRange, kind: MemoryKind) -> Result<(), FrameError> {
        let mut next = Entries::new();
        let (mut at, end) = (range.first().get(), range.end());
        for &entry in &self.entries {
            let (from, to) = (entry.first.max(at), entry.end.min(end));
            if from >= to {
                if entry.first >= end && at < end {
                    push(&mut next, Entry { first: at, end, kind })?;
                    at = end;
                }
                push(&mut next, entry)?;
                continue;
            }
            push(&mut next, Entry { end: from, ..entry })?;
            push(&mut next, Entry { first: at, end: from, kind })?;
            push(&mut next, Entry { first: from, end: to, kind: entry.kind.max(kind) })?;
            push(&mut next, Entry { first: to, ..entry })?;
            at = to;
        }
        push(&mut next, Entry { first: at, end, kind })?;
        self.entries = next;
        Ok(())
    }

    /// Says that `range` is in use as `kind`, whether the map knows of memory there or not; the same as
    /// [`add`](Self::add), but that nothing becomes usable.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn reserve(&mut self, range: FrameRange, kind: MemoryKind) -> Result<(), FrameError> {
        self.add(range, kind.max(MemoryKind::Metadata))
    }

    /// Carves `frames` frames out of usable memory, of the smallest range that has as many, and marks them
    /// [`MemoryKind::Metadata`]; `None` if no range has, or the map is full.
    pub fn take(&mut self, frames: PageCount) -> Option<FrameRange> {
        let fits = self.usable().filter(|range| range.frames() >= frames);
        let from = fits.min_by_key(|range| range.frames())?;
        let taken = FrameRange::new(from.first(), frames)?;
        self.reserve(taken, MemoryKind::Metadata).ok()?;
        Some(taken)
    }

    /// The ranges to be given out, lowest first, without frame 0, which nobody ever gets: 0 stands for no address.
    pub fn usable(&self) -> impl Iterator<Item = FrameRange> + '_ {
        let usable = self.entries.iter().filter(|entry| entry.kind == MemoryKind::Usable);
        usable.filter_map(|entry| Entry { first: entry.first.max(1), ..*entry }.range())
    }

    /// All ranges and what they are, lowest first.
    pub fn ranges(&self) -> impl Iterator<Item = (FrameRange, MemoryKind)> + '_ {
        self.entries.iter().filter_map(|entry| Some((entry.range()?, entry.kind)))
    }

    /// What `frame` is, if an entry says so.
    pub fn kind(&self, frame: FrameNumber) -> Option<MemoryKind> {
        let at = self.entries.partition_point(|entry| entry.end <= frame.get());
        self.entries.get(at).filter(|entry| entry.first <= frame.get()).map(|entry| entry.kind)
    }
}

/// Appends what is not empty, merged with the last entry if that is the same and ends here.
fn push(entries: &mut Entries, entry: Entry) -> Result<(), FrameError> {
    if entry.first >= entry.end {
        return Ok(());
    }
    match entries.last_mut() {
        Some(last) if last.end == entry.first && last.kind == entry.kind => {
            last.end = entry.end;
            Ok(())
        }
        _ => entries.try_push(entry).map_err(|_| FrameError::InvalidRange),
    }
}
