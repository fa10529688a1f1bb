//! Traps: how user code is entered and left, and what a trap in kernel code means.
//!
//! User code traps into its [`Context`], and [`Context::run`] returns. In kernel code there are four traps that are no
//! mistake: the timer, the request to forget translations, a fault in a copy that says where it lands
//! ([`pagewarden_copy::landing`]), and a probe that is meant to fault. Their handlers take no lock.

use core::arch::global_asm;
use core::mem::offset_of;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;

use crate::memory::size;
use crate::stacks::TrapStack;
use crate::{interrupt, mmu, probe};

global_asm!(include_str!("trap.s"), options(att_syntax));

unsafe extern "sysv64" {
    fn enter_user(context: *mut Context);
    #[link_name = "syscall_entry"]
    fn syscall_entry_code();
    #[link_name = "trap_entries"]
    static TRAP_ENTRIES: u8;
    /// Goes on at another stack.
    pub(crate) fn switch_stack(top: u64, function: extern "sysv64" fn(u64) -> !, argument: u64) -> !;
}

/// Exceptions, by number (Intel SDM volume 3, table 6-1).
pub(crate) mod vector {
    pub(crate) const DIVIDE: u64 = 0;
    pub(crate) const DEBUG: u64 = 1;
    pub(crate) const NON_MASKABLE: u64 = 2;
    pub(crate) const BREAKPOINT: u64 = 3;
    pub(crate) const INVALID_OPCODE: u64 = 6;
    pub(crate) const DOUBLE_FAULT: u64 = 8;
    pub(crate) const PAGE_FAULT: u64 = 14;
    pub(crate) const FLOATING_POINT: u64 = 16;
    pub(crate) const ALIGNMENT: u64 = 17;
    pub(crate) const MACHINE_CHECK: u64 = 18;
    pub(crate) const SIMD: u64 = 19;
    /// The first that is not an exception.
    pub(crate) const INTERRUPTS: u64 = 32;
    /// The timer.
    pub(crate) const TIMER: u64 = 32;
    /// Another processor wants translations forgotten.
    pub(crate) const SHOOT_DOWN: u64 = 33;
    /// There is something to do for a processor that had nothing.
    pub(crate) const WAKE: u64 = 34;
    /// The interrupt controller changed its mind.
    pub(crate) const SPURIOUS: u64 = 255;
    /// Not a vector: the `syscall` instruction.
    pub(crate) const SYSCALL: u64 = 256;
}

/// Flags that user code may have; interrupts are always on there.
const USER_FLAGS: u64 = 0x0024_0dd5;
const INTERRUPTS_ON: u64 = 1 << 9;
const ALWAYS_SET: u64 = 1 << 1;

/// The registers of a thread while it does not run.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub(crate) struct Context {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rbp: u64,
    pub(crate) r8: u64,
    pub(crate) r9: u64,
    pub(crate) r10: u64,
    pub(crate) r11: u64,
    pub(crate) r12: u64,
    pub(crate) r13: u64,
    pub(crate) r14: u64,
    pub(crate) r15: u64,
    pub(crate) rip: u64,
    pub(crate) flags: u64,
    pub(crate) rsp: u64,
    /// Why it last left user code.
    pub(crate) vector: u64,
    pub(crate) error: u64,
    /// What a page fault was about.
    pub(crate) address: u64,
    pub(crate) fs_base: u64,
    /// x87 and SSE, as fxsave has them.
    extended: [u8; 512],
}

const _: () = {
    assert!(offset_of!(Context, rip) == 120);
    assert!(offset_of!(Context, flags) == 128);
    assert!(offset_of!(Context, rsp) == 136);
    assert!(offset_of!(Context, vector) == 144);
    assert!(offset_of!(Context, error) == 152);
    assert!(offset_of!(Context, address) == 160);
    assert!(offset_of!(Context, extended) == 176);
};

