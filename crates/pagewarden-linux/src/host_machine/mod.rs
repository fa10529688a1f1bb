//! The host as a machine: physical memory is a memfd, translations are mappings of it, a page fault is a SIGSEGV.
//!
//! ```text
//! guest code: loads, stores ──> View: mappings in a Reservation (what a TLB is on hardware)
//!      │ SIGSEGV (a TLB miss or a real fault)
//!      v
//! resolve ──> AddressSpace::fault ──> page tables in the memfd (Ram: PhysMem)
//!      │                                         │ Mmu::flush(root, range)
//!      └── View::fill: walk the tables, map      └── View::sync: walk the tables, map or hide
//! ```
//!
//! Owned here: the memory, which space is seen in which view, and what a signal means. Outside: the tables and who may
//! have what ([`pagewarden::pager`]); who runs guest code; which handler takes signals.
//!
//! # Soundness
//! Guest code stores to its view as it likes, so no Rust reference into one is ever made: the host reads and writes guest
//! memory by [`HostSpace::read`] and [`HostSpace::write`], which look at the tables and copy in the direct map.
//! docs/soundness.md has the argument.
//!
//! # Locks, in this order
//! 1. what the pager locks (`pagewarden::pager`);
//! 2. the list of views, for a look at it;
//! 3. the state of one view (`view`): never that of two.

mod changes;
mod entered;
mod frames;
mod host;
mod page;
mod ram;
mod reservation;
mod space;
mod streams;
#[cfg(test)]
mod tests;
mod view;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use pagewarden::frame::{
    ChunkAllocator, FrameError, FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap,
};
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::pager::Pager;
use pagewarden::{Account, Errno, PAGE_SIZE, PageCount, PageRange, PhysAddr};

pub use entered::{Entered, RefusedAccess, Resolution, resolve, take_refused};
pub use reservation::Reservation;
pub use space::HostSpace;

use frames::PunchingAllocator;
use page::Page;
use ram::Ram;
use view::{Filled, View, Wanted};

/// With fewer mappings than this no guest would get on.
const MAPPINGS_LEAST: usize = 8;

/// A fault takes no more than this: there is a mapping on both sides of each page of a window.
const MAPPINGS_ROOM: usize = 160;

/// Installs a handler of SIGSEGV and SIGBUS that [resolves](resolve) faults, once in the life of the process: for
/// embedders without a runtime that takes these signals. What is not for us goes on to whoever had them before.
///
/// # Errors
/// The host's reason.
pub fn install_handler() -> Result<(), Errno> {
    crate::faults::install()
}

/// What the host's memory is made of.
#[derive(Clone, Debug)]
pub struct HostMemoryOptions {
    /// Bytes of physical memory. It is sparse: what nobody uses costs a record of 12 bytes a page, and nothing else.
    pub bytes: u64,
    /// Mappings of the host that all views together may have; a part of `vm.max_map_count` if it is not said.
    pub mappings_max: Option<usize>,
}

/// Why there is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostMemoryError {
    /// No page at all, or more than views can show.
    #[error("there can be no memory of this size")]
    Size,
    /// The host refuses.
    #[error("the host refuses: {0}")]
    Host(Errno),
    /// There is no memory for the records of frames.
    #[error("{0}")]
    Frames(FrameError),
    /// There is no frame for what belongs to no space, or the account may not have it.
    #[error("{0}")]
    Pager(Errno),
}

/// What the memory is used for, and what it costs the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostUsage {
    /// Frames that somebody has.
    pub frames: u64,
    /// Bytes that the host has given for frames, in use or about to be.
    pub host_bytes: u64,
    /// Mappings of the host that views have, at most.
    pub mappings: usize,
    /// Faults of guests that were resolved.
    pub faults: u64,
}

/// Memory and views of it: [`PhysMem`] and [`Mmu`] on a Linux host.
pub struct HostMachine {
    ram: Ram,
    /// By the root of the space.
    views: RwLock<HashMap<FrameNumber, Arc<View>>>,
    /// The frame that is all zeros and stays so, as soon as it is known.
    zeros: OnceLock<FrameNumber>,
    /// Mappings of the host that views have, but for one each.
    mappings: AtomicUsize,
    mappings_max: usize,
    faults: AtomicU64,
}

impl fmt::Debug for HostMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostMachine({} frames)", self.ram.frames())
    }
}

impl HostMachine {
    fn new(frames: u64, mappings_max: usize) -> Result<Self, Errno> {
        Ok(Self {
            ram: Ram::new(frames)?,
            views: RwLock::default(),
            zeros: OnceLock::new(),
            mappings: AtomicUsize::new(0),
            mappings_max: mappings_max.max(MAPPINGS_LEAST),
            faults: AtomicU64::new(0),
        })
    }

    /// Whether the frame is the one that is all zeros.
    fn is_zeros(&self, frame: FrameNumber) -> bool {
        self.zeros.get() == Some(&frame)
    }

    fn view(&self, root: FrameNumber) -> Option<Arc<View>> {
        self.views.read().unwrap_or_else(PoisonError::into_inner).get(&root).cloned()
    }

