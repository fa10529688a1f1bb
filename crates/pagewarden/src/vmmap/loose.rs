//! A leaf that is not bound into the tree.
//!
//! To change a leaf that other versions share is to copy the nodes above it, too: they name it. Yet most changes of
//! rights leave alone what these nodes say of it, its bounds and its largest gap. Such a leaf is kept beside the tree,
//! which all versions go on sharing:
//!
//! ```text
//!   one version      the next
//!          \          /    \
//!            [ root ]      [b']        the loose leaf b' stands for b
//!             /    \
//!           [a]    [b]
//! ```
//!
//! A version has at most one. It is bound, at the cost of a path, when another leaf becomes loose or nodes are built
//! anew. A version that changes its loose leaf again binds it first, so that many changes of one version are made in
//! place.
//!
//! Invariant: the leaf that starts at the same page has the same summary.

use alloc::sync::Arc;

use super::Vmmap;
use super::node::{LEAF_LEAST, Leaf, Node, Summary, unshare};
use crate::error::Errno;

/// A tree as its version sees it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    root: &'a Node,
    loose: Option<&'a Leaf>,
}

impl<'a> View<'a> {
    /// The first slot of a leaf that ends above `page`.
    #[inline]
    pub(super) fn seek(self, page: u64) -> Option<(&'a Leaf, usize)> {
        let leaf = match self.loose {
            None => self.root.leaf_above(page)?,
            Some(loose) => self.leaf_near(loose, page)?,
        };
        let slot = leaf.spans.rank_end(page);
        (slot < leaf.regions.len()).then_some((leaf, slot))
    }

    /// The last slot of a leaf that starts below `page`.
    #[inline]
    pub(super) fn seek_below(self, page: u64) -> Option<(&'a Leaf, usize)> {
        let leaf = current(self.root.leaf_below(page)?, self.loose);
        Some((leaf, leaf.spans.rank_first(page).checked_sub(1)?))
    }

    /// [`Node::leaf_above`] where there is a loose leaf. A look-up is likely to be near the last change.
    #[cold]
    fn leaf_near(self, loose: &'a Leaf, page: u64) -> Option<&'a Leaf> {
        if loose.reaches(page) {
            return Some(loose);
        }
        Some(current(self.root.leaf_above(page)?, Some(loose)))
    }
}

impl Leaf {
    /// Whether `page` lies between the first region and the last, or in one of them.
    #[inline]
    fn reaches(&self, page: u64) -> bool {
        let whole = self.spans.whole();
        whole.first <= page && page < whole.end
    }

    /// Whether the leaf, a loose one, is what has become of `bound`.
    #[inline]
    pub(super) fn stands_for(&self, bound: &Self) -> bool {
        self.spans.first(0) == bound.spans.first(0)
    }
}

/// What has become of `leaf` where `loose` is the loose leaf.
#[inline]
pub(super) fn current<'a>(leaf: &'a Leaf, loose: Option<&'a Leaf>) -> &'a Leaf {
    match loose {
        Some(loose) if loose.stands_for(leaf) => loose,
        _ => leaf,
    }
}

/// Puts `leaf` into the place of the one that starts at `first`. Without memory for the path, nothing is changed.
pub(super) fn bind(root: &mut Node, first: u64, leaf: Arc<Leaf>) -> Result<(), Errno> {
    let mut node = root;
    loop {
        match node {
            Node::Leaf(bound) => {
                *bound = leaf;
                return Ok(());
            }
            Node::Inner(inner) => {
                let inner = unshare(inner)?;
                node = inner.children.unshare(inner.route(first))?;
            }
        }
    }
}

/// Binds the loose leaf, if there is one. Without memory for the path, nothing is changed.
#[cold]
pub(super) fn bind_loose(root: &mut Node, loose: &mut Option<Arc<Leaf>>) -> Result<(), Errno> {
    if let Some(leaf) = loose {
        bind(root, leaf.spans.first(0), Arc::clone(leaf))?;
        *loose = None;
    }
    Ok(())
}

impl Vmmap {
    #[inline]
    pub(super) fn view(&self) -> Option<View<'_>> {
        Some(View { root: self.root.as_ref()?, loose: self.loose.as_deref() })
    }

