//! Faults and forks of whole address spaces, with nobody to compare with: what stands beside a fault is the zeroing or
//! the copying that it cannot do without, beside a fork of much memory one of little.
//!
//! A fault is what [`AddressSpace::fault`] does; what a processor takes to get there is no part of it. Faults have real
//! memory. Forks have [`SparseMemory`]: each page has a frame of its own, which is charged and counted, and tables are
//! real, but the zeros in the pages are not.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use pagewarden::frame::{FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::linux::{Advice, MapFlags, MapSource, MmapRequest, Request};
use pagewarden::manager::{Access, Layout, SpaceConfig};
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::pager::{AddressSpace, Pager};
use pagewarden::{Account, Limits, PAGE_SIZE, PageCount, ResourceLedger, VirtAddr};

use super::contest::{Contestant, Stopwatch};
use super::raw::DirectMap;
use super::sparse::SparseMemory;

/// Where memory is mapped: at a multiple of 1 GiB.
const START: u64 = 0x40_0000_0000;
/// Loads and stores are allowed.
const READ_WRITE: u64 = 3;
/// Pages that fault in a turn.
const PAGES: u64 = 1 << 11;
/// Frames for faults, besides those that are zeroed and copied alone.
const FAULT_FRAMES: u64 = 1 << 13;
/// Frames beyond the memory that was asked for: tables, and what is copied.
const SPARE_FRAMES: u64 = 1 << 13;
const GIB: u64 = 1 << 30;

/// A pager with all of `frames` frames but the first, and who pays.
pub(crate) fn pager<M: PhysMem + Mmu + 'static>(
    memory: Arc<M>,
    frames: u64,
) -> Result<(Arc<Pager<M>>, ResourceLedger)> {
    let first = FrameNumber::new(0).context("frame 0")?;
    let all = FrameRange::new(first, PageCount::new(frames)).context("some frames")?;
    let mut map = MemoryMap::new();
    map.add(all, MemoryKind::Usable)?;
    let config = FramesConfig { zeroed_frames: 0, ..FramesConfig::default() };
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let pager = Pager::new(memory, Frames::new(&map, config)?, ledger.root());
    Ok((pager.map_err(|errno| anyhow!("a pager: {}", errno.name()))?, ledger))
}

/// A space with `pages` pages of private memory at [`START`].
fn space<M: PhysMem + Mmu + 'static>(pager: &Arc<Pager<M>>, account: &Account, pages: u64) -> Result<AddressSpace<M>> {
    let config = SpaceConfig::new(Layout::X86_64, account.clone());
    let space = AddressSpace::new(pager, config).map_err(|errno| anyhow!("a space: {}", errno.name()))?;
    map(&space, 0, pages, MapFlags::PRIVATE)?;
    Ok(space)
}

/// Maps `pages` pages of memory from page `first` after [`START`] on.
pub(crate) fn map<M: PhysMem + Mmu + 'static>(
    space: &AddressSpace<M>,
    first: u64,
    pages: u64,
    flags: MapFlags,
) -> Result<()> {
    let request = Request::Mmap(MmapRequest {
        addr: START + first * PAGE_SIZE,
        len: pages * PAGE_SIZE,
        prot: READ_WRITE,
        flags: flags | MapFlags::ANONYMOUS | MapFlags::FIXED,
        source: MapSource::Anonymous,
        offset: 0,
    });
    call(space, &request)
}

fn call<M: PhysMem + Mmu + 'static>(space: &AddressSpace<M>, request: &Request) -> Result<()> {
    space.call(request).map(drop).map_err(|refusal| anyhow!("{request:?}: {refusal:?}"))
}

#[inline]
fn touch<M: PhysMem + Mmu + 'static>(space: &AddressSpace<M>, page: u64, access: Access) {
    let done = space.fault(VirtAddr::new(START + page * PAGE_SIZE), access);
    assert!(done.is_ok(), "a page that may be touched: {done:?}");
}

