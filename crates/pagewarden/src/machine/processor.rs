//! One processor: what it remembers of page tables, and how it walks them when it does not.

use super::LOWER_HALF_LAST;
use super::cache::Cache;
use super::fault::FaultCode;
use super::ram::Ram;
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::frame::FrameNumber;
use crate::manager::{Access, KeyRights};
use crate::page_table::{Entry, EntryFlags, Level};
use crate::prot::{Prot, ProtectionKey};

/// Bits of physical addresses that the processor has; the others up to [`PhysAddr::BITS`] are reserved in entries.
pub(super) const PHYSICAL_BITS: u32 = 46;

/// What the TLB keeps of a page: the leaf, with the rights of all levels.
pub(super) struct Translation {
    /// Whose tables it was read from.
    pub(super) root: FrameNumber,
    /// The first frame.
    pub(super) frame: FrameNumber,
    pub(super) rights: Prot,
    key: ProtectionKey,
    /// Whether the leaf was dirty: stores need not set that any more.
    pub(super) is_dirty: bool,
    pub(super) is_global: bool,
}

impl Translation {
    /// Where `address` is, which lies in the page of `level` that this is for.
    fn place(&self, level: Level, address: VirtAddr) -> PhysAddr {
        let offset = address.as_u64() & (level.pages() * PAGE_SIZE - 1);
        self.frame.start().checked_add(offset).unwrap_or_else(|| unreachable!("the frame is aligned to its level"))
    }
}

/// What the caches of upper levels keep of an entry: the table below it, with the rights of all levels down to it.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) frame: FrameNumber,
    rights: Prot,
}

/// What a processor has counted.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) walks: u64,
    pub(super) hits: u64,
    pub(super) faults: u64,
}

pub(super) struct Processor {
    /// Whose tables are walked; what is remembered and not global is of this space.
    pub(super) root: Option<FrameNumber>,
    /// Whether user code runs. If not, `root` stays until another is loaded.
    pub(super) is_running: bool,
    pub(super) keys: KeyRights,
    pub(super) pages: Cache<Translation>,
    /// By the level of the entry, which is the one above the table's.
    pub(super) tables: Cache<Table>,
    pub(super) counts: Counts,
}

impl Processor {
    pub(super) fn new(pages: usize, tables: usize) -> Self {
        Self {
            root: None,
            is_running: false,
            keys: KeyRights::default(),
            pages: Cache::new(pages),
            tables: Cache::new(tables),
            counts: Counts::default(),
        }
    }

    /// Runs in the space of `root` from now on.
    pub(super) fn activate(&mut self, root: FrameNumber) {
        self.pages.retain(|page| page.is_global);
        self.tables.retain(|_| false);
        self.root = Some(root);
        self.is_running = true;
    }

    /// Forgets the pages `first..=last` in the space of `root`.
    pub(super) fn forget(&mut self, root: FrameNumber, first: u64, last: u64) {
        let is_here = self.root == Some(root) || first > LOWER_HALF_LAST;
        self.pages.remove(first, last, |page| is_here || page.root == root);
        if is_here {
            self.tables.remove(first, last, |_| true);
        }
    }

    /// The place in memory that `access` to `address` goes to.
    pub(super) fn translate(&mut self, ram: &Ram, address: VirtAddr, access: Access) -> Result<PhysAddr, FaultCode> {
        let root = self.root.filter(|_| self.is_running).expect("the processor runs in a space");
        let page = address.page_number();
        for level in [Level::One, Level::Two, Level::Three] {
            let Some(known) = self.pages.find(level, page) else { continue };
            let is_enough = known.is_dirty || access != Access::Write;
            if is_enough && self.check(known.rights, known.key, access).is_ok() {
                self.counts.hits += 1;
                return Ok(known.place(level, address));
            }
            self.pages.remove(page, page, |_| true);
            break;
        }
        self.counts.walks += 1;
        self.walk(ram, root, address, access).map_err(|cause| {
            self.counts.faults += 1;
            // Of the page itself nothing is known any more, or there had been no walk.
            self.tables.remove(page, page, |_| true);
            cause | FaultCode::of(access)
        })
    }

