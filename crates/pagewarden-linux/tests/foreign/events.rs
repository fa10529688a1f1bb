//! Waiting for another thread.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pagewarden::phys::EventCount;
use pagewarden_linux::foreign::FutexEvents;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_notice_wakes_everybody_who_waits() {
    let events = FutexEvents::new();
    let woken = AtomicU32::new(0);
    let start = events.now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while events.count() == 0 {
                    events.wait(0, start + LONG);
                }
                woken.fetch_add(1, Ordering::Relaxed);
            });
        }
        thread::sleep(Duration::from_millis(50));
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        events.notify();
    });
    assert_eq!((events.count(), woken.load(Ordering::Relaxed)), (1, 4));
    assert!(events.now() - start < LONG / 2, "they were woken, and did not wait for the end");
}

#[test]
fn who_has_missed_a_notice_does_not_wait() {
    let events = FutexEvents::new();
    let seen = events.count();
    events.notify();
    let start = events.now();
    events.wait(seen, start + LONG);
    events.wait(seen, Duration::MAX);
    assert!(events.now() - start < LONG / 2);
}

#[test]
fn nobody_waits_longer_than_to_the_deadline() {
    let events = FutexEvents::new();
    let start = events.now();
    let deadline = start + Duration::from_millis(30);
    while events.now() < deadline {
        events.wait(0, deadline);
    }
    assert!(events.now() - start < LONG / 2);
    let before = events.now();
    events.wait(0, Duration::ZERO);
    assert!(events.now() - before < LONG / 2, "what is over is over");
}

#[test]
fn who_waits_sleeps() {
    let events = FutexEvents::new();
    let deadline = events.now() + Duration::from_millis(100);
    let mut wakes = 0;
    while events.now() < deadline {
        events.wait(0, deadline);
        wakes += 1;
    }
    assert!(wakes < 20, "{wakes} returns in a tenth of a second");
}
