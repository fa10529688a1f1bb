//! A request that finds no memory, for nodes of the map or for anything else, gives `ENOMEM` and has no effect.

use crate::allocator::{Ration, on_ration};
use pagewarden::linux::{Advice, MapFlags, MapSource, MmapRequest, MremapRequest, RemapFlags, Request};
use pagewarden::manager::{Break, Layout, SpaceConfig};
use pagewarden::{
    Errno, Limits, MemoryObject, ObjectKind, Op, PAGE_SIZE, PageCount, PageManagementProvider, PageManager, PageRange,
    Prot, Region, Resource, ResourceLedger, VirtAddr,
};

/// Where the tests map things: every other page is mapped from here on.
const BASE: u64 = 0x10_0000_0000;
const REGIONS: u64 = 3000;
const READ: u64 = 1;
const RW: u64 = 3;

/// A platform that agrees to everything and counts how often it was asked.
#[derive(Default)]
struct Agreeing {
    runs: usize,
}

impl PageManagementProvider for Agreeing {
    fn run(&mut self, _: &Op, _: pagewarden::provider::Maps<'_>) -> Result<(), Errno> {
        self.runs += 1;
        Ok(())
    }
}

fn config(ledger: &ResourceLedger) -> SpaceConfig {
    SpaceConfig {
        brk: Break { start: VirtAddr::new(0x20_0000), current: VirtAddr::new(0x20_0000), data_bytes: 0 },
        ..SpaceConfig::new(Layout::X86_64, ledger.root().child(Limits::UNLIMITED))
    }
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn mmap(addr: u64, pages: u64, prot: u64, flags: MapFlags) -> Request {
    let sharing = flags & MapFlags::SHARED;
    let private = if sharing.is_empty() { MapFlags::PRIVATE } else { MapFlags::empty() };
    let flags = flags | private | MapFlags::ANONYMOUS;
    Request::Mmap(MmapRequest { addr, len: pages * PAGE_SIZE, prot, flags, source: MapSource::Anonymous, offset: 0 })
}

/// One of each kind that changes the map. Each of them has an effect when there is memory.
fn requests() -> Vec<Request> {
    let mremap = |page, new_len, flags, new_addr| {
        Request::Mremap(MremapRequest { addr: at(page), old_len: PAGE_SIZE, new_len, flags, new_addr })
    };
    let mremap_all = |page, pages, to| {
        let (len, flags) = (pages * PAGE_SIZE, RemapFlags::MAY_MOVE | RemapFlags::FIXED);
        Request::Mremap(MremapRequest { addr: at(page), old_len: len, new_len: len, flags, new_addr: at(to) })
    };
    let name = || MemoryObject::new(ObjectKind::NamedAnonymous, "name");
    vec![
        mmap(0, 1, READ, MapFlags::empty()),
        mmap(at(1001), 1, RW, MapFlags::FIXED),
        mmap(at(1201), 16, RW, MapFlags::FIXED),
        Request::Munmap { addr: at(2200), len: PAGE_SIZE },
        Request::Munmap { addr: at(2300), len: 16 * PAGE_SIZE },
        Request::Mprotect { addr: at(2800), len: PAGE_SIZE, prot: RW },
        mremap(3000, 2 * PAGE_SIZE, RemapFlags::empty(), 0),
        mremap(3100, PAGE_SIZE, RemapFlags::MAY_MOVE | RemapFlags::FIXED, at(3301)),
        mremap(3400, 3 * PAGE_SIZE, RemapFlags::MAY_MOVE, 0),
        Request::Brk { addr: 0x20_0000 + 5 * PAGE_SIZE },
        Request::Mlock { addr: at(3600), len: PAGE_SIZE, flags: 0 },
        mmap(at(3801), 3, RW, MapFlags::SHARED | MapFlags::FIXED),
        // Of several parts, each of which may be the one that finds no memory.
        mmap(at(4001), 1, RW, MapFlags::FIXED),
        Request::Mprotect { addr: at(4000), len: 3 * PAGE_SIZE, prot: 0 },
        mremap_all(4000, 3, 4301),
        Request::Madvise { addr: at(4400), len: 200 * PAGE_SIZE, advice: Advice::DontFork.raw() },
        Request::NameAnonymous { addr: at(4700), len: 200 * PAGE_SIZE, name: Some(name()) },
        Request::Munlock { addr: at(3600), len: PAGE_SIZE },
    ]
}

/// All that a request may change.
#[derive(PartialEq, Debug)]
struct Picture {
    maps: String,
    program_break: VirtAddr,
    used: Vec<u64>,
    runs: usize,
}

impl Picture {
    fn of(manager: &PageManager<Agreeing>) -> Self {
        manager.check_invariants();
        Self {
            maps: manager.maps_text(),
            program_break: manager.program_break(),
            used: Resource::ALL.iter().map(|&resource| manager.account().used(resource)).collect(),
            runs: manager.provider().runs,
        }
    }
}

/// A space with many regions.
fn manager() -> (ResourceLedger, PageManager<Agreeing>) {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut manager = PageManager::new(config(&ledger), Agreeing::default());
    for index in 0..REGIONS {
        let range = PageRange::from_pages(BASE / PAGE_SIZE + 2 * index, PageCount::new(1)).unwrap();
        manager.import(range, Region::anonymous(Prot::READ)).unwrap();
    }
    (ledger, manager)
}

#[test]
fn a_request_without_memory_fails_as_a_whole() {
    let (_ledger, mut manager) = manager();
    let mut in_one_leaf = 0;
    for request in requests() {
        let before = Picture::of(&manager);
        let granted = (0..1000).find(|&allocations| {
            let ration = Ration { allocations, least_bytes: 1 };
            let (result, refused) = on_ration(ration, || manager.call(&request));
            // Over a hole, an advice or a name has its effect and ENOMEM.
            let has_hole = matches!(request, Request::Madvise { .. } | Request::NameAnonymous { .. });
            let Err(refusal) = result else { return true };
            assert_eq!(refusal.errno, Errno::NoMem, "{request:?}");
            if has_hole && refused == 0 {
                return true;
            }
            assert!(refused > 0, "{request:?} failed with memory for all that it asked for");
            assert_eq!(Picture::of(&manager), before, "{request:?} failed and had an effect");
            false
        });
        let granted = granted.unwrap_or_else(|| panic!("{request:?} never succeeds"));
        println!("{request:?}: {granted} allocations at a time");
        assert!(granted >= 1, "{request:?}: the plan copies a leaf at least of the map that is in force");
        assert_ne!(Picture::of(&manager), before, "{request:?} has no effect at all");
        in_one_leaf += u32::from(granted < 3);
    }
    assert_eq!(
        in_one_leaf, 4,
        "a mapping over another, new rights, mlock and munlock: all others copy a path of the map"
    );
}

#[test]
fn a_fork_without_memory_charges_nothing() {
    let (ledger, mut manager) = manager();
    for page in [1000, 1100, 1300] {
        let addr = at(page);
        manager.call(&Request::Madvise { addr, len: PAGE_SIZE, advice: Advice::DontFork.raw() }).unwrap();
        manager.call(&Request::Mlock { addr: at(page + 2), len: PAGE_SIZE, flags: 0 }).unwrap();
    }
    let before = Picture::of(&manager);
    let account = ledger.root().child(Limits::UNLIMITED);
    let granted = (0..1000).find(|&allocations| {
        let ration = Ration { allocations, least_bytes: 1 };
        let (result, refused) = on_ration(ration, || manager.prepare_fork(account.clone()));
        assert_eq!(Picture::of(&manager), before);
        match result {
            Ok(_) => return true,
            Err(refusal) => assert_eq!(refusal.errno, Errno::NoMem),
        }
        assert!(refused > 0, "the fork failed with memory for all that it asked for");
        assert!(Resource::ALL.iter().all(|&resource| account.used(resource) == 0));
        false
    });
    assert!(granted.expect("the fork succeeds") >= 3);
}