    /// [`bind_loose`] of this version.
    pub(super) fn bind(&mut self) -> Result<(), Errno> {
        self.root.as_mut().map_or(Ok(()), |root| bind_loose(root, &mut self.loose))
    }

    /// Checks the loose leaf; gives how many regions it has more than the leaf that it stands for, wrapping.
    ///
    /// # Panics
    /// If something is wrong.
    pub(super) fn check_loose(&self) -> usize {
        let (Some(root), Some(loose)) = (self.root.as_ref(), self.loose.as_deref()) else { return 0 };
        loose.check();
        let guard = self.guard.get();
        let bound = root.leaf_above(loose.spans.first(0)).expect("the place of the loose leaf");
        let known: [Summary; 2] = [loose, bound].map(|leaf| leaf.summary(guard));
        assert_eq!(known[0], known[1], "summary of the loose leaf");
        assert!(loose.regions.len() >= LEAF_LEAST, "a loose leaf of {} regions", loose.regions.len());
        loose.regions.len().wrapping_sub(bound.regions.len())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::{Direction, Entry, GapRequest};
    use super::*;
    use crate::addr::{PageCount, PageRange, VirtAddr};
    use crate::prot::Prot;
    use crate::region::{Region, RegionFlags};

    const GUARD: u64 = 2;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::from_pages(first, PageCount::new(count)).unwrap()
    }

    /// `count` regions of four pages, with gaps of two pages, and one of seven in each leaf.
    fn comb(count: u64) -> Vmmap {
        let mut map = Vmmap::new(PageCount::new(GUARD));
        for index in 0..count {
            map.insert(pages(8 + 6 * index + index / 6 * 5, 4), Region::anonymous(Prot::READ)).unwrap();
        }
        map
    }

    fn bound(map: &Vmmap) -> Vmmap {
        let mut bound = map.clone();
        bound.bind().unwrap();
        bound.check_invariants();
        bound
    }

    fn root(map: &Vmmap) -> *const u8 {
        match map.root() {
            Some(Node::Inner(inner)) => Arc::as_ptr(inner).cast(),
            _ => panic!("a tree of one leaf"),
        }
    }

    fn protect(map: &mut Vmmap, page: u64, prot: Prot) {
        map.update(pages(page, 1), |_, region| region.prot = prot).unwrap();
        map.check_invariants();
    }

    /// Compares all that a map tells with what it tells when its loose leaf is bound.
    fn compare(map: &Vmmap, older: &Vmmap) {
        let bound = bound(map);
        assert!(map.iter().eq(bound.iter()));
        assert!(map.iter().rev().eq(bound.iter().rev()));
        let end = map.iter().next_back().map_or(0, |entry| entry.range.end_page()) + 9;
        for page in 0..end {
            let at = VirtAddr::from_page_number(page).unwrap();
            assert_eq!(map.get(at), bound.get(at), "page {page}");
            assert_eq!(map.at_or_after(at), bound.at_or_after(at), "page {page}");
            assert_eq!(map.before(at), bound.before(at), "page {page}");
            let window = pages(page, end - page);
            let both = |map: &Vmmap| -> Vec<PageRange> {
                map.range(window).map(|Entry { range, .. }| range).take(3).collect()
            };
            assert_eq!(both(map), both(&bound), "from page {page}");
            for direction in [Direction::TopDown, Direction::BottomUp] {
                for (count, window) in (1..8).flat_map(|count| [(count, window), (count, pages(0, page + 1))]) {
                    let pages = PageCount::new(count);
                    let request = GapRequest { pages, window, direction, align_offset: 0, align_pages: 1 };
                    assert_eq!(map.find_gap(&request), bound.find_gap(&request), "{request:?}");
                }
            }
        }
        assert_eq!((map.diff(&bound), bound.diff(map)), (Vec::new(), Vec::new()));
        assert_eq!(older.diff(map), older.diff(&bound));
        assert_eq!(map.diff(older), bound.diff(older));
    }

