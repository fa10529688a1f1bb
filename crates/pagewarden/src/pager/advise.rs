//! Advice that does something to pages: `mm/madvise.c`.

use super::fault::object_behind;
use super::tables::SpaceGather;
use super::{Fault, SpacePager, leaf};
use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::linux::Advice;
use crate::manager::{Access, parts};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, Level, Root};
use crate::provider::Maps;
use crate::vmmap::Vmmap;

impl<M: PhysMem + Mmu + 'static> SpacePager<M> {
    /// Does what `advice` asks of the pages of `range`.
    pub(super) fn advise(&self, range: PageRange, advice: Advice, maps: Maps<'_>) -> Result<(), Errno> {
        match advice {
            Advice::DontNeed | Advice::DontNeedLocked => {
                self.change(range, &mut |entry| if leaf::is_guard(entry) { entry } else { Entry::EMPTY })
            }
            Advice::Free => {
                self.tables().note_droppable();
                self.change(range, &mut |entry| {
                    let may_go = entry.is_present() && self.tables().is_own(entry);
                    if may_go { leaf::made_lazy(entry) } else { entry }
                })
            }
            Advice::GuardRemove => {
                self.change(range, &mut |entry| if leaf::is_guard(entry) { Entry::EMPTY } else { entry })
            }
            Advice::GuardInstall => self.install_guards(range),
            Advice::Remove => self.remove(range, maps.before),
            Advice::PopulateRead => self.populate_for(range, Access::Read, maps.after),
            Advice::PopulateWrite => self.populate_for(range, Access::Write, maps.after),
            Advice::WillNeed => {
                self.read_ahead(range, maps.before);
                Ok(())
            }
            Advice::PageOut => {
                self.page_out(range);
                Ok(())
            }
            // No frame is taken out of use here, and no page is large.
            Advice::HwPoison | Advice::SoftOffline | Advice::Collapse => Err(Errno::Inval),
            // These are in the map, or hints that nothing is made of.
            _ => Ok(()),
        }
    }

    /// Drops the pages that nobody promised to keep, where no other space shows them
    /// (`mm/madvise.c:madvise_cold_or_pageout_pte_range`). The rest has nowhere to go.
    fn page_out(&self, range: PageRange) {
        // A hint: without memory for it nothing is dropped.
        let _ = self.change(range, &mut |entry| {
            let may_go = leaf::is_droppable(entry) && self.tables().is_own(entry);
            if may_go { Entry::EMPTY } else { entry }
        });
    }

    fn change(&self, range: PageRange, change: &mut dyn FnMut(Entry) -> Entry) -> Result<(), Errno> {
        let tables = self.tables().tables();
        self.pager().reclaiming(|| {
            let changed = self.tables().with_root_mut(|root, gather| {
                tables.make_exclusive(root, range)?;
                tables.edit(root, range, gather, &mut |_, entry, _| change(entry));
                Ok(())
            });
            changed.unwrap_or(Ok(()))
        })
    }

    /// Puts a guard in each page. What was there goes.
    fn install_guards(&self, range: PageRange) -> Result<(), Errno> {
        self.pager().reclaiming(|| {
            let installed = self.tables().with_root_mut(|root, gather| {
                // All tables first: after that nothing can fail.
                self.each_page(range, |page| self.tables().tables().slot(root, page).map(drop))?;
                self.each_page(range, |page| self.put_guard(root, page, gather))
            });
            installed.unwrap_or(Ok(()))
        })
    }

    fn each_page(&self, range: PageRange, mut visit: impl FnMut(VirtAddr) -> Result<(), Errno>) -> Result<(), Errno> {
        (range.first_page()..range.end_page()).filter_map(VirtAddr::from_page_number).try_for_each(&mut visit)
    }

    fn put_guard(&self, root: &Root, page: VirtAddr, gather: &mut SpaceGather<'_, M>) -> Result<(), Errno> {
        let tables = self.tables().tables();
        let slot = tables.slot(root, page)?;
        let mut entry = tables.load(&slot);
        // Processors may set bits meanwhile.
        while let Err(now) = tables.install(root, &slot, entry, leaf::guard()) {
            entry = now;
        }
        if !entry.is_empty() {
            gather.leaf(PageRange::of_page(page.page_number()), entry, Level::One);
        }
        Ok(())
    }

    /// Makes a hole in the objects that the range shows.
    fn remove(&self, range: PageRange, map: &Vmmap) -> Result<(), Errno> {
        for (part, region) in parts(map, range) {
            let object = object_behind(region).ok_or(Errno::Inval)?;
            let first = PageCount::new(region.page_offset(part.start())).bytes();
            self.pager().memory_of(object)?.punch(first, first.saturating_add(part.bytes()))?;
        }
        Ok(())
    }

    fn populate_for(&self, range: PageRange, access: Access, map: &Vmmap) -> Result<(), Errno> {
        self.populate(range, map, Some(access)).map_err(|fault| match fault {
            Fault::Signal(_) => Errno::Fault,
            Fault::OutOfMemory => Errno::NoMem,
        })
    }

    /// Reads pages of files that are not there yet. Nobody is told what cannot be read.
    fn read_ahead(&self, range: PageRange, map: &Vmmap) {
        for (part, region) in parts(map, range) {
            let memory = object_behind(region).and_then(|object| self.pager().memory_of(object).ok());
            let Some(memory) = memory.filter(|memory| memory.is_file()) else { continue };
            let first = region.page_offset(part.start());
            let end = first.saturating_add(part.pages().get()).min(memory.read_state().page_count());
            if (first..end).any(|index| memory.fetch(index).is_err()) {
                return;
            }
        }
    }
}
