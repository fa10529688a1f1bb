//! Steps: what to do and what to ask, from any twelve bytes; and the edits that a step comes to in a space.

use alloc::vec::Vec;

use super::pages::PageArray;
use super::place::Span;
use super::range;
use crate::addr::PageRange;
use crate::error::Errno;
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};
use crate::vmmap::Vmmap;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Maps the first free run of pages.
    Insert(u8),
    Remove,
    Replace(u8),
    Protect(Prot),
    /// Changes each region by what it is.
    ToggleStack,
    /// Changes each region by where its part lies.
    Stripe,
    /// Many small regions at once: every so many pages, or neighbours that are not equal.
    Fill {
        kind: u8,
        step: u8,
        order: Order,
    },
    /// Leaves one page in so many.
    Thin {
        keep: u8,
        order: Order,
    },
    Snapshot,
    Restore(u8),
}

/// In which order the many edits of one step come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

impl Order {
    fn decode(detail: u8) -> Self {
        if detail < 128 { Self::Ascending } else { Self::Descending }
    }
}

impl Operation {
    fn decode(kind: u8, detail: u8) -> Self {
        match kind % 24 {
            0..5 => Self::Insert(detail),
            5..9 => Self::Remove,
            9..13 => Self::Replace(detail),
            13..16 => Self::Protect(Prot::from_bits_truncate(detail)),
            16 => Self::ToggleStack,
            17 => Self::Stripe,
            18 | 19 => Self::fill(detail),
            20 | 21 => Self::thin(detail),
            22 => Self::Snapshot,
            _ => Self::Restore(detail),
        }
    }

    fn fill(detail: u8) -> Self {
        Self::Fill { kind: detail % 6, step: detail / 6 % 4 + 1, order: Order::decode(detail) }
    }

    fn thin(detail: u8) -> Self {
        Self::Thin { keep: detail % 30 + 2, order: Order::decode(detail) }
    }
}

/// Questions that a step asks of both sides after its edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) window: Span,
    /// Pages of the gap.
    pub(super) pages: u64,
    pub(super) align_pages: u64,
    pub(super) align_offset: u64,
    /// A bit for each region: whether it is taken from the back.
    pub(super) turns: u64,
}

impl Probe {
    fn decode(bytes: [u8; Step::BYTES]) -> Self {
        let [_, _, _, _, _, _, w0, w1, w2, w3, gap, offset] = bytes;
        let turns = u64::from_le_bytes([w0, w1, w2, w3, gap, offset, bytes[0], bytes[1]]);
        Self {
            window: Span::decode_far([w0, w1, w2, w3]),
            pages: u64::from(gap % 9),
            align_pages: 1 << (gap / 9 % 5),
            align_offset: u64::from(offset),
            turns,
        }
    }
}

/// One operation, and questions for afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub(super) operation: Operation,
    at: Span,
    pub(super) probe: Probe,
}

impl Step {
    /// How many bytes a step is decoded from.
    pub const BYTES: usize = 12;

    /// The step that `bytes` stand for. All bytes stand for one, and lesser ones for plainer ones.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let [kind, detail, a, b, c, d, ..] = bytes;
        Self { operation: Operation::decode(kind, detail), at: Span::decode([a, b, c, d]), probe: Probe::decode(bytes) }
    }

    /// One that fills or thins out a range that may well be most of the space, so that the tree grows and shrinks.
    pub fn decode_sweep(bytes: [u8; Self::BYTES]) -> Self {
        let [kind, detail, a, b, c, d, ..] = bytes;
        let operation = match kind % 8 {
            0..3 => Operation::fill(detail),
            3..6 => Operation::thin(detail),
            6 => Operation::Remove,
            _ => Operation::Snapshot,
        };
        Self { operation, at: Span::decode_far([a, b, c, d]), probe: Probe::decode(bytes) }
    }

    /// What the step changes in a space that looks like `pages`, with regions from `palette`.
    pub fn edits(&self, pages: &PageArray, palette: &[Region]) -> Vec<Edit> {
        let at = self.at.resolve(&pages.edges());
        let region = |kind: u64| palette[usize::try_from(kind).map_or(0, |kind| kind % palette.len())].clone();
        let edit = |action| Vec::from([Edit { range: at, action }]);
        match self.operation {
            Operation::Insert(kind) => {
                let Some(range) = first_free(pages, at) else { return Vec::new() };
                Vec::from([Edit { range, action: Action::Insert(region(kind.into())) }])
            }
            Operation::Remove => edit(Action::Remove),
            Operation::Replace(kind) => edit(Action::Replace(region(kind.into()))),
            Operation::Protect(prot) => edit(Action::Protect(prot)),
            Operation::ToggleStack => edit(Action::ToggleStack),
            Operation::Stripe => edit(Action::Stripe),
            Operation::Fill { kind, step, order } => {
                fill(pages, at, step, order, |page| region(u64::from(kind) + if step == 1 { page } else { 0 }))
            }
            Operation::Thin { keep, order } => {
                let gone = (at.first_page()..at.end_page()).filter(|page| page % u64::from(keep) != 0);
                let edits = gone.map(|page| Edit { range: range(page, page + 1), action: Action::Remove });
                ordered(edits.collect(), order)
            }
            Operation::Snapshot | Operation::Restore(_) => Vec::new(),
        }
    }
}

