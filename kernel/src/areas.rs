//! The kernel's half of every address space: what is where, and with which rights.
//!
//! | area | rights | leaves |
//! |---|---|---|
//! | code | read, execute | 4 KiB |
//! | constants | read | 4 KiB |
//! | data | read, write | 4 KiB |
//! | direct map | read, write | 2 MiB where it is aligned; the image is not in it |
//! | stacks | read, write | 4 KiB, with nothing below each |
//! | devices | read, write, not cached | 4 KiB |
//!
//! All are global, and none is a user's. Nothing is writable and executable, by any of its addresses.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pagewarden::frame::{FrameNumber, FrameRange, FrameUse, MemoryKind, MemoryMap};
use pagewarden::page_table::EntryFlags;
use pagewarden::pager::KernelSpace;
use pagewarden::{Errno, PAGE_SIZE, PageCount, PageRange, PhysAddr, VirtAddr};

use crate::boot::symbol;
use crate::machine::Kernel;
use crate::memory::{DEVICES, DIRECT_MAP, Hardware, IMAGE, MEMORY_END, STACKS, WINDOWS, frames};
use crate::{interrupt, stacks};

/// A part of the kernel's half, for the log and for checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Area {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) flags: EntryFlags,
}

impl Area {
    pub(crate) fn is_writable(self) -> bool {
        self.flags.contains(EntryFlags::WRITABLE)
    }

    pub(crate) fn is_executable(self) -> bool {
        !self.flags.contains(EntryFlags::NO_EXECUTE)
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = if self.is_writable() { 'w' } else { '-' };
        let execute = if self.is_executable() { 'x' } else { '-' };
        let kib = (self.end - self.start) >> 10;
        write!(f, "{:016x}-{:016x} r{write}{execute} {kib:>7} KiB  {}", self.start, self.end, name_of(self.start))
    }
}

unsafe extern "C" {
    static text_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static data_end: u8;
}

/// Where the parts of the image end: code, constants, data, and where code starts.
pub(crate) fn image() -> [u64; 4] {
    [symbol!(text_start), symbol!(text_end), symbol!(rodata_end), symbol!(data_end)]
}

/// What an address is for.
pub(crate) fn name_of(address: u64) -> &'static str {
    let [text, constants, data, _] = image();
    match address {
        _ if address >= data => "data",
        _ if address >= constants => "constants",
        _ if address >= text => "code",
        DEVICES.. => "devices",
        STACKS.. => "stacks",
        WINDOWS.. => "windows",
        _ => "direct map",
    }
}

const READ: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::GLOBAL).union(EntryFlags::NO_EXECUTE);
const READ_WRITE: EntryFlags = READ.union(EntryFlags::WRITABLE);
const READ_EXECUTE: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::GLOBAL);

/// The root slots that the kernel has.
pub(crate) fn slots() -> [VirtAddr; 5] {
    [DIRECT_MAP, WINDOWS, STACKS, DEVICES, IMAGE].map(VirtAddr::new)
}

/// Maps the image, the memory of `map` and the interrupt controller.
///
/// # Errors
/// No frames for tables.
pub(crate) fn map_kernel(space: &KernelSpace<Hardware>, map: &MemoryMap) -> Result<(), Errno> {
    let [text, constants, data, end] = image();
    for (start, end, flags) in [(text, constants, READ_EXECUTE), (constants, data, READ), (data, end, READ_WRITE)] {
        space.map(VirtAddr::new(start), frames(start - IMAGE, end - IMAGE).ok_or(Errno::Inval)?, flags)?;
    }
    let is_ours = |kind| matches!(kind, MemoryKind::Usable | MemoryKind::Metadata);
    let memory = map.ranges().filter(|(frames, kind)| is_ours(*kind) && frames.end() * PAGE_SIZE <= MEMORY_END);
    for (range, _) in memory {
        let address = VirtAddr::new(DIRECT_MAP + range.first().start().as_u64());
        space.map(address, range, READ_WRITE | EntryFlags::HUGE)?;
    }
    map_registers(space, interrupt::REGISTERS, interrupt::registers())
}

/// Maps a page of registers of a device.
///
/// # Errors
/// No frames for tables, or no such place.
pub(crate) fn map_registers(space: &KernelSpace<Hardware>, at: u64, registers: u64) -> Result<(), Errno> {
    let not_cached = EntryFlags::NO_CACHE | EntryFlags::WRITE_THROUGH;
    let frame = FrameNumber::containing(PhysAddr::new(registers).ok_or(Errno::Inval)?);
    let frames = FrameRange::new(frame, PageCount::new(1)).ok_or(Errno::Inval)?;
    space.map(VirtAddr::new(at), frames, READ_WRITE | not_cached)
}

/// Maps the stacks of processor `processor`. They stay for good.
///
/// # Errors
/// No frames.
pub(crate) fn map_stacks(kernel: &Kernel, processor: usize) -> Result<(), Errno> {
    let frames = kernel.pager.frames();
    let owner = frames.add_owner(&kernel.account).map_err(|error| error.errno())?;
    for number in 0..stacks::EACH {
        let pages = stacks::pages(processor, number);
        let run = frames.allocate_run(pages.pages(), PageCount::new(1), &owner, FrameUse::Object);
        kernel.space.map(pages.start(), run.map_err(|error| error.errno())?, READ_WRITE)?;
    }
    Ok(())
}

/// What the kernel's tables show now, neighbours that are alike as one.
pub(crate) fn shown(space: &Arc<KernelSpace<Hardware>>) -> Vec<Area> {
    let mut areas = Vec::<Area>::new();
    let upper = PageRange::new(VirtAddr::new(DIRECT_MAP), VirtAddr::new(!(PAGE_SIZE - 1)));
    let rights = EntryFlags::WRITABLE | EntryFlags::NO_EXECUTE | EntryFlags::USER | EntryFlags::GLOBAL;
    let Some(upper) = upper else { return areas };
    space.entries(upper, &mut |span, entry, _| {
        let area = Area { start: span.start().as_u64(), end: span.end().as_u64(), flags: entry.flags() & rights };
        match areas.last_mut() {
            Some(last) if last.end == area.start && last.flags == area.flags => last.end = area.end,
            _ => areas.push(area),
        }
    });
    areas
}
