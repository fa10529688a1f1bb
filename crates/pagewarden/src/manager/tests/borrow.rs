//! Borrowed pages: whose they are, what they cost, and how the calls of Linux treat them.

use alloc::sync::Arc;

use super::{
    BASE, READ, RW, check, config, fixed, in_wrong_state, leaves_no_trace, manager, mprotect, mremap, munmap, over,
    pages, place,
};
use crate::addr::{PAGE_SIZE, PageCount, PageRange};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, RemapFlags, RemapPagesRequest, Request};
use crate::manager::{CapabilityRequest, Cause, ForkCharge, PageManager, Place, Refusal, WxPolicy};
use crate::model::Platform;
use crate::object::{MemoryObject, ObjectKind, ObjectPages};
use crate::prot::Prot;

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

fn object() -> Arc<MemoryObject> {
    MemoryObject::new(ObjectKind::SharedAnonymous, "object")
}

fn of_object(first: u64, count: u64) -> ObjectPages {
    ObjectPages::new(first, PageCount::new(count)).unwrap()
}

/// Shows the first `count` pages of `object`, readable and writable.
fn borrow(object: &Arc<MemoryObject>, first: u64, count: u64) -> CapabilityRequest {
    let (object, pages) = (Arc::clone(object), of_object(0, count));
    CapabilityRequest::Borrow { object, pages, prot: READ_WRITE, prot_max: READ_WRITE, place: place(first) }
}

fn give_back(object: &Arc<MemoryObject>, range: PageRange, window: ObjectPages) -> CapabilityRequest {
    CapabilityRequest::Return { range, object: Arc::clone(object), window }
}

fn protect(object: &Arc<MemoryObject>, range: PageRange, window: ObjectPages, prot: Prot) -> CapabilityRequest {
    CapabilityRequest::ProtectBorrowed { range, object: Arc::clone(object), window, prot }
}

fn committed(ledger: &ResourceLedger) -> u64 {
    ledger.root().used(Resource::Committed)
}

#[test]
fn a_live_mapping_is_paid_page_by_page() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED.with(Resource::Committed, 10));
    let object = object();
    let all = of_object(0, 8);
    assert_eq!(manager.call_capability(&borrow(&object, 1, 8)), Ok(BASE + PAGE_SIZE));
    assert_eq!(committed(&ledger), 8);
    assert_eq!(manager.call_capability(&borrow(&object, 20, 3)), Err(over(Resource::Committed)));
    assert_eq!(manager.call(&fixed(20, 3, RW)), Err(over(Resource::Committed)), "the calls of Linux pay from the same");
    manager.call_capability(&protect(&object, pages(1, 8), all, Prot::NONE)).unwrap();
    assert_eq!(committed(&ledger), 8, "out of reach it is still there");
    manager.call_capability(&give_back(&object, pages(3, 2), all)).unwrap();
    assert_eq!(committed(&ledger), 6);
    manager.call(&munmap(1, 1)).unwrap();
    assert_eq!(committed(&ledger), 5);
    check(&manager);
    drop(manager);
    assert_eq!(committed(&ledger), 0);
}

#[test]
fn only_pages_of_the_very_object_can_be_given_back() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let (object, other) = (object(), object());
    manager.call_capability(&borrow(&object, 0, 4)).unwrap();
    manager.call_capability(&borrow(&other, 4, 4)).unwrap();
    manager.call(&fixed(8, 1, RW)).unwrap();
    let traits = FileTraits::READABLE | FileTraits::WRITABLE;
    let source = MapSource::File(OpenFile { object: Arc::clone(&object), traits });
    let (addr, flags) = (BASE + 9 * PAGE_SIZE, MapFlags::SHARED | MapFlags::FIXED);
    manager.call(&Request::Mmap(MmapRequest { addr, len: PAGE_SIZE, prot: RW, flags, source, offset: 0 })).unwrap();
    let all = of_object(0, 8);
    let text = manager.maps_text();
    let wrong = [
        (&object, pages(4, 1), all),
        (&object, pages(2, 4), all),
        (&object, pages(0, 4), of_object(1, 7)),
        (&object, pages(0, 4), of_object(0, 3)),
        (&other, pages(7, 2), all),
        // Shown, but not borrowed.
        (&object, pages(9, 1), all),
        (&other, pages(20, 1), all),
    ];
    let invalid = Err(in_wrong_state(Errno::Inval));
    for (object, range, window) in wrong {
        assert_eq!(manager.call_capability(&give_back(object, range, window)), invalid, "{range}");
        assert_eq!(manager.call_capability(&protect(object, range, window, Prot::READ)), invalid, "{range}");
        assert_eq!(manager.maps_text(), text);
    }
    for request in [
        CapabilityRequest::Unmap { range: pages(0, 4) },
        CapabilityRequest::Decommit { range: pages(0, 4) },
        CapabilityRequest::Protect { range: pages(0, 4), prot: Prot::READ },
        CapabilityRequest::Commit { range: pages(0, 4), prot: Prot::READ },
    ] {
        assert_eq!(manager.call_capability(&request), invalid, "borrowed is not reserved: {request:?}");
    }
    assert_eq!(manager.call_capability(&borrow(&object, 7, 2)), Err(in_wrong_state(Errno::Exist)));
    assert_eq!(manager.maps_text(), text);
    manager.call_capability(&give_back(&object, pages(1, 3), of_object(1, 3))).unwrap();
    check(&manager);
}

