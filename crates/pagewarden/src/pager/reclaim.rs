//! When frames run out: what nobody would miss is given back, and the fault is tried again.
//!
//! First pages that guests have given up (`MADV_FREE`, `MAP_DROPPABLE`), then pages of files that are clean, then whoever
//! was named when the pager was made. A fault that finds nothing free asks once after the other until a frame is there or nobody has
//! any; it holds no lock meanwhile but that of its own manager, for reading.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;

use arrayvec::ArrayVec;

use super::leaf;
use super::{Pager, SpaceTables};
use crate::addr::{PageCount, PageRange};
use crate::error::Errno;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, Mapped};

/// Frames that are asked for at once.
const WANTED: u64 = 32;
/// A shortage of frames, and not a limit of an account, as long as fewer are free.
pub(super) const FEW: u64 = 8;
/// Pages given up that are looked at under one hold of the lock of the tables.
const BATCH: usize = 64;
/// The pages that user code can have.
const USER_PAGES: u64 = 1 << 35;

/// Somebody who can give frames back.
pub trait Reclaim: Send + Sync + Debug {
    /// Gives back about `frames` frames of those that it has from the pager; how many.
    fn reclaim(&self, frames: u64) -> u64;
}

impl<M: PhysMem + Mmu> Pager<M> {
    /// Does `work`; if that fails for want of frames and some are given back, once more.
    pub(crate) fn reclaiming<T>(&self, mut work: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            match work() {
                Err(Errno::NoMem) if self.reclaim_some() => {}
                outcome => return outcome,
            }
        }
    }

    /// Frees frames if there are few. Whether any were.
    pub(super) fn reclaim_some(&self) -> bool {
        if self.frames.available() >= FEW {
            return false;
        }
        self.reclaim(WANTED) > 0
    }

    /// Gives back about `wanted` frames that nobody would miss; how many. Whoever calls holds no lock of tables or
    /// objects.
    pub fn reclaim(&self, wanted: u64) -> u64 {
        let mut freed = 0;
        for space in self.alive(&self.spaces) {
            if freed >= wanted {
                return freed;
            }
            freed += space.drop_some(wanted - freed);
        }
        for file in self.alive(&self.files) {
            if freed >= wanted {
                return freed;
            }
            freed += file.drop_clean(wanted - freed);
        }
        match &self.reclaimer {
            Some(reclaimer) if freed < wanted => freed + reclaimer.reclaim(wanted - freed),
            _ => freed,
        }
    }

    /// Those of a list that are still there. Without memory for all of them, some.
    fn alive<T>(&self, list: &crate::sync::Mutex<Vec<alloc::sync::Weak<T>>>) -> Vec<Arc<T>> {
        let list = list.lock();
        let mut alive = Vec::new();
        if alive.try_reserve_exact(list.len()).is_ok() {
            alive.extend(list.iter().filter_map(alloc::sync::Weak::upgrade));
        }
        alive
    }

    /// Remembers a space, to look for frames there.
    pub(super) fn note_space(&self, tables: &Arc<SpaceTables<M>>) -> Result<(), Errno> {
        let mut spaces = self.spaces.lock();
        if spaces.len() == spaces.capacity() {
            spaces.retain(|space| space.strong_count() > 0);
            spaces.try_reserve(1).map_err(|_| Errno::NoMem)?;
        }
        spaces.push(Arc::downgrade(tables));
        Ok(())
    }
}

impl<M: PhysMem + Mmu> SpaceTables<M> {
    /// Drops pages that were given up and not stored to since, and those of droppable memory; at most `wanted`. How many.
    /// Those in tables that are shared stay.
    fn drop_some(&self, wanted: u64) -> u64 {
        if !self.may_have_droppable() {
            return 0;
        }
        let mut dropped = 0;
        let mut next = 0;
        while let Some(range) = PageRange::from_pages(next, PageCount::new(USER_PAGES - next)) {
            let mut found: ArrayVec<PageRange, BATCH> = ArrayVec::new();
            let ended = self.with_root_mut(|root, gather| {
                self.tables().entries(root, range, &mut |span, entry, _| {
                    if leaf::is_droppable(entry) && self.is_own(entry) {
                        let _ = found.try_push(span);
                    }
                });
                for page in &found {
                    let exclusive =
                        matches!(self.tables().query(root, page.start()), Mapped::Leaf { above_writable: true, .. });
                    if exclusive && dropped < wanted {
                        self.tables().edit(root, *page, gather, &mut |_, entry, _| {
                            if !leaf::is_droppable(entry) {
                                return entry;
                            }
                            dropped += 1;
                            Entry::EMPTY
                        });
                    }
                }
            });
            let last = found.last().filter(|_| found.is_full() && dropped < wanted);
            let (Some(()), Some(last)) = (ended, last) else { break };
            next = last.end_page();
        }
        dropped
    }
}
