//! Memory that costs nothing where nobody stores: gigabytes of zeros for forks.
//!
//! Tables are real, data is not: a frame that is made zero, or becomes a copy of one that is, needs no memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewarden::frame::FrameNumber;
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::{PAGE_SIZE, PageRange, PhysAddr};

/// Words of a frame.
const WORDS: usize = 512;

type Frame = Box<[AtomicU64; WORDS]>;

/// Frames, of which those that nothing but 0 was ever stored to are not there.
pub struct SparseMemory {
    frames: Vec<OnceLock<Frame>>,
}

impl SparseMemory {
    /// `frames` frames of zeros.
    pub fn new(frames: usize) -> Self {
        Self { frames: (0..frames).map(|_| OnceLock::new()).collect() }
    }

    /// How many are there.
    pub fn frames_stored(&self) -> usize {
        self.frames.iter().filter(|frame| frame.get().is_some()).count()
    }

    fn slot(&self, frame: FrameNumber) -> &OnceLock<Frame> {
        &self.frames[usize::try_from(frame.get()).unwrap_or(usize::MAX)]
    }

    fn words(&self, frame: FrameNumber) -> &Frame {
        self.slot(frame).get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]))
    }

    fn word(&self, address: PhysAddr) -> &AtomicU64 {
        &self.words(FrameNumber::containing(address))[index(address)]
    }
}

/// Which word of its frame `address` lies in.
fn index(address: PhysAddr) -> usize {
    usize::try_from(address.as_u64() % PAGE_SIZE / 8).unwrap_or(0)
}

impl PhysMem for SparseMemory {
    fn load(&self, address: PhysAddr) -> u64 {
        let frame = self.slot(FrameNumber::containing(address)).get();
        frame.map_or(0, |words| words[index(address)].load(Ordering::Acquire))
    }

    fn store(&self, address: PhysAddr, word: u64) {
        self.word(address).store(word, Ordering::Release);
    }

    fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        self.word(address).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn read(&self, from: PhysAddr, to: &mut [u8]) {
        for (address, byte) in (from.as_u64()..).zip(to) {
            let word = PhysAddr::new(address & !7).map_or(0, |address| self.load(address));
            *byte = word.to_le_bytes()[usize::try_from(address % 8).unwrap_or(0)];
        }
    }

    fn write(&self, to: PhysAddr, from: &[u8]) {
        for (address, byte) in (to.as_u64()..).zip(from) {
            let Some(at) = PhysAddr::new(address & !7) else { return };
            let mut bytes = self.load(at).to_le_bytes();
            bytes[usize::try_from(address % 8).unwrap_or(0)] = *byte;
            self.store(at, u64::from_le_bytes(bytes));
        }
    }

    fn zero(&self, frame: FrameNumber) {
        if let Some(words) = self.slot(frame).get() {
            words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    fn copy(&self, from: FrameNumber, to: FrameNumber) {
        let Some(source) = self.slot(from).get() else { return self.zero(to) };
        let target = self.words(to);
        source
            .iter()
            .zip(target.iter())
            .for_each(|(from, to)| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed));
    }
}

impl Mmu for SparseMemory {
    fn flush(&self, _: FrameNumber, _: PageRange) {}

    fn flush_all(&self, _: FrameNumber) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_cost_nothing_and_the_rest_is_memory() {
        let memory = SparseMemory::new(4);
        let [a, b, c] = [1, 2, 3].map(|number| FrameNumber::new(number).unwrap());
        memory.zero(a);
        memory.copy(a, b);
        assert_eq!((memory.load(b.at(8)), memory.frames_stored()), (0, 0));
        memory.write(a.at(6), &[1, 2, 3, 4]);
        memory.copy(a, b);
        let mut bytes = [9; 6];
        memory.read(b.at(5), &mut bytes);
        assert_eq!((bytes, memory.frames_stored()), ([0, 1, 2, 3, 4, 0], 2));
        assert_eq!(memory.compare_exchange(b.at(8), 0x0403, 7), Ok(()));
        memory.copy(c, a);
        assert_eq!((memory.load(a.at(8)), memory.load(b.at(8)), memory.frames_stored()), (0, 7, 2));
    }
}
