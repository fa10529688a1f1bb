//! Changes to the tree that are more than the edit of one leaf: a run of regions is replaced by a list of pieces.
//!
//! The leaves at the ends of the run are joined anew and everything between them is dropped; the same goes for the
//! nodes above them, up to the one that has both, which takes what came of it in their place:
//!
//! ```text
//! [ a  b  c  d ]              a, then what is left of b and d, then nothing
//!      |     |
//!    [x y] [z w]   run = y..z   ->   [ x  pieces  w ], cut into as many leaves as it needs
//! ```
//!
//! That node is changed when all that it needs is there, and the nodes below it never, so running out of memory on the
//! way changes nothing. A node left with too few slots is united with a neighbour as soon as it has one.

use alloc::vec::Vec;
use core::ops::Range;

use super::Vmmap;
use super::iter::Iter;
use super::node::{
    Child, INNER_LEAST, INNER_LEN, Inner, LEAF_LEAST, LEAF_LEN, Leaf, Node, Piece, try_reserve, unshare,
};
use crate::addr::PageRange;
use crate::error::Errno;
use crate::region::Region;

/// A change in the making: the regions in `lo..hi`, `removed` in number, become `pieces`.
pub(super) struct Draft {
    lo: u64,
    hi: u64,
    removed: usize,
    pieces: Vec<Piece>,
    /// The end of the region that starts below the edited range and reaches it.
    left_end: Option<u64>,
    /// The start of the region that ends above the edited range and reaches it, and the part above.
    right: Option<(u64, Piece)>,
}

impl Draft {
    /// A draft that keeps what `map` has around `range`, and nothing inside.
    pub(super) fn around(map: &Vmmap, range: PageRange) -> Result<Self, Errno> {
        let (first, end) = (range.first_page(), range.end_page());
        let mut draft = Self { lo: first, hi: end, removed: 0, pieces: Vec::new(), left_end: None, right: None };
        for entry in Iter::new(map.view(), first.saturating_sub(1), end + 1) {
            let bounds = entry.range;
            draft.removed += 1;
            if bounds.first_page() < first {
                draft.lo = bounds.first_page();
                draft.left_end = Some(bounds.end_page());
                draft.push_piece(Piece { first: draft.lo, end: first, region: entry.region.clone() })?;
            }
            if bounds.end_page() > end {
                draft.hi = bounds.end_page();
                let part = Piece { first: end, end: draft.hi, region: entry.region.clone() };
                draft.right = Some((bounds.first_page(), part));
            }
        }
        Ok(draft)
    }

    /// Adds a piece above those that the draft has; equal neighbours become one.
    pub(super) fn push(&mut self, range: PageRange, region: Region) -> Result<(), Errno> {
        self.push_piece(Piece { first: range.first_page(), end: range.end_page(), region })
    }

    fn push_piece(&mut self, piece: Piece) -> Result<(), Errno> {
        match self.pieces.last_mut() {
            Some(last) if last.end == piece.first && last.region == piece.region => last.end = piece.end,
            _ => {
                try_reserve(&mut self.pieces, 1)?;
                self.pieces.push(piece);
            }
        }
        Ok(())
    }

    /// Carries the change out.
    pub(super) fn finish(mut self, map: &mut Vmmap) -> Result<(), Errno> {
        let mut right_first = None;
        if let Some((first, part)) = self.right.take() {
            right_first = Some(first);
            self.push_piece(part)?;
        }
        // A neighbour that came out as it was stays where it is, which may be in another leaf.
        if self.pieces.first().is_some_and(|piece| Some(piece.end) == self.left_end) {
            self.lo = self.pieces.remove(0).end;
            self.removed -= 1;
        }
        if self.pieces.last().is_some_and(|piece| Some(piece.first) == right_first) {
            self.hi = self.pieces.pop().map_or(self.hi, |piece| piece.first);
            self.removed -= 1;
        }
        if self.removed == 0 && self.pieces.is_empty() {
            return Ok(());
        }
        map.bind()?;
        let guard = map.guard.get();
        let len = map.len - self.removed + self.pieces.len();
        let level = match &mut map.root {
            Some(root) => self.change(root, 2, guard)?,
            None => Some(leaves(self.pieces, 0, guard)?),
        };
        match level {
            Some(level) => map.set_root(grow_root(level, guard)?),
            None => map.whole = map.root().map_or(Vmmap::NOTHING, |root| root.summary(guard)),
        }
        map.len = len;
        Ok(())
    }

