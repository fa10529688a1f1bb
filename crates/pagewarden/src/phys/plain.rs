//! What may be copied out of foreign memory.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::WordWidth;

/// Plain data: any bytes are a value, there is no padding, no pointer and nothing that changes behind a reference.
///
/// Whoever wants a type of their own to be one derives `zerocopy::{FromBytes, IntoBytes, Immutable}` for it.
pub trait Plain: FromBytes + IntoBytes + Immutable {}

impl<T: FromBytes + IntoBytes + Immutable> Plain for T {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// A word that processors exchange in one step: `u32` or `u64`.
pub trait Word: Plain + Copy + Eq + Into<u64> + sealed::Sealed {
    /// How wide it is.
    const WIDTH: WordWidth;

    /// The word in the low bits of `bits`.
    fn from_low_bits(bits: u64) -> Self;
}

impl Word for u32 {
    const WIDTH: WordWidth = WordWidth::Four;

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
    fn from_low_bits(bits: u64) -> Self {
        bits as Self
    }
}

impl Word for u64 {
    const WIDTH: WordWidth = WordWidth::Eight;

    fn from_low_bits(bits: u64) -> Self {
        bits
    }
}
