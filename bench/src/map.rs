//! What a map of regions must do to take part: the semantics of an address space, whatever is inside.

use pagewarden::{Prot, Region};

/// Pages `first..end`.
pub type Pages = std::ops::Range<u64>;

/// Every page lies below this one.
pub const PAGES_END: u64 = 1 << 51;

/// What a map may be unable to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ability {
    /// Joining equal neighbours that touch.
    Merge,
    /// Changing the rights of a part of a region.
    Protect,
    /// Finding the highest gap that fits.
    Gap,
    /// Walking the regions from some page on.
    Visit,
    /// Making an independent copy.
    Fork,
}

/// A map from pages to regions. Ranges never overlap; neighbours that touch and are equal are one region, so
/// that every map shows the same regions after the same edits.
pub trait RegionMap: Sized {
    /// What tables call it.
    const NAME: &'static str;
    /// What it cannot do, and why. The methods of these abilities are never called.
    const CANNOT: &'static [(Ability, &'static str)] = &[];

    /// An empty map.
    fn new() -> Self;

    /// The number of regions.
    fn len(&self) -> usize;

    /// Whether nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The region that holds `page`, with its bounds.
    fn get(&self, page: u64) -> Option<(Pages, &Region)>;

    /// Maps `pages`, which are free.
    fn insert(&mut self, pages: Pages, region: Region);

    /// Unmaps whatever is in `pages`, splitting regions at its edges.
    fn remove(&mut self, pages: Pages);

    /// Maps `pages` in the place of whatever is there.
    fn replace(&mut self, pages: Pages, region: Region) {
        self.remove(pages.clone());
        self.insert(pages, region);
    }

    /// Sets the rights of whatever is mapped in `pages`, splitting at the edges and joining what becomes equal.
    fn protect(&mut self, pages: Pages, prot: Prot);

    /// The highest `wanted` free pages inside `window`.
    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64>;

    /// Calls `visit` with each region that shares a page with `pages`, lowest first, until it says to stop.
    fn visit(&self, pages: Pages, visit: impl FnMut(Pages, &Region) -> bool);

    /// An independent copy; `None` if the map has no way to make one.
    fn fork(&self) -> Option<Self>;
}

/// Whether `map` can do all of `needed`; if not, why.
///
/// # Errors
/// The reason why it cannot.
pub fn able<M: RegionMap>(needed: &[Ability]) -> Result<(), &'static str> {
    match M::CANNOT.iter().find(|(ability, _)| needed.contains(ability)) {
        Some((_, reason)) => Err(reason),
        None => Ok(()),
    }
}

/// `region` with other rights.
pub(crate) fn with_prot(region: &Region, prot: Prot) -> Region {
    Region { prot, ..region.clone() }
}

/// [`RegionMap::protect`] of a range with several regions or with holes: takes the parts out and maps them anew.
pub(crate) fn protect_parts<M: RegionMap>(map: &mut M, pages: &Pages, prot: Prot) {
    let mut parts = Vec::new();
    map.visit(pages.clone(), |part, region| {
        parts.push((part.start.max(pages.start)..part.end.min(pages.end), with_prot(region, prot)));
        true
    });
    map.remove(pages.clone());
    for (part, region) in parts {
        map.insert(part, region);
    }
}

/// The search for a gap from the top, given the regions from the top: those that begin below the end of `window`.
pub(crate) fn highest_gap(wanted: u64, window: &Pages, regions: impl Iterator<Item = Pages>) -> Option<u64> {
    let mut top = window.end;
    for region in regions {
        if region.end.max(window.start) + wanted <= top {
            return Some(top - wanted);
        }
        top = region.start;
        if top < window.start + wanted {
            return None;
        }
    }
    (window.start + wanted <= top).then(|| top - wanted)
}
