//! Loads, stores and fetches of a guest.

use alloc::vec;

use super::{Answer, Denial, Model, Page, Value};
use crate::manager::Signal;
use crate::prot::Prot;

/// What a guest does with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Load,
    Store(u8),
    Fetch,
}

impl Model {
    /// Whether an access is allowed, and the byte that is there now.
    pub(crate) fn may_touch(&self, by: usize, page: u64, access: Access) -> Result<u8, Signal> {
        let now = self.page(by, page);
        let prot = now.prot();
        let is_there = match access {
            Access::Store(_) => prot.contains(Prot::WRITE),
            // A page that can be used in any way can be loaded from.
            Access::Load | Access::Fetch => prot != Prot::NONE,
        };
        if !is_there {
            return Err(Signal::Segv);
        }
        let byte = match now {
            Page::Borrowed { object, index, .. } => {
                let cells = &self.objects[object].cells;
                cells.get(super::index(index)).copied().flatten().ok_or(Signal::Bus)?.byte
            }
            Page::Committed { byte, .. } | Page::Linux { byte, .. } => byte.unwrap_or(0),
            Page::Fixed { byte, .. } => byte,
            Page::Free | Page::Reserved { .. } => 0,
        };
        if access == Access::Fetch && !prot.contains(Prot::EXEC) { Err(Signal::Segv) } else { Ok(byte) }
    }

    /// Whether a load takes no frame from the pool.
    pub(crate) fn has_frame(&self, by: usize, page: u64) -> bool {
        match self.page(by, page) {
            Page::Borrowed { object, index, .. } => {
                let cell = self.objects[object].cells.get(super::index(index)).copied().flatten();
                cell.is_none_or(|cell| cell.frame.is_some())
            }
            _ => true,
        }
    }

    pub(super) fn touch(&self, by: usize, page: u64, access: Access) -> (Self, Answer) {
        let byte = match self.may_touch(by, page, access) {
            Ok(byte) => byte,
            Err(signal) => return self.refuse(vec![Denial::Signal(signal)]),
        };
        let now = self.page(by, page);
        if let Page::Borrowed { object, index, .. } = now {
            let touched = match access {
                Access::Store(new) => self.with_stored(object, index, new),
                Access::Load | Access::Fetch => self.with_loaded(object, index),
            };
            let Some(next) = touched else { return self.refuse(vec![Denial::NoFrame]) };
            return (next, Ok(told(access, byte)));
        }
        let mut next = self.clone();
        if let (Access::Store(new), stored) = (access, next.page_mut(by, page)) {
            match stored {
                Page::Committed { byte, .. } | Page::Linux { byte, .. } => *byte = Some(new),
                Page::Fixed { byte, .. } => *byte = new,
                Page::Free | Page::Reserved { .. } | Page::Borrowed { .. } => {}
            }
        }
        (next, Ok(told(access, byte)))
    }
}

/// What a guest hears of an access to a page that held `byte`.
fn told(access: Access, byte: u8) -> Value {
    match access {
        Access::Load | Access::Fetch => Value::Bytes(vec![byte]),
        Access::Store(_) => Value::Nothing,
    }
}
