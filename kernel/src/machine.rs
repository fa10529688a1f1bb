//! The kernel as a whole: one pager, one ledger, one kernel half.

use alloc::sync::Arc;

use pagewarden::frame::{FrameRange, Frames, FramesConfig, MemoryMap};
use pagewarden::pager::{KernelSpace, Pager};
use pagewarden::{Account, Limits, PageCount, Resource, ResourceLedger};
use spin::Once;

use crate::memory::Hardware;
use crate::{areas, memory, mmu, processor};

/// Frames of the kernel's heap: 16 MiB.
const HEAP: PageCount = PageCount::new(4096);
/// Frames that are another world's: nobody's here, and a device writes to them.
const OTHER_WORLD: PageCount = PageCount::new(16);

/// What there is one of.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) pager: Arc<Pager<Hardware>>,
    pub(crate) ledger: ResourceLedger,
    /// Pays for what is the kernel's own.
    pub(crate) account: Account,
    pub(crate) space: Arc<KernelSpace<Hardware>>,
    pub(crate) other_world: FrameRange,
}

static KERNEL: Once<Kernel> = Once::new();

/// The kernel, which is there once [`start`] has returned.
pub(crate) fn kernel() -> &'static Kernel {
    KERNEL.get().unwrap_or_else(|| unreachable!("it is made before anything else runs"))
}

/// What is used of the machine, for comparing before with after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Books {
    pub(crate) free: u64,
    pub(crate) frames: u64,
    pub(crate) tables: u64,
    pub(crate) committed: u64,
    pub(crate) capabilities: u64,
}

impl Kernel {
    /// What is used now.
    pub(crate) fn books(&self) -> Books {
        let used = |resource| self.ledger.root().used(resource);
        Books {
            free: self.pager.frames().available(),
            frames: used(Resource::Frames),
            tables: used(Resource::TableFrames),
            committed: used(Resource::Committed),
            capabilities: used(Resource::Capabilities),
        }
    }
}

/// Makes the kernel of the memory in `map`, and has the first processor run in its tables.
///
/// # Safety
/// The machine's first tables are loaded, and it is done once.
pub(crate) unsafe fn start(mut map: MemoryMap) -> &'static Kernel {
    let heap = map.take(HEAP).expect("memory for the heap");
    // SAFETY: the first tables show it, and so will the kernel's; it has just been taken out of the map.
    unsafe { memory::start_heap(heap) };
    let other_world = map.take(OTHER_WORLD).expect("memory for the other world");
    let config = FramesConfig { processors: processor::MOST, magazine_frames: 64, zeroed_frames: 64 };
    let frames = Frames::new(&map, config).expect("a heap large enough for the records of frames");
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let account = ledger.root().child(Limits::UNLIMITED);
    let pager = Pager::new(Arc::new(Hardware), frames, &account).expect("a frame");
    let space = KernelSpace::new(&pager, &account, &areas::slots()).expect("frames for tables");
    areas::map_kernel(&space, &map).expect("frames for tables");
    pager.set_kernel(&space).expect("it is done once");
    let kernel = KERNEL.call_once(|| Kernel { pager, ledger, account, space, other_world });
    areas::map_stacks(kernel, 0).expect("frames for stacks");
    // SAFETY: they show the image, the heap and the direct map where the first ones do, and stay for good.
    unsafe { mmu::load_root(kernel.space.root()) };
    kernel
}
