//! The pager: memory of our own behind address spaces.
//!
//! ```text
//! AddressSpace  ->  PageManager (what may be where)  ->  SpacePager: PageManagementProvider
//!      |                                                     |   provider advise lock
//!      +--- fault, copy ------------------------------------>|   fault fork
//!                                                            v
//!                          SpaceTables (tables)    ObjectMemory (object/memory)
//!                                     \               /
//!                               Frames (frame/), PhysMem + Mmu (mmu)
//! ```
//!
//! # What a page can be
//!
//! `leaf` knows how each is written as an entry. A private page:
//!
//! ```text
//! state      entry                                 becomes, on a load         on a store
//! nothing    empty                                 zero, or file              own
//! zero       the zero frame, read-only             -                          own (a zeroed frame)
//! file       a frame of the object, read-only      -                          own (a copy)
//! own        a frame that nobody else shows        -                          - (writable, if it was not)
//! common     a frame that others show, read-only   -                          own (a copy, unless all others have gone)
//! lazy       own; may become nothing any time      -                          own (of droppable memory: as before)
//! kept       not present, with a frame             only after mprotect(2), which makes it what it was
//! guard      not present, without                  SIGSEGV                    SIGSEGV
//! ```
//!
//! A shared page is nothing, shown (a frame of the object, writable after the first store), kept or a guard. A store to a
//! frame that a snapshot of the object has too makes the object copy it first (`object/snapshot`). Frames of
//! devices are shown like those of an object and never copied. Which of own and common a page is, the reference count of
//! its frame says, and nothing else.
//!
//! After a fork, tables of private anonymous pages are shared between parent and child until one of them changes
//! something below. Tables that show pages of objects never are: whoever takes a page of an object away changes the
//! tables of others.
//!
//! The upper half of all spaces is one and the same, if there is a kernel ([`KernelSpace`]): its pages are in no map, and
//! nothing that is said above holds for them.
//!
//! # Locks, in this order
//!
//! 1. the manager of a space ([`AddressSpace`]): for reading in a fault, for writing in a call;
//! 2. the state of an object;
//! 3. the tables of a space: for reading where entries are only added, for writing where any go; parent before child
//!    in a fork, else nobody's with another's;
//! 4. the tables of the kernel space: for reading when a space is made, for writing when the kernel maps something;
//! 5. what is inside of [`Frames`], and the lists of files and spaces here.
//!
//! Sources of files and [`Reclaim`] are called with none but the first.

mod advise;
mod around;
mod copy;
mod fault;
mod fork;
mod kernel;
mod leaf;
mod provider;
mod reclaim;
mod space;
mod tables;

#[cfg(test)]
pub(crate) mod tests;

pub use copy::CopyFault;
pub use fault::Fault;
pub use kernel::KernelSpace;
pub use provider::SpacePager;
pub use reclaim::Reclaim;
pub use space::AddressSpace;

pub(crate) use tables::SpaceTables;

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use crate::addr::PageCount;
use crate::error::Errno;
use crate::fallible::try_arc;
use crate::frame::{FrameNumber, FrameUse, Frames, Owner};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::object::memory::ObjectMemory;
use crate::object::{Extent, MemoryObject, ObjectKind, ObjectPages, ObjectSource, Window};
use crate::sync::{AtomicU64, Mutex, Once, Ordering};

/// All memory of a machine: its frames, and the objects and spaces that they are in.
pub struct Pager<M: PhysMem + Mmu> {
    machine: Arc<M>,
    frames: Frames,
    /// What private memory shows that was read and never stored to.
    zero: FrameNumber,
    /// Pays for objects of which nobody else does.
    account: Account,
    files: Mutex<Vec<Weak<ObjectMemory<M>>>>,
    spaces: Mutex<Vec<Weak<SpaceTables<M>>>>,
    spaces_made: AtomicU64,
    /// Whose upper half all spaces have. Not kept: it has this pager.
    kernel: Once<Weak<SpaceTables<M>>>,
    reclaimer: Option<Arc<dyn Reclaim>>,
}

impl<M: PhysMem + Mmu> fmt::Debug for Pager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").field("frames_free", &self.frames.available()).finish_non_exhaustive()
    }
}