/// What faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultRow {
    /// A load where nothing was: the zero frame is shown.
    Load,
    /// A store where nothing was: a zeroed frame.
    Store,
    /// A store to a page that another space shows: a copy.
    Copy,
}

impl FaultRow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Load, Self::Store, Self::Copy];

    /// What tables and options call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "demand-zero fault, load",
            Self::Store => "demand-zero fault, store",
            Self::Copy => "copy-on-write fault",
        }
    }

    /// How many operations a turn has.
    #[expect(clippy::cast_possible_truncation, reason = "a constant")]
    pub const fn operations(self) -> usize {
        PAGES as usize
    }
}

/// A space that faults.
struct Faults {
    space: AddressSpace<DirectMap>,
    ledger: ResourceLedger,
}

impl Contestant<FaultRow> for Faults {
    fn name(&self) -> &'static str {
        "pagewarden"
    }

    fn prepare(&mut self, row: FaultRow) {
        if row == FaultRow::Copy {
            (0..PAGES).for_each(|page| touch(&self.space, page, Access::Write));
        }
    }

    fn turn(&mut self, row: FaultRow, watch: &mut Stopwatch) -> Result<()> {
        if row == FaultRow::Copy {
            let child = self.space.fork(self.ledger.root()).map_err(|refusal| anyhow!("a fork: {refusal:?}"))?;
            return watch.time(|| (0..PAGES).for_each(|page| touch(&child, page, Access::Write)));
        }
        let access = if row == FaultRow::Load { Access::Read } else { Access::Write };
        watch.time(|| (0..PAGES).for_each(|page| touch(&self.space, page, access)))?;
        self.forget()
    }

    fn finish(&mut self, _: FaultRow) {
        let forgotten = self.forget();
        assert!(forgotten.is_ok(), "{forgotten:?}");
    }
}

impl Faults {
    fn forget(&self) -> Result<()> {
        let len = PAGES * PAGE_SIZE;
        call(&self.space, &Request::Madvise { addr: START, len, advice: Advice::DontNeed as i32 })
    }
}

/// The same memory zeroed or copied, and nothing else.
struct MemoryAlone(Arc<DirectMap>);

impl Contestant<FaultRow> for MemoryAlone {
    fn name(&self) -> &'static str {
        "zeroing or copying alone"
    }

    fn able(&self, row: FaultRow) -> Result<(), &'static str> {
        if row == FaultRow::Load { Err("nothing is zeroed") } else { Ok(()) }
    }

    fn turn(&mut self, row: FaultRow, watch: &mut Stopwatch) -> Result<()> {
        let frame = |number| FrameNumber::new(FAULT_FRAMES + number).context("a frame");
        let frames = (0..2 * PAGES).map(frame).collect::<Result<Vec<_>>>()?;
        let (low, high) = frames.split_at(frames.len() / 2);
        watch.time(|| match row {
            FaultRow::Load => {}
            FaultRow::Store => low.iter().for_each(|&frame| self.0.zero(frame)),
            FaultRow::Copy => low.iter().zip(high).for_each(|(&from, &to)| self.0.copy(from, to)),
        })
    }
}

/// Who takes part in the rows of faults: pagewarden, and what no fault can do without.
///
/// # Errors
/// If there is no memory.
pub fn faults() -> Result<Vec<Box<dyn Contestant<FaultRow>>>> {
    let memory = DirectMap::new(FAULT_FRAMES + 2 * PAGES);
    let (pager, ledger) = pager(Arc::clone(&memory), FAULT_FRAMES)?;
    let space = space(&pager, ledger.root(), PAGES)?;
    Ok(vec![Box::new(Faults { space, ledger }), Box::new(MemoryAlone(memory))])
}

/// What a fork is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkRow {
    /// Of a space with nothing but private memory.
    Private,
    /// Of one with a page of shared memory right after it.
    Beside,
    /// The first store of a child, which is told apart from its parent there.
    FirstStore,
    /// The end of a child that has done nothing.
    End,
}

