//! Page tables: pages of 1 GiB in random order, and all of it at once.
//!
//! Everybody's tables lie in the same memory, and come from a stack of frames. What is mapped is never reached. Nobody
//! flushes: the tokens that come for pages are ignored, the flushes that pagewarden asks for after ranges are counted.
//!
//! What differs is how much is done besides. Pagewarden counts the entries of each table, frees tables that become empty,
//! refuses to map over what is there before it has changed anything, and hands the leaves of ranges back to their owner
//! after the flush. Of the peers neither counts; `x86_64` frees tables on request, which is not timed, `page_table_multiarch` only
//! all of them.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use anyhow::{Result, ensure};
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::mmu::PhysMem;
use pagewarden::page_table::{Entry, EntryFlags, Gather, Level, Mapped, PageTable, Released, Root, TableOwner};
use pagewarden::{Errno, PageCount, PageRange, VirtAddr};

use super::contest::{Contestant, Stopwatch};
use super::raw::{DirectMap, Multiarch, OffsetMapper, Portion};
use crate::random::Random;

/// Pages of the area: 1 GiB.
pub const AREA: u64 = 1 << 18;
/// Where the area begins.
pub const AREA_START: u64 = 0x40_0000_0000;
/// What it shows, from here on: aligned to 2 MiB and not to 1 GiB, lest a peer takes one entry for all.
const DATA_START: u64 = 0x1_0020_0000;
/// Pages that rows of single pages go through.
const PLACES: usize = 1 << 14;
/// Frames that each has for its tables: those of the area are 515.
const TABLE_FRAMES: u64 = 1024;
/// How often rows of large pages are done in one turn.
const LARGE_TIMES: usize = 16;

/// The address of page `index` of the area.
#[inline]
pub const fn page_address(index: u64) -> u64 {
    AREA_START + (index << 12)
}

/// The address of what it shows.
#[inline]
pub const fn data_address(index: u64) -> u64 {
    DATA_START + (index << 12)
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Something is shown where nothing is.
    Map,
    /// Nothing is shown any more.
    Unmap,
    /// Stores become forbidden, or allowed.
    Protect,
    /// What is there is asked.
    Query,
}

/// Pages of which an area is made up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagesOf {
    /// The small ones.
    FourKiB,
    /// The large ones.
    TwoMiB,
}

/// What an entry says of stores so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// There was one, as in a page that was mapped for it.
    Dirty,
    /// There was none: a processor may be about to say that there is.
    Clean,
}

/// With what it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// A page, its neighbours being mapped.
    Page(Content),
    /// All of the area.
    Area(PagesOf),
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// What is done.
    pub act: Act,
    /// With what.
    pub extent: Extent,
}

impl Row {
    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        let acts = [Act::Map, Act::Unmap, Act::Protect, Act::Query];
        let of = move |extent| acts.into_iter().map(move |act| Self { act, extent });
        let clean = [Act::Unmap, Act::Protect].map(|act| Self { act, extent: Extent::Page(Content::Clean) });
        let areas = [PagesOf::FourKiB, PagesOf::TwoMiB].map(Extent::Area);
        of(Extent::Page(Content::Dirty)).chain(clean).chain(areas.into_iter().flat_map(of))
    }

    /// What tables and options call it.
    pub fn name(self) -> String {
        let act = match self.act {
            Act::Map => "map",
            Act::Unmap => "unmap",
            Act::Protect => "protect",
            Act::Query => "query",
        };
        let extent = match self.extent {
            Extent::Page(Content::Dirty) => "a page",
            Extent::Page(Content::Clean) => "a clean page",
            Extent::Area(PagesOf::FourKiB) => "1 GiB",
            Extent::Area(PagesOf::TwoMiB) => "1 GiB of 2 MiB pages",
        };
        format!("{act} {extent}")
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        match self.extent {
            Extent::Page(_) => PLACES,
            Extent::Area(PagesOf::FourKiB) => 1,
            Extent::Area(PagesOf::TwoMiB) => LARGE_TIMES,
        }
    }
}

/// What a page allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// Loads.
    Read,
    /// Stores too.
    ReadWrite,
}

impl Rights {
    const fn other(self) -> Self {
        match self {
            Self::Read => Self::ReadWrite,
            Self::ReadWrite => Self::Read,
        }
    }
}

/// Page tables of somebody. The pages of the area are mapped with all rights, each to its own data, or not at all; the
/// area as a whole as if all of it were dirty.
pub trait Tables: Sized {
    /// What tables of figures call it.
    const NAME: &'static str;

