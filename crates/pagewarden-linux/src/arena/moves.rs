//! mremap: pages that move, grow or are shown twice, without a hole for an instant.
//!
//! The host's own mremap unmaps where the pages were, and grows only over nothing. Here what the pages leave behind
//! stays mapped (`MREMAP_DONTUNMAP`) and is made vacant, and pages grow by mapping more after them. What has no
//! descriptor to map more of (files, shared memory) is grown by the host in a place outside of the arena that the
//! host chooses, and comes back from there.

use pagewarden::provider::{Contents, Source};
use pagewarden::{Backing, Errno, ObjectKind, PageRange, Region, VirtAddr};

use super::outside::{Outside, last_page};
use super::provider::ArenaProvider;
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
            && let Err(errno) = self.unmap(added, Contents::Other).and_then(|()| self.grow_into(moved, added, region))
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
    use super::super::provider::Accounting;
    use super::super::reservation::Reservation;
    use super::*;
    use pagewarden::{PAGE_SIZE, PageCount, Prot};

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
}
