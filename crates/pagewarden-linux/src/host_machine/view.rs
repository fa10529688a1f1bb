//! Views: what the host shows of a space, which is to its guest what a TLB is to a processor.
//!
//! Owned here: which pages the host shows, and how. A view shows no more than the tables of its space allow, from when
//! they have been flushed on; it may show less, and then a fault looks at the tables again. Outside: the tables
//! ([`super::walk`]), the addresses ([`super::Reservation`]), what the changes are made of ([`super::changes`]).
//!
//! # Invariants
//! What `chunks` says of a page is what the host shows there, and `mappings` is how many mappings of the host that takes.
//! Where a host call fails, the whole view is dropped, and what it says with it. If even that fails the process ends: a
//! guest would go on with memory that is somebody else's.
//!
//! # Locks
//! The mutex of a view is held while the tables are walked and while the host is called, by [`View::fill`] and by
//! [`View::sync`] alike. So when a flush returns, no page is shown that was read from a table before. No lock is taken
//! below it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagewarden::frame::FrameNumber;
use pagewarden::manager::Access;
use pagewarden::{Errno, PAGE_SIZE, PageCount, PageRange};

use super::HostMachine;
use super::changes::Changes;
use super::host::{self, Shown};
use super::page::Page;
use super::walk::{CHUNK, CHUNK_SHIFT, Leaf, Leaves};

/// A page that is to be shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) page: u64,
    /// What for.
    pub(super) access: Access,
    /// What may soon be wanted too, the page among it.
    pub(super) near: PageRange,
}

impl Wanted {
    /// The same without any others.
    pub(super) fn alone(self) -> Self {
        Self { near: PageRange::from_pages(self.page, PageCount::new(1)).unwrap_or(self.near), ..self }
    }
}

/// What became of an attempt to show a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Filled {
    /// The access goes through, and others to these pages.
    Shown(PageRange),
    /// The tables do not allow it.
    Refused,
    /// The host has no mapping left for it, or no memory; nothing is shown in the view now.
    Full,
    /// There is no such memory.
    Nowhere,
}

/// The pages of an aligned 2 MiB.
pub(super) struct Chunk {
    pages: [Page; CHUNK],
    /// How many of them are shown.
    shown: usize,
}

impl Chunk {
    const EMPTY: Self = Self { pages: [Page::NOTHING; CHUNK], shown: 0 };

    fn set(&mut self, index: usize, page: Page) {
        self.shown += usize::from(page != Page::NOTHING);
        self.shown -= usize::from(self.pages[index] != Page::NOTHING);
        self.pages[index] = page;
    }
}

#[derive(Default)]
struct State {
    /// Those in which something is shown, by number.
    chunks: BTreeMap<u64, Box<Chunk>>,
    /// The first and the last chunk in which something was shown since everything was dropped.
    reach: Option<(u64, u64)>,
    is_closed: bool,
}

/// What the host shows of a space.
pub(super) struct View {
    root: FrameNumber,
    /// The host's address of page 0.
    base: usize,
    pages: u64,
    state: Mutex<State>,
    /// Mappings of the host, but for one.
    mappings: AtomicUsize,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} pages, root {})", self.pages, self.root)
    }
}

impl View {
    /// Nothing yet, of the space of `root`, in the `bytes` bytes of a reservation from `base` on.
    pub(super) fn new(root: FrameNumber, base: usize, bytes: usize) -> Self {
        let pages = bytes as u64 / PAGE_SIZE;
        Self { root, base, pages, state: Mutex::default(), mappings: AtomicUsize::new(0) }
    }

    pub(super) const fn root(&self) -> FrameNumber {
        self.root
    }

    /// Mappings of the host, but for one.
    pub(super) fn mappings(&self) -> usize {
        self.mappings.load(Ordering::Relaxed)
    }

