//! Tests of page tables, over a machine that remembers translations until it is told to forget, and an owner that counts
//! and refuses misuse.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as they do")]

mod cases;
mod failures;
mod races;
mod random;
mod spaces;
mod threads;
mod upper;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::vec::Vec;

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::FrameNumber;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, ForkPolicy, Gather, Level, PageTable, Released, Root, Share, TableOwner};

/// Frames for tables.
const FRAMES: u64 = 512;
/// What leaves show has numbers from here on.
const DATA: u64 = 0x10_0000;
/// What is in a table that was freed: an entry that leads out of memory.
const POISON: u64 = 0x000f_dead_dead_d067;
/// A leaf that shows memory which several spaces may write.
const SHARED: EntryFlags = EntryFlags::SOFT_1;

/// Told of a page, its frame, where its entry is, whether it may be written, and the tables above.
type Visit<'v> = dyn FnMut(u64, u64, PhysAddr, bool, &[u64]) + 'v;

type Tables<'a> = PageTable<'a, World, World>;

/// A translation that a processor has.
#[derive(Debug)]
struct Known {
    frame: u64,
    is_writable: bool,
    /// What it has set in the entry, and will not set again.
    set: u64,
    tables: Vec<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// References of tables that are not free.
    tables: BTreeMap<u64, u32>,
    free: Vec<u64>,
    /// How many leaves show a frame.
    leaves: BTreeMap<u64, u32>,
    known: BTreeMap<(u64, u64), Known>,
}

/// Memory, the unit that translates, and the owner of tables.
struct World {
    words: Vec<AtomicU64>,
    used: Vec<AtomicU32>,
    state: Mutex<State>,
    /// What can be asked for before something is refused.
    allowed: AtomicI64,
    next_frame: AtomicU64,
    flushes: AtomicU64,
    /// Whether a load from a table that was freed is an error: not where threads look and look again.
    is_strict: AtomicBool,
}

impl World {
    fn new() -> Self {
        let state = State { free: (1..FRAMES).rev().collect(), ..State::default() };
        Self {
            words: (0..FRAMES * 512).map(|_| AtomicU64::new(POISON)).collect(),
            used: (0..FRAMES).map(|_| AtomicU32::new(0)).collect(),
            state: Mutex::new(state),
            allowed: AtomicI64::new(i64::MAX),
            next_frame: AtomicU64::new(DATA),
            flushes: AtomicU64::new(0),
            is_strict: AtomicBool::new(true),
        }
    }

