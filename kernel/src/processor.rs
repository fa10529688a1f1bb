//! Processors: what each needs to enter and leave user code, and what is switched on.
//!
//! Owned here: descriptor tables, the stacks of traps, control registers. A processor finds its own record by the `gs`
//! base, which is the kernel's in kernel code and the user's in user code.
//!
//! Switched on before anything else runs: no-execute, write protection in kernel code, SMEP, SMAP, global pages. A
//! processor that lacks one of them is refused.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pagewarden::frame::FrameNumber;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::{GsBase, KernelGsBase, LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::{stacks, trap};

/// The most processors that are used.
pub(crate) const MOST: usize = 8;
/// No root table: its number is one that no frame has.
const NO_ROOT: u64 = u64::MAX;

/// One processor. Its first words are read and written by trap.s.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Processor {
    scratch: AtomicU64,
    stack: AtomicU64,
    context: AtomicU64,
    user_stack: AtomicU64,
    index: AtomicUsize,
    /// The root table that it runs with, the kernel's or a process's.
    root: AtomicU64,
    /// The one that it is about to load, or has loaded last.
    next_root: AtomicU64,
    /// Interrupts of its timer so far.
    ticks: AtomicU64,
    /// The stack pointer of a probe that is under way, else 0.
    pub(crate) probe: AtomicU64,
    features: AtomicU32,
    task: Once<TaskStateSegment>,
    descriptors: Once<GlobalDescriptorTable>,
}

const _: () = {
    assert!(offset_of!(Processor, scratch) == 0);
    assert!(offset_of!(Processor, stack) == 8);
    assert!(offset_of!(Processor, context) == 16);
    assert!(offset_of!(Processor, user_stack) == 24);
    assert!(offset_of!(Processor, index) == 32);
};

static PROCESSORS: [Processor; MOST] = [const { Processor::new() }; MOST];
/// How many have been started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

impl Processor {
    const fn new() -> Self {
        Self {
            scratch: AtomicU64::new(0),
            stack: AtomicU64::new(0),
            context: AtomicU64::new(0),
            user_stack: AtomicU64::new(0),
            index: AtomicUsize::new(0),
            root: AtomicU64::new(NO_ROOT),
            next_root: AtomicU64::new(NO_ROOT),
            ticks: AtomicU64::new(0),
            probe: AtomicU64::new(0),
            features: AtomicU32::new(0),
            task: Once::new(),
            descriptors: Once::new(),
        }
    }

    /// Runs with `root` from when `load` has loaded it. Until then it may know translations of both: whoever changes a
    /// table asks for either, and whoever has changed one before is heard by the load.
    pub(crate) fn change_root(&self, root: FrameNumber, load: impl FnOnce()) {
        self.next_root.store(root.get(), Ordering::SeqCst);
        load();
        self.root.store(root.get(), Ordering::SeqCst);
    }

    /// Whether it may know translations of `root`.
    pub(crate) fn runs_with(&self, root: FrameNumber) -> bool {
        [&self.root, &self.next_root].into_iter().any(|known| known.load(Ordering::SeqCst) == root.get())
    }

    /// What was switched on when it joined.
    pub(crate) fn features(&self) -> Features {
        Features::from_bits_retain(self.features.load(Ordering::Relaxed))
    }

    /// One more interrupt of its timer.
    pub(crate) fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
}

/// All processors that have been started.
pub(crate) fn all() -> &'static [Processor] {
    &PROCESSORS[..STARTED.load(Ordering::SeqCst)]
}

/// The number of the processor that runs this.
pub(crate) fn index() -> usize {
    let index: usize;
    // SAFETY: in kernel code gs leads to a processor, whose number is at offset 32 and never changes.
    unsafe { asm!("mov {}, gs:[32]", out(reg) index, options(nostack, preserves_flags, readonly)) }
    index
}

/// The processor that runs this.
pub(crate) fn current() -> &'static Processor {
    &PROCESSORS[index()]
}

