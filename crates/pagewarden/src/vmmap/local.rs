//! Changes that stay inside one leaf: nearly all of them.
//!
//! One descent finds the leaf, unsharing what another version has on the way; the leaf is edited where it is, and
//! what its parents know of it is brought up to date on the way back. Where another version has the whole tree, a copy of
//! the leaf is edited instead, which may stay beside the tree (`loose`). A change that another leaf has a part in,
//! that a full leaf has no room for or that would leave too few slots is declined before anything is touched, and
//! [`Draft`](super::edit::Draft) carries it out.
//!
//! Edits are inlined into both ways to a leaf: left to itself, the compiler makes calls of them where there are two.

use alloc::sync::Arc;
use core::ops::{ControlFlow, Range};

use super::loose::{bind, bind_loose};
use super::node::{INNER_LEN, LEAF_LEAST, LEAF_LEN, Leaf, Node, Summary, grows_down, page_range, renew, unshare};
use super::spans::{Span, Spans, UNUSED};
use crate::addr::PageRange;
use crate::error::Errno;
use crate::region::Region;

/// Where a leaf lies among the others.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The first slot of the leaf that ends above the first page to edit.
    at: usize,
    /// Where the region before the leaf ends; [`UNUSED`] if there is none.
    low: u64,
    /// Where the region after the leaf starts; [`UNUSED`] if there is none.
    high: u64,
    /// Fewest regions that the leaf may keep.
    least: usize,
    guard: u64,
    neighbours: Neighbours,
}

/// Whether a neighbour of the edited range in another leaf may be equal to what the range becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Neighbours {
    /// It has not been looked at.
    Unknown,
    /// It has, and is not.
    Differ,
}

/// What an edit did to a leaf.
#[derive(Clone, Copy)]
pub(super) enum Edit {
    /// What was asked for. The largest gap where something changed was `before`, more if that is not known, and is
    /// `after`.
    Done { before: u64, after: u64 },
    /// Nothing, and there was nothing to do.
    Needless,
    /// Nothing: a region in another leaf touches what is edited, and may have to be joined.
    Beside,
    /// Nothing: it is not for this leaf alone.
    Declined,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done.
    Done,
    /// As for [`Edit::Beside`].
    Beside,
    /// As for [`Edit::Declined`].
    Declined,
}

impl Place {
    /// The place of the root.
    const fn whole(guard: u64, neighbours: Neighbours) -> Self {
        Self { at: 0, low: UNUSED, high: UNUSED, least: 1, guard, neighbours }
    }

    /// From the place of a node to that of its child in `slot`.
    #[inline]
    fn enter(&mut self, spans: &Spans<INNER_LEN>, slot: usize) {
        if slot > 0 {
            self.low = spans.end(slot - 1);
        }
        if slot + 1 < spans.len() {
            self.high = spans.first(slot + 1);
        }
        self.least = LEAF_LEAST;
    }

    /// The slots of the leaf that have a page in `range`; `None` if another leaf has some, too.
    #[inline]
    fn slots(&self, leaf: &Leaf, range: PageRange) -> Option<Range<usize>> {
        let mut end = self.at;
        while end < leaf.spans.len() && leaf.spans.first(end) < range.end_page() {
            end += 1;
        }
        (range.end_page() <= self.high).then_some(self.at..end)
    }
}

/// Most nodes on the way to a leaf, with the leaf: it has at least eight of the 2^52 pages, the root at least two
/// children, every other node at least sixteen.
const HEIGHT_MAX: usize = 15;

/// The way from the root to the place of the last edit: one slot for each node. The next edit is likely to be near,
/// so it is tried first.
#[derive(Clone, Default)]
pub(super) struct Path([u8; HEIGHT_MAX]);

impl Path {
    /// What [`Spans::rank_end`] gives for a node at `depth`.
    #[inline]
    fn rank_end<const N: usize>(&mut self, spans: &Spans<N>, depth: usize, page: u64) -> usize {
        let guess = usize::from(self.0[depth]);
        // The tree may have lost a level since, so that this is no longer a guess for a node of this kind.
        let is_right = guess < N && page < spans.end(guess) && (guess == 0 || spans.end(guess - 1) <= page);
        if is_right {
            return guess;
        }
        let slot = spans.rank_end(page);
        self.0[depth] = u8::try_from(slot).unwrap_or(0);
        slot
    }
}

