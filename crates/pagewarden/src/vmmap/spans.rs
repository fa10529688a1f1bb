//! The bounds of the slots of a node.
//!
//! Slots are ordered by page and never overlap. Unused slots have bounds above every page number, so that a rank
//! is a count over the whole array.

use core::ops::Range;

/// Bounds of an unused slot: above every page number.
pub(super) const UNUSED: u64 = u64::MAX;

/// What one slot spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// First page of the first region.
    pub(super) first: u64,
    /// Page after the last region.
    pub(super) end: u64,
    /// Whether the first region grows down, so that the gap before it ends early.
    pub(super) guarded: bool,
}

/// The bounds of all slots of a node.
#[derive(Clone)]
pub(super) struct Spans<const N: usize> {
    len: usize,
    /// Bit `i`: [`Span::guarded`] of slot `i`.
    guarded: u64,
    firsts: [u64; N],
    ends: [u64; N],
}

impl<const N: usize> Spans<N> {
    pub(super) const EMPTY: Self = Self { len: 0, guarded: 0, firsts: [UNUSED; N], ends: [UNUSED; N] };

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn first(&self, slot: usize) -> u64 {
        self.firsts[slot]
    }

    pub(super) const fn end(&self, slot: usize) -> u64 {
        self.ends[slot]
    }

    const fn is_guarded(&self, slot: usize) -> bool {
        self.guarded >> slot & 1 == 1
    }

    pub(super) const fn span(&self, slot: usize) -> Span {
        Span { first: self.firsts[slot], end: self.ends[slot], guarded: self.is_guarded(slot) }
    }

    /// What all slots together span; there is at least one.
    pub(super) const fn whole(&self) -> Span {
        Span { end: self.ends[self.len - 1], ..self.span(0) }
    }

    /// How many slots end at or below `page`: the index of the first that ends above it.
    #[inline]
    pub(super) fn rank_end(&self, page: u64) -> usize {
        rank(&self.ends, page + 1)
    }

    /// How many slots start below `page`.
    #[inline]
    pub(super) fn rank_first(&self, page: u64) -> usize {
        rank(&self.firsts, page)
    }

    /// Pages in the gap between `slot` and the slot below it; 0 if there is none.
    #[inline]
    pub(super) const fn gap_below(&self, slot: usize, guard: u64) -> u64 {
        if slot == 0 || slot >= self.len {
            return 0;
        }
        floor(&self.span(slot), guard).saturating_sub(self.ends[slot - 1])
    }

    /// Those of `slots`, without the first slot of all, that have `pages` or more between them and the slot below.
    #[inline]
    pub(super) fn wide_gaps(&self, slots: Range<usize>, pages: u64) -> impl DoubleEndedIterator<Item = usize> {
        let below = self.ends[slots.start - 1..].iter();
        let gaps = self.firsts[slots.clone()].iter().zip(below);
        slots.zip(gaps).filter(move |(_, (first, end))| *first - *end >= pages).map(|(slot, _)| slot)
    }

    /// The larger of the gaps just below and just above `slot`.
    pub(super) fn gap_around(&self, slot: usize, guard: u64) -> u64 {
        self.gap_below(slot, guard).max(self.gap_below(slot + 1, guard))
    }

    /// Pages in the largest gap between neighbouring slots.
    #[inline]
    pub(super) fn max_gap(&self, guard: u64) -> u64 {
        if self.guarded == 0 {
            let pairs = self.ends.iter().zip(&self.firsts[1..self.len]);
            return pairs.map(|(end, first)| first - end).max().unwrap_or(0);
        }
        (1..self.len).map(|slot| self.gap_below(slot, guard)).max().unwrap_or(0)
    }

    /// Sets the bounds of `slot`.
    pub(super) fn set(&mut self, slot: usize, span: Span) {
        self.firsts[slot] = span.first;
        self.ends[slot] = span.end;
        self.guarded = self.guarded & !(1 << slot) | u64::from(span.guarded) << slot;
    }

    pub(super) fn set_first(&mut self, slot: usize, first: u64) {
        self.firsts[slot] = first;
    }

    pub(super) fn set_end(&mut self, slot: usize, end: u64) {
        self.ends[slot] = end;
    }

    /// Makes room for `count` slots at `at`; the caller then sets them.
    #[inline]
    pub(super) fn open(&mut self, at: usize, count: usize) {
        let len = self.len;
        self.firsts.copy_within(at..len, at + count);
        self.ends.copy_within(at..len, at + count);
        let below = self.guarded & ((1 << at) - 1);
        let above = if at + count < N { self.guarded >> at << (at + count) } else { 0 };
        self.guarded = below | above;
        self.len = len + count;
    }

    /// Takes the slots in `gone` out.
    #[inline]
    pub(super) fn close(&mut self, gone: Range<usize>) {
        let (len, after) = (self.len, self.len - gone.len());
        self.firsts.copy_within(gone.end..len, gone.start);
        self.ends.copy_within(gone.end..len, gone.start);
        // One slot or two, as when regions join, are not worth a call.
        if (1..=2).contains(&gone.len()) {
            self.firsts[after] = UNUSED;
            self.ends[after] = UNUSED;
            self.firsts[len - 1] = UNUSED;
            self.ends[len - 1] = UNUSED;
        } else {
            self.firsts[after..len].fill(UNUSED);
            self.ends[after..len].fill(UNUSED);
        }
        let below = self.guarded & ((1 << gone.start) - 1);
        let above = if gone.end < N { self.guarded >> gone.end << gone.start } else { 0 };
        self.guarded = below | above;
        self.len = after;
    }

    /// Checks what holds for the bounds of any node.
    ///
    /// # Panics
    /// If something is wrong.
    pub(super) fn check(&self) {
        let Self { len, guarded, ref firsts, ref ends } = *self;
        assert!(firsts[len..].iter().chain(&ends[len..]).all(|&page| page == UNUSED), "bounds of unused slots");
        assert!((len..N).all(|slot| guarded >> slot & 1 == 0), "guards of unused slots");
        assert!((0..len).all(|slot| firsts[slot] < ends[slot]), "an empty slot");
        assert!((1..len).all(|slot| ends[slot - 1] <= firsts[slot]), "slots overlap");
    }
}

/// Where the gap before `span` ends.
pub(super) const fn floor(span: &Span, guard: u64) -> u64 {
    if span.guarded { span.first.saturating_sub(guard) } else { span.first }
}

/// How many of `values`, which ascend, are below `bound`. The comparisons of a step do not wait for each other.
#[inline]
fn rank<const N: usize>(values: &[u64; N], bound: u64) -> usize {
    const { assert!(N.is_power_of_two() && N >= 16 && N <= 64) };
    let below = |index: usize| usize::from(values[index % N] < bound);
    let of_three = |from: usize, step: usize| {
        let at = from + step - 1;
        from + step * (below(at) + below(at + step) + below(at + 2 * step))
    };
    let low = of_three(of_three(0, N / 4), N / 16);
    low + (low..low + N / 16).map(below).sum::<usize>()
}
