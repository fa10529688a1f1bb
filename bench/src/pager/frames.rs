//! Frames: pairs, bulk, random order and 2 MiB, of 1 GiB of memory.
//!
//! The peers know which frames are free and nothing else: no use, no references, no owner who pays. What stands against
//! them is the whole of [`Frames`], through a magazine that one user has and by number, and for comparison the allocator
//! behind it alone.

use std::hint::black_box;

use anyhow::Result;
use bitmap_allocator::{BitAlloc, BitAlloc1M};
use buddy_system_allocator::FrameAllocator as Buddy;
use pagewarden::frame::{
    ChunkAllocator, FrameAllocator, FrameNumber, FrameRange, FrameUse, Frames, FramesConfig, HeldFrame, HeldRun,
    MagazineGuard, MemoryKind, MemoryMap, Owner,
};
use pagewarden::{Limits, PageCount, ResourceLedger};

use super::contest::{Contestant, Stopwatch};
use super::raw::FreeListFrames;
use crate::random::Random;

/// Frames there are: 1 GiB.
pub const FRAMES: usize = 1 << 18;
/// Frames of a few.
const FEW: usize = 1 << 12;
/// Frames of many: half of what there is.
const MANY: usize = 1 << 17;
/// Pairs of a turn.
const PAIRS: usize = 1 << 14;
/// Pairs of a turn where a pair is 2 MiB.
const LARGE_PAIRS: usize = 1 << 6;
/// Frames of 2 MiB.
pub const LARGE: usize = 512;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// A frame is allocated and freed.
    Pair,
    /// So many frames are allocated one by one.
    Bulk(usize),
    /// So many frames are freed in random order.
    Random(usize),
    /// 2 MiB are allocated and freed.
    Large,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Pair, Self::Bulk(FEW), Self::Bulk(MANY), Self::Random(FEW), Self::Random(MANY), Self::Large];

    /// What tables and options call it.
    pub fn name(self) -> String {
        match self {
            Self::Pair => "allocate + free a frame".to_owned(),
            Self::Bulk(frames) => format!("allocate {frames} frames, each"),
            Self::Random(frames) => format!("free {frames} in random order, each"),
            Self::Large => "allocate + free 2 MiB".to_owned(),
        }
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        match self {
            Self::Pair => PAIRS,
            Self::Bulk(frames) | Self::Random(frames) => frames,
            Self::Large => LARGE_PAIRS,
        }
    }
}

/// An allocator of frames, all [`FRAMES`] of them free.
pub trait Allocator: Sized {
    /// What tables call it.
    const NAME: &'static str;
    /// Why it does not free `MANY` frames in random order, if it does not.
    const NOT_MANY: Option<&'static str> = None;
    /// A frame that was allocated.
    type Frame;
    /// 2 MiB that were allocated.
    type Large;

    /// A new one.
    ///
    /// # Errors
    /// If it cannot be made.
    fn new() -> Result<Self>;

    /// Allocates a frame.
    fn allocate(&mut self) -> Option<Self::Frame>;

    /// Frees a frame.
    fn free(&mut self, frame: Self::Frame);

    /// Allocates 512 frames that follow each other from a multiple of 512 on.
    fn allocate_large(&mut self) -> Option<Self::Large>;

    /// Frees those.
    fn free_large(&mut self, large: Self::Large);

    /// The number of a frame.
    fn number(frame: &Self::Frame) -> u64;
}

struct Turns<A: Allocator> {
    allocator: A,
    frames: Vec<A::Frame>,
    random: Random,
}

impl<A: Allocator> Turns<A> {
    fn fill(&mut self, count: usize) {
        let Self { allocator, frames, .. } = self;
        frames.extend(std::iter::from_fn(|| allocator.allocate()).take(count));
    }

    fn empty(&mut self) {
        let Self { allocator, frames, .. } = self;
        frames.drain(..).for_each(|frame| allocator.free(frame));
    }
}

