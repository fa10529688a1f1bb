//! What holders of capabilities ask, on memory of the host: the same requests, the same answers, the host agreeing.

use std::sync::Arc;

use pagewarden::manager::{CapabilityRequest, Cause, Place, Refusal};
use pagewarden::object::ObjectPages;
use pagewarden::{Errno, MemoryObject, ObjectKind, PageCount, PageRange, Prot, Resource, VirtAddr};
use pagewarden_linux::arena::ArenaOptions;

use crate::support::{Guest, NONE, PAGE, RW, load, store};

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

fn range(at: u64, pages: u64) -> PageRange {
    PageRange::from_len(VirtAddr::new(at), pages * PAGE).unwrap()
}

impl Guest {
    #[track_caller]
    fn ask(&self, request: &CapabilityRequest) -> Result<u64, Refusal> {
        let answer = self.arena.call_capability(request);
        self.agrees();
        answer
    }

    fn used(&self, resource: Resource) -> u64 {
        self.arena.with_manager(|manager| manager.account().used(resource))
    }
}

#[test]
fn reserved_memory_comes_and_goes_as_on_frames_of_our_own() {
    let guest = Guest::with(&ArenaOptions { size: 64 * PAGE, commit_limit: Some(8 * PAGE), ..ArenaOptions::default() });
    let reserve = CapabilityRequest::Reserve { place: Place::Anywhere, pages: PageCount::new(32) };
    let at = guest.ask(&reserve).unwrap();
    assert_eq!((guest.used(Resource::Virtual), guest.used(Resource::Committed)), (32, 0));
    guest.ask(&CapabilityRequest::Commit { range: range(at, 4), prot: READ_WRITE }).unwrap();
    (0..4).for_each(|page| store(at + page * PAGE, 5));

    guest.ask(&CapabilityRequest::Protect { range: range(at + PAGE, 2), prot: Prot::NONE }).unwrap();
    assert_eq!(guest.used(Resource::Committed), 4);
    guest.ask(&CapabilityRequest::Protect { range: range(at + PAGE, 2), prot: READ_WRITE }).unwrap();
    assert_eq!((load(at + PAGE), load(at + 3 * PAGE)), (5, 5), "out of reach it was kept");

    guest.ask(&CapabilityRequest::Decommit { range: range(at, 2) }).unwrap();
    assert_eq!(guest.used(Resource::Committed), 2);
    guest.ask(&CapabilityRequest::Commit { range: range(at, 2), prot: READ_WRITE }).unwrap();
    assert_eq!((load(at), load(at + 2 * PAGE)), (0, 5));

    let too_much = CapabilityRequest::Commit { range: range(at + 4 * PAGE, 5), prot: READ_WRITE };
    let over = Refusal { errno: Errno::NoMem, cause: Cause::Limit(Resource::Committed) };
    assert_eq!(guest.ask(&too_much), Err(over));
    assert_eq!(guest.mprotect(at + 4 * PAGE, 5, RW), Err(Errno::NoMem), "the calls of Linux pay from the same");
    assert_eq!(guest.mprotect(at + 4 * PAGE, 4, RW), Ok(0));
    store(at + 4 * PAGE, 6);
    assert_eq!(guest.munmap(at + 4 * PAGE, 1), Ok(0));
    assert_eq!(guest.mprotect(at, 1, NONE), Ok(0));

    let hole = CapabilityRequest::Unmap { range: range(at, 32) };
    assert_eq!(guest.ask(&hole), Err(Refusal { errno: Errno::Inval, cause: Cause::PageState }));
    guest.ask(&CapabilityRequest::Unmap { range: range(at, 4) }).unwrap();
    guest.ask(&CapabilityRequest::Unmap { range: range(at + 5 * PAGE, 27) }).unwrap();
    assert_eq!((guest.used(Resource::Virtual), guest.used(Resource::Committed)), (0, 0));
}

#[test]
fn an_object_that_is_not_the_hosts_is_not_borrowed() {
    let guest = Guest::new(16);
    let object = MemoryObject::new(ObjectKind::Capability, "object");
    let pages = ObjectPages::new(0, PageCount::new(2)).unwrap();
    let (prot, place) = (Prot::READ, Place::Anywhere);
    let request = CapabilityRequest::Borrow { object: Arc::clone(&object), pages, prot, prot_max: prot, place };
    assert_eq!(guest.ask(&request), Err(Refusal { errno: Errno::NoSys, cause: Cause::Platform }));
    assert_eq!((guest.used(Resource::Virtual), Arc::strong_count(&object)), (0, 2));
}
