//! Guest addresses by the regions' copies.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::atomic::Ordering;

use vm_memory::{
    AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryResult, MemoryRegionAddress,
    ReadVolatile, WriteVolatile,
};

use crate::WindowRegion;
use crate::bytes::all;

/// The same memory, for code that takes `Bytes<GuestAddress>`: every access goes through the regions' copies, and
/// memory that is gone is an error.
///
/// `M` leads to a [`WindowMemory`](crate::WindowMemory): a reference, an `Arc`, or what `GuestMemoryAtomic` hands out.
/// This is no `GuestMemory` itself: what takes one of those would ask for `VolatileSlice`s.
#[derive(Clone, Copy)]
pub struct FaultSafe<M> {
    memory: M,
}

impl<M: Deref<Target: fmt::Debug>> fmt::Debug for FaultSafe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultSafe({:?})", &*self.memory)
    }
}

impl<M: Deref<Target: GuestMemoryBackend<R = WindowRegion>>> FaultSafe<M> {
    /// Accesses to `memory`.
    pub const fn new(memory: M) -> Self {
        Self { memory }
    }

    /// Has `act` do the part of an access that lies in one region after the other, until one of them is not done in
    /// full. How much was done, which is less than `count` if the guest has nothing behind that.
    ///
    /// # Errors
    /// `InvalidGuestAddress` if the guest has not even the first byte; those of `act`.
    fn each(
        &self,
        addr: GuestAddress,
        count: usize,
        mut act: impl FnMut(&WindowRegion, MemoryRegionAddress, Range<usize>) -> GuestMemoryResult<usize>,
    ) -> GuestMemoryResult<usize> {
        let mut done = 0;
        while done < count {
            let next = addr.0.checked_add(done as u64).map(GuestAddress);
            let Some((region, offset)) = next.and_then(|next| self.memory.to_region_addr(next)) else { break };
            let (_, len) = region.piece(offset, count - done)?;
            let did = act(region, offset, done..done + len)?;
            done += did;
            if did < len {
                return Ok(done);
            }
        }
        if done == 0 && count > 0 { Err(GuestMemoryError::InvalidGuestAddress(addr)) } else { Ok(done) }
    }

    /// The region that the access to a word begins in.
    fn at(&self, addr: GuestAddress) -> GuestMemoryResult<(&WindowRegion, MemoryRegionAddress)> {
        self.memory.to_region_addr(addr).ok_or(GuestMemoryError::InvalidGuestAddress(addr))
    }
}

impl<M: Deref<Target: GuestMemoryBackend<R = WindowRegion>>> Bytes<GuestAddress> for FaultSafe<M> {
    type E = GuestMemoryError;

    fn write(&self, buf: &[u8], addr: GuestAddress) -> GuestMemoryResult<usize> {
        self.each(addr, buf.len(), |region, at, part| region.write(&buf[part], at))
    }

    fn read(&self, buf: &mut [u8], addr: GuestAddress) -> GuestMemoryResult<usize> {
        self.each(addr, buf.len(), |region, at, part| region.read(&mut buf[part], at))
    }

    fn write_slice(&self, buf: &[u8], addr: GuestAddress) -> GuestMemoryResult<()> {
        all(self.write(buf, addr)?, buf.len())
    }

    fn read_slice(&self, buf: &mut [u8], addr: GuestAddress) -> GuestMemoryResult<()> {
        let expected = buf.len();
        all(self.read(buf, addr)?, expected)
    }

    fn read_volatile_from<F: ReadVolatile>(
        &self,
        addr: GuestAddress,
        src: &mut F,
        count: usize,
    ) -> GuestMemoryResult<usize> {
        self.each(addr, count, |region, at, part| region.read_volatile_from(at, src, part.len()))
    }

    fn read_exact_volatile_from<F: ReadVolatile>(
        &self,
        addr: GuestAddress,
        src: &mut F,
        count: usize,
    ) -> GuestMemoryResult<()> {
        let whole = |region: &WindowRegion, at, part: Range<usize>| {
            region.read_exact_volatile_from(at, src, part.len()).map(|()| part.len())
        };
        all(self.each(addr, count, whole)?, count)
    }

    fn write_volatile_to<F: WriteVolatile>(
        &self,
        addr: GuestAddress,
        dst: &mut F,
        count: usize,
    ) -> GuestMemoryResult<usize> {
        self.each(addr, count, |region, at, part| region.write_volatile_to(at, dst, part.len()))
    }

    fn write_all_volatile_to<F: WriteVolatile>(
        &self,
        addr: GuestAddress,
        dst: &mut F,
        count: usize,
    ) -> GuestMemoryResult<()> {
        let whole = |region: &WindowRegion, at, part: Range<usize>| {
            region.write_all_volatile_to(at, dst, part.len()).map(|()| part.len())
        };
        all(self.each(addr, count, whole)?, count)
    }

    fn store<T: AtomicAccess>(&self, val: T, addr: GuestAddress, order: Ordering) -> GuestMemoryResult<()> {
        let (region, at) = self.at(addr)?;
        region.store(val, at, order)
    }

    fn load<T: AtomicAccess>(&self, addr: GuestAddress, order: Ordering) -> GuestMemoryResult<T> {
        let (region, at) = self.at(addr)?;
        region.load(at, order)
    }
}
