//! What processors know, to be looked at: a frame that is free must not be among it.

use alloc::vec::Vec;

use super::Machine;
use crate::addr::VirtAddr;
use crate::frame::FrameNumber;
use crate::page_table::Level;
use crate::prot::Prot;

/// Something that a processor remembers of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The root table of the space that it was read from.
    pub root: FrameNumber,
    /// The first byte of the pages it is for.
    pub start: VirtAddr,
    /// The level of the entry that was read: it is for as many pages as such an entry spans.
    pub level: Level,
    /// The frame that the entry leads to; the first one of a large page.
    pub frame: FrameNumber,
    /// What is there.
    pub kind: KnownKind,
}

/// What an entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KnownKind {
    /// Memory: a translation.
    Page {
        /// What user code may do with it, on all levels together.
        rights: Prot,
        /// Whether the leaf was dirty.
        is_dirty: bool,
        /// Whether it outlives a change of the root.
        is_global: bool,
    },
    /// A table.
    Table,
}

impl Known {
    /// Whether `frame` is used: whether it is part of the page, or the table.
    pub const fn uses(&self, frame: FrameNumber) -> bool {
        let frames = match self.kind {
            KnownKind::Page { .. } => self.level.pages(),
            KnownKind::Table => 1,
        };
        self.frame.get() <= frame.get() && frame.get() - self.frame.get() < frames
    }
}

impl Machine {
    /// What a processor remembers at this moment, pages and tables.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn known(&self, processor: usize) -> impl Iterator<Item = Known> + use<> {
        let processor = self.lock(processor);
        let start = |page| VirtAddr::from_page_number(page).unwrap_or_default();
        let pages = processor.pages.iter().map(|(level, page, known)| Known {
            root: known.root,
            start: start(page),
            level,
            frame: known.frame,
            kind: KnownKind::Page { rights: known.rights, is_dirty: known.is_dirty, is_global: known.is_global },
        });
        let tables = processor.tables.iter().filter_map(|(level, page, table)| {
            // Only of the space whose root is loaded are tables remembered.
            let root = processor.root?;
            Some(Known { root, start: start(page), level, frame: table.frame, kind: KnownKind::Table })
        });
        pages.chain(tables).collect::<Vec<_>>().into_iter()
    }

    /// The first processor that remembers `frame` as a page or a table, or runs in the space whose root it is; a frame
    /// that is free must have none.
    pub fn who_knows(&self, frame: FrameNumber) -> Option<usize> {
        (0..self.processors()).find(|&processor| {
            self.active(processor) == Some(frame) || self.known(processor).any(|known| known.uses(frame))
        })
    }
}
