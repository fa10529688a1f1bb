//! Tables built by hand, and what processors make of them.

mod cache;
mod failing;
mod guest;
mod ram;
mod tlb;
mod walk;

use core::cell::Cell;

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
