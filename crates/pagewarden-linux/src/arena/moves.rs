//! mremap: pages that move, grow or are shown twice, without a hole for an instant.
//!
//! The host's own mremap unmaps where the pages were, and grows only over nothing. Here what the pages leave behind
//! stays mapped (`MREMAP_DONTUNMAP`) and is made vacant, and pages grow by mapping more after them. What has no
//! descriptor to map more of (files, shared memory) is grown by the host in a place outside of the arena that the
//! host chooses, and comes back from there.
//!
//! A few plain pages that go to warm ones change place with no change to the host's mappings (`carrier`), if the host
//! lets them.

use pagewarden::linux::Advice;
use pagewarden::provider::{Contents, Source};
use pagewarden::{Backing, Errno, ObjectKind, PageRange, Prot, Region, VirtAddr};

use super::outside::{Outside, last_page};
use super::provider::{Accounting, ArenaProvider};
use super::warm;
use crate::proc_maps;

impl ArenaProvider {
    /// Moves `from` to the start of `to`, which may be longer.
    pub(super) fn move_to(
        &mut self,
        from: PageRange,
        to: PageRange,
        source: Source,
        region: &Region,
    ) -> Result<(), Errno> {
        let moved = PageRange::from_pages(to.first_page(), from.pages()).ok_or(Errno::Inval)?;
        let is_carried = self.is_carriable(from, to, region) && source == Source::Removed;
        if is_carried && self.carry(from, to)? {
            return Ok(());
        }
        if is_private_anonymous(region) {
            self.carrier.release(from);
        }
        if let Err(errno) = self.move_pages(from, moved) {
            if self.memory.close_hole(moved).is_ok() {
                self.lose(to);
            }
            return Err(errno);
        }
        self.warm.remove(moved);
        let back = |this: &mut Self, errno| {
            // Not to lose the pages, a host that fails at this is asked twice.
            if this.move_pages(moved, from).is_err() {
                let _ = this.move_pages(moved, from);
            }
            let _ = this.memory.close_hole(from);
            this.lose(to);
            Err(errno)
        };
        if let Some(added) = to.from(moved.end())
            && let Err(errno) = self.make_vacant(added).and_then(|()| self.grow_into(moved, added, region))
        {
            return back(self, errno);
        }
        if source == Source::Kept {
            return Ok(());
        }
        let contents = if region.is_plain() { Contents::Anonymous(region.prot) } else { Contents::Other };
        match self.unmap(from, contents) {
            Ok(()) => Ok(()),
            Err(errno) => back(self, errno),
        }
    }

    /// Whether the mappings at both places are the same to the host, and stay as they are when pages move.
    fn is_carriable(&self, from: PageRange, to: PageRange, region: &Region) -> bool {
        region.is_plain()
            && region.prot == Prot::READ | Prot::WRITE
            && from.pages().get() <= warm::PAGES_MAX
            && self.accounting == Accounting::Loose
            && self.warm.contains(to)
    }

    /// Moves plain pages to warm ones, and leaves warm ones behind. Whether that was possible: if not, all is as before.
    /// A thread that uses `to` before it is there is in the way, and sees zeros that are taken away again.
    ///
    /// # Errors
    /// The pages are lost, or a part of them: the host does not even bring them back.
    fn carry(&mut self, from: PageRange, to: PageRange) -> Result<bool, Errno> {
        if !self.carrier.is_ready() {
            return Ok(false);
        }
        let plain = Contents::Anonymous(Prot::READ | Prot::WRITE);
        self.warm.remove(to);
        let is_open = self.memory.advise(to, Advice::GuardRemove.raw()).is_ok();
        let carried = if is_open { self.carrier.carry(&self.memory, from, to) } else { 0 };
        if carried == from.bytes() && self.unmap(from, plain).is_ok() {
            return Ok(true);
        }
        let mut result = Ok(false);
        let there = PageRange::from_len(to.start(), carried);
        if let Some((there, here)) = there.zip(PageRange::from_len(from.start(), carried)) {
            self.carrier.release(there);
            // Not to lose the pages, a host that fails at this is asked twice.
            let back = self.memory.move_pages(there, here).or_else(|_| self.memory.move_pages(there, here));
            result = back.map(|()| false);
            let _ = self.memory.close_hole(here);
        }
        if self.unmap(to, plain).is_err() {
            self.lose(to);
        }
        result
    }

