//! `x86_64`'s mapper for memory at an offset.
//!
//! It knows pages and no ranges: who wants a range goes through its pages. Empty tables stay until they are cleaned up.

use std::rc::Rc;
use std::sync::Arc;

use x86_64::structures::paging::mapper::CleanUp;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::{DirectMap, Portion};
use crate::pager::tables::{AREA, Content, PagesOf, Rights, Tables, data_address, page_address};

/// The frames of its tables.
struct Stack(Rc<Portion>);

// SAFETY: a `Portion` hands out each frame once until it comes back.
unsafe impl FrameAllocator<Size4KiB> for Stack {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        Some(PhysFrame::containing_address(PhysAddr::new(self.0.take()? << 12)))
    }
}

impl FrameDeallocator<Size4KiB> for Stack {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        self.0.give(frame.start_address().as_u64() >> 12);
    }
}

/// Tables of that crate.
pub struct OffsetMapper {
    mapper: OffsetPageTable<'static>,
    stack: Stack,
}

const BASE: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::USER_ACCESSIBLE).union(PageTableFlags::NO_EXECUTE);

fn flags(rights: Rights, content: Content) -> PageTableFlags {
    let flags = match rights {
        Rights::Read => BASE,
        Rights::ReadWrite => BASE | PageTableFlags::WRITABLE,
    };
    match content {
        Content::Clean => flags,
        Content::Dirty => flags | PageTableFlags::ACCESSED | PageTableFlags::DIRTY,
    }
}

#[inline]
fn page<S: PageSize>(index: u64) -> Page<S> {
    Page::containing_address(VirtAddr::new_truncate(page_address(index)))
}

impl OffsetMapper {
    #[inline]
    fn map_one<S: PageSize>(&mut self, index: u64, flags: PageTableFlags)
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        let frame = PhysFrame::containing_address(PhysAddr::new_truncate(data_address(index)));
        // SAFETY: no processor uses these tables, and what they map is never reached.
        let mapped = unsafe { self.mapper.map_to(page::<S>(index), frame, flags, &mut self.stack) };
        mapped.map_err(drop).expect("a page that is free").ignore();
    }

    #[inline]
    fn protect_one<S: PageSize>(&mut self, index: u64, flags: PageTableFlags)
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        // SAFETY: as in `map_one`.
        let updated = unsafe { self.mapper.update_flags(page::<S>(index), flags) };
        updated.expect("a page that is mapped").ignore();
    }

    #[inline]
    fn unmap_one<S: PageSize + std::fmt::Debug>(&mut self, index: u64)
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        self.mapper.unmap(page::<S>(index)).expect("a page that is mapped").1.ignore();
    }

    #[inline]
    fn query_one<S: PageSize>(&self, index: u64) -> Option<u64>
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        Some(self.mapper.translate_page(page::<S>(index)).ok()?.start_address().as_u64())
    }
}

impl Tables for OffsetMapper {
    const NAME: &'static str = "x86_64 OffsetPageTable";

    fn new(memory: &Arc<DirectMap>, portion: Portion) -> Self {
        let root = portion.take().expect("a frame for the root");
        let offset = usize::try_from(root << 12).expect("memory that can be addressed");
        // SAFETY: the frame lies in the allocation, which lives as long as the program.
        let table = unsafe { memory.base().add(offset) }.cast::<PageTable>();
        // SAFETY: the frame is aligned to 4096, zero, which is an empty table, and this mapper's alone.
        let table = unsafe { &mut *table };
        let offset = VirtAddr::from_ptr(memory.base());
        // SAFETY: physical address 0 is at the base of the allocation, and the root leads nowhere yet.
        let mapper = unsafe { OffsetPageTable::new(table, offset) };
        Self { mapper, stack: Stack(Rc::new(portion)) }
    }

    #[inline]
    fn map(&mut self, index: u64, content: Content) {
        self.map_one::<Size4KiB>(index, flags(Rights::ReadWrite, content));
    }

    #[inline]
    fn unmap(&mut self, index: u64) {
        self.unmap_one::<Size4KiB>(index);
    }

    #[inline]
    fn protect(&mut self, index: u64, rights: Rights, content: Content) {
        self.protect_one::<Size4KiB>(index, flags(rights, content));
    }

    #[inline]
    fn query(&self, index: u64) -> Option<u64> {
        self.query_one::<Size4KiB>(index)
    }

    fn map_all(&mut self, pages: PagesOf) {
        let flags = flags(Rights::ReadWrite, Content::Dirty);
        match pages {
            PagesOf::FourKiB => (0..AREA).for_each(|index| self.map_one::<Size4KiB>(index, flags)),
            PagesOf::TwoMiB => (0..AREA)
                .step_by(512)
                .for_each(|index| self.map_one::<Size2MiB>(index, flags | PageTableFlags::HUGE_PAGE)),
        }
    }

    fn unmap_all(&mut self, pages: PagesOf) {
        match pages {
            PagesOf::FourKiB => (0..AREA).for_each(|index| self.unmap_one::<Size4KiB>(index)),
            PagesOf::TwoMiB => (0..AREA).step_by(512).for_each(|index| self.unmap_one::<Size2MiB>(index)),
        }
    }

    fn protect_all(&mut self, pages: PagesOf, rights: Rights) {
        let flags = flags(rights, Content::Dirty);
        match pages {
            PagesOf::FourKiB => (0..AREA).for_each(|index| self.protect_one::<Size4KiB>(index, flags)),
            PagesOf::TwoMiB => (0..AREA)
                .step_by(512)
                .for_each(|index| self.protect_one::<Size2MiB>(index, flags | PageTableFlags::HUGE_PAGE)),
        }
    }

    fn query_all(&self, pages: PagesOf) -> u64 {
        match pages {
            PagesOf::FourKiB => (0..AREA).filter_map(|index| self.query_one::<Size4KiB>(index)).sum(),
            PagesOf::TwoMiB => (0..AREA).step_by(512).filter_map(|index| self.query_one::<Size2MiB>(index)).sum(),
        }
    }

    fn clean(&mut self) {
        // SAFETY: its tables are empty, and no processor uses them.
        unsafe { self.mapper.clean_up(&mut self.stack) }
    }

    fn table_frames_free(&self) -> usize {
        self.stack.0.free_frames()
    }
}