impl<A: Allocator> Contestant<Row> for Turns<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn able(&self, row: Row) -> Result<(), &'static str> {
        match A::NOT_MANY {
            Some(reason) if row == Row::Random(MANY) => Err(reason),
            _ => Ok(()),
        }
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        match row {
            Row::Pair => watch.time(|| {
                for _ in 0..PAIRS {
                    let frame = self.allocator.allocate().expect("a frame is free");
                    self.allocator.free(black_box(frame));
                }
            }),
            Row::Large => watch.time(|| {
                for _ in 0..LARGE_PAIRS {
                    let large = self.allocator.allocate_large().expect("2 MiB are free");
                    self.allocator.free_large(black_box(large));
                }
            }),
            Row::Bulk(count) => {
                watch.time(|| self.fill(count))?;
                self.empty();
                Ok(())
            }
            Row::Random(count) => {
                self.fill(count);
                self.random.shuffle(&mut self.frames);
                watch.time(|| self.empty())
            }
        }
    }
}

/// Everybody: pagewarden's three first.
///
/// # Errors
/// If one cannot be made, or gives a frame out twice.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    Ok(vec![
        ready::<Magazine>()?,
        ready::<ByNumber>()?,
        ready::<Alone>()?,
        ready::<BuddyFrames>()?,
        ready::<Bitmap>()?,
        ready::<FreeListFrames>()?,
    ])
}

/// How many of [`all`] are pagewarden's.
pub const OURS: usize = 3;

fn ready<A: Allocator + 'static>() -> Result<Box<dyn Contestant<Row>>> {
    check::<A>()?;
    let (allocator, frames) = (A::new()?, Vec::with_capacity(MANY));
    Ok(Box::new(Turns { allocator, frames, random: Random::new(0x6672_616d) }))
}

/// Whether frames are given out once, freed ones come again, and 2 MiB are found.
fn check<A: Allocator>() -> Result<()> {
    let mut allocator = A::new()?;
    let large = allocator.allocate_large();
    anyhow::ensure!(large.is_some(), "{}: no 2 MiB", A::NAME);
    let mut frames: Vec<A::Frame> = std::iter::from_fn(|| allocator.allocate()).take(FEW).collect();
    let mut numbers: Vec<u64> = frames.iter().map(A::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    anyhow::ensure!(numbers.len() == FEW, "{}: {} different frames of {FEW}", A::NAME, numbers.len());
    Random::new(1).shuffle(&mut frames);
    frames.into_iter().for_each(|frame| allocator.free(frame));
    large.into_iter().for_each(|large| allocator.free_large(large));
    let all = std::iter::from_fn(|| allocator.allocate()).map(std::mem::forget).count();
    anyhow::ensure!(all == FRAMES, "{}: {all} frames of {FRAMES} are left", A::NAME);
    Ok(())
}

fn memory_map() -> Result<MemoryMap> {
    let first = FrameNumber::new(FRAMES as u64);
    let range = first.and_then(|first| FrameRange::new(first, PageCount::new(FRAMES as u64)));
    let mut map = MemoryMap::new();
    map.add(range.ok_or_else(|| anyhow::anyhow!("no such frames"))?, MemoryKind::Usable)?;
    Ok(map)
}

/// [`Frames`] that stay for as long as the program runs, and an owner.
fn frames() -> Result<(&'static Frames, Owner)> {
    let config = FramesConfig { zeroed_frames: 0, ..FramesConfig::default() };
    let frames = Box::leak(Box::new(Frames::new(&memory_map()?, config)?));
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let owner = frames.add_owner(ledger.root())?;
    Ok((frames, owner))
}

/// [`Frames`] through a magazine that one user has.
struct Magazine {
    guard: MagazineGuard<'static>,
    owner: Owner,
}

impl Allocator for Magazine {
    const NAME: &'static str = "pagewarden, a magazine";
    type Frame = HeldFrame<'static>;
    type Large = HeldRun<'static>;

    fn new() -> Result<Self> {
        let (frames, owner) = frames()?;
        let guard = frames.magazine(0).ok_or_else(|| anyhow::anyhow!("no magazine"))?;
        Ok(Self { guard, owner })
    }

    #[inline]
    fn allocate(&mut self) -> Option<HeldFrame<'static>> {
        self.guard.allocate(&self.owner, FrameUse::Anonymous).ok()
    }

    #[inline]
    fn free(&mut self, frame: HeldFrame<'static>) {
        let released = self.guard.release(frame);
        debug_assert!(released.is_ok());
    }

    fn allocate_large(&mut self) -> Option<HeldRun<'static>> {
        self.guard.hold_large(&self.owner, FrameUse::Anonymous).ok()
    }

    fn free_large(&mut self, large: HeldRun<'static>) {
        let released = self.guard.release_run(large);
        debug_assert!(released.is_ok());
    }

    fn number(frame: &HeldFrame<'static>) -> u64 {
        frame.number().get()
    }
}

