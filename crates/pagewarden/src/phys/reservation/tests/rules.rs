//! The rules, one by one.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Calls, range, registry};
use crate::addr::PhysAddr;
use crate::frame::FrameNumber;
use crate::phys::PhysError::{DuplicatePage, Invalid, Reserved, TimedOut};
use crate::phys::{EventCount, Mode, PhysError, PhysRange};
use Mode::{Exclusive, Shared};

/// The end of physical memory.
const END: u64 = 1 << PhysAddr::BITS;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn readers_go_together_and_a_writer_with_nobody() {
    let registry = registry();
    let (held, wanted) = (range(0x1000, 0x2000), range(0x1800, 0x2800));
    for (first, second, is_free) in
        [(Shared, Shared, true), (Shared, Exclusive, false), (Exclusive, Shared, false), (Exclusive, Exclusive, false)]
    {
        let guard = registry.try_reserve(&[held], first).unwrap();
        let other = registry.try_reserve(&[wanted], second);
        registry.check_invariants();
        let expected = if is_free { Ok(()) } else { Err(Reserved(held)) };
        assert_eq!(other.as_ref().map(|_| ()).map_err(|error| *error), expected, "{first:?} and {second:?}");
        drop((guard, other));
        assert!(registry.is_empty());
    }
}

#[test]
fn a_request_for_nothing_is_refused() {
    let registry = registry();
    assert_eq!(registry.try_reserve(&[], Shared).unwrap_err(), Invalid);
    assert_eq!(registry.reserve(&[], Exclusive, SECOND).unwrap_err(), Invalid);
    assert!(registry.is_empty());
}

#[test]
fn ranges_that_touch_do_not_meet() {
    let registry = registry();
    let guards: Vec<_> = [range(0, 1), range(1, 0x1000), range(0x1000, 0x1001), range(END - 2, END - 1)]
        .iter()
        .map(|range| registry.try_reserve(&[*range], Exclusive).unwrap())
        .collect();
    let last = registry.try_reserve(&[range(END - 1, END)], Exclusive).unwrap();
    registry.check_invariants();
    assert_eq!(registry.len(), 5);
    for (wanted, other) in [((0, 2), (0, 1)), ((0xfff, 0x1000), (1, 0x1000)), ((END - 1, END), (END - 1, END))] {
        let wanted = range(wanted.0, wanted.1);
        for mode in [Shared, Exclusive] {
            assert_eq!(registry.try_reserve(&[wanted], mode).unwrap_err(), Reserved(range(other.0, other.1)));
        }
    }
    drop((guards, last));
    registry.check_invariants();
    assert!(registry.is_empty());
}

#[test]
fn all_of_memory_meets_everything() {
    let registry = registry();
    let byte = registry.try_reserve(&[range(END - 1, END)], Shared).unwrap();
    assert_eq!(registry.try_reserve(&[range(0, END)], Exclusive).unwrap_err(), Reserved(range(END - 1, END)));
    let all = registry.try_reserve(&[range(0, END)], Shared).unwrap();
    registry.check_invariants();
    assert_eq!(registry.try_reserve(&[range(7, 8)], Exclusive).unwrap_err(), Reserved(range(0, END)));
    drop((byte, all));
    let _all = registry.try_reserve(&[range(0, END)], Exclusive).unwrap();
    assert_eq!(registry.try_reserve(&[range(7, 8)], Shared).unwrap_err(), Reserved(range(0, END)));
}

#[test]
fn a_byte_that_one_request_names_twice_is_refused() {
    let registry = registry();
    let frame = |number| DuplicatePage(FrameNumber::new(number).unwrap());
    let refused = |ranges: &[PhysRange], expected: PhysError| {
        for mode in [Shared, Exclusive] {
            assert_eq!(registry.try_reserve(ranges, mode).unwrap_err(), expected);
            assert_eq!(registry.reserve(ranges, mode, SECOND).unwrap_err(), expected);
        }
        registry.check_invariants();
        assert!(registry.is_empty());
    };
    refused(&[range(0x1000, 0x2000), range(0x1000, 0x2000)], frame(1));
    refused(&[range(0x5000, 0x6000), range(0x1000, 0x4000), range(0x3fff, 0x5001)], frame(3));
    refused(&[range(0x2800, 0x2900), range(0x1000, 0x9000), range(0x8000, 0x8001)], frame(2));
    refused(&[range(END - 1, END), range(0, END)], frame(FrameNumber::END - 1));
}

#[test]
fn ranges_of_one_page_may_be_named_together() {
    let registry = registry();
    let ranges = [range(0x1800, 0x2000), range(0x1000, 0x1800)];
    let guard = registry.try_reserve(&ranges, Exclusive).unwrap();
    assert_eq!((guard.ranges(), guard.mode(), registry.len()), (&[ranges[1], ranges[0]][..], Exclusive, 2));
}