    fn tables(&self) -> Tables<'_> {
        PageTable::new(self, self)
    }

    fn word(&self, address: PhysAddr) -> &AtomicU64 {
        assert_eq!(address.as_u64() % 8, 0);
        let index = usize::try_from(address.as_u64() / 8).unwrap();
        self.words.get(index).unwrap_or_else(|| panic!("{address} is no memory"))
    }

    /// `frames` frames for leaves, each counted once, the first a multiple of `align`.
    fn new_frames(&self, frames: u64, align: u64) -> FrameNumber {
        let first = self.next_frame.load(Ordering::Relaxed).next_multiple_of(align);
        self.next_frame.store(first + frames, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap();
        state.leaves.extend((first..first + frames).map(|frame| (frame, 1)));
        FrameNumber::new(first).unwrap()
    }

    /// A frame for a leaf, counted once, whichever thread asks.
    fn thread_frame(&self) -> FrameNumber {
        let frame = self.next_frame.fetch_add(1, Ordering::Relaxed);
        self.state.lock().unwrap().leaves.insert(frame, 1);
        FrameNumber::new(frame).unwrap()
    }

    /// Takes back frames that were not shown after all.
    fn drop_frames(&self, first: FrameNumber, frames: u64) {
        let mut state = self.state.lock().unwrap();
        for frame in first.get()..first.get() + frames {
            assert_eq!(state.leaves.remove(&frame), Some(1), "frame {frame:#x} was counted though it is not shown");
        }
    }

    fn fail_after(&self, requests: i64) {
        self.allowed.store(requests, Ordering::Relaxed);
    }

    fn may(&self) -> Result<(), Errno> {
        if self.allowed.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(Errno::NoMem) }
    }

    /// Walks like a processor: each present leaf with its page, whether it may be written, and the tables above.
    fn walk(&self, root: FrameNumber, each: &mut Visit<'_>) {
        self.walk_table(&mut Vec::from([root.get()]), (4, 0), RW, each);
    }

    fn walk_table(&self, path: &mut Vec<u64>, (level, first): (u32, u64), above: EntryFlags, each: &mut Visit<'_>) {
        let frame = FrameNumber::new(*path.last().unwrap()).unwrap();
        let mut left = self.used_entries(frame).load(Ordering::Relaxed);
        for index in 0..512 {
            if left == 0 {
                return;
            }
            let at = frame.at(index * 8);
            let word = self.load(at);
            left -= u32::from(word != 0);
            if word & 1 == 0 {
                continue;
            }
            let mut page = first + (index << (9 * (level - 1)));
            if level == 4 && index >= 256 {
                page |= 0xffff << 36;
            }
            let above = above & EntryFlags::from_bits_truncate(word);
            let is_writable = above.contains(EntryFlags::WRITABLE);
            let target = (word & 0x000f_ffff_ffff_f000) >> 12;
            if level > 1 && word & 0x80 == 0 {
                path.push(target);
                self.walk_table(path, (level - 1, page), above, each);
                path.pop();
                continue;
            }
            for offset in 0..1 << (9 * (level - 1)) {
                each(page + offset, target + offset, at, is_writable, path);
            }
        }
    }

    /// A processor uses every page that is present: it sets the bits that it sets and knows the translation then.
    fn touch_all(&self, root: FrameNumber, is_touched: &mut dyn FnMut() -> (bool, bool)) {
        let mut known = Vec::new();
        self.walk(root, &mut |page, frame, at, is_writable, path| {
            let (loads, stores) = is_touched();
            if loads {
                let set = if stores && is_writable { 0x60 } else { 0x20 };
                self.word(at).fetch_or(set, Ordering::Relaxed);
                known.push(((root.get(), page), Known { frame, is_writable, set, tables: path.to_vec() }));
            }
        });
        self.state.lock().unwrap().known.extend(known);
    }

    /// No processor knows anything of the space of `root` that is not so any more.
    fn check_known(&self, root: FrameNumber) {
        let mut now = BTreeMap::new();
        self.walk(root, &mut |page, frame, at, is_writable, _| {
            now.insert(page, (frame, is_writable, self.load(at)));
        });
        for ((of, page), known) in &self.state.lock().unwrap().known {
            if *of == root.get() {
                let (frame, is_writable, word) =
                    *now.get(page).unwrap_or_else(|| panic!("page {page:#x} is still known"));
                assert_eq!(known.frame, frame, "page {page:#x} is known as another frame");
                assert!(is_writable || !known.is_writable, "page {page:#x} is known as writable");
                assert_eq!(word & known.set, known.set, "page {page:#x} is known as accessed or dirty");
            }
        }
    }

    /// Counts references anew from the spaces that there are.
    fn check_references(&self, roots: &[FrameNumber]) {
        let mut tables: BTreeMap<u64, u32> = BTreeMap::new();
        let mut leaves: BTreeMap<u64, u32> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = roots.iter().map(|root| (root.get(), 4)).collect();
        while let Some((table, level)) = open.pop() {
            *tables.entry(table).or_default() += 1;
            if !seen.insert(table) {
                continue;
            }
            for index in 0..512 {
                let word = self.load(FrameNumber::new(table).unwrap().at(index * 8));
                let target = (word & 0x000f_ffff_ffff_f000) >> 12;
                if word & 1 != 0 && level > 1 && word & 0x80 == 0 {
                    open.push((target, level - 1));
                } else if target != 0 {
                    let frames = 1 << (9 * (level - 1));
                    (target..target + frames).for_each(|frame| *leaves.entry(frame).or_default() += 1);
                }
            }
        }
        let state = self.state.lock().unwrap();
        assert_eq!(state.tables, tables, "references to tables");
        assert_eq!(state.leaves, leaves, "references to frames");
    }

    /// What may be written is shown once, unless it is meant to be shared.
    fn check_writable(&self, root: FrameNumber) {
        self.walk(root, &mut |page, frame, at, is_writable, path| {
            if is_writable && self.load(at) & SHARED.bits() == 0 {
                let state = self.state.lock().unwrap();
                assert_eq!(state.leaves[&frame], 1, "page {page:#x} is writable and shared");
                assert!(path.iter().all(|table| state.tables[table] == 1), "page {page:#x} is in a shared table");
            }
        });
    }
}

impl PhysMem for World {
    fn load(&self, address: PhysAddr) -> u64 {
        let word = self.word(address).load(Ordering::Acquire);
        assert!(word != POISON || !self.is_strict.load(Ordering::Relaxed), "{address} was freed");
        word
    }

    fn store(&self, address: PhysAddr, word: u64) {
        self.word(address).store(word, Ordering::Release);
    }

    fn compare_exchange(&self, address: PhysAddr, current: u64, new: u64) -> Result<(), u64> {
        self.word(address).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }

    fn read(&self, _: PhysAddr, _: &mut [u8]) {
        unreachable!("tables are words");
    }

    fn write(&self, _: PhysAddr, _: &[u8]) {
        unreachable!("tables are words");
    }

    fn zero(&self, frame: FrameNumber) {
        (0..512).for_each(|index| self.store(frame.at(index * 8), 0));
    }

