//! Changes to the tree: a run of regions is replaced by a list of pieces.
//!
//! If the run lies in one leaf and the pieces fit there, the leaf is edited and the summaries above it are
//! brought up to date; nodes that another version shares are copied on the way. Otherwise the two paths to the
//! ends of the run are joined anew, level by level, and everything between them is dropped:
//!
//! ```text
//! [ a  b  c  d ]              a, then what is left of b and d, then nothing
//!      |     |
//!    [x y] [z w]   run = y..z   ->   [ x  pieces  w ], cut into as many leaves as it needs
//! ```
//!
//! A leaf left with too few slots is united with a neighbour as soon as it has one.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Vmmap;
use super::iter::Iter;
use super::node::{Child, FANOUT, MIN_LEN, Node, Piece, Slots};
use crate::addr::PageRange;
use crate::error::Errno;
use crate::region::Region;

/// Slots of a fresh node when there are more than fit into one: leaves room to grow.
const FILL: usize = FANOUT * 3 / 4;

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
    /// Whether something is mapped in the edited range.
    occupied: bool,
}

impl Draft {
    /// A draft that keeps what `map` has around `range`, and nothing inside.
    pub(super) fn around(map: &Vmmap, range: PageRange) -> Self {
        let (first, end) = (range.first_page(), range.end_page());
        let (pieces, left_end, right) = (Vec::with_capacity(3), None, None);
        let mut draft = Self { lo: first, hi: end, removed: 0, pieces, left_end, right, occupied: false };
        for entry in Iter::new(map.root(), first.saturating_sub(1), end + 1) {
            let bounds = entry.range;
            draft.removed += 1;
            draft.occupied |= bounds.intersects(range);
            if bounds.first_page() < first {
                draft.lo = bounds.first_page();
                draft.left_end = Some(bounds.end_page());
                draft.pieces.push(Piece { first: draft.lo, end: first, region: entry.region.clone() });
            }
            if bounds.end_page() > end {
                draft.hi = bounds.end_page();
                let part = Piece { first: end, end: draft.hi, region: entry.region.clone() };
                draft.right = Some((bounds.first_page(), part));
            }
        }
        draft
    }

    /// Whether something is mapped in the edited range.
    pub(super) const fn is_occupied(&self) -> bool {
        self.occupied
    }

    /// Adds a piece above those that the draft has; equal neighbours become one.
    pub(super) fn push(&mut self, range: PageRange, region: Region) {
        self.push_piece(Piece { first: range.first_page(), end: range.end_page(), region });
    }

    fn push_piece(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(last) if last.end == piece.first && last.region == piece.region => last.end = piece.end,
            _ => self.pieces.push(piece),
        }
    }

    /// Carries the change out.
    pub(super) fn finish(mut self, map: &mut Vmmap) -> Result<(), Errno> {
        let right_first = self.right.take().map(|(first, part)| {
            self.push_piece(part);
            first
        });
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
        map.len = map.len - self.removed + self.pieces.len();
        let guard = map.guard.get();
        map.root = match map.root.take() {
            Some(mut root) if self.fits(&root) => {
                self.apply(&mut root, guard);
                Some(root)
            }
            Some(root) => grow_root(self.rejoin(root, None, guard), guard),
            None => grow_root(leaves(self.pieces, 0, guard), guard),
        };
        Ok(())
    }

    /// Whether one leaf holds the whole run and has room for the pieces.
    fn fits(&self, root: &Node) -> bool {
        let mut node = root;
        let mut least = 1;
        loop {
            let spans = &node.spans;
            match &node.slots {
                Slots::Leaf(_) => {
                    let run = spans.rank_first(self.hi) - spans.rank_end(self.lo);
                    return (least..=FANOUT).contains(&(node.len() - run + self.pieces.len()));
                }
                Slots::Inner { children, .. } => {
                    let slot = node.route(self.lo);
                    if slot + 1 < node.len() && spans.first(slot + 1) < self.hi {
                        return false;
                    }
                    let Some(child) = &children[slot] else { return false };
                    node = child;
                    least = MIN_LEN;
                }
            }
        }
    }

    /// Edits the leaf that [`Self::fits`] found. Gives whether the summary of `node` may have changed.
    fn apply(&mut self, node: &mut Arc<Node>, guard: u64) -> bool {
        let node = Arc::make_mut(node);
        let slot = node.route(self.lo);
        let Slots::Inner { gaps, children } = &mut node.slots else {
            let run = node.spans.rank_end(self.lo)..node.spans.rank_first(self.hi);
            node.splice(run, self.pieces.drain(..));
            return true;
        };
        let Some(child) = &mut children[slot] else { unreachable!("route gives a used slot") };
        if !self.apply(child, guard) {
            return false;
        }
        let summary = child.summary(guard);
        if summary.gap == gaps[slot] && summary.span == node.spans.span(slot) {
            return false;
        }
        gaps[slot] = summary.gap;
        node.spans.set(slot, summary.span);
        true
    }

    /// Joins what `left` has below the run, the pieces, and what `right` has above it. `left` and `right` are
    /// nodes of one height, the run starting in the first and ending in the second; `None` if both are one.
    ///
    /// Gives nodes of the same height. All have enough slots, or there is but one.
    fn rejoin(&mut self, left: Arc<Node>, right: Option<Arc<Node>>, guard: u64) -> Vec<Child> {
        let above = right.as_ref().unwrap_or(&left).spans.rank_first(self.hi);
        if matches!(left.slots, Slots::Leaf(_)) {
            let below = left.spans.rank_end(self.lo);
            let mut entries = Node::into_pieces(left);
            let mut tail = match right {
                Some(right) => Node::into_pieces(right).split_off(above),
                None => entries.split_off(above),
            };
            entries.truncate(below);
            entries.append(&mut self.pieces);
            let edited = entries.len();
            entries.append(&mut tail);
            return leaves(entries, edited, guard);
        }
        let low = left.route(self.lo);
        let mut list = Node::into_children(left);
        let mut tail;
        let high_child = match right {
            Some(right) => {
                let mut upper = Node::into_children(right);
                let high = above.saturating_sub(1);
                tail = upper.split_off(high + 1);
                upper.pop()
            }
            None => {
                let high = above.saturating_sub(1).max(low);
                tail = list.split_off(high + 1);
                if high > low { list.pop() } else { None }
            }
        };
        list.truncate(low + 1);
        let Some(low_child) = list.pop() else { unreachable!("route gives a used slot") };
        let joined = self.rejoin(low_child.node, high_child.map(|child| child.node), guard);
        let at = list.len();
        let may_lack = joined.len() == 1;
        list.extend(joined);
        list.append(&mut tail);
        if may_lack {
            mend(&mut list, at, guard);
        }
        inners(list, guard)
    }
}

