//! Handles, mappings and snapshots of several processes at once: no frame is lost, none is freed while somebody shows it,
//! and nobody pays for anything at the end.

use std::sync::Arc;

use pagewarden::cap::{CapError, FixedPlaces, FrameAllocatorCap, Handle, Mapping, Process, Rights, TransferMode};
use pagewarden::machine::Machine;
use pagewarden::manager::{Layout, Place, SpaceConfig};
use pagewarden::object::{ObjectPages, Placement};
use pagewarden::{Limits, PageCount, Prot, Resource, VirtAddr};
use shuttle::thread;

use super::world::{World, page};
use super::{ORDERS, munmap, new_world};

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);
const SHARED: Rights = Rights::READ.union(Rights::WRITE).union(Rights::MAP).union(Rights::TRANSFER);

fn process(world: &World) -> Process<Machine> {
    let places = FixedPlaces { capability_set: VirtAddr::new(page(100)), ring: VirtAddr::new(page(101)) };
    let config = SpaceConfig::new(Layout::X86_64, world.ledger.root().child(Limits::UNLIMITED));
    Process::new(&world.pager, config, places).unwrap()
}

/// Two pages that `process` holds, of which the first holds `byte` throughout its first bytes.
fn two_pages(world: &World, process: &Process<Machine>, byte: u8) -> Handle {
    let pool = Arc::new(FrameAllocatorCap::new(&world.pager, world.ledger.root().child(Limits::UNLIMITED)));
    let frames = process.give(pool, Rights::empty(), [0; 8]).unwrap();
    let object = process.allocate(frames, PageCount::new(2), Placement::Scattered).unwrap();
    process.write(object, 0, &[byte; 4]).unwrap();
    object
}

fn mapping(first: u64) -> Mapping {
    let part = ObjectPages::new(0, PageCount::new(2)).unwrap();
    Mapping { part, prot: READ_WRITE, place: Place::At(VirtAddr::new(page(first))) }
}

/// What two processes start with.
struct Pair {
    world: Arc<World>,
    a: Arc<Process<Machine>>,
    b: Arc<Process<Machine>>,
    /// Two pages, 7 in the first, that `a` holds.
    object: Handle,
}

/// Runs `one` beside `other` on two processes that `prepare` has prepared, in many orders; at the end nothing is left.
fn beside<A: Send + 'static>(prepare: fn(&Pair), one: fn(&Pair) -> A, other: fn(&Pair), after: fn(&Pair, A)) {
    shuttle::check_random(
        move || {
            let world = new_world(64);
            let (a, b) = (Arc::new(process(&world)), Arc::new(process(&world)));
            let object = two_pages(&world, &a, 7);
            let ours = Pair { world, a, b, object };
            prepare(&ours);
            let theirs = Pair { world: ours.world.clone(), a: ours.a.clone(), b: ours.b.clone(), object: ours.object };
            let thread = thread::spawn(move || other(&theirs));
            let outcome = one(&ours);
            thread.join().unwrap();
            ours.a.check_invariants();
            ours.b.check_invariants();
            after(&ours, outcome);
            let Pair { world, a, b, .. } = ours;
            drop((a, b));
            world.check_empty();
        },
        ORDERS,
    );
}

fn nothing(_: &Pair) {}

fn show(pair: &Pair) {
    pair.a.map(pair.object, mapping(0)).unwrap();
}

/// How many handles to memory the process has.
fn handles(process: &Process<Machine>) -> usize {
    process.table().read().handles().filter(|info| info.rights.contains(Rights::READ)).count()
}

#[test]
fn a_move_beside_the_release_of_the_handle() {
    beside(
        nothing,
        |pair| pair.a.send(pair.object, TransferMode::Move, SHARED, &pair.b),
        |pair| {
            let _ = pair.a.table().release(pair.object);
        },
        |pair, moved| {
            let expected = match moved {
                Ok(_) => (0, 1),
                Err(CapError::BadHandle) => (0, 0),
                Err(other) => panic!("{other}"),
            };
            assert_eq!((handles(&pair.a), handles(&pair.b)), expected);
        },
    );
}

#[test]
fn a_move_beside_the_exit_of_the_receiver() {
    beside(
        nothing,
        |pair| pair.a.send(pair.object, TransferMode::Move, SHARED, &pair.b),
        |pair| pair.b.exit(),
        |pair, moved| {
            assert_eq!(handles(&pair.b), 0);
            let is_back = matches!(moved, Err(CapError::Closed));
            assert_eq!(handles(&pair.a), usize::from(is_back), "{moved:?}");
            assert_eq!(pair.a.info(pair.object).is_ok(), is_back, "what was in transit is live again, or stale");
        },
    );
}

