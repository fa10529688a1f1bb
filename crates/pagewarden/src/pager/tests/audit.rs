//! Whether processors remember what is not true any more.

use alloc::string::String;

use super::World;
use crate::machine::{Known, KnownKind, Machine};
use crate::page_table::{EntryFlags, Mapped};
use crate::pager::SpaceTables;
use crate::prot::Prot;

/// Whether it is something in the upper half.
fn is_upper(known: &Known) -> bool {
    known.start.as_u64() >= 0xffff_8000_0000_0000
}

impl World {
    /// What a processor remembers of one of `spaces` that its tables do not say, if there is such a thing. Of a space that
    /// is not among them nothing may be remembered.
    pub(super) fn stale(&self, spaces: &[&SpaceTables<Machine>]) -> Option<String> {
        let all = (0..self.machine.processors()).flat_map(|processor| self.machine.known(processor));
        // A global page of the kernel's may have been read in a space that has ended.
        let is_of = |space: &SpaceTables<Machine>, known: &Known| {
            space.frame() == known.root || space.kernel().is_some() && is_upper(known)
        };
        let mut all = all.map(|known| (known, spaces.iter().find(|space| is_of(space, &known))));
        all.find_map(|(known, space)| match space {
            Some(space) => stale_in(space, &known),
            None => Some(alloc::format!("{known:?} of a space that has ended")),
        })
    }
}

fn stale_in(space: &SpaceTables<Machine>, known: &Known) -> Option<String> {
    let kernel = space.kernel().filter(|_| is_upper(known));
    let space = kernel.map_or(space, |kernel| &**kernel);
    let KnownKind::Page { rights, is_dirty, .. } = known.kind else {
        let is_free = space.pager().frames().references(known.frame) == 0;
        return is_free.then(|| alloc::format!("{known:?}, a table that is free"));
    };
    let mapped = space.with_root(|root| space.tables().query(root, known.start))?;
    let is_true = match mapped {
        Mapped::Leaf { entry, .. } => {
            let may_store = mapped.allows_store() || !rights.contains(Prot::WRITE);
            let knows_stores = !is_dirty || entry.contains(EntryFlags::DIRTY);
            entry.is_present() && entry.frame() == known.frame && may_store && knows_stores
        }
        Mapped::Nothing(_) => false,
    };
    (!is_true).then(|| alloc::format!("{known:?} and the tables say {mapped:?}"))
}
