//! [`Frames`]: allocation with an owner, references, magazines and the pool of zeroed frames.
//!
//! What each path costs: an allocation or a release by number is a lock that nobody waits for, one step on the state
//! and a charge on the account; through a [`MagazineGuard`](super::MagazineGuard) none of these but the state, and the
//! rest once for many frames. Every half magazine the allocator is asked, or given frames back.
//!
//! When no frame is free, those that lie in other magazines and in the pool are taken before an allocation fails. Only
//! what somebody has out as a `MagazineGuard` is out of reach.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::chunks::ChunkAllocator;
use super::magazine::{Magazine, Slot};
use super::owner::{Owner, OwnerRecord, Owners};
use super::records::{FrameUse, Records, State};
use super::{FrameAllocator, FrameError, FrameNumber, FrameRange, MemoryMap};
use crate::addr::PageCount;
use crate::ledger::Account;
use crate::mmu::PhysMem;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

/// How many stocks of free frames there are, and how large they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramesConfig {
    /// How many magazines there are, at least one: a processor uses the one with its number, modulo this.
    pub processors: usize,
    /// Frames that a magazine holds; with 0 every allocation and every release goes to the allocator.
    pub magazine_frames: usize,
    /// Frames that the pool of zeroed ones holds.
    pub zeroed_frames: usize,
}

impl Default for FramesConfig {
    fn default() -> Self {
        Self { processors: 1, magazine_frames: 512, zeroed_frames: 64 }
    }
}

/// What became of a frame that was released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Released {
    /// It was the last reference: the frame is free now.
    Last,
    /// Others use it still.
    StillUsed,
}

/// The frames of a memory map: which are free, and who uses the others, how many, what for, and who pays.
pub struct Frames {
    records: Records,
    allocator: Box<dyn FrameAllocator>,
    owners: Arc<Owners>,
    slots: Vec<Slot>,
    /// Frames that are held alone; what magazines that are out know of is not in it, and it wraps until they are back.
    held: AtomicU64,
    /// Zeroed frames; its capacity is what it may hold.
    zeroed: Mutex<Vec<FrameNumber>>,
    zeroed_most: usize,
}

impl Frames {
    /// The usable frames of `map`, all free, with a [`ChunkAllocator`].
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for the metadata.
    pub fn new(map: &MemoryMap, config: FramesConfig) -> Result<Self, FrameError> {
        let allocator = ChunkAllocator::new(map)?;
        Self::with_allocator(map, config, Box::new(allocator))
    }

    /// The usable frames of `map`, given out by `allocator`, which has been made for the same map.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for the metadata; [`FrameError::InvalidRange`] if `allocator`
    /// is not one of just as many frames, all of them free.
    pub fn with_allocator(
        map: &MemoryMap,
        config: FramesConfig,
        allocator: Box<dyn FrameAllocator>,
    ) -> Result<Self, FrameError> {
        let records = Records::new(map)?;
        if (allocator.total(), allocator.available()) != (records.total(), records.total()) {
            return Err(FrameError::InvalidRange);
        }
        let mut slots = Vec::new();
        let count = config.processors.max(1);
        slots.try_reserve_exact(count).map_err(|_| FrameError::Exhausted)?;
        for _ in 0..count {
            slots.push(Slot::new(Magazine::new(config.magazine_frames)?));
        }
        let mut zeroed = Vec::new();
        zeroed.try_reserve_exact(config.zeroed_frames).map_err(|_| FrameError::Exhausted)?;
        let owners = Arc::new(Owners::new());
        let (zeroed, zeroed_most) = (Mutex::new(zeroed), config.zeroed_frames);
        let held = AtomicU64::new(0);
        Ok(Self { held, records, allocator, owners, slots, zeroed, zeroed_most })
    }

    /// A new owner of frames: `account` pays for them, as [`Resource::Frames`](crate::Resource::Frames) or, for
    /// [`FrameUse::Table`], as [`Resource::TableFrames`](crate::Resource::TableFrames).
    ///
    /// # Errors
    /// [`FrameError::Exhausted`] if there is no memory for its record, [`FrameError::TooManyReferences`] if there are
    /// 2^22 owners.
    pub fn add_owner(&self, account: &Account) -> Result<Owner, FrameError> {
        self.owners.add(account)
    }

