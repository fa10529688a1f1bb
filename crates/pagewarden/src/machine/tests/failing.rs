//! Failure on command.

use std::string::ToString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::vec::Vec;

use super::{alone, beside};
use crate::machine::{FailPoint, Injected};

#[test]
fn the_operation_that_was_named_fails_and_no_other() {
    let point = FailPoint::new("allocation");
    let other = point.clone();
    let failures = |count| (0..count).filter_map(|_| other.pass().err()).map(|it| it.operation).collect::<Vec<_>>();
    assert_eq!(failures(3), []);
    assert_eq!(point.operations(), 3);
    point.fail_once(2);
    assert_eq!(failures(5), [2]);
    assert_eq!((point.operations(), point.failed()), (5, 1));
    assert_eq!(point.disarm(), 1);
    assert_eq!(failures(5), []);
    point.fail_since(3);
    assert_eq!(failures(5), [3, 4]);
    point.fail_once(0);
    assert_eq!(point.pass(), Err(Injected { kind: "allocation", operation: 0 }));
    point.fail_once(9);
    assert_eq!(failures(9), []);
    assert_eq!(point.disarm(), 0, "the loop over all operations is done");
    point.fail_since(0);
    assert_eq!(point.disarm(), 0);
    assert_eq!(failures(3), [], "what has not failed yet never does");
}

#[test]
fn what_has_failed_is_told() {
    let point = FailPoint::new("flush");
    point.fail_once(1);
    point.pass().unwrap();
    assert_eq!(point.pass().unwrap_err().to_string(), "flush 1 was told to fail");
    assert_eq!(point.kind(), "flush");
}

#[test]
fn each_operation_has_a_number_of_its_own() {
    let _alone = alone();
    let point = FailPoint::new("read");
    point.fail_since(0);
    // How often one thread has come between two operations of the other.
    let turns = AtomicU64::new(0);
    let pass = || {
        let mut numbers = std::vec![point.pass().unwrap_err().operation];
        while turns.load(Ordering::Relaxed) < 1000 && numbers.len() < 200_000 {
            let number = point.pass().unwrap_err().operation;
            turns.fetch_add(u64::from(numbers.last() != number.checked_sub(1).as_ref()), Ordering::Relaxed);
            numbers.push(number);
        }
        numbers
    };
    let mut numbers = thread::scope(|scope| {
        let other = scope.spawn(pass);
        [pass(), other.join().unwrap()].concat()
    });
    numbers.sort_unstable();
    let count = u64::try_from(numbers.len()).unwrap();
    assert!(numbers.into_iter().eq(0..count));
    assert_eq!((point.operations(), point.failed()), (count, count), "and each failure is counted");
}

#[test]
fn nothing_fails_by_the_way_while_the_point_is_armed() {
    let point = FailPoint::new("read");
    let pass = || assert_eq!(point.pass(), Ok(()));
    beside(pass, |passed| {
        point.fail_since(u64::MAX - 1);
        assert_eq!(point.disarm(), 0);
        passed > 100_000
    });
}
