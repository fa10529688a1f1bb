//! A run of bytes in pages that need not follow each other: what pointers are made of.

use alloc::boxed::Box;
use core::fmt;
use core::ops::Range;

use crate::addr::{PAGE_LEN, PAGE_SIZE, PhysAddr};
use crate::frame::FrameNumber;
use crate::phys::manager::{Claim, ManagerRef};
use crate::phys::pages::{self, Ranges};
use crate::phys::{CopyFault, Events, Mapping, Permission, PhysError, PhysRange, Reservation, Word};

/// Bytes that are on their way from one span to another.
const BOUNCE: usize = 1024;

/// The bytes from `offset`, which is in the first of the frames, on.
pub(super) struct Span<R: ManagerRef> {
    manager: R,
    frames: Box<[FrameNumber]>,
    offset: usize,
    bytes: usize,
    permission: Permission,
    /// The window of all accesses, if there is one.
    mapping: Option<Mapping<R>>,
}

impl<R: ManagerRef> fmt::Debug for Span<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.frames.first().map_or(0, |frame| frame.get() * PAGE_SIZE);
        write!(f, "{} bytes in {} pages from {:#x}", self.bytes, self.frames.len(), first + self.offset as u64)
    }
}

impl<R: ManagerRef> Span<R> {
    /// The `bytes` bytes from `offset` on.
    pub(super) fn new(
        manager: R,
        frames: &[FrameNumber],
        (offset, bytes): (u64, usize),
        permission: Permission,
    ) -> Result<Self, PhysError> {
        pages::check_distinct(frames)?;
        let frames = pages::copied(frames)?;
        let span = Self::of(manager, frames, (offset, bytes), permission)?;
        span.manager.validate_unowned(&span.frames)?;
        Ok(span)
    }

    /// The `bytes` bytes, at least one, from `start` on.
    pub(super) fn contiguous(
        manager: R,
        start: PhysAddr,
        bytes: usize,
        permission: Permission,
    ) -> Result<Self, PhysError> {
        let frames = pages::holding(PhysRange::new(start, bytes as u64)?)?;
        // Before they are written down, one by one: a range may be as long as physical memory.
        manager.validate_foreign(frames.iter())?;
        Self::of(manager, pages::listed(frames)?, (start.as_u64() % PAGE_SIZE, bytes), permission)
    }

    fn of(
        manager: R,
        frames: Box<[FrameNumber]>,
        (offset, bytes): (u64, usize),
        permission: Permission,
    ) -> Result<Self, PhysError> {
        let offset = usize::try_from(offset).ok().filter(|offset| *offset < PAGE_LEN).ok_or(PhysError::Invalid)?;
        let end = offset.checked_add(bytes).ok_or(PhysError::Overflow)?;
        if end.div_ceil(PAGE_LEN) > frames.len() {
            return Err(PhysError::OutOfBounds);
        }
        Ok(Self { manager, frames, offset, bytes, permission, mapping: None })
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn mapping(&self) -> Option<&Mapping<R>> {
        self.mapping.as_ref()
    }

    #[inline]
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> Result<(), PhysError> {
        self.access(self.within(at, to.len())?, |mapping, offset| mapping.read(offset, to))
    }

    #[inline]
    pub(super) fn write(&self, at: usize, from: &[u8]) -> Result<(), PhysError> {
        self.access(self.within(at, from.len())?, |mapping, offset| mapping.write(offset, from))
    }

    pub(super) fn compare_exchange<W: Word>(&self, at: usize, current: W, new: W) -> Result<W, PhysError> {
        let mut found = current;
        self.access(self.within(at, size_of::<W>())?, |mapping, offset| {
            found = mapping.compare_exchange(offset, current, new)?;
            Ok(())
        })?;
        Ok(found)
    }

    pub(super) fn copy_from<S: ManagerRef>(
        &self,
        to: usize,
        source: &Span<S>,
        from: usize,
        len: usize,
    ) -> Result<(), PhysError> {
        let (to, from) = (self.within(to, len)?, source.within(from, len)?);
        self.access(to, |target, to| {
            source.access(from, |source, from| {
                let mut bounce = [0; BOUNCE];
                let mut copied = 0;
                while copied < len {
                    let piece = &mut bounce[..BOUNCE.min(len - copied)];
                    let loaded = source.read(from + copied, piece);
                    // What was loaded before a fault is stored: all bytes before it count as copied.
                    let piece = &piece[..loaded_bytes(loaded, piece.len())?];
                    target.write(to + copied, piece).map_err(|error| after(error, copied))?;
                    copied += piece.len();
                    loaded.map_err(|_| CopyFault { copied })?;
                }
                Ok(())
            })
        })
    }

    pub(super) fn ranges(&self) -> Result<Ranges, PhysError> {
        pages::ranges(&self.frames, self.offset as u64, (self.offset + self.bytes) as u64)
    }

    pub(super) fn reserve(&self) -> Result<Reservation<'_, Events<R>>, PhysError> {
        self.manager.reservations().try_reserve(&self.ranges()?, self.permission.mode())
    }

