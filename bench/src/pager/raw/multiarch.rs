//! `page_table_multiarch`, whose frames come from functions without a receiver.
//!
//! It frees tables only when all of them go; a cursor collects flushes, which do nothing here.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::x86_64::X64PageTable;
use page_table_multiarch::{GenericPTE, MappingFlags, PageSize, PagingHandler};

use super::{DirectMap, Portion};
use crate::pager::tables::{AREA, AREA_START, Content, PagesOf, Rights, Tables, data_address, page_address};

/// Where frame 0 is.
static BASE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The frames of its tables.
    static PORTION: RefCell<Option<Portion>> = const { RefCell::new(None) };
}

fn with_portion<T>(act: impl FnOnce(&Portion) -> T) -> Option<T> {
    PORTION.with_borrow(|portion| portion.as_ref().map(act))
}

/// Its way to memory.
struct Handler;

impl PagingHandler for Handler {
    fn alloc_frames(num: usize, _: usize) -> Option<PhysAddr> {
        let frame = if num == 1 { with_portion(Portion::take).flatten() } else { None };
        frame.and_then(|frame| usize::try_from(frame << 12).ok()).map(PhysAddr::from_usize)
    }

    fn dealloc_frames(paddr: PhysAddr, _: usize) {
        with_portion(|portion| portion.give(paddr.as_usize() as u64 >> 12));
    }

    #[inline]
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from_usize(BASE.load(Ordering::Relaxed) + paddr.as_usize())
    }
}

/// Tables of that crate.
pub struct Multiarch {
    table: Option<X64PageTable<Handler>>,
}

fn flags(rights: Rights) -> MappingFlags {
    match rights {
        Rights::Read => MappingFlags::READ | MappingFlags::USER,
        Rights::ReadWrite => MappingFlags::READ | MappingFlags::WRITE | MappingFlags::USER,
    }
}

#[inline]
fn at(index: u64) -> VirtAddr {
    VirtAddr::from_usize(usize::try_from(page_address(index)).unwrap_or(usize::MAX))
}

#[inline]
fn data(address: VirtAddr) -> PhysAddr {
    let index = (address.as_usize() as u64 - AREA_START) >> 12;
    PhysAddr::from_usize(usize::try_from(data_address(index)).unwrap_or(usize::MAX))
}

/// Bytes of the area.
const BYTES: usize = 1 << 30;

impl Multiarch {
    #[inline]
    fn table(&self) -> &X64PageTable<Handler> {
        self.table.as_ref().expect("it is there but while it is made anew")
    }

    #[inline]
    fn table_mut(&mut self) -> &mut X64PageTable<Handler> {
        self.table.as_mut().expect("it is there but while it is made anew")
    }
}

impl Tables for Multiarch {
    const NAME: &'static str = "page_table_multiarch";

    fn new(memory: &Arc<DirectMap>, portion: Portion) -> Self {
        BASE.store(memory.base().expose_provenance(), Ordering::Relaxed);
        PORTION.set(Some(portion));
        Self { table: X64PageTable::try_new().ok() }
    }

    #[inline]
    fn map(&mut self, index: u64, _: Content) {
        let address = at(index);
        let mapped = self.table_mut().cursor().map(address, data(address), PageSize::Size4K, flags(Rights::ReadWrite));
        mapped.expect("a page that is free");
    }

    #[inline]
    fn unmap(&mut self, index: u64) {
        self.table_mut().cursor().unmap(at(index)).expect("a page that is mapped");
    }

    #[inline]
    fn protect(&mut self, index: u64, rights: Rights, _: Content) {
        self.table_mut().cursor().protect(at(index), flags(rights)).expect("a page that is mapped");
    }

    #[inline]
    fn query(&self, index: u64) -> Option<u64> {
        Some(self.table().query(at(index)).ok()?.0.as_usize() as u64)
    }

    fn map_all(&mut self, pages: PagesOf) {
        let is_large = pages == PagesOf::TwoMiB;
        let mut cursor = self.table_mut().cursor();
        cursor.map_region(at(0), data, BYTES, flags(Rights::ReadWrite), is_large).expect("an area that is free");
    }

    fn unmap_all(&mut self, _: PagesOf) {
        self.table_mut().cursor().unmap_region(at(0), BYTES).expect("an area that is mapped");
    }

    fn protect_all(&mut self, _: PagesOf, rights: Rights) {
        self.table_mut().cursor().protect_region(at(0), BYTES, flags(rights)).expect("an area that is mapped");
    }

    fn query_all(&self, pages: PagesOf) -> u64 {
        let sum = Cell::new(0);
        let lowest = if pages == PagesOf::TwoMiB { 2 } else { 3 };
        let add = |level: usize, _: usize, _: VirtAddr, entry: &_| {
            if level == lowest {
                sum.set(sum.get() + GenericPTE::paddr(entry).as_usize() as u64);
            }
        };
        self.table().walk(usize::MAX, Some(&add), None);
        sum.get()
    }

    fn clean(&mut self) {
        self.table = None;
        self.table = X64PageTable::try_new().ok();
    }

    fn table_frames_free(&self) -> usize {
        with_portion(Portion::free_frames).unwrap_or(0)
    }
}

const _: () = assert!(BYTES as u64 == AREA << 12);