    /// Empty tables that lie in frames of `portion`.
    fn new(memory: &Arc<DirectMap>, portion: Portion) -> Self;

    /// Maps a page that is not mapped.
    fn map(&mut self, index: u64, content: Content);

    /// Unmaps a page that is mapped.
    fn unmap(&mut self, index: u64);

    /// Gives a page that is mapped, and has this content, other rights.
    fn protect(&mut self, index: u64, rights: Rights, content: Content);

    /// The address that a page shows.
    fn query(&self, index: u64) -> Option<u64>;

    /// Maps the area, in which nothing is mapped.
    fn map_all(&mut self, pages: PagesOf);

    /// Unmaps the area, all of which is mapped.
    fn unmap_all(&mut self, pages: PagesOf);

    /// Gives all of the area, which is mapped, other rights.
    fn protect_all(&mut self, pages: PagesOf, rights: Rights);

    /// The sum of the addresses that are shown.
    fn query_all(&self, pages: PagesOf) -> u64;

    /// Frees empty tables; nothing is mapped.
    fn clean(&mut self);

    /// How many frames for tables are free.
    fn table_frames_free(&self) -> usize;
}

struct Turns<T> {
    tables: T,
    /// Every second page at most, so that no table becomes empty.
    places: Vec<u64>,
    rights: Rights,
}

/// Odd pages of the area in random order.
fn places() -> Vec<u64> {
    let mut random = Random::new(0x7061_6765);
    let mut odd: Vec<u64> = (0..AREA).skip(1).step_by(2).collect();
    random.shuffle(&mut odd);
    odd.truncate(PLACES);
    odd
}

impl<T: Tables> Turns<T> {
    fn pages(&mut self, act: Act, content: Content, watch: &mut Stopwatch) -> Result<()> {
        let Self { tables, places, rights } = self;
        let map = |tables: &mut T| places.iter().for_each(|&page| tables.map(page, content));
        let unmap = |tables: &mut T| places.iter().for_each(|&page| tables.unmap(page));
        match act {
            Act::Map => {
                unmap(tables);
                watch.time(|| map(tables))
            }
            Act::Unmap => {
                watch.time(|| unmap(tables))?;
                map(tables);
                Ok(())
            }
            Act::Protect => {
                *rights = rights.other();
                watch.time(|| places.iter().for_each(|&page| tables.protect(page, *rights, content)))
            }
            Act::Query => watch.time(|| {
                places.iter().for_each(|&page| {
                    black_box(tables.query(page));
                });
            }),
        }
    }

    fn area(&mut self, act: Act, pages: PagesOf, watch: &mut Stopwatch) -> Result<()> {
        let tables = &mut self.tables;
        match act {
            Act::Map => {
                watch.time(|| tables.map_all(pages))?;
                tables.unmap_all(pages);
                tables.clean();
                Ok(())
            }
            Act::Unmap => {
                tables.map_all(pages);
                watch.time(|| tables.unmap_all(pages))?;
                tables.clean();
                Ok(())
            }
            Act::Protect => {
                self.rights = self.rights.other();
                watch.time(|| tables.protect_all(pages, self.rights))
            }
            Act::Query => watch.time(|| {
                black_box(tables.query_all(pages));
            }),
        }
    }
}

impl<T: Tables> Contestant<Row> for Turns<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn prepare(&mut self, row: Row) {
        match (row.extent, row.act) {
            (Extent::Page(content), _) => {
                self.tables.map_all(PagesOf::FourKiB);
                self.places.iter().for_each(|&page| {
                    self.tables.unmap(page);
                    self.tables.map(page, content);
                });
            }
            (Extent::Area(pages), Act::Protect | Act::Query) => self.tables.map_all(pages),
            (Extent::Area(_), Act::Map | Act::Unmap) => {}
        }
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        match row.extent {
            Extent::Page(content) => self.pages(row.act, content, watch),
            Extent::Area(pages) => (0..row.operations()).try_for_each(|_| self.area(row.act, pages, watch)),
        }
    }

    fn finish(&mut self, row: Row) {
        match (row.extent, row.act) {
            (Extent::Page(_), _) => self.tables.unmap_all(PagesOf::FourKiB),
            (Extent::Area(pages), Act::Protect | Act::Query) => self.tables.unmap_all(pages),
            (Extent::Area(_), Act::Map | Act::Unmap) => {}
        }
        self.tables.clean();
        self.rights = Rights::ReadWrite;
    }
}

