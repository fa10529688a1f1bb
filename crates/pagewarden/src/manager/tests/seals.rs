//! Sealed regions: what they forbid, what they allow, and who notices how late.

use super::{BASE, READ, RW, check, fixed, manager, mmap, mprotect, mremap, munmap};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Limits;
use crate::linux::{MapFlags, RemapFlags, Request, Segment};
use crate::manager::Refusal;
use crate::object::{FileId, MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::region::{Backing, Region, RegionFlags};

const DONT_NEED: i32 = 4;

fn mseal(page: u64, pages: u64) -> Request {
    Request::Mseal { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, flags: 0 }
}

fn madvise(page: u64, pages: u64, advice: i32) -> Request {
    Request::Madvise { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, advice }
}

fn refused<T>(errno: Errno) -> Result<T, Refusal> {
    Err(errno.into())
}

fn at(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE_SIZE)
}

#[test]
fn bad_words_and_holes_seal_nothing() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 2, RW)).unwrap();
    manager.call(&fixed(4, 2, RW)).unwrap();
    for (addr, len, flags) in [
        (BASE + PAGE_SIZE, PAGE_SIZE, 1),
        (BASE + PAGE_SIZE, 0, 1 << 40),
        (BASE + 1, 0, 0),
        (BASE + PAGE_SIZE, u64::MAX, 0),
        (BASE, PAGE_SIZE.wrapping_neg(), 0),
        (PAGE_SIZE.wrapping_neg(), PAGE_SIZE, 0),
    ] {
        assert_eq!(manager.call(&Request::Mseal { addr, len, flags }), refused(Errno::Inval), "{addr:#x} {len:#x}");
    }
    for (page, pages) in [(0, 2), (1, 3), (1, 4), (3, 1), (4, 3), (4, 1 << 40)] {
        assert_eq!(manager.call(&mseal(page, pages)), refused(Errno::NoMem), "{page} {pages}");
    }
    manager.call(&mseal(3, 0)).unwrap();
    assert!(manager.map().iter().all(|entry| !entry.region.flags.contains(RegionFlags::SEALED)));
    // Lengths are rounded up; what is sealed can be sealed again, which asks nothing of the platform.
    manager.call(&Request::Mseal { addr: BASE + PAGE_SIZE, len: PAGE_SIZE + 1, flags: 0 }).unwrap();
    let runs = manager.provider().operations();
    manager.call(&mseal(1, 2)).unwrap();
    assert_eq!(manager.provider().operations(), runs);
    assert_eq!(manager.map().len(), 2);
    check(&manager);
}

#[test]
fn a_sealed_page_refuses_whatever_would_change_it_and_the_rest_of_the_range() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 9, RW)).unwrap();
    manager.call(&fixed(20, 1, RW)).unwrap();
    manager.call(&mseal(5, 1)).unwrap();
    let text = manager.maps_text();
    let (move_to, shrink) = (RemapFlags::MAY_MOVE | RemapFlags::FIXED, RemapFlags::empty());
    for request in [
        munmap(1, 9),
        munmap(5, 1),
        fixed(3, 4, READ),
        mprotect(5, 1, RW),
        mremap((5, 1), (0, 2), RemapFlags::MAY_MOVE),
        mremap((5, 1), (0, 1), shrink),
        mremap((5, 1), (30, 1), move_to),
        mremap((20, 1), (5, 1), move_to),
        mremap((2, 6), (2, 2), shrink),
        mremap((5, 1), (30, 1), RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP),
    ] {
        assert_eq!(manager.call(&request), refused(Errno::Perm), "{request:?}");
        assert_eq!(manager.maps_text(), text, "{request:?}");
    }
    // Locking it is no change, nor is an advice about what the guest can overwrite anyway.
    manager.call(&Request::Mlock { addr: at(5).as_u64(), len: PAGE_SIZE, flags: 0 }).unwrap();
    manager.call(&Request::Munlock { addr: at(5).as_u64(), len: PAGE_SIZE }).unwrap();
    manager.call(&madvise(1, 9, DONT_NEED)).unwrap();
    manager.call(&munmap(1, 4)).unwrap();
    check(&manager);
}

#[test]
fn mprotect_changes_what_lies_before_a_seal() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 6, RW)).unwrap();
    manager.call(&mseal(3, 1)).unwrap();
    assert_eq!(manager.call(&mprotect(1, 6, READ)), refused(Errno::Perm));
    let prots: std::vec::Vec<Prot> = manager.map().iter().map(|entry| entry.region.prot).collect();
    assert_eq!(prots, [Prot::READ, Prot::READ | Prot::WRITE, Prot::READ | Prot::WRITE]);
    check(&manager);
}

#[test]
fn a_move_has_unmapped_its_target_when_it_finds_a_sealed_tail() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 4, RW)).unwrap();
    manager.call(&fixed(20, 2, READ)).unwrap();
    manager.call(&mseal(4, 1)).unwrap();
    let request = mremap((1, 4), (20, 2), RemapFlags::MAY_MOVE | RemapFlags::FIXED);
    assert_eq!(manager.call(&request), refused(Errno::Perm));
    assert!(manager.map().get(at(20)).is_none() && manager.map().get(at(1)).is_some());
    check(&manager);
}

