//! Threads on two tables of capabilities, in every order of their steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pagewarden::cap::{CapError, CapTable, Handle, Interface, InterfaceId, Rights, TransferMode};
use pagewarden::{Limits, PageCount, Resource, ResourceLedger};

use super::{both, every_order};
use TransferMode::{Copy, Move};

/// An object of two pages, whose end is counted. The counter is not part of what is checked.
struct Thing(Arc<AtomicUsize>);

impl Interface for Thing {
    const ID: InterfaceId = InterfaceId(1);

    fn pages(&self) -> PageCount {
        PageCount::new(2)
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two tables, and a handle of the first one.
struct Case {
    ledger: ResourceLedger,
    tables: [Arc<CapTable>; 2],
    handle: Handle,
    ends: Arc<AtomicUsize>,
}

impl Case {
    fn new() -> Self {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let tables = [0; 2].map(|_| Arc::new(CapTable::new(ledger.root().child(Limits::UNLIMITED))));
        let ends = Arc::new(AtomicUsize::new(0));
        let handle = tables[0].insert(Arc::new(Thing(Arc::clone(&ends))), Rights::all()).unwrap();
        Self { ledger, tables, handle, ends }
    }

    fn tables(&self) -> [Arc<CapTable>; 2] {
        self.tables.clone()
    }

    /// Checks what holds in the end in all cases: handles can be used, each is paid, the object lives as long as one
    /// holds it and ends once. Says how many handles each table has.
    fn settle(self) -> [usize; 2] {
        let mut counts = [0; 2];
        for (table, count) in self.tables.iter().zip(&mut counts) {
            table.check_invariants();
            let handles: Vec<Handle> = table.read().handles().map(|info| info.handle).collect();
            for handle in &handles {
                assert!(table.read().get::<Thing>(*handle, Rights::READ).is_ok(), "nothing stays in transit");
            }
            let paid = table.account().used(Resource::Capabilities);
            assert_eq!((paid, table.account().used(Resource::Committed)), (handles.len() as u64, 2 * paid));
            assert_eq!(table.len(), handles.len(), "nothing stays reserved");
            *count = handles.len();
        }
        assert_eq!(self.ends.load(Ordering::Relaxed), usize::from(counts == [0, 0]));
        drop(self.tables);
        assert_eq!(self.ends.load(Ordering::Relaxed), 1);
        for resource in Resource::ALL {
            assert_eq!(self.ledger.root().used(resource), 0, "{resource:?}");
        }
        counts
    }
}

fn send(from: &CapTable, handle: Handle, mode: TransferMode, to: &CapTable) -> Result<Handle, CapError> {
    from.offer(handle, mode, Rights::all())?.reserve(to)?.commit()
}

#[test]
fn a_handle_is_moved_or_released_but_not_both() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let sender = Arc::clone(&from);
        let (moved, released) = both(move || send(&sender, handle, Move, &to), || from.release(handle));
        drop(from);
        let expected = match moved {
            Ok(_) => [0, 1],
            Err(refusal) => {
                assert_eq!((refusal, released), (CapError::BadHandle, Ok(())));
                [0, 0]
            }
        };
        assert!(released.is_ok() != moved.is_ok());
        assert!(matches!(released, Ok(()) | Err(CapError::InTransit | CapError::BadHandle)));
        assert_eq!(case.settle(), expected);
    });
}

#[test]
fn a_sender_that_is_closed_has_moved_its_handle_or_takes_it_along() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let sender = Arc::clone(&from);
        let (moved, ()) = both(move || send(&sender, handle, Move, &to), || from.close());
        drop(from);
        assert!(matches!(moved, Ok(_) | Err(CapError::Closed)));
        assert_eq!(case.settle(), [0, usize::from(moved.is_ok())]);
    });
}

#[test]
fn a_receiver_that_is_closed_takes_the_handle_along_or_leaves_it_to_the_sender() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let receiver = Arc::clone(&to);
        let (moved, ()) = both(move || send(&from, handle, Move, &receiver), || to.close());
        drop(to);
        assert!(matches!(moved, Ok(_) | Err(CapError::Closed)));
        let is_there = case.tables[0].read().get::<Thing>(handle, Rights::all()).is_ok();
        assert!(is_there != moved.is_ok(), "the same handle is live again");
        assert_eq!(case.settle(), [usize::from(is_there), 0]);
    });
}

#[test]
fn of_two_moves_of_one_handle_one_succeeds() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let [sender, receiver] = case.tables();
        let (a, b) = both(move || send(&sender, handle, Move, &receiver), || send(&from, handle, Move, &to));
        drop((from, to));
        assert!(a.is_ok() != b.is_ok());
        let refusal = a.and(b).unwrap_err();
        assert!(matches!(refusal, CapError::InTransit | CapError::BadHandle));
        assert_eq!(case.settle(), [0, 1]);
    });
}

#[test]
fn of_a_move_and_one_that_is_given_up_at_most_one_is_refused() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let sender = Arc::clone(&from);
        let (offered, moved) =
            both(move || sender.offer(handle, Move, Rights::READ).map(drop), || send(&from, handle, Move, &to));
        drop((from, to));
        assert!(offered.is_ok() || moved.is_ok());
        let has_left = usize::from(moved.is_ok());
        assert_eq!(case.settle(), [1 - has_left, has_left]);
    });
}

#[test]
fn a_move_that_is_given_up_leaves_nothing_in_a_table_that_is_closed() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let sender = Arc::clone(&from);
        let given_up = move || sender.offer(handle, Move, Rights::all())?.reserve(&to).map(drop);
        let (offered, ()) = both(given_up, || from.close());
        drop(from);
        assert!(matches!(offered, Ok(()) | Err(CapError::Closed)));
        assert_eq!(case.settle(), [0, 0]);
    });
}

#[test]
fn a_copy_is_made_before_its_handle_is_released_or_not_at_all() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let sender = Arc::clone(&from);
        let (copied, released) = both(move || send(&sender, handle, Copy, &to), || from.release(handle));
        drop(from);
        assert!(released.is_ok() && matches!(copied, Ok(_) | Err(CapError::BadHandle)));
        assert_eq!(case.settle(), [0, usize::from(copied.is_ok())]);
    });
}

#[test]
fn a_look_up_finds_a_moved_object_in_one_table_at_most() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        let (sender, receiver) = (Arc::clone(&from), Arc::clone(&to));
        let (moved, seen) = both(
            move || send(&sender, handle, Move, &receiver),
            || {
                // Whoever has arrived has left before.
                let has_arrived = to.read().handles().count();
                let left = from.read().get::<Thing>(handle, Rights::all()).map(drop);
                (has_arrived, left)
            },
        );
        drop((from, to));
        assert!(moved.is_ok());
        match seen {
            (1, left) => assert!(matches!(left, Err(CapError::InTransit | CapError::BadHandle))),
            (arrived, _) => assert_eq!(arrived, 0),
        }
        assert_eq!(case.settle(), [0, 1]);
    });
}

#[test]
fn a_budget_for_one_handle_is_not_spent_twice() {
    every_order(|| {
        let case = Case::new();
        let ([from, to], handle) = (case.tables(), case.handle);
        to.account().set_limit(Resource::Capabilities, 1);
        let [sender, receiver] = case.tables();
        let (a, b) = both(move || send(&sender, handle, Copy, &receiver), || send(&from, handle, Copy, &to));
        drop((from, to));
        assert!(a.is_ok() != b.is_ok());
        assert_eq!(case.settle(), [1, 1]);
    });
}
