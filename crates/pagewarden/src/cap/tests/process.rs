//! Processes on the software machine: what handles give, what it costs, and what is left when they have gone.

use alloc::sync::Arc;
use core::array;
use std::vec::Vec;

use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::cap::{
    CapError, FixedPlaces, FrameAllocatorCap, GivenCapability, Handle, InterfaceId, Mapping, MemoryInfo, OWN_MEMORY,
    Process, Rights, TransferMode,
};
use crate::error::Errno;
use crate::ledger::{Account, Limits, Resource};
use crate::linux::{Advice, Request};
use crate::machine::{FaultCode, Machine};
use crate::manager::{Access, Cause, Place, Refusal};
use crate::object::{ObjectPages, Placement};
use crate::pager::tests::{World, mprotect, munmap, page, private};
use crate::prot::Prot;

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);
/// All that a process may do with memory that it has allocated, but give it to others.
const KEPT: Rights = Rights::READ.union(Rights::WRITE).union(Rights::MAP);
const RW: u64 = 3;

fn places() -> FixedPlaces {
    FixedPlaces { capability_set: VirtAddr::new(page(100)), ring: VirtAddr::new(page(101)) }
}

fn range(first: u64, count: u64) -> PageRange {
    PageRange::from_len(VirtAddr::new(page(first)), count * PAGE_SIZE).unwrap()
}

fn of_object(first: u64, count: u64) -> ObjectPages {
    ObjectPages::new(first, PageCount::new(count)).unwrap()
}

fn at(part: ObjectPages, prot: Prot, first: u64) -> Mapping {
    Mapping { part, prot, place: Place::At(VirtAddr::new(page(first))) }
}

fn invalid() -> CapError {
    CapError::Refused(Refusal { errno: Errno::Inval, cause: Cause::PageState })
}

fn over(resource: Resource) -> CapError {
    CapError::Refused(Refusal { errno: Errno::NoMem, cause: Cause::Limit(resource) })
}

/// A world, the pool that its processes take frames from, and a process that may.
struct Scene {
    world: World,
    pool: Account,
}

impl Scene {
    fn new(frames: u64) -> Self {
        let world = World::new(frames);
        let pool = world.ledger.root().child(Limits::UNLIMITED);
        Self { world, pool }
    }

    /// A process, its account, and its handle to the pool.
    fn process(&self) -> (Process<Machine>, Account, Handle) {
        let config = self.world.config();
        let account = config.account.clone();
        let process = Process::new(&self.world.pager, config, places()).unwrap();
        let frames = Arc::new(FrameAllocatorCap::new(&self.world.pager, self.pool.clone()));
        let frames = process.give(frames, Rights::TRANSFER, *b"frames\0\0").unwrap();
        (process, account, frames)
    }

    fn load(&self, process: &Process<Machine>, number: u64) -> Option<u8> {
        self.world.load(process.space(), page(number)).ok()
    }

    fn store(&self, process: &Process<Machine>, number: u64, byte: u8) -> Result<(), ()> {
        self.world.store(process.space(), page(number), byte).map_err(|_| ())
    }

    fn free(&self) -> u64 {
        self.world.pager.frames().available()
    }

    /// Which frame a page shows, if it can be loaded from.
    fn frame(&self, process: &Process<Machine>, number: u64) -> Option<u64> {
        self.load(process, number)?;
        let address = self.world.machine.translate(0, VirtAddr::new(page(number)), Access::Read).unwrap();
        Some(address.as_u64() / PAGE_SIZE)
    }
}

fn committed(account: &Account) -> u64 {
    account.used(Resource::Committed)
}

fn release(process: &Process<Machine>, handle: Handle) {
    process.table().release(handle).unwrap();
}

