//! What a map of regions must do to take part: the semantics of an address space, whatever is inside.

use pagewarden::{Prot, Region};

/// Pages `first..end`.
pub type Pages = std::ops::Range<u64>;

/// A map from pages to regions. Ranges never overlap; neighbours that touch and are equal are one region, so
/// that every map shows the same regions after the same edits.
pub trait RegionMap: Sized {
    /// What tables call it.
    const NAME: &'static str;

    /// An empty map.
    fn new() -> Self;

    /// The number of regions.
    fn len(&self) -> usize;

    /// Whether nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The region that holds `page`, or else the first above it, with its bounds.
    fn at_or_after(&self, page: u64) -> Option<(Pages, &Region)>;

    /// Maps `pages`, which are free.
    fn insert(&mut self, pages: Pages, region: Region);

    /// Unmaps whatever is in `pages`, splitting regions at its edges.
    fn remove(&mut self, pages: Pages);

    /// Sets the rights of whatever is mapped in `pages`, splitting at the edges and joining what becomes equal.
    fn protect(&mut self, pages: Pages, prot: Prot);

    /// The highest `wanted` free pages inside `window`.
    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64>;

    /// Calls `visit` with each region that shares a page with `pages`, lowest first, until it says to stop.
    fn visit(&self, pages: Pages, visit: impl FnMut(Pages, &Region) -> bool);

    /// An independent copy; `None` if the map has no way to make one.
    fn fork(&self) -> Option<Self>;
}
