//! The children of an inner node, in groups that versions share.
//!
//! Were children shared one by one, copying an inner node would raise a reference count for each of them, and dropping
//! the older version lower it again: atomic operations on as many cache lines. So they are shared in groups. A copy
//! counts its groups; a change counts the nodes of the one group that it has to copy. A look-up pays for it with one
//! pointer more to follow.
//!
//! ```text
//! slots   0 .. 7   8 .. 15   16 .. 18         slot = GROUP_LEN * group + place
//!        [group]   [group]   [group  ]        all groups are full but the last, which is not empty
//! ```
//!
//! Owns which node is in which slot; what a slot spans is the business of [`Inner`](super::node::Inner).

use alloc::sync::Arc;
use core::ops::{Index, Range};

use arrayvec::ArrayVec;

use super::node::{INNER_LEN, Node, copy, unshare};
use crate::error::Errno;
use crate::fallible::try_arc;

/// Most nodes of a group. A change to a shared node of `n` children counts `n / GROUP_LEN + GROUP_LEN` references.
const GROUP_LEN: usize = 8;

/// Neighbouring nodes, shared between versions.
struct Group(ArrayVec<Node, GROUP_LEN>);

impl Clone for Group {
    #[inline]
    fn clone(&self) -> Self {
        Self(copy(&self.0))
    }
}

/// Up to [`INNER_LEN`] nodes.
pub(super) struct Children {
    groups: ArrayVec<Arc<Group>, { INNER_LEN / GROUP_LEN }>,
}

impl Clone for Children {
    #[inline]
    fn clone(&self) -> Self {
        Self { groups: copy(&self.groups) }
    }
}

impl Children {
    /// The nodes that `nodes` gives, at most [`INNER_LEN`].
    pub(super) fn collect(nodes: impl Iterator<Item = Node>) -> Result<Self, Errno> {
        let mut children = Self { groups: ArrayVec::new() };
        children.extend(nodes)?;
        Ok(children)
    }

    /// Adds groups of what `nodes` gives; those that are there must be full.
    fn extend(&mut self, mut nodes: impl Iterator<Item = Node>) -> Result<(), Errno> {
        loop {
            let group = Group(nodes.by_ref().take(GROUP_LEN).collect());
            if group.0.is_empty() {
                return Ok(());
            }
            self.groups.push(try_arc(group)?);
        }
    }