#[test]
fn a_copy_beside_the_exit_of_the_sender() {
    beside(
        nothing,
        |pair| pair.a.send(pair.object, TransferMode::Copy, SHARED, &pair.b),
        |pair| pair.a.exit(),
        |pair, copied| {
            assert_eq!((handles(&pair.a), handles(&pair.b)), (0, usize::from(copied.is_ok())));
            if let Ok(handle) = copied {
                let mut byte = [0];
                pair.b.read(handle, 0, &mut byte).unwrap();
                assert_eq!(byte, [7]);
            }
        },
    );
}

#[test]
fn a_mapping_beside_the_release_of_the_last_handle() {
    beside(
        nothing,
        |pair| pair.a.map(pair.object, mapping(0)),
        |pair| pair.a.table().release(pair.object).unwrap(),
        |pair, mapped| match mapped {
            // What is shown is what the object held, whoever let the handle go in between.
            Ok(_) => {
                assert_eq!(pair.world.load(0, pair.a.space(), page(0)), Ok(7));
                assert_eq!(pair.world.load(0, pair.a.space(), page(1)), Ok(0));
                assert_eq!(pair.world.ledger.root().used(Resource::Committed), 2);
            }
            Err(refused) => {
                assert_eq!(refused, CapError::BadHandle);
                assert_eq!(pair.world.ledger.root().used(Resource::Committed), 0);
            }
        },
    );
}

#[test]
fn a_store_beside_the_end_of_all_that_keeps_the_page() {
    beside(
        show,
        |pair| {
            pair.a.table().release(pair.object).unwrap();
            // The page may be gone already.
            let _ = pair.world.store(0, pair.a.space(), page(0), 1);
        },
        |pair| {
            let _ = pair.a.space().call(&munmap(0, 2));
        },
        |pair, ()| {
            let is_mapped = pair.world.load(0, pair.a.space(), page(0)).is_ok();
            let paid = pair.world.ledger.root().used(Resource::Committed);
            assert_eq!(paid, if is_mapped { 2 } else { 0 });
        },
    );
}

#[test]
fn stores_on_both_sides_of_a_snapshot() {
    beside(
        show,
        |pair| {
            pair.world.store(0, pair.a.space(), page(0), 1).unwrap();
            let snapshot = pair.a.snapshot(pair.object, ObjectPages::new(0, PageCount::new(2)).unwrap()).unwrap();
            pair.world.store(0, pair.a.space(), page(0), 2).unwrap();
            snapshot
        },
        |pair| {
            // Whenever this comes, it is in the object and, if it came before, in the snapshot.
            let _ = pair.a.write(pair.object, 1, &[9]);
        },
        |pair, snapshot| {
            let mut bytes = [0; 2];
            pair.a.read(snapshot, 0, &mut bytes).unwrap();
            assert!([[1, 7], [1, 9]].contains(&bytes), "{bytes:?}");
            pair.a.read(pair.object, 0, &mut bytes).unwrap();
            assert_eq!(bytes, [2, 9]);
        },
    );
}

#[test]
fn two_objects_let_go_of_a_frame_at_once() {
    shuttle::check_random(
        || {
            let world = new_world(64);
            let (a, b) = (Arc::new(process(&world)), Arc::new(process(&world)));
            let object = two_pages(&world, &a, 7);
            let snapshot = a.snapshot(object, ObjectPages::new(0, PageCount::new(2)).unwrap()).unwrap();
            let snapshot = a.send(snapshot, TransferMode::Move, SHARED, &b).unwrap();
            a.map(object, mapping(0)).unwrap();
            b.map(snapshot, mapping(0)).unwrap();
            // So that both show the frame that they are about to part with.
            for process in [&a, &b] {
                assert_eq!(world.load(0, process.space(), page(0)), Ok(7));
            }
            let (their_world, theirs) = (world.clone(), b.clone());
            let thread = thread::spawn(move || their_world.store(1, theirs.space(), page(0), 2).unwrap());
            world.store(0, a.space(), page(0), 1).unwrap();
            thread.join().unwrap();
            let shown =
                [&a, &b].map(|process| [0, 1].map(|offset| world.load(0, process.space(), page(0) + offset).unwrap()));
            assert_eq!(shown, [[1, 7], [2, 7]]);
            a.check_invariants();
            b.check_invariants();
            drop((a, b));
            world.check_empty();
        },
        ORDERS,
    );
}

#[test]
fn a_fork_beside_the_return_of_what_is_borrowed() {
    beside(
        show,
        |pair| pair.a.fork(pair.world.ledger.root().child(Limits::UNLIMITED)).unwrap(),
        |pair| {
            let _ = pair.a.space().call(&munmap(0, 1));
            let _ = pair.a.table().release(pair.object);
        },
        |pair, child| {
            child.check_invariants();
            // The second page was not unmapped, if it was mapped at all when the other came.
            assert_eq!(pair.world.load(0, child.space(), page(1)), Ok(0));
            let first = pair.world.load(0, child.space(), page(0));
            assert!(first.is_err() || first == Ok(7), "{first:?}");
        },
    );
}
