//! Where the stacks are: some for each processor, and a page below each that is not there.
//!
//! A stack is 32 KiB at the end of a slot of 64 KiB, of which the rest stays empty. Number 0 of a processor is the one
//! that it runs on; the others are those of its traps, so that a trap never writes below the stack pointer of the code that
//! it interrupts (the compiler keeps data there).

use pagewarden::{PAGE_SIZE, PageRange, VirtAddr};

use crate::memory::STACKS;

const SLOT: u64 = 64 << 10;
const BYTES: u64 = 32 << 10;
/// Stacks of a processor.
pub(crate) const EACH: usize = 8;

/// Whose stack a trap is handled on, in kernel code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum TrapStack {
    Exception = 0,
    PageFault = 1,
    DoubleFault = 2,
    NonMaskable = 3,
    MachineCheck = 4,
    Interrupt = 5,
}

fn slot(processor: usize, number: usize) -> u64 {
    STACKS + (processor * EACH + number) as u64 * SLOT
}

/// The pages of a stack.
pub(crate) fn pages(processor: usize, number: usize) -> PageRange {
    let start = VirtAddr::new(slot(processor, number) + SLOT - BYTES);
    PageRange::from_len(start, BYTES).unwrap_or_else(|| unreachable!("slots are aligned"))
}

/// The top of the stack that a processor runs on.
pub(crate) fn top(processor: usize) -> u64 {
    slot(processor, 0) + SLOT
}

/// The top of one of its stacks for traps.
pub(crate) fn trap_stack(processor: usize, kind: usize) -> u64 {
    slot(processor, kind + 1) + SLOT
}

/// The last byte of the page below the stack that a processor runs on.
pub(crate) fn guard(processor: usize) -> u64 {
    pages(processor, 0).start().as_u64() - 1
}

const _: () = assert!(BYTES < SLOT && SLOT.is_multiple_of(PAGE_SIZE));
