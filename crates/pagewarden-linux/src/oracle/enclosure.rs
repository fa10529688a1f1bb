//! The native half of a comparison with an arena or a machine of our own: a process in which nothing is free but the
//! range of the arena, or that of the machine's processes.
//!
//! Whatever else the kernel could give away is filled with mappings without rights, and the break is moved to the
//! start of the range. So the kernel answers there as an arena does that lies in the same range of another process,
//! and regions, contents and the break can be compared as they are. What the process has mapped outside counts for
//! limits of the kernel; it is measured once, and added to every limit that a program sets.

use std::io;

use super::outcome::Outcome;
use super::program::{PAGE, WINDOW};
use super::raw;
use super::state::{MapLine, read_file, read_maps};

/// Where programs may map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// Its first address.
    pub(super) start: u64,
    /// The first address after it.
    pub(super) end: u64,
    /// Where the window is.
    pub(super) window: u64,
}

/// 64 GiB, with the window in their middle.
pub(super) const WIDE: Range = Range { start: 0x8_0000_0000, end: 0x18_0000_0000, window: WINDOW };
/// What a cage has that addresses with 32 bits: all but the first 64 KiB and the last page.
pub(super) const NARROW: Range = Range { start: 0x1_0000, end: 0xffff_f000, window: 0x8000_0000 };
/// Where the kernel's mappings for a process end.
pub(super) const TASK_END: u64 = 0x7fff_ffff_f000;
/// The lowest address that searches give, if the kernel's own minimum is not higher.
const LOWEST: u64 = PAGE;
/// The same where a security module sets it.
const LOWEST_FOR_ALL: u64 = 16 * PAGE;
/// What the kernel keeps free below a stack (`stack_guard_gap`).
const STACK_GUARD: u64 = 256 * PAGE;
/// Runs of mappings outside: between one and the next there is at least a hole.
const RUNS: usize = 64;

/// `struct prctl_mm_map` (linux/prctl.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    brk: [u64; 2],
    start_stack: u64,
    args: [u64; 2],
    environment: [u64; 2],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// With what a host is compared whose programs are enclosed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counterpart {
    /// An arena: part of a process, and no process by itself.
    Arena,
    /// The software machine, which has processes.
    Machine,
    /// The host as a machine, with processes that have little room.
    HostMachine,
    /// Processes in cages.
    Cages,
}

impl Counterpart {
    /// Where programs may map on both sides.
    pub(super) const fn range(self) -> Range {
        match self {
            Self::Arena | Self::Machine => WIDE,
            Self::HostMachine | Self::Cages => NARROW,
        }
    }

    /// Where what programs may touch ends for good: beyond that a processor finds no address, and where a view has none
    /// nobody does.
    pub(super) const fn addresses_end(self) -> u64 {
        match self {
            Self::Arena | Self::Machine => 1 << 47,
            Self::HostMachine | Self::Cages => u64::MAX,
        }
    }

    /// Whether it is a kernel of our own, with processes, descriptors and copies.
    pub(super) const fn is_kernel(self) -> bool {
        !matches!(self, Self::Arena)
    }
}

impl Range {
    /// What of a region lies there.
    pub(super) fn clip<'a>(self, line: MapLine<'a>) -> Option<MapLine<'a>> {
        let clipped = MapLine { start: line.start.max(self.start), end: line.end.min(self.end), ..line };
        (clipped.start < clipped.end).then_some(clipped)
    }

    /// Whether a page lies there.
    pub(super) const fn contains(self, page: u64) -> bool {
        self.start <= page && page < self.end
    }

    /// The page for what mincore(2) tells.
    pub(super) const fn residence(self) -> u64 {
        self.end - 16 * PAGE
    }
}

/// What is outside of the range.
#[derive(Debug)]
pub(super) struct Enclosure {
    /// With what this is compared.
    pub(super) counterpart: Counterpart,
    /// Everything mapped outside, in runs without holes.
    outside: Vec<(u64, u64)>,
    /// Bytes mapped outside.
    address_space: u64,
    /// Bytes of those that `RLIMIT_DATA` counts.
    data: u64,
}

/// Sums of what is mapped, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sums {
    /// All of it.
    pub(super) size: u64,
    /// What is locked.
    pub(super) locked: u64,
    /// What `RLIMIT_DATA` counts.
    pub(super) data: u64,
}

