//! Where things are, and physical memory as the core sees it.
//!
//! Owned here: the direct map, by which all of memory that is to be given out is reached, and the heap. Nothing in the
//! direct map is ever reached by a reference, but for the heap, which is carved out before frames are given out.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use linked_list_allocator::Heap;
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::mmu::PhysMem;
use pagewarden::{Errno, PAGE_SIZE, PageCount, PhysAddr};
use spin::Mutex;

/// Physical memory, as much of it as is usable.
pub(crate) const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Windows on memory of others.
pub(crate) const WINDOWS: u64 = 0xffff_c000_0000_0000;
/// Stacks, with a page below each that is not there.
pub(crate) const STACKS: u64 = 0xffff_d000_0000_0000;
/// Registers of devices.
pub(crate) const DEVICES: u64 = 0xffff_e000_0000_0000;
/// The image.
pub(crate) const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// Memory above is not used: the tables that the kernel starts with show no more.
pub(crate) const MEMORY_END: u64 = 1 << 30;

/// A number of bytes, or an address, as the compiler has them.
#[expect(clippy::cast_possible_truncation, reason = "the processor has 64 bits")]
pub(crate) const fn size(bytes: u64) -> usize {
    bytes as usize
}

/// What is at an address.
pub(crate) fn at<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(size(address))
}

/// The frames that lie between two physical addresses, if there are any; both are cut down to pages.
pub(crate) fn frames(start: u64, end: u64) -> Option<FrameRange> {
    let first = FrameNumber::new(start / PAGE_SIZE)?;
    FrameRange::new(first, PageCount::new((end / PAGE_SIZE).checked_sub(first.get())?))
}

const PAGE: usize = size(PAGE_SIZE);

/// The processors and the memory of this machine.
#[derive(Debug)]
pub(crate) struct Hardware;

fn place(address: PhysAddr, bytes: usize) -> *mut u8 {
    let end = address.as_u64().saturating_add(bytes as u64);
    assert!(end <= MEMORY_END, "{bytes} bytes at {address} are out of reach");
    at(DIRECT_MAP + address.as_u64())
}

fn word(address: PhysAddr) -> &'static AtomicU64 {
    let place = place(address, size_of::<u64>()).cast::<u64>();
    assert!(place.is_aligned(), "{address} is inside a word");
    // SAFETY: the core asks for words of frames that it has, in memory that the direct map shows for good; nobody has a
    // reference there that is not to an atomic.
    unsafe { AtomicU64::from_ptr(place) }
}

/// # Safety
/// One of the two is memory that the caller has, the other is in the direct map, and in no frame that holds Rust's objects.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: as the caller says; both are mapped, so no fault has to land.
    let copied = unsafe { pagewarden_copy::copy(to, from, len) };
    assert!(copied.is_ok(), "the direct map has a hole");
}

impl PhysMem for Hardware {
    fn load(&self, address: PhysAddr) -> u64 {
        word(address).load(Ordering::Acquire)
    }

    fn store(&self, address: PhysAddr, value: u64) {
        word(address).store(value, Ordering::Release);
    }

    fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        word(address).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn read(&self, from: PhysAddr, to: &mut [u8]) {
        // SAFETY: the frame is one of the core's, in which there are no objects of Rust.
        unsafe { copy(to.as_mut_ptr(), place(from, to.len()), to.len()) }
    }

    fn write(&self, to: PhysAddr, from: &[u8]) {
        // SAFETY: as in `read`.
        unsafe { copy(place(to, from.len()), from.as_ptr(), from.len()) }
    }

    fn zero(&self, frame: FrameNumber) {
        let place = place(frame.start(), PAGE);
        // SAFETY: the frame is one that the core has just taken: nobody else reaches it.
        unsafe { ptr::write_bytes(place, 0, PAGE) }
    }

    fn copy(&self, from: FrameNumber, to: FrameNumber) {
        let (from, to) = (place(from.start(), PAGE), place(to.start(), PAGE));
        // SAFETY: both are frames of the core, in which there are no objects of Rust; users may store to the first.
        unsafe { copy(to, from, PAGE) }
    }
}

/// The kernel's heap: a run of frames that are nobody else's.
struct KernelHeap(Mutex<Heap>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Mutex::new(Heap::empty()));

/// Gives the heap its memory.
///
/// # Safety
/// The frames are in the direct map, and nobody else's for good. It is done once.
pub(crate) unsafe fn start_heap(frames: FrameRange) {
    let bytes = size(frames.frames().bytes());
    let start = place(frames.first().start(), bytes);
    // SAFETY: the caller's.
    unsafe { HEAP.0.lock().init(start, bytes) }
}

/// Bytes of the heap that calls of programs leave alone.
const RESERVE: usize = 2 << 20;

/// Whether there is enough of the heap for a call that makes something new. What is made here and cannot fail is small;
/// the core says by itself when it gets no memory.
///
/// # Errors
/// `ENOMEM`.
pub(crate) fn check_heap() -> Result<(), Errno> {
    if HEAP.0.lock().free() > RESERVE { Ok(()) } else { Err(Errno::NoMem) }
}

// SAFETY: what is given out comes from an allocator that keeps to the rules, one call at a time.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Some(at) = NonNull::new(at) {
            // SAFETY: the caller's: it was allocated here, with this layout.
            unsafe { self.0.lock().deallocate(at, layout) }
        }
    }
}