    /// How far into the view the host's address `address` is, if it is.
    pub(super) fn offset(&self, address: usize) -> Option<u64> {
        let offset = address.checked_sub(self.base)? as u64;
        (offset / PAGE_SIZE < self.pages).then_some(offset)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a page for an access, as far as the tables allow it, and others near it.
    pub(super) fn fill(&self, machine: &HostMachine, wanted: Wanted) -> Filled {
        let (page, access) = (wanted.page, wanted.access);
        let mut state = self.lock();
        if state.is_closed || page >= self.pages {
            return Filled::Refused;
        }
        let (number, index) = (page >> CHUNK_SHIFT, index_of(page));
        let leaves = Leaves::of(&machine.ram, self.root, number);
        let leaf = if access == Access::Write { leaves.store(index) } else { leaves.load(index) };
        let Some(leaf) = leaf else { return Filled::Refused };
        if !machine.ram.has(leaf.frame) {
            return Filled::Nowhere;
        }
        let mut pages = Pages::new();
        let chunk = number << CHUNK_SHIFT;
        let first = wanted.near.first_page().max(chunk);
        let end = wanted.near.end_page().min(chunk + CHUNK as u64);
        pages.around(machine, &leaves, (index, leaf), index_of(first)..index_of(end - 1) + 1);
        let mut changes = Changes::new(machine, self);
        let done = self.bring(&mut state, number, &pages, &mut changes);
        if done.and_then(|()| changes.finish()).is_ok() {
            return Filled::Shown(pages.range(chunk));
        }
        self.drop_all(machine, &mut state);
        Filled::Full
    }

    /// Shows no more in `range` than the tables allow.
    pub(super) fn sync(&self, machine: &HostMachine, range: PageRange) {
        let mut state = self.lock();
        let (first, end) = (range.first_page(), range.end_page().min(self.pages));
        if first >= end {
            return;
        }
        let mut changes = Changes::new(machine, self);
        let mut wanted = Pages::new();
        let last = (end - 1) >> CHUNK_SHIFT;
        let mut next = first >> CHUNK_SHIFT;
        let mut done = Ok(());
        while let Some((&number, chunk)) = state.chunks.range(next..).next().filter(|(number, _)| **number <= last) {
            let (from, to) = (first.max(number << CHUNK_SHIFT), end.min((number + 1) << CHUNK_SHIFT));
            let leaves = Leaves::of(&machine.ram, self.root, number);
            wanted.clear();
            for index in index_of(from)..=index_of(to - 1) {
                let is_shown = chunk.pages[index] != Page::NOTHING;
                let leaf = if is_shown { leaves.load(index) } else { None };
                wanted.push(index, Page::of(machine, leaf));
            }
            done = done.and_then(|()| self.bring(&mut state, number, &wanted, &mut changes));
            next = number + 1;
        }
        if done.and_then(|()| changes.finish()).is_err() {
            self.drop_all(machine, &mut state);
        }
    }

    /// Makes pages of chunk `number` what they are to be. If it fails, something else may be shown than is written down.
    fn bring(&self, state: &mut State, number: u64, wanted: &Pages, changes: &mut Changes<'_>) -> Result<(), Errno> {
        let (Some((low, _)), Some((high, _))) = (wanted.pages.first(), wanted.pages.last()) else { return Ok(()) };
        let (first, last) = state.reach.unwrap_or((number, number));
        state.reach = Some((first.min(number), last.max(number)));
        let edge = |page: Option<u64>| {
            let page = page.filter(|page| *page < self.pages)?;
            Some(state.chunks.get(&(page >> CHUNK_SHIFT)).map_or(Page::NOTHING, |chunk| chunk.pages[index_of(page)]))
        };
        let start = number << CHUNK_SHIFT;
        let ends = (edge(start.checked_sub(1)), edge(start.checked_add(CHUNK as u64)));
        let chunk = state.chunks.entry(number).or_insert_with(|| Box::new(Chunk::EMPTY));
        let before = borders(&chunk.pages, (*low, *high), ends);
        for &(index, page) in &wanted.pages {
            changes.push(start + index as u64, chunk.pages[index], page)?;
            chunk.set(index, page);
        }
        let after = borders(&chunk.pages, (*low, *high), ends);
        if chunk.shown == 0 {
            state.chunks.remove(&number);
        }
        self.mappings.fetch_add(after, Ordering::Relaxed);
        self.mappings.fetch_sub(before, Ordering::Relaxed);
        changes.count(before, after)
    }

    /// Shows nothing.
    pub(super) fn clear(&self, machine: &HostMachine) {
        self.drop_all(machine, &mut self.lock());
    }

    /// Shows nothing any more: the reservation may be somebody else's from now on.
    pub(super) fn close(&self, machine: &HostMachine) {
        let mut state = self.lock();
        self.drop_all(machine, &mut state);
        state.is_closed = true;
    }

    fn drop_all(&self, machine: &HostMachine, state: &mut State) {
        let Some((first, last)) = state.reach.take() else { return };
        let (from, to) = (first << CHUNK_SHIFT, ((last + 1) << CHUNK_SHIFT).min(self.pages));
        if self.show(from, to - from, Shown::Nothing).is_err() {
            eprintln!("pagewarden: the host does not hide pages that a guest may not see any more");
            std::process::abort();
        }
        state.chunks.clear();
        machine.forget_mappings(self.mappings.swap(0, Ordering::Relaxed));
    }

    /// Checks that no more is shown than the tables allow, and recounts.
    ///
    /// # Panics
    /// If something is wrong.
    pub(super) fn check_invariants(&self, machine: &HostMachine) {
        let state = self.lock();
        let (mut mappings, mut last) = (0, (0, Page::NOTHING));
        for (number, chunk) in &state.chunks {
            let leaves = Leaves::of(&machine.ram, self.root, *number);
            assert_eq!(chunk.shown, chunk.pages.iter().filter(|page| **page != Page::NOTHING).count(), "{self:?}");
            assert!(
                chunk.shown > 0 && state.reach.is_some_and(|(first, end)| (first..=end).contains(number)),
                "{self:?}"
            );
            for (page, shown) in (number << CHUNK_SHIFT..).zip(chunk.pages) {
                let allowed = Page::of(machine, leaves.load(index_of(page)));
                let is_right = shown == Page::NOTHING || shown == allowed || shown.is_less_than(allowed);
                assert!(is_right, "{shown:?} is shown at page {page:#x}, and the tables have {allowed:?}");
                // Nothing is shown between chunks.
                let before = if last.0 == page { last.1 } else { Page::NOTHING };
                mappings += usize::from(last.0 != page && last.1 != Page::NOTHING);
                mappings += usize::from(page > 0 && !before.goes_on_in(shown));
                last = (page + 1, shown);
            }
        }
        mappings += usize::from(last.1 != Page::NOTHING && last.0 < self.pages);
        assert_eq!(mappings, self.mappings(), "mappings of {self:?}");
    }

    /// Has the host show something in pages of the view.
    pub(super) fn show(&self, first: u64, pages: u64, shown: Shown<'_>) -> Result<(), Errno> {
        let (start, bytes) = self.place(first, pages)?;
        // SAFETY: they lie in the reservation that this view was given, where nobody makes references.
        unsafe { host::show(start, bytes, shown) }
    }

    /// Has the host allow no stores to pages of the view, all of which are shown.
    pub(super) fn protect(&self, first: u64, pages: u64) -> Result<(), Errno> {
        let (start, bytes) = self.place(first, pages)?;
        // SAFETY: as above.
        unsafe { host::make_read_only(start, bytes) }
    }

    /// Where pages of the view are; an error if one is none of its.
    fn place(&self, first: u64, pages: u64) -> Result<(usize, usize), Errno> {
        if first.checked_add(pages).is_none_or(|end| end > self.pages) {
            return Err(Errno::Fault);
        }
        let bytes = |pages: u64| usize::try_from(pages * PAGE_SIZE).map_err(|_| Errno::Fault);
        Ok((self.base + bytes(first)?, bytes(pages)?))
    }
}

/// What pages of a chunk are to be, lowest first.
struct Pages {
    pages: Vec<(usize, Page)>,
}

impl Pages {
    fn new() -> Self {
        Self { pages: Vec::with_capacity(CHUNK) }
    }