/// What of a tree an edit goes by.
pub(super) struct Tree<'a> {
    pub(super) root: &'a mut Node,
    /// What is known of the root; it is brought up to date.
    pub(super) known: &'a mut Summary,
    pub(super) loose: &'a mut Option<Arc<Leaf>>,
    pub(super) path: &'a mut Path,
    pub(super) guard: u64,
}

impl Tree<'_> {
    /// Whether another version has the tree, or a leaf is loose.
    #[inline]
    fn is_complex(&self) -> bool {
        self.loose.is_some() || self.is_shared()
    }

    #[inline]
    fn is_shared(&self) -> bool {
        matches!(&*self.root, Node::Inner(inner) if Arc::strong_count(inner) > 1)
    }

    /// Whether a change would have to copy the path, and the loose leaf, if there is one.
    fn is_for_loose(&self) -> bool {
        self.is_shared() && self.loose.as_ref().is_none_or(|loose| Arc::strong_count(loose) > 1)
    }
}

/// Edits the leaf that the pages from `page` on belong to.
#[inline]
pub(super) fn edit_leaf(
    tree: Tree<'_>,
    page: u64,
    neighbours: Neighbours,
    edit: impl FnOnce(&mut Leaf, &Place) -> Edit,
) -> Result<Outcome, Errno> {
    if tree.is_complex() {
        if tree.is_for_loose() {
            return edit_loose(tree, page, neighbours, edit);
        }
        bind_loose(tree.root, tree.loose)?;
    }
    let Tree { root, known, path, guard, .. } = tree;
    let mut place = Place::whole(guard, neighbours);
    let mut older = *known;
    let mut depth = 0;
    let mut node = &mut *root;
    let leaf = loop {
        match node {
            Node::Leaf(leaf) => break unshare(leaf)?,
            Node::Inner(inner) => {
                let inner = unshare(inner)?;
                let slot = path.rank_end(&inner.spans, depth, page).min(inner.spans.len() - 1);
                place.enter(&inner.spans, slot);
                older = Summary { span: inner.spans.span(slot), gap: inner.gaps[slot] };
                node = inner.children.unshare(slot)?;
                depth += 1;
            }
        }
    };
    place.at = path.rank_end(&leaf.spans, depth, page);
    let newer = match change(leaf, &place, older, edit) {
        ControlFlow::Continue(newer) => newer,
        ControlFlow::Break(outcome) => return Ok(outcome),
    };
    if newer != older {
        summarize(root, &path.0[..depth], newer, (known, guard));
    }
    Ok(Outcome::Done)
}

/// Lets `edit` change `leaf`, of which `older` is known. What is true of it then, or what became of the change if it left
/// the leaf alone.
#[inline]
fn change(
    leaf: &mut Leaf,
    place: &Place,
    older: Summary,
    edit: impl FnOnce(&mut Leaf, &Place) -> Edit,
) -> ControlFlow<Outcome, Summary> {
    let (before, after) = match edit(leaf, place) {
        Edit::Done { before, after } => (before, after),
        Edit::Needless => return ControlFlow::Break(Outcome::Done),
        Edit::Beside => return ControlFlow::Break(Outcome::Beside),
        Edit::Declined => return ControlFlow::Break(Outcome::Declined),
    };
    let gap = renew(older.gap, before, after).unwrap_or_else(|| leaf.spans.max_gap(place.guard));
    ControlFlow::Continue(Summary { span: leaf.spans.whole(), gap })
}

