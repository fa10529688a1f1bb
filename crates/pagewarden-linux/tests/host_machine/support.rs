//! Spaces on the host, and requests for them.

use std::sync::Arc;

use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::manager::{Layout, SpaceConfig};
use pagewarden::{Limits, ResourceLedger, VirtAddr};
use pagewarden_linux::host_machine::{HostMemory, HostMemoryOptions, HostSpace, Reservation, install_handler};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const READ_WRITE: u64 = 3;
pub(crate) const READ: u64 = 1;
pub(crate) const NONE: u64 = 0;
/// The bytes of a view.
pub(crate) const BYTES: usize = 4 << 30;
/// The end of addresses.
const END: u64 = 0xffff_f000;

pub(crate) fn memory(bytes: u64) -> Arc<HostMemory> {
    memory_with(HostMemoryOptions { bytes, mappings_max: None })
}

pub(crate) fn memory_with(options: HostMemoryOptions) -> Arc<HostMemory> {
    install_handler().unwrap();
    HostMemory::new(&options, ResourceLedger::new(Limits::UNLIMITED).root()).unwrap()
}

pub(crate) fn reservation() -> Reservation {
    Reservation::new(BYTES, 1 << 20).unwrap()
}

pub(crate) fn layout() -> Layout {
    let end = VirtAddr::new(END);
    Layout { task_end: end, mmap_base: end, bottom_up_base: VirtAddr::new(0x5555_5000), ..Layout::X86_64 }
}

pub(crate) fn space(memory: &Arc<HostMemory>) -> Arc<HostSpace> {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    HostSpace::new(memory, reservation(), SpaceConfig::new(layout(), ledger.root().clone())).unwrap()
}

pub(crate) fn fork(space: &Arc<HostSpace>) -> Arc<HostSpace> {
    space.fork(reservation(), ResourceLedger::new(Limits::UNLIMITED).root()).unwrap()
}

pub(crate) fn map(space: &HostSpace, (first, pages): (u64, u64), prot: u64, flags: MapFlags, source: MapSource) {
    let flags = flags | MapFlags::FIXED;
    let request = MmapRequest { addr: first * PAGE, len: pages * PAGE, prot, flags, source, offset: 0 };
    assert_eq!(space.call(&Request::Mmap(request)), Ok(first * PAGE));
}

pub(crate) fn map_private(space: &HostSpace, first: u64, pages: u64, prot: u64) {
    map(space, (first, pages), prot, MapFlags::PRIVATE | MapFlags::ANONYMOUS, MapSource::Anonymous);
}

pub(crate) fn map_shared(space: &HostSpace, first: u64, pages: u64, prot: u64) {
    map(space, (first, pages), prot, MapFlags::SHARED | MapFlags::ANONYMOUS, MapSource::Anonymous);
}

pub(crate) fn protect(space: &HostSpace, first: u64, pages: u64, prot: u64) {
    space.call(&Request::Mprotect { addr: first * PAGE, len: pages * PAGE, prot }).unwrap();
}

pub(crate) fn unmap(space: &HostSpace, first: u64, pages: u64) {
    space.call(&Request::Munmap { addr: first * PAGE, len: pages * PAGE }).unwrap();
}

/// The word at the start of a page, as guest code finds it.
pub(crate) fn word(space: &Arc<HostSpace>, page: u64) -> u64 {
    let mut word = [0; 8];
    space.load(VirtAddr::new(page * PAGE), &mut word).unwrap();
    u64::from_le_bytes(word)
}

pub(crate) fn set_word(space: &Arc<HostSpace>, page: u64, word: u64) {
    space.store(VirtAddr::new(page * PAGE), &word.to_le_bytes()).unwrap();
}

/// How many mappings the host has of the view of a space.
pub(crate) fn mappings(space: &HostSpace) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let (from, to) = (space.base().addr(), space.base().addr() + BYTES);
    let is_inside = |line: &&str| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| usize::from_str_radix(number, 16).unwrap());
        start < to && end > from
    };
    maps.lines().filter(is_inside).count()
}

/// A fixed sequence of numbers that look random.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.draw() >> 16) % end
    }
}