impl Context {
    /// A thread that starts at `rip`, which is a user's address.
    pub(crate) fn new(rip: u64, rsp: u64) -> Self {
        let mut extended = [0; 512];
        // The state after FNINIT, and all SIMD exceptions masked.
        extended[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        extended[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self {
            rax: 0,
            rbx: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            rbp: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
            rip,
            flags: INTERRUPTS_ON | ALWAYS_SET,
            rsp,
            vector: 0,
            error: 0,
            address: 0,
            fs_base: 0,
            extended,
        }
    }

    /// Runs the thread until it traps. Interrupts are on before and after.
    pub(crate) fn run(&mut self) {
        self.flags = self.flags & USER_FLAGS | INTERRUPTS_ON | ALWAYS_SET;
        x86_64::registers::model_specific::FsBase::write(VirtAddr::new_truncate(self.fs_base));
        // SAFETY: the context is this function's alone while the thread runs; rip is one that user code came from or that
        // was checked to be a user's; the processor's tables protect the kernel from what user code does.
        unsafe { enter_user(self) };
        interrupts::enable();
    }
}

/// What the entry of a trap in kernel code has saved.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct KernelFrame {
    pub(crate) rax: u64,
    others: [u64; 14],
    vector: u64,
    error: u64,
    pub(crate) rip: u64,
    cs: u64,
    flags: u64,
    pub(crate) rsp: u64,
    ss: u64,
}

/// A trap in kernel code, called by trap.s.
#[unsafe(no_mangle)]
extern "sysv64" fn kernel_trap(frame: &mut KernelFrame) {
    match frame.vector {
        vector::TIMER => interrupt::timer(),
        vector::SHOOT_DOWN => mmu::forget_as_asked(),
        vector::WAKE => interrupt::end(),
        vector::SPURIOUS => {}
        vector::PAGE_FAULT => page_fault(frame),
        _ => unexpected(frame),
    }
}

fn page_fault(frame: &mut KernelFrame) {
    if let Some(landing) = pagewarden_copy::landing(size(frame.rip)) {
        frame.rip = landing as u64;
    } else if !probe::lands(frame, frame.error) {
        unexpected(frame);
    }
}

fn unexpected(frame: &KernelFrame) -> ! {
    panic!(
        "trap {} in kernel code at {:#x}, error code {:#x}, address {:#x}, stack {:#x}",
        frame.vector,
        frame.rip,
        frame.error,
        Cr2::read_raw(),
        frame.rsp
    )
}

/// Where `syscall` leads.
pub(crate) fn syscall_entry() -> u64 {
    (syscall_entry_code as *const ()).addr() as u64
}

static TABLE: Once<[[u64; 2]; 256]> = Once::new();

/// A gate of the interrupt descriptor table: interrupts are off behind it, and it has a stack of its own.
fn gate(vector: u64) -> [u64; 2] {
    let entry = (&raw const TRAP_ENTRIES).addr() as u64 + 16 * vector;
    let stack = match vector {
        vector::PAGE_FAULT => TrapStack::PageFault,
        vector::DOUBLE_FAULT => TrapStack::DoubleFault,
        vector::NON_MASKABLE => TrapStack::NonMaskable,
        vector::MACHINE_CHECK => TrapStack::MachineCheck,
        vector::INTERRUPTS.. => TrapStack::Interrupt,
        _ => TrapStack::Exception,
    };
    // Present, 64-bit interrupt gate, code segment 8; user code may raise none by itself but the breakpoint.
    let level = if vector == vector::BREAKPOINT { 3 } else { 0 };
    let attributes = 0x8e00 | level << 13 | (stack as u64 + 1);
    [entry & 0xffff | 0x08 << 16 | attributes << 32 | (entry >> 16 & 0xffff) << 48, entry >> 32]
}

/// Loads the table of traps, which all processors share.
pub(crate) fn load_table() {
    let table = TABLE.call_once(|| core::array::from_fn(|vector| gate(vector as u64)));
    let limit = u16::try_from(size_of_val(table) - 1).unwrap_or(u16::MAX);
    let pointer = DescriptorTablePointer { limit, base: VirtAddr::from_ptr(table) };
    // SAFETY: the table stays for good, and each of its gates leads to an entry in trap.s.
    unsafe { lidt(&pointer) };
}
