//! The production allocator: a field of 512 bits and a count a chunk (2 MiB), summarised.
//!
//! Chunks are grouped into at most 64 zones of at least 512 chunks (1 GiB), each with a lock of its own. Two words say
//! which zones have chunks that are used in part, and which have whole ones; they change under the lock of the zone.
//! Single frames come from chunks that are used in part as long as there are any, so that whole ones stay whole.
//!
//! | path | costs |
//! |---|---|
//! | a batch of single frames | a lock a zone; for each chunk three steps to find it; for each frame a bit |
//! | freeing a batch | a lock whenever the next frame is of another zone or section; for each frame a bit and a count |
//! | a whole chunk (512 frames aligned to 512) | a lock, three steps to find it, eight words |
//! | any other run | for each of the at most 64 zones two steps for each doubling of its chunks; then what the run has |
//! | freeing a run | a lock a zone, and what the run has |
//!
//! Before a search for a run, the chunks that changed since the last one are summarised anew: each change pays for at
//! most one of these, and whoever asks for no runs pays nothing.
//!
//! Which runs are found: every one that exists for an alignment of 1, for a power of two up to 512 aligned to itself,
//! and for multiples of 512 aligned to 512. With other alignments a run is found if a block of the next power of two
//! (up to 512) that holds both it and the alignment is free, or a run that is longer by the alignment less one, or,
//! from an alignment of 512 on, as many whole chunks as hold both.
//!
//! Lock order: zones in ascending order.

mod field;
mod runs;
mod summary;
mod zone;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

use self::zone::{Among, Singles, Zone};
use super::sections::{CHUNK, CHUNK_SHIFT, Sections};
use super::{FrameAllocator, FrameError, FrameNumber, FrameRange, MemoryMap, run_request};
use crate::addr::PageCount;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// log2 of the chunks that a zone has at least.
const ZONE_SHIFT_MIN: u32 = 9;
const ZONES_MAX: usize = 64;

/// The production allocator of frames.
pub struct ChunkAllocator {
    sections: Sections,
    /// log2 of the frames in a zone.
    zone_shift: u32,
    zones: Vec<Mutex<Zone>>,
    /// Free frames of each zone.
    available: Vec<AtomicU64>,
    /// A bit a zone: whether it has a chunk that is free in part.
    partial: AtomicU64,
    /// A bit a zone: whether it has a whole chunk.
    whole: AtomicU64,
}

/// What a run has to be.
#[derive(Clone, Copy)]
struct Wanted {
    frames: usize,
    align: usize,
}

impl ChunkAllocator {
    /// An allocator of the usable memory of `map`.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for its metadata: 76 bytes and two summaries a chunk.
    pub fn new(map: &MemoryMap) -> Result<Self, FrameError> {
        Self::with_zones(map, ZONE_SHIFT_MIN)
    }

    /// The same with zones of 2^`shift` chunks, or more if there would be too many.
    pub(super) fn with_zones(map: &MemoryMap, shift: u32) -> Result<Self, FrameError> {
        let sections = Sections::new(map)?;
        let chunks = sections.frames() >> CHUNK_SHIFT;
        let shift = shift.max(chunks.div_ceil(ZONES_MAX).next_power_of_two().ilog2());
        let (zone_shift, count) = (shift + CHUNK_SHIFT, chunks.div_ceil(1 << shift));
        let (mut zones, mut available) = (Vec::new(), Vec::new());
        zones.try_reserve_exact(count).map_err(|_| FrameError::Exhausted)?;
        available.try_reserve_exact(count).map_err(|_| FrameError::Exhausted)?;
        for zone in 0..count {
            let first = zone << shift;
            zones.push(Mutex::new(Zone::new((chunks - first).min(1 << shift))?));
            available.push(AtomicU64::new(0));
        }
        let [partial, whole] = [0; 2].map(AtomicU64::new);
        let all = Self { sections, zone_shift, zones, available, partial, whole };
        for range in map.usable() {
            let first = all.sections.range(range).ok_or(FrameError::NotOurs)?;
            for (zone, from, frames) in all.pieces(first, range.iter().len()) {
                let mut guard = all.zones[zone].lock();
                guard.add(from, frames)?;
                all.publish(zone, &mut guard);
            }
        }
        Ok(all)
    }

    /// The zone of a frame, and its place there.
    #[inline]
    fn place(&self, index: usize) -> (usize, usize) {
        (index >> self.zone_shift, index & ((1 << self.zone_shift) - 1))
    }

    /// The parts of a run of frames: zone, first frame there, how many.
    fn pieces(&self, first: usize, frames: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (mut at, end, shift) = (first, first + frames, self.zone_shift);
        core::iter::from_fn(move || {
            let (zone, from) = (at >> shift, at & ((1 << shift) - 1));
            let piece = ((1 << shift) - from).min(end - at);
            at += piece;
            (piece > 0).then_some((zone, from, piece))
        })
    }

