//! A process as its memory sees it: an address space, a table of capabilities, an account that pays for both, and the
//! pages that it shares with whoever runs it.
//!
//! Every call names what it wants by handle, and a handle means what the caller's own table says. What a call needs is
//! looked up, and charged, before anything else happens; so a call that is refused has changed nothing.
//!
//! Outside: threads, what a program looks like, and how calls arrive. Locks: a call has the lock of the table while it
//! looks handles up and not afterwards; what it found there stays until the call is over, whoever releases the handle.

use alloc::sync::Arc;

use super::fixed::{CapabilitySet, FixedPage, FixedPlaces, GivenCapability};
use super::memory::{Mapping, MemoryCap, MemoryInfo};
use super::{CapError, CapTable, FrameAllocatorCap, Handle, Interface, Rights, TransferMode, VirtualMemory};
use crate::addr::{PageCount, PageRange};
use crate::fallible::try_arc;
use crate::ledger::Account;
use crate::manager::SpaceConfig;
use crate::mmu::{Mmu, PhysMem};
use crate::object::{ObjectPages, Placement};
use crate::pager::{AddressSpace, Pager};
use crate::prot::Prot;

/// What a process may do with memory that it has allocated.
const ALLOCATED: Rights =
    Rights::READ.union(Rights::WRITE).union(Rights::EXECUTE).union(Rights::MAP).union(Rights::TRANSFER);

/// The name of a process's own address space in its capability set.
pub const OWN_MEMORY: [u8; 8] = *b"memory\0\0";

/// A process as its memory sees it. Dropped, all that it has is given back.
#[derive(Debug)]
pub struct Process<M: PhysMem + Mmu + 'static> {
    // First, so that handles go before the space, which one of them is for.
    table: CapTable,
    space: Arc<AddressSpace<M>>,
    pager: Arc<Pager<M>>,
    given: CapabilitySet<M>,
    ring: FixedPage<M>,
    places: FixedPlaces,
    memory: Handle,
}