    /// Takes a frame for `owner`, with one reference. Its bytes are whatever they were.
    ///
    /// # Errors
    /// [`FrameError::OverLimit`] if the owner's account may not hold more, [`FrameError::Exhausted`] if no frame is free,
    /// [`FrameError::NotOurs`] if the owner is one of other frames.
    pub fn allocate(&self, processor: usize, owner: &Owner, used_as: FrameUse) -> Result<FrameNumber, FrameError> {
        self.allocate_from(owner, used_as, || self.free_frame(processor))
    }

    /// The same, with every byte of the frame 0: one of the pool, or one that is zeroed now.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_zeroed(
        &self,
        memory: &impl PhysMem,
        processor: usize,
        owner: &Owner,
        used_as: FrameUse,
    ) -> Result<FrameNumber, FrameError> {
        let mut is_zeroed = true;
        let frame = self.allocate_from(owner, used_as, || {
            let pooled = self.zeroed.lock().pop();
            is_zeroed = pooled.is_some();
            pooled.or_else(|| self.free_frame(processor))
        })?;
        if !is_zeroed {
            memory.zero(frame);
        }
        Ok(frame)
    }

    /// Charges a frame, takes it and marks it; nothing stays of it if one of these fails.
    fn allocate_from(
        &self,
        owner: &Owner,
        used_as: FrameUse,
        take: impl FnOnce() -> Option<FrameNumber>,
    ) -> Result<FrameNumber, FrameError> {
        let record = self.record_of(owner)?;
        record.charge_frames(used_as.resource(), 1)?;
        let started = take().ok_or(FrameError::Exhausted).and_then(|frame| {
            self.records.start(frame, State::shared(record.tag(used_as)))?;
            Ok(frame)
        });
        if started.is_err() {
            self.owners.give_back_frames(record, used_as.resource(), 1);
        }
        started
    }

    /// Takes a run of frames for `owner`, each with one reference and released by itself. The number of the first is a
    /// multiple of `align`; 512 frames aligned to 512 are a whole frame of 2 MiB.
    ///
    /// # Errors
    /// [`FrameError::InvalidRange`] for no frames, or an `align` that is not a power of two; otherwise as
    /// [`allocate`](Self::allocate).
    pub fn allocate_run(
        &self,
        frames: PageCount,
        align: PageCount,
        owner: &Owner,
        used_as: FrameUse,
    ) -> Result<FrameRange, FrameError> {
        let record = self.record_of(owner)?;
        let run = self.charged_run(frames, align, record, used_as)?;
        let started = self.start_run(run, State::shared(record.tag(used_as)));
        if started.is_err() {
            self.owners.give_back_frames(record, used_as.resource(), frames.get());
        }
        started
    }

    /// Charges a run of frames and takes it; nothing stays of it if one of these fails.
    pub(super) fn charged_run(
        &self,
        frames: PageCount,
        align: PageCount,
        record: &OwnerRecord,
        used_as: FrameUse,
    ) -> Result<FrameRange, FrameError> {
        if frames.get() > self.total() {
            super::run_request(frames, align)?;
            return Err(FrameError::Exhausted);
        }
        record.charge_frames(used_as.resource(), frames.get())?;
        let run = match self.allocator.allocate_run(frames, align) {
            Err(FrameError::Exhausted) => {
                self.drain();
                self.allocator.allocate_run(frames, align)
            }
            outcome => outcome,
        };
        if run.is_err() {
            self.owners.give_back_frames(record, used_as.resource(), frames.get());
        }
        run
    }

    pub(super) fn start_run(&self, run: FrameRange, state: State) -> Result<FrameRange, FrameError> {
        run.iter().try_for_each(|frame| self.records.start(frame, state))?;
        Ok(run)
    }

    /// One reference more to a frame that has one; how many there are now.
    ///
    /// # Errors
    /// [`FrameError::NotAllocated`], [`FrameError::NotOurs`] for a frame that has no reference by
    /// number; [`FrameError::TooManyReferences`] if they cannot be counted any more.
    pub fn share(&self, frame: FrameNumber) -> Result<u32, FrameError> {
        self.records.share(frame)
    }

    /// One reference less. With the last one the frame becomes free and its charge goes back to its owner.
    ///
    /// # Errors
    /// [`FrameError::NotAllocated`], [`FrameError::NotOurs`] for a frame that has no reference by
    /// number.
    pub fn release(&self, processor: usize, frame: FrameNumber) -> Result<Released, FrameError> {
        let before = self.records.release(frame)?;
        if before.references() > 1 {
            return Ok(Released::StillUsed);
        }
        let put_back = self.put_back(processor, frame);
        self.owners.give_back(before.tag(), 1);
        put_back.map(|()| Released::Last)
    }

    /// One reference less, unless it is the last: then the frame is the caller's alone, who may look at what it holds
    /// before it is [released](Self::release).
    ///
    /// # Errors
    /// As [`release`](Self::release).
    pub fn release_unless_last(&self, frame: FrameNumber) -> Result<Released, FrameError> {
        let before = self.records.release_unless_last(frame)?;
        Ok(if before.references() == 1 { Released::Last } else { Released::StillUsed })
    }

    /// Releases each frame of a run; what became of them is not told.
    ///
    /// # Errors
    /// That of the first frame that has no reference by number; the others are released.
    pub fn release_run(&self, run: FrameRange) -> Result<(), FrameError> {
        let mut outcome = Ok(());
        // Frames that follow each other and were paid for alike go back as one.
        let mut alike: Option<(State, FrameRange)> = None;
        for frame in run.iter() {
            let before = match self.records.release(frame) {
                Ok(before) if before.references() == 1 => before,
                Ok(_) => continue,
                Err(error) => {
                    outcome = outcome.and(Err(error));
                    continue;
                }
            };
            let longer = alike.filter(|(state, so_far)| *state == before && so_far.end() == frame.get());
            let longer = longer
                .and_then(|(_, so_far)| FrameRange::new(so_far.first(), PageCount::new(so_far.frames().get() + 1)));
            if longer.is_none() {
                outcome = outcome.and(self.put_back_run(alike));
            }
            alike = longer.or_else(|| FrameRange::new(frame, PageCount::new(1))).map(|so_far| (before, so_far));
        }
        outcome.and(self.put_back_run(alike))
    }

    /// Puts frames that are nobody's any more, and what was paid for them, back.
    fn put_back_run(&self, run: Option<(State, FrameRange)>) -> Result<(), FrameError> {
        let Some((state, run)) = run else { return Ok(()) };
        let freed = self.allocator.free_run(run);
        self.owners.give_back(state.tag(), run.frames().get());
        freed
    }

    /// How many references by number `frame` has: 0 if it is free, held alone or not ours.
    pub fn references(&self, frame: FrameNumber) -> u32 {
        self.records.state(frame).map_or(0, State::references)
    }

    /// What `frame` is used for, if it has references by number.
    pub fn used_as(&self, frame: FrameNumber) -> Option<FrameUse> {
        self.records.state(frame)?.tag().used_as()
    }

    /// The word of `frame`, for whoever uses it: a table counts its entries in it. 0 when the frame is allocated.
    ///
    /// # Panics
    /// If no usable memory is near `frame`: it is not one that was given out.
    pub fn word(&self, frame: FrameNumber) -> &AtomicU32 {
        self.records.word(frame).expect("a frame that was given out")
    }

    /// Whether `frame` is one that can be given out, free or not.
    pub fn is_ours(&self, frame: FrameNumber) -> bool {
        self.records.state(frame).is_some()
    }

    /// How many frames are free: in the allocator, the magazines and the pool. What somebody takes out of a magazine
    /// that he has to himself is counted when he next goes to the allocator.
    pub fn available(&self) -> u64 {
        let in_magazines: usize = self.slots.iter().map(Slot::frames).sum();
        let zeroed = self.zeroed.lock().len();
        self.allocator.available() + in_magazines as u64 + zeroed as u64
    }

    /// How many frames there are, free or not.
    pub fn total(&self) -> u64 {
        self.records.total()
    }

    /// Zeroes free frames until the pool is full or none is free; how many. What an idle processor does.
    pub fn fill_zeroed(&self, memory: &impl PhysMem) -> usize {
        let mut filled = 0;
        while self.zeroed.lock().len() < self.zeroed_most {
            let Some(frame) = self.allocator_frame() else { break };
            memory.zero(frame);
            let mut pool = self.zeroed.lock();
            if pool.len() >= self.zeroed_most {
                drop(pool);
                let _ = self.allocator.free(&[frame]);
                break;
            }
            pool.push(frame);
            filled += 1;
        }
        filled
    }

    /// Gives what lies in the magazines and in the pool back to the allocator.
    pub fn drain(&self) {
        for slot in &self.slots {
            slot.with(|magazine| magazine.spill(&*self.allocator, 0));
        }
        let mut pool = self.zeroed.lock();
        let freed = self.allocator.free(&pool);
        debug_assert!(freed.is_ok(), "the pool holds frames that the allocator gave");
        pool.clear();
    }

    /// Recomputes what is derived and compares: no frame is in two places or in none. Nobody may be at work meanwhile.
    ///
    /// # Panics
    /// If anything differs.
    pub fn check_invariants(&self) {
        self.allocator.check_invariants();
        let mut cached: Vec<FrameNumber> = self.zeroed.lock().clone();
        for slot in &self.slots {
            slot.with(|magazine| cached.extend_from_slice(magazine.frames()));
        }
        cached.sort_unstable();
        assert!(cached.windows(2).all(|pair| pair[0] != pair[1]), "a frame is in two stocks");
        let (mut held, mut free) = (0, 0);
        for (frame, state) in self.records.iter() {
            let is_cached = cached.binary_search(&frame).is_ok();
            let is_allocated = state != State::FREE;
            let places = [is_cached, is_allocated, self.allocator.is_free(frame)];
            match places.into_iter().filter(|is_there| *is_there).count() {
                0 => held += 1,
                1 if is_allocated => assert!(self.owners.get(state.tag().owner()).is_some(), "{frame} has no owner"),
                1 => free += 1,
                _ => panic!("{frame} is in two places: {places:?}"),
            }
        }
        assert_eq!((free, held), (self.available(), self.held.load(Ordering::Relaxed)), "free, held alone");
    }

    #[inline]
    pub(super) fn record_of<'a>(&self, owner: &'a Owner) -> Result<&'a Arc<OwnerRecord>, FrameError> {
        if Arc::ptr_eq(owner.owners(), &self.owners) { Ok(owner.record()) } else { Err(FrameError::NotOurs) }
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// Counts frames that are held from now on, wrapping.
    pub(super) fn count_held(&self, more: u64) {
        self.held.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }

    pub(super) fn allocator(&self) -> &dyn FrameAllocator {
        &*self.allocator
    }

    pub(super) fn slot(&self, processor: usize) -> &Slot {
        &self.slots[processor % self.slots.len()]
    }

    /// A frame from the allocator itself.
    fn allocator_frame(&self) -> Option<FrameNumber> {
        let mut batch = [FrameNumber::containing(crate::addr::PhysAddr::default())];
        (self.allocator.allocate(&mut batch) == 1).then_some(batch[0])
    }

    /// A free frame, from wherever there is one.
    fn free_frame(&self, processor: usize) -> Option<FrameNumber> {
        let slot = self.slot(processor);
        let own = slot.try_with(|magazine| magazine.pop(&*self.allocator)).flatten();
        own.or_else(|| self.allocator_frame()).or_else(|| self.any_free_frame())
    }

    /// A frame out of any magazine or the pool, when the allocator has had none.
    #[cold]
    pub(super) fn any_free_frame(&self) -> Option<FrameNumber> {
        let pooled = self.zeroed.lock().pop();
        let stocks = || self.slots.iter().find_map(|slot| slot.with(Magazine::pop_stocked).flatten());
        // Somebody may have spilled a magazine behind our back.
        pooled.or_else(stocks).or_else(|| self.allocator_frame())
    }

    /// Puts a frame that is nobody's any more where the next allocation finds it.
    fn put_back(&self, processor: usize, frame: FrameNumber) -> Result<(), FrameError> {
        match self.slot(processor).try_with(|magazine| magazine.push(&*self.allocator, frame)) {
            Some(true) => Ok(()),
            _ => self.allocator.free(&[frame]),
        }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} frames free, {:?}", self.available(), self.total(), self.owners)
    }
}