    /// Tells everybody what has become of a zone, before its lock is given up.
    #[inline]
    fn publish(&self, zone: usize, state: &mut Zone) {
        self.available[zone].store(state.available() as u64, Ordering::Relaxed);
        let (before, now) = state.update_hints();
        if before != now {
            for (hint, was, is) in
                [(&self.partial, before.partial, now.partial), (&self.whole, before.whole, now.whole)]
            {
                match (was, is) {
                    (false, true) => _ = hint.fetch_or(1 << zone, Ordering::Release),
                    (true, false) => _ = hint.fetch_and(!(1 << zone), Ordering::Release),
                    _ => {}
                }
            }
        }
    }

    /// A zone of one of the kinds, the first kind first: one that nobody has locked, if there is one.
    fn lock_one(&self, kinds: &[&AtomicU64]) -> Option<(usize, MutexGuard<'_, Zone>)> {
        let mut busy = None;
        for kind in kinds {
            let mut zones = kind.load(Ordering::Acquire);
            while zones != 0 {
                let zone = zones.trailing_zeros() as usize;
                zones &= zones - 1;
                match self.zones[zone].try_lock() {
                    Some(guard) => return Some((zone, guard)),
                    None => busy = busy.or(Some(zone)),
                }
            }
        }
        busy.map(|zone| (zone, self.zones[zone].lock()))
    }

    fn whole_chunk(&self) -> Result<FrameRange, FrameError> {
        while let Some((zone, mut guard)) = self.lock_one(&[&self.whole]) {
            let taken = guard.take_whole();
            self.publish(zone, &mut guard);
            if let Some(first) = taken {
                return self.sections.chunk((zone << self.zone_shift) + first).ok_or(FrameError::NotOurs);
            }
        }
        Err(FrameError::Exhausted)
    }

    /// Frees a run that is a whole chunk of frames in use; `None` if it is not.
    fn free_chunk(&self, run: FrameRange) -> Option<()> {
        let is_chunk = run.frames().get() == CHUNK as u64 && run.first().get().is_multiple_of(CHUNK as u64);
        let (zone, place) = self.place(self.sections.index(run.first()).filter(|_| is_chunk)?);
        let mut guard = self.zones[zone].lock();
        guard.put_whole(place)?;
        self.publish(zone, &mut guard);
        Some(())
    }

    /// A run inside one zone.
    fn run_of_a_zone(&self, wanted: Wanted) -> Option<FrameRange> {
        let zones = (0..self.zones.len()).filter(|&zone| self.has(zone, wanted.frames));
        zones.into_iter().find_map(|zone| {
            let mut guard = self.zones[zone].lock();
            let found = guard.find_run(wanted.frames, wanted.align)?;
            let (first, run) = self.aligned((zone << self.zone_shift) + found, wanted)?;
            guard.take(first - (zone << self.zone_shift), wanted.frames);
            self.publish(zone, &mut guard);
            Some(run)
        })
    }

    fn has(&self, zone: usize, frames: usize) -> bool {
        self.available[zone].load(Ordering::Relaxed) >= frames as u64
    }

    /// The part of the run from `index` on that starts as aligned as is wanted.
    fn aligned(&self, index: usize, wanted: Wanted) -> Option<(usize, FrameRange)> {
        let number = self.sections.frame(index)?.get();
        let skipped = usize::try_from(number.next_multiple_of(wanted.align as u64) - number).ok()?;
        Some((index + skipped, self.sections.run(index + skipped, wanted.frames)?))
    }

