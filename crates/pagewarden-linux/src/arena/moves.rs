//! mremap: pages that move, grow or are shown twice, without a hole for an instant.
//!
//! The host's own mremap unmaps where the pages were, and grows only over nothing. Here what the pages leave behind
//! stays mapped (`MREMAP_DONTUNMAP`) and is made vacant, and pages grow by mapping more after them. What has no
//! descriptor to map more of (files, shared memory) is grown by the host in a place outside of the arena that the
//! host chooses, and comes back from there.

use pagewarden::provider::{Contents, Source};
use pagewarden::{Backing, Errno, ObjectKind, PageRange, Region, VirtAddr};

use super::provider::ArenaProvider;

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
        if let Err(errno) = self.memory.move_pages(from, moved) {
            self.note_loss(to);
            return Err(errno);
        }
        self.warm.remove(moved);
        let back = |this: &mut Self, errno| {
            let _ = this.memory.move_pages(moved, from);
            let _ = this.unmap(moved, Contents::Other);
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

    /// Maps `added`, which follows `from`, as what comes after `from`.
    fn grow_into(&mut self, _from: PageRange, added: PageRange, region: &Region) -> Result<(), Errno> {
        if !is_private_anonymous(region) {
            return Err(Errno::NoMem);
        }
        self.map_vacant(added, region)
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