    /// Carries the change out under `node`, or else gives the nodes to put in its place, and leaves it as it is.
    /// An inner node is changed in place if `least` children are left in it and there is room for all.
    fn change(&mut self, node: &mut Node, least: usize, guard: u64) -> Result<Option<Vec<Child>>, Errno> {
        let inner = match node {
            Node::Leaf(leaf) => return self.rejoin_leaves(leaf, leaf, guard).map(Some),
            Node::Inner(inner) => unshare(inner)?,
        };
        let low = inner.route(self.lo);
        let high = inner.spans.rank_first(self.hi).saturating_sub(1).max(low);
        let list = if high > low {
            self.rejoin(&inner.children[low], &inner.children[high], guard)?
        } else if let Some(list) = self.change(inner.children.unshare(low)?, INNER_LEAST, guard)? {
            list
        } else {
            let summary = inner.children[low].summary(guard);
            inner.note(low, summary, guard);
            return Ok(None);
        };
        let (at, list) = mend_beside(inner, low..high + 1, list, guard)?;
        let len = inner.spans.len() - at.len() + list.len();
        if (least..=INNER_LEN).contains(&len) {
            inner.splice(at, &list, guard)?;
            return Ok(None);
        }
        let tail = inner.children(at.end..inner.spans.len());
        let mut all = gather(inner.children(0..at.start), list.len() + tail.len())?;
        all.extend(list);
        all.extend(tail);
        inners(all, guard).map(Some)
    }

    /// Joins what `left` has below the run, the pieces, and what `right` has above it. Both are nodes of one height,
    /// the run starting in the first and ending in the second.
    ///
    /// Gives nodes of the same height. All have enough slots, or there is but one.
    fn rejoin(&mut self, left: &Node, right: &Node, guard: u64) -> Result<Vec<Child>, Errno> {
        let (left, right) = match (left, right) {
            (Node::Leaf(left), Node::Leaf(right)) => return self.rejoin_leaves(left, right, guard),
            (Node::Inner(left), Node::Inner(right)) => (left, right),
            _ => unreachable!("both are of one height"),
        };
        let low = left.route(self.lo);
        let high = right.spans.rank_first(self.hi).saturating_sub(1);
        let joined = self.rejoin(&left.children[low], &right.children[high], guard)?;
        let may_lack = joined.len() == 1;
        let tail = right.children(high + 1..right.spans.len());
        let mut list = gather(left.children(0..low), joined.len() + tail.len())?;
        list.extend(joined);
        list.extend(tail);
        if may_lack {
            mend(&mut list, low, guard)?;
        }
        inners(list, guard)
    }

    /// [`Self::rejoin`] of two leaves, or of one that the run both starts and ends in.
    fn rejoin_leaves(&mut self, left: &Leaf, right: &Leaf, guard: u64) -> Result<Vec<Child>, Errno> {
        let (below, above) = (left.spans.rank_end(self.lo), right.spans.rank_first(self.hi));
        let tail = right.pieces(above..right.regions.len());
        let mut entries = gather(left.pieces(0..below), self.pieces.len() + tail.len())?;
        entries.append(&mut self.pieces);
        let edited = entries.len();
        entries.extend(tail);
        leaves(entries, edited, guard)
    }
}

/// The items in a list that has room for `more`.
fn gather<T>(items: impl ExactSizeIterator<Item = T>, more: usize) -> Result<Vec<T>, Errno> {
    let mut list = Vec::new();
    try_reserve(&mut list, items.len() + more)?;
    list.extend(items);
    Ok(list)
}

/// Makes `list`, which is to take the place of the children of `inner` in `at`, take in a neighbour if it is one node
/// that has too few slots.
fn mend_beside(
    inner: &Inner,
    at: Range<usize>,
    mut list: Vec<Child>,
    guard: u64,
) -> Result<(Range<usize>, Vec<Child>), Errno> {
    let [only] = list.as_slice() else { return Ok((at, list)) };
    if !lacks(only) || at.len() == inner.spans.len() {
        return Ok((at, list));
    }
    try_reserve(&mut list, 1)?;
    let taken = if at.start > 0 {
        list.insert(0, inner.child(at.start - 1));
        at.start - 1..at.end
    } else {
        list.push(inner.child(at.end));
        at.start..at.end + 1
    };
    mend(&mut list, usize::from(at.start > 0), guard)?;
    Ok((taken, list))
}

