//! remap_file_pages, and what seals do to mappings: the new region, what is refused, and what stays of the old one.

use std::vec::Vec;

use super::witness::{Witness, at, check_watched, map_file, memfd, watched};
use super::{BASE, READ, RW, config, fixed, mmap, mprotect, munmap};
use crate::addr::{PAGE_SIZE, PageRange};
use crate::error::Errno;
use crate::ledger::{Limits, ResourceLedger};
use crate::linux::{FileTraits, MapFlags, OpenFile, RemapPagesRequest, Request};
use crate::manager::{Cause, PageManager, Refusal, WxPolicy};
use crate::prot::Prot;
use crate::region::RegionFlags;

fn remap(page: u64, pages: u64, page_offset: u64) -> RemapPagesRequest {
    let (addr, len) = (BASE + page * PAGE_SIZE, pages * PAGE_SIZE);
    RemapPagesRequest { addr, len, prot: 0, page_offset, flags: MapFlags::empty() }
}

fn mlock(page: u64, pages: u64, flags: u64) -> Request {
    Request::Mlock { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, flags }
}

fn refused<T>(errno: Errno) -> Result<T, Refusal> {
    Err(errno.into())
}

/// The page of the file that each page of the space shows.
fn offsets(manager: &PageManager<Witness>, pages: core::ops::Range<u64>) -> Vec<u64> {
    let offset = |page| manager.map().get(at(page)).map(|entry| entry.region.page_offset(at(page)));
    pages.map(|page| offset(page).unwrap()).collect()
}

fn flags_at(manager: &PageManager<Witness>, page: u64) -> RegionFlags {
    manager.map().get(at(page)).unwrap().region.flags
}

#[test]
fn pages_show_other_pages_and_merge_again() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&map_file(1, 4, RW, (&memfd(1), 0))).unwrap();
    // Both ends are rounded down.
    let mut odd = remap(2, 2, 7);
    (odd.addr, odd.len) = (odd.addr + 0x800, odd.len + 0xfff);
    assert_eq!(manager.call(&Request::RemapPages(odd)), Ok(0));
    assert_eq!(offsets(&manager, 1..5), [0, 7, 8, 3]);
    assert_eq!(manager.map().len(), 3);
    check_watched(&manager);
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 4, 0))), Ok(0), "over pieces of one file");
    assert_eq!(offsets(&manager, 1..5), [0, 1, 2, 3]);
    assert_eq!(manager.map().len(), 1);
    check_watched(&manager);
}

#[test]
fn only_shared_maps_of_files_open_for_writing_are_remapped() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    let mut read_only = memfd(1);
    read_only.traits -= FileTraits::WRITABLE;
    manager.call(&map_file(1, 1, READ, (&read_only, 0))).unwrap();
    manager.call(&fixed(2, 1, RW)).unwrap();
    manager.call(&map_file(4, 2, RW, (&memfd(2), 0))).unwrap();
    manager.call(&map_file(6, 1, RW, (&memfd(3), 2))).unwrap();
    manager.call(&map_file(7, 1, READ, (&memfd(3), 0))).unwrap();
    let last = u64::MAX / PAGE_SIZE;
    for (call, why) in [
        (remap(1, 1, 0), "read-only file"),
        (remap(2, 1, 0), "private"),
        (remap(3, 1, 0), "nothing"),
        (remap(5, 2, 0), "two files"),
        (remap(6, 2, 0), "two rights"),
        (remap(7, 2, 0), "a hole"),
        (remap(4, 0, 0), "no page"),
        (RemapPagesRequest { len: 0xfff, ..remap(4, 1, 0) }, "less than a page"),
        (RemapPagesRequest { prot: 1, ..remap(4, 1, 0) }, "rights"),
        (remap(4, 2, u64::MAX - 1), "the offset wraps"),
        (RemapPagesRequest { addr: u64::MAX, len: u64::MAX, ..remap(4, 1, 0) }, "the range wraps"),
        (remap(4, last - 400, 0), "longer than the space"),
    ] {
        assert_eq!(manager.call(&Request::RemapPages(call)), refused(Errno::Inval), "{why}");
    }
    assert_eq!(manager.call(&Request::RemapPages(remap(4, 2, (1 << 51) - 2))), refused(Errno::Overflow));
    assert_eq!(manager.call(&Request::RemapPages(remap(4, 2, (1 << 51) - 3))), Ok(0));
    check_watched(&manager);
}

#[test]
fn shared_anonymous_memory_keeps_its_object_and_its_charge() {
    let (ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&mmap(1, 4, RW, MapFlags::SHARED | MapFlags::FIXED | MapFlags::NO_RESERVE)).unwrap();
    let used = ledger.root().used(crate::ledger::Resource::Committed);
    manager.call(&Request::RemapPages(remap(1, 1, 3))).unwrap();
    assert_eq!(offsets(&manager, 1..5), [3, 1, 2, 3]);
    assert_eq!(ledger.root().used(crate::ledger::Resource::Committed), used);
    assert!(!flags_at(&manager, 1).contains(RegionFlags::NO_RESERVE), "the new mapping was not asked for so");
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 2, 0))), refused(Errno::Inval), "they differ now");
    manager.call(&munmap(1, 4)).unwrap();
    assert_eq!(ledger.root().used(crate::ledger::Resource::Committed), 0);
    check_watched(&manager);
}

