//! Models that differ only in how things are numbered, made equal.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Cell, Model, Object, Page, Target};

/// Numbers in the order in which they are met.
#[derive(Default)]
struct Renumbered(BTreeMap<usize, usize>);

impl Renumbered {
    fn of(&mut self, number: usize) -> usize {
        let next = self.0.len();
        *self.0.entry(number).or_insert(next)
    }
}

impl Model {
    /// This model with objects and frames numbered as they are met, stale handles and objects that nobody reaches left
    /// out: what is equal now can be told apart by nothing that is done from now on. A model like any other.
    pub(crate) fn canonical(&self) -> Self {
        let mut next = self.clone();
        let mut objects = Renumbered::default();
        for process in &mut next.processes {
            process.handles.retain(Option::is_some);
            for capability in process.handles.iter_mut().flatten() {
                if let Target::Memory(memory) = &mut capability.target {
                    memory.object = objects.of(memory.object);
                }
            }
            for page in &mut process.pages {
                if let Page::Borrowed { object, .. } = page {
                    *object = objects.of(*object);
                }
            }
        }
        let mut kept: Vec<(usize, usize)> = objects.0.into_iter().map(|(old, new)| (new, old)).collect();
        kept.sort_unstable();
        let mut frames = Renumbered::default();
        let mut number = |frame: u32| u32::try_from(frames.of(frame as usize)).unwrap_or(0);
        let mut renumber = |cell: Cell| Cell { frame: cell.frame.map(&mut number), ..cell };
        next.objects = kept
            .into_iter()
            .map(|(_, old)| Object {
                cells: self.objects[old].cells.iter().map(|cell| cell.map(&mut renumber)).collect(),
            })
            .collect();
        next.next_frame = u32::try_from(frames.0.len()).unwrap_or(u32::MAX);
        next
    }
}
