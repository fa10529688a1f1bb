//! The software machine: memory, and processors that walk page tables in it and remember what they have read.
//!
//! Whatever is written over [`PhysMem`] and [`Mmu`] runs on it as on a real machine, and a test sees what a real machine
//! hides: a flush that is missing, memory that nobody zeroed, a frame that is used after it was freed.
//!
//! # What the processors do
//! After Intel SDM volume 3, chapter 5, and AMD APM volume 2, chapter 5; where these leave a choice, the one that
//! forgives least.
//!
//! - Four levels, 48 bits of address. An address whose upper 17 bits differ faults before any table is looked at.
//! - A walk ends at the first entry that is not present or has a reserved bit set: an address of more than 46 bits, bits
//!   inside the span of a large leaf (but for the one that selects a memory type), the bit for a large leaf at level 4.
//! - Large leaves of 2 MiB (level 2) and 1 GiB (level 3).
//! - Rights add up over the levels: user code needs the user bit on each, a store the writable bit on each, and one
//!   entry that forbids execution is enough. They are judged at the leaf, with the protection key, whose rights are the
//!   processor's and not the table's: they take effect without a flush, and no fetch asks them.
//! - The accessed bit of an entry is set when a walk uses it, on upper levels even if a lower one ends the walk; the
//!   dirty bit of a leaf when a store goes through. Either is one compare-and-exchange of the very entry that was judged:
//!   one that has changed is judged anew, so no bit appears in an entry that is not present any more.
//! - A translation is remembered with the rights and the dirty bit of the walk that has read it. As long as it is, no
//!   table is read: neither rights that were taken away nor a leaf that was replaced are seen. Only where the memory does
//!   not suffice, because it forbids the access, or because of a store to a page that was clean, is there another walk.
//! - Entries that lead to tables are remembered too, and the next walk begins at the lowest table that is known, so
//!   that a table that was taken out and freed is still used. Entries that are not present, or reserved, are not
//!   remembered.
//! - All that is forgotten by a load of a new root but for global pages (entries that lead to tables never are global),
//!   and for each page by its flush, with the entries above it and no others (some processors forget more). A fault
//!   forgets what was known of its page: who finds nothing wrong need only try again.
//! - Memory is as large as it is told, and what is remembered of it bounded; what gives way is drawn from a fixed
//!   sequence.
//!
//! # What is not modelled
//! Supervisor code and its bits (write protection, SMEP, SMAP), process-context identifiers, five levels, memory types,
//! nested tables, accesses ahead of time, stores that others see late, the A and D bits written at any other time
//! than that of the access. A store across pages is not taken back when its second page faults: the first part stays.
//!
//! # Locks
//! A mutex a processor, held while it translates and while it accesses what it has translated, for one page at a time; a
//! flush takes them one after the other. So when it returns no access is under way that it should have stopped. No lock
//! is taken while another is held, and none while a fault is handled.

mod cache;
pub mod failing;
mod fault;
pub mod guest;
mod known;
mod numbers;
pub mod other_world;
mod processor;
mod ram;
mod ticks;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use core::fmt;

use crate::addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};
use crate::frame::FrameNumber;
use crate::manager::{Access, KeyRights};
use crate::mmu::{Mmu, PhysMem};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

pub use failing::{FailPoint, Injected};
pub use fault::{FaultCode, PageFault};
pub use known::{Known, KnownKind};
pub use ticks::Ticks;

use processor::Processor;
use ram::Ram;

/// The byte that memory is full of before anybody has written to it, and after [`Machine::poison`].
///
/// Read as an entry of a table it is present and has reserved bits, so that a walk that strays there ends in a fault that
/// nothing else causes.
pub const POISON: u8 = 0xdf;

/// The last page of the lower half of a space.
const LOWER_HALF_LAST: u64 = (1 << (47 - crate::addr::PAGE_SHIFT)) - 1;

/// What a machine is built of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Frames of memory, from frame 0 on.
    pub frames: u64,
    /// How many processors there are.
    pub processors: usize,
    /// How many translations each remembers at most; 0 for a machine that never has old ones.
    pub tlb_entries: usize,
    /// How many entries that lead to tables each remembers at most; 0 likewise.
    pub table_entries: usize,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self { frames: 4096, processors: 2, tlb_entries: 512, table_entries: 64 }
    }
}

/// What a machine has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Statistics {
    /// Translations that took a walk, in vain or not.
    pub walks: u64,
    /// Translations that were remembered.
    pub hits: u64,
    /// Walks that ended in a fault.
    pub faults: u64,
    /// Flushes of ranges.
    pub flushes: u64,
    /// The pages of those ranges.
    pub pages_flushed: u64,
    /// Flushes of whole spaces.
    pub full_flushes: u64,
}

