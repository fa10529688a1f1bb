//! Transfers between two tables.

use alloc::sync::Arc;

use super::{NO_PAGES, NO_SLOT, Thing, bound, ended, infos, table, thing, unlimited, used};
use crate::cap::{CapError, CapTable, Handle, HandleState, Rights, TransferMode};
use crate::ledger::{Limits, Resource, ResourceLedger};

use TransferMode::{Copy, Move};

const RT: Rights = Rights::READ.union(Rights::TRANSFER);

struct Pair {
    ledger: ResourceLedger,
    sender: CapTable,
    receiver: CapTable,
}

impl Pair {
    fn new() -> Self {
        let ledger = unlimited();
        let [sender, receiver] = [0; 2].map(|_| table(&ledger, Limits::UNLIMITED));
        Self { ledger, sender, receiver }
    }

    /// Slots and pages that sender, receiver and all together hold.
    fn used(&self) -> [(u64, u64); 3] {
        [self.sender.account(), self.receiver.account(), self.ledger.root()].map(used)
    }

    fn check(&self) {
        self.sender.check_invariants();
        self.receiver.check_invariants();
    }

    fn send(&self, handle: Handle, mode: TransferMode, rights: Rights) -> Result<Handle, CapError> {
        self.sender.offer(handle, mode, rights)?.reserve(&self.receiver)?.commit()
    }
}

fn rights(table: &CapTable, handle: Handle) -> Result<Rights, CapError> {
    table.read().get::<Thing>(handle, Rights::empty()).map(|(_, rights)| rights)
}

#[test]
fn a_copy_leaves_the_sender_what_it_has_and_both_pay() {
    let pair = Pair::new();
    let (object, ends) = thing(3);
    let handle = pair.sender.insert(object, Rights::all()).unwrap();
    let copy = pair.send(handle, Copy, Rights::READ).unwrap();
    assert_eq!(rights(&pair.sender, handle), Ok(Rights::all()));
    assert_eq!(rights(&pair.receiver, copy), Ok(Rights::READ));
    assert_eq!(pair.used(), [(1, 3), (1, 3), (2, 6)]);
    assert_eq!(rights(&pair.sender, copy), Err(CapError::BadHandle));
    pair.check();
    pair.sender.release(handle).unwrap();
    assert_eq!((ended(&ends), pair.used()), (0, [(0, 0), (1, 3), (1, 3)]));
    pair.receiver.release(copy).unwrap();
    assert_eq!((ended(&ends), pair.used()[2]), (1, (0, 0)));
}

#[test]
fn a_move_takes_the_handle_from_the_sender_and_its_charges_too() {
    let pair = Pair::new();
    let (object, ends) = thing(3);
    let handle = pair.sender.insert(object, Rights::all()).unwrap();
    let moved = pair.send(handle, Move, RT).unwrap();
    assert_eq!(rights(&pair.sender, handle), Err(CapError::BadHandle));
    assert_eq!(rights(&pair.receiver, moved), Ok(RT));
    assert_eq!((pair.used(), pair.sender.len()), ([(0, 0), (1, 3), (1, 3)], 0));
    pair.check();
    let back = pair.receiver.offer(moved, Move, RT).unwrap().reserve(&pair.sender).unwrap().commit().unwrap();
    assert_eq!((back.index(), back == handle, pair.used()), (0, false, [(1, 3), (0, 0), (1, 3)]));
    assert_eq!(rights(&pair.sender, handle), Err(CapError::BadHandle), "the slot is the same, the handle is not");
    assert_eq!((rights(&pair.sender, back), ended(&ends)), (Ok(RT), 0));
    pair.sender.release(back).unwrap();
    assert_eq!((ended(&ends), pair.used()[2]), (1, (0, 0)));
}

