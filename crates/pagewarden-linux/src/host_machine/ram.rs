//! Physical memory: a memfd, and the direct map that all of it is seen in.
//!
//! Owns the file and the map, from the first host call to the last. Frames are its pages, frame 0 among them, which
//! nobody is ever given. The file is sparse: a frame that nobody has stored to since it was last given back is a hole, which
//! reads as zeros and costs the host nothing.
//!
//! No reference to this memory is ever made but to single words, which are atomics; bytes go in and out by
//! [`pagewarden_copy`], of which the compiler knows nothing. Guests store to frames at the same time, through their views.
//!
//! Invariant: a frame whose bit in `used` is 0 is a hole, or holds zeros. Whatever may store to a frame sets the bit
//! before it does: each method here that stores, and whoever lets a view show the frame ([`Ram::mark_used`]).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::{Errno, PAGE_SIZE, PhysAddr};

use super::host;
use crate::faults::errno_of;

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE);
const WORD_BITS: u64 = 64;

#[derive(Debug)]
pub(super) struct Ram {
    file: OwnedFd,
    /// Where frame 0 is in the direct map.
    base: usize,
    frames: u64,
    /// A bit a frame: it may hold something else than zeros.
    used: Box<[AtomicU64]>,
}

impl Ram {
    /// `frames` frames of zeros.
    pub(super) fn new(frames: u64) -> Result<Self, Errno> {
        let bytes = frames.checked_mul(PAGE_SIZE).and_then(|bytes| i64::try_from(bytes).ok()).ok_or(Errno::NoMem)?;
        let file =
            memfd_create(c"pagewarden", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).map_err(errno_of)?;
        ftruncate(&file, bytes).map_err(errno_of)?;
        // A file that became shorter would take frames away from under the direct map.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(errno_of)?;
        let len = usize::try_from(bytes).map_err(|_| Errno::NoMem)?;
        let words = usize::try_from(frames.div_ceil(WORD_BITS)).map_err(|_| Errno::NoMem)?;
        let mut used = Vec::new();
        used.try_reserve_exact(words).map_err(|_| Errno::NoMem)?;
        used.extend((0..words).map(|_| AtomicU64::new(0)));
        let base = host::map_file(len, file.as_fd())?;
        Ok(Self { file, base, frames, used: used.into_boxed_slice() })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    pub(super) const fn has(&self, frame: FrameNumber) -> bool {
        frame.get() < self.frames
    }

    /// Where the `len` bytes from `address` on are, which lie in one frame.
    #[inline]
    #[track_caller]
    fn place(&self, address: PhysAddr, len: usize) -> *mut u8 {
        let within = address.as_u64() % PAGE_SIZE;
        let is_inside = self.has(FrameNumber::containing(address)) && len as u64 <= PAGE_SIZE - within;
        assert!(is_inside, "{len} bytes at {address:?} are not in one of the {} frames of memory", self.frames);
        // Smaller than the bytes of the direct map, which are a usize.
        let offset = usize::try_from(address.as_u64()).unwrap_or_default();
        std::ptr::with_exposed_provenance_mut(self.base + offset)
    }

    #[inline]
    #[track_caller]
    fn word(&self, address: PhysAddr) -> &AtomicU64 {
        assert!(address.as_u64().is_multiple_of(8), "{address:?} is inside a word");
        let place = self.place(address, 8).cast::<u64>();
        // SAFETY: aligned, in the direct map, which stays mapped for as long as this lives, and only accessed by atomics
        // and by code of which the compiler knows nothing.
        unsafe { AtomicU64::from_ptr(place) }
    }

    #[inline]
    pub(super) fn load(&self, address: PhysAddr) -> u64 {
        self.word(address).load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn store(&self, address: PhysAddr, word: u64) {
        self.mark_used(FrameNumber::containing(address));
        self.word(address).store(word, Ordering::Release);
    }

    #[inline]
    pub(super) fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        self.mark_used(FrameNumber::containing(address));
        let exchanged = self.word(address).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        exchanged.map(drop)
    }

    /// Copies bytes out of one frame.
    pub(super) fn read(&self, from: PhysAddr, to: &mut [u8]) {
        let from = self.place(from, to.len());
        // SAFETY: `to` is ours; `from` lies in the direct map, which no reference to bytes speaks of.
        let copied = unsafe { pagewarden_copy::copy(to.as_mut_ptr(), from, to.len()) };
        assert!(copied.is_ok(), "{NO_MEMORY}");
    }

    /// Copies bytes into one frame.
    pub(super) fn write(&self, to: PhysAddr, from: &[u8]) {
        self.mark_used(FrameNumber::containing(to));
        let to = self.place(to, from.len());
        // SAFETY: as for reading, the other way round.
        let copied = unsafe { pagewarden_copy::copy(to, from.as_ptr(), from.len()) };
        assert!(copied.is_ok(), "{NO_MEMORY}");
    }

    /// Makes every byte of the frame 0, which nobody else stores to meanwhile.
    pub(super) fn zero(&self, frame: FrameNumber) {
        // What is a hole costs nothing until somebody stores to it.
        if self.mark_used(frame) {
            self.write(frame.start(), &[0; PAGE_BYTES]);
        }
    }

    /// Copies a whole frame.
    pub(super) fn copy(&self, from: FrameNumber, to: FrameNumber) {
        let was_used = self.mark_used(to);
        let offset = i64::try_from(to.start().as_u64()).unwrap_or(i64::MAX);
        let (from, to) = (self.place(from.start(), PAGE_BYTES), self.place(to.start(), PAGE_BYTES));
        // A hole that is written through the file is never zeroed, nor seen in the direct map.
        if !was_used && self.write_file(offset, from) {
            return;
        }
        // SAFETY: both lie in the direct map, in different frames.
        let copied = unsafe { pagewarden_copy::copy(to, from, PAGE_BYTES) };
        assert!(copied.is_ok(), "{NO_MEMORY}");
    }

    /// Writes a page to the file, whether the host does or not.
    fn write_file(&self, offset: i64, from: *const u8) -> bool {
        // SAFETY: `from` is a page in the direct map, which stays mapped.
        let written = unsafe { libc::pwrite(self.file.as_raw_fd(), from.cast(), PAGE_BYTES, offset) };
        usize::try_from(written) == Ok(PAGE_BYTES)
    }

    /// Notes that the frame may hold something from now on. Whether that was noted before.
    #[inline]
    #[track_caller]
    pub(super) fn mark_used(&self, frame: FrameNumber) -> bool {
        let (word, bit) = self.used_bit(frame);
        // Nearly always it is set, and then the word need not be this processor's alone.
        word.load(Ordering::Relaxed) & bit != 0 || word.fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    #[inline]
    #[track_caller]
    fn used_bit(&self, frame: FrameNumber) -> (&AtomicU64, u64) {
        let index = usize::try_from(frame.get() / WORD_BITS).unwrap_or(usize::MAX);
        (&self.used[index], 1 << (frame.get() % WORD_BITS))
    }

    /// Gives the memory of frames that nobody uses back to the host: they are zeros afterwards. Where the host refuses, they
    /// stay what they are.
    pub(super) fn give_back(&self, frames: FrameRange) {
        let bytes = |frames: u64| i64::try_from(frames * PAGE_SIZE).unwrap_or(i64::MAX);
        let (offset, len) = (bytes(frames.first().get()), bytes(frames.frames().get()));
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if fallocate(&self.file, flags, offset, len).is_ok() {
            for frame in frames.iter() {
                let (word, bit) = self.used_bit(frame);
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// The bytes that the host has given the file.
    pub(super) fn host_bytes(&self) -> u64 {
        nix::sys::stat::fstat(&self.file).map_or(0, |status| u64::try_from(status.st_blocks).unwrap_or(0) * 512)
    }
}

/// What a machine whose RAM the host cannot provide ends with.
const NO_MEMORY: &str = "the host has no memory left for the machine";

impl Drop for Ram {
    fn drop(&mut self) {
        let len = usize::try_from(self.frames * PAGE_SIZE).unwrap_or_default();
        // SAFETY: the direct map is ours, and nobody has a reference into it.
        unsafe { host::unmap(self.base, len) };
    }
}

#[cfg(test)]
mod tests {
    use pagewarden::PageCount;

    use super::*;

    fn frame(number: u64) -> FrameNumber {
        FrameNumber::new(number).unwrap()
    }

    fn bytes(ram: &Ram, number: u64) -> Vec<u8> {
        let mut bytes = vec![1; PAGE_BYTES];
        ram.read(frame(number).start(), &mut bytes);
        bytes
    }

    #[test]
    fn words_bytes_and_copies_are_the_same_memory() {
        let ram = Ram::new(16).unwrap();
        ram.store(frame(3).at(8), 0x0102_0304);
        assert_eq!(ram.compare_exchange(frame(3).at(8), 5, 6), Err(0x0102_0304));
        assert_eq!(ram.compare_exchange(frame(3).at(8), 0x0102_0304, 0x0807), Ok(()));
        ram.write(frame(3).at(4094), &[1, 2]);
        // To a hole, and to what was one.
        ram.copy(frame(3), frame(4));
        ram.copy(frame(4), frame(4 + 1));
        ram.copy(frame(2), frame(4));
        assert_eq!((ram.load(frame(5).at(8)), &bytes(&ram, 5)[4094..]), (0x0807, &[1, 2][..]));
        assert_eq!(bytes(&ram, 4), [0; PAGE_BYTES]);
    }

    #[test]
    fn frames_that_were_given_back_are_zeros_and_cost_nothing() {
        let ram = Ram::new(256).unwrap();
        for number in 1..256 {
            ram.write(frame(number).start(), &[7; PAGE_BYTES]);
        }
        assert!(ram.host_bytes() >= 255 * PAGE_SIZE);
        ram.give_back(FrameRange::new(frame(1), PageCount::new(200)).unwrap());
        assert!(ram.host_bytes() <= 64 * PAGE_SIZE, "{}", ram.host_bytes());
        assert!((1..256).all(|number| bytes(&ram, number) == [if number < 201 { 0 } else { 7 }; PAGE_BYTES]));
        // Nobody has stored to the first; the others are cleared.
        for number in 200..256 {
            ram.zero(frame(number));
            assert_eq!(bytes(&ram, number), [0; PAGE_BYTES]);
        }
    }

    #[test]
    fn whatever_was_stored_is_cleared() {
        let ram = Ram::new(16).unwrap();
        ram.write(frame(1).at(5), &[1]);
        ram.store(frame(2).start(), 2);
        assert_eq!(ram.compare_exchange(frame(3).start(), 0, 3), Ok(()));
        ram.copy(frame(1), frame(4));
        for number in 1..=4 {
            assert_ne!(bytes(&ram, number), [0; PAGE_BYTES]);
            ram.zero(frame(number));
            assert_eq!(bytes(&ram, number), [0; PAGE_BYTES], "frame {number}");
        }
    }

    #[test]
    #[should_panic(expected = "are not in one of the 16 frames")]
    fn what_leaves_a_frame_is_refused() {
        Ram::new(16).unwrap().read(frame(15).at(4090), &mut [0; 8]);
    }

    #[test]
    #[should_panic(expected = "are not in one of the 16 frames")]
    fn what_lies_beyond_the_memory_is_refused() {
        Ram::new(16).unwrap().load(frame(16).start());
    }
}
