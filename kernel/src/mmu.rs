//! Translations: forgotten here, and on every other processor that may know them (TLB shoot-down).
//!
//! Whoever changes a table has stored the new entry before he asks. A processor that does not run with the table then
//! forgets what it knew when it next loads the root, but for global pages, which are the kernel's: these everybody is
//! asked to forget. One request is under way at a time. Interrupts are on in kernel code, so whoever waits here, or for a
//! lock that somebody who waits here has, answers the requests of others meanwhile.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pagewarden::frame::FrameNumber;
use pagewarden::mmu::Mmu;
use pagewarden::{PageRange, VirtAddr};
use spin::Mutex;
use x86_64::PhysAddr;
use x86_64::instructions::{interrupts, tlb};
use x86_64::registers::control::{Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::structures::paging::PhysFrame;

use crate::memory::Hardware;
use crate::{interrupt, processor};

/// From so many pages on everything is forgotten instead of each page.
const PAGES_ONE_BY_ONE: u64 = 64;
/// The kernel's half begins here.
const KERNEL_HALF: u64 = 1 << 63;

/// What is to be forgotten.
struct Request {
    first: AtomicU64,
    pages: AtomicU64,
    /// How many processors have still to do so.
    waiting: AtomicUsize,
}

static REQUEST: Request = Request { first: AtomicU64::new(0), pages: AtomicU64::new(0), waiting: AtomicUsize::new(0) };
/// Held by whoever's request it is.
static ASKING: Mutex<()> = Mutex::new(());
/// How many requests there were to other processors.
static SHOOT_DOWNS: AtomicU64 = AtomicU64::new(0);

/// Forgets pages on this processor.
fn forget(first: u64, pages: u64) {
    if pages > PAGES_ONE_BY_ONE {
        // Without global pages nothing is kept.
        let flags = Cr4::read();
        // SAFETY: to forget translations is always allowed.
        unsafe { Cr4::write(flags - Cr4Flags::PAGE_GLOBAL) };
        // SAFETY: as it was.
        unsafe { Cr4::write(flags) };
        return;
    }
    let pages = (0..pages).filter_map(|page| VirtAddr::from_page_number(first + page));
    for page in pages {
        tlb::flush(x86_64::VirtAddr::new_truncate(page.as_u64()));
    }
}

/// The interrupt of a processor that is asked to forget.
pub(crate) fn forget_as_asked() {
    forget(REQUEST.first.load(Ordering::Relaxed), REQUEST.pages.load(Ordering::Relaxed));
    interrupt::end();
    REQUEST.waiting.fetch_sub(1, Ordering::Release);
}

/// How often other processors were asked to forget something.
pub(crate) fn shoot_downs() -> u64 {
    SHOOT_DOWNS.load(Ordering::Relaxed)
}

fn forget_everywhere(root: FrameNumber, first: u64, pages: u64) {
    let is_kernel = first << 12 >= KERNEL_HALF;
    let knows = |processor: &processor::Processor| is_kernel || processor.runs_with(root);
    // The entry was stored before; whoever loads the root after this sees it.
    core::sync::atomic::fence(Ordering::SeqCst);
    let own = processor::index();
    if knows(&processor::all()[own]) {
        forget(first, pages);
    }
    let others = || processor::all().iter().enumerate().filter(|(index, _)| *index != own);
    if !others().any(|(_, processor)| knows(processor)) {
        return;
    }
    assert!(interrupts::are_enabled(), "whoever waits for others must answer them");
    let asking = ASKING.lock();
    REQUEST.first.store(first, Ordering::Relaxed);
    REQUEST.pages.store(pages, Ordering::Relaxed);
    REQUEST.waiting.store(others().count(), Ordering::Release);
    SHOOT_DOWNS.fetch_add(1, Ordering::Relaxed);
    interrupt::shoot_down_others();
    while REQUEST.waiting.load(Ordering::Acquire) > 0 {
        core::hint::spin_loop();
    }
    drop(asking);
}

impl Mmu for Hardware {
    fn flush(&self, root: FrameNumber, range: PageRange) {
        forget_everywhere(root, range.first_page(), range.pages().get());
    }

    fn flush_all(&self, root: FrameNumber) {
        forget_everywhere(root, 0, u64::MAX);
    }

    fn processor(&self) -> usize {
        processor::index()
    }
}

/// Has the processor that runs this run with `root`.
///
/// # Safety
/// The tables show the kernel as the present ones do, and stay until another root is loaded.
pub(crate) unsafe fn load_root(root: FrameNumber) {
    let frame = PhysFrame::containing_address(PhysAddr::new(root.start().as_u64()));
    // SAFETY: the caller's.
    processor::current().change_root(root, || unsafe { Cr3::write(frame, Cr3Flags::empty()) });
}
