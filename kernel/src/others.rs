//! The other processors: started one after the other, each on the stacks that are mapped for it.

use core::sync::atomic::{AtomicUsize, Ordering};

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

use crate::machine::{Kernel, kernel};
use crate::memory::size;
use crate::{areas, boot, interrupt, mmu, processor, schedule, stacks, trap};

/// The processor that starts now.
static STARTING: AtomicUsize = AtomicUsize::new(0);
/// Milliseconds that one has to say that it runs.
const PATIENCE: u64 = 200;

/// How many processors QEMU says that there are (docs/specs/fw_cfg).
fn count() -> usize {
    const SELECTOR: u16 = 0x510;
    const DATA: u16 = 0x511;
    const PROCESSORS: u16 = 5;
    // SAFETY: it selects what is read next, and changes no memory.
    unsafe { Port::new(SELECTOR).write(PROCESSORS) };
    let byte = || {
        // SAFETY: to read it moves on to the next byte.
        unsafe { Port::<u8>::new(DATA).read() }
    };
    let low = byte();
    usize::from(u16::from_le_bytes([low, byte()]))
}

fn sleep(milliseconds: u64) {
    let end = processor::current().ticks() + milliseconds;
    while processor::current().ticks() < end {
        hlt();
    }
}

/// Starts all others; how many did not answer.
pub(crate) fn start(kernel: &Kernel) -> usize {
    let wanted = count().clamp(1, processor::MOST);
    for index in 1..wanted {
        areas::map_stacks(kernel, index).expect("frames for stacks");
        STARTING.store(index, Ordering::SeqCst);
        interrupt::reset(index);
        sleep(1);
        interrupt::start_at(index, boot::TRAMPOLINE);
        let end = processor::current().ticks() + PATIENCE;
        while processor::all().len() <= index {
            if processor::current().ticks() > end {
                return wanted - index;
            }
            hlt();
        }
    }
    0
}

/// A processor that has been started comes here, on the first stack and with the first tables.
///
/// # Safety
/// Nobody else uses the first stack.
pub(crate) unsafe fn enter() -> ! {
    let index = STARTING.load(Ordering::SeqCst);
    processor::identify(index);
    // SAFETY: the kernel's tables show the image where the first ones do, and stay for good.
    unsafe { mmu::load_root(kernel().space.root()) };
    // SAFETY: they are loaded.
    unsafe { processor::protect() };
    // SAFETY: the stack was mapped before the processor was started, and is nobody else's.
    unsafe { trap::switch_stack(stacks::top(index), run, index as u64) }
}

extern "sysv64" fn run(index: u64) -> ! {
    let index = size(index);
    // SAFETY: it is the only one that starts now; interrupts are off.
    unsafe { processor::start(index) };
    interrupt::start();
    processor::join(index);
    interrupts::enable();
    schedule::run_forever()
}