#[test]
fn a_lock_stays_and_counts_twice_for_the_limit() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&map_file(1, 4, RW, (&memfd(1), 0))).unwrap();
    manager.call(&mlock(1, 4, 1)).unwrap();
    manager.call(&Request::RemapPages(remap(1, 2, 5))).unwrap();
    assert_eq!(flags_at(&manager, 1), RegionFlags::SHARED | RegionFlags::LOCKED, "not on fault any more");
    assert_eq!(manager.totals().locked_pages, 4);
    let mut limits = manager.config().limits.clone();
    limits.locked = 5 * PAGE_SIZE;
    manager.set_limits(limits.clone());
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 2, 6))), refused(Errno::Again));
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 1, 6))), Ok(0));
    limits.locked = 0;
    manager.set_limits(limits);
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 1, 7))), refused(Errno::Perm));
    check_watched(&manager);
}

#[test]
fn writable_code_is_not_remapped_under_deny() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut allowing = PageManager::new(config(&ledger), Witness::default());
    let all = map_file(1, 2, 7, (&memfd(1), 0));
    allowing.call(&all).unwrap();
    assert_eq!(allowing.call(&Request::RemapPages(remap(1, 1, 4))), Ok(0));
    let mut denying = config(&ledger);
    denying.policy.wx = WxPolicy::Deny;
    let mut denying = PageManager::new(denying, Witness::default());
    let range = PageRange::new(at(1), at(3)).unwrap();
    let region = allowing.map().get(at(2)).unwrap().region.clone();
    denying.import(range, region).unwrap();
    let denied = Err(Refusal { errno: Errno::Acces, cause: Cause::WxPolicy });
    assert_eq!(denying.call(&Request::RemapPages(remap(1, 1, 4))), denied);
}

#[test]
fn a_platform_that_has_lost_the_pages_leaves_a_hole() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&map_file(1, 4, RW, (&memfd(1), 0))).unwrap();
    manager.provider_mut().fail_after = Some(0);
    let failed = Refusal { errno: Errno::Io, cause: Cause::Platform };
    assert_eq!(manager.call(&Request::RemapPages(remap(2, 1, 9))), Err(failed));
    assert_eq!(offsets(&manager, 1..5), [0, 1, 2, 3], "this one has kept them");
    check_watched(&manager);
}

/// A memfd that is sealed against writing.
fn sealed(inode: u64) -> OpenFile {
    let mut file = memfd(inode);
    file.traits |= FileTraits::WRITE_SEALED;
    file
}

#[test]
fn sealed_files_are_mapped_read_only_for_good() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    let refused_write = manager.call(&map_file(1, 2, RW, (&sealed(1), 0)));
    assert_eq!(refused_write, refused(Errno::Perm));
    manager.call(&map_file(1, 2, READ, (&sealed(1), 0))).unwrap();
    assert_eq!(manager.call(&mprotect(1, 2, RW)), refused(Errno::Acces));
    // Private pages are the guest's own, and a file that is not open for writing loses nothing by the seal.
    let Request::Mmap(mut private) = map_file(4, 1, RW, (&sealed(1), 0)) else { unreachable!() };
    private.flags = MapFlags::PRIVATE | MapFlags::FIXED;
    manager.call(&Request::Mmap(private)).unwrap();
    let mut read_only = sealed(2);
    read_only.traits -= FileTraits::WRITABLE;
    manager.call(&map_file(6, 1, READ, (&read_only, 0))).unwrap();
    assert!(!flags_at(&manager, 6).contains(RegionFlags::WRITE_SEALED));
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 1, 1))), Ok(0), "it is open for writing all the same");
    assert_eq!(manager.call(&Request::RemapPages(remap(6, 1, 1))), refused(Errno::Inval));
    check_watched(&manager);
}

#[test]
fn a_seal_that_came_later_counts_when_pages_are_remapped() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&map_file(1, 2, RW, (&memfd(1), 0))).unwrap();
    manager.call(&map_file(4, 2, READ, (&memfd(2), 0))).unwrap();
    manager.provider_mut().is_write_sealed = true;
    assert_eq!(manager.call(&Request::RemapPages(remap(1, 1, 1))), refused(Errno::Perm));
    manager.call(&Request::RemapPages(remap(4, 1, 1))).unwrap();
    let sealed = manager.map().get(at(4)).unwrap().region;
    assert_eq!(sealed.prot_max, Prot::READ | Prot::EXEC);
    assert_eq!(manager.call(&mprotect(4, 1, RW)), refused(Errno::Acces));
    manager.call(&mprotect(5, 1, RW)).unwrap();
    check_watched(&manager);
}
