//! Windows on the software machine: real tables, processors that remember, an agent of the other world that acts between
//! any two steps, and accounts that must be empty at the end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod access;
mod adversary;
mod copies;
mod errors;
mod exchange;
mod kernel;
mod order;
mod protection;
mod random;
mod rollback;
mod stale;
mod threads;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::Mutex;
use std::thread;

use super::{
    CopyFault, Mode, OtherAccess, PageTableWindows, Permission, PhysError, PhysMutPtr, PhysRange, Plain, VmapManager,
    VmapProvider, WindowAccess, WordWidth,
};
use crate::addr::{PAGE_LEN, PageCount, PageRange, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::ledger::{Limits, Resource};
use crate::machine::other_world::{OtherWorld, OurProcessor};
use crate::machine::{FailPoint, Machine, Ticks};
use crate::pager::tests::World;

/// The first frame of the other world.
const FIRST: u64 = 0x100;
/// How many it has.
const FRAMES: u64 = 64;
/// The first page of the window space: so far below a border that a longer window needs several tables on each level.
const SPACE_FIRST: u64 = (1 << 18) - 8;
/// How many pages it has.
const SPACE_PAGES: u64 = 64;
/// What the platform says when it is told to fail.
const BROKEN: PhysError = PhysError::Platform(Errno::Fault);

type Manager = VmapManager<Watched>;

/// What is done before a window is taken away.
type Hook = Box<dyn FnMut() + Send>;

/// The platform, with a place for each kind of request where it can be told to fail.
struct Watched {
    windows: PageTableWindows<Machine, OurProcessor>,
    map: FailPoint,
    unmap: FailPoint,
    protect: FailPoint,
    before_unmap: Mutex<Option<Hook>>,
    /// What was taken away, without what failed.
    unmapped: Mutex<Vec<PageRange>>,
}

impl Watched {
    fn new(windows: PageTableWindows<Machine, OurProcessor>) -> Self {
        Self {
            windows,
            map: FailPoint::new("map"),
            unmap: FailPoint::new("unmap"),
            protect: FailPoint::new("protect"),
            before_unmap: Mutex::new(None),
            unmapped: Mutex::new(Vec::new()),
        }
    }
}

impl VmapProvider for Watched {
    type Events = Ticks;

    fn window_space(&self) -> PageRange {
        self.windows.window_space()
    }

    fn is_foreign(&self, frame: FrameNumber) -> bool {
        self.windows.is_foreign(frame)
    }

    fn map(&self, window: PageRange, frames: FrameRange, permission: Permission) -> Result<(), PhysError> {
        self.map.pass().map_err(|_| BROKEN)?;
        self.windows.map(window, frames, permission)
    }

    /// One that fails has taken the first page away.
    fn unmap(&self, window: PageRange) -> Result<(), PhysError> {
        if let Some(hook) = &mut *self.before_unmap.lock().unwrap() {
            hook();
        }
        if self.unmap.pass().is_err() {
            self.windows.unmap(PageRange::of_page(window.first_page()))?;
            return Err(BROKEN);
        }
        self.windows.unmap(window)?;
        self.unmapped.lock().unwrap().push(window);
        Ok(())
    }

    fn set_other_access(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        self.protect.pass().map_err(|_| BROKEN)?;
        self.windows.set_other_access(frames, access)
    }
}

impl WindowAccess for Watched {
    fn load(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        self.windows.load(from, to)
    }

    fn store(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        self.windows.store(to, from)
    }

    fn compare_exchange(&self, at: VirtAddr, width: WordWidth, current: u64, new: u64) -> Result<u64, CopyFault> {
        self.windows.compare_exchange(at, width, current, new)
    }
}

/// A machine of which nothing may be in use when it ends.
struct EmptyInTheEnd(World);

impl Drop for EmptyInTheEnd {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.0.machine.known(0).next(), None, "of tables that are gone");
            self.0.check_empty();
        }
    }
}