impl<M: PhysMem + Mmu + 'static> Pager<M> {
    /// A pager for the frames of `machine`. `account` pays for what belongs to no space: the zero frame, and objects
    /// that hold no charge of their own.
    ///
    /// # Errors
    /// There is not even one frame, or the account may not have it.
    pub fn new(machine: Arc<M>, frames: Frames, account: &Account) -> Result<Arc<Self>, Errno> {
        Self::with_reclaim(machine, frames, account, None)
    }

    /// The same, with somebody to ask for frames when there are none left.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_reclaim(
        machine: Arc<M>,
        frames: Frames,
        account: &Account,
        reclaimer: Option<Arc<dyn Reclaim>>,
    ) -> Result<Arc<Self>, Errno> {
        let owner = frames.add_owner(account).map_err(|error| error.errno())?;
        let zero = frames.allocate_zeroed(&*machine, machine.processor(), &owner, FrameUse::Anonymous);
        let zero = zero.map_err(|error| error.errno())?;
        try_arc(Self {
            machine,
            frames,
            zero,
            account: account.clone(),
            files: Mutex::new(Vec::new()),
            spaces: Mutex::new(Vec::new()),
            spaces_made: AtomicU64::new(0),
            kernel: Once::new(),
            reclaimer,
        })
    }

    /// An object with pages of its own, for regions to map. Its frames are paid by whoever holds `account`.
    ///
    /// # Errors
    /// No memory or frames for it, a limit, or a size that no object can have.
    pub fn new_object(
        self: &Arc<Self>,
        kind: ObjectKind,
        name: impl Into<String>,
        source: ObjectSource,
    ) -> Result<Arc<MemoryObject>, Errno> {
        let object = MemoryObject::new(kind, name);
        object.memory_or_make(|| Ok(self.new_memory(&self.account, source)?))?;
        Ok(object)
    }

    /// An object for handles to hold, whose pages live as long as a window or a mapping reaches them: a fixed set of
    /// frames, or anonymous memory that can be resized. All its frames are taken at once, zeroed and paid by `account`.
    /// With it the first window: of `capacity` pages, or as many as there are if that is more.
    ///
    /// # Errors
    /// [`Errno::NoMem`] for more frames than there are or a limit lets pass; [`Errno::Inval`] for other sources, no pages
    /// at all, or more than any object has.
    pub fn new_held(
        self: &Arc<Self>,
        account: &Account,
        source: ObjectSource,
        capacity: PageCount,
    ) -> Result<(Arc<MemoryObject>, Window<M>), Errno> {
        let memory = self.reclaiming(|| ObjectMemory::new_reached(self, account, source.clone()))?;
        let pages = PageCount::from_bytes_up(memory.bytes()).max(capacity);
        Self::held(memory, pages)
    }

    /// An object that holds what `pages` of another hold now, and zeros where there are none, with a window over it. Frames are shared until one of both is stored to; `account` pays for what the new one will
    /// have of its own. The new one is anonymous memory, whatever the other is.
    ///
    /// # Errors
    /// [`Errno::Inval`] for files and memory of devices; [`Errno::NoDev`] for an object of somebody else's; [`Errno::Busy`] if too many objects have a frame; no memory. Nothing has changed then.
    pub fn snapshot(
        self: &Arc<Self>,
        object: &MemoryObject,
        account: &Account,
        pages: ObjectPages,
    ) -> Result<(Arc<MemoryObject>, Window<M>), Errno> {
        let memory = self.memory_of(object)?;
        let snapshot = self.reclaiming(|| memory.snapshot(account, pages))?;
        Self::held(snapshot, pages.count())
    }

    /// An object for `memory`, with a window over `pages` pages of it.
    fn held(memory: ObjectMemory<M>, pages: PageCount) -> Result<(Arc<MemoryObject>, Window<M>), Errno> {
        let memory = try_arc(memory)?;
        let window = memory.hold_window(ObjectPages::new(0, pages).ok_or(Errno::Inval)?)?;
        let object = MemoryObject::try_new(ObjectKind::Capability, "[memory object]", None)?;
        object.memory_or_make(|| Ok(memory))?;
        Ok((object, window))
    }

    /// Reaches `pages` of an object. Those that nobody reached before are zeros, if they come back at all.
    ///
    /// # Errors
    /// [`Errno::Inval`] for an object whose pages live as long as it does; [`Errno::NoDev`] for one of somebody else's; no
    /// memory.
    pub fn hold_window(self: &Arc<Self>, object: &MemoryObject, pages: ObjectPages) -> Result<Window<M>, Errno> {
        self.memory_of(object)?.hold_window(pages)
    }

    /// Gives an object that was made elsewhere pages of its own; nothing, if it has some already.
    ///
    /// # Errors
    /// As [`Self::new_object`].
    pub fn back(self: &Arc<Self>, object: &MemoryObject, source: ObjectSource) -> Result<(), Errno> {
        object.memory_or_make(|| Ok(self.new_memory(&self.account, source)?)).map(drop)
    }

    /// Gives an object the pages of another, as each attachment of a segment has; nothing, if it has some already.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if the other is somebody else's; no memory.
    pub fn share(self: &Arc<Self>, object: &MemoryObject, other: &MemoryObject) -> Result<(), Errno> {
        object.memory_or_make(|| Ok(self.memory_of(other)?)).map(drop)
    }

    fn new_memory(self: &Arc<Self>, account: &Account, source: ObjectSource) -> Result<Arc<ObjectMemory<M>>, Errno> {
        let memory = try_arc(self.reclaiming(|| ObjectMemory::new(self, account, source.clone()))?)?;
        if memory.is_file() {
            let mut files = self.files.lock();
            files.retain(|file| file.strong_count() > 0);
            files.try_reserve(1).map_err(|_| Errno::NoMem)?;
            files.push(Arc::downgrade(&memory));
        }
        Ok(memory)
    }

    /// The pages of an object that regions map. Memory that processes share comes into being with its first mapping.
    ///
    /// # Errors
    /// [`Errno::NoDev`] for an object of somebody else's; no memory.
    pub(crate) fn memory_of(self: &Arc<Self>, object: &MemoryObject) -> Result<Arc<ObjectMemory<M>>, Errno> {
        let memory = object.memory_or_make(|| {
            let pages = match object.kind() {
                ObjectKind::SharedAnonymous | ObjectKind::SysV { .. } => object.pages(),
                _ => None,
            };
            let bytes = pages.ok_or(Errno::NoDev)?.bytes();
            let account = object.charge().map_or(&self.account, |charge| charge.account());
            Ok(self.new_memory(account, ObjectSource::Anonymous { bytes })?)
        })?;
        Arc::clone(memory).downcast().map_err(|_| Errno::NoDev)
    }

    /// How many bytes an object has now.
    ///
    /// # Errors
    /// [`Errno::NoDev`] for an object of somebody else's.
    pub fn size(self: &Arc<Self>, object: &MemoryObject) -> Result<u64, Errno> {
        Ok(self.memory_of(object)?.bytes())
    }

    /// Changes the size of an object (ftruncate(2)). What lies beyond a smaller one can be touched no more, private
    /// copies included (`mm/truncate.c:truncate_pagecache`). Of an object that handles hold, pages that come are there at
    /// once, all or none.
    ///
    /// # Errors
    /// [`Errno::Inval`] for one that has a fixed size, [`Errno::NoDev`] for one of somebody else's; no frames.
    pub fn resize(self: &Arc<Self>, object: &MemoryObject, bytes: u64) -> Result<(), Errno> {
        let memory = self.memory_of(object)?;
        self.reclaiming(|| memory.resize(bytes))
    }

    /// Seals an object against being written through views to come (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`). Descriptors are
    /// the caller's.
    ///
    /// # Errors
    /// [`Errno::NoDev`] for one of somebody else's.
    pub fn seal_writes(self: &Arc<Self>, object: &MemoryObject) -> Result<(), Errno> {
        self.memory_of(object).map(|memory| memory.seal_writes())
    }

    /// Makes `len` bytes from `offset` on zeros, and whole pages of them a hole (fallocate(2) with
    /// `FALLOC_FL_PUNCH_HOLE`). Private copies stay.
    ///
    /// # Errors
    /// The source's reason; [`Errno::OpNotSupp`] where there are no holes; no frame for a page that a snapshot has too.
    pub fn punch(self: &Arc<Self>, object: &MemoryObject, offset: u64, len: u64) -> Result<(), Errno> {
        let memory = self.memory_of(object)?;
        self.reclaiming(|| memory.punch(offset, offset.saturating_add(len)))
    }

    /// Makes the pages of `len` bytes from `offset` on be there (fallocate(2)).
    ///
    /// # Errors
    /// No frames.
    pub fn allocate(
        self: &Arc<Self>,
        object: &MemoryObject,
        (offset, len): (u64, u64),
        extent: Extent,
    ) -> Result<(), Errno> {
        let memory = self.memory_of(object)?;
        self.reclaiming(|| memory.allocate(offset, offset.saturating_add(len), extent))
    }

    /// Copies bytes out of an object (pread(2)); how many there were up to its end.
    ///
    /// # Errors
    /// A page cannot be read.
    pub fn read(self: &Arc<Self>, object: &MemoryObject, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let memory = self.memory_of(object)?;
        self.reclaiming(|| memory.read(offset, to))
    }

    /// Copies bytes into an object (pwrite(2)), which grows if need be; how many were copied.
    ///
    /// # Errors
    /// The first page cannot be had, or the object cannot be so large.
    pub fn write(self: &Arc<Self>, object: &MemoryObject, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        let memory = self.memory_of(object)?;
        self.reclaiming(|| memory.write(offset, from))
    }

    /// How many pages of an object can be touched.
    pub(crate) fn pages(self: &Arc<Self>, object: &MemoryObject) -> Option<PageCount> {
        Some(PageCount::from_bytes_up(self.memory_of(object).ok()?.bytes()))
    }
}

