//! What is asked for at once.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::slice;

use super::Mode;
use crate::addr::PAGE_SIZE;
use crate::frame::FrameNumber;
use crate::phys::{PhysError, PhysRange};

/// Ranges, in order, of which no two share a byte: at least one.
#[derive(Debug)]
pub(super) struct Request {
    ranges: Ranges,
    mode: Mode,
}

/// One range most often: that is moved about in registers.
#[derive(Debug)]
enum Ranges {
    One(PhysRange),
    Several(Box<[PhysRange]>),
}

impl Request {
    /// # Errors
    /// [`PhysError::Invalid`] without a range, [`PhysError::DuplicatePage`] with the frame of the first byte that is
    /// named twice, [`PhysError::OutOfMemory`].
    #[inline]
    pub(super) fn new(ranges: &[PhysRange], mode: Mode) -> Result<Self, PhysError> {
        let ranges = match ranges {
            [] => return Err(PhysError::Invalid),
            [range] => Ranges::One(*range),
            several => Ranges::Several(sorted(several)?),
        };
        Ok(Self { ranges, mode })
    }

    /// # Errors
    /// [`PhysError::OutOfMemory`].
    pub(super) fn try_clone(&self) -> Result<Self, PhysError> {
        Self::new(self.ranges(), self.mode)
    }

    #[inline]
    pub(super) fn ranges(&self) -> &[PhysRange] {
        match &self.ranges {
            Ranges::One(range) => slice::from_ref(range),
            Ranges::Several(ranges) => ranges,
        }
    }

    #[inline]
    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// A range of this request that `other` cannot have meanwhile.
    pub(super) fn in_the_way_of(&self, other: &Self) -> Option<PhysRange> {
        if self.mode == Mode::Shared && other.mode == Mode::Shared {
            return None;
        }
        let (mut ours, mut theirs) = (self.ranges().iter(), other.ranges().iter());
        let (mut our, mut their) = (ours.next()?, theirs.next()?);
        loop {
            if our.intersects(*their) {
                return Some(*our);
            }
            if our.end() <= their.start() {
                our = ours.next()?;
            } else {
                their = theirs.next()?;
            }
        }
    }
}

/// The ranges in order, if no two share a byte.
#[cold]
fn sorted(ranges: &[PhysRange]) -> Result<Box<[PhysRange]>, PhysError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(ranges.len()).map_err(|_| PhysError::OutOfMemory)?;
    copy.extend_from_slice(ranges);
    copy.sort_unstable();
    let twice = copy.windows(2).find(|pair| pair[0].intersects(pair[1]));
    if let Some([_, second]) = twice {
        let frame = FrameNumber::new(second.start() / PAGE_SIZE);
        return Err(frame.map_or(PhysError::Invalid, PhysError::DuplicatePage));
    }
    Ok(copy.into_boxed_slice())
}
