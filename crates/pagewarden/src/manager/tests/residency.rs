//! msync and mincore: who is asked about what, and where they stop.

use super::witness::{Witness, at, check_watched, map_file, memfd, watched};
use super::{BASE, READ, RW, fixed, mmap};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Limits;
use crate::linux::{FileTraits, MapFlags, Request};
use crate::manager::{PageManager, Refusal};
use crate::object::{MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::region::{Backing, Region, RegionFlags};

const ASYNC: u64 = 1;
const INVALIDATE: u64 = 2;
const SYNC: u64 = 4;
/// Where answers go: nowhere near the pages that are asked about.
const VECTOR: u64 = 0x8_0000;

fn refused<T>(errno: Errno) -> Result<T, Refusal> {
    Err(errno.into())
}

fn msync(page: u64, pages: u64, flags: u64) -> Request {
    Request::Msync { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, flags }
}

fn pages(first: u64, end: u64) -> PageRange {
    PageRange::new(at(first), at(end)).unwrap()
}

/// Pages 1 and 2 are private, 3 and 4 a file's, 5 a hole, 6 another file's, 7 a file's that is not open for writing.
fn mixed() -> PageManager<Witness> {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&fixed(1, 2, RW)).unwrap();
    manager.call(&map_file(3, 2, RW, (&memfd(1), 0))).unwrap();
    manager.call(&map_file(6, 1, READ, (&memfd(2), 0))).unwrap();
    let mut read_only = memfd(3);
    read_only.traits -= FileTraits::WRITABLE;
    manager.call(&map_file(7, 1, READ, (&read_only, 0))).unwrap();
    manager
}

#[test]
fn words_of_msync_are_looked_at_first() {
    let mut manager = mixed();
    for flags in [ASYNC | SYNC, 8, 1 << 31, u64::MAX] {
        assert_eq!(manager.call(&msync(1, 1, flags)), refused(Errno::Inval), "{flags:#x}");
    }
    let call = |addr, len| Request::Msync { addr, len, flags: SYNC };
    assert_eq!(manager.call(&call(BASE + 1, 0)), refused(Errno::Inval));
    assert_eq!(manager.call(&call(BASE, 0)), Ok(0));
    assert_eq!(manager.call(&call(BASE, u64::MAX)), Ok(0), "the rounded length wraps to none");
    assert_eq!(manager.call(&call(BASE, u64::MAX - 0x1000)), refused(Errno::NoMem), "the end wraps");
    assert_eq!(manager.call(&call(PAGE_SIZE.wrapping_neg(), PAGE_SIZE)), refused(Errno::NoMem));
    assert!(manager.provider().synced.is_empty());
}

#[test]
fn shared_files_open_for_writing_are_synced_beyond_holes() {
    let mut manager = mixed();
    assert_eq!(manager.call(&msync(0, 9, SYNC)), refused(Errno::NoMem));
    assert_eq!(manager.provider().synced, [pages(3, 5), pages(6, 7)]);
    assert_eq!(manager.call(&msync(2, 2, SYNC)), Ok(0));
    assert_eq!(manager.provider().synced.last(), Some(&pages(3, 4)));
    for (flags, first, count, answer) in [
        (0, 1, 4, Ok(0)),
        (ASYNC, 1, 4, Ok(0)),
        (ASYNC, 1, 6, refused(Errno::NoMem)),
        (0, 4, 3, refused(Errno::NoMem)),
        (0, 7, 2, refused(Errno::NoMem)),
        (0, 20, 2, refused(Errno::NoMem)),
    ] {
        assert_eq!(manager.call(&msync(first, count, flags)), answer, "{flags} {first} {count}");
    }
    assert_eq!(manager.provider().synced.len(), 3, "only MS_SYNC waits for the file");
    check_watched(&manager);
}

#[test]
fn locked_pages_are_not_invalidated() {
    let mut manager = mixed();
    manager.call(&Request::Mlock { addr: BASE + 6 * PAGE_SIZE, len: PAGE_SIZE, flags: 0 }).unwrap();
    assert_eq!(manager.call(&msync(3, 4, SYNC | INVALIDATE)), refused(Errno::Busy), "a hole before it is forgotten");
    assert_eq!(manager.provider().synced, [pages(3, 5)], "what came before is done");
    assert_eq!(manager.call(&msync(3, 4, ASYNC | INVALIDATE)), refused(Errno::Busy), "not MS_ASYNC alone");
    assert_eq!(manager.call(&msync(3, 4, ASYNC)), refused(Errno::NoMem));
}

fn mincore(page: u64, pages: u64) -> Request {
    Request::Mincore { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, vector: VECTOR }
}

