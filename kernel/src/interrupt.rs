//! The interrupt controller of each processor (local APIC): its timer, and interrupts from one to another.
//!
//! Owned here: its registers, and the legacy controllers, which are masked: the firmware leaves them on, with vectors that
//! are exceptions.

use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use crate::memory::{self, DEVICES};
use crate::processor;
use crate::trap::vector;

/// Where the registers are shown.
pub(crate) const REGISTERS: u64 = DEVICES;

const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND: u64 = 0x300;
const COMMAND_TARGET: u64 = 0x310;
const TIMER: u64 = 0x320;
const INITIAL_COUNT: u64 = 0x380;
const DIVIDE: u64 = 0x3e0;

const ENABLED: u32 = 1 << 8;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const ALL_OTHERS: u32 = 0b11 << 18;
const INIT: u32 = 0b101 << 8;
const START_UP: u32 = 0b110 << 8;

/// Counts of the timer between two interrupts: a millisecond in QEMU, whose timer runs at 1 GHz.
const TIMER_COUNT: u32 = 1_000_000;

/// A number that a register of 32 bits has room for.
#[expect(clippy::cast_possible_truncation, reason = "vectors, pages below 1 MiB and processors are few")]
const fn low(number: u64) -> u32 {
    number as u32
}

fn read(register: u64) -> u32 {
    let place = memory::at::<u32>(REGISTERS + register);
    // SAFETY: the page shows the controller's registers, not cached; to read one of those named here changes nothing.
    unsafe { place.read_volatile() }
}

fn write(register: u64, value: u32) {
    let place = memory::at::<u32>(REGISTERS + register);
    // SAFETY: the page shows the controller's registers, which change no memory.
    unsafe { place.write_volatile(value) }
}

/// The physical address of the registers.
pub(crate) fn registers() -> u64 {
    const APIC_BASE: u32 = 0x1b;
    // SAFETY: every x86-64 processor has this register.
    let base = unsafe { Msr::new(APIC_BASE).read() };
    base & 0x000f_ffff_ffff_f000
}

/// Masks the legacy controllers.
pub(crate) fn mask_legacy() {
    for port in [0x21, 0xa1] {
        // SAFETY: a mask of interrupts, which changes no memory.
        unsafe { Port::<u8>::new(port).write(0xff) }
    }
}

/// Starts the controller and the timer of the processor that runs this.
pub(crate) fn start() {
    write(SPURIOUS, ENABLED | low(vector::SPURIOUS));
    write(DIVIDE, DIVIDE_BY_1);
    write(TIMER, PERIODIC | low(vector::TIMER));
    write(INITIAL_COUNT, TIMER_COUNT);
}

/// An interrupt of the timer, in kernel code: it has nothing to preempt there.
pub(crate) fn timer() {
    processor::current().tick();
    end();
}

/// Says that the interrupt is handled.
pub(crate) fn end() {
    write(END_OF_INTERRUPT, 0);
}

fn command(word: u32) {
    write(COMMAND, word);
    while read(COMMAND) & PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Asks all other processors to look at what is to be forgotten.
pub(crate) fn shoot_down_others() {
    command(ALL_OTHERS | ASSERT | low(vector::SHOOT_DOWN));
}

/// Has all other processors look whether there is something to do.
pub(crate) fn wake_others() {
    command(ALL_OTHERS | ASSERT | low(vector::WAKE));
}

/// Resets another processor, which then waits to be started.
pub(crate) fn reset(index: usize) {
    command_to(index, ASSERT | INIT);
}

/// Starts a processor that waits for it, at the page `trampoline`.
pub(crate) fn start_at(index: usize, trampoline: u64) {
    command_to(index, ASSERT | START_UP | low(trampoline >> 12));
}

/// QEMU numbers the controllers as it does the processors.
fn command_to(index: usize, word: u32) {
    write(COMMAND_TARGET, low(index as u64) << 24);
    command(word);
}
