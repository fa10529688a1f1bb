//! Places of a step: mostly the edges of what is mapped and the pages beside them.

use super::range;
use crate::addr::PageRange;

/// A page near an edge of some region, or anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Any(u16),
    Edge { index: u16, offset: i64 },
}

/// How many indices [`Place`]s are told apart by.
const INDICES: u64 = u16::MAX as u64 / 15 + 1;

/// A neighbour of an edge: on it, above it, below it.
fn offset(word: u16) -> i64 {
    [0, 1, -1][usize::from(word % 3)]
}

impl Place {
    /// One in five is anywhere.
    fn decode(word: u16) -> Self {
        let index = word / 15;
        if word.is_multiple_of(5) { Self::Any(index) } else { Self::Edge { index, offset: offset(word) } }
    }

    fn resolve(self, edges: &[u64]) -> u64 {
        let size = edges[edges.len() - 1];
        match self {
            Self::Any(index) => u64::from(index) * (size + 1) / INDICES,
            Self::Edge { index, offset } => {
                let edge = u64::from(index) * edges.len() as u64 / INDICES;
                let edge = usize::try_from(edge).map_or(size, |edge| edges[edge]);
                edge.saturating_add_signed(offset).min(size)
            }
        }
    }
}

/// Where a span ends that starts at a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Far {
    /// So many edges further up.
    Edges {
        count: u16,
        offset: i64,
    },
    Place(Place),
}

/// Two places, in any order; equal ones stand for one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    from: Place,
    to: Far,
}

impl Span {
    /// Half of them reach over few edges, so that a great map does not become a small one at once.
    pub(super) fn decode(bytes: [u8; 4]) -> Self {
        let [from, to] = words(bytes);
        let near = to / 2;
        let to = if to % 2 == 0 {
            Far::Edges { count: near / 3 % 8, offset: offset(near) }
        } else {
            Far::Place(Place::decode(to))
        };
        Self { from: Place::decode(from), to }
    }

    /// One that may well reach over most of the space.
    pub(super) fn decode_far(bytes: [u8; 4]) -> Self {
        let [from, to] = words(bytes);
        Self { from: Place::decode(from), to: Far::Place(Place::decode(to)) }
    }

    /// The pages, in a space with these edges.
    pub(super) fn resolve(self, edges: &[u64]) -> PageRange {
        let size = edges[edges.len() - 1];
        let from = self.from.resolve(edges);
        let to = match self.to {
            Far::Place(place) => place.resolve(edges),
            Far::Edges { count, offset } => {
                let edge = edges.partition_point(|&edge| edge <= from) + usize::from(count);
                let to = if count == 0 { from } else { edges[(edge - 1).min(edges.len() - 1)] };
                to.saturating_add_signed(offset).min(size)
            }
        };
        let first = from.min(to).min(size - 1);
        range(first, from.max(to).max(first + 1))
    }
}

fn words([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}