impl ForkRow {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Private, Self::Beside, Self::FirstStore, Self::End];

    /// What tables and options call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Private => "fork",
            Self::Beside => "fork, shared memory beside",
            Self::FirstStore => "first store after a fork",
            Self::End => "end of an idle child",
        }
    }
}

/// A space with so much private memory, every page of which has a frame.
struct Forks {
    name: &'static str,
    pages: u64,
    space: AddressSpace<SparseMemory>,
    account: Account,
}

impl Forks {
    fn new(pager: &Arc<Pager<SparseMemory>>, account: &Account, (name, bytes): (&'static str, u64)) -> Result<Self> {
        let pages = bytes / PAGE_SIZE;
        let space = space(pager, account, pages)?;
        let before = pager.frames().available();
        (0..pages).for_each(|page| touch(&space, page, Access::Write));
        anyhow::ensure!(before - pager.frames().available() >= pages, "{name}: pages without a frame");
        Ok(Self { name, pages, space, account: account.clone() })
    }

    /// Makes the way to every GiB the parent's own again, as it was before the first fork.
    fn store_everywhere(&self) {
        let step = usize::try_from(GIB / PAGE_SIZE).unwrap_or(usize::MAX);
        (0..self.pages).step_by(step).for_each(|page| touch(&self.space, page, Access::Write));
    }

    fn fork(&self) -> AddressSpace<SparseMemory> {
        self.space.fork(&self.account).expect("memory for a child")
    }
}

impl Contestant<ForkRow> for Forks {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, row: ForkRow) {
        if row == ForkRow::Beside {
            map(&self.space, self.pages, 1, MapFlags::SHARED).expect("room for a page");
            touch(&self.space, self.pages, Access::Write);
        }
    }

    fn turn(&mut self, row: ForkRow, watch: &mut Stopwatch) -> Result<()> {
        match row {
            ForkRow::Private | ForkRow::Beside => drop(watch.time(|| self.fork())?),
            ForkRow::FirstStore => {
                let child = self.fork();
                watch.time(|| touch(&child, self.pages / 2, Access::Write))?;
            }
            ForkRow::End => {
                let child = self.fork();
                watch.time(|| drop(child))?;
            }
        }
        self.store_everywhere();
        Ok(())
    }

    fn finish(&mut self, row: ForkRow) {
        if row == ForkRow::Beside {
            let request = Request::Munmap { addr: START + self.pages * PAGE_SIZE, len: PAGE_SIZE };
            call(&self.space, &request).expect("a page that is mapped");
        }
    }
}

/// How much memory is forked.
pub const SIZES: [(&str, u64); 3] = [("1 MiB", 1 << 20), ("256 MiB", 256 << 20), ("4 GiB", 4 << 30)];

/// Who takes part in the rows of forks: a space of each size.
///
/// # Errors
/// If there is no memory.
pub fn forks(sizes: &[(&'static str, u64)]) -> Result<Vec<Box<dyn Contestant<ForkRow>>>> {
    let frames = sizes.iter().map(|(_, bytes)| bytes / PAGE_SIZE).sum::<u64>() + SPARE_FRAMES;
    let memory = Arc::new(SparseMemory::new(usize::try_from(frames)?));
    let (pager, ledger) = pager(memory, frames)?;
    let one = |&size| Ok(Box::new(Forks::new(&pager, ledger.root(), size)?) as Box<dyn Contestant<_>>);
    sizes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_turns<R: Copy>(all: &mut [Box<dyn Contestant<R>>], rows: &[R]) {
        let mut watch = Stopwatch::new().unwrap();
        for one in all {
            for &row in rows.iter().filter(|row| one.able(**row).is_ok()).collect::<Vec<_>>() {
                one.prepare(row);
                one.turn(row, &mut watch).unwrap();
                one.turn(row, &mut watch).unwrap();
                one.finish(row);
            }
        }
    }

    #[test]
    fn spaces_fault_and_fork_again_and_again() {
        all_turns(&mut faults().unwrap(), &FaultRow::ALL);
        all_turns(&mut forks(&SIZES[..1]).unwrap(), &ForkRow::ALL);
    }
}
