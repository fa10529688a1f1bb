//! Windows on memory of the other world: frames that a device writes to, and that no pager has.
//!
//! Owned here: the window space, addresses in the kernel's half at which nothing else is ever mapped. So no object of Rust
//! is there, and to reach one of them is a copy by [`pagewarden_copy`] or nothing: where no window is, the page-fault
//! handler lands behind the copy, which says how far it came. Outside: which windows there are ([`VmapManager`]), and what
//! the tables show ([`PageTableWindows`]).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use pagewarden::frame::FrameNumber;
use pagewarden::page_table::EntryFlags;
use pagewarden::phys::{
    CopyFault, EventCount, PageTableWindows, PhysError, VmapManager, WindowAccess, WindowProcessor, Word, WordWidth,
};
use pagewarden::{PageRange, VirtAddr};

use crate::machine::kernel;
use crate::memory::{self, Hardware, WINDOWS};
use crate::processor;

/// Bytes of addresses for windows.
const SPACE: u64 = 1 << 30;

/// Who shows windows, and keeps the book of reservations.
pub(crate) type Windows = VmapManager<PageTableWindows<Hardware, KernelWindows>>;

/// Windows in the kernel's half, in which there is none yet.
///
/// # Errors
/// The kernel has no place for them.
pub(crate) fn manager() -> Result<Arc<Windows>, PhysError> {
    let windows = PageTableWindows::within(&kernel().space, space(), KernelWindows)?;
    Ok(Arc::new(VmapManager::new(windows, Events::default())))
}

/// The addresses of all windows.
pub(crate) fn space() -> PageRange {
    PageRange::from_len(VirtAddr::new(WINDOWS), SPACE).unwrap_or_else(|| unreachable!("it is a slot's first GiB"))
}

/// A processor in kernel code, as one that reaches windows.
#[derive(Debug)]
pub(crate) struct KernelWindows;

/// A pointer to the `len` bytes from `at` on, if they lie in the window space.
fn place(at: VirtAddr, len: usize) -> Result<*mut u8, CopyFault> {
    // Addresses below the space become large numbers.
    let offset = at.as_u64().wrapping_sub(WINDOWS);
    let is_inside = offset <= SPACE && len as u64 <= SPACE - offset;
    if is_inside { Ok(memory::at(at.as_u64())) } else { Err(CopyFault { copied: 0 }) }
}

/// A pointer to the word at `at`, if it lies in the window space and is aligned.
fn word<W>(at: VirtAddr) -> Result<*mut W, CopyFault> {
    let word = place(at, size_of::<W>())?.cast::<W>();
    if word.is_aligned() { Ok(word) } else { Err(CopyFault { copied: 0 }) }
}

impl WindowAccess for KernelWindows {
    fn load(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        let from = place(from, to.len())?;
        // SAFETY: `to` is ours; `from` is in the window space, which is nobody's, and a fault there lands.
        let copied = unsafe { pagewarden_copy::copy(to.as_mut_ptr(), from, to.len()) };
        copied.map_err(|fault| CopyFault { copied: fault.copied })
    }

    fn store(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        let to = place(to, from.len())?;
        // SAFETY: `from` is ours; `to` is in the window space, of which nobody has a reference, and a fault there lands.
        let copied = unsafe { pagewarden_copy::copy(to, from.as_ptr(), from.len()) };
        copied.map_err(|fault| CopyFault { copied: fault.copied })
    }

    fn compare_exchange(&self, at: VirtAddr, width: WordWidth, current: u64, new: u64) -> Result<u64, CopyFault> {
        let found = match width {
            WordWidth::Four => {
                let at: *mut u32 = word(at)?;
                let [current, new] = [current, new].map(u32::from_low_bits);
                // SAFETY: an aligned word of the window space, of which nobody has a reference; a fault there lands.
                unsafe { pagewarden_copy::compare_exchange(at, current, new) }.map(u64::from)
            }
            WordWidth::Eight => {
                let at: *mut u64 = word(at)?;
                // SAFETY: as above.
                unsafe { pagewarden_copy::compare_exchange(at, current, new) }
            }
        };
        found.map_err(|_| CopyFault { copied: 0 })
    }
}

impl WindowProcessor for KernelWindows {
    type Events = Events;

    /// Every space has the kernel's half, and no user a window.
    const LEAF: EntryFlags = EntryFlags::GLOBAL;

    /// Other memory that is not the pager's is the image, the heap, the firmware's or a device's, or there is none.
    fn is_foreign(&self, frame: FrameNumber) -> bool {
        kernel().other_world.contains(frame)
    }
}

/// How kernel code waits: it has nothing else to run, and watches the count. Interrupts are on, so that time passes.
#[derive(Debug, Default)]
pub(crate) struct Events {
    count: AtomicU32,
}

/// The time since the first processor has its timer.
pub(crate) fn now() -> Duration {
    Duration::from_millis(processor::all()[0].ticks())
}

impl EventCount for Events {
    fn now(&self) -> Duration {
        now()
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    fn wait(&self, seen: u32, deadline: Duration) {
        while self.count() == seen && now() < deadline {
            core::hint::spin_loop();
        }
    }

    fn notify(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}
