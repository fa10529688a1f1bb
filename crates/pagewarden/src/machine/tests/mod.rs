//! Tables built by hand, and what processors make of them.

mod cache;
mod failing;
mod guest;
mod known;
mod other_world;
mod ram;
mod threads;
mod tlb;
mod walk;

use core::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Machine, MachineConfig, PageFault};
use crate::addr::{PhysAddr, VirtAddr};
use crate::frame::FrameNumber;
use crate::mmu::PhysMem;
use crate::page_table::{Entry, EntryFlags, Level};

const ALL_LEVELS: [Level; 4] = [Level::Four, Level::Three, Level::Two, Level::One];
/// Present, writable, executable and the user's.
const RWX: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);
/// Some address with a different index on each level.
const HERE: VirtAddr = VirtAddr::new(0x1234_5678_9000);

fn frame(number: u64) -> FrameNumber {
    FrameNumber::new(number).unwrap()
}

/// A machine with spaces whose tables are written without any thought of flushes.
struct Lab {
    machine: Machine,
    next_table: Cell<u64>,
}

impl Lab {
    /// Frames below this are for tables.
    const FIRST_PAGE: u64 = 0x200;

    fn new() -> Self {
        Self::with(MachineConfig::default())
    }

    fn with(config: MachineConfig) -> Self {
        Self { machine: Machine::new(config), next_table: Cell::new(1) }
    }

    /// An empty table.
    fn table(&self) -> FrameNumber {
        let number = self.next_table.replace(self.next_table.get() + 1);
        assert!(number < Self::FIRST_PAGE);
        self.machine.zero(frame(number));
        frame(number)
    }

    /// A space in which `processor` runs.
    fn space(&self, processor: usize) -> FrameNumber {
        let root = self.table();
        self.machine.activate(processor, root);
        root
    }

    /// Where the entry for `address` in a table of `level` is; the tables above it are made if there are none.
    fn place(&self, root: FrameNumber, address: VirtAddr, level: Level) -> PhysAddr {
        let mut table = root;
        for upper in ALL_LEVELS.into_iter().filter(|upper| *upper > level) {
            let place = table.at(upper.index(address) * 8);
            if !self.entry(place).is_present() {
                self.set(place, Entry::new(self.table(), RWX));
            }
            table = self.entry(place).frame();
        }
        table.at(level.index(address) * 8)
    }

    fn entry(&self, place: PhysAddr) -> Entry {
        Entry::from_word(PhysMem::load(&self.machine, place))
    }

    fn set(&self, place: PhysAddr, entry: Entry) {
        PhysMem::store(&self.machine, place, entry.word());
    }

    /// Maps `number`th page for data at `address`, and returns where the entry is.
    fn map(&self, root: FrameNumber, address: VirtAddr, number: u64, flags: EntryFlags) -> PhysAddr {
        let place = self.place(root, address, Level::One);
        self.set(place, Entry::new(frame(Self::FIRST_PAGE + number), flags));
        place
    }

    /// Writes a word to the first bytes of a page for data.
    fn mark(&self, number: u64, word: u64) {
        PhysMem::store(&self.machine, frame(Self::FIRST_PAGE + number).start(), word);
    }

    /// Loads a word on `processor`.
    fn load(&self, processor: usize, address: VirtAddr) -> Result<u64, PageFault> {
        let mut bytes = [0; 8];
        self.machine.load(processor, address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Held by tests whose threads must meet, which they seldom do while those of other tests compete for processors.
static THREADS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `one` over and over in another thread, until that panics or `other`, which is done over and over beside it and
/// told how often `one` has been done, says that it is enough.
fn beside(one: impl Fn() + Sync, mut other: impl FnMut(u64) -> bool) {
    let _alone = alone();
    let done = AtomicU64::new(0);
    // Gone also if this thread panics.
    let running = Arc::new(());
    let seen = Arc::downgrade(&running);
    thread::scope(|scope| {
        let running = running;
        let thread = scope.spawn(|| {
            while seen.strong_count() > 0 {
                one();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        while !thread.is_finished() && !other(done.load(Ordering::Relaxed)) {}
        drop(running);
    });
}
