//! Segments in memory: mapped, filled, and given their rights.

use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::pager::AddressSpace;
use pagewarden::{PageRange, Prot};

use crate::image::Segment;
use crate::{Image, LoadError};

impl Image<'_> {
    /// Puts the segments into `space`. Bytes of a page before and after its segment are 0.
    ///
    /// # Errors
    /// Something is in their place, a limit, no memory, or a space that denies what was written the right to be run
    /// ([`WxPolicy::Deny`](pagewarden::manager::WxPolicy::Deny)): that a program can ask for by itself, with
    /// `PR_SET_MDWE`. Then nothing of the image is mapped.
    pub fn map<M: PhysMem + Mmu + 'static>(&self, space: &AddressSpace<M>) -> Result<(), LoadError> {
        for (before, segment) in self.segments().enumerate() {
            if let Err(error) = segment.map(space) {
                self.segments().take(before).for_each(|segment| unmap(space, segment.pages));
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Segment<'_> {
    /// Puts the segment into `space`, or nothing of it.
    fn map<M: PhysMem + Mmu + 'static>(&self, space: &AddressSpace<M>) -> Result<(), LoadError> {
        map_vacant(space, self.pages, MapFlags::empty())?;
        self.fill(space).inspect_err(|_| unmap(space, self.pages))
    }

    fn fill<M: PhysMem + Mmu + 'static>(&self, space: &AddressSpace<M>) -> Result<(), LoadError> {
        space.copy_to_user(self.start, self.bytes)?;
        let (addr, len) = (self.pages.start().as_u64(), self.pages.bytes());
        space.call(&Request::Mprotect { addr, len, prot: self.prot.bits().into() })?;
        Ok(())
    }
}

/// Maps private memory that can be loaded from and stored to where nothing is yet.
pub(crate) fn map_vacant<M: PhysMem + Mmu + 'static>(
    space: &AddressSpace<M>,
    pages: PageRange,
    flags: MapFlags,
) -> Result<(), LoadError> {
    let request = MmapRequest {
        addr: pages.start().as_u64(),
        len: pages.bytes(),
        prot: (Prot::READ | Prot::WRITE).bits().into(),
        flags: flags | MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED_NO_REPLACE,
        source: MapSource::Anonymous,
        offset: 0,
    };
    space.call(&Request::Mmap(request))?;
    Ok(())
}

/// Takes back what has been mapped. Should the space refuse that, it still has the memory, and it goes with it.
pub(crate) fn unmap<M: PhysMem + Mmu + 'static>(space: &AddressSpace<M>, pages: PageRange) {
    let _ = space.call(&Request::Munmap { addr: pages.start().as_u64(), len: pages.bytes() });
}