/// Memory and processors.
///
/// All of it may be used by several threads; which thread runs on which processor is theirs to arrange, and two on one
/// processor take turns.
pub struct Machine {
    ram: Ram,
    processors: Box<[Mutex<Processor>]>,
    flushes: AtomicU64,
    pages_flushed: AtomicU64,
    full_flushes: AtomicU64,
    left_out: FailPoint,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({} frames, {} processors)", self.frames(), self.processors.len())
    }
}

impl Machine {
    /// A machine that is switched on: its memory is [`POISON`], and no processor runs in a space.
    ///
    /// # Panics
    /// If the memory is larger than the processors can address.
    pub fn new(config: MachineConfig) -> Self {
        assert!(config.frames <= (1 << processor::PHYSICAL_BITS) / PAGE_SIZE, "too much memory");
        let processors = (0..config.processors)
            .map(|_| Mutex::new(Processor::new(config.tlb_entries, config.table_entries)))
            .collect();
        Self {
            ram: Ram::new(config.frames),
            processors,
            flushes: AtomicU64::new(0),
            pages_flushed: AtomicU64::new(0),
            full_flushes: AtomicU64::new(0),
            left_out: FailPoint::new("flush"),
        }
    }

    /// How many frames of memory there are, from frame 0 on.
    pub const fn frames(&self) -> u64 {
        self.ram.frames()
    }

    /// How many processors there are.
    pub const fn processors(&self) -> usize {
        self.processors.len()
    }

    #[track_caller]
    fn lock(&self, processor: usize) -> MutexGuard<'_, Processor> {
        self.processors[processor].lock()
    }

    /// Makes a processor run in the space whose root table is `root`. It forgets all but global pages, even if it ran
    /// there already.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn activate(&self, processor: usize, root: FrameNumber) {
        self.lock(processor).activate(root);
    }

    /// Makes a processor run in no space. What it knows stays until it is flushed or another root is loaded, as where
    /// the kernel runs on in the space of the last user.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn deactivate(&self, processor: usize) {
        self.lock(processor).is_running = false;
    }

    /// The root table of the space that a processor runs in.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn active(&self, processor: usize) -> Option<FrameNumber> {
        let processor = self.lock(processor);
        processor.root.filter(|_| processor.is_running)
    }

    /// Sets what the protection keys forbid on a processor.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn set_key_rights(&self, processor: usize, rights: KeyRights) {
        self.lock(processor).keys = rights;
    }

    /// Translates, and does `act` at that place before anybody can make the processor forget the translation.
    #[track_caller]
    fn reach<T>(
        &self,
        processor: usize,
        address: VirtAddr,
        access: Access,
        act: impl FnOnce(PhysAddr) -> T,
    ) -> Result<T, PageFault> {
        let mut processor = self.lock(processor);
        match processor.translate(&self.ram, address, access) {
            Ok(place) => Ok(act(place)),
            Err(code) => Err(PageFault { address, access, code }),
        }
    }

    /// Loads bytes, as user code does.
    ///
    /// # Errors
    /// Some byte cannot be loaded; those before it have been.
    ///
    /// # Panics
    /// If the processor runs in no space, or a table or page lies outside of memory; so with all other accesses.
    pub fn load(&self, processor: usize, address: VirtAddr, to: &mut [u8]) -> Result<(), PageFault> {
        self.read_as(processor, address, to, Access::Read)
    }

    /// Fetches instructions, as user code does.
    ///
    /// # Errors
    /// Some byte cannot be fetched; those before it have been.
    ///
    /// # Panics
    /// See [`Self::load`].
    pub fn fetch(&self, processor: usize, address: VirtAddr, to: &mut [u8]) -> Result<(), PageFault> {
        self.read_as(processor, address, to, Access::Execute)
    }

    fn read_as(&self, processor: usize, start: VirtAddr, to: &mut [u8], access: Access) -> Result<(), PageFault> {
        let mut rest = to;
        let mut address = start;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(bytes_in_page(address, rest.len()));
            self.reach(processor, address, access, |place| self.ram.read(place, part))?;
            address = further(address, part.len());
            rest = after;
        }
        Ok(())
    }

    /// Stores bytes, as user code does.
    ///
    /// # Errors
    /// Some byte cannot be stored; those in pages before it have been.
    ///
    /// # Panics
    /// See [`Self::load`].
    pub fn store(&self, processor: usize, address: VirtAddr, from: &[u8]) -> Result<(), PageFault> {
        let mut rest = from;
        let mut address = address;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(bytes_in_page(address, rest.len()));
            self.reach(processor, address, Access::Write, |place| self.ram.write(place, part))?;
            address = further(address, part.len());
            rest = after;
        }
        Ok(())
    }

    /// Replaces the word at `address` by `new` if it is `current`, as user code does. The right to store is needed
    /// either way, and the page becomes dirty.
    ///
    /// # Errors
    /// The word cannot be stored to.
    ///
    /// # Panics
    /// If `address` is no multiple of 8; see [`Self::load`] too.
    pub fn compare_exchange(
        &self,
        processor: usize,
        address: VirtAddr,
        current: u64,
        new: u64,
    ) -> Result<Result<(), u64>, PageFault> {
        assert!(address.as_u64().is_multiple_of(8), "{address} is inside a word");
        self.reach(processor, address, Access::Write, |place| self.ram.compare_exchange(place, current, new))
    }

    /// Where an access goes: the same as the access, but for the last step.
    ///
    /// # Errors
    /// The access cannot be made.
    ///
    /// # Panics
    /// See [`Self::load`].
    pub fn translate(&self, processor: usize, address: VirtAddr, access: Access) -> Result<PhysAddr, PageFault> {
        self.reach(processor, address, access, |place| place)
    }

    /// Fills a frame with [`POISON`].
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn poison(&self, frame: FrameNumber) {
        self.ram.fill(frame, POISON);
    }

    /// Whether a frame is full of [`POISON`]: nobody has written to it since.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn is_poisoned(&self, frame: FrameNumber) -> bool {
        self.ram.is_poisoned(frame)
    }

    /// Where flushes pass: one that is told to fail does nothing and says nothing, so that a test can see what becomes
    /// of a pager that has forgotten it.
    pub const fn flush_point(&self) -> &FailPoint {
        &self.left_out
    }

    /// What the machine has done so far.
    pub fn statistics(&self) -> Statistics {
        let mut sum = Statistics {
            flushes: self.flushes.load(Ordering::Relaxed),
            pages_flushed: self.pages_flushed.load(Ordering::Relaxed),
            full_flushes: self.full_flushes.load(Ordering::Relaxed),
            ..Statistics::default()
        };
        for processor in &self.processors {
            let counts = &processor.lock().counts;
            sum.walks += counts.walks;
            sum.hits += counts.hits;
            sum.faults += counts.faults;
        }
        sum
    }

    /// Makes all processors forget `first..=last`.
    fn forget(&self, root: FrameNumber, first: u64, last: u64) {
        if self.left_out.pass().is_ok() {
            for processor in &self.processors {
                processor.lock().forget(root, first, last);
            }
        }
    }
}

