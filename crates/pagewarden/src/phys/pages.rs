//! Lists of frames, as they are asked for: which runs they consist of, and that none is named twice.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::addr::{PAGE_SIZE, PageCount};
use crate::frame::{FrameNumber, FrameRange};
use crate::phys::{PhysError, PhysRange};

/// Ranges of bytes in the order of a list of frames.
pub(super) type Ranges = SmallVec<[PhysRange; 2]>;

/// A copy of the list.
pub(super) fn copied(frames: &[FrameNumber]) -> Result<Box<[FrameNumber]>, PhysError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(frames.len()).map_err(|_| PhysError::OutOfMemory)?;
    copy.extend_from_slice(frames);
    Ok(copy.into_boxed_slice())
}

/// The frames that hold a range.
pub(super) fn holding(range: PhysRange) -> Result<FrameRange, PhysError> {
    let first = range.start() / PAGE_SIZE;
    let count = PageCount::new(range.end().div_ceil(PAGE_SIZE) - first);
    FrameNumber::new(first).and_then(|first| FrameRange::new(first, count)).ok_or(PhysError::Overflow)
}

/// The list of the frames of a run.
pub(super) fn listed(run: FrameRange) -> Result<Box<[FrameNumber]>, PhysError> {
    let count = usize::try_from(run.frames().get()).map_err(|_| PhysError::OutOfMemory)?;
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| PhysError::OutOfMemory)?;
    list.extend(run.iter());
    Ok(list.into_boxed_slice())
}

/// That the list is not empty and names no frame twice.
pub(super) fn check_distinct(frames: &[FrameNumber]) -> Result<(), PhysError> {
    if frames.is_empty() {
        return Err(PhysError::Invalid);
    }
    if frames.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut sorted = copied(frames)?;
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PhysError::DuplicatePage(pair[0])),
        None => Ok(()),
    }
}

/// The runs of frames that follow each other, each with the place of its first in the list.
pub(super) fn runs(frames: &[FrameNumber]) -> impl Iterator<Item = (u64, FrameRange)> + '_ {
    let mut place = 0;
    frames.chunk_by(|a, b| a.get() + 1 == b.get()).filter_map(move |run| {
        let first = place;
        place += run.len() as u64;
        FrameRange::new(run[0], PageCount::new(run.len() as u64)).map(|run| (first, run))
    })
}

/// Where the bytes `first..end` of the memory that `frames` are, one after the other, lie.
pub(super) fn ranges(frames: &[FrameNumber], first: u64, end: u64) -> Result<Ranges, PhysError> {
    let mut ranges = Ranges::new();
    for (place, run) in runs(frames) {
        let run_first = place * PAGE_SIZE;
        let from = first.max(run_first);
        let to = end.min(run_first + run.frames().bytes());
        if from < to {
            let start = run.first().get() * PAGE_SIZE + (from - run_first);
            ranges.try_reserve(1).map_err(|_| PhysError::OutOfMemory)?;
            ranges.push(PhysRange::known(start, start + (to - from)));
        }
    }
    Ok(ranges)
}