    fn copy(&self, _: FrameNumber, _: FrameNumber) {
        unreachable!("tables are copied entry by entry");
    }
}

impl Mmu for World {
    fn flush(&self, root: FrameNumber, range: PageRange) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap();
        state
            .known
            .retain(|(of, page), _| *of != root.get() || !range.contains(VirtAddr::from_page_number(*page).unwrap()));
    }

    fn flush_all(&self, root: FrameNumber) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.state.lock().unwrap().known.retain(|(of, page), _| *of != root.get() || *page >= 1 << 35);
    }
}

impl TableOwner for World {
    fn allocate_table(&self) -> Result<FrameNumber, Errno> {
        self.may()?;
        let mut state = self.state.lock().unwrap();
        let frame = state.free.pop().ok_or(Errno::NoMem)?;
        state.tables.insert(frame, 1);
        let frame = FrameNumber::new(frame).unwrap();
        self.zero(frame);
        self.used_entries(frame).store(0, Ordering::Relaxed);
        Ok(frame)
    }

    fn release_table(&self, table: FrameNumber) -> Released {
        let mut state = self.state.lock().unwrap();
        let references = state.tables.get_mut(&table.get()).expect("the table is in use");
        *references = references.checked_sub(1).expect("the table is referred to");
        if *references == 0 { Released::Last } else { Released::StillUsed }
    }

    fn free_table(&self, table: FrameNumber) {
        let mut state = self.state.lock().unwrap();
        assert_eq!(state.tables.remove(&table.get()), Some(0), "{table} is freed while it is in use");
        let user = state.known.iter().find(|(_, known)| known.tables.contains(&table.get()));
        assert!(user.is_none(), "{table} is freed while a processor knows {user:?}");
        (0..512).for_each(|index| self.store(table.at(index * 8), POISON));
        state.free.push(table.get());
    }

    fn share_table(&self, table: FrameNumber) -> Result<(), Errno> {
        self.may()?;
        let mut state = self.state.lock().unwrap();
        let references = state.tables.get_mut(&table.get()).expect("the table is in use");
        assert!(*references > 0, "{table} is shared after its last reference went");
        *references += 1;
        Ok(())
    }

    fn table_references(&self, table: FrameNumber) -> u32 {
        *self.state.lock().unwrap().tables.get(&table.get()).expect("the table is in use")
    }

    fn used_entries(&self, table: FrameNumber) -> &AtomicU32 {
        &self.used[usize::try_from(table.get()).unwrap()]
    }

    fn share_leaf(&self, leaf: Entry, level: Level) -> Result<Entry, Errno> {
        self.may()?;
        let first = leaf.frame().get();
        if first != 0 {
            let mut state = self.state.lock().unwrap();
            for frame in first..first + level.pages() {
                *state.leaves.get_mut(&frame).expect("the frame is in use") += 1;
            }
        }
        Ok(if leaf.contains(SHARED) { leaf } else { leaf.without(EntryFlags::WRITABLE) })
    }

    fn protect_leaf(&self, leaf: Entry, level: Level) -> Entry {
        let first = leaf.frame().get();
        let state = self.state.lock().unwrap();
        let is_shared = first != 0 && (first..first + level.pages()).any(|frame| state.leaves[&frame] > 1);
        if is_shared && !leaf.contains(SHARED) { leaf.without(EntryFlags::WRITABLE) } else { leaf }
    }

    fn release_leaf(&self, leaf: Entry, level: Level) {
        let first = leaf.frame().get();
        if first == 0 {
            return;
        }
        let mut state = self.state.lock().unwrap();
        for frame in first..first + level.pages() {
            let count = state.leaves.get_mut(&frame).expect("the frame is in use");
            *count -= 1;
            if *count == 0 {
                state.leaves.remove(&frame);
                let user = state.known.iter().find(|(_, known)| known.frame == frame);
                assert!(user.is_none(), "frame {frame:#x} is released while a processor knows {user:?}");
            }
        }
    }
}

/// `pages` pages from `first` on.
fn pages(first: u64, pages: u64) -> PageRange {
    PageRange::from_pages(first, crate::addr::PageCount::new(pages)).unwrap()
}

/// The address of a page.
fn at(page: u64) -> VirtAddr {
    VirtAddr::from_page_number(page).unwrap()
}

const RW: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);
const RO: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::USER);

/// A fork that shares every table there is.
struct ShareAll;

impl ForkPolicy for ShareAll {
    fn decide(&mut self, _: PageRange) -> Share {
        Share::All
    }

    fn copy_leaf(&mut self, _: VirtAddr, _: Entry, _: Level) -> Result<Option<(Entry, Entry)>, Errno> {
        unreachable!("all tables are shared as a whole")
    }
}