fn told(manager: &PageManager<Witness>, count: u64) -> std::vec::Vec<u8> {
    (0..count).map_while(|at| manager.provider().stored.get(&(VECTOR + at)).copied()).collect()
}

#[test]
fn words_of_mincore_are_looked_at_first() {
    let mut manager = mixed();
    let end = manager.config().layout.task_end.as_u64();
    let call = |addr, len, vector| Request::Mincore { addr, len, vector };
    for (addr, len, vector, errno) in [
        (BASE + 1, 0, VECTOR, Errno::Inval),
        (end, 1, VECTOR, Errno::NoMem),
        (BASE, u64::MAX, VECTOR, Errno::NoMem),
        (end + PAGE_SIZE, 0, VECTOR, Errno::NoMem),
        (BASE + PAGE_SIZE, 1, end, Errno::Fault),
        (BASE + PAGE_SIZE, 2 * PAGE_SIZE, end - 1, Errno::Fault),
        (BASE + PAGE_SIZE, 1, u64::MAX, Errno::Fault),
        (end - PAGE_SIZE, PAGE_SIZE, VECTOR, Errno::NoMem),
    ] {
        assert_eq!(manager.call(&call(addr, len, vector)), refused(errno), "{addr:#x} {len:#x} {vector:#x}");
    }
    assert_eq!(manager.call(&call(end, 0, end)), Ok(0));
    assert!(manager.provider().stored.is_empty());
}

#[test]
fn a_byte_a_page_is_told_up_to_the_first_hole() {
    let mut manager = mixed();
    let first = at(1).page_number();
    assert_eq!(manager.call(&mincore(1, 4)), Ok(0));
    let even: std::vec::Vec<u8> = (first..first + 4).map(|page| u8::from(page % 2 == 0)).collect();
    assert_eq!(told(&manager, 9), even);
    manager.provider_mut().stored.clear();
    assert_eq!(manager.call(&mincore(2, 5)), refused(Errno::NoMem));
    assert_eq!(told(&manager, 9), even[1..], "what is before the hole is told all the same");
    check_watched(&manager);
}

#[test]
fn a_vector_that_cannot_be_written_ends_the_call() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&fixed(1, 1200, READ)).unwrap();
    manager.provider_mut().unwritable = Some(VECTOR + 1025);
    let fault = manager.call(&mincore(1, 1200)).unwrap_err();
    assert_eq!(fault.errno, Errno::Fault);
    assert_eq!(told(&manager, 2000).len(), 1025);
    manager.provider_mut().unwritable = None;
    manager.provider_mut().stored.clear();
    assert_eq!(manager.call(&mincore(1, 1200)), Ok(0));
    let first = at(1).page_number();
    assert!(told(&manager, 2000).into_iter().eq((first..first + 1200).map(|page| u8::from(page % 2 == 0))));
}

#[test]
fn what_is_nobodys_business_is_all_resident() {
    let mut manager = mixed();
    manager.call(&mmap(8, 1, RW, MapFlags::SHARED | MapFlags::FIXED)).unwrap();
    let special = Region {
        backing: Backing::Object(MemoryObject::new(ObjectKind::Special, "[vdso]")),
        flags: RegionFlags::DONT_EXPAND,
        ..Region::anonymous(Prot::READ)
    };
    manager.import(pages(20, 22), special).unwrap();
    manager.call(&mincore(20, 2)).unwrap();
    assert_eq!(told(&manager, 9), [1, 1], "never of what is not a file");
    manager.provider_mut().hides_files = true;
    manager.provider_mut().stored.clear();
    manager.call(&mincore(1, 4)).unwrap();
    let first = at(1).page_number();
    assert_eq!(told(&manager, 9), [u8::from(first.is_multiple_of(2)), u8::from(!first.is_multiple_of(2)), 1, 1]);
    manager.provider_mut().stored.clear();
    manager.call(&mincore(6, 3)).unwrap();
    assert_eq!(told(&manager, 9), [1, 1, 1]);
}

#[test]
fn a_platform_that_says_nothing_has_all_pages() {
    struct Silent;
    impl crate::provider::PageManagementProvider for Silent {
        fn run(&mut self, _op: &crate::provider::Op, _maps: crate::provider::Maps<'_>) -> Result<(), Errno> {
            Ok(())
        }
    }
    let mut count = 0;
    let map = crate::Vmmap::new(crate::PageCount::ZERO);
    crate::provider::PageManagementProvider::residency(&mut Silent, pages(1, 4), &map, &mut |resident| {
        count += u32::from(resident);
    });
    assert_eq!(count, 3);
    let stored = crate::provider::PageManagementProvider::store(&mut Silent, VirtAddr::new(VECTOR), &[1], &map);
    assert_eq!(stored, Err(Errno::Fault));
}
