//! The words of physical memory.
//!
//! Every byte is reached through an atomic word, so that accesses that race give a mixture of values and nothing
//! worse. A word that is aligned is never torn; bytes that span words may be. A frame that nobody has reached yet costs
//! the host nothing: a machine may be large.
//!
//! Under a checker of interleavings the words are still the processor's: half a million checked ones would drown it. In
//! their place an access touches one of a few checked words, chosen by its address ([`OrderPoints`]), before it acts.
//! That gives the checker the same choices of order (two accesses to one word always share their point, others do so at
//! times, which only adds orders), and no weaker order than a sequential one: what an ordering that is too relaxed
//! could do to a table entry is not explored.

use alloc::boxed::Box;
use core::array;

use super::POISON;
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::frame::FrameNumber;
use crate::sync::{Once, Ordering, PlainAtomicU64};

const WORD_BYTES: usize = 8;
/// Words of a frame.
const FRAME_WORDS: usize = 512;

type Words = [PlainAtomicU64; FRAME_WORDS];

pub(super) struct Ram {
    /// What has not been reached is poison.
    frames: Box<[Once<Box<Words>>]>,
    order: OrderPoints,
}

impl Ram {
    /// `frames` frames of poison.
    pub(super) fn new(frames: u64) -> Self {
        Self { frames: (0..frames).map(|_| Once::new()).collect(), order: OrderPoints::new() }
    }

    pub(super) const fn frames(&self) -> u64 {
        self.frames.len() as u64
    }

    #[track_caller]
    fn frame(&self, address: PhysAddr) -> &Once<Box<Words>> {
        let number = usize::try_from(FrameNumber::containing(address).get()).unwrap_or(usize::MAX);
        let frame = self.frames.get(number);
        frame.unwrap_or_else(|| panic!("{address:?} is outside of the {} frames of memory", self.frames()))
    }

    /// The words of the frame that `address` lies in.
    #[track_caller]
    fn words(&self, address: PhysAddr) -> &Words {
        self.frame(address).call_once(|| Box::new(array::from_fn(|_| PlainAtomicU64::new(repeated(POISON)))))
    }

    #[track_caller]
    fn word(&self, address: PhysAddr) -> &PlainAtomicU64 {
        assert!(address.as_u64().is_multiple_of(WORD_BYTES as u64), "{address:?} is inside a word");
        let index = index_in_frame(address);
        self.order.touch(index);
        &self.words(address)[index]
    }

    #[track_caller]
    pub(super) fn load(&self, address: PhysAddr) -> u64 {
        value(self.word(address))
    }

    #[track_caller]
    pub(super) fn store(&self, address: PhysAddr, word: u64) {
        set(self.word(address), word);
    }

    #[track_caller]
    pub(super) fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        exchange(self.word(address), current, new)
    }

    /// Copies bytes out; they lie inside one frame.
    #[track_caller]
    pub(super) fn read(&self, from: PhysAddr, to: &mut [u8]) {
        self.each_part(from, to.len(), |word, offset, done, len| {
            let bytes = value(word).to_le_bytes();
            to[done..done + len].copy_from_slice(&bytes[offset..offset + len]);
        });
    }

    /// Copies bytes in; they lie inside one frame. Bytes beside them are not written, not even with what they were.
    #[track_caller]
    pub(super) fn write(&self, to: PhysAddr, from: &[u8]) {
        self.each_part(to, from.len(), |word, offset, done, len| {
            let mut bytes = [0; WORD_BYTES];
            if len == WORD_BYTES {
                bytes.copy_from_slice(&from[done..done + len]);
                return set(word, u64::from_le_bytes(bytes));
            }
            let mut seen = value(word);
            loop {
                bytes = seen.to_le_bytes();
                bytes[offset..offset + len].copy_from_slice(&from[done..done + len]);
                match exchange(word, seen, u64::from_le_bytes(bytes)) {
                    Ok(()) => return,
                    Err(now) => seen = now,
                }
            }
        });
    }

    /// Hands over each word of a span: the word, where in it, how far into the span, how many bytes.
    #[track_caller]
    fn each_part(&self, start: PhysAddr, len: usize, mut each: impl FnMut(&PlainAtomicU64, usize, usize, usize)) {
        let within = start.as_u64() % PAGE_SIZE;
        assert!(within + len as u64 <= PAGE_SIZE, "{len} bytes at {start:?} leave their frame");
        if len == 0 {
            return;
        }
        let words = self.words(start);
        let mut index = index_in_frame(start);
        let mut offset = usize::try_from(within).unwrap_or(0) % WORD_BYTES;
        self.order.touch_span(index, (offset + len).div_ceil(WORD_BYTES));
        let mut done = 0;
        while done < len {
            let part = (WORD_BYTES - offset).min(len - done);
            each(&words[index], offset, done, part);
            (index, offset, done) = (index + 1, 0, done + part);
        }
    }

    /// Makes every byte of `frame` the byte `byte`.
    #[track_caller]
    pub(super) fn fill(&self, frame: FrameNumber, byte: u8) {
        let words = self.words(frame.start());
        self.order.touch_all();
        for word in words {
            set(word, repeated(byte));
        }
    }

    #[track_caller]
    pub(super) fn copy(&self, from: FrameNumber, to: FrameNumber) {
        let (from, to) = (self.words(from.start()), self.words(to.start()));
        self.order.touch_all();
        for (from, to) in from.iter().zip(to) {
            set(to, value(from));
        }
    }

    #[track_caller]
    pub(super) fn is_poisoned(&self, frame: FrameNumber) -> bool {
        self.order.touch_all();
        let words = self.frame(frame.start()).get();
        words.is_none_or(|words| words.iter().all(|word| value(word) == repeated(POISON)))
    }
}

/// Which word of its frame `address` lies in.
fn index_in_frame(address: PhysAddr) -> usize {
    usize::try_from(address.as_u64() % PAGE_SIZE).unwrap_or(0) / WORD_BYTES
}

const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD_BYTES])
}

fn value(word: &PlainAtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

fn set(word: &PlainAtomicU64, value: u64) {
    word.store(value, Ordering::Release);
}

fn exchange(word: &PlainAtomicU64, current: u64, new: u64) -> Result<(), u64> {
    word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
}

/// Nothing: no checker is at work.
#[cfg(not(any(loom, shuttle)))]
struct OrderPoints;

#[cfg(not(any(loom, shuttle)))]
#[expect(clippy::unused_self, reason = "under a checker there is something in it")]
impl OrderPoints {
    const fn new() -> Self {
        Self
    }

    const fn touch(&self, _index: usize) {}

    const fn touch_span(&self, _index: usize, _words: usize) {}

    const fn touch_all(&self) {}
}

/// Where the checker may switch threads, and by which it knows that two accesses depend on each other.
#[cfg(any(loom, shuttle))]
struct OrderPoints([crate::sync::AtomicU64; 4]);

#[cfg(any(loom, shuttle))]
impl OrderPoints {
    fn new() -> Self {
        Self(array::from_fn(|_| crate::sync::AtomicU64::new(0)))
    }

    /// The word at `index` is accessed next.
    fn touch(&self, index: usize) {
        self.0[index % self.0.len()].fetch_add(1, Ordering::AcqRel);
    }

    fn touch_span(&self, index: usize, words: usize) {
        for index in index..index + words.min(self.0.len()) {
            self.touch(index);
        }
    }

    fn touch_all(&self) {
        self.touch_span(0, self.0.len());
    }
}