fn first_free(pages: &PageArray, at: PageRange) -> Option<PageRange> {
    let is_free = |&page: &u64| pages.is_free(range(page, page + 1));
    let first = (at.first_page()..at.end_page()).find(is_free)?;
    let end = (first..at.end_page()).find(|page| !is_free(page));
    Some(range(first, end.unwrap_or(at.end_page())))
}

/// Maps one page in `step`.
fn fill(pages: &PageArray, at: PageRange, step: u8, order: Order, region: impl Fn(u64) -> Region) -> Vec<Edit> {
    let chosen = (at.first_page()..at.end_page()).step_by(usize::from(step));
    let edits = chosen.map(|page| {
        let range = range(page, page + 1);
        let action = if pages.is_free(range) { Action::Insert } else { Action::Replace };
        Edit { range, action: action(region(page)) }
    });
    ordered(edits.collect(), order)
}

fn ordered(mut edits: Vec<Edit>, order: Order) -> Vec<Edit> {
    if order == Order::Descending {
        edits.reverse();
    }
    edits
}

/// One call of a map.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Where.
    pub range: PageRange,
    /// What.
    pub action: Action,
}

/// Which call of a map, and with what.
#[derive(Clone, Debug)]
pub enum Action {
    /// [`Vmmap::insert`]; only where nothing is mapped.
    Insert(Region),
    /// [`Vmmap::remove`].
    Remove,
    /// [`Vmmap::replace`].
    Replace(Region),
    /// [`Vmmap::update`] of the rights: all regions are given the same.
    Protect(Prot),
    /// [`Vmmap::update`] by what a region is: [`RegionFlags::GROWS_DOWN`] is set or cleared.
    ToggleStack,
    /// [`Vmmap::update`] by where a part begins: [`RegionFlags::LOCKED`] on even pages.
    Stripe,
}

impl Edit {
    /// Makes the call. `seen` is told which parts an update is given; it should not allocate where memory is short.
    ///
    /// # Errors
    /// That of the call.
    pub fn apply(&self, map: &mut Vmmap, mut seen: impl FnMut(PageRange)) -> Result<(), Errno> {
        match &self.action {
            Action::Insert(region) => map.insert(self.range, region.clone()),
            Action::Remove => map.remove(self.range),
            Action::Replace(region) => map.replace(self.range, region.clone()),
            update => map.update(self.range, |part, region| {
                seen(part);
                update.change(part, region);
            }),
        }
    }

    /// Does to the array what the call does to a map.
    pub fn apply_to_pages(&self, pages: &mut PageArray, mut seen: impl FnMut(PageRange)) {
        match &self.action {
            Action::Insert(region) | Action::Replace(region) => pages.replace(self.range, Some(region.clone())),
            Action::Remove => pages.replace(self.range, None),
            update => pages.update(self.range, |part, region| {
                seen(part);
                update.change(part, region);
            }),
        }
    }
}

impl Action {
    /// What an update does to a region.
    fn change(&self, part: PageRange, region: &mut Region) {
        match self {
            Self::Protect(prot) => region.prot = *prot,
            Self::ToggleStack => region.flags.toggle(RegionFlags::GROWS_DOWN),
            Self::Stripe => region.flags.set(RegionFlags::LOCKED, part.first_page().is_multiple_of(2)),
            Self::Insert(_) | Self::Remove | Self::Replace(_) => {}
        }
    }
}
