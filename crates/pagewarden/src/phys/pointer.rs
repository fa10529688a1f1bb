//! Pointers to values in another world's memory.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use zerocopy::IntoBytes;

use crate::addr::PhysAddr;
use crate::frame::FrameNumber;
use crate::phys::manager::{Claim, ManagerRef};
use crate::phys::span::Span;
use crate::phys::{Events, Mapping, Permission, PhysError, PhysRange, Plain, Reservation, Word};

/// Values of type `T` in another world's memory, to read: so many of them, one after the other, from a byte of the first
/// of some pages on. They need not be aligned.
///
/// A value is copied, and the copy does not change; while it is made, another may change what is copied. A word of up
/// to eight bytes that is aligned is copied whole.
///
/// Each access has a window of its own, unless there is one that stays ([`map`](Self::map)). Without a
/// [reservation](Self::reserve) others may map, read and write the same memory meanwhile.
///
/// ```compile_fail,E0614
/// # use pagewarden::phys::{ManagerRef, PhysConstPtr};
/// fn no_reference_can_be_had<R: ManagerRef>(at: &PhysConstPtr<u64, R>) -> &u64 {
///     &**at
/// }
/// ```
///
/// ```compile_fail,E0608
/// # use pagewarden::phys::{ManagerRef, PhysConstPtr};
/// fn nor_a_slice<R: ManagerRef>(at: &PhysConstPtr<u64, R>) -> &[u64] {
///     &at[0..1]
/// }
/// ```
///
/// A copy is what there is to have:
///
/// ```
/// # use pagewarden::phys::{ManagerRef, PhysConstPtr, PhysError};
/// fn a_copy<R: ManagerRef>(at: &PhysConstPtr<u64, R>) -> Result<u64, PhysError> {
///     at.read_at(0)
/// }
/// ```
///
/// What is copied is plain data. This is:
///
/// ```
/// # use pagewarden::phys::{ManagerRef, PhysConstPtr, PhysError};
/// #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
/// #[repr(C)]
/// struct Plain {
///     address: u64,
///     len: u32,
///     flags: u32,
/// }
/// fn read<R: ManagerRef>(at: &PhysConstPtr<Plain, R>) -> Result<Plain, PhysError> {
///     at.read_at(0)
/// }
/// ```
///
/// A type with padding is not, and neither is one with a pointer, or one that has fewer values than its bytes:
///
/// ```compile_fail,E0277
/// #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
/// #[repr(C)]
/// struct Padded {
///     address: u64,
///     len: u32,
/// }
/// ```
///
/// ```compile_fail,E0277
/// # fn is_plain<T: pagewarden::phys::Plain>() {}
/// is_plain::<*const u8>();
/// ```
///
/// ```compile_fail,E0277
/// # fn is_plain<T: pagewarden::phys::Plain>() {}
/// is_plain::<bool>();
/// ```
///
/// ```
/// # fn is_plain<T: pagewarden::phys::Plain>() {}
/// is_plain::<[u64; 4]>();
/// ```
pub struct PhysConstPtr<T, R: ManagerRef> {
    span: Span<R>,
    values: PhantomData<fn() -> T>,
}

/// Values of type `T` in another world's memory, to read and write: a [`PhysConstPtr`] that can write too.
///
/// It writes through a shared reference, as whoever has another pointer to the same memory does, in this world or in the
/// other: what one value becomes when two write it at once is some mixture of both.
///
/// ```compile_fail,E0599
/// # use pagewarden::phys::{ManagerRef, PhysConstPtr, PhysError};
/// fn only_a_mutable_pointer_writes<R: ManagerRef>(to: &PhysConstPtr<u64, R>) -> Result<(), PhysError> {
///     to.write_at(0, 1)
/// }
/// ```
pub struct PhysMutPtr<T, R: ManagerRef> {
    readable: PhysConstPtr<T, R>,
}

impl<T, R: ManagerRef> fmt::Debug for PhysConstPtr<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysConstPtr({:?})", self.span)
    }
}

