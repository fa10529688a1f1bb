//! process_madvise on the caller itself, and what Linux goes on counting as locked.

use super::witness::{Witness, at, check_watched, watched};
use super::{BASE, RW, fixed, mremap, munmap};
use crate::addr::PAGE_SIZE;
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{RemapFlags, Request};
use crate::manager::{Cause, PageManager, Refusal};
use crate::region::RegionFlags;

const DONT_FORK: i32 = 10;
const WIPE_ON_FORK: i32 = 18;
const DONT_NEED: i32 = 4;

fn advise(ranges: &[(u64, u64)], advice: i32) -> Request {
    let ranges = ranges.iter().map(|(page, pages)| (BASE + page * PAGE_SIZE, pages * PAGE_SIZE)).collect();
    Request::ProcessMadvise { ranges, advice }
}

fn marked(manager: &PageManager<Witness>) -> std::vec::Vec<u64> {
    let is_marked = |page: &u64| {
        let entry = manager.map().get(at(*page));
        entry.is_some_and(|entry| entry.region.flags.contains(RegionFlags::DONT_FORK))
    };
    (0..20).filter(is_marked).collect()
}

#[test]
fn bytes_before_the_first_failure_count() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&fixed(1, 8, RW)).unwrap();
    assert_eq!(manager.call(&advise(&[(6, 2), (1, 1)], DONT_FORK)), Ok(3 * PAGE_SIZE));
    assert_eq!(marked(&manager), [1, 6, 7]);
    assert_eq!(manager.call(&advise(&[(3, 1), (8, 2), (4, 1)], DONT_FORK)), Ok(PAGE_SIZE), "up to the hole");
    assert_eq!(marked(&manager), [1, 3, 6, 7, 8], "what is before the hole is done, what comes after is not");
    assert_eq!(manager.call(&advise(&[(8, 2), (4, 1)], DONT_FORK)), Err(Errno::NoMem.into()));
    let unaligned = Request::ProcessMadvise { ranges: [(BASE + 1, 0), (BASE, 1)].to_vec(), advice: DONT_FORK };
    assert_eq!(manager.call(&unaligned), Err(Errno::Inval.into()));
    assert_eq!(manager.call(&advise(&[(1, 1)], 999)), Err(Errno::Inval.into()));
    assert_eq!(manager.call(&advise(&[], 999)), Ok(0), "nothing is asked");
    check_watched(&manager);
}

#[test]
fn ranges_see_what_those_before_have_done() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&fixed(1, 8, RW)).unwrap();
    assert_eq!(manager.call(&advise(&[(1, 8), (1, 8)], DONT_FORK)), Ok(16 * PAGE_SIZE));
    assert_eq!(manager.map().len(), 1);
    assert_eq!(manager.call(&advise(&[(1, 2), (5, 2)], 11)), Ok(4 * PAGE_SIZE));
    assert_eq!(marked(&manager), [3, 4, 7, 8]);
    let child = manager.prepare_fork(manager.account().child(Limits::UNLIMITED)).unwrap().finish(Witness::default());
    assert_eq!(child.totals().virtual_pages, 4);
}

#[test]
fn what_the_platform_has_advised_stands_when_it_fails() {
    for (fail_after, answer, pages) in [(0, None, &[][..]), (1, Some(2), &[1, 2]), (2, Some(3), &[1, 2, 5])] {
        let (_ledger, mut manager) = watched(Limits::UNLIMITED);
        manager.call(&fixed(1, 8, RW)).unwrap();
        manager.provider_mut().fail_after = Some(fail_after);
        let failed = Refusal { errno: Errno::Io, cause: Cause::Platform };
        let expected = answer.map(|pages: u64| pages * PAGE_SIZE).ok_or(failed);
        assert_eq!(manager.call(&advise(&[(1, 2), (5, 1), (7, 1)], DONT_FORK)), expected);
        assert_eq!(marked(&manager), pages);
        check_watched(&manager);
    }
}

#[test]
fn advice_that_changes_no_region_asks_the_platform_for_each_range() {
    let (_ledger, mut manager) = watched(Limits::UNLIMITED);
    manager.call(&fixed(1, 8, RW)).unwrap();
    let runs = manager.provider().runs;
    assert_eq!(manager.call(&advise(&[(1, 2), (3, 1), (1, 1)], DONT_NEED)), Ok(4 * PAGE_SIZE));
    assert_eq!(manager.provider().runs - runs, 3);
    manager.call(&advise(&[(1, 2)], WIPE_ON_FORK)).unwrap();
    assert_eq!(manager.map().len(), 2);
}

#[test]
fn what_a_move_leaves_behind_counts_for_the_lock_limit_alone() {
    let (ledger, mut manager) = watched(Limits::UNLIMITED);
    let mut limits = manager.config().limits.clone();
    limits.locked = 6 * PAGE_SIZE;
    manager.set_limits(limits);
    let mlock = |page, pages| Request::Mlock { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, flags: 0 };
    manager.call(&fixed(1, 2, RW)).unwrap();
    manager.call(&fixed(20, 4, RW)).unwrap();
    manager.call(&mlock(1, 2)).unwrap();
    let keep = RemapFlags::MAY_MOVE | RemapFlags::FIXED | RemapFlags::DONT_UNMAP;
    manager.call(&mremap((1, 2), (10, 2), keep)).unwrap();
    assert_eq!(manager.totals().locked_pages, 2);
    assert_eq!(ledger.root().used(Resource::Locked), 2, "nobody pays for pages that are not locked");
    assert_eq!(manager.call(&mlock(20, 3)), Err(Errno::NoMem.into()), "2 + 2 + 3 > 6");
    manager.call(&munmap(1, 2)).unwrap();
    assert_eq!(manager.call(&mlock(20, 3)), Err(Errno::NoMem.into()), "for good");
    manager.call(&mlock(20, 2)).unwrap();
    let mut child = manager.prepare_fork(child_account(&ledger)).unwrap().finish(manager.provider().clone());
    child.call(&mlock(20, 4)).unwrap();
    assert_eq!(child.totals().locked_pages, 4, "a child starts anew");
    check_watched(&manager);
}

fn child_account(ledger: &ResourceLedger) -> crate::ledger::Account {
    ledger.root().child(Limits::UNLIMITED)
}
