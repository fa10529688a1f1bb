//! Names of slots that fit once.
//!
//! A handle is the index of a slot and a serial number. Serials come from one counter that all tables share, and a slot
//! gets a new one each time it is taken. So a handle fits one slot of one table from the moment it is given out until
//! it is released, and nothing before, after or elsewhere.
//!
//! Invariants: no serial is drawn twice; none is 0, so no handle is 0. The counter ends, it never wraps: 2^48 serials
//! are enough for ten million handles a second for most of a year.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::Range;

use crate::sync::{Ordering, PlainAtomicU64};

/// How many bits the index has.
const INDEX_BITS: u32 = 16;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// The first serial that does not fit any more.
const SERIALS_END: u64 = 1 << (u64::BITS - INDEX_BITS);
/// How many serials a table draws at a time: few enough that tables which live shortly do not waste many.
const BLOCK: u64 = 64;

/// Names one slot of one table for as long as that slot holds what it was given out for; never 0.
///
/// By itself it is no authority: it is looked up in the caller's own table, where a stale or foreign one does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Handle(NonZeroU64);

impl Handle {
    /// The handle that [`Self::raw`] gave; `None` for words that no table can have given out.
    #[inline]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(word) if raw >> INDEX_BITS != 0 => Some(Self(word)),
            _ => None,
        }
    }

    /// The word to give to a guest.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// The handle of the slot at `index`; `None` if `serial` is no serial.
    #[inline]
    pub(super) const fn new(index: u16, serial: u64) -> Option<Self> {
        if serial >= SERIALS_END {
            return None;
        }
        Self::from_raw(serial << INDEX_BITS | index as u64)
    }

    /// Which slot it names.
    #[inline]
    pub(super) const fn index(self) -> usize {
        (self.0.get() & INDEX_MASK) as usize
    }
}

impl fmt::Display for Handle {
    /// The index and the serial, as in `3#1025`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index(), self.0.get() >> INDEX_BITS)
    }
}

/// A counter of serials.
#[derive(Debug)]
pub(super) struct Serials(PlainAtomicU64);

/// The counter that all tables share.
pub(super) static SERIALS: Serials = Serials::from(1);

impl Serials {
    /// A counter whose next serial is `first`.
    pub(super) const fn from(first: u64) -> Self {
        Self(PlainAtomicU64::new(first))
    }

    /// Serials that nobody else gets; `None` when there are none left.
    pub(super) fn draw(&self) -> Option<Range<u64>> {
        // Nothing is ordered by it: each serial is drawn once, whoever comes first.
        let drawn = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next < SERIALS_END).then(|| SERIALS_END.min(next + BLOCK))
        });
        drawn.ok().map(|first| first..SERIALS_END.min(first + BLOCK))
    }
}