/// Everybody, pagewarden first.
///
/// # Errors
/// If one shows something else than was mapped.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    // Frame 0 stays unused: to one of the peers an entry that leads there is empty.
    let memory = DirectMap::new(4 * TABLE_FRAMES);
    let portion = |number: u64| Portion::new(number * TABLE_FRAMES, TABLE_FRAMES);
    let all: Vec<Box<dyn Contestant<Row>>> = vec![
        ready::<Ours>(&memory, portion(1))?,
        ready::<OffsetMapper>(&memory, portion(2))?,
        ready::<Multiarch>(&memory, portion(3))?,
    ];
    Ok(all)
}

fn ready<T: Tables + 'static>(memory: &Arc<DirectMap>, portion: Portion) -> Result<Box<dyn Contestant<Row>>> {
    let mut tables = T::new(memory, portion);
    check(&mut tables)?;
    Ok(Box::new(Turns { tables, places: places(), rights: Rights::ReadWrite }))
}

/// Whether pages show what was mapped, in what order ever they came and went, and tables are given back.
fn check<T: Tables>(tables: &mut T) -> Result<()> {
    let free = tables.table_frames_free();
    let sum = |pages: &mut dyn Iterator<Item = u64>| pages.map(data_address).sum::<u64>();
    for (pages, step) in [(PagesOf::FourKiB, 1), (PagesOf::TwoMiB, 512)] {
        ensure!(tables.query_all(pages) == 0, "{}: something is mapped", T::NAME);
        tables.map_all(pages);
        tables.protect_all(pages, Rights::Read);
        tables.protect_all(pages, Rights::ReadWrite);
        let all = sum(&mut (0..AREA).step_by(step));
        ensure!(tables.query_all(pages) == all, "{}: the area of {pages:?} shows something else", T::NAME);
        tables.unmap_all(pages);
        tables.clean();
        ensure!(tables.table_frames_free() == free, "{}: tables of {pages:?} stay", T::NAME);
    }
    tables.map_all(PagesOf::FourKiB);
    let places = places();
    places.iter().for_each(|&page| tables.unmap(page));
    ensure!(places.iter().all(|&page| tables.query(page).is_none()), "{}: pages stay", T::NAME);
    let left = sum(&mut (0..AREA)) - sum(&mut places.iter().copied());
    ensure!(tables.query_all(PagesOf::FourKiB) == left, "{}: other pages show something else", T::NAME);
    for &page in &places {
        tables.map(page, Content::Clean);
        tables.protect(page, Rights::Read, Content::Clean);
    }
    let shown = |page: u64| tables.query(page) == Some(data_address(page));
    ensure!((0..AREA).all(shown), "{}: pages show something else", T::NAME);
    tables.unmap_all(PagesOf::FourKiB);
    tables.clean();
    Ok(())
}

/// Where pagewarden's tables come from: counts of entries beside the frames.
struct TableFrames {
    memory: Arc<DirectMap>,
    portion: Portion,
    used: Vec<AtomicU32>,
    references: Vec<Cell<u32>>,
}

impl TableFrames {
    #[inline]
    fn index(&self, table: FrameNumber) -> usize {
        usize::try_from(table.get() - self.portion.first()).unwrap_or(usize::MAX)
    }
}

impl TableOwner for TableFrames {
    fn allocate_table(&self) -> Result<FrameNumber, Errno> {
        let frame = self.portion.take().and_then(FrameNumber::new).ok_or(Errno::NoMem)?;
        self.memory.zero(frame);
        self.references[self.index(frame)].set(1);
        Ok(frame)
    }

    fn release_table(&self, table: FrameNumber) -> Released {
        let references = &self.references[self.index(table)];
        if references.get() == 1 {
            return Released::Last;
        }
        references.set(references.get() - 1);
        Released::StillUsed
    }

    fn free_table(&self, table: FrameNumber) {
        self.used[self.index(table)].store(0, std::sync::atomic::Ordering::Relaxed);
        self.portion.give(table.get());
    }

    fn share_table(&self, table: FrameNumber) -> Result<(), Errno> {
        let references = &self.references[self.index(table)];
        references.set(references.get() + 1);
        Ok(())
    }

    fn table_references(&self, table: FrameNumber) -> u32 {
        self.references[self.index(table)].get()
    }

    #[inline]
    fn used_entries(&self, table: FrameNumber) -> &AtomicU32 {
        &self.used[self.index(table)]
    }

    fn share_leaf(&self, leaf: Entry, _: Level) -> Result<Entry, Errno> {
        Ok(leaf)
    }