    pub(super) fn len(&self) -> usize {
        match self.groups.split_last() {
            Some((last, full)) => full.len() * GROUP_LEN + last.0.len(),
            None => 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&Node> {
        self.groups.get(slot / GROUP_LEN)?.0.get(slot % GROUP_LEN)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.groups.iter().flat_map(|group| group.0.iter())
    }

    /// The node in `slot`, for a change. Without memory for a copy of its group, nothing is changed.
    #[inline]
    pub(super) fn unshare(&mut self, slot: usize) -> Result<&mut Node, Errno> {
        Ok(&mut unshare(&mut self.groups[slot / GROUP_LEN])?.0[slot % GROUP_LEN])
    }

    /// The node in `slot`, for a change that follows another: nobody has its group since.
    #[inline]
    pub(super) fn unshared(&mut self, slot: usize) -> &mut Node {
        let group = &mut self.groups[slot / GROUP_LEN];
        debug_assert_eq!(Arc::strong_count(group), 1, "the group is shared");
        &mut Arc::make_mut(group).0[slot % GROUP_LEN]
    }

    /// The same with `nodes` in the place of those in `at`. Groups below the change stay shared.
    pub(super) fn spliced(&self, at: Range<usize>, nodes: impl Iterator<Item = Node>) -> Result<Self, Errno> {
        let kept = at.start / GROUP_LEN;
        let mut children = Self { groups: self.groups[..kept].iter().cloned().collect() };
        let from = |slot: usize| self.iter().skip(slot).cloned();
        let below = from(kept * GROUP_LEN).take(at.start % GROUP_LEN);
        children.extend(below.chain(nodes).chain(from(at.end)))?;
        Ok(children)
    }

    /// Where each group is, and its size.
    #[cfg(test)]
    pub(super) fn groups(&self) -> impl Iterator<Item = (*const u8, usize)> {
        self.groups.iter().map(|group| (Arc::as_ptr(group).cast(), size_of::<Group>()))
    }

    /// Checks how the groups are filled.
    ///
    /// # Panics
    /// If it is wrong.
    pub(super) fn check(&self) {
        let Some((last, full)) = self.groups.split_last() else { return };
        assert!(full.iter().all(|group| group.0.is_full()), "a group before the last that is not full");
        assert!(!last.0.is_empty(), "an empty group");
    }
}

impl Index<usize> for Children {
    type Output = Node;

    #[inline]
    fn index(&self, slot: usize) -> &Node {
        &self.groups[slot / GROUP_LEN].0[slot % GROUP_LEN]
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::super::node::{Leaf, Piece};
    use super::*;
    use crate::prot::Prot;
    use crate::region::Region;

    /// A leaf that is known by its first page.
    fn leaf(page: u64) -> Node {
        let piece = Piece { first: page, end: page + 1, region: Region::anonymous(Prot::READ) };
        Node::leaf(Leaf::collect(&mut [piece].into_iter(), 1)).unwrap()
    }

    fn page(node: &Node) -> u64 {
        let Node::Leaf(leaf) = node else { panic!("only leaves were put in") };
        leaf.spans.first(0)
    }

    fn pages(children: &Children) -> Vec<u64> {
        children.iter().map(page).collect()
    }

    fn compare(children: &Children, list: &[u64]) {
        children.check();
        assert_eq!(pages(children), list);
        assert_eq!(children.len(), list.len());
        assert!((0..list.len()).all(|slot| page(&children[slot]) == list[slot]));
        assert_eq!(children.get(list.len()).map(page), None);
    }

    /// One change of a list: where, how many are taken out, how many put in, and whether an older version stays.
    type Change = (usize, usize, usize, bool);

    proptest! {
        #[test]
        fn behave_as_a_list_and_leave_older_versions_alone(
            len in 0..=INNER_LEN,
            changes in prop::collection::vec(any::<Change>(), 1..20),
        ) {
            let mut fresh = 0..;
            let mut list: Vec<u64> = fresh.by_ref().take(len).collect();
            let mut children = Children::collect(list.iter().map(|&page| leaf(page))).unwrap();
            let mut older: Vec<(Children, Vec<u64>)> = Vec::new();
            for (at, gone, come, is_kept) in changes {
                if is_kept {
                    older.push((children.clone(), list.clone()));
                }
                let at = at % (list.len() + 1);
                let gone = at..at + gone % (list.len() - at + 1);
                let come: Vec<u64> = fresh.by_ref().take(come % (INNER_LEN - list.len() + gone.len() + 1)).collect();
                children = children.spliced(gone.clone(), come.iter().map(|&page| leaf(page))).unwrap();
                list.splice(gone, come);
                if let Some(slot) = list.len().checked_sub(1) {
                    let (slot, new) = (at.min(slot), fresh.next().unwrap());
                    *children.unshare(slot).unwrap() = leaf(new);
                    list[slot] = new;
                }
                compare(&children, &list);
            }
            older.iter().for_each(|(children, list)| compare(children, list));
        }
    }

    #[test]
    fn a_change_copies_one_group_and_only_if_it_is_shared() {
        let mut children = Children::collect((0..20).map(leaf)).unwrap();
        let groups = |children: &Children| children.groups().map(|group| group.0).collect::<Vec<_>>();
        let before = groups(&children);
        *children.unshare(9).unwrap() = leaf(100);
        assert_eq!(groups(&children), before, "nobody else has the groups");
        let older = children.clone();
        *children.unshare(9).unwrap() = leaf(200);
        let after = groups(&children);
        assert_eq!([before[0] == after[0], before[1] == after[1], before[2] == after[2]], [true, false, true]);
        assert_eq!((page(&older[9]), page(&children[9])), (100, 200));
        // What is put in above them leaves full groups shared.
        let longer = children.spliced(17..17, [leaf(300)].into_iter()).unwrap();
        assert_eq!(groups(&longer)[..2], after[..2]);
    }
}