#[test]
fn a_move_of_several_regions_ends_at_a_seal() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 1, RW)).unwrap();
    manager.call(&fixed(2, 1, READ)).unwrap();
    manager.call(&mseal(2, 1)).unwrap();
    let request = mremap((1, 2), (20, 2), RemapFlags::MAY_MOVE | RemapFlags::FIXED);
    assert_eq!(manager.call(&request), refused(Errno::Perm));
    assert!(manager.map().get(at(20)).is_some() && manager.map().get(at(21)).is_none());
    assert!(manager.map().get(at(1)).is_none() && manager.map().get(at(2)).is_some());
    check(&manager);
}

#[test]
fn the_break_does_not_fall_below_a_seal() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let start = 0x20_0000;
    manager.call(&Request::Brk { addr: start + 8 * PAGE_SIZE }).unwrap();
    manager.call(&Request::Mseal { addr: start + 4 * PAGE_SIZE, len: PAGE_SIZE, flags: 0 }).unwrap();
    assert_eq!(manager.call(&Request::Brk { addr: start + 2 * PAGE_SIZE }), refused(Errno::NoMem));
    manager.call(&Request::Brk { addr: start + 5 * PAGE_SIZE }).unwrap();
    manager.call(&Request::Brk { addr: start + 9 * PAGE_SIZE }).unwrap();
    assert_eq!(manager.map().len(), 3, "what grows after a seal is not sealed");
    check(&manager);
}

#[test]
fn only_what_the_guest_cannot_overwrite_is_kept_from_being_discarded() {
    let discards = [4, 8, 9, 10, 18, 24, 102];
    let harmless = [0, 1, 2, 3, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 103];
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 2, READ)).unwrap();
    manager.call(&mmap(4, 1, READ, MapFlags::SHARED | MapFlags::FIXED)).unwrap();
    manager.call(&mseal(1, 1)).unwrap();
    manager.call(&mseal(4, 1)).unwrap();
    for advice in discards {
        assert_eq!(manager.call(&madvise(1, 1, advice)), refused(Errno::Perm), "{advice}");
        let shared = manager.call(&madvise(4, 1, advice));
        assert!(shared != refused(Errno::Perm), "{advice}: pages of an object can be had again");
    }
    manager.call(&madvise(2, 1, DONT_NEED)).unwrap();
    let mut region = Region::anonymous(Prot::READ);
    region.flags = RegionFlags::SEALED;
    region.backing = Backing::Object(MemoryObject::new(ObjectKind::ZeroDevice(FileId { device: 1, inode: 2 }), "zero"));
    let zero = PageRange::from_len(at(6), PAGE_SIZE).unwrap();
    manager.import(zero, region.clone()).unwrap();
    region.backing = Backing::Object(MemoryObject::new(ObjectKind::File(FileId { device: 1, inode: 3 }), "file"));
    let file = PageRange::from_len(at(8), PAGE_SIZE).unwrap();
    manager.import(file, region).unwrap();
    assert_eq!(manager.plan(&madvise(6, 1, DONT_NEED)).unwrap_err(), Errno::Perm.into(), "pages of no file");
    assert!(manager.plan(&madvise(8, 1, DONT_NEED)).is_ok());
    for advice in harmless {
        manager.call(&madvise(1, 1, advice)).unwrap();
    }
}

#[test]
fn rights_that_the_backing_denies_are_denied_first() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let mut region = Region::anonymous(Prot::READ);
    (region.prot_max, region.flags) = (Prot::READ, RegionFlags::SEALED);
    manager.import(PageRange::from_len(at(1), PAGE_SIZE).unwrap(), region).unwrap();
    assert_eq!(manager.call(&mprotect(1, 1, RW)), refused(Errno::Acces));
    assert_eq!(manager.call(&mprotect(1, 1, READ)), refused(Errno::Perm));
}

#[test]
fn detaching_a_segment_leaves_its_sealed_part_without_a_word() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let pages = PageCount::new(4);
    let object = MemoryObject::new(ObjectKind::SysV { id: 1, pages }, "/SYSV");
    let segment = Segment { object, pages, rights: Prot::all() };
    let addr = manager.call(&Request::Shmat { segment, addr: 0, flags: 0 }).unwrap();
    manager.call(&Request::Mseal { addr: addr + PAGE_SIZE, len: PAGE_SIZE, flags: 0 }).unwrap();
    for _ in 0..2 {
        manager.call(&Request::Shmdt { addr }).unwrap();
        let left = PageRange::from_len(VirtAddr::new(addr + PAGE_SIZE), PAGE_SIZE).unwrap();
        assert_eq!(manager.map().iter().map(|entry| entry.range).collect::<std::vec::Vec<_>>(), [left]);
    }
    check(&manager);
}

#[test]
fn children_inherit_seals() {
    let (ledger, mut parent) = manager(Limits::UNLIMITED);
    parent.call(&fixed(1, 2, RW)).unwrap();
    parent.call(&mseal(1, 1)).unwrap();
    let account = ledger.root().child(Limits::UNLIMITED);
    let mut child = parent.prepare_fork(account).unwrap().finish(parent.provider().clone());
    assert_eq!(child.call(&munmap(1, 1)), refused(Errno::Perm));
    child.call(&munmap(2, 1)).unwrap();
    check(&child);
}
