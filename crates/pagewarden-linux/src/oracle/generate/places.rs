//! Where calls are pointed at, and how far they reach: close to the edges that earlier steps have made.

use super::super::enclosure::{NARROW, Range, WIDE};
use super::super::program::{Arg, Base, PAGE, WINDOW, WINDOW_PAGES};
use super::Generator;

/// Addresses where something changes, or beyond everything.
pub(super) const ODD_ADDRESSES: &[u64] = &[
    0,
    1,
    0xfff,
    0x1000,
    0x8000,
    0xffff,
    0x1_0000,
    0x1_1000,
    0x4000_0000,
    0x7fff_f000,
    0x8000_0000,
    0xffff_f000,
    0x1_0000_0000,
    WINDOW - PAGE,
    0x7fff_ffff_e000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0xffff_8000_0000_0000,
    1 << 63,
    0xffff_ffff_ff60_0000,
    !0xfff,
    u64::MAX,
];

/// The same for programs in the range of an arena.
pub(super) const ODD_ENCLOSED: &[u64] = &[
    0,
    WIDE.start,
    WIDE.start + PAGE,
    WIDE.window - PAGE,
    WIDE.end - 0x20_0000,
    WIDE.end - PAGE,
    0x8000_0000_0000,
    0xffff_8000_0000_0000,
    1 << 63,
    0xffff_ffff_ff60_0000,
    !0xfff,
    u64::MAX,
];

/// The same for programs that have 32 bits for an address.
pub(super) const ODD_NARROW: &[u64] = &[
    0,
    NARROW.start,
    NARROW.start + PAGE,
    0x4000_0000,
    0x7fff_f000,
    NARROW.window - PAGE,
    NARROW.end - 0x20_0000,
    NARROW.end - PAGE,
];

/// More than small machines have, and yet within the range wherever in the window it begins.
const fn rest_of(range: Range) -> u64 {
    range.end - range.window - WINDOW_PAGES * PAGE
}

/// Lengths that reach far, and such that no range has.
pub(super) const ODD_LENGTHS: &[u64] = &[
    1,
    0xfff,
    0x1001,
    1 << 30,
    1 << 32,
    rest_of(WIDE),
    1 << 36,
    1 << 40,
    1 << 45,
    1 << 46,
    (1 << 47) - 0x1000,
    1 << 47,
    (1 << 47) + 0x1000,
    1 << 56,
    1 << 63,
    !0xffe,
    !0xfff,
    !0x1fff,
    u64::MAX,
];

/// The same in 32 bits.
pub(super) const ODD_NARROW_LENGTHS: &[u64] =
    &[1, 0xfff, 0x1001, 1 << 30, rest_of(NARROW), 1 << 31, 0xfffe_f000, 0xffff_e000, 0xffff_f000, 0xffff_ffff];

const HUGE: u64 = 0x20_0000;

impl Generator {
    /// An address for a call: close to an edge, mostly.
    pub(super) fn place(&mut self) -> Arg {
        let place = match self.rng.below(100) {
            0..60 => self.near_edge(),
            60..75 => Arg::At(Base::Window, self.window_delta(48)),
            75..79 => Arg::At(Base::Window, self.window_delta(WINDOW_PAGES)),
            79..91 => match self.answers.len() {
                0 => self.near_edge(),
                _ => Arg::At(Base::Answer(self.rng.pick(&self.answers)), self.signed_pages(4).max(-8192)),
            },
            91..94 => Arg::At(Base::Break, self.signed_pages(8)),
            94..96 => self.huge_boundary(),
            _ => Arg::Value(self.rng.pick(self.odd)),
        };
        match place {
            Arg::At(base, delta) if self.rng.chance(4) => Arg::At(base, delta + self.rng.pick(&[1, 0x800, 0xfff])),
            place => place,
        }
    }

    /// An address to touch: as for calls, and anywhere in the page.
    pub(super) fn touched(&mut self) -> Arg {
        match self.range().0 {
            Arg::At(base, delta) => Arg::At(base, delta + self.rng.pick(&[0, 0, 8, 0xff8, 0xfff])),
            place => place,
        }
    }

    pub(super) fn near_edge(&mut self) -> Arg {
        let edge = self.rng.pick(&self.edges);
        let shift = self.rng.weighted(&[(70, 1), (15, 0), (15, 2)]);
        let page = (edge + shift).saturating_sub(1).min(WINDOW_PAGES);
        window(page * PAGE)
    }

    pub(super) fn huge_boundary(&mut self) -> Arg {
        let delta = self.rng.below(WINDOW_PAGES * PAGE / HUGE) * HUGE;
        window(delta)
    }

    pub(super) fn window_delta(&mut self, pages: u64) -> i64 {
        i64::try_from(self.rng.below(pages) * PAGE).unwrap_or(0)
    }

    /// A range for a call on what is mapped: mostly within one that was mapped, from edge to edge.
    pub(super) fn range(&mut self) -> (Arg, u64) {
        if self.mapped.is_empty() || self.rng.chance(40) {
            let addr = self.place();
            return (addr, self.length(addr));
        }
        let (start, end) = self.rng.pick(&self.mapped);
        let pages = end - start;
        let skip = if self.rng.chance(55) { 0 } else { self.rng.below(pages.min(16)) };
        let rest = pages - skip;
        let some = 1 + self.rng.below(rest.min(8));
        let len = self.rng.weighted(&[(40, rest), (40, some), (8, rest + 1), (6, rest - 1), (6, rest + 8)]);
        let bytes = if self.rng.chance(5) { 1 + self.rng.below(PAGE - 1) } else { 0 };
        (window((start + skip) * PAGE), len * PAGE + bytes)
    }