#[test]
fn a_handle_in_transit_can_only_be_waited_for() {
    let pair = Pair::new();
    let (object, ends) = thing(3);
    let handle = pair.sender.insert(object, Rights::all()).unwrap();
    let transfer = pair.sender.offer(handle, Move, Rights::READ).unwrap();
    let check = || {
        assert_eq!(rights(&pair.sender, handle), Err(CapError::InTransit));
        assert_eq!(pair.sender.get_cloned::<Thing>(handle, Rights::empty()).unwrap_err(), CapError::InTransit);
        assert_eq!(pair.sender.release(handle), Err(CapError::InTransit));
        assert_eq!(pair.sender.duplicate(handle, Rights::READ), Err(CapError::InTransit));
        for mode in [Copy, Move] {
            assert_eq!(pair.sender.offer(handle, mode, Rights::READ).unwrap_err(), CapError::InTransit);
        }
        let info = infos(&pair.sender)[0];
        assert_eq!((info.handle, info.rights, info.state), (handle, Rights::all(), HandleState::InTransit));
        pair.check();
    };
    check();
    assert_eq!(pair.used(), [(1, 3), (0, 0), (1, 3)]);
    let transfer = transfer.reserve(&pair.receiver).unwrap();
    check();
    assert_eq!((pair.used(), infos(&pair.receiver).len()), ([(1, 3), (1, 3), (2, 6)], 0));
    transfer.commit().unwrap();
    assert_eq!((pair.used(), ended(&ends)), ([(0, 0), (1, 3), (1, 3)], 0));
}

#[test]
fn a_transfer_that_is_dropped_has_never_been() {
    let pair = Pair::new();
    let (object, ends) = thing(3);
    let handle = pair.sender.insert(object, Rights::all()).unwrap();
    for mode in [Copy, Move] {
        for is_reserved in [false, true] {
            let transfer = pair.sender.offer(handle, mode, Rights::READ).unwrap();
            if is_reserved {
                drop(transfer.reserve(&pair.receiver).unwrap());
            } else {
                drop(transfer);
            }
            assert_eq!(rights(&pair.sender, handle), Ok(Rights::all()), "{mode:?}");
            assert_eq!((pair.used(), pair.receiver.len()), ([(1, 3), (0, 0), (1, 3)], 0));
            pair.check();
        }
    }
    pair.sender.release(handle).unwrap();
    assert_eq!((ended(&ends), pair.used()[2]), (1, (0, 0)));
}

#[test]
fn what_may_not_be_transferred_is_not_offered() {
    let pair = Pair::new();
    let all_but = Rights::all().difference(Rights::TRANSFER);
    let insert = |object: Arc<Thing>, rights| pair.sender.insert(object, rights).unwrap();
    let [kept, weak, tied] = [insert(thing(1).0, all_but), insert(thing(1).0, RT), insert(bound(), Rights::all())];
    let refusals = [
        (kept, Rights::empty(), CapError::Rights),
        (weak, RT | Rights::WRITE, CapError::Rights),
        (tied, Rights::READ, CapError::Bound),
    ];
    for (handle, wanted, refusal) in refusals {
        for mode in [Copy, Move] {
            assert_eq!(pair.sender.offer(handle, mode, wanted).unwrap_err(), refusal, "{mode:?}");
        }
    }
    assert!([kept, weak, tied].iter().all(|handle| rights(&pair.sender, *handle).is_ok()), "none is in transit");
    let double = pair.sender.duplicate(tied, RT).unwrap();
    assert_eq!(pair.send(double, Move, Rights::READ), Err(CapError::Bound), "nor is its duplicate");
    let sent = pair.send(weak, Move, Rights::READ).unwrap();
    assert_eq!(pair.receiver.offer(sent, Copy, Rights::READ).unwrap_err(), CapError::Rights, "it is the last move");
    pair.check();
}

#[test]
fn a_receiver_that_refuses_leaves_the_sender_as_it_was() {
    for mode in [Copy, Move] {
        let pair = Pair::new();
        let account = pair.receiver.account();
        let handle = pair.sender.insert(thing(3).0, Rights::all()).unwrap();
        account.set_limit(Resource::Committed, 2);
        assert_eq!(pair.send(handle, mode, RT), Err(NO_PAGES));
        account.set_limit(Resource::Capabilities, 0);
        assert_eq!(pair.send(handle, mode, RT), Err(NO_SLOT));
        let check = || {
            assert_eq!((rights(&pair.sender, handle), pair.used()), (Ok(Rights::all()), [(1, 3), (0, 0), (1, 3)]));
            pair.check();
        };
        check();
        account.set_limit(Resource::Capabilities, 1);
        account.set_limit(Resource::Committed, 3);
        let transfer = pair.sender.offer(handle, mode, RT).unwrap().reserve(&pair.receiver).unwrap();
        pair.receiver.close();
        assert_eq!(transfer.commit(), Err(CapError::Closed));
        check();
        assert_eq!(pair.send(handle, mode, RT), Err(CapError::Closed));
        check();
    }
}

