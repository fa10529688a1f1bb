//! Memory that is held by handle: a window on the pages of an object.
//!
//! Owns: what a window allows and where it ends. The pages themselves, who shows them and how long they live are
//! [`crate::object`]'s; where they are shown is [`crate::manager`]'s; rights are in the handle, not here.
//!
//! A window is charged page by page to whoever holds it, so a small window on a large object is cheap. That is fair,
//! because it keeps only its own pages: others live for as long as other windows or mappings have them.
//!
//! | child | its pages | its rights |
//! |---|---|---|
//! | slice | those of the parent | some of the parent's, never [`Rights::RESIZE`] |
//! | snapshot | copies, made when either side is stored to | the parent's and [`Rights::WRITE`], without [`Rights::EXECUTE`] and [`Rights::RESIZE`] |

use alloc::sync::Arc;
use core::fmt;

use super::{CapError, Interface, InterfaceId, Rights};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Account;
use crate::manager::{CapabilityRequest, Place};
use crate::mmu::{Mmu, PhysMem};
use crate::object::{MemoryObject, ObjectPages, ObjectSource, Placement, Window};
use crate::pager::{AddressSpace, Pager};
use crate::prot::Prot;

/// Whether the object behind a window can have another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sizing {
    /// It has the size it has.
    Fixed,
    /// It can have as many pages as the window, or fewer.
    UpToWindow,
}

/// What [`MemoryCap::info`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryInfo {
    /// How many pages can be mapped: what the handle is charged.
    pub pages: PageCount,
    /// How many of their bytes can be touched now.
    pub bytes: u64,
    /// What the handle allows.
    pub rights: Rights,
}

/// What of a window is shown, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Pages of the window, counted from its first.
    pub part: ObjectPages,
    /// What may be done with them.
    pub prot: Prot,
    /// Where they go.
    pub place: Place,
}

/// A window on the pages of an object.
pub struct MemoryCap<M: PhysMem + Mmu + 'static> {
    pager: Arc<Pager<M>>,
    object: Arc<MemoryObject>,
    /// Which of its pages, and what keeps them.
    window: Window<M>,
    sizing: Sizing,
    /// Pays for frames: of the object, and of copies of its pages.
    pool: Account,
}

impl<M: PhysMem + Mmu + 'static> fmt::Debug for MemoryCap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCap").field("window", &self.window).field("sizing", &self.sizing).finish_non_exhaustive()
    }
}

impl<M: PhysMem + Mmu + 'static> Interface for MemoryCap<M> {
    const ID: InterfaceId = InterfaceId::MEMORY;

    fn pages(&self) -> PageCount {
        self.window.pages().count()
    }
}

/// What may be done with mapped pages by a handle with `rights`: nothing without [`Rights::READ`], since a processor that
/// may store to a page or run it may load from it too.
fn prot_of(rights: Rights) -> Prot {
    let mut prot = Prot::NONE;
    if rights.contains(Rights::READ) {
        prot |= Prot::READ;
        prot.set(Prot::WRITE, rights.contains(Rights::WRITE));
        prot.set(Prot::EXEC, rights.contains(Rights::EXECUTE));
    }
    prot
}

/// Refuses what a handle with `rights` may not do with mapped pages.
fn check_prot(rights: Rights, prot: Prot) -> Result<(), CapError> {
    if prot_of(rights).contains(prot) { Ok(()) } else { Err(CapError::Rights) }
}

