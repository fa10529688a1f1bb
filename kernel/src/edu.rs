//! QEMU's device for teaching (docs/specs/edu): it copies between memory and 4 KiB of its own, by itself.
//!
//! Owned here: its registers. What it may write to is the other world's memory and no other: so it can be told by safe code.

use core::time::Duration;

use pagewarden::phys::PhysRange;
use pagewarden::{Errno, PAGE_SIZE, PageRange, VirtAddr};

use crate::machine::kernel;
use crate::memory::{DEVICES, at};
use crate::{areas, pci, windows};

const VENDOR: u16 = 0x1234;
const MODEL: u16 = 0x11e8;

/// Where its registers are shown: behind those of the interrupt controller.
const REGISTERS: u64 = DEVICES + PAGE_SIZE;

/// Its registers.
const IDENTITY: u64 = 0x00;
const LIVENESS: u64 = 0x04;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;

/// The lowest bytes of its identity.
const NAME: u32 = 0xed;
/// Where its own memory is, as it is told.
const BUFFER: u64 = 0x4_0000;
/// The most that it copies at a time: QEMU before 9.1 ends the machine for a copy of all 4096 bytes.
pub(crate) const MOST: u64 = 4088;
/// The bits of a memory address that it has.
const ADDRESS_BITS: u32 = 28;
/// It takes 100 ms for a copy.
const PATIENCE: Duration = Duration::from_secs(10);

const START: u64 = 1;

/// Which way it copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Direction {
    FromMemory = 0,
    ToMemory = 2,
}

/// The device.
#[derive(Debug)]
pub(crate) struct Edu(());

fn read(register: u64) -> u32 {
    // SAFETY: there is an `Edu`, so the page shows the registers; to read one changes nothing.
    unsafe { at::<u32>(REGISTERS + register).read_volatile() }
}

fn write_wide(register: u64, value: u64) {
    // SAFETY: as in `read`. What the device is told to write to has been checked to be the other world's.
    unsafe { at::<u64>(REGISTERS + register).write_volatile(value) }
}

impl Edu {
    /// The device, with its registers shown. There is one at a time.
    ///
    /// # Errors
    /// `ENODEV`: there is none, or it is not what it says; `EEXIST`: somebody has it; no frames for tables.
    pub(crate) fn new() -> Result<Self, Errno> {
        let device = pci::Device::find(VENDOR, MODEL).ok_or(Errno::NoDev)?;
        let registers = device.registers().ok_or(Errno::NoDev)?;
        device.enable();
        areas::map_registers(&kernel().space, REGISTERS, registers)?;
        let edu = Self(());
        if edu.is_alive() { Ok(edu) } else { Err(Errno::NoDev) }
    }

    fn is_alive(&self) -> bool {
        const WORD: u32 = 0x5a5a_1234;
        // SAFETY: the page shows the registers; this one answers its complement, and does nothing.
        unsafe { at::<u32>(REGISTERS + LIVENESS).write_volatile(WORD) };
        read(IDENTITY) & 0xff == NAME && read(LIVENESS) == !WORD
    }

    /// Has it copy `memory`, which is the other world's, to its own, or the other way round, and does not wait for it.
    ///
    /// # Errors
    /// `EINVAL`: too much, `EPERM`: not the other world's, `EFAULT`: beyond the addresses that it has, `EBUSY`: it copies.
    pub(crate) fn start(&self, direction: Direction, memory: PhysRange) -> Result<(), Errno> {
        let (start, end) = (memory.start(), memory.end());
        let world = PhysRange::of_frames(kernel().other_world);
        if memory.bytes() > MOST {
            return Err(Errno::Inval);
        }
        if start < world.start() || end > world.end() {
            return Err(Errno::Perm);
        }
        if end > 1 << ADDRESS_BITS {
            return Err(Errno::Fault);
        }
        if self.is_busy() {
            return Err(Errno::Busy);
        }
        let (source, destination) = match direction {
            Direction::FromMemory => (start, BUFFER),
            Direction::ToMemory => (BUFFER, start),
        };
        write_wide(SOURCE, source);
        write_wide(DESTINATION, destination);
        write_wide(COUNT, memory.bytes());
        write_wide(COMMAND, START | direction as u64);
        Ok(())
    }

    /// Whether it copies.
    pub(crate) fn is_busy(&self) -> bool {
        u64::from(read(COMMAND)) & START != 0
    }

    /// Waits until it has copied.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it does not end.
    pub(crate) fn finish(&self) -> Result<(), Errno> {
        let end = windows::now() + PATIENCE;
        while self.is_busy() {
            if windows::now() > end {
                return Err(Errno::TimedOut);
            }
            core::hint::spin_loop();
        }
        Ok(())
    }
}

impl Drop for Edu {
    fn drop(&mut self) {
        // What it still copies goes to the other world. Nothing but a lack of frames for tables could fail, and a page of
        // its own takes none.
        let pages = PageRange::from_len(VirtAddr::new(REGISTERS), PAGE_SIZE);
        let _ = pages.map(|pages| kernel().space.unmap(pages));
    }
}