impl<T, R: ManagerRef> fmt::Debug for PhysMutPtr<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysMutPtr({:?})", self.readable.span)
    }
}

impl<T: Plain, R: ManagerRef> PhysConstPtr<T, R> {
    /// `count` values from byte `offset` of the first of `frames` on, which show up in this order.
    ///
    /// # Errors
    /// [`PhysError::Invalid`] for no frames, or an offset that is not in the first; [`PhysError::OutOfBounds`] if the
    /// frames do not hold so many values; [`PhysError::Overflow`]; [`PhysError::DuplicatePage`]; [`PhysError::Owned`];
    /// [`PhysError::OutOfMemory`].
    pub fn new(manager: R, frames: &[FrameNumber], offset: u64, count: usize) -> Result<Self, PhysError> {
        let bytes = bytes_of::<T>(count)?;
        Ok(Self::of(Span::new(manager, frames, (offset, bytes), Permission::Read)?))
    }

    /// `count` values, at least one, from `start` on, in pages that follow each other.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`PhysError::Invalid`] for no value, [`PhysError::Overflow`] if physical memory ends before
    /// the last.
    pub fn contiguous(manager: R, start: PhysAddr, count: usize) -> Result<Self, PhysError> {
        Ok(Self::of(Span::contiguous(manager, start, bytes_of::<T>(count)?, Permission::Read)?))
    }

    fn of(span: Span<R>) -> Self {
        Self { span, values: PhantomData }
    }

    /// How many values there are.
    pub const fn count(&self) -> usize {
        self.span.bytes() / size_of::<T>()
    }

    /// Copies value number `index`.
    ///
    /// # Errors
    /// [`PhysError::OutOfBounds`]; [`PhysError::CopyFault`]; without a window that stays, what [`Mapping::new`] says, or
    /// the platform's error in taking the window away after the copy.
    #[inline]
    pub fn read_at(&self, index: usize) -> Result<T, PhysError> {
        let mut value = T::new_zeroed();
        self.span.read(place::<T>(index)?, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies as many values as `to` holds, from number `index` on.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at). After a fault `to` holds what was copied before it.
    pub fn read_slice_at(&self, index: usize, to: &mut [T]) -> Result<(), PhysError> {
        self.span.read(place::<T>(index)?, to.as_mut_bytes())
    }

    /// Reserves the bytes of all values for readers.
    ///
    /// # Errors
    /// [`PhysError::Reserved`] with the range of one who writes.
    pub fn reserve(&self) -> Result<Reservation<'_, Events<R>>, PhysError> {
        self.span.reserve()
    }

    /// Where the values lie, for a reservation of several pointers at once.
    ///
    /// # Errors
    /// [`PhysError::OutOfMemory`].
    pub fn ranges(&self) -> Result<impl Deref<Target = [PhysRange]> + use<T, R>, PhysError> {
        self.span.ranges()
    }

    /// Keeps one window for all accesses to come.
    ///
    /// # Errors
    /// [`PhysError::AlreadyMapped`]; what [`Mapping::new`] says.
    pub fn map(&mut self, claim: Claim<'_, R::Provider>) -> Result<(), PhysError> {
        self.span.map(claim)
    }

    /// Takes away the window that [`map`](Self::map) has made, if there is one.
    ///
    /// # Errors
    /// As [`Mapping::unmap`].
    pub fn unmap(&mut self) -> Result<(), PhysError> {
        self.span.unmap()
    }

    /// The window that stays, if there is one.
    pub const fn mapping(&self) -> Option<&Mapping<R>> {
        self.span.mapping()
    }
}

impl<T: Plain, R: ManagerRef> PhysMutPtr<T, R> {
    /// As [`PhysConstPtr::new`].
    ///
    /// # Errors
    /// As [`PhysConstPtr::new`].
    pub fn new(manager: R, frames: &[FrameNumber], offset: u64, count: usize) -> Result<Self, PhysError> {
        let bytes = bytes_of::<T>(count)?;
        let span = Span::new(manager, frames, (offset, bytes), Permission::ReadWrite)?;
        Ok(Self { readable: PhysConstPtr::of(span) })
    }