/// What the kernel cannot do without.
fn check_features() {
    let (basic, structured, extended) = (__cpuid(1), __cpuid_count(7, 0), __cpuid(0x8000_0001));
    let needed = [
        ("global pages", basic.edx >> 13),
        ("fxsave", basic.edx >> 24),
        ("SMEP", structured.ebx >> 7),
        ("SMAP", structured.ebx >> 20),
        ("no-execute", extended.edx >> 20),
        ("syscall", extended.edx >> 11),
    ];
    for (name, bit) in needed {
        assert!(bit & 1 == 1, "this processor has no {name}");
    }
}

/// Switches protection on. The kernel's own tables are loaded.
///
/// # Safety
/// Code runs at its address in these tables, and nothing that it touches is a user's page.
pub(crate) unsafe fn protect() {
    check_features();
    let efer = Efer::read() | EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS;
    // SAFETY: the kernel's tables have the bit where it is meant.
    unsafe { Efer::write(efer) };
    let (wanted, unwanted) = (Cr0Flags::WRITE_PROTECT, Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
    // SAFETY: nothing is written that the tables show as read-only.
    unsafe { Cr0::write((Cr0::read() | wanted) - unwanted) };
    let wanted = Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION
        | Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION;
    // SAFETY: the kernel neither runs nor touches users' pages.
    unsafe { Cr4::write(Cr4::read() | wanted) };
}

bitflags::bitflags! {
    /// What is switched on.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Features: u32 {
        const NO_EXECUTE = 1 << 0;
        const WRITE_PROTECTION = 1 << 1;
        const SMEP = 1 << 2;
        const SMAP = 1 << 3;
        const GLOBAL_PAGES = 1 << 4;
    }
}

impl Features {
    /// Those of the processor that runs this.
    fn read() -> Self {
        let (cr0, cr4) = (Cr0::read(), Cr4::read());
        let mut features = Self::empty();
        features.set(Self::NO_EXECUTE, Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE));
        features.set(Self::WRITE_PROTECTION, cr0.contains(Cr0Flags::WRITE_PROTECT));
        features.set(Self::SMEP, cr4.contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION));
        features.set(Self::SMAP, cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION));
        features.set(Self::GLOBAL_PAGES, cr4.contains(Cr4Flags::PAGE_GLOBAL));
        features
    }
}

/// Gives the processor that runs this its number, its descriptor tables and its stacks for traps.
///
/// # Safety
/// It is done once on each processor, one after the other, before interrupts are on.
pub(crate) unsafe fn start(index: usize) {
    let processor = &PROCESSORS[index];
    let task = processor.task.call_once(|| {
        let mut task = TaskStateSegment::new();
        task.interrupt_stack_table = core::array::from_fn(|kind| VirtAddr::new(stacks::trap_stack(index, kind)));
        task
    });
    let mut segments = (CS::get_reg(), CS::get_reg());
    let descriptors = processor.descriptors.call_once(|| {
        let mut table = GlobalDescriptorTable::new();
        segments.0 = table.append(Descriptor::kernel_code_segment());
        table.append(Descriptor::kernel_data_segment());
        table.append(Descriptor::user_data_segment());
        table.append(Descriptor::user_code_segment());
        segments.1 = table.append(Descriptor::tss_segment(task));
        table
    });
    descriptors.load();
    // SAFETY: it is the code segment of the table that was just loaded.
    unsafe { CS::set_reg(segments.0) };
    // SAFETY: it is the task segment of that table, and its stacks exist.
    unsafe { load_tss(segments.1) };
    trap::load_table();
    KernelGsBase::write(VirtAddr::zero());
    LStar::write(VirtAddr::new(trap::syscall_entry()));
    // Everything that user code could set to disturb the kernel, interrupts included.
    SFMask::write(RFlags::all());
    // SAFETY: segments 8 and 16 are the kernel's code and data; there is no sysret, so the upper half is not used.
    unsafe { Star::write_raw(0x13, 0x08) };
}

/// Says which processor runs this: until then it has none of what is in the record.
pub(crate) fn identify(index: usize) {
    let processor = &PROCESSORS[index];
    processor.index.store(index, Ordering::Relaxed);
    GsBase::write(VirtAddr::from_ptr(processor));
}

/// Says that processor `index`, the next one, answers requests from now on.
pub(crate) fn join(index: usize) {
    PROCESSORS[index].features.store(Features::read().bits(), Ordering::Relaxed);
    STARTED.fetch_max(index + 1, Ordering::SeqCst);
}
