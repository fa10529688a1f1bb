//! A small kernel: pagewarden on real page tables.
//!
//! Its own are the way from the machine's start to 64-bit code (`boot`), traps and the way into user code (`trap`),
//! interrupts (`interrupt`), the log (`serial`) and who runs (`schedule`). Frames, tables, address spaces, capabilities and
//! memory of others are the `pagewarden` crate's: this kernel implements [`pagewarden::mmu::PhysMem`] (`memory`) and
//! [`pagewarden::mmu::Mmu`] (`mmu`), and says what its own half of every space shows (`areas`).
//!
//! It runs in QEMU, started by `cargo xtask kernel`: it loads programs, has them attack it, and says what became of that.
#![no_std]
#![no_main]

extern crate alloc;

mod areas;
mod boot;
mod calls;
mod checks;
mod edu;
mod errand;
mod interrupt;
mod machine;
mod memory;
mod mmu;
mod others;
mod pci;
mod probe;
mod process;
mod processor;
mod programs;
mod random;
mod schedule;
mod serial;
mod stacks;
mod transcript;
mod trap;
mod windows;

use core::panic::PanicInfo;
use core::sync::atomic::AtomicPtr;

use pagewarden::PAGE_SIZE;
use transcript::{log, note};
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

/// The stack that processors have until the kernel's tables show their own.
#[repr(align(16))]
struct FirstStack(#[expect(dead_code, reason = "only its address counts")] [u8; 64 << 10]);

static mut FIRST_STACK: FirstStack = FirstStack([0; 64 << 10]);

/// Where boot.s finds a stack.
#[unsafe(no_mangle)]
static boot_stack_top: AtomicPtr<FirstStack> = AtomicPtr::new((&raw mut FIRST_STACK).wrapping_add(1));

/// How the machine ends: its exit status is this number twice, plus one.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Ending {
    AllPassed = 0x10,
    SomethingFailed = 0x11,
    Panic = 0x12,
}

fn end(ending: Ending) -> ! {
    // SAFETY: the port of QEMU's debug-exit device; the machine ends.
    unsafe { Port::<u32>::new(0xf4).write(ending as u32) };
    loop {
        interrupts::disable();
        hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    interrupts::disable();
    serial::last_words(format_args!("panic: {info}"));
    end(Ending::Panic)
}

/// Where boot.s leads: the first processor comes with the address of its start info, others with 0.
#[unsafe(no_mangle)]
unsafe extern "sysv64" fn kernel_entry(start_info: u64) -> ! {
    if start_info == 0 {
        // SAFETY: the first processor has left the first stack, and starts one at a time.
        unsafe { others::enter() }
    }
    serial::start();
    processor::identify(0);
    interrupt::mask_legacy();
    // SAFETY: boot.s has loaded the first tables and passed on what the machine has said.
    let map = unsafe { boot::memory_map(start_info) };
    // SAFETY: the first tables are loaded.
    unsafe { boot::install_trampoline() };
    // SAFETY: likewise, and this runs once.
    unsafe { machine::start(map) };
    // SAFETY: the kernel's tables are loaded.
    unsafe { processor::protect() };
    processor::join(0);
    // SAFETY: the stack is mapped and nobody's; nothing on the present one is needed any more.
    unsafe { trap::switch_stack(stacks::top(0), first_processor, 0) }
}

extern "sysv64" fn first_processor(_: u64) -> ! {
    // SAFETY: it is the first, interrupts are off.
    unsafe { processor::start(0) };
    interrupt::start();
    interrupts::enable();
    let kernel = machine::kernel();
    let missing = others::start(kernel);
    let memory = (kernel.pager.frames().total() * PAGE_SIZE) >> 20;
    log!("pagewarden kernel {}, {} processors, {memory} MiB", env!("CARGO_PKG_VERSION"), processor::all().len());
    if missing > 0 {
        note!("{missing} processors did not start");
    }
    checks::run();
    let (all, failed) = transcript::counts();
    log!("halt: {all} checks, {failed} failed");
    end(if failed == 0 { Ending::AllPassed } else { Ending::SomethingFailed })
}