    /// The first of `needed` free frames that lie in zones next to each other.
    fn join_ends(&self, zones: &mut [MutexGuard<'_, Zone>], among: Among, needed: usize) -> Option<usize> {
        let mut open = 0;
        zones.iter_mut().enumerate().find_map(|(zone, state)| {
            let (start, end, is_all) = state.ends(among);
            let border = zone << self.zone_shift;
            if open > 0 && open + start >= needed {
                return Some(border - open);
            }
            open = if is_all { open + end } else { end };
            None
        })
    }

    /// A run that goes on from one zone into the next: with all of them locked, as somebody may be taking it apart.
    fn run_across_zones(&self, wanted: Wanted) -> Option<FrameRange> {
        let mut guards = Vec::new();
        guards.try_reserve_exact(self.zones.len()).ok()?;
        guards.extend(self.zones.iter().map(Mutex::lock));
        // Chunks are as aligned as whole chunks have to be.
        let by_chunks = (wanted.align >= CHUNK).then_some(wanted.align - CHUNK.min(wanted.align));
        let whole = by_chunks.and_then(|skipped| wanted.frames.next_multiple_of(CHUNK).checked_add(skipped));
        let found = whole.and_then(|needed| self.join_ends(&mut guards, Among::Whole, needed)).or_else(|| {
            let needed = wanted.frames.checked_add(wanted.align - 1)?;
            self.join_ends(&mut guards, Among::All, needed)
        })?;
        let (first, run) = self.aligned(found, wanted)?;
        for (zone, from, frames) in self.pieces(first, wanted.frames) {
            guards[zone].take(from, frames);
            self.publish(zone, &mut guards[zone]);
        }
        Some(run)
    }
}

impl FrameAllocator for ChunkAllocator {
    fn allocate(&self, batch: &mut [FrameNumber]) -> usize {
        let mut taken = 0;
        while taken < batch.len() {
            let Some((zone, mut guard)) = self.lock_one(&[&self.partial, &self.whole]) else { break };
            let (first, before) = (zone << self.zone_shift, taken);
            let mut kind = Singles::OfPartial;
            while taken < batch.len() {
                let Some((chunk, mut frames)) = guard.take_singles(batch.len() - taken, kind) else {
                    // Whole chunks stay whole while another zone may have frames of others.
                    if kind == Singles::OfWhole || taken > before {
                        break;
                    }
                    kind = Singles::OfWhole;
                    continue;
                };
                // The chunk lies in memory as it does here.
                let Some(start) = self.sections.frame(first + (chunk << CHUNK_SHIFT)) else { break };
                frames.drain(|bit| {
                    batch[taken] = start.plus(bit as u64);
                    taken += 1;
                });
            }
            self.publish(zone, &mut guard);
        }
        taken
    }

    fn free(&self, batch: &[FrameNumber]) -> Result<(), FrameError> {
        let mut outcome = Ok(());
        let mut rest = batch;
        while let [first, ..] = rest {
            let Some((zone, span)) = self.sections.span(*first, self.zone_shift) else {
                outcome = outcome.and(Err(FrameError::NotOurs));
                rest = &rest[1..];
                continue;
            };
            let mut guard = self.zones[zone].lock();
            rest = guard.put_singles(span, rest, &mut outcome);
            self.publish(zone, &mut guard);
        }
        outcome
    }

    fn allocate_run(&self, frames: PageCount, align: PageCount) -> Result<FrameRange, FrameError> {
        let (frames, align) = run_request(frames, align)?;
        if (frames, align) == (CHUNK, CHUNK) {
            return self.whole_chunk();
        }
        let wanted = Wanted { frames, align };
        let in_one = self.run_of_a_zone(wanted);
        let found = if self.zones.len() > 1 { in_one.or_else(|| self.run_across_zones(wanted)) } else { in_one };
        found.ok_or(FrameError::Exhausted)
    }

    fn free_run(&self, run: FrameRange) -> Result<(), FrameError> {
        if self.free_chunk(run).is_some() {
            return Ok(());
        }
        let first = self.sections.range(run).ok_or(FrameError::NotOurs)?;
        let frames = run.iter().len();
        let ((from, place), (to, _)) = (self.place(first), self.place(first + frames - 1));
        if from == to {
            let mut guard = self.zones[from].lock();
            guard.is_allocated(place, frames)?;
            guard.put(place, frames);
            self.publish(from, &mut guard);
            return Ok(());
        }
        let mut guards = Vec::new();
        guards.try_reserve_exact(to - from + 1).map_err(|_| FrameError::Exhausted)?;
        guards.extend(self.zones[from..=to].iter().map(Mutex::lock));
        for (zone, place, frames) in self.pieces(first, frames) {
            guards[zone - from].is_allocated(place, frames)?;
        }
        for (zone, place, frames) in self.pieces(first, frames) {
            let guard = &mut guards[zone - from];
            guard.put(place, frames);
            self.publish(zone, guard);
        }
        Ok(())
    }

    fn available(&self) -> u64 {
        self.available.iter().map(|zone| zone.load(Ordering::Relaxed)).sum()
    }

    fn total(&self) -> u64 {
        self.sections.usable()
    }

    fn is_free(&self, frame: FrameNumber) -> bool {
        self.sections.index(frame).is_some_and(|index| {
            let (zone, place) = self.place(index);
            self.zones[zone].lock().is_free(place)
        })
    }

    fn check_invariants(&self) {
        let mut usable = 0;
        for (zone, state) in self.zones.iter().enumerate() {
            let mut state = state.lock();
            usable += state.check_invariants();
            assert_eq!(state.available() as u64, self.available[zone].load(Ordering::Relaxed), "free in zone {zone}");
            let hints = [&self.partial, &self.whole].map(|hint| hint.load(Ordering::Relaxed) >> zone & 1 == 1);
            let (before, now) = state.update_hints();
            assert_eq!((hints, before), ([now.partial, now.whole], now), "hints of zone {zone}");
        }
        assert_eq!(usable as u64, self.total(), "usable frames");
    }
}

impl fmt::Debug for ChunkAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunks: {} of {} frames free", self.available(), self.total())
    }
}