impl<M: PhysMem + Mmu + 'static> Process<M> {
    /// A process with an empty space, a capability for it, and its fixed pages. The account of `config` pays.
    ///
    /// # Errors
    /// No frames, a limit, or places for the fixed pages that cannot be.
    pub fn new(pager: &Arc<Pager<M>>, config: SpaceConfig, places: FixedPlaces) -> Result<Self, CapError> {
        let account = config.account.clone();
        Self::around(pager, AddressSpace::new(pager, config)?, account, places)
    }

    fn around(
        pager: &Arc<Pager<M>>,
        space: AddressSpace<M>,
        account: Account,
        places: FixedPlaces,
    ) -> Result<Self, CapError> {
        let space = try_arc(space)?;
        let given = CapabilitySet::new(FixedPage::new(pager, &account)?);
        given.page().show(&space, places.capability_set, Prot::READ)?;
        let ring = FixedPage::new(pager, &account)?;
        ring.show(&space, places.ring, Prot::READ | Prot::WRITE)?;
        let table = CapTable::new(account);
        let memory = try_arc(VirtualMemory::new(Arc::clone(&space)))?;
        let memory = give(&table, &given, (memory, Rights::MAP), OWN_MEMORY)?;
        Ok(Self { table, space, pager: Arc::clone(pager), given, ring, places, memory: memory.handle })
    }

    /// A child: a copy of the space, and no capabilities but that for it. Whatever else it is to have, it is given.
    ///
    /// # Errors
    /// No frames, or a limit of `account`, which pays for the child.
    pub fn fork(&self, account: Account) -> Result<Self, CapError> {
        let space = self.space.fork(&account)?;
        Self::around(&self.pager, space, account, self.places)
    }

    /// Its address space.
    pub const fn space(&self) -> &Arc<AddressSpace<M>> {
        &self.space
    }

    /// Its capabilities.
    pub const fn table(&self) -> &CapTable {
        &self.table
    }

    /// The page that says which capabilities it was given.
    pub const fn given(&self) -> &CapabilitySet<M> {
        &self.given
    }

    /// The page of the ring.
    pub const fn ring(&self) -> &FixedPage<M> {
        &self.ring
    }

    /// Where the fixed pages are.
    pub const fn places(&self) -> FixedPlaces {
        self.places
    }

    /// The handle for its own address space.
    pub const fn memory(&self) -> Handle {
        self.memory
    }

    /// Gives it a capability, and says so in its capability set under `name`.
    ///
    /// # Errors
    /// [`CapError::TableFull`] if either is full, or a limit; nothing is given then.
    pub fn give<T: Interface>(&self, object: Arc<T>, rights: Rights, name: [u8; 8]) -> Result<Handle, CapError> {
        give(&self.table, &self.given, (object, rights), name).map(|given| given.handle)
    }

    /// Ends what it can do: all its handles are gone, and it receives no others. Its memory goes when it is dropped.
    pub fn exit(&self) {
        self.table.close();
    }

    /// Takes `pages` zeroed pages from the pool of a frame allocator.
    ///
    /// # Errors
    /// Those of a look-up; limits of the process, of the pool; no frames.
    pub fn allocate(&self, frames: Handle, pages: PageCount, placement: Placement) -> Result<Handle, CapError> {
        let (frames, _) = self.table.get_cloned::<FrameAllocatorCap<M>>(frames, Rights::empty())?;
        self.hold(pages, ALLOCATED, || Ok(MemoryCap::allocate(frames.pager(), frames.pool(), pages, placement)?))
    }

    /// Takes `pages` zeroed pages from the pool of a frame allocator, for an object that can have up to `capacity`, which
    /// is what it is charged.
    ///
    /// # Errors
    /// As [`Self::allocate`]; `EINVAL` for more pages than the capacity.
    pub fn allocate_resizable(
        &self,
        frames: Handle,
        pages: PageCount,
        capacity: PageCount,
    ) -> Result<Handle, CapError> {
        let (frames, _) = self.table.get_cloned::<FrameAllocatorCap<M>>(frames, Rights::empty())?;
        self.hold(capacity, ALLOCATED | Rights::RESIZE, || {
            Ok(MemoryCap::allocate_resizable(frames.pager(), frames.pool(), (pages, capacity))?)
        })
    }

    /// A handle to memory that `make` makes once its `pages` pages are paid.
    fn hold(
        &self,
        pages: PageCount,
        rights: Rights,
        make: impl FnOnce() -> Result<MemoryCap<M>, CapError>,
    ) -> Result<Handle, CapError> {
        let reservation = self.table.reserve(pages)?;
        let memory = try_arc(make()?)?;
        Ok(reservation.fill(memory, rights))
    }

    fn held_memory(&self, memory: Handle, needed: Rights) -> Result<(Arc<MemoryCap<M>>, Rights), CapError> {
        self.table.get_cloned(memory, needed)
    }

    /// What a handle to memory is for.
    ///
    /// # Errors
    /// Those of a look-up.
    pub fn info(&self, memory: Handle) -> Result<MemoryInfo, CapError> {
        let (memory, rights) = self.held_memory(memory, Rights::empty())?;
        memory.info(rights)
    }

    /// Shows pages of some memory in the process's space.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::MAP`]; those of [`MemoryCap::map`].
    pub fn map(&self, memory: Handle, mapping: Mapping) -> Result<PageRange, CapError> {
        let (memory, rights) = self.held_memory(memory, Rights::MAP)?;
        memory.map(rights, &self.space, mapping)
    }

    /// Shows `range`, which shows pages of some memory, no more.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::MAP`]; those of [`MemoryCap::unmap`].
    pub fn unmap_borrowed(&self, memory: Handle, range: PageRange) -> Result<(), CapError> {
        let (memory, _) = self.held_memory(memory, Rights::MAP)?;
        memory.unmap(&self.space, range)
    }

    /// Gives `range`, which shows pages of some memory, other rights.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::MAP`]; those of [`MemoryCap::protect`].
    pub fn protect_borrowed(&self, memory: Handle, range: PageRange, prot: Prot) -> Result<(), CapError> {
        let (memory, rights) = self.held_memory(memory, Rights::MAP)?;
        memory.protect(rights, &self.space, range, prot)
    }

    /// A handle to pages `part` of some memory, with some of its rights.
    ///
    /// # Errors
    /// Those of a look-up, and [`CapError::Rights`] for rights that the handle has not or a slice cannot have; limits;
    /// `EINVAL` for pages that are not in its window.
    pub fn slice(&self, memory: Handle, part: ObjectPages, rights: Rights) -> Result<Handle, CapError> {
        let (memory, _) = self.held_memory(memory, rights)?;
        if rights.contains(Rights::RESIZE) {
            return Err(CapError::Rights);
        }
        self.hold(part.count(), rights, || memory.slice(part))
    }

    /// A handle to a copy of pages `part` of some memory, as they are now. Pages are copied when one side stores to them;
    /// those beyond the end of memory that can grow are zeros, and take a frame when they are touched.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::READ`]; limits; `EINVAL` for pages that are not in its window.
    pub fn snapshot(&self, memory: Handle, part: ObjectPages) -> Result<Handle, CapError> {
        let (memory, rights) = self.held_memory(memory, Rights::READ)?;
        let own = (rights | Rights::WRITE) - Rights::EXECUTE - Rights::RESIZE;
        self.hold(part.count(), own, || memory.snapshot(part))
    }

    /// Makes some memory `pages` pages long.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::RESIZE`]; those of [`MemoryCap::resize`].
    pub fn resize(&self, memory: Handle, pages: PageCount) -> Result<(), CapError> {
        let (memory, _) = self.held_memory(memory, Rights::RESIZE)?;
        memory.resize(pages)
    }

    /// Copies bytes out of some memory.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::READ`]; those of [`MemoryCap::read`].
    pub fn read(&self, memory: Handle, offset: u64, to: &mut [u8]) -> Result<(), CapError> {
        let (memory, _) = self.held_memory(memory, Rights::READ)?;
        memory.read(offset, to)
    }

    /// Copies bytes into some memory.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::WRITE`]; those of [`MemoryCap::write`].
    pub fn write(&self, memory: Handle, offset: u64, from: &[u8]) -> Result<(), CapError> {
        let (memory, _) = self.held_memory(memory, Rights::WRITE)?;
        memory.write(offset, from)
    }

    /// The space that a handle is for, to reserve and commit memory in.
    ///
    /// # Errors
    /// Those of a look-up, with [`Rights::MAP`].
    pub fn virtual_memory(&self, space: Handle) -> Result<Arc<VirtualMemory<M>>, CapError> {
        let (space, _) = self.table.get_cloned(space, Rights::MAP)?;
        Ok(space)
    }

    /// Hands a capability to another process; the handle there.
    ///
    /// # Errors
    /// Those of [`CapTable::offer`] and of [`CapTable::reserve`] there; then it is as if nothing had been tried.
    pub fn send(&self, handle: Handle, mode: TransferMode, rights: Rights, to: &Self) -> Result<Handle, CapError> {
        self.table.offer(handle, mode, rights)?.reserve(&to.table)?.commit()
    }

    /// As [`Self::send`], and says so in the capability set of the other process under `name`.
    ///
    /// # Errors
    /// Those of [`Self::send`]; [`CapError::TableFull`] if the capability set is full. Nothing has moved then.
    pub fn send_as(
        &self,
        handle: Handle,
        (mode, rights): (TransferMode, Rights),
        name: [u8; 8],
        to: &Self,
    ) -> Result<Handle, CapError> {
        let transfer = self.table.offer(handle, mode, rights)?.reserve(&to.table)?;
        let given = to.given.add(|| {
            let interface = transfer.interface();
            Ok(GivenCapability { handle: transfer.commit()?, interface, rights, name })
        });
        given.map(|given| given.handle)
    }

    /// Recomputes what is derived, of its space and its table.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn check_invariants(&self) {
        self.space.check_invariants();
        self.table.check_invariants();
    }
}

/// Puts an object into `table` and into the list of those given.
fn give<M: PhysMem + Mmu + 'static, T: Interface>(
    table: &CapTable,
    given: &CapabilitySet<M>,
    (object, rights): (Arc<T>, Rights),
    name: [u8; 8],
) -> Result<GivenCapability, CapError> {
    given.add(|| {
        let handle = table.insert(object, rights)?;
        Ok(GivenCapability { handle, interface: T::ID, rights, name })
    })
}
