//! The children of an inner node, in groups that versions share.
//!
//! Copying an inner node raises one reference count for each child, and dropping the copy lowers it: atomic
//! operations, and most of what a new version of a large map cost when children were shared one by one. So children
//! are shared in groups. A copy counts its groups; a change counts the nodes of the one group that it has to copy.
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

use super::node::{INNER_LEN, Node, unshare};
use crate::error::Errno;
use crate::fallible::try_arc;

/// Most nodes of a group. A change to a shared node of `n` children counts `n / GROUP_LEN + GROUP_LEN` references.
const GROUP_LEN: usize = 8;

/// Neighbouring nodes, shared between versions.
type Group = ArrayVec<Node, GROUP_LEN>;

/// Up to [`INNER_LEN`] nodes.
#[derive(Clone)]
pub(super) struct Children {
    groups: ArrayVec<Arc<Group>, { INNER_LEN / GROUP_LEN }>,
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
            let group: Group = nodes.by_ref().take(GROUP_LEN).collect();
            if group.is_empty() {
                return Ok(());
            }
            self.groups.push(try_arc(group)?);
        }
    }

    pub(super) fn len(&self) -> usize {
        match self.groups.split_last() {
            Some((last, full)) => full.len() * GROUP_LEN + last.len(),
            None => 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&Node> {
        self.groups.get(slot / GROUP_LEN)?.get(slot % GROUP_LEN)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// The node in `slot`, for a change. Without memory for a copy of its group, nothing is changed.
    #[inline]
    pub(super) fn unshare(&mut self, slot: usize) -> Result<&mut Node, Errno> {
        Ok(&mut unshare(&mut self.groups[slot / GROUP_LEN])?[slot % GROUP_LEN])
    }

    /// The node in `slot`, for a change that follows another: no other version has its group.
    #[inline]
    pub(super) fn unshared(&mut self, slot: usize) -> &mut Node {
        let group = &mut self.groups[slot / GROUP_LEN];
        debug_assert_eq!(Arc::strong_count(group), 1, "the group is shared");
        &mut Arc::make_mut(group)[slot % GROUP_LEN]
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

    /// Checks how the groups are filled.
    ///
    /// # Panics
    /// If it is wrong.
    pub(super) fn check(&self) {
        let Some((last, full)) = self.groups.split_last() else { return };
        assert!(full.iter().all(|group| group.is_full()), "a group that is not full, and not the last");
        assert!(!last.is_empty(), "an empty group");
    }
}

impl Index<usize> for Children {
    type Output = Node;

    #[inline]
    fn index(&self, slot: usize) -> &Node {
        &self.groups[slot / GROUP_LEN][slot % GROUP_LEN]
    }
}