/// How many of `len` bytes from `address` on lie in its page.
fn bytes_in_page(address: VirtAddr, len: usize) -> usize {
    let left = PAGE_SIZE - address.as_u64() % PAGE_SIZE;
    usize::try_from(left).unwrap_or(usize::MAX).min(len)
}

/// The address `bytes` further up; after the last comes 0, as in the processor.
const fn further(address: VirtAddr, bytes: usize) -> VirtAddr {
    VirtAddr::new(address.as_u64().wrapping_add(bytes as u64))
}

/// # Panics
/// Where there is no memory, where a word is not aligned, and where bytes leave their frame.
impl PhysMem for Machine {
    fn load(&self, address: PhysAddr) -> u64 {
        self.ram.load(address)
    }

    fn store(&self, address: PhysAddr, word: u64) {
        self.ram.store(address, word);
    }

    fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        self.ram.compare_exchange(address, current, new)
    }

    fn read(&self, from: PhysAddr, to: &mut [u8]) {
        self.ram.read(from, to);
    }

    fn write(&self, to: PhysAddr, from: &[u8]) {
        self.ram.write(to, from);
    }

    fn zero(&self, frame: FrameNumber) {
        self.ram.fill(frame, 0);
    }

    fn copy(&self, from: FrameNumber, to: FrameNumber) {
        self.ram.copy(from, to);
    }
}

/// A processor forgets what it knows of the range if it runs in the space, or has run there last, or if the range lies in
/// the upper half; of other spaces' pages in the lower half only the global ones that it has read from this one's tables.
impl Mmu for Machine {
    fn flush(&self, root: FrameNumber, range: PageRange) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.pages_flushed.fetch_add(range.pages().get(), Ordering::Relaxed);
        self.forget(root, range.first_page(), range.end_page() - 1);
    }

    fn flush_all(&self, root: FrameNumber) {
        self.full_flushes.fetch_add(1, Ordering::Relaxed);
        self.forget(root, 0, LOWER_HALF_LAST);
    }
}
