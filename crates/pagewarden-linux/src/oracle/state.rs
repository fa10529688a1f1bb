//! What a program has left behind: regions, contents and the break, written down without allocating.
//!
//! Regions are the kernel's own list. Contents are a hash of each page that is not all zeros, at both ends of every
//! run of readable pages; runs do not depend on how the kernel splits them into regions.

use std::ffi::CStr;
use std::io::Write as _;

use super::accounts;
use super::guard::Guard;
use super::kernel::Kernel;
use super::outcome::Outcome;
use super::program::PAGE;

/// Words of a page.
pub(super) const WORDS: usize = 512;
/// Pages looked at, at each end of a run.
const SAMPLE: u64 = 16;

/// A line of `/proc/PID/maps`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapLine<'a> {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Rights and sharing, such as `rw-p`.
    pub perms: &'a str,
    /// Offset into the file.
    pub offset: u64,
    /// Name of the file, or the kernel's name, or nothing.
    pub name: &'a str,
}

impl<'a> MapLine<'a> {
    /// Takes a line apart.
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, tail) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
            rest = tail;
            word
        };
        let (bounds, perms, offset) = (word(), word(), word());
        let _device = word();
        let _inode = word();
        let (start, end) = bounds.split_once('-')?;
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self { start: hex(start)?, end: hex(end)?, perms, offset: hex(offset)?, name: rest.trim() })
    }
}

impl MapLine<'_> {
    /// Whether it is a private map of `/dev/zero`. The kernel changes its offset when it moves before it was touched,
    /// which a manager does not see, so the offset is left out.
    pub(super) fn is_private_zero(&self) -> bool {
        self.name == "/dev/zero" && self.perms.ends_with('p')
    }
}

/// Fills `buffer`, within its capacity, with this process's list of regions.
///
/// Returns whether all of it was read.
pub(super) fn read_maps(buffer: &mut Vec<u8>) -> bool {
    read_file(c"/proc/self/maps", buffer)
}

/// Fills `buffer`, within its capacity, with a file. Returns whether all of it was read.
pub(super) fn read_file(path: &CStr, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return false;
    }
    let whole = loop {
        let room = buffer.spare_capacity_mut();
        // SAFETY: the pointer and the length are those of the vector's spare room.
        let count = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
        match usize::try_from(count) {
            Ok(0) => break !room.is_empty(),
            Err(_) => break false,
            // SAFETY: read(2) has filled `count` bytes more.
            Ok(count) => unsafe { buffer.set_len(buffer.len() + count) },
        }
    };
    // SAFETY: the descriptor was opened above and is used by nobody else.
    unsafe { libc::close(fd) };
    whole
}

/// Writes the state to `out`; `maps` is room for the list of regions.
pub(super) fn record(kernel: &Kernel, guard: &Guard, maps: &mut Vec<u8>, out: &mut Vec<u8>) {
    // The writes go to a vector with room enough; they cannot fail.
    if !kernel.read_maps(maps) {
        let _ = writeln!(out, "regions unknown");
        return;
    }
    let text = std::str::from_utf8(maps).unwrap_or("");
    let lines = || text.lines().filter_map(MapLine::parse).filter_map(|line| kernel.clip(line));
    for line in lines() {
        let MapLine { start, end, perms, name, .. } = line;
        let offset = if line.is_private_zero() { 0 } else { line.offset };
        let _ = writeln!(out, "map {start:x}-{end:x} {perms} {offset:x} {name}");
    }
    let mut run = (0, 0);
    for line in lines().filter(|line| line.perms.starts_with('r')) {
        if line.start != run.1 {
            record_run(kernel, guard, run, out);
            run = (line.start, line.start);
        }
        run.1 = line.end;
    }
    record_run(kernel, guard, run, out);
    // SAFETY: a break of 0 only asks.
    let end = unsafe { kernel.syscall(libc::SYS_brk, [0; 6]) };
    let _ = writeln!(out, "break {end}");
    accounts::sums(kernel, maps, out);
    if let Some(words) = kernel.verify() {
        let _ = out.write_all(words.as_bytes());
    }
}

fn record_run(kernel: &Kernel, guard: &Guard, (start, end): (u64, u64), out: &mut Vec<u8>) {
    let head = end.min(start + SAMPLE * PAGE);
    let tail = head.max(end.saturating_sub(SAMPLE * PAGE));
    for page in (start..head).step_by(4096).chain((tail..end).step_by(4096)) {
        if guard.owns(page) || kernel.is_residence(page) {
            continue;
        }
        // SAFETY: the page is not this process's own.
        match unsafe { hash_page(kernel, page) } {
            Ok(0) => {}
            Ok(hash) => drop(writeln!(out, "page {page:x} {hash:016x}")),
            Err(fault) => drop(writeln!(out, "page {page:x} {fault}")),
        }
    }
}

/// A hash of the page's contents, 0 for zeros, or the fault that reading it makes.
///
/// # Safety
/// As for [`Kernel::read_byte`].
pub(super) unsafe fn hash_page(kernel: &Kernel, page: u64) -> Result<u64, Outcome> {
    let mut words = [0_u64; WORDS];
    // SAFETY: the caller's promise is the same.
    unsafe { kernel.read_page(page, &mut words) }?;
    Ok(words.iter().fold(0, |hash, word| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = "7f00-8000 rw-s 0001f000 fe:00 247030                     /tmp/a file (deleted)";
        let expected =
            MapLine { start: 0x7f00, end: 0x8000, perms: "rw-s", offset: 0x1f000, name: "/tmp/a file (deleted)" };
        assert_eq!(MapLine::parse(line), Some(expected));
        let anonymous = MapLine::parse("1000-2000 ---p 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.start, anonymous.name), (0x1000, ""));
        assert_eq!(MapLine::parse("nonsense"), None);
    }

    #[test]
    fn own_list_is_read_whole() {
        let mut small = Vec::with_capacity(64);
        assert!(!read_maps(&mut small));
        let mut maps = Vec::with_capacity(1 << 20);
        assert!(read_maps(&mut maps));
        let text = String::from_utf8(maps).unwrap();
        assert!(text.lines().all(|line| MapLine::parse(line).is_some()));
        assert!(text.contains("[stack]"));
    }
}
