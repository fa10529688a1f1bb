//! Accesses to a region by copies between its window and memory of our own.
//!
//! The results are those of the regions of `vm-memory`: an access that begins outside of the region, or that must be
//! whole and is not, is an `InvalidBackendAddress`; one of a slice that ends with the region is a `PartialBuffer`.
//! What is new is the `IOError` with `EFAULT` for memory that is gone.

use std::io::{Error as IoError, ErrorKind};
use std::sync::atomic::{Ordering, fence};

use pagewarden::phys::PhysError;
use vm_memory::{
    AtomicAccess, ByteValued, Bytes, GuestMemoryError, GuestMemoryResult, MemoryRegionAddress, ReadVolatile,
    VolatileMemoryError, VolatileMemoryResult, VolatileSlice, WriteVolatile,
};

use crate::WindowRegion;

/// The most that is on its way between a window and a file at once.
const BOUNCE: usize = 1 << 16;

/// What callers of `vm-memory` know of an error.
fn io_error(error: PhysError) -> GuestMemoryError {
    GuestMemoryError::IOError(IoError::from_raw_os_error(error.errno().raw().into()))
}

/// Memory for `count` bytes on their way, or for as many as go at once.
fn bounce(count: usize) -> GuestMemoryResult<Vec<u8>> {
    let len = count.min(BOUNCE);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| GuestMemoryError::IOError(ErrorKind::OutOfMemory.into()))?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Does it again for as long as a signal comes in between.