/// Unites the node at `at` with a neighbour if it has too few slots and there is a neighbour.
fn mend(list: &mut Vec<Child>, at: usize, guard: u64) {
    if list.len() < 2 || list[at].node.len() >= MIN_LEN {
        return;
    }
    let at = at.min(list.len() - 2);
    let (low, high) = (list.remove(at).node, list.remove(at).node);
    let united = unite(low, high, guard);
    list.splice(at..at, united);
}

/// One or two nodes with what two neighbours of one height held.
fn unite(low: Arc<Node>, high: Arc<Node>, guard: u64) -> Vec<Child> {
    let seam = low.len();
    if matches!(low.slots, Slots::Leaf(_)) {
        let mut entries = Node::into_pieces(low);
        entries.append(&mut Node::into_pieces(high));
        return leaves(entries, seam, guard);
    }
    let mut list = Node::into_children(low);
    list.append(&mut Node::into_children(high));
    // An only child may have stayed too small for want of a neighbour: now it has one.
    let lacking = if list[seam].node.len() < MIN_LEN { seam } else { seam - 1 };
    mend(&mut list, lacking, guard);
    inners(list, guard)
}

/// Leaves that hold `pieces`; `edited` is where the last edit in them ended.
///
/// Edits that go on at an end of a leaf leave a full leaf behind, all others cut evenly.
fn leaves(pieces: Vec<Piece>, edited: usize, guard: u64) -> Vec<Child> {
    let total = pieces.len();
    let mut first = share(total);
    if total > FANOUT && total <= FILL + FANOUT - MIN_LEN {
        if edited == total {
            first = FILL;
        } else if edited == 1 {
            first = total - FILL;
        }
    }
    let mut pieces = pieces.into_iter();
    let mut list = Vec::with_capacity(total.div_ceil(FILL));
    while pieces.len() > 0 {
        let len = if list.is_empty() { first } else { share(pieces.len()) };
        list.push(Child::new(Node::leaf(&mut pieces, len), guard));
    }
    list
}

/// Inner nodes over `children`, which are of one height.
fn inners(children: Vec<Child>, guard: u64) -> Vec<Child> {
    let mut list = Vec::with_capacity(children.len().div_ceil(FILL));
    let mut children = children.into_iter();
    while children.len() > 0 {
        let len = share(children.len());
        list.push(Child::new(Node::inner(&mut children, len), guard));
    }
    list
}

/// How many of `left` slots the next node gets.
fn share(left: usize) -> usize {
    if left <= FANOUT { left } else { left.div_ceil(left.div_ceil(FILL)) }
}

/// The root over nodes of one height.
fn grow_root(mut level: Vec<Child>, guard: u64) -> Option<Arc<Node>> {
    while level.len() > 1 {
        level = inners(level, guard);
    }
    let mut root = level.pop()?.node;
    while root.len() == 1 && matches!(root.slots, Slots::Inner { .. }) {
        root = Node::into_children(root).pop()?.node;
    }
    Some(root)
}