#[test]
fn a_capability_set_is_read_only_and_a_ring_is_no_code() {
    let scene = Scene::new(64);
    let (process, _, frames) = scene.process();
    let root = process.space().root();
    let mut bytes = [0; 4096];
    process.space().copy_from_user(places().capability_set, &mut bytes).unwrap();
    let (entries, _) = bytes.as_chunks::<{ GivenCapability::BYTES }>();
    assert_eq!(u64::from_le_bytes(*entries[0].first_chunk().unwrap()), 2, "so many are given");
    let given: Vec<_> = entries[1..3].iter().map(|entry| GivenCapability::from_bytes(entry).unwrap()).collect();
    assert_eq!([given[0].handle, given[1].handle], [process.memory(), frames]);
    assert_eq!((given[0].name, given[0].rights, given[1].name), (OWN_MEMORY, Rights::MAP, *b"frames\0\0"));
    assert_eq!(entries[3], [0; GivenCapability::BYTES]);

    scene.store(&process, 100, 1).unwrap_err();
    scene.store(&process, 101, 7).unwrap();
    let mut byte = [0];
    process.ring().read(0, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    process.ring().write(PAGE_SIZE - 1, &[9]).unwrap();
    assert_eq!(scene.world.load(process.space(), page(102) - 1), Ok(9));
    assert_eq!(process.ring().write(PAGE_SIZE - 1, &[1, 2]), Err(Errno::Inval.into()));
    for number in [100, 101] {
        scene.load(&process, number).unwrap();
        scene.world.machine.activate(0, root);
        scene.world.machine.fetch(0, VirtAddr::new(page(number)), &mut byte).unwrap_err();
        process.space().fault(VirtAddr::new(page(number)), Access::Execute).unwrap_err();
    }
    process.check_invariants();
}

/// Calls of every kind on pages 99 to 102.
fn calls_of_linux() -> Vec<Request> {
    let (addr, len) = (page(99), 4 * PAGE_SIZE);
    let mut calls = std::vec![
        private(99, 4, RW),
        munmap(99, 4),
        mprotect(100, 1, RW),
        mprotect(101, 1, 7),
        Request::PkeyMprotect { addr: page(100), len, prot: RW, key: 0 },
        Request::Mseal { addr: page(100), len: PAGE_SIZE, flags: 0 },
        Request::Mlock { addr: page(100), len, flags: 0 },
        Request::Munlock { addr: page(101), len },
        Request::Msync { addr, len, flags: 4 },
        Request::Mincore { addr: page(100), len, vector: addr },
        Request::NameAnonymous { addr: page(100), len, name: None },
    ];
    let advices = (0..26).filter(|advice| Advice::from_raw(*advice).is_some());
    calls.extend(advices.map(|advice| Request::Madvise { addr: page(100), len: 2 * PAGE_SIZE, advice }));
    calls
}

#[test]
fn no_call_of_any_kind_touches_a_fixed_page() {
    let scene = Scene::new(64);
    let (process, account, frames) = scene.process();
    scene.store(&process, 101, 7).unwrap();
    let object = process.allocate(frames, PageCount::new(4), Placement::Scattered).unwrap();
    let shown = || [100, 101].map(|number| scene.frame(&process, number).unwrap());
    let (before, text, cost) =
        (shown(), process.space().with_manager(|manager| manager.maps_text()), committed(&account));
    for call in calls_of_linux() {
        process.space().call(&call).unwrap_err();
    }
    let memory = process.virtual_memory(process.memory()).unwrap();
    let mut refused = 0;
    for first in [97, 98, 100, 101] {
        let place = Place::At(VirtAddr::new(page(first)));
        let all = range(first, 4);
        let outcomes = [
            memory.reserve(PageCount::new(4), place).map(drop),
            memory.commit(all, READ_WRITE),
            memory.decommit(all),
            memory.protect(all, READ_WRITE),
            memory.unmap(all),
            process.map(object, Mapping { part: of_object(0, 4), prot: READ_WRITE, place }).map(drop),
            process.protect_borrowed(object, all, READ_WRITE),
            process.unmap_borrowed(object, all),
        ];
        refused += outcomes.iter().filter(|outcome| outcome.is_err()).count();
    }
    assert_eq!(refused, 32);
    assert_eq!(process.space().with_manager(|manager| manager.maps_text()), text);
    assert_eq!((shown(), committed(&account)), (before, cost));
    assert_eq!([100, 101].map(|number| scene.load(&process, number)), [Some(2), Some(7)]);
    scene.store(&process, 100, 1).unwrap_err();
    process.check_invariants();
}

#[test]
fn a_child_has_fixed_pages_and_a_table_of_its_own() {
    let scene = Scene::new(64);
    let (parent, _, frames) = scene.process();
    scene.store(&parent, 101, 7).unwrap();
    let account = scene.world.ledger.root().child(Limits::UNLIMITED);
    let child = parent.fork(account).unwrap();
    assert_eq!(scene.load(&child, 101), Some(0));
    scene.store(&child, 101, 8).unwrap();
    assert_eq!(scene.load(&parent, 101), Some(7));
    assert_eq!(child.table().read().handles().count(), 1, "only the one for its space");
    for foreign in [frames, parent.memory()] {
        assert_eq!(child.table().release(foreign), Err(CapError::BadHandle));
        assert_eq!(child.virtual_memory(foreign).map(drop), Err(CapError::BadHandle));
    }
    let memory = child.virtual_memory(child.memory()).unwrap();
    memory.reserve(PageCount::new(1), Place::At(VirtAddr::new(page(0)))).unwrap();
    assert!(parent.space().with_manager(|manager| manager.map().is_free(range(0, 1))), "it is the child's space");
    child.check_invariants();
    drop((memory, parent, child));
    scene.world.check_empty();
}

#[test]
fn reserved_pages_cost_no_frames_and_pages_out_of_reach_keep_theirs() {
    let scene = Scene::new(64);
    let (process, account, _) = scene.process();
    let memory = process.virtual_memory(process.memory()).unwrap();
    let free = scene.free();
    memory.reserve(PageCount::new(64), Place::At(VirtAddr::new(page(0)))).unwrap();
    assert_eq!((scene.free(), committed(&account)), (free, 0), "far more than there are frames");
    assert_eq!(scene.load(&process, 0), None);
    memory.commit(range(0, 4), READ_WRITE).unwrap();
    assert_eq!(committed(&account), 4);
    for number in 0..4 {
        scene.store(&process, number, 5).unwrap();
    }
    let (frame, free) = (scene.frame(&process, 1), scene.free());
    memory.protect(range(0, 4), Prot::NONE).unwrap();
    assert_eq!((scene.load(&process, 1), scene.free(), committed(&account)), (None, free, 4));
    let hidden = scene.world.machine.translate(0, VirtAddr::new(page(1)), Access::Read).unwrap_err();
    assert!(!hidden.code.contains(FaultCode::PRESENT), "{hidden:?}");
    memory.protect(range(1, 3), READ_WRITE).unwrap();
    assert_eq!((scene.load(&process, 1), scene.frame(&process, 1)), (Some(5), frame));
    memory.decommit(range(0, 2)).unwrap();
    assert_eq!((scene.free(), committed(&account)), (free + 2, 2));
    memory.commit(range(0, 2), READ_WRITE).unwrap();
    assert_eq!([0, 1, 2].map(|number| scene.load(&process, number).unwrap()), [0, 0, 5]);
    process.check_invariants();
    drop((memory, process));
    scene.world.check_empty();
}

#[test]
fn memory_lives_page_by_page_while_a_handle_or_a_mapping_reaches_it() {
    let scene = Scene::new(128);
    let (process, account, frames) = scene.process();
    let free = scene.free();
    let object = process.allocate(frames, PageCount::new(40), Placement::Scattered).unwrap();
    assert_eq!((scene.free(), committed(&account), scene.pool.used(Resource::Frames)), (free - 40, 40, 40));
    process.map(object, at(of_object(10, 2), READ_WRITE, 0)).unwrap();
    assert_eq!(committed(&account), 42, "held and mapped are paid both");
    scene.store(&process, 0, 6).unwrap();
    release(&process, object);
    assert_eq!((committed(&account), scene.pool.used(Resource::Frames)), (2, 2), "what is paid is what is there");
    assert_eq!([0, 1].map(|number| scene.load(&process, number)), [Some(6), Some(0)]);
    process.space().call(&munmap(0, 1)).unwrap();
    assert_eq!((committed(&account), scene.pool.used(Resource::Frames)), (1, 1));
    assert_eq!(scene.load(&process, 1), Some(0));
    process.check_invariants();
    drop(process);
    scene.world.check_empty();
}

#[test]
fn nothing_is_taken_before_it_is_paid() {
    let scene = Scene::new(128);
    let (process, account, frames) = scene.process();
    let allocate = |count| process.allocate(frames, PageCount::new(count), Placement::Scattered);
    let taken = scene.world.frame_taken.operations();
    account.set_limit(Resource::Committed, 9);
    assert_eq!(allocate(10), Err(over(Resource::Committed)));
    let slots = CapError::Refused(Refusal { errno: Errno::MFile, cause: Cause::Limit(Resource::Capabilities) });
    account.set_limit(Resource::Capabilities, 2);
    assert_eq!(allocate(1), Err(slots));
    account.set_limit(Resource::Capabilities, 10);
    account.set_limit(Resource::Committed, u64::MAX);
    assert_eq!(allocate(0).map(drop), Err(Errno::Inval.into()));
    assert_eq!(allocate(u64::MAX).map(drop), Err(Errno::NoMem.into()));
    assert_eq!(allocate(1 << 40).map(drop), Err(Errno::NoMem.into()), "more than there are");
    assert_eq!(scene.world.frame_taken.operations(), taken, "nobody asked for a frame");
    scene.pool.set_limit(Resource::Frames, 5);
    assert_eq!(allocate(6).map_err(CapError::errno), Err(Errno::NoMem), "the pool has no more");
    let used = [Resource::Committed, Resource::Capabilities].map(|resource| account.used(resource));
    assert_eq!((used, scene.pool.used(Resource::Frames)), ([0, 2], 0));
    process.check_invariants();
}

#[test]
fn a_run_of_frames_is_a_run_of_frames() {
    let scene = Scene::new(64);
    let (process, _, frames) = scene.process();
    let object = process.allocate(frames, PageCount::new(8), Placement::Contiguous).unwrap();
    process.map(object, at(of_object(0, 8), Prot::READ, 0)).unwrap();
    let shown: [u64; 8] = array::from_fn(|number| scene.frame(&process, number as u64).unwrap());
    assert!(shown.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{shown:?}");
    drop(process);
    scene.world.check_empty();
}

#[test]
fn rights_bound_what_a_handle_does() {
    let scene = Scene::new(64);
    let (process, _, frames) = scene.process();
    let object = process.allocate(frames, PageCount::new(2), Placement::Scattered).unwrap();
    let with = |rights| process.table().duplicate(object, rights).unwrap();
    let all = of_object(0, 2);
    let cases = [
        (Rights::MAP, Prot::NONE, true),
        (Rights::MAP, Prot::READ, false),
        (Rights::READ, Prot::READ, false),
        (Rights::MAP | Rights::READ, Prot::READ, true),
        (Rights::MAP | Rights::READ, READ_WRITE, false),
        (Rights::MAP | Rights::WRITE, Prot::WRITE, false),
        (Rights::MAP | Rights::EXECUTE, Prot::EXEC, false),
        (KEPT, READ_WRITE, true),
        (KEPT, Prot::WRITE, true),
        (KEPT, Prot::READ | Prot::EXEC, false),
        (KEPT | Rights::EXECUTE, Prot::READ | Prot::EXEC, true),
    ];
    for (rights, prot, is_allowed) in cases {
        let handle = with(rights);
        let mapped = process.map(handle, at(all, prot, 0));
        assert_eq!(mapped.map(drop), if is_allowed { Ok(()) } else { Err(CapError::Rights) }, "{rights} {prot}");
        if is_allowed {
            process.unmap_borrowed(handle, range(0, 2)).unwrap();
        }
        release(&process, handle);
    }
    let read_only = with(Rights::MAP | Rights::READ);
    process.map(read_only, at(all, Prot::READ, 0)).unwrap();
    assert_eq!(process.protect_borrowed(read_only, range(0, 2), READ_WRITE), Err(CapError::Rights));
    assert_eq!(process.space().call(&mprotect(0, 2, RW)), Err(Errno::Acces.into()));
    scene.store(&process, 0, 1).unwrap_err();
    assert_eq!(process.write(read_only, 0, &[1]), Err(CapError::Rights));
    assert_eq!(process.read(with(Rights::WRITE), 0, &mut [0]), Err(CapError::Rights));
    assert_eq!(process.slice(read_only, of_object(0, 1), KEPT), Err(CapError::Rights));
    assert_eq!(process.resize(object, PageCount::new(1)), Err(CapError::Rights));
    assert_eq!(process.unmap_borrowed(with(Rights::READ), range(0, 2)), Err(CapError::Rights));
    process.write(object, PAGE_SIZE - 1, &[3, 4]).unwrap();
    assert_eq!(scene.load(&process, 1), Some(4));
    for (offset, len) in [(2 * PAGE_SIZE - 1, 2), (2 * PAGE_SIZE, 1), (u64::MAX, 1)] {
        assert_eq!(process.write(object, offset, &[9; 2][..len]), Err(Errno::Inval.into()), "{offset}");
        assert_eq!(process.read(object, offset, &mut [9; 2][..len]), Err(Errno::Inval.into()), "{offset}");
    }
    process.check_invariants();
}

#[test]
fn a_handle_is_good_for_its_own_kind_in_its_own_table() {
    let scene = Scene::new(64);
    let (process, _, frames) = scene.process();
    let (other, _, _) = scene.process();
    let object = process.allocate(frames, PageCount::new(1), Placement::Scattered).unwrap();
    assert_eq!(process.info(frames), Err(CapError::WrongType));
    assert_eq!(process.info(process.memory()), Err(CapError::WrongType));
    assert_eq!(process.virtual_memory(object).map(drop), Err(CapError::WrongType));
    assert_eq!(process.allocate(object, PageCount::new(1), Placement::Scattered), Err(CapError::WrongType));
    assert_eq!(other.info(object), Err(CapError::BadHandle));
    let info =
        MemoryInfo { pages: PageCount::new(1), bytes: PAGE_SIZE, rights: KEPT | Rights::EXECUTE | Rights::TRANSFER };
    assert_eq!(process.info(object), Ok(info));
    release(&process, object);
    for outcome in [process.info(object).map(drop), process.unmap_borrowed(object, range(0, 1))] {
        assert_eq!(outcome, Err(CapError::BadHandle));
    }
    let all = Rights::MAP | Rights::TRANSFER;
    assert_eq!(process.send(process.memory(), TransferMode::Copy, all, &other), Err(CapError::Rights));
    let memory = process.virtual_memory(process.memory()).unwrap();
    let handed = process.give(memory, all, [0; 8]).unwrap();
    for mode in [TransferMode::Copy, TransferMode::Move] {
        assert_eq!(process.send(handed, mode, all, &other), Err(CapError::Bound), "a space is nobody else's");
    }
    other.exit();
    assert_eq!(process.send(frames, TransferMode::Move, Rights::empty(), &other), Err(CapError::Closed));
    process.allocate(frames, PageCount::new(1), Placement::Scattered).unwrap();
    assert_eq!(other.info(frames), Err(CapError::Closed));
}

#[test]
fn two_processes_show_the_same_frames() {
    let scene = Scene::new(128);
    let (parent, ours, frames) = scene.process();
    let (child, theirs, _) = scene.process();
    let object = parent.allocate(frames, PageCount::new(4), Placement::Scattered).unwrap();
    parent.map(object, at(of_object(0, 4), READ_WRITE, 0)).unwrap();
    scene.store(&parent, 0, 1).unwrap();
    let slice = parent.slice(object, of_object(1, 2), KEPT | Rights::TRANSFER).unwrap();
    assert_eq!([&ours, &theirs].map(committed), [4 + 4 + 2, 0]);
    let slice = parent.send(slice, TransferMode::Move, KEPT, &child).unwrap();
    assert_eq!([&ours, &theirs].map(committed), [4 + 4, 2], "whoever holds it pays");
    assert_eq!(child.map(slice, at(of_object(1, 2), READ_WRITE, 0)), Err(Errno::Inval.into()), "beyond the slice");
    child.map(slice, at(of_object(0, 2), READ_WRITE, 8)).unwrap();
    scene.store(&child, 8, 9).unwrap();
    assert_eq!(scene.load(&parent, 1), Some(9));
    assert_eq!(scene.frame(&parent, 1), scene.frame(&child, 8));
    // The child may show what it has been given, and not more, by whatever call.
    assert_eq!(child.protect_borrowed(slice, range(8, 3), Prot::READ), Err(invalid()));
    assert_eq!(parent.unmap_borrowed(object, range(3, 2)), Err(invalid()));
    release(&child, slice);
    drop(parent);
    assert_eq!([&ours, &theirs].map(committed), [0, 2]);
    assert_eq!((scene.load(&child, 8), scene.pool.used(Resource::Frames)), (Some(9), 2));
    child.check_invariants();
    drop(child);
    scene.world.check_empty();
}

/// How many capabilities a process was told of, and what of the last.
fn last_given(process: &Process<Machine>) -> (u64, Option<GivenCapability>) {
    let mut bytes = [0; 4096];
    process.given().page().read(0, &mut bytes).unwrap();
    let (entries, _) = bytes.as_chunks::<{ GivenCapability::BYTES }>();
    let count = u64::from_le_bytes(*entries[0].first_chunk().unwrap());
    (count, GivenCapability::from_bytes(&entries[usize::try_from(count).unwrap()]))
}

#[test]
fn who_is_sent_a_capability_by_name_is_told_of_it() {
    let scene = Scene::new(64);
    let ((sender, ours, frames), (receiver, theirs, _)) = (scene.process(), scene.process());
    let object = sender.allocate(frames, PageCount::new(3), Placement::Scattered).unwrap();
    for (mode, count) in [(TransferMode::Copy, 3), (TransferMode::Move, 4)] {
        let handle = sender.send_as(object, (mode, KEPT), *b"buffer\0\0", &receiver).unwrap();
        let given = GivenCapability { handle, interface: InterfaceId::MEMORY, rights: KEPT, name: *b"buffer\0\0" };
        assert_eq!(last_given(&receiver), (count, Some(given)));
        assert_eq!(receiver.info(handle).unwrap().rights, KEPT);
    }
    assert_eq!(sender.info(object), Err(CapError::BadHandle), "it has moved");
    assert_eq!([&ours, &theirs].map(committed), [0, 6]);
    let pool = receiver.send_as(last_given(&receiver).1.unwrap().handle, (TransferMode::Copy, KEPT), [0; 8], &sender);
    assert_eq!(pool, Err(CapError::Rights), "without the right to pass it on");
    assert_eq!(last_given(&sender).0, 2);
    let pool = sender.send_as(frames, (TransferMode::Copy, Rights::TRANSFER), *b"pool\0\0\0\0", &receiver).unwrap();
    assert_eq!(
        last_given(&receiver).1.map(|given| (given.handle, given.interface)),
        Some((pool, InterfaceId::FRAME_ALLOCATOR))
    );
    [&sender, &receiver].into_iter().for_each(|process| process.check_invariants());
    drop((sender, receiver));
    scene.world.check_empty();
}

#[test]
fn nothing_is_sent_that_the_receiver_cannot_be_told_of() {
    let scene = Scene::new(64);
    let ((sender, ours, frames), (receiver, theirs, _)) = (scene.process(), scene.process());
    let object = sender.allocate(frames, PageCount::new(3), Placement::Scattered).unwrap();
    for _ in 2..GivenCapability::MOST {
        sender.send_as(frames, (TransferMode::Copy, Rights::empty()), [1; 8], &receiver).unwrap();
    }
    let slots = || [&sender, &receiver].map(|process| process.table().len());
    let before = (slots(), last_given(&receiver));
    for mode in [TransferMode::Copy, TransferMode::Move] {
        let sent = sender.send_as(object, (mode, KEPT), [2; 8], &receiver);
        assert_eq!(sent, Err(CapError::TableFull));
        assert_eq!((slots(), last_given(&receiver)), before);
        assert_eq!([&ours, &theirs].map(committed), [3, 0]);
        assert_eq!(sender.info(object).map(|info| info.pages), Ok(PageCount::new(3)), "not in transit");
    }
    let (closed, _, _) = scene.process();
    closed.exit();
    assert_eq!(sender.send_as(object, (TransferMode::Move, KEPT), [2; 8], &closed), Err(CapError::Closed));
    assert_eq!((last_given(&closed).0, sender.info(object).is_ok()), (2, true));
    [&sender, &receiver].into_iter().for_each(|process| process.check_invariants());
}

#[test]
fn memory_grows_and_shrinks_within_what_is_paid() {
    let scene = Scene::new(64);
    let (process, account, frames) = scene.process();
    let (two, eight) = (PageCount::new(2), PageCount::new(8));
    assert_eq!(process.allocate_resizable(frames, eight, two).map(drop), Err(Errno::Inval.into()));
    let object = process.allocate_resizable(frames, two, eight).unwrap();
    assert_eq!((committed(&account), scene.pool.used(Resource::Frames)), (8, 2));
    process.map(object, at(of_object(0, 4), READ_WRITE, 0)).unwrap();
    assert_eq!((scene.load(&process, 1), scene.load(&process, 2)), (Some(0), None), "beyond the end");
    process.resize(object, PageCount::new(5)).unwrap();
    assert_eq!((scene.load(&process, 2), scene.pool.used(Resource::Frames)), (Some(0), 5));
    scene.store(&process, 3, 7).unwrap();
    process.resize(object, two).unwrap();
    assert_eq!((scene.load(&process, 3), scene.pool.used(Resource::Frames), committed(&account)), (None, 2, 12));
    process.resize(object, eight).unwrap();
    assert_eq!(scene.load(&process, 3), Some(0), "what comes is zeros");
    assert_eq!(process.resize(object, PageCount::new(9)), Err(Errno::Inval.into()));
    assert_eq!(process.resize(object, PageCount::new(u64::MAX)), Err(Errno::Inval.into()));
    scene.pool.set_limit(Resource::Frames, 4);
    process.resize(object, two).unwrap();
    assert_eq!(process.resize(object, eight).map_err(CapError::errno), Err(Errno::NoMem));
    assert_eq!((process.info(object).unwrap().bytes, scene.pool.used(Resource::Frames)), (2 * PAGE_SIZE, 2));
    assert_eq!(process.slice(object, of_object(0, 1), KEPT | Rights::RESIZE), Err(CapError::Rights));
    process.check_invariants();
    drop(process);
    scene.world.check_empty();
}

#[test]
fn a_snapshot_has_what_there_was_and_rights_of_its_own() {
    let scene = Scene::new(64);
    let (process, account, frames) = scene.process();
    let object = process.allocate(frames, PageCount::new(3), Placement::Scattered).unwrap();
    process.map(object, at(of_object(0, 3), READ_WRITE, 0)).unwrap();
    scene.store(&process, 1, 5).unwrap();
    let rights = Rights::READ | Rights::MAP | Rights::EXECUTE;
    let read_only = process.table().duplicate(object, rights).unwrap();
    let before = (committed(&account), scene.pool.used(Resource::Frames));
    let snapshot = process.snapshot(read_only, of_object(1, 2)).unwrap();
    assert_eq!((committed(&account), scene.pool.used(Resource::Frames)), (before.0 + 2, before.1), "frames are shared");
    assert_eq!(process.info(snapshot).unwrap().rights, Rights::READ | Rights::MAP | Rights::WRITE);
    process.map(snapshot, at(of_object(0, 2), READ_WRITE, 8)).unwrap();
    scene.store(&process, 1, 6).unwrap();
    scene.store(&process, 9, 7).unwrap();
    assert_eq!([1, 2, 8, 9].map(|number| scene.load(&process, number).unwrap()), [6, 0, 5, 7]);
    assert_eq!(scene.pool.used(Resource::Frames), before.1 + 2);
    let blind = process.table().duplicate(object, Rights::MAP).unwrap();
    assert_eq!(process.snapshot(blind, of_object(0, 1)), Err(CapError::Rights));
    assert_eq!(process.snapshot(object, of_object(2, 2)), Err(Errno::Inval.into()));
    assert_eq!(process.unmap_borrowed(object, range(8, 1)), Err(invalid()), "it is another object");
    process.check_invariants();
    drop(process);
    scene.world.check_empty();
}