    fn clear(&mut self) {
        self.pages.clear();
    }

    fn push(&mut self, index: usize, page: Page) {
        self.pages.push((index, page));
    }

    /// From the first to the last of them, of which the chunk that begins with page `start` has one at least.
    fn range(&self, start: u64) -> PageRange {
        let (first, last) = (self.pages.first().map_or(0, |page| page.0), self.pages.last().map_or(0, |page| page.0));
        let range = PageRange::from_pages(start + first as u64, PageCount::new((last - first) as u64 + 1));
        range.unwrap_or_else(|| unreachable!("pages of a view"))
    }

    /// The page at `index`, which is `leaf`, and what the tables have around it without a gap: all that is near, and further
    /// away what the host shows by the same mapping for nothing.
    fn around(&mut self, machine: &HostMachine, leaves: &Leaves<'_>, (index, leaf): (usize, Leaf), near: Range<usize>) {
        let page = Page::of(machine, Some(leaf));
        // Of pages to be stored to, the host makes each present that is shown.
        let is_wanted = |at: usize, goes_on: bool| near.contains(&at) || goes_on && !page.is_writable();
        let mut next = page;
        for at in (0..index).rev() {
            let before = Page::of(machine, leaves.load(at));
            if before == Page::NOTHING || !is_wanted(at, before.goes_on_in(next)) {
                break;
            }
            self.push(at, before);
            next = before;
        }
        self.pages.reverse();
        self.push(index, page);
        let mut last = page;
        for at in index + 1..CHUNK {
            let after = Page::of(machine, leaves.load(at));
            if after == Page::NOTHING || !is_wanted(at, last.goes_on_in(after)) {
                break;
            }
            self.push(at, after);
            last = after;
        }
    }
}

/// How many pages between `low` and the one behind `high` are not of the same mapping as the one before them. The pages on
/// both sides of the chunk are `ends`, if there are any.
fn borders(pages: &[Page; CHUNK], (low, high): (usize, usize), ends: (Option<Page>, Option<Page>)) -> usize {
    let before = if low == 0 { ends.0 } else { Some(pages[low - 1]) };
    let after = if high + 1 == CHUNK { ends.1 } else { Some(pages[high + 1]) };
    let inside = pages[low..=high].windows(2).filter(|pair| !pair[0].goes_on_in(pair[1])).count();
    let first = before.is_some_and(|page| !page.goes_on_in(pages[low]));
    let last = after.is_some_and(|page| !pages[high].goes_on_in(page));
    inside + usize::from(first) + usize::from(last)
}

/// The place of a page in its chunk.
#[expect(clippy::cast_possible_truncation, reason = "below the pages of a chunk")]
const fn index_of(page: u64) -> usize {
    (page % CHUNK as u64) as usize
}
