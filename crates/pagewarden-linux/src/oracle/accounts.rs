//! What the kernel counts for this process: sums of pages, and which pages are resident.

use std::io::Write as _;

use super::kernel::Kernel;
use super::program::PAGE;
use super::state::{self, MapLine};

/// Lines of `/proc/self/status` that memory calls determine.
const SUMS: &[&str] = &["VmSize:", "VmLck:", "VmData:", "VmStk:", "VmExe:"];

/// How memory is called that looks like a file.
const MEMORY: &[&str] = &["/memfd:", "/SYSV", "/dev/zero"];

/// Writes the sums to `out`; `room` is for the file. In the range of an arena, those of the range.
pub(super) fn sums(kernel: &Kernel, room: &mut Vec<u8>, out: &mut Vec<u8>) {
    // A vector with room enough: the writes cannot fail.
    if let Some(sums) = kernel.sums(room) {
        let _ = writeln!(out, "sums {} {} {}", sums.size, sums.locked, sums.data);
        return;
    }
    if !state::read_file(c"/proc/self/status", room) {
        let _ = writeln!(out, "sums unknown");
        return;
    }
    let text = std::str::from_utf8(room).unwrap_or("");
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(kib)) = (words.next(), words.next())
            && SUMS.contains(&name)
        {
            let _ = writeln!(out, "sum {name} {kib}");
        }
    }
}

/// Writes which pages of the range `[start, length]` are resident, as mincore(2) has told in `told`.
///
/// Pages of files are left out: whether they are in the page cache is the machine's matter. Shared memory is none,
/// whatever its name.
pub(super) fn residence(kernel: &Kernel, [start, len]: [u64; 2], told: &[u8], maps: &mut Vec<u8>, out: &mut Vec<u8>) {
    if !kernel.read_maps(maps) {
        return;
    }
    let text = std::str::from_utf8(maps).unwrap_or("");
    let end = start.saturating_add(len);
    // A run does not depend on how the kernel splits it into regions.
    let mut joined = (0, 0, 0);
    for line in text.lines().filter_map(MapLine::parse) {
        let is_file = line.name.starts_with('/') && !MEMORY.iter().any(|name| line.name.starts_with(name));
        if is_file || line.start >= end || line.end <= start || line.perms.starts_with("---") {
            continue;
        }
        let (from, to) = (line.start.max(start), line.end.min(end));
        let (first, last) = ((from - start) / PAGE, (to - start).div_ceil(PAGE));
        let pages = usize::try_from(first).ok().zip(usize::try_from(last).ok());
        let pages = pages.and_then(|(first, last)| told.get(first..last)).unwrap_or_default();
        let mut at = from;
        for run in pages.chunk_by(|a, b| a & 1 == b & 1) {
            let (count, is_resident) = (run.len() as u64, run[0] & 1);
            if joined.0 + joined.1 * PAGE == at && joined.2 == is_resident {
                joined.1 += count;
            } else {
                write_run(joined, out);
                joined = (at, count, is_resident);
            }
            at += count * PAGE;
        }
    }
    write_run(joined, out);
}

fn write_run((start, pages, is_resident): (u64, u64, u8), out: &mut Vec<u8>) {
    if pages > 0 {
        let _ = writeln!(out, "resident {start:x} {pages} {is_resident}");
    }
}