    /// As [`PhysConstPtr::contiguous`].
    ///
    /// # Errors
    /// As [`PhysConstPtr::contiguous`].
    pub fn contiguous(manager: R, start: PhysAddr, count: usize) -> Result<Self, PhysError> {
        let span = Span::contiguous(manager, start, bytes_of::<T>(count)?, Permission::ReadWrite)?;
        Ok(Self { readable: PhysConstPtr::of(span) })
    }

    /// Stores a copy of `value` as value number `index`.
    ///
    /// # Errors
    /// As [`PhysConstPtr::read_at`]. After a fault a part of the value may be stored.
    #[inline]
    pub fn write_at(&self, index: usize, value: T) -> Result<(), PhysError> {
        self.readable.span.write(place::<T>(index)?, value.as_bytes())
    }

    /// Stores copies of `from`, from number `index` on.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_slice_at(&self, index: usize, from: &[T]) -> Result<(), PhysError> {
        self.readable.span.write(place::<T>(index)?, from.as_bytes())
    }

    /// Stores copies of the `count` values of `source` from number `from` on, from number `index` on: through memory of
    /// our own, piece by piece in ascending order. Where both are the same memory, what was stored may be copied again.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at). The first pieces may be stored; [`CopyFault`](crate::phys::CopyFault) counts the
    /// bytes that are.
    pub fn copy_from<S: ManagerRef>(
        &self,
        index: usize,
        source: &PhysConstPtr<T, S>,
        from: usize,
        count: usize,
    ) -> Result<(), PhysError> {
        let len = bytes_of::<T>(count)?;
        self.readable.span.copy_from(place::<T>(index)?, &source.span, place::<T>(from)?, len)
    }

    /// Reserves the bytes of all values for one who writes.
    ///
    /// # Errors
    /// [`PhysError::Reserved`] with the range of another.
    pub fn reserve(&self) -> Result<Reservation<'_, Events<R>>, PhysError> {
        self.readable.span.reserve()
    }

    /// As [`PhysConstPtr::map`].
    ///
    /// # Errors
    /// As [`PhysConstPtr::map`].
    pub fn map(&mut self, claim: Claim<'_, R::Provider>) -> Result<(), PhysError> {
        self.readable.map(claim)
    }

    /// As [`PhysConstPtr::unmap`].
    ///
    /// # Errors
    /// As [`PhysConstPtr::unmap`].
    pub fn unmap(&mut self) -> Result<(), PhysError> {
        self.readable.unmap()
    }
}

impl<W: Word, R: ManagerRef> PhysMutPtr<W, R> {
    /// Replaces word number `index` by `new` if it is `current`, in one step that nobody, the other world included, can
    /// come between. What was there: `current` if the word has been replaced.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at); [`PhysError::Unaligned`].
    pub fn compare_exchange_at(&self, index: usize, current: W, new: W) -> Result<W, PhysError> {
        self.readable.span.compare_exchange(place::<W>(index)?, current, new)
    }
}

impl<T, R: ManagerRef> Deref for PhysMutPtr<T, R> {
    type Target = PhysConstPtr<T, R>;

    fn deref(&self) -> &Self::Target {
        &self.readable
    }
}

/// The bytes of `count` values.
fn bytes_of<T>(count: usize) -> Result<usize, PhysError> {
    const { assert!(size_of::<T>() > 0, "values without bytes are nowhere") };
    count.checked_mul(size_of::<T>()).ok_or(PhysError::Overflow)
}

/// Where value number `index` begins.
#[inline]
fn place<T>(index: usize) -> Result<usize, PhysError> {
    index.checked_mul(size_of::<T>()).ok_or(PhysError::Overflow)
}