    fn walk(&mut self, ram: &Ram, root: FrameNumber, address: VirtAddr, access: Access) -> Result<PhysAddr, FaultCode> {
        if !is_canonical(address) {
            return Err(FaultCode::NOT_CANONICAL);
        }
        let page = address.page_number();
        let (mut level, mut table) = self.lowest_table(root, page);
        loop {
            let (entry, rights) = self.follow(ram, table, level, (address, access))?;
            if !entry.is_table(level) {
                let known = Translation {
                    root,
                    frame: first_frame(entry, level),
                    rights,
                    key: entry.key(),
                    is_dirty: entry.contains(EntryFlags::DIRTY),
                    is_global: entry.contains(EntryFlags::GLOBAL),
                };
                let place = known.place(level, address);
                self.pages.insert(level, page, known);
                return Ok(place);
            }
            table = Table { frame: entry.frame(), rights };
            self.tables.insert(level, page, table);
            level = level.below().unwrap_or_else(|| unreachable!("level 1 has no tables below it"));
        }
    }

    /// The table of the lowest level that is known to lead to `page`: nothing above it is looked at.
    fn lowest_table(&self, root: FrameNumber, page: u64) -> (Level, Table) {
        for (above, level) in [(Level::Two, Level::One), (Level::Three, Level::Two), (Level::Four, Level::Three)] {
            if let Some(table) = self.tables.find(above, page) {
                return (level, *table);
            }
        }
        (Level::ROOT, Table { frame: root, rights: Prot::all() })
    }

    /// Uses the entry of `table`, and marks it as used in the same step as it finds it usable. Returns it with the
    /// rights down to it.
    fn follow(
        &self,
        ram: &Ram,
        table: Table,
        level: Level,
        (address, access): (VirtAddr, Access),
    ) -> Result<(Entry, Prot), FaultCode> {
        let place = table.frame.at(level.index(address) * size_of::<u64>() as u64);
        loop {
            let entry = Entry::from_word(ram.load(place));
            if !entry.is_present() {
                return Err(FaultCode::empty());
            }
            if has_reserved_bits(entry, level) {
                return Err(FaultCode::PRESENT | FaultCode::RESERVED);
            }
            let rights = table.rights & rights_of(entry);
            let mut marks = EntryFlags::ACCESSED;
            if !entry.is_table(level) {
                self.check(rights, entry.key(), access)?;
                marks.set(EntryFlags::DIRTY, access == Access::Write);
            }
            let marked = entry.with(marks);
            if entry == marked || ram.compare_exchange(place, entry.word(), marked.word()).is_ok() {
                return Ok((marked, rights));
            }
        }
    }

    /// Whether memory with these rights and this key may be accessed so.
    fn check(&self, rights: Prot, key: ProtectionKey, access: Access) -> Result<(), FaultCode> {
        let needed = match access {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        };
        // Keys are for memory of user code alone.
        let is_locked = !rights.is_empty() && self.keys.forbid(key, access);
        if rights.contains(needed) && !is_locked {
            return Ok(());
        }
        Err(if is_locked { FaultCode::PRESENT | FaultCode::KEY } else { FaultCode::PRESENT })
    }
}

/// The rights that an entry leaves to user code.
fn rights_of(entry: Entry) -> Prot {
    if !entry.contains(EntryFlags::USER) {
        return Prot::NONE;
    }
    let mut rights = Prot::all();
    rights.set(Prot::WRITE, entry.contains(EntryFlags::WRITABLE));
    rights.set(Prot::EXEC, !entry.contains(EntryFlags::NO_EXECUTE));
    rights
}

/// The first frame of a leaf. The lowest bit of a large one's frame is not part of the address.
fn first_frame(leaf: Entry, level: Level) -> FrameNumber {
    let number = leaf.frame().get() & !(level.pages() - 1);
    FrameNumber::new(number).unwrap_or_else(|| unreachable!("smaller than a frame's number"))
}

/// Whether a bit is set that the processor wants to be 0.
fn has_reserved_bits(entry: Entry, level: Level) -> bool {
    let beyond = entry.frame().start().as_u64() >> PHYSICAL_BITS != 0;
    let is_huge = entry.contains(EntryFlags::HUGE);
    let misaligned = match level {
        Level::One => false,
        // Bit 12 selects a memory type.
        Level::Two | Level::Three => is_huge && entry.frame().get() & (level.pages() - 1) & !1 != 0,
        Level::Four => is_huge,
    };
    beyond || misaligned
}

/// Whether the processor has such an address, with 48 bits of it.
const fn is_canonical(address: VirtAddr) -> bool {
    let sign = address.as_u64() >> 47;
    sign == 0 || sign == u64::MAX >> 47
}
