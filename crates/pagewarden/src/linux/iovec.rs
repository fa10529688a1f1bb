//! Vectors of ranges in guest memory (`struct iovec`), read as `lib/iov_iter.c:__import_iovec` does.

use alloc::vec::Vec;

use super::Files;
use crate::addr::PAGE_SIZE;
use crate::error::Errno;

/// The most segments (`UIO_MAXIOV`).
const SEGMENTS_MAX: u64 = 1024;
/// The most bytes that one call is about (`MAX_RW_COUNT`): what is beyond is cut off.
const BYTES_MAX: u64 = (i32::MAX as u64) & !(PAGE_SIZE - 1);
/// Bytes of a segment: its start and its length.
const SEGMENT_LEN: u64 = 16;

/// The ranges that the `count` segments at `vector` name, cut off at the most bytes. Empty ranges are left out: the
/// kernel steps over them together with the one before. Only the first is always looked at, if any byte is named.
pub(super) fn read_ranges(files: &mut dyn Files, vector: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
    if count > SEGMENTS_MAX {
        return Err(Errno::Inval);
    }
    let end = files.user_end();
    let segments = read_segments(files, vector, count, end)?;
    let is_single = segments.len() == 1;
    let mut left = BYTES_MAX;
    let mut ranges = Vec::new();
    ranges.try_reserve_exact(segments.len()).map_err(|_| Errno::NoMem)?;
    for (index, (start, len)) in segments.into_iter().enumerate() {
        let kept = len.min(left);
        // A single segment is cut off first and looked at then.
        if !is_inside(start, if is_single { kept } else { len }, end) {
            return Err(Errno::Fault);
        }
        left -= kept;
        if index == 0 || kept > 0 {
            ranges.push((start, kept));
        }
    }
    if left == BYTES_MAX {
        ranges.clear();
    }
    Ok(ranges)
}

fn read_segments(files: &mut dyn Files, vector: u64, count: u64, end: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let bytes = count * SEGMENT_LEN;
    if count == 0 {
        return Ok(Vec::new());
    }
    if !is_inside(vector, bytes, end) {
        return Err(Errno::Fault);
    }
    let wanted = usize::try_from(bytes).map_err(|_| Errno::Fault)?;
    let found = files.bytes(vector, wanted);
    let mut segments = Vec::new();
    segments.try_reserve_exact(found.len() / 16).map_err(|_| Errno::NoMem)?;
    let (words, _) = found.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    for [start, len] in pairs {
        let (start, len) = (u64::from_le_bytes(*start), u64::from_le_bytes(*len));
        if i64::try_from(len).is_err() {
            return Err(Errno::Inval);
        }
        segments.push((start, len));
    }
    if found.len() < wanted { Err(Errno::Fault) } else { Ok(segments) }
}

/// Whether a program may hand these bytes to the kernel (`access_ok`).
pub(crate) const fn is_inside(start: u64, len: u64, end: u64) -> bool {
    match start.checked_add(len) {
        Some(last) => last <= end,
        None => false,
    }
}
