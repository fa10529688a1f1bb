//! Where runs of free frames are: a binary tree over the chunks of a zone.

use alloc::vec::Vec;

use crate::frame::FrameError;
use crate::frame::sections::{CHUNK, CHUNK_FRAMES};

const FRAMES: u32 = CHUNK_FRAMES as u32;

/// What is known of the free frames among some chunks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Run {
    /// How many are free from the first on.
    pub(super) start: u32,
    /// The length of the longest run.
    pub(super) most: u32,
    /// How many are free up to the last.
    pub(super) end: u32,
    /// One more than the order of the largest block inside a chunk that lies at a multiple of its size; 0 for none.
    pub(super) orders: u32,
}

impl Run {
    /// A chunk that is all free.
    pub(super) const WHOLE: Self = Self { start: FRAMES, most: FRAMES, end: FRAMES, orders: 10 };

    /// Two neighbours, each of `frames` frames.
    fn join(self, next: Self, frames: u32) -> Self {
        Self {
            start: if self.start == frames { frames + next.start } else { self.start },
            most: self.most.max(next.most).max(self.end + next.start),
            end: if next.end == frames { frames + self.end } else { next.end },
            orders: self.orders.max(next.orders),
        }
    }
}

/// Where a run was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Its first frame.
    At(usize),
    /// Inside this chunk.
    In(usize),
}

/// A summary of each chunk, and of each pair, and so on: node `i` has the children `2i` and `2i + 1`, node 1 is all.
#[derive(Debug)]
pub(super) struct RunTree {
    nodes: Vec<Run>,
}

impl RunTree {
    /// A tree of chunks that are all in use.
    pub(super) fn new(chunks: usize) -> Result<Self, FrameError> {
        let mut nodes = Vec::new();
        let count = chunks.next_power_of_two() * 2;
        nodes.try_reserve_exact(count).map_err(|_| FrameError::Exhausted)?;
        nodes.resize(count, Run::default());
        Ok(Self { nodes })
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// Replaces the summary of a chunk.
    pub(super) fn set(&mut self, chunk: usize, run: Run) {
        let mut node = self.leaves() + chunk;
        self.nodes[node] = run;
        let mut frames = FRAMES;
        while node > 1 {
            node /= 2;
            let joined = self.nodes[node * 2].join(self.nodes[node * 2 + 1], frames);
            if self.nodes[node] == joined {
                return;
            }
            self.nodes[node] = joined;
            frames *= 2;
        }
    }

    /// The summary of a chunk.
    pub(super) fn get(&self, chunk: usize) -> Run {
        self.nodes[self.leaves() + chunk]
    }

    /// The summary of all.
    pub(super) fn all(&self) -> Run {
        self.nodes[1]
    }

    /// The lowest run of at least `frames` frames.
    pub(super) fn find(&self, frames: usize) -> Option<Found> {
        let wanted = u32::try_from(frames).ok()?;
        if self.all().most < wanted {
            return None;
        }
        let (mut node, mut first, mut span) = (1, 0, self.leaves() * CHUNK);
        while node < self.leaves() {
            span /= 2;
            let (left, right) = (self.nodes[node * 2], self.nodes[node * 2 + 1]);
            if left.most >= wanted {
                node *= 2;
            } else if left.end + right.start >= wanted {
                return Some(Found::At(first + span - left.end as usize));
            } else {
                node = node * 2 + 1;
                first += span;
            }
        }
        Some(Found::In(node - self.leaves()))
    }

    /// The lowest chunk with a block of 2^`order` frames at a multiple of that.
    pub(super) fn find_order(&self, order: u32) -> Option<usize> {
        if self.all().orders <= order {
            return None;
        }
        let mut node = 1;
        while node < self.leaves() {
            node = if self.nodes[node * 2].orders > order { node * 2 } else { node * 2 + 1 };
        }
        Some(node - self.leaves())
    }

    /// Recomputes every summary of a pair and compares.
    pub(super) fn check_invariants(&self) {
        let (mut node, mut frames) = (self.leaves(), FRAMES);
        while node > 1 {
            for parent in node / 2..node {
                let joined = self.nodes[parent * 2].join(self.nodes[parent * 2 + 1], frames);
                assert_eq!(self.nodes[parent], joined, "node {parent}");
            }
            node /= 2;
            frames *= 2;
        }
    }
}