impl<M: PhysMem + Mmu> Pager<M> {
    /// The machine.
    pub const fn machine(&self) -> &Arc<M> {
        &self.machine
    }

    /// The frames.
    pub const fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The frame of zeros that private memory shows where it was read and never stored to. Nobody ever stores to it.
    pub const fn zero_frame(&self) -> FrameNumber {
        self.zero
    }

    /// A frame with one reference. What it holds is what it held before.
    pub(crate) fn frame(&self, owner: &Owner, used_as: FrameUse) -> Result<FrameNumber, Errno> {
        self.frames.allocate(self.machine.processor(), owner, used_as).map_err(|error| error.errno())
    }

    /// A frame of zeros with one reference.
    pub(crate) fn zeroed_frame(&self, owner: &Owner, used_as: FrameUse) -> Result<FrameNumber, Errno> {
        let frame = self.frames.allocate_zeroed(&*self.machine, self.machine.processor(), owner, used_as);
        frame.map_err(|error| error.errno())
    }

    /// Takes a reference back.
    pub(crate) fn release(&self, frame: FrameNumber) {
        let released = self.frames.release(self.machine.processor(), frame);
        debug_assert!(released.is_ok(), "{frame}: {released:?}");
    }

    /// Has every space that is made from now on, also by a fork, show `kernel` in its upper half. A kernel does this
    /// before it makes any: a space that was made before has an upper half of its own, in which there is nothing.
    ///
    /// # Errors
    /// [`Errno::Inval`] for a kernel space of another pager; [`Errno::Busy`] if there is another already.
    pub fn set_kernel(&self, kernel: &KernelSpace<M>) -> Result<(), Errno> {
        let tables = kernel.tables();
        if !core::ptr::eq(&**tables.pager(), self) {
            return Err(Errno::Inval);
        }
        let set = self.kernel.call_once(|| Arc::downgrade(tables));
        if core::ptr::eq(set.as_ptr(), &raw const **tables) { Ok(()) } else { Err(Errno::Busy) }
    }

    /// The tables whose upper half new spaces have, if there are such.
    ///
    /// # Errors
    /// [`Errno::Srch`] if they are gone.
    fn kernel(&self) -> Result<Option<Arc<SpaceTables<M>>>, Errno> {
        self.kernel.get().map(|kernel| kernel.upgrade().ok_or(Errno::Srch)).transpose()
    }

    /// A number for a new space.
    pub(crate) fn next_space(&self) -> u64 {
        self.spaces_made.fetch_add(1, Ordering::Relaxed)
    }
}

impl<M: PhysMem + Mmu> Drop for Pager<M> {
    fn drop(&mut self) {
        self.release(self.zero);
    }
}
