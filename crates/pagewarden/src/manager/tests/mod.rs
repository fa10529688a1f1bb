//! Tests of the manager over the model of a platform.
//!
//! Linux's own answers are compared with the kernel elsewhere; here the subject is that manager, platform
//! and ledger agree after every request, whether it succeeded, was refused or failed half way.

mod borrow;
mod calls;
mod fault;
mod growth;
mod keys;
mod mdwe;
mod overcommit;
pub(crate) mod random;
mod remap_pages;
mod reserve;
mod residency;
mod seals;
mod vectors;
mod witness;

use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{MapFlags, MapSource, MmapRequest, MremapRequest, RemapFlags, Request};
use crate::manager::{Break, CapabilityRequest, Cause, PageManager, Place, Refusal, SpaceConfig};
use crate::model::{Failing, Failures, Platform, SMALL_LAYOUT};

/// Where the tests map things.
const BASE: u64 = 0x10_0000;
const RW: u64 = 3;
const READ: u64 = 1;

/// A small space: 1 MiB to 17 MiB, heap at 2 MiB.
fn config(ledger: &ResourceLedger) -> SpaceConfig {
    SpaceConfig {
        brk: Break { start: VirtAddr::new(0x20_0000), current: VirtAddr::new(0x20_0000), data_bytes: 0 },
        regions_max: 1000,
        ..SpaceConfig::new(SMALL_LAYOUT, ledger.root().child(Limits::UNLIMITED))
    }
}

fn manager(limits: Limits) -> (ResourceLedger, PageManager<Platform>) {
    let ledger = ResourceLedger::new(limits);
    let manager = PageManager::new(config(&ledger), Platform::default());
    (ledger, manager)
}

/// Checks that manager and platform agree.
fn check(manager: &PageManager<Platform>) {
    manager.check_invariants();
    manager.provider().check(manager.map());
}

fn mmap(page: u64, pages: u64, prot: u64, flags: MapFlags) -> Request {
    let addr = if page == 0 { 0 } else { BASE + page * PAGE_SIZE };
    let flags = flags | MapFlags::ANONYMOUS;
    Request::Mmap(MmapRequest { addr, len: pages * PAGE_SIZE, prot, flags, source: MapSource::Anonymous, offset: 0 })
}

fn fixed(page: u64, pages: u64, prot: u64) -> Request {
    mmap(page, pages, prot, MapFlags::PRIVATE | MapFlags::FIXED)
}

/// A run of pages by number, as the calls count them.
fn pages(first: u64, count: u64) -> PageRange {
    PageRange::from_len(VirtAddr::new(BASE + first * PAGE_SIZE), count * PAGE_SIZE).unwrap()
}

fn place(page: u64) -> Place {
    Place::At(VirtAddr::new(BASE + page * PAGE_SIZE))
}

fn in_wrong_state(errno: Errno) -> Refusal {
    Refusal { errno, cause: Cause::PageState }
}

fn over(resource: Resource) -> Refusal {
    Refusal { errno: Errno::NoMem, cause: Cause::Limit(resource) }
}

/// Makes the request in a space that `prepare` has prepared, with each operation of the platform failing in turn: the
/// space, the platform and the ledger are as they were then.
fn leaves_no_trace(request: &CapabilityRequest, prepare: impl Fn(&mut PageManager<Failing<Platform>>)) {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut manager = PageManager::new(config(&ledger), Failing::new(Platform::default()));
    prepare(&mut manager);
    let costs = || Resource::ALL.map(|resource| ledger.root().used(resource));
    let (text, cost, picture) = (manager.maps_text(), costs(), manager.provider().inner().picture());
    for operation in 0.. {
        manager.provider_mut().arm(Failures::once(operation, Errno::Io));
        let answer = manager.call_capability(request);
        if manager.provider_mut().disarm() == 0 {
            assert!(answer.is_ok() && operation > 0, "{request:?}: {answer:?} after {operation} operations");
            return;
        }
        assert_eq!(answer, Err(Refusal { errno: Errno::Io, cause: Cause::Platform }), "{request:?}");
        assert_eq!((manager.maps_text(), costs()), (text.clone(), cost), "{request:?}");
        assert_eq!(manager.provider().inner().picture(), picture, "{request:?}");
        manager.check_invariants();
    }
}

fn munmap(page: u64, pages: u64) -> Request {
    Request::Munmap { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE }
}

fn mprotect(page: u64, pages: u64, prot: u64) -> Request {
    Request::Mprotect { addr: BASE + page * PAGE_SIZE, len: pages * PAGE_SIZE, prot }
}

fn mremap(from: (u64, u64), to: (u64, u64), flags: RemapFlags) -> Request {
    Request::Mremap(MremapRequest {
        addr: BASE + from.0 * PAGE_SIZE,
        old_len: from.1 * PAGE_SIZE,
        new_len: to.1 * PAGE_SIZE,
        flags,
        new_addr: BASE + to.0 * PAGE_SIZE,
    })
}