/// [`edit_leaf`] where another version has the tree: the leaf is copied first, and the path to it only if nodes there
/// have to know of the change.
#[inline(never)]
#[cold]
fn edit_loose(
    Tree { root, known, loose, path, guard }: Tree<'_>,
    page: u64,
    neighbours: Neighbours,
    edit: impl FnOnce(&mut Leaf, &Place) -> Edit,
) -> Result<Outcome, Errno> {
    let mut place = Place::whole(guard, neighbours);
    let mut older = *known;
    let mut depth = 0;
    let mut node = &*root;
    let bound = loop {
        match node {
            Node::Leaf(leaf) => break leaf,
            Node::Inner(inner) => {
                let slot = path.rank_end(&inner.spans, depth, page).min(inner.spans.len() - 1);
                place.enter(&inner.spans, slot);
                older = Summary { span: inner.spans.span(slot), gap: inner.gaps[slot] };
                node = &inner.children[slot];
                depth += 1;
            }
        }
    };
    let known_loose = loose.as_ref().filter(|loose| loose.stands_for(bound));
    let is_loose = known_loose.is_some();
    let mut shared = Arc::clone(known_loose.unwrap_or(bound));
    let leaf = unshare(&mut shared)?;
    place.at = path.rank_end(&leaf.spans, depth, page);
    let newer = match change(leaf, &place, older, edit) {
        ControlFlow::Continue(newer) => newer,
        ControlFlow::Break(outcome) => return Ok(outcome),
    };
    if newer != older {
        bind(root, older.span.first, shared)?;
        if is_loose {
            *loose = None;
        }
        summarize(root, &path.0[..depth], newer, (known, guard));
        return Ok(Outcome::Done);
    }
    if !is_loose {
        bind_loose(root, loose)?;
    }
    *loose = Some(shared);
    Ok(Outcome::Done)
}

/// Brings what the nodes on `path`, none of them shared, know of their children up to date, from the lowest on:
/// `newest` is what is true of the leaf. `known` is what is known of `node`.
#[inline]
fn summarize(node: &mut Node, path: &[u8], newest: Summary, (known, guard): (&mut Summary, u64)) {
    let (Node::Inner(inner), Some((&slot, path))) = (node, path.split_first()) else {
        *known = newest;
        return;
    };
    let (slot, inner) = (usize::from(slot).min(inner.spans.len() - 1), Arc::make_mut(inner));
    let older = Summary { span: inner.spans.span(slot), gap: inner.gaps[slot] };
    let mut newer = older;
    summarize(inner.children.unshared(slot), path, newest, (&mut newer, guard));
    if newer != older {
        let gaps = inner.note(slot, newer, guard);
        *known = inner.renew(known.gap, gaps, guard);
    }
}

/// Puts `new` into the free pages `range`. It is taken unless the change is declined.
///
/// # Panics
/// If a page is not free.
#[inline(always)]
pub(super) fn insert(leaf: &mut Leaf, place: &Place, range: PageRange, new: &mut Option<Region>) -> Edit {
    let (first, end) = (range.first_page(), range.end_page());
    let Leaf { spans, regions } = &mut *leaf;
    let (at, len) = (place.at, regions.len());
    let next = if at < len { spans.first(at) } else { place.high };
    assert!(end <= next, "insert over a mapped page");
    // Free pages above a leaf belong to the next one: only the last leaf of all has them behind its regions.
    if place.neighbours == Neighbours::Unknown && at == 0 && place.low == first {
        return Edit::Beside;
    }
    let is_new = |slot: usize| Some(&regions[slot]) == new.as_ref();
    let joins_low = at > 0 && spans.end(at - 1) == first && is_new(at - 1);
    let joins_high = at < len && next == end && is_new(at);
    let before = spans.gap_below(at, place.guard);
    match (joins_low, joins_high) {
        (true, false) => spans.set_end(at - 1, end),
        (false, true) => spans.set_first(at, first),
        (true, true) if len > place.least => {
            spans.set_end(at - 1, spans.end(at));
            leaf.close(at..at + 1);
        }
        (false, false) if len < LEAF_LEN => {
            let Some(region) = new.take() else { return Edit::Needless };
            leaf.insert(at, Span { first, end, guarded: grows_down(&region) }, region);
        }
        _ => return Edit::Declined,
    }
    Edit::Done { before, after: leaf.spans.gap_around(at, place.guard) }
}