    /// Remembers what may be shared.
    pub(super) fn note_shared(&mut self, place: Arg, len: u64) {
        self.shared.push((place, len));
        if self.shared.len() > 6 {
            self.shared.remove(0);
        }
    }

    /// Where the kernel chooses the place, which the answer of this step says.
    pub(super) fn chosen_place(&self) -> Arg {
        Arg::At(Base::Answer(self.next), 0)
    }

    /// Some pages of what may be shared, sometimes one too many.
    pub(super) fn part_of_shared(&mut self) -> (Arg, u64) {
        let (addr, len) = self.rng.pick(&self.shared);
        let pages = (len / PAGE).clamp(1, 64);
        let skip = if self.rng.chance(50) { 0 } else { self.rng.below(pages) };
        let odd = if self.rng.chance(10) { self.rng.below(PAGE) } else { 0 };
        let some = 1 + self.rng.below(pages - skip);
        let count = self.rng.weighted(&[(45, some), (40, pages - skip), (5, pages - skip + 1), (10, 1)]);
        let addr = match addr {
            Arg::At(base, delta) => Arg::At(base, delta.wrapping_add_unsigned(skip * PAGE + odd)),
            place => place,
        };
        (addr, count * PAGE + odd)
    }

    /// Where a segment may have been attached.
    pub(super) fn attached(&mut self) -> Arg {
        if self.answers.is_empty() || self.rng.chance(50) {
            return self.range().0;
        }
        Arg::At(Base::Answer(self.rng.pick(&self.answers)), 0)
    }

    /// A length for a range from `addr` on.
    pub(super) fn length(&mut self, addr: Arg) -> u64 {
        let small = (1 + self.rng.below(8)) * PAGE;
        match self.rng.below(100) {
            0..50 => small,
            50..72 => self.up_to_edge(addr).unwrap_or(small),
            72..78 => (1 + self.rng.below(64)) * PAGE,
            78..84 => (1 + self.rng.below(3)) * HUGE + self.rng.pick(&[0, 0, PAGE, HUGE - PAGE]),
            84..86 => WINDOW_PAGES * PAGE,
            86..89 => 0,
            89..94 => small - self.rng.pick(&[1, 0x800, 0xfff]),
            _ => self.rng.pick(self.odd_lengths),
        }
    }

    /// From `addr` to some later edge, or a page beside it.
    pub(super) fn up_to_edge(&mut self, addr: Arg) -> Option<u64> {
        let Arg::At(Base::Window, delta) = addr else { return None };
        let start = u64::try_from(delta).ok()? / PAGE;
        let edge = self.rng.pick(&self.edges) + self.rng.weighted(&[(70, 1), (15, 0), (15, 2)]);
        let pages = edge.checked_sub(start + 1)?;
        (pages > 0).then_some(pages * PAGE)
    }

    /// Remembers that a range may be mapped now.
    pub(super) fn note_mapped(&mut self, addr: Arg, len: u64) {
        remember(&mut self.mapped, 10, pages(addr, len));
    }

    /// Remembers that a range may hold plain pages now.
    pub(super) fn note_plain(&mut self, addr: Arg, len: u64) {
        remember(&mut self.plain, 4, pages(addr, len));
    }

    /// Remembers that nothing may be in a range any more.
    pub(super) fn note_left(&mut self, addr: Arg, len: u64) {
        let left = pages(addr, len);
        self.plain.retain(|range| Some(*range) != left);
        remember(&mut self.left, 4, left);
    }

    /// Remembers the edges of a range.
    pub(super) fn note(&mut self, addr: Arg, len: u64) {
        let Arg::At(Base::Window, delta) = addr else { return };
        let Ok(start) = u64::try_from(delta) else { return };
        for edge in [Some(start), start.checked_add(len)].into_iter().flatten() {
            if edge / PAGE <= WINDOW_PAGES {
                self.edges.push(edge.div_ceil(PAGE));
            }
        }
        if self.edges.len() > 24 {
            self.edges.drain(..self.edges.len() - 24);
        }
    }
}

/// An address in the window.
pub(super) fn window(bytes: u64) -> Arg {
    Arg::At(Base::Window, i64::try_from(bytes).unwrap_or(0))
}

/// The pages of a range in the window.
fn pages(addr: Arg, len: u64) -> Option<(u64, u64)> {
    let Arg::At(Base::Window, delta) = addr else { return None };
    let (start, end) = (u64::try_from(delta).ok()? / PAGE, addr_end(delta, len)? / PAGE);
    (start < end && end <= WINDOW_PAGES).then_some((start, end))
}

/// Adds a range to a list of so many.
fn remember(ranges: &mut Vec<(u64, u64)>, most: usize, range: Option<(u64, u64)>) {
    ranges.extend(range);
    if ranges.len() > most {
        ranges.remove(0);
    }
}

/// Where `len` bytes from `delta` on end, in whole pages.
fn addr_end(delta: i64, len: u64) -> Option<u64> {
    u64::try_from(delta).ok()?.checked_add(len)?.checked_next_multiple_of(PAGE)
}
