//! Threads that reserve ranges and wait for them: for what is free, in turn, until their time is over, and all at once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pagewarden::PhysAddr;
use pagewarden::phys::{EventCount, Mode, PhysError, PhysRange, Reservation, Reservations};

use super::Numbers;

use Mode::{Exclusive, Shared};

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(600);
/// What has not happened after this long is taken not to happen.
const SHORT: Duration = Duration::from_millis(20);
const PAGES: u64 = 12;
const THREADS: u64 = 6;
const STEPS: u64 = 1500;

/// Events that threads of the host wait for.
struct Events {
    start: Instant,
    count: Mutex<u32>,
    changed: Condvar,
}

impl EventCount for Events {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn count(&self) -> u32 {
        *self.count.lock().unwrap()
    }

    fn wait(&self, seen: u32, deadline: Duration) {
        let left = deadline.saturating_sub(self.now());
        let count = self.count.lock().unwrap();
        // No condition variable waits as long as a deadline may be away.
        let _ = self.changed.wait_timeout_while(count, left.min(LONG), |count| *count == seen).unwrap();
    }

    fn notify(&self) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

type Registry = Reservations<Events>;

fn registry() -> Registry {
    Reservations::new(Events { start: Instant::now(), count: Mutex::new(0), changed: Condvar::new() })
}

fn range(first: u64, pages: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(first * 4096).unwrap(), pages * 4096).unwrap()
}

/// Returns once a writer waits for `page`, which readers have: others are refused then.
fn until_a_writer_waits(registry: &Registry, page: PhysRange) {
    while registry.reserve(&[page], Shared, Duration::ZERO).is_ok() {
        thread::yield_now();
    }
}

fn check_empty(registry: &Registry) {
    registry.check_invariants();
    assert!(registry.is_empty());
}

#[test]
fn who_waits_is_woken_by_the_release() {
    let registry = registry();
    let held = registry.try_reserve(&[range(0, 4)], Shared).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| registry.reserve(&[range(9, 1), range(3, 2)], Exclusive, Duration::MAX).map(drop));
        until_a_writer_waits(&registry, range(4, 1));
        assert!(!writer.is_finished());
        // Nobody has it, but somebody came before.
        let refused = registry.reserve(&[range(9, 1)], Shared, Duration::ZERO).map(drop);
        assert_eq!(refused, Err(PhysError::TimedOut(range(9, 1))));
        drop(held);
        writer.join().unwrap().unwrap();
    });
    check_empty(&registry);
}

#[test]
fn who_waits_in_vain_is_told_by_whom() {
    let registry = registry();
    let _held = registry.try_reserve(&[range(2, 4)], Exclusive).unwrap();
    let before = Instant::now();
    let refused = registry.reserve(&[range(5, 1)], Shared, SHORT).map(drop);
    assert_eq!(refused, Err(PhysError::TimedOut(range(2, 4))));
    assert!(before.elapsed() >= SHORT);
}

#[test]
fn readers_do_not_starve_a_writer() {
    let registry = registry();
    let first = registry.try_reserve(&[range(0, 1)], Shared).unwrap();
    let has_written = AtomicBool::new(false);
    let turn = || has_written.load(Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = registry.reserve(&[range(0, 1)], Exclusive, LONG).unwrap();
            has_written.store(true, Ordering::SeqCst);
        });
        until_a_writer_waits(&registry, range(0, 1));
        let later: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| registry.reserve(&[range(0, 1)], Shared, LONG).map(|_guard| turn()).unwrap()))
            .collect();
        // Who does not wait may come in between, and who wants something else is not held up.
        assert!(registry.try_reserve(&[range(0, 1)], Shared).is_ok());
        assert!(registry.reserve(&[range(1, 1)], Exclusive, LONG).is_ok());
        thread::sleep(SHORT);
        assert!(!turn() && later.iter().all(|reader| !reader.is_finished()));
        drop(first);
        assert!(later.into_iter().all(|reader| reader.join().unwrap()), "a reader came before the writer");
    });
    check_empty(&registry);
}

