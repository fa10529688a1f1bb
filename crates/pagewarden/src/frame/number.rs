//! Numbers of frames, and runs of them.

use core::fmt;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageCount, PhysAddr};

/// The number of a frame: its physical address by the size of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(u64);

impl FrameNumber {
    /// Numbers are below this.
    pub const END: u64 = 1 << (PhysAddr::BITS - PAGE_SHIFT);

    /// The frame numbered `number`, if there can be one.
    #[inline]
    pub const fn new(number: u64) -> Option<Self> {
        if number < Self::END { Some(Self(number)) } else { None }
    }

    /// The frame that holds the byte at `address`.
    #[inline]
    pub const fn containing(address: PhysAddr) -> Self {
        Self(address.as_u64() >> PAGE_SHIFT)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The frame whose number is in the low bits of `word`.
    #[inline]
    pub(super) const fn in_low_bits(word: u64) -> Self {
        Self(word & (Self::END - 1))
    }

    /// The frame `frames` further up, which is known to exist.
    #[inline]
    pub(super) const fn plus(self, frames: u64) -> Self {
        debug_assert!(self.0 + frames < Self::END);
        Self(self.0 + frames)
    }

    /// Its first byte.
    #[inline]
    pub fn start(self) -> PhysAddr {
        self.at(0)
    }

    /// Its byte at `offset`, of which the bits above a page are ignored.
    #[inline]
    pub fn at(self, offset: u64) -> PhysAddr {
        let address = self.0 << PAGE_SHIFT | offset & (PAGE_SIZE - 1);
        // The mask changes nothing but what the compiler knows.
        PhysAddr::new(address & (FrameNumber::END * PAGE_SIZE - 1))
            .unwrap_or_else(|| unreachable!("the number of a frame is below END"))
    }
}

impl fmt::Debug for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x}", self.0)
    }
}

impl fmt::Display for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x}", self.0)
    }
}

/// A run of frames with at least one in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRange {
    first: u64,
    /// `first < end <= FrameNumber::END`.
    end: u64,
}

impl FrameRange {
    /// `frames` frames from `first` on, if there is at least one and all can exist.
    #[inline]
    pub const fn new(first: FrameNumber, frames: PageCount) -> Option<Self> {
        match first.0.checked_add(frames.get()) {
            Some(end) if end > first.0 && end <= FrameNumber::END => Some(Self { first: first.0, end }),
            _ => None,
        }
    }

    /// `frames` frames from `first` on, which are known to exist.
    #[inline]
    pub(super) const fn known(first: FrameNumber, frames: u64) -> Self {
        debug_assert!(frames > 0 && first.0 + frames <= FrameNumber::END);
        Self { first: first.0, end: first.0 + frames }
    }

    /// The first frame.
    #[inline]
    pub const fn first(self) -> FrameNumber {
        FrameNumber(self.first)
    }

    /// The number after the last.
    #[inline]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many there are: at least one.
    #[inline]
    pub const fn frames(self) -> PageCount {
        PageCount::new(self.end - self.first)
    }

    /// Whether `frame` is among them.
    #[inline]
    pub const fn contains(self, frame: FrameNumber) -> bool {
        self.first <= frame.0 && frame.0 < self.end
    }

    /// Whether the two share a frame.
    pub const fn intersects(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }

    /// Each of them, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = FrameNumber> + ExactSizeIterator {
        let frames = usize::try_from(self.end - self.first).unwrap_or(usize::MAX);
        (0..frames).map(move |index| FrameNumber(self.first + index as u64))
    }
}

impl fmt::Debug for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frames {:#x}..{:#x}", self.first, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_runs_end_where_physical_addresses_do() {
        assert!(FrameNumber::new(FrameNumber::END).is_none());
        let last = FrameNumber::new(FrameNumber::END - 1).unwrap();
        assert_eq!(last.at(PAGE_SIZE - 1).as_u64(), (1 << PhysAddr::BITS) - 1);
        assert!(FrameRange::new(last, PageCount::new(1)).is_some());
        assert!(FrameRange::new(last, PageCount::new(2)).is_none());
        assert!(FrameRange::new(last, PageCount::ZERO).is_none());
        assert!(FrameRange::new(last, PageCount::new(u64::MAX)).is_none());
        assert_eq!(FrameRange::new(last, PageCount::new(1)).unwrap().iter().count(), 1);
    }
}
