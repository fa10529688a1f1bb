//! An allocator that runs out when it is told to, for the thread that tells it.
//!
//! What is limited is how many allocations are alive at a time, not how many are made: whoever asks whether there is
//! memory for a node, gives it back and takes it again must be granted both.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// The system's allocator with a count of what each thread has.
pub(crate) struct Rationed;

#[global_allocator]
static ALLOCATOR: Rationed = Rationed;

/// What counts, and how much of it there may be.
#[derive(Clone, Copy)]
pub(crate) struct Ration {
    /// How many more allocations may be alive at a time than there are now.
    pub(crate) allocations: usize,
    /// Lesser ones are always granted.
    pub(crate) least_bytes: usize,
}

#[derive(Clone, Copy)]
struct Limit {
    left: usize,
    least_bytes: usize,
}

// All of these are plain cells without a destructor: an allocator must not allocate, at the end of a thread neither.
thread_local! {
    static LIMIT: Cell<Option<Limit>> = const { Cell::new(None) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static REFUSED: Cell<usize> = const { Cell::new(0) };
}

/// Runs `action`, which has `ration` to live on. Gives its result and how often it was refused memory.
pub(crate) fn on_ration<T>(ration: Ration, action: impl FnOnce() -> T) -> (T, usize) {
    REFUSED.set(0);
    LIMIT.set(Some(Limit { left: ration.allocations, least_bytes: ration.least_bytes }));
    let result = action();
    LIMIT.set(None);
    (result, REFUSED.get())
}

/// The bytes that this thread has allocated and not freed. What another thread frees stays counted.
pub(crate) fn live_bytes() -> usize {
    BYTES.get()
}

/// Whether the allocation is granted; it is then counted.
fn take(bytes: usize) -> bool {
    if let Some(limit) = LIMIT.get()
        && bytes >= limit.least_bytes
    {
        let Some(left) = limit.left.checked_sub(1) else {
            REFUSED.set(REFUSED.get() + 1);
            return false;
        };
        LIMIT.set(Some(Limit { left, ..limit }));
    }
    BYTES.set(BYTES.get().wrapping_add(bytes));
    true
}

/// Memory that was there before the ration began counts when it is freed: there is more than before then.
fn give_back(bytes: usize) {
    if let Some(limit) = LIMIT.get()
        && bytes >= limit.least_bytes
    {
        LIMIT.set(Some(Limit { left: limit.left + 1, ..limit }));
    }
    BYTES.set(BYTES.get().wrapping_sub(bytes));
}

// SAFETY: every call goes to the system's allocator with what it was given, or gives null, as it may; what stands
// around these calls neither allocates nor unwinds.
unsafe impl GlobalAlloc for Rationed {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: the caller promises what the system's allocator asks for: a layout that is not empty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the caller promises that `alloc` or `realloc` of this allocator gave `memory` for this layout, and
        // both had it from the system's.
        unsafe { System.dealloc(memory, layout) }
    }

    /// An allocation that grows is still one, but there has to be memory for it.
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        give_back(layout.size());
        if !take(bytes) {
            // What there is stays; that it is granted again is certain.
            take(layout.size());
            return ptr::null_mut();
        }
        // SAFETY: the caller promises what the system's allocator asks for: `memory` is of this layout, by `alloc` or
        // `realloc` of this allocator and so by the system's, and `bytes` is a size that fits and is not 0.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}