impl<M: PhysMem + Mmu + 'static> MemoryCap<M> {
    /// `pages` zeroed pages that are there from now on. `pool` pays for the frames.
    ///
    /// # Errors
    /// No frames, no memory, or a limit of the pool.
    pub(super) fn allocate(
        pager: &Arc<Pager<M>>,
        pool: &Account,
        pages: PageCount,
        placement: Placement,
    ) -> Result<Self, Errno> {
        let held = pager.new_held(pool, ObjectSource::Frames { pages, placement }, pages)?;
        Ok(Self::new(pager, pool, held, Sizing::Fixed))
    }

    /// `pages` zeroed pages that are there from now on, of an object that can have up to `capacity`.
    ///
    /// # Errors
    /// As [`Self::allocate`]; `EINVAL` for more pages than the capacity.
    pub(super) fn allocate_resizable(
        pager: &Arc<Pager<M>>,
        pool: &Account,
        (pages, capacity): (PageCount, PageCount),
    ) -> Result<Self, Errno> {
        if pages > capacity {
            return Err(Errno::Inval);
        }
        let held = pager.new_held(pool, ObjectSource::Anonymous { bytes: pages.bytes() }, capacity)?;
        Ok(Self::new(pager, pool, held, Sizing::UpToWindow))
    }

    fn new(
        pager: &Arc<Pager<M>>,
        pool: &Account,
        (object, window): (Arc<MemoryObject>, Window<M>),
        sizing: Sizing,
    ) -> Self {
        Self { pager: Arc::clone(pager), object, window, sizing, pool: pool.clone() }
    }

    /// Whose pages they are.
    pub(super) const fn object(&self) -> &Arc<MemoryObject> {
        &self.object
    }

    /// The pages of the object that are pages `part` of this window.
    fn part(&self, part: ObjectPages) -> Result<ObjectPages, CapError> {
        self.window.pages().part(part).ok_or_else(|| Errno::Inval.into())
    }

    /// What there is, for a handle with `rights`.
    ///
    /// # Errors
    /// Those of [`Pager::size`], which are for objects of other pagers.
    pub fn info(&self, rights: Rights) -> Result<MemoryInfo, CapError> {
        Ok(MemoryInfo { pages: self.window.pages().count(), bytes: self.bytes()?, rights })
    }

    /// How many bytes of the window can be touched now.
    fn bytes(&self) -> Result<u64, Errno> {
        let size = self.pager.size(&self.object)?;
        Ok(size.saturating_sub(self.window.pages().first() * PAGE_SIZE).min(self.window.pages().count().bytes()))
    }

    /// Shows pages of the window in `space`, as far as a handle with `rights` may. What is shown beyond the end of an
    /// object that shrinks ends in SIGBUS when it is touched.
    ///
    /// # Errors
    /// [`CapError::Rights`]; `EINVAL` for pages that are not in the window; those of [`CapabilityRequest::Borrow`].
    pub fn map(&self, rights: Rights, space: &AddressSpace<M>, mapping: Mapping) -> Result<PageRange, CapError> {
        let Mapping { part, prot, place } = mapping;
        check_prot(rights, prot)?;
        let pages = self.part(part)?;
        let object = Arc::clone(&self.object);
        let request = CapabilityRequest::Borrow { object, pages, prot, prot_max: prot_of(rights), place };
        let start = space.call_capability(&request)?;
        PageRange::from_len(VirtAddr::new(start), pages.count().bytes()).ok_or_else(|| Errno::Inval.into())
    }

    /// Shows `range` of `space` no more.
    ///
    /// # Errors
    /// `EINVAL`, and nothing changes, if a page of it was not borrowed from this object or is not in the window.
    pub fn unmap(&self, space: &AddressSpace<M>, range: PageRange) -> Result<(), CapError> {
        let (object, window) = (Arc::clone(&self.object), self.window.pages());
        space.call_capability(&CapabilityRequest::Return { range, object, window })?;
        Ok(())
    }

    /// Gives `range` of `space` other rights, as far as a handle with `rights` may.
    ///
    /// # Errors
    /// [`CapError::Rights`]; as [`Self::unmap`].
    pub fn protect(
        &self,
        rights: Rights,
        space: &AddressSpace<M>,
        range: PageRange,
        prot: Prot,
    ) -> Result<(), CapError> {
        check_prot(rights, prot)?;
        let (object, window) = (Arc::clone(&self.object), self.window.pages());
        space.call_capability(&CapabilityRequest::ProtectBorrowed { range, object, window, prot })?;
        Ok(())
    }

    /// A window on pages `part` of this one.
    ///
    /// # Errors
    /// `EINVAL` for pages that are not in the window, `ENOMEM`.
    pub(super) fn slice(&self, part: ObjectPages) -> Result<Self, CapError> {
        let window = self.pager.hold_window(&self.object, self.part(part)?)?;
        Ok(Self::new(&self.pager, &self.pool, (Arc::clone(&self.object), window), Sizing::Fixed))
    }

    /// An object of its own that has now what pages `part` of this window have. What either has later, the other has not.
    ///
    /// # Errors
    /// `EINVAL` for pages that are not in the window, `ENOMEM`.
    pub(super) fn snapshot(&self, part: ObjectPages) -> Result<Self, CapError> {
        let held = self.pager.snapshot(&self.object, &self.pool, self.part(part)?)?;
        Ok(Self::new(&self.pager, &self.pool, held, Sizing::Fixed))
    }

    /// Makes the object `pages` pages long. Pages that come are zeros, those that go can be touched by nobody any more.
    ///
    /// # Errors
    /// `EINVAL` if it has a fixed size or cannot be so long; no frames for what comes: then nothing has changed.
    pub fn resize(&self, pages: PageCount) -> Result<(), CapError> {
        if self.sizing == Sizing::Fixed || pages > self.window.pages().count() {
            return Err(Errno::Inval.into());
        }
        Ok(self.pager.resize(&self.object, pages.bytes())?)
    }

    /// Copies bytes out, from `offset` in the window on.
    ///
    /// # Errors
    /// `EINVAL` if they do not all lie in the window and before the end of the object.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), CapError> {
        let at = self.byte(offset, to.len())?;
        let read = self.pager.read(&self.object, at, to)?;
        if read == to.len() { Ok(()) } else { Err(Errno::Inval.into()) }
    }

    /// Copies bytes in, from `offset` in the window on.
    ///
    /// # Errors
    /// `EINVAL` if they do not all lie in the window and before the end of the object; `ENOMEM` if a copy is needed for a
    /// page that a snapshot has too: pages before it are written then.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), CapError> {
        let at = self.byte(offset, from.len())?;
        let written = self.pager.write(&self.object, at, from)?;
        if written == from.len() { Ok(()) } else { Err(Errno::NoMem.into()) }
    }

    /// Where `len` bytes from `offset` in the window on start in the object.
    fn byte(&self, offset: u64, len: usize) -> Result<u64, Errno> {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len)).ok_or(Errno::Inval)?;
        if end > self.bytes()? {
            return Err(Errno::Inval);
        }
        Ok(self.window.pages().first() * PAGE_SIZE + offset)
    }
}