/// The sums of this process; `room` is for what the kernel tells.
fn sums(room: &mut Vec<u8>) -> Option<Sums> {
    if !read_file(c"/proc/self/status", room) {
        return None;
    }
    let text = std::str::from_utf8(room).ok()?;
    let bytes = |name: &str| {
        let words = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(words.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    Some(Sums { size: bytes("VmSize:")?, locked: bytes("VmLck:")?, data: bytes("VmData:")? })
}

impl Enclosure {
    /// Fills everything but the range, and moves the break there. `room` is for what the kernel tells; this process
    /// must not ask for memory any more, as there is none for it.
    ///
    /// # Errors
    /// What the host says; `EINVAL` may mean a kernel without `CONFIG_CHECKPOINT_RESTORE`.
    pub(super) fn new(counterpart: Counterpart, room: &mut Vec<u8>) -> io::Result<Self> {
        let mut map = MemoryMap::of_this_process()?;
        let mut this = Self { counterpart, outside: Vec::with_capacity(RUNS), address_space: 0, data: 0 };
        fill(counterpart.range(), room)?;
        this.learn(room)?;
        // The kernel's brk(2) adds the program's own data to the heap before it looks at RLIMIT_DATA.
        map.data[1] = map.data[0] + this.data;
        map.brk = [counterpart.range().start; 2];
        // SAFETY: the kernel reads the structure, whose size is given. The break of this process is not used any more:
        // it makes no allocation from now on.
        let moved = unsafe {
            libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0_usize)
        };
        if moved < 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::other(format!("cannot move the break (CONFIG_CHECKPOINT_RESTORE): {error}")));
        }
        Ok(this)
    }

    /// Notes what is outside, and how much.
    fn learn(&mut self, room: &mut Vec<u8>) -> io::Result<()> {
        if !read_maps(room) {
            return Err(io::Error::other("cannot read /proc/self/maps"));
        }
        let text = std::str::from_utf8(room).map_err(io::Error::other)?;
        for MapLine { start, end, .. } in text.lines().filter_map(MapLine::parse) {
            match self.outside.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => self.outside.push((start, end)),
            }
            if self.outside.len() == RUNS {
                return Err(io::Error::other("too many mappings"));
            }
        }
        let sums = sums(room).ok_or_else(|| io::Error::other("/proc/self/status has no sizes"))?;
        (self.address_space, self.data) = (sums.size, sums.data);
        Ok(())
    }

    /// What the kernel counts for the range.
    pub(super) fn sums(&self, room: &mut Vec<u8>) -> Option<Sums> {
        let all = sums(room)?;
        let (size, data) = (all.size.checked_sub(self.address_space)?, all.data.checked_sub(self.data)?);
        Some(Sums { size, data, ..all })
    }

    /// Calls the kernel.
    ///
    /// # Safety
    /// As for [`raw::syscall`].
    pub(super) unsafe fn syscall(&self, number: libc::c_long, args: [u64; 6]) -> Outcome {
        // SAFETY: the caller's promise is the same.
        let outcome = unsafe { raw::syscall(number, args) };
        let locks_all = number == libc::SYS_mlockall && args[0] & u64::from(libc::MCL_CURRENT.cast_unsigned()) != 0;
        if locks_all && matches!(outcome, Outcome::Value(_)) {
            for (start, end) in &self.outside {
                // SAFETY: takes a lock from memory of this process, which relies on none.
                unsafe { raw::syscall(libc::SYS_munlock, [*start, end - start, 0, 0, 0, 0]) };
            }
        }
        outcome
    }

    /// A limit that leaves as much for the range as `bytes` would if nothing were outside.
    pub(super) const fn limit(&self, resource: u64, bytes: u64) -> u64 {
        let outside = match resource {
            AS => self.address_space,
            DATA => self.data,
            _ => 0,
        };
        inside_limit(resource, bytes).saturating_add(outside)
    }

    /// The part of a region that lies in the range.
    pub(super) fn clip<'a>(&self, line: MapLine<'a>) -> Option<MapLine<'a>> {
        let range = self.counterpart.range();
        let name = name_inside(&line, range, program_break);
        range.clip(MapLine { name, ..line })
    }
}

/// The name of the part of a region that lies in the range.
fn name_inside<'a>(line: &MapLine<'a>, range: Range, program_break: impl Fn() -> u64) -> &'a str {
    // A region around both ends of an empty heap is called so, but the heap starts where the range does: without
    // the part that lies outside this region would not be.
    let is_wide = line.start < range.start && line.name == "[heap]";
    if is_wide && program_break() <= range.start { "" } else { line.name }
}

