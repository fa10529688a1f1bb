//! An intrusive red-black tree, as kernels written in Rust use it.

use std::cell::Cell;

use intrusive_collections::rbtree::CursorMut;
use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};
use pagewarden::{Prot, Region};

use crate::map::{Pages, RegionMap, highest_gap, protect_parts, with_prot};

/// A region with its bounds, which change without moving it as long as it stays between its neighbours.
struct Node {
    link: RBTreeLink,
    first: Cell<u64>,
    end: Cell<u64>,
    region: Region,
}

intrusive_adapter!(ByFirst = Box<Node>: Node { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByFirst {
    type Key = u64;
    fn get_key(&self, node: &'a Node) -> u64 {
        node.first.get()
    }
}

impl Node {
    fn new(pages: Pages, region: Region) -> Box<Self> {
        Box::new(Self { link: RBTreeLink::new(), first: Cell::new(pages.start), end: Cell::new(pages.end), region })
    }

    fn pages(&self) -> Pages {
        self.first.get()..self.end.get()
    }

    fn is_joined_by(&self, page: u64, region: &Region) -> bool {
        self.end.get() == page && self.region == *region
    }
}

/// Nodes by first page, and how many there are.
pub struct RedBlack {
    tree: RBTree<ByFirst>,
    len: usize,
}

/// Joins the node under the cursor with its upper neighbour if they are equal and touch. Returns how many
/// nodes went away.
fn join_above(cursor: &mut CursorMut<'_, ByFirst>) -> usize {
    let (Some(node), Some(above)) =
        (cursor.get(), cursor.peek_next().get().map(|above| (above.pages(), &above.region)))
    else {
        return 0;
    };
    if !node.is_joined_by(above.0.start, above.1) {
        return 0;
    }
    node.end.set(above.0.end);
    cursor.move_next();
    cursor.remove();
    cursor.move_prev();
    1
}

impl RedBlack {
    /// Inserts above the cursor, which stands on the lower neighbour or, if there is none, on nothing.
    fn insert_above(cursor: &mut CursorMut<'_, ByFirst>, pages: Pages, region: Region) -> usize {
        if let Some(low) = cursor.get()
            && low.is_joined_by(pages.start, &region)
        {
            low.end.set(pages.end);
            return 0;
        }
        if let Some(above) = cursor.peek_next().get()
            && above.first.get() == pages.end
            && above.region == region
        {
            above.first.set(pages.start);
            return 0;
        }
        cursor.insert_after(Node::new(pages, region));
        1
    }

    /// Gives part or all of the region under the cursor other rights. Returns by how much the count changes.
    fn protect_inside(cursor: &mut CursorMut<'_, ByFirst>, pages: Pages, prot: Prot) -> isize {
        let Some(node) = cursor.get() else { return 0 };
        let (whole, changed) = (node.pages(), with_prot(&node.region, prot));
        if pages.start > whole.start {
            node.end.set(pages.start);
            if pages.end < whole.end {
                let rest = Node::new(pages.end..whole.end, node.region.clone());
                cursor.insert_after(rest);
                cursor.insert_after(Node::new(pages, changed));
                return 2;
            }
            return Self::insert_above(cursor, pages, changed).cast_signed();
        }
        if pages.end < whole.end {
            node.first.set(pages.end);
            cursor.move_prev();
            return Self::insert_above(cursor, pages, changed).cast_signed();
        }
        let joins_below = cursor.peek_prev().get().is_some_and(|low| low.is_joined_by(pages.start, &changed));
        if joins_below {
            cursor.remove();
            cursor.move_prev();
            if let Some(low) = cursor.get() {
                low.end.set(pages.end);
            }
            return -1 - join_above(cursor).cast_signed();
        }
        if let Some(mut node) = cursor.remove() {
            node.region.prot = prot;
            cursor.insert_before(node);
            cursor.move_prev();
        }
        -join_above(cursor).cast_signed()
    }
}

impl RegionMap for RedBlack {
    const NAME: &'static str = "intrusive RBTree";

    fn new() -> Self {
        Self { tree: RBTree::new(ByFirst::new()), len: 0 }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, page: u64) -> Option<(Pages, &Region)> {
        let node = self.tree.upper_bound(Bound::Included(&page)).get()?;
        (page < node.end.get()).then(|| (node.pages(), &node.region))
    }

    fn insert(&mut self, pages: Pages, region: Region) {
        let mut cursor = self.tree.upper_bound_mut(Bound::Excluded(&pages.start));
        let added = Self::insert_above(&mut cursor, pages, region);
        // What the lower neighbour took may have closed the gap to the upper one.
        let joined = if added == 0 { join_above(&mut cursor) } else { 0 };
        self.len = self.len + added - joined;
    }

    fn remove(&mut self, pages: Pages) {
        let Pages { start, end } = pages;
        let mut cursor = self.tree.upper_bound_mut(Bound::Excluded(&end));
        while let Some(node) = cursor.get() {
            let whole = node.pages();
            if whole.end <= start {
                return;
            }
            if start <= whole.start && whole.end <= end {
                cursor.remove();
                self.len -= 1;
                // The cursor stands on what follows now.
                cursor.move_prev();
                if whole.start == start {
                    return;
                }
                continue;
            }
            if whole.start >= start {
                node.first.set(end);
            } else {
                node.end.set(start);
                if whole.end > end {
                    let rest = Node::new(end..whole.end, node.region.clone());
                    cursor.insert_after(rest);
                    self.len += 1;
                }
                return;
            }
            cursor.move_prev();
        }
    }

    fn protect(&mut self, pages: Pages, prot: Prot) {
        let mut cursor = self.tree.upper_bound_mut(Bound::Excluded(&pages.end));
        let Some(node) = cursor.get() else { return };
        let whole = node.pages();
        if whole.end <= pages.start {
            return;
        }
        if whole.start > pages.start || whole.end < pages.end {
            return protect_parts(self, &pages, prot);
        }
        if node.region.prot != prot {
            self.len = self.len.saturating_add_signed(Self::protect_inside(&mut cursor, pages, prot));
        }
    }

    fn find_gap(&self, wanted: u64, window: Pages) -> Option<u64> {
        let mut cursor = self.tree.upper_bound(Bound::Excluded(&window.end));
        let down = std::iter::from_fn(|| {
            let pages = cursor.get()?.pages();
            cursor.move_prev();
            Some(pages)
        });
        highest_gap(wanted, &window, down)
    }

    fn visit(&self, pages: Pages, mut visit: impl FnMut(Pages, &Region) -> bool) {
        let mut cursor = self.tree.upper_bound(Bound::Included(&pages.start));
        if cursor.get().is_none_or(|node| node.end.get() <= pages.start) {
            cursor.move_next();
        }
        while let Some(node) = cursor.get() {
            if node.first.get() >= pages.end || !visit(node.pages(), &node.region) {
                return;
            }
            cursor.move_next();
        }
    }

    fn fork(&self) -> Option<Self> {
        let mut copy = Self::new();
        for node in &self.tree {
            copy.tree.back_mut().insert_after(Node::new(node.pages(), node.region.clone()));
        }
        copy.len = self.len;
        Some(copy)
    }
}
