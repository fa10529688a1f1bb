//! What everybody was ever given, noted from calls alone: the model is held to it as the machine is to the model.
//!
//! Nobody has a right that whoever gave it had not, and nothing is mapped that goes beyond what its process once had.

use alloc::collections::BTreeMap;
use std::vec::Vec;

use crate::cap::Rights;
use crate::model::capability::{Call, Capability, Model, Name, Page, Step, Target};
use crate::prot::Prot;

/// Who was ever given which rights to which object.
#[derive(Default)]
pub(super) struct Ghost(BTreeMap<(usize, usize), Rights>);

fn object_of(capability: Capability) -> Option<usize> {
    match capability.target {
        Target::Memory(memory) => Some(memory.object),
        Target::Frames | Target::Space(_) => None,
    }
}

impl Ghost {
    /// Nobody has memory.
    pub(super) fn new(start: &Model) -> Self {
        let held = start.processes.iter().flat_map(|process| process.handles.iter().flatten());
        assert_eq!(held.filter_map(|capability| object_of(*capability)).count(), 0);
        Self::default()
    }

    /// Notes what handles a step has made, and that whoever made them could.
    pub(super) fn note(&mut self, before: &Model, step: &Step, after: &Model) {
        let mut call = step.call;
        let used = call.name_mut().copied().and_then(|name| match name {
            Name::Given { process, number } if process == step.by => {
                before.processes[process].handles.get(number).copied().flatten()
            }
            _ => None,
        });
        for (number, process) in after.processes.iter().enumerate() {
            let old = before.processes[number].handles.len();
            for capability in process.handles[old..].iter().flatten().copied() {
                let used = used.unwrap_or_else(|| panic!("{step:?} made a handle without one"));
                let may_have = match step.call {
                    Call::Allocate { .. } | Call::AllocateResizable { .. } => Rights::all(),
                    Call::Snapshot { .. } => used.rights | Rights::WRITE,
                    Call::Slice { .. } => used.rights - Rights::RESIZE,
                    Call::Send { .. } if !used.rights.contains(Rights::TRANSFER) => Rights::empty(),
                    _ => used.rights,
                };
                assert!(may_have.contains(capability.rights), "{step:?}: {used:?} became {capability:?}");
                assert!(number == step.by || matches!(step.call, Call::Send { .. }), "{step:?} gave {capability:?}");
                if let Some(object) = object_of(capability) {
                    *self.0.entry((number, object)).or_default() |= capability.rights;
                }
            }
        }
    }

    /// Nobody shows pages of an object in a way that no handle that he had allows.
    pub(super) fn check(&self, model: &Model) {
        for (number, process) in model.processes.iter().enumerate() {
            let mut kinds: Vec<(usize, Prot)> = Vec::new();
            for page in &process.pages {
                if let Page::Borrowed { object, prot, prot_max, .. } = page {
                    kinds.push((*object, *prot | *prot_max));
                }
            }
            for (object, prot) in kinds {
                let had = self.0.get(&(number, object)).copied().unwrap_or_default();
                let needed = [(Prot::READ, Rights::READ), (Prot::WRITE, Rights::WRITE), (Prot::EXEC, Rights::EXECUTE)];
                let needed = needed.into_iter().filter(|(of, _)| prot.contains(*of)).map(|(_, right)| right);
                let needed = needed.fold(Rights::MAP, |all, right| all | right);
                assert!(had.contains(needed), "process {number} shows object {object} as {prot}, and had {had}");
            }
        }
    }
}