#[test]
fn a_request_gets_all_or_nothing() {
    let registry = registry();
    let held = registry.try_reserve(&[range(0x3000, 0x4000)], Shared).unwrap();
    let wanted = [range(0x1000, 0x2000), range(0x5000, 0x6000), range(0x3800, 0x3801)];
    assert_eq!(registry.try_reserve(&wanted, Exclusive).unwrap_err(), Reserved(range(0x3000, 0x4000)));
    registry.check_invariants();
    assert_eq!(registry.len(), 1);
    let shared = registry.try_reserve(&wanted, Shared).unwrap();
    assert_eq!((registry.len(), shared.mode()), (4, Shared));
    drop((held, shared));
    let exclusive = registry.try_reserve(&wanted, Exclusive).unwrap();
    registry.check_invariants();
    drop(exclusive);
    assert!(registry.is_empty());
}

#[test]
fn readers_of_the_same_range_count_one_by_one() {
    let registry = registry();
    let wanted = [range(0x1000, 0x2000)];
    let mut guards: Vec<_> = (0..100).map(|_| registry.try_reserve(&wanted, Shared).unwrap()).collect();
    assert_eq!(registry.len(), 100);
    while let Some(guard) = guards.pop() {
        assert_eq!(registry.try_reserve(&wanted, Exclusive).unwrap_err(), Reserved(wanted[0]));
        drop(guard);
        registry.check_invariants();
        assert_eq!(registry.len(), guards.len());
    }
    assert!(registry.try_reserve(&wanted, Exclusive).is_ok());
}

#[test]
fn guards_are_dropped_in_any_order() {
    let registry = registry();
    let ranges = [range(0, 0x9000), range(0x1000, 0x8000), range(0x1000, 0x2000), range(0x2000, 0x3000)];
    for first in 0..4 {
        let mut guards = ranges.map(|range| Some(registry.try_reserve(&[range], Shared).unwrap()));
        for step in 0..4 {
            guards[(first + step * 3) % 4] = None;
            registry.check_invariants();
            for (range, guard) in ranges.iter().zip(&guards) {
                // The first that are gone leave what is around them.
                let is_free = guards.iter().flatten().all(|other| !other.ranges()[0].intersects(*range));
                assert_eq!(registry.try_reserve(&[*range], Exclusive).is_ok(), is_free, "{guard:?}");
            }
        }
        assert!(registry.is_empty());
    }
}

#[test]
fn what_is_held_without_a_guard_stays_until_it_is_released() {
    let registry = registry();
    let wanted = [range(0x1000, 0x2000), range(0x4000, 0x5000)];
    let guard = registry.try_reserve(&wanted, Exclusive).unwrap();
    assert!(core::ptr::eq(guard.registry(), &raw const registry));
    let held = guard.into_held().unwrap();
    assert_eq!((held.mode(), registry.len()), (Exclusive, 2));
    assert_eq!(registry.try_reserve(&wanted, Shared).unwrap_err(), Reserved(wanted[0]));
    registry.release(held);
    registry.check_invariants();
    assert!(registry.is_empty());
}

#[test]
fn without_time_there_is_one_attempt() {
    let registry = registry();
    let wanted = [range(0x1000, 0x2000)];
    let free = registry.reserve(&wanted, Exclusive, Duration::ZERO).unwrap();
    assert_eq!(registry.reserve(&wanted, Shared, Duration::ZERO).unwrap_err(), TimedOut(wanted[0]));
    drop(free);
    assert_eq!(registry.events().calls(), Calls::default(), "nobody waited");
    registry.check_invariants();
}

#[test]
fn who_waits_in_vain_leaves_nothing_behind() {
    let registry = registry();
    let held = registry.try_reserve(&[range(0x1000, 0x3000)], Shared).unwrap();
    let wanted = [range(0, 0x800), range(0x2000, 0x2001)];
    assert_eq!(registry.reserve(&wanted, Exclusive, SECOND).unwrap_err(), TimedOut(range(0x1000, 0x3000)));
    assert_eq!(registry.events().now(), SECOND);
    registry.check_invariants();
    assert_eq!(registry.len(), 1);
    drop(held);
    let calls = Calls { waits: 1, notifies: 0 };
    assert_eq!(registry.events().calls(), calls, "somebody was woken where nobody waits");
    assert!(registry.reserve(&wanted, Exclusive, SECOND).is_ok());
}

#[test]
fn a_wait_without_end_ends_with_time() {
    let registry = registry();
    let wanted = [range(0x1000, 0x3000)];
    let _held = registry.try_reserve(&wanted, Shared).unwrap();
    registry.events().set_now(SECOND);
    assert_eq!(registry.reserve(&wanted, Exclusive, Duration::MAX).unwrap_err(), TimedOut(wanted[0]));
    assert_eq!(registry.events().now(), Duration::MAX);
}
