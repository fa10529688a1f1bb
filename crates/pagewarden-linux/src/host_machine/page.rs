//! What a view shows at a page, in a word.

use super::HostMachine;
use super::walk::Leaf;

/// What is shown at a page: 0 for nothing, 1 for zeros; else a frame, and whether it can be stored to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Page(u32);

impl Page {
    pub(super) const NOTHING: Self = Self(0);
    /// The frame of zeros, which the host has one of too: pages of it need not follow each other to be one mapping.
    pub(super) const ZEROS: Self = Self(1);
    /// Frames are below this.
    pub(super) const FRAMES: u64 = 1 << 31;
    const WRITABLE: u32 = 1;

    /// What the tables have. Nobody has frame 0, and what lies outside of the memory cannot be shown.
    pub(super) fn of(machine: &HostMachine, leaf: Option<Leaf>) -> Self {
        let Some(leaf) = leaf.filter(|leaf| machine.ram.has(leaf.frame)) else { return Self::NOTHING };
        if machine.is_zeros(leaf.frame) {
            return Self::ZEROS;
        }
        let frame = u32::try_from(leaf.frame.get()).unwrap_or_default();
        Self(frame << 1 | u32::from(leaf.is_writable))
    }

    pub(super) const fn is_writable(self) -> bool {
        self.frame() != 0 && self.0 & Self::WRITABLE != 0
    }

    /// The number of its frame, or 0.
    pub(super) const fn frame(self) -> u64 {
        (self.0 >> 1) as u64
    }

    /// Whether the host shows `next`, the page behind it, by the same mapping.
    pub(super) const fn goes_on_in(self, next: Self) -> bool {
        if self.frame() == 0 { self.0 == next.0 } else { self.0 + 2 == next.0 }
    }

    /// Whether both show the same frame, and only `other` can be stored to.
    pub(super) const fn is_less_than(self, other: Self) -> bool {
        self.frame() != 0 && self.0 != other.0 && self.0 | Self::WRITABLE == other.0
    }
}
