//! Failure on command.

use std::thread;
use std::vec::Vec;

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
}

#[test]
fn of_operations_at_once_one_fails() {
    for named in 0..40 {
        let point = FailPoint::new("read");
        point.fail_once(named);
        let failed: usize = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..10).filter(|_| point.pass().is_err()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((failed, point.failed(), point.operations()), (1, 1, 40));
    }
}