    fn protect_leaf(&self, leaf: Entry, _: Level) -> Entry {
        leaf
    }

    #[inline]
    fn release_leaf(&self, leaf: Entry, _: Level) {
        black_box(leaf);
    }
}

/// Pagewarden's tables.
struct Ours {
    memory: Arc<DirectMap>,
    owner: TableFrames,
    root: Root,
}

const BASE: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::USER).union(EntryFlags::NO_EXECUTE);

const fn flags(rights: Rights, content: Content) -> EntryFlags {
    let flags = match rights {
        Rights::Read => BASE,
        Rights::ReadWrite => BASE.union(EntryFlags::WRITABLE),
    };
    match content {
        Content::Clean => flags,
        Content::Dirty => flags.union(EntryFlags::ACCESSED).union(EntryFlags::DIRTY),
    }
}

#[inline]
fn frame(index: u64) -> FrameNumber {
    FrameNumber::new(data_address(index) >> 12).expect("the number of a frame")
}

#[inline]
fn page(index: u64) -> VirtAddr {
    VirtAddr::new(page_address(index))
}

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::from_pages(page(first).page_number(), PageCount::new(count)).expect("pages of the area")
}

impl Tables for Ours {
    const NAME: &'static str = "pagewarden";

    fn new(memory: &Arc<DirectMap>, portion: Portion) -> Self {
        let used = (0..TABLE_FRAMES).map(|_| AtomicU32::new(0)).collect();
        let references = vec![Cell::new(0); portion.free_frames()];
        let owner = TableFrames { memory: Arc::clone(memory), portion, used, references };
        let root = Root::new(&owner).expect("a frame for the root");
        Self { memory: Arc::clone(memory), owner, root }
    }

    #[inline]
    fn map(&mut self, index: u64, content: Content) {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let mapped = tables.map(&mut self.root, page(index), frame(index), flags(Rights::ReadWrite, content));
        mapped.expect("a page that is free");
    }

    #[inline]
    fn unmap(&mut self, index: u64) {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let unmapped = tables.unmap(&mut self.root, page(index));
        assert!(unmapped.is_ok_and(|stale| stale.is_some()), "a page that is mapped");
    }

    #[inline]
    fn protect(&mut self, index: u64, rights: Rights, content: Content) {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let protected = tables.protect_page(&mut self.root, page(index), flags(rights, content));
        assert!(protected.is_ok(), "exclusive tables");
    }

    #[inline]
    fn query(&self, index: u64) -> Option<u64> {
        let tables = PageTable::new(&*self.memory, &self.owner);
        match tables.query(&self.root, page(index)) {
            Mapped::Leaf { entry, .. } => Some(entry.frame().start().as_u64()),
            Mapped::Nothing(_) => None,
        }
    }

    fn map_all(&mut self, pages: PagesOf) {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let frames = FrameRange::new(frame(0), PageCount::new(AREA)).expect("frames of the area");
        let huge = if pages == PagesOf::TwoMiB { EntryFlags::HUGE } else { EntryFlags::empty() };
        let flags = flags(Rights::ReadWrite, Content::Dirty) | huge;
        tables.map_run(&mut self.root, page(0), frames, flags).expect("an area that is free");
    }

    fn unmap_all(&mut self, _: PagesOf) {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let all = pages(0, AREA);
        tables.make_clearable(&mut self.root, all).expect("exclusive tables");
        let mut gather = Gather::new(tables, &self.root);
        tables.clear(&mut self.root, all, &mut gather);
    }

    fn protect_all(&mut self, _: PagesOf, rights: Rights) {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let mut gather = Gather::new(tables, &self.root);
        tables
            .protect(&mut self.root, pages(0, AREA), flags(rights, Content::Dirty), &mut gather)
            .expect("exclusive tables");
    }

    fn query_all(&self, _: PagesOf) -> u64 {
        let tables = PageTable::new(&*self.memory, &self.owner);
        let add = &mut |sum, _, entry: Entry, _| sum + entry.frame().start().as_u64();
        tables.fold_entries(&self.root, pages(0, AREA), 0, add)
    }

    fn clean(&mut self) {}

    fn table_frames_free(&self) -> usize {
        self.owner.portion.free_frames()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_shows_what_was_mapped() {
        let mut all = all().unwrap();
        let mut watch = Stopwatch::new().unwrap();
        for one in &mut all {
            for row in Row::all() {
                one.prepare(row);
                one.turn(row, &mut watch).unwrap();
                one.turn(row, &mut watch).unwrap();
                one.finish(row);
            }
        }
    }
}
