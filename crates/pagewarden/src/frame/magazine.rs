//! Magazines: a stack of free frames a processor, between the users of frames and the allocator.

use alloc::vec::Vec;

use super::{FrameAllocator, FrameError, FrameNumber};
use crate::addr::PhysAddr;
use crate::sync::{AtomicU32, Mutex, Ordering};

/// A stack of free frames of fixed size.
#[derive(Default, Debug)]
pub(super) struct Magazine {
    /// What is in stock; its capacity is what it may hold.
    stock: Vec<FrameNumber>,
}

impl Magazine {
    /// An empty one for `most` frames.
    pub(super) fn new(most: usize) -> Result<Self, FrameError> {
        let mut stock = Vec::new();
        stock.try_reserve_exact(most).map_err(|_| FrameError::Exhausted)?;
        Ok(Self { stock })
    }

    pub(super) fn frames(&self) -> &[FrameNumber] {
        &self.stock
    }

    /// A frame, after a visit to the allocator for half a magazine if it is empty.
    #[inline]
    pub(super) fn pop(&mut self, allocator: &dyn FrameAllocator) -> Option<FrameNumber> {
        if let Some(frame) = self.stock.pop() {
            return Some(frame);
        }
        self.refill(allocator);
        self.stock.pop()
    }

    /// A frame, if one is in stock.
    #[inline]
    pub(super) fn pop_stocked(&mut self) -> Option<FrameNumber> {
        self.stock.pop()
    }

    /// Whether a frame can be put in stock at once.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.stock.len() < self.stock.capacity()
    }

    /// Puts a frame in stock, for which there is room.
    #[inline]
    pub(super) fn put(&mut self, frame: FrameNumber) {
        self.stock.push(frame);
    }

    /// Puts a frame in stock, after half a magazine has gone to the allocator if it is full; whether it has room at all.
    #[inline]
    pub(super) fn push(&mut self, allocator: &dyn FrameAllocator, frame: FrameNumber) -> bool {
        if !self.has_room() {
            let most = self.stock.capacity();
            if most == 0 {
                return false;
            }
            self.spill(allocator, most / 2);
        }
        self.stock.push(frame);
        true
    }

    #[cold]
    fn refill(&mut self, allocator: &dyn FrameAllocator) {
        let batch = self.stock.capacity().div_ceil(2);
        self.stock.resize(batch, FrameNumber::containing(PhysAddr::default()));
        let taken = allocator.allocate(&mut self.stock);
        self.stock.truncate(taken);
        // The lowest is on top, so that frames that follow each other are given out as they lie in memory.
        self.stock.reverse();
    }

    /// Gives all but the last `keep` frames, those used most recently, back to the allocator.
    #[cold]
    pub(super) fn spill(&mut self, allocator: &dyn FrameAllocator, keep: usize) {
        let spilled = self.stock.len().saturating_sub(keep);
        let freed = allocator.free(&self.stock[..spilled]);
        debug_assert!(freed.is_ok(), "a magazine holds frames that the allocator gave");
        self.stock.drain(..spilled);
    }
}

/// The place of a magazine. Its lock is never held for long: whoever wants the magazine for longer takes it out.
#[derive(Debug)]
pub(super) struct Slot {
    magazine: Mutex<Option<Magazine>>,
    /// Frames in the magazine while it is out, as of its last visit to the allocator.
    out: AtomicU32,
}

impl Slot {
    pub(super) fn new(magazine: Magazine) -> Self {
        Self { magazine: Mutex::new(Some(magazine)), out: AtomicU32::new(0) }
    }

    /// Does something with the magazine; `None` if it is out.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Magazine) -> T) -> Option<T> {
        self.magazine.lock().as_mut().map(work)
    }

    /// The same; `None` if somebody else has it just now, too.
    #[inline]
    pub(super) fn try_with<T>(&self, work: impl FnOnce(&mut Magazine) -> T) -> Option<T> {
        self.magazine.try_lock()?.as_mut().map(work)
    }

    /// Takes the magazine out.
    pub(super) fn take(&self) -> Option<Magazine> {
        let mut place = self.magazine.lock();
        let magazine = place.take()?;
        self.tell(&magazine);
        Some(magazine)
    }

    /// Puts it back.
    pub(super) fn put(&self, magazine: Magazine) {
        *self.magazine.lock() = Some(magazine);
    }

    /// Says how many frames are in the magazine that is out.
    pub(super) fn tell(&self, magazine: &Magazine) {
        self.out.store(u32::try_from(magazine.stock.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// How many frames are in it.
    pub(super) fn frames(&self) -> usize {
        let inside = self.with(|magazine| magazine.stock.len());
        inside.unwrap_or_else(|| self.out.load(Ordering::Relaxed) as usize)
    }
}