/// Unites the node at `at` with a neighbour if it has too few slots and there is a neighbour.
fn mend(list: &mut Vec<Child>, at: usize, guard: u64) -> Result<(), Errno> {
    if list.len() < 2 || !lacks(&list[at]) {
        return Ok(());
    }
    let at = at.min(list.len() - 2);
    let united = unite(&list[at].node, &list[at + 1].node, guard)?;
    list.splice(at..at + 2, united);
    Ok(())
}

/// Whether a node has too few slots.
fn lacks(child: &Child) -> bool {
    child.node.len() < child.node.min_len()
}

/// One or two nodes with what two neighbours of one height held.
fn unite(low: &Node, high: &Node, guard: u64) -> Result<Vec<Child>, Errno> {
    let (seam, len) = (low.len(), high.len());
    match (low, high) {
        (Node::Leaf(low), Node::Leaf(high)) => {
            let mut entries = gather(low.pieces(0..seam), len)?;
            entries.extend(high.pieces(0..len));
            leaves(entries, seam, guard)
        }
        (Node::Inner(low), Node::Inner(high)) => {
            let mut list = gather(low.children(0..seam), len)?;
            list.extend(high.children(0..len));
            // An only child may have stayed too small for want of a neighbour: now it has one.
            let lacking = if lacks(&list[seam]) { seam } else { seam - 1 };
            mend(&mut list, lacking, guard)?;
            inners(list, guard)
        }
        _ => unreachable!("both are of one height"),
    }
}

/// Leaves that hold `pieces`; `edited` is where the last edit in them ended.
///
/// Edits that go on at an end of a leaf leave a full leaf behind, all others cut evenly.
fn leaves(pieces: Vec<Piece>, edited: usize, guard: u64) -> Result<Vec<Child>, Errno> {
    let total = pieces.len();
    let mut first = share(total, LEAF_LEN);
    if total > LEAF_LEN && total <= fill(LEAF_LEN) + LEAF_LEN - LEAF_LEAST {
        if edited == total {
            first = fill(LEAF_LEN);
        } else if edited == 1 {
            first = total - fill(LEAF_LEN);
        }
    }
    let mut list = Vec::new();
    try_reserve(&mut list, total.div_ceil(fill(LEAF_LEN)))?;
    let mut pieces = pieces.into_iter();
    while pieces.len() > 0 {
        let len = if list.is_empty() { first } else { share(pieces.len(), LEAF_LEN) };
        let leaf = Leaf::collect(&mut pieces, len);
        list.push(Child { summary: leaf.summary(guard), node: Node::leaf(leaf)? });
    }
    Ok(list)
}

/// Inner nodes over `children`, which are of one height.
fn inners(children: Vec<Child>, guard: u64) -> Result<Vec<Child>, Errno> {
    let mut list = Vec::new();
    try_reserve(&mut list, children.len().div_ceil(fill(INNER_LEN)))?;
    let mut children = children.into_iter();
    while children.len() > 0 {
        let len = share(children.len(), INNER_LEN);
        let inner = Inner::collect(&mut children, len, guard)?;
        list.push(Child { summary: inner.summary(guard), node: Node::inner(inner)? });
    }
    Ok(list)
}

/// Slots of a fresh node of at most `most` when there are more than fit into one: leaves room to grow.
const fn fill(most: usize) -> usize {
    most * 3 / 4
}

/// How many of `left` slots the next node of at most `most` gets.
const fn share(left: usize, most: usize) -> usize {
    if left <= most { left } else { left.div_ceil(left.div_ceil(fill(most))) }
}

/// The root over nodes of one height.
fn grow_root(mut level: Vec<Child>, guard: u64) -> Result<Option<Child>, Errno> {
    while level.len() > 1 {
        level = inners(level, guard)?;
    }
    let Some(mut root) = level.pop() else { return Ok(None) };
    while let Node::Inner(inner) = &root.node
        && inner.spans.len() == 1
    {
        root = inner.child(0);
    }
    Ok(Some(root))
}