/// Empties `range`.
#[inline(always)]
pub(super) fn remove(leaf: &mut Leaf, place: &Place, range: PageRange) -> Edit {
    let (first, end) = (range.first_page(), range.end_page());
    let Some(Range { start: at, end: after }) = place.slots(leaf, range) else { return Edit::Declined };
    if after == at {
        return Edit::Needless;
    }
    let spans = &mut leaf.spans;
    let len = spans.len();
    let keeps_low = spans.first(at) < first;
    let keeps_high = spans.end(after - 1) > end;
    if keeps_low && keeps_high && after == at + 1 {
        if len == LEAF_LEN {
            return Edit::Declined;
        }
        let high = Span { first: end, ..spans.span(at) };
        spans.set_end(at, first);
        let copy = leaf.regions[at].clone();
        leaf.insert(at + 1, high, copy);
        return Edit::Done { before: 0, after: leaf.spans.gap_below(at + 1, place.guard) };
    }
    let gone = at + usize::from(keeps_low)..after - usize::from(keeps_high);
    if len - gone.len() < place.least {
        return Edit::Declined;
    }
    let mut before = leaf.spans.gap_around(at, place.guard);
    for slot in at + 2..=after {
        before = before.max(leaf.spans.gap_below(slot, place.guard));
    }
    if keeps_low {
        leaf.spans.set_end(at, first);
    }
    if keeps_high {
        leaf.spans.set_first(after - 1, end);
    }
    let next = gone.start;
    leaf.close(gone);
    Edit::Done { before, after: leaf.spans.gap_below(next, place.guard) }
}

/// A region, or the part of one, that becomes another.
struct Part {
    slot: usize,
    /// The bounds of the region.
    whole: Range<u64>,
    /// The bounds of the part.
    first: u64,
    end: u64,
}

impl Part {
    /// The part of the region at `slot` that lies in `range`; they share a page.
    fn of(leaf: &Leaf, slot: usize, range: PageRange) -> Self {
        let whole = leaf.spans.first(slot)..leaf.spans.end(slot);
        let (first, end) = (whole.start.max(range.first_page()), whole.end.min(range.end_page()));
        Self { slot, whole, first, end }
    }

    /// Whether the region goes on below.
    const fn keeps_low(&self) -> bool {
        self.whole.start < self.first
    }

    /// Whether the region goes on above.
    const fn keeps_high(&self) -> bool {
        self.end < self.whole.end
    }

    /// Makes the part `new`. Gives what [`Edit::Done`] has as `before`; the gaps after do not matter, as what is mapped
    /// stays mapped. `None` if nothing changes.
    #[inline(always)]
    fn become_region(self, leaf: &mut Leaf, new: Region) -> Option<u64> {
        let Leaf { spans, regions } = &mut *leaf;
        let (keeps_low, keeps_high) = (self.keeps_low(), self.keeps_high());
        let Self { slot, first, end, .. } = self;
        if regions[slot] == new {
            return None;
        }
        let next = slot + 1;
        let joins_low = !keeps_low && slot > 0 && spans.end(slot - 1) == first && regions[slot - 1] == new;
        let joins_high = !keeps_high && next < regions.len() && spans.first(next) == end && regions[next] == new;
        // Gaps change only with the guard below.
        let before = if grows_down(&new) == grows_down(&regions[slot]) { 0 } else { u64::MAX };
        let span = Span { first, end, guarded: grows_down(&new) };
        let high = Span { first: end, ..spans.span(slot) };
        if keeps_low {
            spans.set_end(slot, first);
        } else if keeps_high {
            spans.set_first(slot, end);
        }
        match (joins_low, joins_high) {
            (true, true) => spans.set_end(slot - 1, spans.end(next)),
            (true, false) => spans.set_end(slot - 1, end),
            (false, true) => spans.set_first(next, first),
            (false, false) => {}
        }
        match (keeps_low || keeps_high, joins_low || joins_high) {
            (true, true) => {}
            (false, true) => leaf.close(slot..next + usize::from(joins_low && joins_high)),
            (false, false) => leaf.replace(slot, new),
            (true, false) if !keeps_low => leaf.insert(slot, span, new),
            (true, false) if !keeps_high => leaf.insert(next, span, new),
            (true, false) => {
                let kept = regions[slot].clone();
                leaf.insert_both(next, (span, new), (high, kept));
            }
        }
        Some(before)
    }
}

/// The regions of a leaf that have a page in a range, and what may stay of them and around them.
struct Run {
    slots: Range<usize>,
    /// Regions that go on beyond one end of the range.
    kept: usize,
    /// Neighbours that touch the range, and that it may join.
    touched: usize,
}