fn program_break() -> u64 {
    // SAFETY: a break of 0 only asks.
    match unsafe { raw::syscall(libc::SYS_brk, [0; 6]) } {
        Outcome::Value(end) => end,
        _ => 0,
    }
}

const AS: u64 = libc::RLIMIT_AS as u64;
const DATA: u64 = libc::RLIMIT_DATA as u64;
/// `RLIMIT_MEMLOCK`.
pub(super) const LOCKED: u64 = libc::RLIMIT_MEMLOCK as u64;
/// The most that a program may lock without privileges: half of what a process usually may, since an arena's host counts
/// pages twice while they move.
pub(super) const LOCKED_MOST: u64 = 4 << 20;

/// A limit as both sides take it: `RLIMIT_DATA` of 0, which the kernel gives a meaning of its own, cannot be told to a
/// process that has data already, so it is a byte.
pub(super) const fn inside_limit(resource: u64, bytes: u64) -> u64 {
    match resource {
        DATA if bytes == 0 => 1,
        LOCKED if bytes > LOCKED_MOST => LOCKED_MOST,
        _ => bytes,
    }
}

impl MemoryMap {
    /// As the kernel has it now (proc(5), /proc/PID/stat).
    fn of_this_process() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/stat")?;
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |number: usize| {
            let word = rest.split_ascii_whitespace().nth(number - 3).and_then(|word| word.parse::<u64>().ok());
            word.ok_or_else(|| io::Error::other("/proc/self/stat is too short"))
        };
        Ok(Self {
            code: [field(26)?, field(27)?],
            data: [field(45)?, field(46)?],
            brk: [0; 2],
            start_stack: field(28)?,
            args: [field(48)?, field(49)?],
            environment: [field(50)?, field(51)?],
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        })
    }
}

/// Maps every hole outside of `range`.
fn fill(range: Range, room: &mut Vec<u8>) -> io::Result<()> {
    if !read_maps(room) {
        return Err(io::Error::other("cannot read /proc/self/maps"));
    }
    let text = std::str::from_utf8(room).map_err(io::Error::other)?;
    let mut next = LOWEST;
    for MapLine { start, end, name, .. } in text.lines().filter_map(MapLine::parse) {
        let hole_end = if name == "[stack]" { start.saturating_sub(STACK_GUARD) } else { start };
        fill_hole(range, (next, hole_end.min(TASK_END)))?;
        next = end;
    }
    fill_hole(range, (next, TASK_END))
}

/// Maps from `start` to `end`, but for `range`.
fn fill_hole(range: Range, (start, end): (u64, u64)) -> io::Result<()> {
    for (start, end) in [(start, end.min(range.start)), (start.max(range.end), end)] {
        if start >= end || map_without_rights(start, end) {
            continue;
        }
        // A security module may forbid the first pages, and then they are no use to anybody.
        if start > LOWEST || !map_without_rights(LOWEST_FOR_ALL, end) {
            return Err(io::Error::other(format!("cannot map {start:x}-{end:x}")));
        }
    }
    Ok(())
}

fn map_without_rights(start: u64, end: u64) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let args = [start, end - start, 0, u64::from(flags.cast_unsigned()), u64::MAX, 0];
    // SAFETY: maps where nothing is.
    let mapped = unsafe { raw::syscall(libc::SYS_mmap, args) } == Outcome::Value(start);
    // The name keeps the kernel from joining these pages with a program's beside them. A kernel without names joins
    // them, and then a region at the edge of the range may seem longer than it is.
    let (option, what) = (libc::PR_SET_VMA.cast_unsigned(), libc::PR_SET_VMA_ANON_NAME.cast_unsigned());
    let args = [option.into(), what.into(), start, end - start, c"outside".as_ptr() as u64, 0];
    if mapped {
        // SAFETY: names the pages that were mapped above.
        unsafe { raw::syscall(libc::SYS_prctl, args) };
    }
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_heap_that_has_pages_in_the_range_is_called_so_there() {
        let start = WIDE.start;
        let line = |start, name| MapLine { start, end: WIDE.start + 0x4000, perms: "rw-p", offset: 0, name };
        let cases = [
            (start - 0x1000, "[heap]", start, ""),
            (start - 0x1000, "[heap]", start + 1, "[heap]"),
            (start, "[heap]", start, "[heap]"),
            (start - 0x1000, "[stack]", start, "[stack]"),
        ];
        for (from, name, program_break, expected) in cases {
            assert_eq!(name_inside(&line(from, name), WIDE, || program_break), expected, "{name} from {from:#x}");
        }
    }
}