/// [`Frames`] by number.
struct ByNumber {
    frames: &'static Frames,
    owner: Owner,
}

impl Allocator for ByNumber {
    const NAME: &'static str = "pagewarden, by number";
    type Frame = FrameNumber;
    type Large = FrameRange;

    fn new() -> Result<Self> {
        let (frames, owner) = frames()?;
        Ok(Self { frames, owner })
    }

    fn allocate(&mut self) -> Option<FrameNumber> {
        self.frames.allocate(0, &self.owner, FrameUse::Anonymous).ok()
    }

    fn free(&mut self, frame: FrameNumber) {
        let released = self.frames.release(0, frame);
        debug_assert!(released.is_ok());
    }

    fn allocate_large(&mut self) -> Option<FrameRange> {
        let large = PageCount::new(LARGE as u64);
        self.frames.allocate_run(large, large, &self.owner, FrameUse::Anonymous).ok()
    }

    fn free_large(&mut self, large: FrameRange) {
        let released = self.frames.release_run(large);
        debug_assert!(released.is_ok());
    }

    fn number(frame: &FrameNumber) -> u64 {
        frame.get()
    }
}

/// The allocator behind them, a frame at a time.
struct Alone(ChunkAllocator);

impl Allocator for Alone {
    const NAME: &'static str = "its allocator alone";
    type Frame = FrameNumber;
    type Large = FrameRange;

    fn new() -> Result<Self> {
        Ok(Self(ChunkAllocator::new(&memory_map()?)?))
    }

    fn allocate(&mut self) -> Option<FrameNumber> {
        let mut batch = [FrameNumber::new(0)?];
        (self.0.allocate(&mut batch) == 1).then_some(batch[0])
    }

    fn free(&mut self, frame: FrameNumber) {
        let freed = self.0.free(&[frame]);
        debug_assert!(freed.is_ok());
    }

    fn allocate_large(&mut self) -> Option<FrameRange> {
        let large = PageCount::new(LARGE as u64);
        self.0.allocate_run(large, large).ok()
    }

    fn free_large(&mut self, large: FrameRange) {
        let freed = self.0.free_run(large);
        debug_assert!(freed.is_ok());
    }

    fn number(frame: &FrameNumber) -> u64 {
        frame.get()
    }
}

struct BuddyFrames(Buddy<33>);

impl Allocator for BuddyFrames {
    const NAME: &'static str = "buddy_system_allocator";
    type Frame = usize;
    type Large = usize;

    fn new() -> Result<Self> {
        let mut buddy = Buddy::new();
        buddy.add_frame(FRAMES, 2 * FRAMES);
        Ok(Self(buddy))
    }

    fn allocate(&mut self) -> Option<usize> {
        self.0.alloc(1)
    }

    fn free(&mut self, frame: usize) {
        self.0.dealloc(frame, 1);
    }

    fn allocate_large(&mut self) -> Option<usize> {
        self.0.alloc(LARGE)
    }

    fn free_large(&mut self, large: usize) {
        self.0.dealloc(large, LARGE);
    }

    fn number(frame: &usize) -> u64 {
        *frame as u64
    }
}

struct Bitmap(Box<BitAlloc1M>);

impl Allocator for Bitmap {
    const NAME: &'static str = "bitmap-allocator";
    type Frame = usize;
    type Large = usize;

    fn new() -> Result<Self> {
        let mut bitmap = Box::<BitAlloc1M>::default();
        bitmap.insert(FRAMES..2 * FRAMES);
        Ok(Self(bitmap))
    }

    fn allocate(&mut self) -> Option<usize> {
        self.0.alloc()
    }

    fn free(&mut self, frame: usize) {
        self.0.dealloc(frame);
    }

    fn allocate_large(&mut self) -> Option<usize> {
        self.0.alloc_contiguous(None, LARGE, LARGE.ilog2() as usize)
    }

    fn free_large(&mut self, large: usize) {
        self.0.dealloc_contiguous(large, LARGE);
    }

    fn number(frame: &usize) -> u64 {
        *frame as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gives_out_each_frame_once() {
        assert_eq!(all().unwrap().len(), OURS + 3);
    }
}
