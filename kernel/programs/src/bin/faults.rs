//! Children that each do one bad thing and are killed for it, and pages that come when they are touched.
#![no_std]
#![no_main]

use core::arch::asm;
use core::hint::black_box;

use runtime::linux::{self, ARITHMETIC, DONT_NEED, Ended, ILLEGAL, SEGMENT, TRAP, end_of, prot};
use runtime::{PAGE, Pages, Start, check, equal, kernel};

runtime::program!(main);

fn main(_start: &Start) {
    let kept = PagesKept::new();
    addresses();
    rights();
    instructions();
    stack();
    demand();
    check("the parent has survived its children", kept.is_as_it_was());
}

/// What the parent has while its children are killed.
struct PagesKept {
    pages: Option<Pages>,
    id: u64,
}

impl PagesKept {
    fn new() -> Self {
        let pages = Pages::map(4, prot::READ_WRITE).ok();
        if let Some(pages) = pages {
            pages.fill(1);
        }
        Self { pages, id: linux::process_id() }
    }

    fn is_as_it_was(&self) -> bool {
        self.id == linux::process_id() && self.pages.is_some_and(|pages| pages.holds(1))
    }
}

/// Checks that a child ends like this which runs `body`.
fn ends(text: &str, wanted: Ended, body: impl FnOnce()) {
    let ended = end_of(|| {
        body();
        0
    });
    equal(text, ended, Ok(wanted));
}

/// Loads the byte at `address`.
fn load(address: u64) {
    // SAFETY: a load changes nothing, and one that is not allowed ends the process.
    unsafe { asm!("mov {byte}, [{address}]", byte = out(reg_byte) _, address = in(reg) address, options(nostack)) };
}

/// Calls what is at `address`, which returns if it can be run.
///
/// # Safety
/// There is a `ret`, or nothing that can be run.
unsafe fn run(address: u64) {
    // SAFETY: the caller answers for what is run; a call that is not allowed ends the process.
    unsafe { asm!("call {address}", address = in(reg) address, clobber_abi("C")) };
}

fn addresses() {
    ends("a load from null is SIGSEGV", SEGMENT, || load(0));
    ends("a load from the kernel's text is SIGSEGV", SEGMENT, || load(kernel::CODE));
    ends("a load from the kernel's map of all memory is SIGSEGV", SEGMENT, || load(kernel::MEMORY));
    ends("a load from an address that cannot be is SIGSEGV", SEGMENT, || load(0x8000_0000_0000));
    ends("a load from the last byte of all is SIGSEGV", SEGMENT, || load(u64::MAX));
    ends("a jump into the kernel is SIGSEGV", SEGMENT, || {
        // SAFETY: it cannot be run.
        unsafe { run(kernel::CODE) };
    });
}

fn rights() {
    ends("a store to the program's own text is SIGSEGV", SEGMENT, || {
        let address = Start::entry();
        // SAFETY: the first instruction has been run; and the child, whose memory it is, ends.
        unsafe { asm!("mov byte ptr [{address}], 0", address = in(reg) address, options(nostack)) };
    });
    let (Ok(read), Ok(none), Ok(data)) =
        (Pages::map(1, prot::READ), Pages::map(1, prot::NONE), Pages::map(1, prot::READ_WRITE))
    else {
        return check("there are pages to be protected", false);
    };
    ends("a store to a page that can only be read is SIGSEGV", SEGMENT, || read.store(0, 1));
    ends("a load from a page without rights is SIGSEGV", SEGMENT, || _ = none.load(0));
    const RETURN: u64 = 0xc3;
    data.store(0, RETURN);
    ends("a jump to data is SIGSEGV", SEGMENT, || {
        // SAFETY: there is a `ret`.
        unsafe { run(data.start()) };
    });
    ends("a jump there returns once it may be run", Ended::Exited(0), || {
        assert!(data.protect(prot::READ | prot::EXEC).is_ok(), "the right is refused");
        // SAFETY: there is a `ret`.
        unsafe { run(data.start()) };
    });
}

fn instructions() {
    ends("ud2 is SIGILL", ILLEGAL, || {
        // SAFETY: it ends the process.
        unsafe { asm!("ud2", options(nostack)) };
    });
    ends("a division by zero is SIGFPE", ARITHMETIC, || {
        // SAFETY: it ends the process.
        unsafe { asm!("div {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nostack)) };
    });
    ends("int3 is SIGTRAP", TRAP, || {
        // SAFETY: it ends the process.
        unsafe { asm!("int3", options(nostack)) };
    });
    ends("hlt is SIGSEGV", SEGMENT, || {
        // SAFETY: it is the kernel's alone, so that it ends the process.
        unsafe { asm!("hlt", options(nostack)) };
    });
    ends("cli is SIGSEGV", SEGMENT, || {
        // SAFETY: it is the kernel's alone, so that it ends the process.
        unsafe { asm!("cli", options(nostack)) };
    });
    ends("a store to a control register is SIGSEGV", SEGMENT, || {
        // SAFETY: it is the kernel's alone, so that it ends the process.
        unsafe { asm!("mov cr3, {zero}", zero = in(reg) 0_u64, options(nostack)) };
    });
    ends("a store to a port is SIGSEGV", SEGMENT, || {
        // SAFETY: it is the kernel's alone, so that it ends the process.
        unsafe { asm!("out dx, al", in("dx") 0xf4_u16, in("al") 0_u8, options(nostack)) };
    });
}

/// Takes a page of stack for each level; how many there were.
#[inline(never)]
fn descend(levels: u64) -> u64 {
    let mut room = [0_u8; 4096];
    black_box(&mut room);
    let deeper = if levels == 0 { 0 } else { 1 + descend(levels - 1) };
    // The room is needed until here, so that no level takes the place of the one before.
    black_box(&mut room);
    deeper
}

fn stack() {
    ends("a stack grows to a megabyte", Ended::Exited(0), || assert!(descend(256) == 256, "levels are missing"));
    ends("a stack that grows beyond its limit is SIGSEGV", SEGMENT, || {
        black_box(descend(u64::MAX));
    });
}

fn demand() {
    const PAGES: u64 = 64;
    let Ok(pages) = Pages::map(PAGES, prot::READ_WRITE) else {
        return check("there are pages to be touched", false);
    };
    check("pages that were never stored to are zeros", pages.is_zero());
    pages.fill(2);
    check("touched pages hold what is stored", pages.holds(2));
    equal("MADV_DONTNEED takes half of them", pages.part(0, PAGES / 2).advise(DONT_NEED), Ok(0));
    check("pages that MADV_DONTNEED took are zeros again", pages.part(0, PAGES / 2).is_zero());
    check("pages that it did not take are as they were", (PAGES / 2..PAGES).all(|page| pages.load(page * PAGE) != 0));
    equal("touched pages are unmapped", pages.unmap(), Ok(0));
    ends("a load from a page that was unmapped is SIGSEGV", SEGMENT, || _ = pages.load(0));
}
