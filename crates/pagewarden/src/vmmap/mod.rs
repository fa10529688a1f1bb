//! The map of regions of one address space.
//!
//! Owns which pages belong to which [`Region`]; knows nothing of budgets or platforms. Ranges in the map
//! never overlap, and neighbours that are equal are always one entry.
//!
//! The map is a B+tree whose nodes are shared between versions. Cloning a map copies a pointer; a change copies
//! the nodes on its path that another version shares and edits those that none does.
//!
//! ```text
//!      one version        the next
//!          root            root'
//!         /    \          /    \
//!      [a b]  [c d]----- /   [a b']       parent, per child: first page, end, largest gap inside,
//!                                         and whether its first region grows down
//! ```
//!
//! An inner node has its children in groups of eight, which versions share as well (`children`): to copy the node is to
//! count its groups and to copy the one that changes.
//!
//! A change that the nodes above the leaf need not know of copies none of them: the new leaf stays beside the tree, which
//! versions go on sharing (`loose`).
//!
//! A parent knows each child's bounds and largest gap; gaps between children follow from their bounds. A gap
//! below a region that grows down is counted without the guard, in the search as in the summaries. So every
//! operation is O(log n) plus the regions that it names, the gap search too; recursion is as deep as the tree
//! is high.
//!
//! A change finds its leaf in one descent, which tries the way of the last change first, and edits it in place
//! (`local`). Where leaves split, unite or are passed over, the nodes around the change are built anew and the old
//! ones left alone until the new root stands (`edit`).
//!
//! What is on the way of a look-up, an edit or a search is marked to be inlined into other crates, as generic maps are
//! anyway.
//!
//! Invariants, all recomputed by [`Vmmap::check_invariants`]: leaves are equally deep; every node but the root
//! is at least a quarter full; what a parent knows of a child is what the child says; unused slots hold nothing; all
//! groups of a node but the last are full.
//!
//! Running out of memory is an error and leaves the map as it was. `Arc::try_new` is not stable, so before each node
//! and each group the same amount is asked of the allocator in a way that may fail, and given back: only if another thread takes it
//! in between does the global allocation error handler have the last word.

#[cfg(test)]
mod borders;
mod children;
mod classes;
mod diff;
mod edit;
mod gap;
mod iter;
mod local;
mod loose;
mod node;
mod spans;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::fmt;

use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::region::Region;

pub use diff::Change;

use edit::Draft;
use iter::Iter;
use local::{Edit, Neighbours, Outcome, Path, Place, Tree};
use node::{Child, Leaf, Node, Summary};
use spans::Span;

/// One region and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it lies.
    pub range: PageRange,
    /// What it is.
    pub region: &'a Region,
}

/// Which end of the window a gap search starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The highest gap that fits, and the top of it.
    TopDown,
    /// The lowest gap that fits, and the bottom of it.
    BottomUp,
}

/// What gap to look for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapRequest {
    /// Pages wanted.
    pub pages: PageCount,
    /// Where the pages must lie.
    pub window: PageRange,
    /// From which end to search.
    pub direction: Direction,
    /// The result is congruent to this page number modulo `align_pages`.
    pub align_offset: u64,
    /// A power of two; 1 for no alignment. As in Linux, only gaps that would hold
    /// `pages + align_pages - 1` pages are considered.
    pub align_pages: u64,
}

/// A map from pages to regions. A clone is a snapshot, and costs as little as a pointer.
///
/// ```
/// use pagewarden::{Errno, PageCount, PageRange, Prot, Region, Vmmap};
///
/// let pages = |first, count| PageRange::from_pages(first, PageCount::new(count)).unwrap();
/// let mut map = Vmmap::new(PageCount::ZERO);
/// map.insert(pages(0x10, 4), Region::anonymous(Prot::READ | Prot::WRITE))?;
/// let snapshot = map.clone();
/// map.update(pages(0x11, 1), |_, region| region.prot = Prot::READ)?;
/// assert_eq!((snapshot.len(), map.len()), (1, 3));
/// let changes = snapshot.diff(&map);
/// assert_eq!(changes[0].range, pages(0x11, 1));
/// # Ok::<(), Errno>(())
/// ```
#[derive(Clone)]
pub struct Vmmap {
    /// `None` when nothing is mapped.
    root: Option<Node>,
    /// What is known of the root, as parents know it of their children.
    whole: Summary,
    /// A leaf that stands for one of the tree.
    loose: Option<Arc<Leaf>>,
    /// The way to the leaf of the last edit.
    path: Path,
    len: usize,
    /// Pages kept free below a region that grows down.
    guard: PageCount,
}