    #[test]
    fn a_map_with_a_loose_leaf_tells_what_one_without_tells() {
        let first = comb(60);
        let (mut map, mut loosened) = (first.clone(), 0);
        let mut number = 1u64;
        let mut draw = |end: u64| {
            number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (number >> 33) % end
        };
        for _ in 0..150 {
            let older = map.clone();
            let range = pages(8 + draw(400), 1 + draw(3));
            let region = match draw(4) {
                0 => Region { flags: RegionFlags::GROWS_DOWN, ..Region::anonymous(Prot::READ) },
                _ => Region::anonymous(Prot::from_bits_truncate(u8::try_from(draw(8)).unwrap())),
            };
            match draw(4) {
                0 => map.remove(range),
                1 => map.replace(range, region),
                _ => map.update(range, |_, old| old.prot = region.prot),
            }
            .unwrap();
            map.check_invariants();
            if map.loose.is_some() {
                loosened += 1;
                compare(&map, &older);
                compare(&map, &first);
            }
        }
        assert!(loosened > 50, "{loosened} changes had a loose leaf");
    }

    #[test]
    fn versions_share_the_tree_until_another_leaf_changes() {
        let first = comb(600);
        let mut second = first.clone();
        protect(&mut second, 9, Prot::NONE);
        let mut third = second.clone();
        protect(&mut third, 9, Prot::WRITE);
        assert_eq!([root(&second), root(&third)], [root(&first); 2]);
        let at = VirtAddr::from_page_number(9).unwrap();
        let seen = [&first, &second, &third].map(|map| map.get(at).unwrap().region.prot);
        assert_eq!(seen, [Prot::READ, Prot::NONE, Prot::WRITE], "each has its own leaf");
        let mut fourth = third.clone();
        protect(&mut fourth, 8 + 6 * 300 + 50 * 5 + 1, Prot::NONE);
        assert_ne!(root(&fourth), root(&third), "the leaf of the third is bound");
        assert_eq!(fourth.get(at).unwrap().region.prot, Prot::WRITE);
        assert!(fourth.loose.is_some());
        compare(&third, &first);
    }

    #[test]
    fn a_version_that_changes_its_loose_leaf_again_binds_it() {
        let first = comb(600);
        let mut map = first.clone();
        protect(&mut map, 9, Prot::NONE);
        assert_eq!(root(&map), root(&first));
        protect(&mut map, 10, Prot::WRITE);
        assert!(map.loose.is_none());
        let after = root(&map);
        assert_ne!(after, root(&first));
        protect(&mut map, 9, Prot::EXEC);
        assert_eq!((root(&map), map.loose.is_none()), (after, true), "nobody else has the tree now");
    }

    #[test]
    fn a_change_that_nodes_above_must_know_of_binds_its_leaf() {
        let first = comb(600);
        let mut second = first.clone();
        protect(&mut second, 9, Prot::NONE);
        let mut third = second.clone();
        third.remove(pages(8, 1)).unwrap();
        third.check_invariants();
        assert!(third.loose.is_none());
        assert_eq!(second.diff(&third).len(), 1);
        // That of another leaf leaves the loose one alone.
        let mut fourth = second.clone();
        let bounds = fourth.at_or_after(VirtAddr::from_page_number(8 + 6 * 300 + 50 * 5).unwrap()).unwrap().range;
        fourth.remove(bounds).unwrap();
        fourth.check_invariants();
        assert_eq!(second.diff(&fourth).len(), 1);
    }
}