/// A manager beside another world. When it ends, nobody may have anything of it, and nothing is lost.
struct Lab {
    manager: Arc<Manager>,
    other: Arc<OtherWorld>,
    /// Frames that are free as long as no window needs a table.
    free: u64,
    /// Ends after the manager.
    world: EmptyInTheEnd,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.check_idle();
            assert_eq!(Arc::strong_count(&self.manager), 1, "somebody else has the manager");
        }
    }
}

/// A machine, another world in it, and windows of so many pages, for whose tables an account with these limits pays.
fn platform(pages: u64, limits: Limits) -> Result<(EmptyInTheEnd, Arc<OtherWorld>, Watched), PhysError> {
    let world = EmptyInTheEnd(World::new(64));
    let other = Arc::new(OtherWorld::new(&world.0.machine, run(0, FRAMES)));
    let space = PageRange::from_pages(SPACE_FIRST, PageCount::new(pages)).unwrap();
    let windows = other.windows(&world.0.pager, &world.0.ledger.root().child(limits), space, 0)?;
    Ok((world, other, Watched::new(windows)))
}

impl Lab {
    fn new() -> Self {
        Self::with(SPACE_PAGES, Limits::UNLIMITED).unwrap()
    }

    fn with(pages: u64, limits: Limits) -> Result<Self, PhysError> {
        let (world, other, platform) = platform(pages, limits)?;
        let free = world.0.pager.frames().available();
        Ok(Self { manager: Arc::new(VmapManager::new(platform, Ticks::new())), other, free, world })
    }

    fn ptr<T: Plain>(&self, frames: &[FrameNumber], offset: u64, count: usize) -> PhysMutPtr<T, &Manager> {
        PhysMutPtr::new(&*self.manager, frames, offset, count).unwrap()
    }

    /// What is in foreign memory, as the other world sees it.
    fn peek(&self, at: PhysAddr, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.other.act(|side| side.load(at, &mut bytes)).unwrap();
        bytes
    }

    fn peek_frames(&self, frames: &[FrameNumber]) -> Vec<u8> {
        frames.iter().flat_map(|frame| self.peek(frame.start(), PAGE_LEN)).collect()
    }

    fn poke(&self, at: PhysAddr, bytes: &[u8]) {
        self.other.act(|side| side.store(at, bytes)).unwrap();
    }

    /// Fills frames so that no two bytes near each other are the same.
    fn fill(&self, frames: &[FrameNumber]) -> Vec<u8> {
        for frame in frames {
            self.poke(frame.start(), &pattern(frame.get()));
        }
        self.peek_frames(frames)
    }

    /// Nobody has a window, a table, a reservation or a protection.
    fn check_idle(&self) {
        self.manager.check_invariants();
        assert_eq!((self.manager.live(), self.manager.retained()), (0, 0));
        assert_eq!(self.world.0.pager.frames().available(), self.free, "tables of windows that are gone");
        let all = PhysRange::of_frames(self.other.frames());
        let reserved = self.manager.reservations().try_reserve(&[all], Mode::Exclusive);
        assert!(reserved.is_ok(), "{reserved:?}");
        let protected = self.manager.protect(self.other.frames(), OtherAccess::Read);
        assert!(protected.is_ok(), "{protected:?}");
    }
}

/// Frame number `number` of the other world.
fn frame(number: u64) -> FrameNumber {
    FrameNumber::new(FIRST + number).unwrap()
}

fn frames(numbers: &[u64]) -> Vec<FrameNumber> {
    numbers.iter().map(|number| frame(*number)).collect()
}

fn run(first: u64, count: u64) -> FrameRange {
    FrameRange::new(frame(first), PageCount::new(count)).unwrap()
}

fn range(at: PhysAddr, bytes: u64) -> PhysRange {
    PhysRange::new(at, bytes).unwrap()
}

fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_le_bytes()[7]
    };
    (0..PAGE_LEN).map(next).collect()
}

/// A budget for so many tables.
fn tables_limit(tables: u64) -> Limits {
    Limits::UNLIMITED.with(Resource::TableFrames, tables)
}
