//! The model of a platform, with what it lacks: files that are synced and sealed, residency, memory to store answers
//! in, and a failure on command.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::{BASE, config};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, ResourceLedger};
use crate::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, Request};
use crate::manager::PageManager;
use crate::model::Platform;
use crate::object::{FileId, MemoryObject, ObjectKind};
use crate::provider::{Maps, Op, PageManagementProvider};
use crate::vmmap::Vmmap;

/// A platform that takes note of what it is asked.
#[derive(Default, Debug, Clone)]
pub(super) struct Witness {
    pub(super) inner: Platform,
    /// How many operations may still succeed; the one after them fails, those after it do not.
    pub(super) fail_after: Option<usize>,
    pub(super) runs: usize,
    pub(super) synced: Vec<PageRange>,
    /// Bytes by address.
    pub(super) stored: BTreeMap<u64, u8>,
    /// The first address that cannot be stored to.
    pub(super) unwritable: Option<u64>,
    /// Whether objects are sealed against writing.
    pub(super) is_write_sealed: bool,
    /// Whether the guest may know what is resident of files.
    pub(super) hides_files: bool,
}

impl PageManagementProvider for Witness {
    fn run(&mut self, op: &Op, maps: Maps<'_>) -> Result<(), Errno> {
        self.runs += 1;
        match &mut self.fail_after {
            Some(0) => {
                self.fail_after = None;
                return Err(Errno::Io);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if let Op::Sync { range, .. } = op {
            self.synced.push(*range);
        }
        self.inner.run(op, maps)
    }

    fn is_write_sealed(&self, _range: PageRange, _map: &Vmmap) -> bool {
        self.is_write_sealed
    }

    /// Pages with an even number are resident.
    fn residency(&mut self, range: PageRange, _map: &Vmmap, each: &mut dyn FnMut(bool)) {
        assert!(range.pages().get() <= 512, "too much at once");
        (range.first_page()..range.end_page()).for_each(|page| each(page % 2 == 0));
    }

    fn may_know(&self, _object: &MemoryObject) -> bool {
        !self.hides_files
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], _map: &Vmmap) -> Result<(), Errno> {
        for (at, byte) in (addr.as_u64()..).zip(bytes) {
            if self.unwritable.is_some_and(|first| at >= first) {
                return Err(Errno::Fault);
            }
            self.stored.insert(at, *byte);
        }
        Ok(())
    }
}

/// A manager over such a platform.
pub(super) fn watched(limits: Limits) -> (ResourceLedger, PageManager<Witness>) {
    let ledger = ResourceLedger::new(limits);
    let manager = PageManager::new(config(&ledger), Witness::default());
    (ledger, manager)
}

/// Checks that manager and platform agree.
pub(super) fn check_watched(manager: &PageManager<Witness>) {
    manager.check_invariants();
    manager.provider().inner.check(manager.map());
}

/// A shared mapping of a file, from its page `offset` on.
pub(super) fn map_file(page: u64, pages: u64, prot: u64, (file, offset): (&OpenFile, u64)) -> Request {
    Request::Mmap(MmapRequest {
        addr: BASE + page * PAGE_SIZE,
        len: pages * PAGE_SIZE,
        prot,
        flags: MapFlags::SHARED | MapFlags::FIXED,
        source: MapSource::File(file.clone()),
        offset: offset * PAGE_SIZE,
    })
}

/// A memfd that is open for both.
pub(super) fn memfd(inode: u64) -> OpenFile {
    let object = MemoryObject::new(ObjectKind::Memfd(FileId { device: 1, inode }), "/memfd:a (deleted)");
    OpenFile { object, traits: FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR }
}

/// Where `page` is.
pub(super) fn at(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE_SIZE)
}
