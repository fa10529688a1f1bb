//! An object of 1 MiB comes into an address space and goes, against mmap and munmap of a memfd on the host.
//!
//! The object's pages are there before. The kernel chooses the place, and so does pagewarden; both spaces have other
//! regions too. A touch is a store to a page that is mapped and not shown yet: on the host the processor raises a fault
//! and comes back, with pagewarden it is what `AddressSpace::fault` does.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use pagewarden::cap::{FixedPlaces, FrameAllocatorCap, Handle, Mapping, Process, Rights};
use pagewarden::linux::MapFlags;
use pagewarden::manager::{Access, Layout, Place, SpaceConfig};
use pagewarden::object::{ObjectPages, Placement};
use pagewarden::{Limits, PAGE_SIZE, PageCount, PageRange, Prot, VirtAddr};

use crate::pager::contest::{Contestant, Stopwatch};
use crate::pager::raw::{DirectMap, HostObject};
use crate::pager::spaces;

/// Pages of the object.
const PAGES: u64 = (1 << 20) / PAGE_SIZE;
/// Regions that are in the space besides, about as many as the host's process has.
const REGIONS: u64 = 64;
/// Frames there are.
const FRAMES: u64 = 1 << 12;
/// Where the process has its fixed pages.
const PLACES: FixedPlaces =
    FixedPlaces { capability_set: VirtAddr::new(0x7000_0000), ring: VirtAddr::new(0x7000_1000) };
/// Pairs of a turn.
const PAIRS: usize = 64;
/// Pairs of a turn where pages are touched.
const TOUCHED_PAIRS: usize = 4;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// The object is mapped and unmapped.
    Untouched,
    /// Every page is stored to between.
    Touched,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 2] = [Self::Untouched, Self::Touched];

    /// What tables and options call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untouched => "map + unmap an object",
            Self::Touched => "map + touch 256 pages + unmap",
        }
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        match self {
            Self::Untouched => PAIRS,
            Self::Touched => TOUCHED_PAIRS,
        }
    }
}

/// A process of ours that holds an object by handle.
struct Ours {
    process: Process<DirectMap>,
    object: Handle,
}

impl Ours {
    fn new() -> Result<Self> {
        let (pager, ledger) = spaces::pager(DirectMap::new(FRAMES), FRAMES)?;
        let config = SpaceConfig::new(Layout::X86_64, ledger.root().child(Limits::UNLIMITED));
        let process = Process::new(&pager, config, PLACES).map_err(|error| anyhow!("a process: {error}"))?;
        for region in 0..REGIONS {
            spaces::map(process.space(), 2 * region, 1, MapFlags::PRIVATE)?;
        }
        let pool = Arc::new(FrameAllocatorCap::new(&pager, ledger.root().clone()));
        let object = process.give(pool, Rights::empty(), [0; 8]).and_then(|frames| {
            let object = process.allocate(frames, PageCount::new(PAGES), Placement::Scattered)?;
            process.table().release(frames)?;
            Ok(object)
        });
        Ok(Self { object: object.map_err(|error| anyhow!("an object: {error}"))?, process })
    }

    /// Maps the object anywhere; where.
    fn map(&self) -> Result<PageRange> {
        let part = ObjectPages::new(0, PageCount::new(PAGES)).context("pages of an object")?;
        let mapping = Mapping { part, prot: Prot::READ | Prot::WRITE, place: Place::Anywhere };
        self.process.map(self.object, mapping).map_err(|error| anyhow!("a mapping: {error}"))
    }

    fn unmap(&self, range: PageRange) -> Result<()> {
        self.process.unmap_borrowed(self.object, range).map_err(|error| anyhow!("unmapping: {error}"))
    }

    fn pair(&self, row: Row) -> Result<()> {
        let range = self.map()?;
        if row == Row::Touched {
            for page in range.first_page()..range.end_page() {
                let touched = self.process.space().fault(VirtAddr::new(page * PAGE_SIZE), Access::Write);
                touched.map_err(|fault| anyhow!("a page of an object: {fault:?}"))?;
            }
        }
        self.unmap(range)
    }

    /// Shows that what is stored in one mapping is there in the next.
    fn check(&self) -> Result<()> {
        let last = |range: PageRange| VirtAddr::new((range.end_page() - 1) * PAGE_SIZE);
        let space = self.process.space();
        let first = self.map()?;
        let copied = space.copy_to_user(last(first), &[7]);
        ensure!(copied.is_ok(), "{copied:?}");
        self.unmap(first)?;
        let second = self.map()?;
        let mut byte = [0];
        let copied = space.copy_from_user(last(second), &mut byte);
        ensure!(copied.is_ok() && byte == [7], "{copied:?}, {byte:?}");
        self.unmap(second)?;
        let after = space.fault(second.start(), Access::Read);
        ensure!(after.is_err(), "a page is still there after its unmapping");
        Ok(())
    }
}

impl Contestant<Row> for Ours {
    fn name(&self) -> &'static str {
        "pagewarden"
    }

    fn prepare(&mut self, _: Row) {
        let touched = self.pair(Row::Touched);
        assert!(touched.is_ok(), "{touched:?}");
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        watch.time(|| (0..row.operations()).try_for_each(|_| self.pair(row)))?
    }
}

/// The host kernel.
struct Host(HostObject);

impl Host {
    fn pair(&self, row: Row) -> Result<()> {
        let mapping = self.0.map()?;
        if row == Row::Touched {
            mapping.touch();
        }
        mapping.unmap()
    }
}

impl Contestant<Row> for Host {
    fn name(&self) -> &'static str {
        "host, memfd"
    }

    fn prepare(&mut self, _: Row) {
        let touched = self.pair(Row::Touched);
        assert!(touched.is_ok(), "{touched:?}");
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        watch.time(|| (0..row.operations()).try_for_each(|_| self.pair(row)))?
    }
}

/// Who takes part: pagewarden and the host.
///
/// # Errors
/// If there is no memory, or somebody does not do what is measured.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    let ours = Ours::new()?;
    ours.check()?;
    let bytes = usize::try_from(PAGES * PAGE_SIZE)?;
    let host = Host(HostObject::new(bytes).context("a memfd")?);
    Ok(vec![Box::new(ours), Box::new(host)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagewarden::Resource;

    #[test]
    fn objects_come_and_go_again_and_again() {
        let ours = Ours::new().unwrap();
        ours.check().unwrap();
        let used =
            || [Resource::Virtual, Resource::Committed].map(|resource| ours.process.table().account().used(resource));
        let before = used();
        Row::ALL.iter().for_each(|row| ours.pair(*row).unwrap());
        assert_eq!(used(), before);
        let mut watch = Stopwatch::new().unwrap();
        for mut one in all().unwrap() {
            for row in Row::ALL {
                one.prepare(row);
                one.turn(row, &mut watch).unwrap();
                assert!(watch.take() > 0.0, "{row:?} takes time");
            }
        }
    }
}