impl Run {
    /// The run of `range`; `Err` if another leaf has a part in it.
    #[inline]
    fn find(leaf: &Leaf, place: &Place, range: PageRange) -> Result<Self, Edit> {
        let (spans, first, end) = (&leaf.spans, range.first_page(), range.end_page());
        let Some(Range { start: low, end: high }) = place.slots(leaf, range) else { return Err(Edit::Declined) };
        let len = spans.len();
        let is_beside = low == 0 && place.low == first || high == len && place.high == end;
        if is_beside && place.neighbours == Neighbours::Unknown {
            return Err(Edit::Beside);
        }
        let keeps_low = low < high && spans.first(low) < first;
        let keeps_high = low < high && spans.end(high - 1) > end;
        let touches_low = low > 0 && spans.end(low - 1) == first;
        let touches_high = high < len && spans.first(high) == end;
        Ok(Self {
            slots: low..high,
            kept: usize::from(keeps_low) + usize::from(keeps_high),
            touched: usize::from(touches_low) + usize::from(touches_high),
        })
    }

    /// Whether the leaf can hold what becomes of the run: at most `most` regions besides what is kept, and if all
    /// becomes one with what is kept and with its neighbours, still enough.
    #[inline]
    fn fits(&self, leaf: &Leaf, place: &Place, most: usize) -> bool {
        let around = leaf.regions.len() - self.slots.len();
        around + self.kept + most <= LEAF_LEN && around + 1 >= place.least + self.touched
    }
}

/// Changes what is in `range`.
#[inline(always)]
pub(super) fn update(
    leaf: &mut Leaf,
    place: &Place,
    range: PageRange,
    change: &mut impl FnMut(PageRange, &mut Region),
) -> Edit {
    let run = match Run::find(leaf, place, range) {
        Ok(run) if run.slots.is_empty() => return Edit::Needless,
        Ok(run) if run.fits(leaf, place, run.slots.len()) => run,
        Ok(_) => return Edit::Declined,
        // Only one region can be told what it becomes before its neighbours are looked at.
        Err(Edit::Beside) if leaf.spans.rank_first(range.end_page()) != place.at + 1 => return Edit::Declined,
        Err(edit) => return edit,
    };
    let (mut slot, mut left, mut gap) = (run.slots.start, range, None);
    for _ in run.slots {
        let part = Part::of(leaf, slot, left);
        let end = part.end;
        let mut new = leaf.regions[slot].clone();
        change(page_range(part.first, end), &mut new);
        gap = gap.max(part.become_region(leaf, new));
        if end == range.end_page() {
            break;
        }
        // The part may have joined the next region, which is still to be changed.
        left = page_range(end, range.end_page());
        slot = leaf.spans.rank_end(end);
    }
    gap.map_or(Edit::Needless, |before| Edit::Done { before, after: 0 })
}

/// Puts `new` in the place of what is in `range`. It is taken unless the change is declined.
#[inline]
pub(super) fn replace(leaf: &mut Leaf, place: &Place, range: PageRange, new: &mut Option<Region>) -> Edit {
    let run = match Run::find(leaf, place, range) {
        Ok(run) if run.fits(leaf, place, 1) => run,
        Ok(_) => return Edit::Declined,
        Err(edit) => return edit,
    };
    if run.slots.is_empty() {
        return insert(leaf, place, range, new);
    }
    let part = Part::of(leaf, run.slots.start, range);
    if part.first == range.first_page() && part.end == range.end_page() {
        let gap = new.take().and_then(|region| part.become_region(leaf, region));
        return gap.map_or(Edit::Needless, |before| Edit::Done { before, after: 0 });
    }
    let emptied = remove(leaf, &Place { least: 0, ..*place }, range);
    let place = Place { at: leaf.spans.rank_end(range.first_page()), ..*place };
    match (emptied, insert(leaf, &place, range, new)) {
        // The gap in between was not there before.
        (Edit::Done { before, .. }, Edit::Done { after, .. }) => Edit::Done { before, after },
        _ => unreachable!("there is a region to remove, and room for the new one"),
    }
}