impl Vmmap {
    /// The summary of no root.
    const NOTHING: Summary = Summary { span: Span { first: 0, end: 0, guarded: false }, gap: 0 };

    /// An empty map that keeps `guard` pages free below each region that grows down.
    pub fn new(guard: PageCount) -> Self {
        Self { root: None, whole: Self::NOTHING, loose: None, path: Path::default(), len: 0, guard }
    }

    /// The pages kept free below a region that grows down.
    pub const fn guard(&self) -> PageCount {
        self.guard
    }

    /// The number of regions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn root(&self) -> Option<&Node> {
        self.root.as_ref()
    }

    /// The region that holds `address`.
    #[inline]
    pub fn get(&self, address: VirtAddr) -> Option<Entry<'_>> {
        self.at_or_after(address).filter(|entry| entry.range.contains(address))
    }

    /// The region that holds `address`, or else the first above it (Linux: `find_vma`).
    #[inline]
    pub fn at_or_after(&self, address: VirtAddr) -> Option<Entry<'_>> {
        let (leaf, slot) = self.view()?.seek(address.page_number())?;
        Some(leaf.entry(slot))
    }

    /// The last region that ends at or below `address`.
    #[inline]
    pub fn before(&self, address: VirtAddr) -> Option<Entry<'_>> {
        let below = |page| self.view()?.seek_below(page).map(|(leaf, slot)| leaf.entry(slot));
        let entry = below(address.page_number())?;
        if entry.range.end() <= address { Some(entry) } else { below(entry.range.first_page()) }
    }

    /// All regions, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        Iter::new(self.view(), 0, u64::MAX)
    }

    /// The regions that share a page with `range`, lowest first, with their whole bounds.
    #[inline]
    pub fn range(&self, range: PageRange) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        Iter::new(self.view(), range.first_page(), range.end_page())
    }

    /// Whether nothing is mapped in `range`.
    pub fn is_free(&self, range: PageRange) -> bool {
        self.range(range).next().is_none()
    }

    /// Maps `range`, which must be free; joins it with equal neighbours.
    ///
    /// # Errors
    /// `ENOMEM` if there is no memory for a node; the map is as it was.
    ///
    /// # Panics
    /// If a page of `range` is mapped: callers look first, or call [`Self::replace`].
    #[inline]
    pub fn insert(&mut self, range: PageRange, region: Region) -> Result<(), Errno> {
        self.put(range, region, local::insert)
    }

    /// Unmaps whatever is in `range`, splitting regions at its edges.
    ///
    /// # Errors
    /// As for [`Self::insert`].
    #[inline]
    pub fn remove(&mut self, range: PageRange) -> Result<(), Errno> {
        match self.edit_leaf(range, Neighbours::Unknown, |leaf, place| local::remove(leaf, place, range))? {
            Outcome::Done => Ok(()),
            Outcome::Beside | Outcome::Declined => self.redraft(range, None),
        }
    }

    /// Maps `range` in the place of whatever is there.
    ///
    /// # Errors
    /// As for [`Self::insert`].
    #[inline]
    pub fn replace(&mut self, range: PageRange, region: Region) -> Result<(), Errno> {
        self.put(range, region, local::replace)
    }

    /// Changes each region in `range`, splitting at the edges of `range` and joining what has become equal.
    /// `change` is given the part of each region that lies inside, each once.
    ///
    /// # Errors
    /// As for [`Self::insert`].
    #[inline]
    pub fn update(&mut self, range: PageRange, mut change: impl FnMut(PageRange, &mut Region)) -> Result<(), Errno> {
        let edit = |leaf: &mut Leaf, place: &Place| local::update(leaf, place, range, &mut change);
        match self.edit_leaf(range, Neighbours::Unknown, edit)? {
            Outcome::Done => return Ok(()),
            Outcome::Beside => {
                let Some(entry) = self.at_or_after(range.start()) else { return Ok(()) };
                let Some(part) = entry.range.intersection(range) else { return Ok(()) };
                let mut region = entry.region.clone();
                change(part, &mut region);
                return self.replace(part, region);
            }
            Outcome::Declined => {}
        }
        let mut draft = Draft::around(self, range)?;
        for entry in self.range(range) {
            let Some(part) = entry.range.intersection(range) else { continue };
            let mut region = entry.region.clone();
            change(part, &mut region);
            draft.push(part, region)?;
        }
        draft.finish(self)
    }

    /// Puts `region` into `range` by `edit`, or else whatever it takes.
    #[inline]
    fn put(
        &mut self,
        range: PageRange,
        region: Region,
        edit: impl Fn(&mut Leaf, &Place, PageRange, &mut Option<Region>) -> Edit,
    ) -> Result<(), Errno> {
        let mut region = Some(region);
        let mut outcome =
            self.edit_leaf(range, Neighbours::Unknown, |leaf, place| edit(leaf, place, range, &mut region))?;
        if outcome == Outcome::Beside && !self.has_beside(range, &region) {
            outcome = self.edit_leaf(range, Neighbours::Differ, |leaf, place| edit(leaf, place, range, &mut region))?;
        }
        if outcome == Outcome::Done { Ok(()) } else { self.redraft(range, region) }
    }

    /// Whether `region` touches `range`.
    fn has_beside(&self, range: PageRange, region: &Option<Region>) -> bool {
        let is_region = |entry: Entry<'_>| Some(entry.region) == region.as_ref();
        self.before(range.start()).is_some_and(|low| low.range.end() == range.start() && is_region(low))
            || self.get(range.end()).is_some_and(is_region)
    }

    /// Lets `edit` change the leaf that `range` belongs to.
    #[inline]
    fn edit_leaf(
        &mut self,
        range: PageRange,
        neighbours: Neighbours,
        edit: impl FnOnce(&mut Leaf, &Place) -> Edit,
    ) -> Result<Outcome, Errno> {
        let Some(root) = &mut self.root else { return Ok(Outcome::Declined) };
        let Self { whole: known, loose, path, .. } = self;
        let tree = Tree { root, known, loose, path, guard: self.guard.get() };
        let mut grown = 0;
        let edit = |leaf: &mut Leaf, place: &Place| {
            let before = leaf.regions.len();
            let edit = edit(leaf, place);
            grown = leaf.regions.len().wrapping_sub(before);
            edit
        };
        let outcome = local::edit_leaf(tree, range.first_page(), neighbours, edit)?;
        self.len = self.len.wrapping_add(grown);
        Ok(outcome)
    }

    /// Puts `region`, or nothing, in the place of what is in `range`, whatever it takes.
    fn redraft(&mut self, range: PageRange, region: Option<Region>) -> Result<(), Errno> {
        let mut draft = Draft::around(self, range)?;
        if let Some(region) = region {
            draft.push(range, region)?;
        }
        draft.finish(self)
    }

    fn set_root(&mut self, root: Option<Child>) {
        (self.root, self.whole) = match root {
            Some(Child { summary, node }) => (Some(node), summary),
            None => (None, Self::NOTHING),
        };
    }

    /// Checks that what the module promises holds.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        let count = self.root().map_or(0, |root| root.check_root(self.guard.get()));
        assert_eq!(self.len, count.wrapping_add(self.check_loose()), "number of regions");
        let whole = self.root().map_or(Self::NOTHING, |root| root.summary(self.guard.get()));
        assert_eq!(self.whole, whole, "summary of the root");
        let (mut walked, mut below) = (0, None::<Entry<'_>>);
        // An iterator that never ends must fail as well.
        for high in self.iter().take(self.len + 1) {
            walked += 1;
            let Some(low) = below.replace(high) else { continue };
            assert!(low.range.end_page() <= high.range.first_page(), "{} overlaps {}", low.range, high.range);
            let touch = low.range.end_page() == high.range.first_page();
            assert!(!touch || low.region != high.region, "{} and {} are equal and not merged", low.range, high.range);
        }
        assert_eq!(walked, self.len, "regions that the iterator gives");
    }
}

impl fmt::Debug for Vmmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|entry| (entry.range, entry.region))).finish()
    }
}
