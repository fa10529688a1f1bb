//! Copies between guests' memory and ours: copy_from_user, copy_to_user, and a compare-and-swap of a word.
//!
//! Each page is looked up and copied under one hold of the lock of the tables, so that it is the page that was found to
//! allow it. No reference to guest memory exists at any time: bytes go through [`PhysMem`]. Where a page is not there,
//! or cannot be stored to yet, a fault makes it so, as if the guest had touched it: what snapshots have too is copied there,
//! and here no page of theirs is ever found to be writable.

use core::fmt;

use super::fault::Touch;
use super::leaf;
use super::{AddressSpace, Fault, SpacePager, SpaceTables};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::manager::Access;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, Root};
use crate::prot::Prot;
use crate::vmmap::Vmmap;

/// A copy ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyFault {
    /// The first byte of the guest that could not be reached.
    pub address: VirtAddr,
    /// How many bytes were copied before.
    pub copied: usize,
    /// Why.
    pub fault: Fault,
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copied {} bytes, then {}", self.copied, self.fault)
    }
}

impl core::error::Error for CopyFault {}

/// How much of `len` bytes from `address` on lies in its page.
fn piece(address: VirtAddr, len: usize) -> usize {
    let in_page = PAGE_SIZE - address.as_u64() % PAGE_SIZE;
    usize::try_from(in_page).map_or(len, |in_page| len.min(in_page))
}

impl<M: PhysMem + Mmu> SpaceTables<M> {
    /// Reads bytes of one page, if it is there.
    fn try_read(&self, address: VirtAddr, to: &mut [u8]) -> bool {
        let read = self.with_root(|root| {
            let entry = self.entry(root, address.page_down());
            if !entry.contains(EntryFlags::PRESENT | EntryFlags::USER) {
                return false;
            }
            self.pager().machine().read(entry.frame().at(address.as_u64()), to);
            true
        });
        read.unwrap_or(false)
    }

    /// Writes bytes of one page, if it is there and can be stored to.
    fn try_write(&self, address: VirtAddr, from: &[u8]) -> bool {
        let written = self.with_root(|root| {
            let place = self.writable(root, address)?;
            self.pager().machine().write(place, from);
            Some(())
        });
        written.flatten().is_some()
    }

    /// Where the byte at `address` is, if a store would go through now; the page is marked as stored to.
    fn writable(&self, root: &Root, address: VirtAddr) -> Option<PhysAddr> {
        let page = address.page_down();
        // The table may be shared: whether stores go through it, a look at the whole way says.
        let mapped = self.tables().query(root, page);
        if !mapped.allows_store() {
            return None;
        }
        let slot = self.tables().slot(root, page).ok()?;
        loop {
            let entry = self.tables().load(&slot);
            if !leaf::is_writable(entry) || !entry.contains(EntryFlags::USER) {
                return None;
            }
            let stored = leaf::made_writable(entry);
            if stored == entry || self.tables().install(root, &slot, entry, stored).is_ok() {
                return Some(Entry::frame(entry).at(address.as_u64()));
            }
        }
    }

    /// Replaces a word, if its page is there and can be stored to; what was there.
    fn try_compare_exchange(&self, address: VirtAddr, current: u64, new: u64) -> Option<Result<(), u64>> {
        let swapped = self.with_root(|root| {
            let place = self.writable(root, address)?;
            Some(self.pager().machine().compare_exchange(place, current, new))
        });
        swapped.flatten()
    }
}

impl<M: PhysMem + Mmu + 'static> SpacePager<M> {
    /// Copies bytes into the space as `map` says it is. Stacks do not grow.
    pub(super) fn copy_out(&self, to: VirtAddr, from: &[u8], map: &Vmmap) -> Result<(), Fault> {
        let mut done = 0;
        while done < from.len() {
            let Some(address) = to.checked_add(done as u64) else { return Err(Fault::OutOfMemory) };
            let len = piece(address, from.len() - done);
            if self.tables().try_write(address, &from[done..done + len]) {
                done += len;
                continue;
            }
            let entry = map.get(address).filter(|entry| entry.region.prot.contains(Prot::WRITE));
            let Some(entry) = entry else { return Err(super::provider::unreachable_page(address)) };
            self.touch(&Touch::new(&entry, address, Access::Write))?;
        }
        Ok(())
    }
}

impl<M: PhysMem + Mmu + 'static> AddressSpace<M> {
    /// Copies bytes out of the space.
    ///
    /// # Errors
    /// [`CopyFault`] at the first byte that cannot be read; those before are in `to`.
    pub fn copy_from_user(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        let mut rest = to;
        let mut copied = 0;
        while !rest.is_empty() {
            let (address, len) = self.next_piece(from, copied, rest.len())?;
            let (part, after) = rest.split_at_mut(len);
            self.retrying(Access::Read, (address, copied), |tables| tables.try_read(address, part).then_some(()))?;
            copied += len;
            rest = after;
        }
        Ok(())
    }

    /// Copies bytes into the space.
    ///
    /// # Errors
    /// [`CopyFault`] at the first byte that cannot be written; those before are there.
    pub fn copy_to_user(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        let mut copied = 0;
        while copied < from.len() {
            let (address, len) = self.next_piece(to, copied, from.len() - copied)?;
            let part = &from[copied..copied + len];
            self.retrying(Access::Write, (address, copied), |tables| tables.try_write(address, part).then_some(()))?;
            copied += len;
        }
        Ok(())
    }

    /// Replaces the word at `address`, a multiple of 8, by `new` if it is `current`, in one step as seen by the guest's
    /// threads. What is there instead, if it is not.
    ///
    /// # Errors
    /// [`CopyFault`] if the word cannot be written, or is not aligned.
    pub fn compare_exchange_user(
        &self,
        address: VirtAddr,
        current: u64,
        new: u64,
    ) -> Result<Result<(), u64>, CopyFault> {
        if !address.as_u64().is_multiple_of(8) {
            return Err(CopyFault { address, copied: 0, fault: super::provider::unreachable_page(address) });
        }
        self.retrying(Access::Write, (address, 0), |tables| tables.try_compare_exchange(address, current, new))
    }

    fn next_piece(&self, start: VirtAddr, copied: usize, rest: usize) -> Result<(VirtAddr, usize), CopyFault> {
        match start.checked_add(copied as u64) {
            Some(address) => Ok((address, piece(address, rest))),
            None => Err(CopyFault { address: start, copied, fault: super::provider::unreachable_page(start) }),
        }
    }

    /// Does `work` on a page; where it finds that it cannot, lets a fault make it so and tries again.
    fn retrying<T>(
        &self,
        access: Access,
        (address, copied): (VirtAddr, usize),
        mut work: impl FnMut(&SpaceTables<M>) -> Option<T>,
    ) -> Result<T, CopyFault> {
        loop {
            let done = self.with_manager(|manager| work(manager.provider().tables()));
            if let Some(done) = done {
                return Ok(done);
            }
            self.fault(address, access).map_err(|fault| CopyFault { address, copied, fault })?;
        }
    }
}

impl From<CopyFault> for Errno {
    /// `EFAULT`, or `ENOMEM` where only a frame was missing.
    fn from(copy: CopyFault) -> Self {
        match copy.fault {
            Fault::Signal(_) => Self::Fault,
            Fault::OutOfMemory => Self::NoMem,
        }
    }
}
