//! Memory that is mapped as a whole, as kernels do: an address is found by adding an offset.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewarden::frame::FrameNumber;
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::{PAGE_SIZE, PageRange, PhysAddr};

/// One allocation of whole frames, from frame 0 on. It is never given back. Flushes are counted.
pub struct DirectMap {
    base: NonNull<u8>,
    bytes: u64,
    flushes: AtomicU64,
}

// SAFETY: the memory is reached as atomic words, or in the ways that `PhysMem` leaves to whoever owns the frame, never
// through a reference that lives longer than one access.
unsafe impl Send for DirectMap {}
// SAFETY: as above.
unsafe impl Sync for DirectMap {}

/// Frames of a [`DirectMap`] that are one user's alone.
#[derive(Debug)]
pub struct Portion {
    first: u64,
    free: RefCell<Vec<u64>>,
}

impl Portion {
    /// `count` frames from `first` on, which nobody else has.
    pub fn new(first: u64, count: u64) -> Self {
        Self { first, free: RefCell::new((first..first + count).rev().collect()) }
    }

    /// The number of the lowest.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// How many are free.
    pub fn free_frames(&self) -> usize {
        self.free.borrow().len()
    }

    /// Takes one.
    #[inline]
    pub fn take(&self) -> Option<u64> {
        self.free.borrow_mut().pop()
    }

    /// Gives one back.
    #[inline]
    pub fn give(&self, frame: u64) {
        self.free.borrow_mut().push(frame);
    }
}

impl DirectMap {
    /// `frames` frames of zeros.
    ///
    /// # Panics
    /// If there are none, or too many.
    pub fn new(frames: u64) -> Arc<Self> {
        let bytes = frames.checked_mul(PAGE_SIZE).filter(|bytes| *bytes > 0).expect("some frames");
        let size = usize::try_from(bytes).expect("memory that can be addressed");
        let layout = Layout::from_size_align(size, 4096).expect("whole pages");
        // SAFETY: the layout is of at least one frame.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(start) else { handle_alloc_error(layout) };
        Arc::new(Self { base, bytes, flushes: AtomicU64::new(0) })
    }

    /// Where frame 0 is.
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// How many flushes there were.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    #[inline]
    fn at(&self, address: u64, bytes: u64) -> *mut u8 {
        assert!(address <= self.bytes - bytes, "outside of memory");
        let offset = usize::try_from(address).unwrap_or(usize::MAX);
        // SAFETY: `address` lies in the allocation, which is `self.bytes` long and has not been freed.
        unsafe { self.base.as_ptr().add(offset) }
    }

    #[inline]
    fn word(&self, address: PhysAddr) -> &AtomicU64 {
        let word = self.at(address.as_u64() & !7, 8).cast::<u64>();
        // SAFETY: it is a whole word inside of the allocation, at a multiple of 8 since the allocation is at one of 4096;
        // frames that are reached by pagewarden's tables are reached in no other way.
        unsafe { AtomicU64::from_ptr(word) }
    }
}

impl PhysMem for DirectMap {
    #[inline]
    fn load(&self, address: PhysAddr) -> u64 {
        self.word(address).load(Ordering::Acquire)
    }

    #[inline]
    fn load_line(&self, address: PhysAddr) -> [u64; 8] {
        let start = self.at(address.as_u64() & !63, 64).cast::<u64>();
        // SAFETY: as in `word`, for each of the eight words of a line; atomics are as large and aligned as words.
        let words = unsafe { &*start.cast::<[AtomicU64; 8]>() };
        words.each_ref().map(|word| word.load(Ordering::Acquire))
    }

    #[inline]
    fn store(&self, address: PhysAddr, word: u64) {
        self.word(address).store(word, Ordering::Release);
    }

    #[inline]
    fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        self.word(address).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn read(&self, from: PhysAddr, to: &mut [u8]) {
        let source = self.at(from.as_u64(), to.len() as u64);
        // SAFETY: `at` has checked the source; the target is borrowed by the caller and no part of the allocation, of
        // which there are no references.
        unsafe { source.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
    }

    fn write(&self, to: PhysAddr, from: &[u8]) {
        let target = self.at(to.as_u64(), from.len() as u64);
        // SAFETY: as in `read`.
        unsafe { target.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }

    #[inline]
    fn zero(&self, frame: FrameNumber) {
        let start = self.at(frame.start().as_u64(), PAGE_SIZE);
        // SAFETY: `at` has checked that the whole frame is there; the caller alone has it.
        unsafe { start.write_bytes(0, 4096) }
    }

    #[inline]
    fn copy(&self, from: FrameNumber, to: FrameNumber) {
        let source = self.at(from.start().as_u64(), PAGE_SIZE);
        let target = self.at(to.start().as_u64(), PAGE_SIZE);
        // SAFETY: `at` has checked both; the caller alone has the target.
        unsafe { source.copy_to(target, 4096) }
    }
}

impl Mmu for DirectMap {
    #[inline]
    fn flush(&self, _: FrameNumber, _: PageRange) {
        let flushes = self.flushes.load(Ordering::Relaxed);
        self.flushes.store(flushes + 1, Ordering::Relaxed);
    }

    #[inline]
    fn flush_all(&self, _: FrameNumber) {
        let flushes = self.flushes.load(Ordering::Relaxed);
        self.flushes.store(flushes + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_is_written() {
        let memory = DirectMap::new(3);
        let [one, two] = [1, 2].map(|number| FrameNumber::new(number).unwrap());
        memory.store(one.at(8), 5);
        assert_eq!(memory.compare_exchange(one.at(8), 4, 6), Err(5));
        assert_eq!(memory.compare_exchange(one.at(8), 5, 6), Ok(()));
        assert_eq!(memory.load_line(one.at(0)), [0, 6, 0, 0, 0, 0, 0, 0]);
        memory.write(one.at(16), &[1, 2]);
        memory.copy(one, two);
        memory.zero(one);
        let mut bytes = [9; 4];
        memory.read(two.at(15), &mut bytes);
        assert_eq!((memory.load(one.at(8)), memory.load(two.at(8)), bytes), (0, 6, [0, 1, 2, 0]));
    }

    #[test]
    #[should_panic(expected = "outside of memory")]
    fn memory_has_an_end() {
        DirectMap::new(1).load(PhysAddr::new(PAGE_SIZE).unwrap());
    }
}