#[test]
fn a_move_needs_room_for_both_above_sender_and_receiver() {
    let pair = Pair::new();
    let handle = pair.sender.insert(thing(3).0, Rights::all()).unwrap();
    pair.ledger.root().set_limit(Resource::Committed, 5);
    assert_eq!(pair.send(handle, Move, RT), Err(NO_PAGES));
    assert_eq!((rights(&pair.sender, handle), pair.used()[2]), (Ok(Rights::all()), (1, 3)));
    pair.ledger.root().set_limit(Resource::Committed, 6);
    assert!(pair.send(handle, Move, RT).is_ok());
    assert_eq!(pair.used(), [(0, 0), (1, 3), (1, 3)]);
}

#[test]
fn a_sender_that_is_closed_meanwhile_leaves_the_transfer_what_it_offered() {
    for mode in [Copy, Move] {
        let pair = Pair::new();
        let (object, ends) = thing(3);
        let handle = pair.sender.insert(object, Rights::all()).unwrap();
        let transfer = pair.sender.offer(handle, mode, RT).unwrap();
        pair.sender.close();
        // What is moved is paid by the sender until the receiver pays; a copy is paid by the receiver alone.
        let kept = if mode == Move { (1, 3) } else { (0, 0) };
        assert_eq!((ended(&ends), pair.used()), (0, [kept, (0, 0), kept]));
        let sent = transfer.reserve(&pair.receiver).unwrap().commit().unwrap();
        assert_eq!((rights(&pair.receiver, sent), pair.used()), (Ok(RT), [(0, 0), (1, 3), (1, 3)]));
        assert_eq!(rights(&pair.sender, handle), Err(CapError::Closed));
        pair.check();
        pair.receiver.close();
        assert_eq!((ended(&ends), pair.used()), (1, [(0, 0); 3]));
    }
}

#[test]
fn a_transfer_from_a_closed_sender_that_is_dropped_ends_the_object() {
    for mode in [Copy, Move] {
        for is_reserved in [false, true] {
            let pair = Pair::new();
            let (object, ends) = thing(3);
            let handle = pair.sender.insert(object, Rights::all()).unwrap();
            let transfer = pair.sender.offer(handle, mode, RT).unwrap();
            if is_reserved {
                let transfer = transfer.reserve(&pair.receiver).unwrap();
                pair.sender.close();
                drop(transfer);
            } else {
                pair.sender.close();
                drop(transfer);
            }
            assert_eq!((ended(&ends), pair.used(), pair.sender.len()), (1, [(0, 0); 3], 0));
            pair.check();
        }
    }
}

#[test]
fn a_copy_that_was_offered_outlives_the_senders_handle() {
    let pair = Pair::new();
    let (object, ends) = thing(3);
    let handle = pair.sender.insert(object, Rights::all()).unwrap();
    let transfer = pair.sender.offer(handle, Copy, RT).unwrap().reserve(&pair.receiver).unwrap();
    pair.sender.release(handle).unwrap();
    let copy = transfer.commit().unwrap();
    assert_eq!((rights(&pair.receiver, copy), pair.used()), (Ok(RT), [(0, 0), (1, 3), (1, 3)]));
    pair.receiver.release(copy).unwrap();
    assert_eq!(ended(&ends), 1);
}

#[test]
fn a_table_may_send_to_itself() {
    let ledger = unlimited();
    let table = table(&ledger, Limits::UNLIMITED);
    let handle = table.insert(thing(3).0, Rights::all()).unwrap();
    let send = |handle, mode| table.offer(handle, mode, RT).unwrap().reserve(&table).unwrap().commit().unwrap();
    let moved = send(handle, Move);
    assert_eq!((rights(&table, handle), rights(&table, moved)), (Err(CapError::BadHandle), Ok(RT)));
    assert_eq!((used(ledger.root()), table.len()), ((1, 3), 1));
    let copy = send(moved, Copy);
    assert_eq!((rights(&table, moved), rights(&table, copy), used(ledger.root())), (Ok(RT), Ok(RT), (2, 6)));
    table.check_invariants();
}
