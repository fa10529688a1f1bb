//! Threads that reserve and wait: no writer beside anybody, no wake-up that is lost, nobody who waits for ever.

use std::sync::Arc;
use std::time::Duration;

use pagewarden::PhysAddr;
use pagewarden::phys::{Mode, PhysError, PhysRange, Reservations};
use shuttle::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use shuttle::thread;

use super::ORDERS;
use super::events::Events;

use Mode::{Exclusive, Shared};

/// Longer than any clock here goes.
const LONG: Duration = Duration::MAX;

/// A registry, and who is inside of a reservation of each of three pages: how many readers, or -1 for a writer.
#[derive(Clone)]
struct World {
    registry: Arc<Reservations<Events>>,
    inside: Arc<[AtomicI64; 3]>,
}

fn range(page: usize) -> PhysRange {
    PhysRange::new(PhysAddr::new(page as u64 * 4096).unwrap(), 4096).unwrap()
}

impl World {
    fn new() -> Self {
        Self { registry: Arc::new(Reservations::new(Events::default())), inside: Arc::default() }
    }

    fn reserve(&self, pages: &[usize], mode: Mode, timeout: Duration) -> Result<(), PhysError> {
        let ranges: Vec<_> = pages.iter().map(|page| range(*page)).collect();
        let guard = self.registry.reserve(&ranges, mode, timeout)?;
        self.enter_and_leave(pages, mode);
        drop(guard);
        Ok(())
    }

    /// Is inside for a while, and finds nobody there who must not be.
    fn enter_and_leave(&self, pages: &[usize], mode: Mode) {
        for page in pages {
            let (add, alone) = if mode == Exclusive { (-1, 0) } else { (1, i64::MAX) };
            let before = self.inside[*page].fetch_add(add, Ordering::SeqCst);
            assert!((0..=alone).contains(&before), "{before} were inside of page {page} before a {mode:?}");
        }
        thread::yield_now();
        for page in pages {
            let add = if mode == Exclusive { 1 } else { -1 };
            self.inside[*page].fetch_add(add, Ordering::SeqCst);
        }
    }

    fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || work(&world))
    }

    fn check_empty(&self) {
        self.registry.check_invariants();
        assert!(self.registry.is_empty());
    }
}

fn in_many_orders(case: impl Fn(&World) + Send + Sync + 'static) {
    let case = move || {
        let world = World::new();
        case(&world);
        world.check_empty();
    };
    shuttle::check_random(case, ORDERS);
}

#[test]
fn readers_and_writers_of_three_pages() {
    in_many_orders(|world| {
        let wanted: [(&[usize], Mode); 5] =
            [(&[0, 1], Exclusive), (&[1, 0], Exclusive), (&[2, 1], Shared), (&[1], Shared), (&[2, 0], Exclusive)];
        let work = |(pages, mode): (&'static [usize], Mode)| {
            world.spawn(move |world| {
                for _ in 0..2 {
                    world.reserve(pages, mode, LONG).unwrap();
                    world.registry.check_invariants();
                }
            })
        };
        let threads = wanted.map(work);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn those_who_try_beside_those_who_wait() {
    in_many_orders(|world| {
        let waits = [(0, Exclusive), (0, Shared)]
            .map(|(page, mode)| world.spawn(move |world| world.reserve(&[page, 1], mode, LONG).unwrap()));
        let tries = [Exclusive, Shared].map(|mode| {
            world.spawn(move |world| {
                for _ in 0..2 {
                    if let Ok(guard) = world.registry.try_reserve(&[range(0)], mode) {
                        world.enter_and_leave(&[0], mode);
                        drop(guard);
                    }
                }
            })
        });
        waits.into_iter().chain(tries).for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_writer_who_waits_goes_before_readers_who_come_later() {
    in_many_orders(|world| {
        let reader = world.registry.try_reserve(&[range(0)], Shared).unwrap();
        let written = Arc::new(AtomicBool::new(false));
        let writer = world.spawn({
            let written = Arc::clone(&written);
            move |world| {
                let guard = world.registry.reserve(&[range(0)], Exclusive, LONG).unwrap();
                written.store(true, Ordering::SeqCst);
                drop(guard);
            }
        });
        // Once even readers are refused, the writer is in the queue.
        while world.reserve(&[0], Shared, Duration::ZERO).is_ok() {
            thread::yield_now();
        }
        let later = world.spawn(move |world| {
            let guard = world.registry.reserve(&[range(0)], Shared, LONG).unwrap();
            assert!(written.load(Ordering::SeqCst), "a reader came first");
            drop(guard);
        });
        thread::yield_now();
        drop(reader);
        writer.join().unwrap();
        later.join().unwrap();
    });
}

#[test]
fn who_gives_up_lets_those_behind_go() {
    in_many_orders(|world| {
        let held = world.registry.try_reserve(&[range(0)], Shared).unwrap();
        let has_given_up = Arc::new(AtomicBool::new(false));
        let writer = world.spawn({
            let has_given_up = Arc::clone(&has_given_up);
            move |world| {
                let refused = world.reserve(&[0], Exclusive, Duration::from_secs(1));
                assert_eq!(refused, Err(PhysError::TimedOut(range(0))));
                has_given_up.store(true, Ordering::SeqCst);
            }
        });
        let behind = world.spawn(|world| world.reserve(&[0], Shared, LONG).unwrap());
        // Its time begins when it finds the page taken, whenever that is.
        while !has_given_up.load(Ordering::SeqCst) {
            world.registry.events().advance(Duration::from_secs(1));
            thread::yield_now();
        }
        // What was held is still: nothing else wakes the reader.
        behind.join().unwrap();
        writer.join().unwrap();
        drop(held);
    });
}

#[test]
fn a_wait_ends_by_time_or_by_a_release() {
    in_many_orders(|world| {
        let held = world.registry.try_reserve(&[range(0)], Exclusive).unwrap();
        let writer = world.spawn(|world| match world.reserve(&[0, 1], Exclusive, Duration::from_secs(1)) {
            Ok(()) => {}
            Err(refusal) => assert_eq!(refusal, PhysError::TimedOut(range(0))),
        });
        let clock = world.spawn(|world| world.registry.events().advance(Duration::from_secs(1)));
        drop(held);
        clock.join().unwrap();
        writer.join().unwrap();
    });
}