#[test]
fn who_gives_up_lets_those_behind_go() {
    let registry = registry();
    let held = registry.try_reserve(&[range(0, 1)], Shared).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| registry.reserve(&[range(0, 2)], Exclusive, SHORT).map(drop));
        let reader = scope.spawn(|| registry.reserve(&[range(0, 2)], Shared, LONG).map(drop));
        assert_eq!(writer.join().unwrap(), Err(PhysError::TimedOut(range(0, 1))));
        // What was held is still: nothing else wakes the reader, should it be behind.
        reader.join().unwrap().unwrap();
    });
    drop(held);
    check_empty(&registry);
}

/// Events whose wait panics.
struct Broken;

impl EventCount for Broken {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn count(&self) -> u32 {
        0
    }

    fn wait(&self, _: u32, _: Duration) {
        panic!("no way to wait");
    }

    fn notify(&self) {
        panic!("nobody is there to be woken");
    }
}

#[test]
fn who_panics_while_it_waits_leaves_the_queue() {
    let registry = Reservations::new(Broken);
    let held = registry.try_reserve(&[range(0, 1)], Shared).unwrap();
    let wait = || registry.reserve(&[range(0, 1)], Exclusive, LONG).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(wait)).is_err());
    registry.check_invariants();
    assert!(registry.reserve(&[range(0, 1)], Shared, Duration::ZERO).is_ok(), "it is still in the way");
    drop(held);
    assert!(registry.is_empty());
}

/// A thread that reserves at random, and who is inside of each page: how many readers, or -1 for a writer.
struct Worker<'a> {
    registry: &'a Registry,
    inside: &'a [AtomicI64],
    numbers: Numbers,
}

impl Worker<'_> {
    fn reserve(&mut self) -> Result<Reservation<'_, Events>, PhysError> {
        let mode = if self.numbers.below(3) == 0 { Exclusive } else { Shared };
        let middle = 1 + self.numbers.below(PAGES - 2);
        let (first, second) = (self.numbers.below(middle), middle + self.numbers.below(PAGES - middle));
        let mut wanted = vec![range(second, 1 + self.numbers.below(PAGES - second))];
        if self.numbers.below(2) == 0 {
            wanted.push(range(first, 1 + self.numbers.below(middle - first)));
        }
        match self.numbers.below(4) {
            0 => self.registry.try_reserve(&wanted, mode),
            1 => self.registry.reserve(&wanted, mode, Duration::from_micros(50)),
            _ => self.registry.reserve(&wanted, mode, LONG),
        }
    }

    fn step(&mut self) -> bool {
        let inside = self.inside;
        let Ok(guard) = self.reserve() else { return false };
        let pages = || guard.ranges().iter().flat_map(|range| range.start() / 4096..range.end() / 4096);
        let at = |page: u64| &inside[usize::try_from(page).unwrap()];
        let (step, most) = if guard.mode() == Exclusive { (-1, 0) } else { (1, i64::MAX) };
        for page in pages() {
            let before = at(page).fetch_add(step, Ordering::Relaxed);
            assert!((0..=most).contains(&before), "{before} were inside of page {page}");
        }
        pages().for_each(|page| {
            at(page).fetch_sub(step, Ordering::Relaxed);
        });
        true
    }
}

#[test]
fn many_threads_reserve_at_random() {
    let registry = registry();
    let inside: Vec<AtomicI64> = (0..PAGES).map(|_| AtomicI64::new(0)).collect();
    let done: u64 = thread::scope(|scope| {
        let work = |number| {
            let mut worker = Worker { registry: &registry, inside: &inside, numbers: Numbers::new(number + 71) };
            scope.spawn(move || {
                (0..STEPS)
                    .map(|step| {
                        if step % 64 == 0 {
                            worker.registry.check_invariants();
                        }
                        u64::from(worker.step())
                    })
                    .sum::<u64>()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(done > THREADS * STEPS / 2, "only {done} were successful");
    check_empty(&registry);
}