    /// Makes pages vacant that may be.
    fn make_vacant(&mut self, range: PageRange) -> Result<(), Errno> {
        if self.warm.contains(range) { Ok(()) } else { self.unmap(range, Contents::Other) }
    }

    /// Makes `from` as long as `to`; the pages between are vacant.
    pub(super) fn grow(&mut self, from: PageRange, to: PageRange, region: &Region) -> Result<(), Errno> {
        let Some(added) = to.from(from.end()) else { return Ok(()) };
        self.grow_into(from, added, region)
    }

    /// Maps `added`, which follows `from` and is vacant, as what comes after `from`.
    fn grow_into(&mut self, from: PageRange, added: PageRange, region: &Region) -> Result<(), Errno> {
        if is_private_anonymous(region) {
            return self.map_vacant(added, region);
        }
        self.warm.remove(added);
        let last = last_page(from)?;
        let bytes = last.bytes() + added.bytes();
        if region.is_shared() {
            return Outside::view(&self.memory, last, bytes)?.bring_rest(&self.memory, added);
        }
        // Only a mapping itself says which file a private one is of: its last page goes out, grows, and comes back.
        // A thread that reads the page meanwhile sees the file's.
        let mut outside = Outside::take(&self.memory, last)?;
        let grown = outside.grow(bytes).and_then(|()| outside.bring_rest(&self.memory, added));
        let back = outside.bring_back(&self.memory, last);
        grown.and(back)
    }

    /// Moves pages, by the host's own regions if it refuses to move several at once (before Linux 6.17).
    fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Errno> {
        match self.memory.move_pages(from, to) {
            Err(Errno::Fault) => self.move_by_region(from, to),
            result => result,
        }
    }

    fn move_by_region(&self, from: PageRange, to: PageRange) -> Result<(), Errno> {
        let own = std::process::id().cast_signed();
        let entries = proc_maps::read(own).map_err(|_| Errno::Fault)?;
        let parts: Vec<PageRange> = entries.iter().filter_map(|entry| entry.range.intersection(from)).collect();
        let target = |part: &PageRange| {
            PageRange::from_pages(to.first_page() + (part.first_page() - from.first_page()), part.pages())
        };
        for (done, part) in parts.iter().enumerate() {
            let there = target(part).ok_or(Errno::Inval)?;
            if let Err(errno) = self.memory.move_pages(*part, there) {
                for part in &parts[..done] {
                    if let Some(there) = target(part) {
                        let _ = self.memory.move_pages(there, *part);
                    }
                }
                return Err(errno);
            }
        }
        Ok(())
    }

    /// Shows the pages from `from` on at `to` as well.
    pub(super) fn duplicate(&mut self, from: VirtAddr, to: PageRange) -> Result<(), Errno> {
        if let Err(errno) = self.memory.duplicate(from, to) {
            self.note_loss(to);
            return Err(errno);
        }
        self.warm.remove(to);
        Ok(())
    }
}

