//! Iteration over the regions of a map, from both ends.

use super::Entry;
use super::loose::View;
use super::node::Leaf;

/// The regions that share a page with `lo..hi`.
///
/// Both ends narrow `lo..hi` as they go, which is all that they have in common. Each remembers its leaf, and
/// descends from the root for the next one.
#[derive(Clone)]
pub(super) struct Iter<'a> {
    view: Option<View<'a>>,
    lo: u64,
    hi: u64,
    /// A leaf and the slot that comes next.
    front: Option<(&'a Leaf, usize)>,
    /// A leaf and the slot above the one that comes next.
    back: Option<(&'a Leaf, usize)>,
}

impl<'a> Iter<'a> {
    pub(super) const fn new(view: Option<View<'a>>, lo: u64, hi: u64) -> Self {
        Self { view, lo, hi, front: None, back: None }
    }

    /// The leaf and the slot that come next where the leaf of before has no more.
    #[inline(never)]
    fn descend(&self) -> Option<(&'a Leaf, usize)> {
        self.view?.seek(self.lo)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        let (leaf, slot) = match self.front {
            Some((leaf, slot)) if slot < leaf.regions.len() => (leaf, slot),
            _ => self.descend()?,
        };
        if leaf.spans.first(slot) >= self.hi {
            return None;
        }
        self.lo = leaf.spans.end(slot);
        self.front = Some((leaf, slot + 1));
        Some(leaf.entry(slot))
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    #[inline]
    fn next_back(&mut self) -> Option<Entry<'a>> {
        let (leaf, slot) = match self.back {
            Some((leaf, slot)) if slot > 0 => (leaf, slot - 1),
            _ => self.view?.seek_below(self.hi)?,
        };
        if leaf.spans.end(slot) <= self.lo {
            return None;
        }
        self.hi = leaf.spans.first(slot);
        self.back = Some((leaf, slot));
        Some(leaf.entry(slot))
    }
}
