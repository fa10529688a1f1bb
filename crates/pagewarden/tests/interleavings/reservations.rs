//! Two or three threads that reserve and wait, in every order.

use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use pagewarden::PhysAddr;
use pagewarden::phys::{Mode, PhysError, PhysRange, Reservations};

use super::events::Events;
use super::{both, every_order, orders};

use Mode::{Exclusive, Shared};

/// Longer than any clock here goes.
const LONG: Duration = Duration::from_secs(1000);

/// A registry, and what its first page guards: loom refuses a store beside any other access.
struct World {
    registry: Reservations<Events>,
    guarded: UnsafeCell<u64>,
}

fn range(page: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(page * 4096).unwrap(), 4096).unwrap()
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { registry: Reservations::new(Events::default()), guarded: UnsafeCell::new(0) })
    }

    fn write(&self, pages: &[u64], timeout: Duration) -> Result<(), PhysError> {
        let ranges: Vec<_> = pages.iter().map(|page| range(*page)).collect();
        let guard = self.registry.reserve(&ranges, Exclusive, timeout)?;
        self.guarded.with_mut(|_| ());
        drop(guard);
        Ok(())
    }

    fn read(&self, pages: &[u64]) {
        let ranges: Vec<_> = pages.iter().map(|page| range(*page)).collect();
        let guard = self.registry.reserve(&ranges, Shared, LONG).unwrap();
        self.guarded.with(|_| ());
        drop(guard);
    }

    fn check_empty(&self) {
        self.registry.check_invariants();
        assert!(self.registry.is_empty());
    }
}

/// Runs both at once on one registry.
fn beside(one: fn(&World), other: fn(&World)) {
    let world = World::new();
    let theirs = Arc::clone(&world);
    both(move || other(&theirs), || one(&world));
    world.check_empty();
}

#[test]
fn two_writers_of_a_page_take_turns() {
    every_order(|| beside(|world| world.write(&[0], LONG).unwrap(), |world| world.write(&[0], LONG).unwrap()));
}

#[test]
fn a_writer_and_a_reader_that_name_two_pages_in_opposite_orders() {
    every_order(|| beside(|world| world.write(&[0, 1], LONG).unwrap(), |world| world.read(&[1, 0])));
}

#[test]
fn a_writer_that_tries_beside_one_that_waits() {
    every_order(|| {
        beside(
            |world| world.write(&[0], LONG).unwrap(),
            |world| {
                if let Ok(guard) = world.registry.try_reserve(&[range(1), range(0)], Exclusive) {
                    world.guarded.with_mut(|_| ());
                    drop(guard);
                }
            },
        );
    });
}

#[test]
fn a_wait_ends_by_a_release_or_by_time() {
    every_order(|| {
        let world = World::new();
        let held = world.registry.try_reserve(&[range(0)], Shared).unwrap();
        let theirs = Arc::clone(&world);
        let wait = move || match theirs.write(&[0], Duration::from_secs(1)) {
            Ok(()) => {}
            Err(refusal) => assert_eq!(refusal, PhysError::TimedOut(range(0))),
        };
        both(wait, || {
            world.registry.events().advance(Duration::from_secs(1));
            drop(held);
        });
        world.check_empty();
    });
}

#[test]
fn a_reader_behind_a_writer_that_gives_up() {
    orders(2, || {
        let world = World::new();
        let held = world.registry.try_reserve(&[range(0)], Shared).unwrap();
        let (writer, reader) = (Arc::clone(&world), Arc::clone(&world));
        let writer = loom::thread::spawn(move || {
            // Its time begins when it finds the page taken: before the clock goes on, or after.
            let refused = writer.write(&[0], Duration::from_secs(1));
            assert!(refused.is_ok() || refused == Err(PhysError::TimedOut(range(0))));
        });
        let reader = loom::thread::spawn(move || reader.read(&[0]));
        world.registry.events().advance(Duration::from_secs(1));
        world.registry.events().advance(Duration::from_secs(1));
        drop(held);
        writer.join().unwrap();
        reader.join().unwrap();
        world.check_empty();
    });
}