/// Whether new pages of the region are zero pages of its own.
fn is_private_anonymous(region: &Region) -> bool {
    !region.is_shared()
        && match &region.backing {
            Backing::Anonymous => true,
            Backing::Object(object) => *object.kind() == ObjectKind::NamedAnonymous,
        }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::super::carrier::{Carrier, PageMoves};
    use super::super::reservation::Reservation;
    use super::*;
    use pagewarden::{PAGE_SIZE, PageCount};

    #[test]
    fn regions_of_the_host_move_one_by_one_where_it_does_not_move_them_together() {
        let provider = ArenaProvider::new(Reservation::new(16 * PAGE_SIZE, None).unwrap(), Accounting::Loose);
        let pages =
            |first, count| PageRange::from_pages(provider.range().first_page() + first, PageCount::new(count)).unwrap();
        provider.memory.protect(pages(0, 2), Prot::READ | Prot::WRITE).unwrap();
        provider.memory.protect(pages(2, 2), Prot::READ).unwrap();
        provider.copy_in(pages(1, 1).start(), b"moved").unwrap();
        provider.move_by_region(pages(0, 4), pages(8, 4)).unwrap();
        let mut found = [0; 5];
        assert_eq!(super::super::files::copy_in(pages(9, 1).start().as_u64(), &mut found), 5);
        assert_eq!(&found, b"moved");
        assert!(provider.copy_in(pages(10, 1).start(), b"x").is_err(), "read-only here too");
    }

    const PLAIN: Contents = Contents::Anonymous(Prot::READ.union(Prot::WRITE));

    /// A provider of `count` plain pages, and a function that gives pages of it by number.
    fn plain(count: u64) -> (ArenaProvider, impl Fn(u64, u64) -> PageRange) {
        let provider = ArenaProvider::new(Reservation::new(count * PAGE_SIZE, None).unwrap(), Accounting::Loose);
        provider.memory.protect(provider.range(), Prot::READ | Prot::WRITE).unwrap();
        let first = provider.range().first_page();
        (provider, move |page, pages| PageRange::from_pages(first + page, PageCount::new(pages)).unwrap())
    }

    fn write(provider: &ArenaProvider, range: PageRange) {
        for page in range.first_page()..range.end_page() {
            provider.copy_in(VirtAddr::new(page * PAGE_SIZE), &page.to_le_bytes()).unwrap();
        }
    }

    /// A provider, four pages of it that are written to, and four warm ones to go to.
    fn four_pages() -> (ArenaProvider, PageRange, PageRange) {
        let (mut provider, pages) = plain(32);
        write(&provider, pages(0, 4));
        provider.unmap(pages(4, 28), PLAIN).unwrap();
        (provider, pages(0, 4), pages(16, 4))
    }

    /// Whether the pages of `range` hold what [`write`] gave to those of `from`.
    fn holds(range: PageRange, from: PageRange) -> bool {
        (range.first_page()..range.end_page()).zip(from.first_page()..).all(|(page, old)| {
            let mut word = [0; 8];
            super::super::files::copy_in(page * PAGE_SIZE, &mut word) == 8 && word == old.to_le_bytes()
        })
    }

    fn is_unreachable(provider: &ArenaProvider, range: PageRange) -> bool {
        let mut pages = range.first_page()..range.end_page();
        pages.all(|page| provider.copy_in(VirtAddr::new(page * PAGE_SIZE), b"x").is_err())
    }

    fn mappings(arena: PageRange) -> usize {
        let entries = proc_maps::read(std::process::id().cast_signed()).unwrap();
        entries.iter().filter(|entry| entry.range.intersects(arena)).count()
    }

    /// Held by tests that fork, and those whose pages must not be shared with a child.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the host has what carries pages; says so if it has not.
    fn can_carry(provider: &mut ArenaProvider) -> bool {
        let (range, is_ready) = (provider.range(), provider.carrier.is_ready());
        let page = PageRange::from_pages(range.first_page(), PageCount::new(1)).unwrap();
        let can_guard = provider.memory.advise(page, Advice::GuardRemove.raw()).is_ok();
        if !(is_ready && can_guard) {
            println!("skipped: no guard pages (Linux 6.13), or no userfaultfd that moves pages (Linux 6.8)");
        }
        is_ready && can_guard
    }

    fn region() -> Region {
        Region::anonymous(Prot::READ | Prot::WRITE)
    }

    #[test]
    fn plain_pages_go_to_warm_ones_and_back_while_the_mappings_stay() {
        let _alone = alone();
        let (mut provider, pages) = plain(64);
        if !can_carry(&mut provider) {
            return;
        }
        let (here, there, longer) = (pages(0, 4), pages(16, 4), pages(32, 8));
        write(&provider, here);
        provider.unmap(pages(4, 60), PLAIN).unwrap();
        for (from, to) in [(here, there), (there, here), (here, longer), (pages(32, 4), here)] {
            assert!(provider.carry(from, to).unwrap(), "{from} to {to}");
            assert!(holds(PageRange::from_pages(to.first_page(), from.pages()).unwrap(), here));
            assert!(is_unreachable(&provider, from) && provider.warm.contains(from) && !provider.warm.intersects(to));
            provider.unmap(to.from(VirtAddr::new(to.start().as_u64() + from.bytes())).unwrap_or(from), PLAIN).unwrap();
        }
        let count = mappings(provider.range());
        provider.move_to(here, there, Source::Removed, &region()).unwrap();
        provider.move_to(there, here, Source::Removed, &region()).unwrap();
        assert_eq!(mappings(provider.range()), count);
        assert!(holds(here, here));
    }

    #[test]
    fn pages_that_a_child_shares_move_as_ever() {
        let _alone = alone();
        let (mut provider, here, there) = four_pages();
        if !can_carry(&mut provider) {
            return;
        }
        // SAFETY: the child does nothing but wait.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: nothing is asked of memory.
                unsafe { libc::pause() };
            }
        }
        // The first two pages are the parent's own again, the others cannot be taken along.
        write(&provider, PageRange::from_pages(here.first_page(), PageCount::new(2)).unwrap());
        let is_carried = provider.carry(here, there);
        let is_kept = holds(here, here) && is_unreachable(&provider, there);
        let moved = provider.move_to(here, there, Source::Removed, &region());
        // SAFETY: the child is our own, and not waited for yet.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: nothing is written.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert_eq!((is_carried, is_kept, moved), (Ok(false), true, Ok(())));
        assert!(holds(there, here) && is_unreachable(&provider, here));
    }

    #[test]
    fn memory_that_is_registered_in_part_moves_as_a_whole() {
        let _alone = alone();
        let (mut provider, pages) = plain(64);
        if !can_carry(&mut provider) {
            return;
        }
        write(&provider, pages(0, 16));
        provider.unmap(pages(24, 8), PLAIN).unwrap();
        provider.unmap(pages(4, 4), PLAIN).unwrap();
        assert!(provider.carry(pages(0, 4), pages(4, 4)).unwrap(), "registers the latter");
        provider.map_vacant(pages(0, 4), &region()).unwrap();
        write(&provider, pages(0, 16));
        provider.move_to(pages(0, 16), pages(40, 16), Source::Removed, &region()).unwrap();
        assert!(holds(pages(40, 16), pages(0, 16)));
    }

    #[test]
    fn a_border_of_what_is_registered_is_no_obstacle() {
        let _alone = alone();
        let (mut provider, pages) = plain(64);
        if !can_carry(&mut provider) {
            return;
        }
        write(&provider, pages(0, 8));
        provider.unmap(pages(8, 56), PLAIN).unwrap();
        assert!(provider.carry(pages(0, 4), pages(16, 4)).unwrap(), "registers the latter");
        provider.map_vacant(pages(20, 4), &region()).unwrap();
        write(&provider, pages(16, 8));
        for (from, to) in [(pages(16, 8), pages(40, 8)), (pages(40, 8), pages(14, 8)), (pages(14, 8), pages(42, 8))] {
            assert!(provider.carry(from, to).unwrap(), "{from} to {to}");
            assert!(holds(to, pages(16, 8)) && is_unreachable(&provider, from));
        }
    }

    #[test]
    fn few_places_are_registered() {
        let _alone = alone();
        let (mut provider, pages) = plain(256);
        if !can_carry(&mut provider) {
            return;
        }
        for place in 0..60 {
            write(&provider, pages(0, 1));
            let to = pages(4 + place * 4, 1);
            provider.unmap(to, PLAIN).unwrap();
            assert!(provider.carry(pages(0, 1), to).unwrap());
            assert!(holds(to, pages(0, 1)));
            provider.map_vacant(pages(0, 1), &region()).unwrap();
        }
        assert!(mappings(provider.range()) <= 2 * 16 + 1, "{}", mappings(provider.range()));
    }

    #[test]
    fn a_child_behind_the_arenas_back_moves_pages_of_its_own() {
        let _alone = alone();
        let (mut provider, here, there) = four_pages();
        if !can_carry(&mut provider) {
            return;
        }
        assert!(provider.carry(here, there).unwrap());
        // SAFETY: the child does nothing but what follows; of locks that other threads may have held it takes only that of
        // the allocator, which the C library hands over in order.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // Written to, the pages are the child's.
            write(&provider, there);
            let is_done = provider.carry(there, here) == Ok(true) && is_unreachable(&provider, there);
            // SAFETY: ends this process.
            unsafe { libc::_exit(if is_done { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: `status` is alive.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        assert!(holds(there, here) && is_unreachable(&provider, here), "the parent's stay");
    }

    #[test]
    fn a_process_that_wants_no_descriptor_gets_none() {
        let (mut provider, here, there) = four_pages();
        provider.carrier = Carrier::new(PageMoves::ByMremap);
        assert_eq!(provider.carry(here, there), Ok(false));
        provider.move_to(here, there, Source::Removed, &region()).unwrap();
        assert!(holds(there, here) && is_unreachable(&provider, here));
        assert!(!provider.carrier.fork().is_ready(), "a child neither");
    }
}