    /// Has flushes reach `view` from now on.
    fn add(&self, view: &Arc<View>) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert(view.root(), Arc::clone(view));
    }

    /// Has them reach it no more: it shows nothing, for good.
    fn remove(&self, view: &View) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).remove(&view.root());
        view.close(self);
    }

    /// Shows a page of `view` for an access, as far as the tables allow it. Before there are too many mappings, the view that
    /// has most of them is dropped: its guest faults anew.
    fn fill(&self, view: &View, wanted: Wanted) -> Filled {
        let room = (self.mappings_max / 2).min(MAPPINGS_ROOM);
        if self.mappings.load(Ordering::Relaxed) + room > self.mappings_max {
            let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
            let largest = views.values().max_by_key(|view| view.mappings()).cloned();
            drop(views);
            largest.inspect(|largest| largest.clear(self));
        }
        match view.fill(self, wanted) {
            // Now that nothing is shown in it there is more room.
            Filled::Full => view.fill(self, wanted.alone()),
            filled => filled,
        }
    }

    fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts mappings that have become `after` where there were `before`. Whether there are not too many.
    fn count_mappings(&self, before: usize, after: usize) -> bool {
        let added = self.mappings.fetch_add(after, Ordering::Relaxed) + after;
        self.mappings.fetch_sub(before, Ordering::Relaxed);
        after <= before || added - before <= self.mappings_max
    }

    fn forget_mappings(&self, gone: usize) {
        self.mappings.fetch_sub(gone, Ordering::Relaxed);
    }
}

/// # Panics
/// Where there is no memory, where a word is not aligned, where bytes leave their frame, and where the host has no memory
/// left for a frame and a handler of SIGBUS is installed.
impl PhysMem for HostMachine {
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
        self.ram.zero(frame);
    }

    fn copy(&self, from: FrameNumber, to: FrameNumber) {
        self.ram.copy(from, to);
    }
}

/// A space that no view shows is known to no processor.
impl Mmu for HostMachine {
    fn flush(&self, root: FrameNumber, range: PageRange) {
        if let Some(view) = self.view(root) {
            view.sync(self, range);
        }
    }

    fn flush_all(&self, root: FrameNumber) {
        if let Some(view) = self.view(root) {
            view.clear(self);
        }
    }

    fn processor(&self) -> usize {
        // SAFETY: asks for a number.
        let number = unsafe { libc::sched_getcpu() };
        usize::try_from(number).unwrap_or_default()
    }
}

/// Three quarters of what a process may have: the rest is for everybody else in it.
fn default_mappings_max() -> usize {
    /// What Linux has if nobody says otherwise (`DEFAULT_MAX_MAP_COUNT`).
    const USUAL: usize = 65_530;
    let told = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    told.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL) / 4 * 3
}

/// The machine and the pager over it.
#[derive(Debug)]
pub struct HostMemory {
    pager: Arc<Pager<HostMachine>>,
}

impl HostMemory {
    /// Memory of which all is free. `account` pays for what belongs to no space.
    ///
    /// # Errors
    /// [`HostMemoryError`]: a size that cannot be, or the host or the account refuses.
    pub fn new(options: &HostMemoryOptions, account: &Account) -> Result<Arc<Self>, HostMemoryError> {
        let frames = options.bytes / PAGE_SIZE;
        // Nobody is given frame 0.
        if !(2..=Page::FRAMES).contains(&frames) {
            return Err(HostMemoryError::Size);
        }
        let all = FrameNumber::new(0).and_then(|first| FrameRange::new(first, PageCount::new(frames)));
        let mut map = MemoryMap::new();
        map.add(all.ok_or(HostMemoryError::Size)?, MemoryKind::Usable).map_err(HostMemoryError::Frames)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let config = FramesConfig { processors, ..FramesConfig::default() };
        let mappings_max = options.mappings_max.unwrap_or_else(default_mappings_max);
        let machine = Arc::new(HostMachine::new(frames, mappings_max).map_err(HostMemoryError::Host)?);
        let free = ChunkAllocator::new(&map).map_err(HostMemoryError::Frames)?;
        let free = Box::new(PunchingAllocator::new(&machine, free));
        let frames = Frames::with_allocator(&map, config, free).map_err(HostMemoryError::Frames)?;
        let pager = Pager::new(Arc::clone(&machine), frames, account).map_err(HostMemoryError::Pager)?;
        machine.zeros.get_or_init(|| pager.zero_frame());
        Ok(Arc::new(Self { pager }))
    }

    /// The pager.
    pub const fn pager(&self) -> &Arc<Pager<HostMachine>> {
        &self.pager
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<HostMachine> {
        self.pager.machine()
    }

    /// What the memory is used for, and what it costs the host.
    pub fn usage(&self) -> HostUsage {
        let (machine, frames) = (self.machine(), self.pager.frames());
        HostUsage {
            frames: frames.total() - frames.available().min(frames.total()),
            host_bytes: machine.ram.host_bytes(),
            mappings: machine.mappings.load(Ordering::Relaxed),
            faults: machine.faults.load(Ordering::Relaxed),
        }
    }
}