    pub(super) fn map(&mut self, claim: Claim<'_, R::Provider>) -> Result<(), PhysError> {
        if self.mapping.is_some() {
            return Err(PhysError::AlreadyMapped);
        }
        let claim = match claim {
            Claim::Reserve if self.bytes > 0 => Claim::Held(self.reserve()?),
            Claim::Reserve => Claim::Beside,
            other => other,
        };
        self.mapping = Some(Mapping::new(self.manager.clone(), &self.frames, self.permission, claim)?);
        Ok(())
    }

    pub(super) fn unmap(&mut self) -> Result<(), PhysError> {
        self.mapping.take().map_or(Ok(()), Mapping::unmap)
    }

    /// The bytes of an access, counted from the first page on.
    #[inline]
    fn within(&self, at: usize, len: usize) -> Result<Range<usize>, PhysError> {
        let end = at.checked_add(len).ok_or(PhysError::Overflow)?;
        if end > self.bytes {
            return Err(PhysError::OutOfBounds);
        }
        Ok(self.offset + at..self.offset + end)
    }

    /// Lets `act` have a window with these bytes, and tells where in it they begin.
    #[inline]
    fn access(
        &self,
        bytes: Range<usize>,
        act: impl FnOnce(&Mapping<R>, usize) -> Result<(), PhysError>,
    ) -> Result<(), PhysError> {
        match &self.mapping {
            Some(mapping) => act(mapping, bytes.start),
            None if bytes.is_empty() => Ok(()),
            None => self.access_once(bytes, act),
        }
    }

    fn access_once(
        &self,
        bytes: Range<usize>,
        act: impl FnOnce(&Mapping<R>, usize) -> Result<(), PhysError>,
    ) -> Result<(), PhysError> {
        let frames = &self.frames[bytes.start / PAGE_LEN..bytes.end.div_ceil(PAGE_LEN)];
        let mapping = Mapping::new(self.manager.clone(), frames, self.permission, Claim::Beside)?;
        act(&mapping, bytes.start % PAGE_LEN).and(mapping.unmap())
    }
}

/// How much of a piece of `len` bytes was loaded.
fn loaded_bytes(loaded: Result<(), PhysError>, len: usize) -> Result<usize, PhysError> {
    match loaded {
        Ok(()) => Ok(len),
        Err(PhysError::CopyFault(fault)) => Ok(fault.copied.min(len)),
        Err(other) => Err(other),
    }
}

/// The error of a piece that came after so many bytes.
fn after(error: PhysError, copied: usize) -> PhysError {
    match error {
        PhysError::CopyFault(fault) => PhysError::CopyFault(CopyFault { copied: copied + fault.copied }),
        other => other,
    }
}