#[test]
fn rights_end_where_those_of_the_mapping_do() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let object = object();
    let pages_2 = of_object(0, 2);
    let request = |prot, prot_max| {
        let (object, place) = (Arc::clone(&object), place(0));
        CapabilityRequest::Borrow { object, pages: pages_2, prot, prot_max, place }
    };
    assert_eq!(manager.call_capability(&request(READ_WRITE, Prot::READ)), Err(Errno::Acces.into()));
    manager.call_capability(&request(Prot::READ, Prot::READ)).unwrap();
    assert_eq!(manager.call(&mprotect(0, 2, RW)), Err(Errno::Acces.into()), "not even by Linux's call");
    manager.call(&mprotect(0, 1, 0)).unwrap();
    // Whoever comes with more rights may do more.
    manager.call_capability(&protect(&object, pages(0, 2), pages_2, READ_WRITE)).unwrap();
    manager.call(&mprotect(0, 2, READ)).unwrap();
    manager.call(&mprotect(0, 2, RW)).unwrap();
    check(&manager);
}

#[test]
fn the_calls_of_linux_work_on_borrowed_pages() {
    let (ledger, mut manager) = manager(Limits::UNLIMITED);
    let object = object();
    manager.call_capability(&borrow(&object, 0, 8)).unwrap();
    manager.call(&fixed(2, 2, RW)).unwrap();
    assert_eq!(committed(&ledger), 8, "two are private now");
    manager.call(&mremap((4, 4), (20, 4), RemapFlags::MAY_MOVE | RemapFlags::FIXED)).unwrap();
    assert_eq!(committed(&ledger), 8);
    manager.call_capability(&give_back(&object, pages(22, 2), of_object(6, 2))).unwrap();
    assert_eq!(committed(&ledger), 6);
    let child = manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
    let mut child = child.finish(manager.provider().fork());
    assert_eq!(committed(&ledger), 12, "a child pays for what it shows");
    child.call_capability(&give_back(&object, pages(0, 2), of_object(0, 8))).unwrap();
    check(&child);
    drop(child);
    assert_eq!(committed(&ledger), 6);
    check(&manager);
}

#[test]
fn a_fork_that_is_not_asked_to_pay_pays_for_what_is_borrowed() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy.fork_charge = ForkCharge::Free;
    let mut manager = PageManager::new(config, Platform::default());
    let object = object();
    manager.call_capability(&borrow(&object, 0, 3)).unwrap();
    manager.call(&fixed(3, 2, RW)).unwrap();
    let child = manager.prepare_fork(ledger.root().child(Limits::UNLIMITED)).unwrap();
    let child = child.finish(manager.provider().fork());
    assert_eq!(committed(&ledger), 3 + 2 + 3);
    check(&child);
    manager.account().set_limit(Resource::Committed, 0);
    let poor = ledger.root().child(Limits::UNLIMITED.with(Resource::Committed, 2));
    assert_eq!(manager.prepare_fork(poor).map(drop), Err(over(Resource::Committed)));
    assert_eq!(committed(&ledger), 3 + 2 + 3);
}

#[test]
fn a_mapping_shows_no_more_than_it_was_made_for() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    let object = object();
    manager.call_capability(&borrow(&object, 1, 2)).unwrap();
    let text = manager.maps_text();
    assert_eq!(manager.call(&mremap((1, 2), (1, 3), RemapFlags::empty())), Err(Errno::Fault.into()));
    assert_eq!(manager.call(&mremap((1, 2), (20, 3), RemapFlags::MAY_MOVE)), Err(Errno::Fault.into()));
    assert_eq!(manager.call(&mremap((1, 0), (20, 2), RemapFlags::MAY_MOVE)), Err(Errno::Fault.into()), "a second view");
    let keep = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP;
    assert_eq!(manager.call(&mremap((1, 2), (0, 2), keep)), Err(Errno::Inval.into()));
    let (addr, len) = (BASE + PAGE_SIZE, PAGE_SIZE);
    let call = RemapPagesRequest { addr, len, prot: 0, page_offset: 5, flags: MapFlags::empty() };
    assert_eq!(manager.call(&Request::RemapPages(call)), Err(Errno::Inval.into()), "other pages");
    assert_eq!(manager.maps_text(), text);
    check(&manager);
}

#[test]
fn a_policy_holds_for_borrowed_memory_too() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy.wx = WxPolicy::Deny;
    let mut manager = PageManager::new(config, Platform::default());
    let object = object();
    let denied = Err(Refusal { errno: Errno::Acces, cause: Cause::WxPolicy });
    let pages_1 = of_object(0, 1);
    let (prot, prot_max) = (Prot::all(), Prot::all());
    let request = CapabilityRequest::Borrow {
        object: Arc::clone(&object),
        pages: pages_1,
        prot,
        prot_max,
        place: Place::Anywhere,
    };
    assert_eq!(manager.call_capability(&request), denied);
    manager.call_capability(&borrow(&object, 0, 1)).unwrap();
    let run = protect(&object, pages(0, 1), pages_1, Prot::READ | Prot::EXEC);
    assert_eq!(manager.call_capability(&run), denied);
    check(&manager);
}

#[test]
fn a_failing_platform_leaves_no_trace() {
    let object = object();
    let all = of_object(0, 8);
    let requests =
        [borrow(&object, 8, 4), protect(&object, pages(0, 6), all, Prot::READ), give_back(&object, pages(1, 4), all)];
    for request in requests {
        leaves_no_trace(&request, |manager| {
            manager.call_capability(&borrow(&object, 0, 6)).unwrap();
            manager.call(&mprotect(2, 1, 0)).unwrap();
            manager.provider_mut().inner_mut().write(BASE / PAGE_SIZE, 7);
        });
    }
}