fn uninterrupted<T>(mut act: impl FnMut() -> VolatileMemoryResult<T>) -> VolatileMemoryResult<T> {
    loop {
        match act() {
            Err(VolatileMemoryError::IOError(error)) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// That a buffer was used up.
pub(crate) fn all(completed: usize, expected: usize) -> GuestMemoryResult<()> {
    if completed == expected { Ok(()) } else { Err(GuestMemoryError::PartialBuffer { expected, completed }) }
}

impl WindowRegion {
    #[inline]
    fn load_bytes(&self, offset: usize, to: &mut [u8]) -> GuestMemoryResult<()> {
        self.mapping().read(offset, to).map_err(io_error)
    }

    #[inline]
    fn store_bytes(&self, offset: usize, from: &[u8]) -> GuestMemoryResult<()> {
        self.mapping().write(offset, from).map_err(io_error)
    }

    /// The bytes of a slice from `addr` on: at least one, unless none is asked for.
    #[inline]
    fn some(&self, addr: MemoryRegionAddress, count: usize) -> GuestMemoryResult<(usize, usize)> {
        match self.piece(addr, count) {
            _ if count == 0 => Ok((0, 0)),
            Ok((_, 0)) => Err(GuestMemoryError::InvalidBackendAddress),
            piece => piece,
        }
    }

    /// Has `act` move the `count` bytes from `addr` on, piece by piece: where each begins, and memory of its length.
    fn each_piece(
        &self,
        addr: MemoryRegionAddress,
        count: usize,
        mut act: impl FnMut(usize, &mut [u8]) -> GuestMemoryResult<()>,
    ) -> GuestMemoryResult<()> {
        let offset = self.whole(addr, count)?;
        let mut bytes = bounce(count)?;
        for done in (0..count).step_by(BOUNCE) {
            let len = bytes.len().min(count - done);
            act(offset + done, &mut bytes[..len])?;
        }
        Ok(())
    }

    /// Where the word at `addr` begins, if it is a multiple of its length.
    fn word<T: AtomicAccess>(&self, addr: MemoryRegionAddress) -> GuestMemoryResult<usize> {
        let len = size_of::<T::A>();
        self.whole(addr, len).and_then(|offset| match offset.is_multiple_of(len) {
            true => Ok(offset),
            false => Err(GuestMemoryError::InvalidBackendAddress),
        })
    }
}

/// A word of our own, of the length that `T` has where others may see it.
fn word_bytes<T: AtomicAccess>(word: &mut u64) -> GuestMemoryResult<&mut [u8]> {
    word.as_mut_slice().get_mut(..size_of::<T::A>()).ok_or(GuestMemoryError::InvalidBackendAddress)
}

impl Bytes<MemoryRegionAddress> for WindowRegion {
    type E = GuestMemoryError;

    #[inline]
    fn write(&self, buf: &[u8], addr: MemoryRegionAddress) -> GuestMemoryResult<usize> {
        let (offset, count) = self.some(addr, buf.len())?;
        self.store_bytes(offset, &buf[..count])?;
        Ok(count)
    }

    #[inline]
    fn read(&self, buf: &mut [u8], addr: MemoryRegionAddress) -> GuestMemoryResult<usize> {
        let (offset, count) = self.some(addr, buf.len())?;
        self.load_bytes(offset, &mut buf[..count])?;
        Ok(count)
    }

    #[inline]
    fn write_slice(&self, buf: &[u8], addr: MemoryRegionAddress) -> GuestMemoryResult<()> {
        all(self.write(buf, addr)?, buf.len())
    }

    #[inline]
    fn read_slice(&self, buf: &mut [u8], addr: MemoryRegionAddress) -> GuestMemoryResult<()> {
        let expected = buf.len();
        all(self.read(buf, addr)?, expected)
    }

    /// Asks `src` once, for 64 KiB at most: less than `count` may come, as with any file.
    fn read_volatile_from<F: ReadVolatile>(
        &self,
        addr: MemoryRegionAddress,
        src: &mut F,
        count: usize,
    ) -> GuestMemoryResult<usize> {
        let (offset, count) = self.piece(addr, count)?;
        let mut bytes = bounce(count)?;
        let came = uninterrupted(|| src.read_volatile(&mut VolatileSlice::from(bytes.as_mut_slice())))?;
        let bytes = bytes.get(..came).ok_or(GuestMemoryError::CallbackOutOfRange)?;
        self.store_bytes(offset, bytes)?;
        Ok(came)
    }

    fn read_exact_volatile_from<F: ReadVolatile>(
        &self,
        addr: MemoryRegionAddress,
        src: &mut F,
        count: usize,
    ) -> GuestMemoryResult<()> {
        self.each_piece(addr, count, |offset, piece| {
            src.read_exact_volatile(&mut VolatileSlice::from(&mut *piece))?;
            self.store_bytes(offset, piece)
        })
    }

    /// Asks `dst` once, with 64 KiB at most: it may take less than `count`, as any file may.
    fn write_volatile_to<F: WriteVolatile>(
        &self,
        addr: MemoryRegionAddress,
        dst: &mut F,
        count: usize,
    ) -> GuestMemoryResult<usize> {
        let (offset, count) = self.piece(addr, count)?;
        let mut bytes = bounce(count)?;
        self.load_bytes(offset, &mut bytes)?;
        let taken = uninterrupted(|| dst.write_volatile(&VolatileSlice::from(bytes.as_mut_slice())))?;
        if taken <= bytes.len() { Ok(taken) } else { Err(GuestMemoryError::CallbackOutOfRange) }
    }

    fn write_all_volatile_to<F: WriteVolatile>(
        &self,
        addr: MemoryRegionAddress,
        dst: &mut F,
        count: usize,
    ) -> GuestMemoryResult<()> {
        self.each_piece(addr, count, |offset, piece| {
            self.load_bytes(offset, piece)?;
            Ok(dst.write_all_volatile(&VolatileSlice::from(piece))?)
        })
    }

    /// One access, whatever `order` is: stores release, and a sequentially consistent one is followed by a fence.
    fn store<T: AtomicAccess>(&self, val: T, addr: MemoryRegionAddress, order: Ordering) -> GuestMemoryResult<()> {
        let offset = self.word::<T>(addr)?;
        let mut word = 0;
        let bytes = word_bytes::<T>(&mut word)?;
        VolatileSlice::from(&mut *bytes).store(val, 0, Ordering::Relaxed)?;
        self.store_bytes(offset, bytes)?;
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
        Ok(())
    }

    /// One access, whatever `order` is: loads acquire.
    fn load<T: AtomicAccess>(&self, addr: MemoryRegionAddress, _: Ordering) -> GuestMemoryResult<T> {
        let offset = self.word::<T>(addr)?;
        let mut word = 0;
        let bytes = word_bytes::<T>(&mut word)?;
        self.load_bytes(offset, bytes)?;
        Ok(VolatileSlice::from(bytes).load(0, Ordering::Relaxed)?)
    }
}
