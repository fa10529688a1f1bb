//! What the machine says about itself when it starts (PVH: xen/include/public/arch-x86/hvm/start_info.h).
//!
//! It lies in low memory, which the kernel's own tables do not show: it is copied here before they are loaded.

use core::arch::global_asm;
use core::ptr;

use pagewarden::PAGE_SIZE;
use pagewarden::frame::{MemoryKind, MemoryMap};

use crate::memory::{DIRECT_MAP, MEMORY_END, at, frames, size};

global_asm!(include_str!("boot.s"), options(att_syntax));

/// Where processors that are started begin to run; boot.s knows it too.
pub(crate) const TRAMPOLINE: u64 = 0x8000;
/// Memory below belongs to the firmware and to the trampoline.
const LOW_MEMORY_END: u64 = 1 << 20;
const MAGIC: u32 = 0x336e_c578;

#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryMapEntry {
    address: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
    static boot_trampoline: u8;
    static boot_trampoline_end: u8;
}

/// Where a symbol of the link script lies.
macro_rules! symbol {
    ($name:ident) => {
        (&raw const $name).addr() as u64
    };
}

pub(crate) use symbol;

/// Copies a structure out of low memory.
///
/// # Safety
/// The machine's first tables are loaded, and such a structure is there.
unsafe fn read<T: Copy>(address: u64) -> T {
    let place = at::<T>(DIRECT_MAP + address);
    // SAFETY: the caller's; the first tables show it in the direct map.
    unsafe { place.read_unaligned() }
}

/// What memory there is. The image, low memory and what the firmware keeps are not usable.
///
/// # Safety
/// `start_info` is what the processor was started with, and the machine's first tables are loaded.
pub(crate) unsafe fn memory_map(start_info: u64) -> MemoryMap {
    // SAFETY: the caller's.
    let info: StartInfo = unsafe { read(start_info) };
    assert_eq!(info.magic, MAGIC, "not started by PVH");
    let mut map = MemoryMap::new();
    for index in 0..u64::from(info.memory_map_entries) {
        // SAFETY: there are so many entries.
        let entry: MemoryMapEntry = unsafe { read(info.memory_map + index * size_of::<MemoryMapEntry>() as u64) };
        let kind = match entry.kind {
            1 => MemoryKind::Usable,
            3 | 4 => MemoryKind::Acpi,
            5 => MemoryKind::Bad,
            _ => MemoryKind::Reserved,
        };
        let end = entry.address.saturating_add(entry.bytes);
        // A page that is usable in part is not.
        let (start, end) = match kind {
            MemoryKind::Usable => (entry.address.next_multiple_of(PAGE_SIZE), end.min(MEMORY_END)),
            _ => (entry.address, end.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE)),
        };
        if let Some(range) = frames(start, end) {
            map.add(range, kind).expect("a map of few entries");
        }
    }
    let taken =
        [(0, LOW_MEMORY_END, MemoryKind::Reserved), (symbol!(image_start), symbol!(image_end), MemoryKind::Kernel)];
    for (start, end, kind) in taken {
        let range = frames(start, end).expect("a range of memory");
        map.reserve(range, kind).expect("a map of few entries");
    }
    map
}

/// Puts the code that other processors start with where they look for it.
///
/// # Safety
/// The machine's first tables are loaded.
pub(crate) unsafe fn install_trampoline() {
    let bytes = symbol!(boot_trampoline_end) - symbol!(boot_trampoline);
    let from = at::<u8>(symbol!(boot_trampoline));
    let to = at::<u8>(DIRECT_MAP + TRAMPOLINE);
    // SAFETY: low memory is nobody's, and the image lies elsewhere.
    unsafe { ptr::copy_nonoverlapping(from, to, size(bytes)) }
}
