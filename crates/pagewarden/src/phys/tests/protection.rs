//! What the other world can do while it is kept out.

use alloc::vec;

use super::{Lab, frame, frames, run};
use crate::addr::PAGE_SIZE;
use crate::machine::other_world::{OtherSide, Refused};
use crate::phys::{Claim, OtherAccess, Permission, PhysError, PhysRange};

#[test]
fn the_other_world_is_refused_as_long_as_the_protection_lives() {
    let lab = Lab::new();
    let before = lab.fill(&frames(&[4, 5, 6]));
    let refused = |number: u64| Err(Refused { at: frame(number).start().as_u64() });
    let load = |number: u64| lab.other.act(|side| side.load(frame(number).start(), &mut [0; 8]));
    let store = |number: u64| lab.other.act(|side| side.store(frame(number).start(), &[0; 8]));
    let exchange = |number: u64| lab.other.act(|side| side.compare_exchange(frame(number).start(), 0, 0).map(drop));

    let none = lab.manager.protect(run(4, 2), OtherAccess::None).unwrap();
    let read = lab.manager.protect(run(6, 1), OtherAccess::Read).unwrap();
    lab.manager.check_invariants();
    for number in [4, 5] {
        assert_eq!(
            (load(number), store(number), exchange(number)),
            (refused(number), refused(number), refused(number))
        );
    }
    assert_eq!((load(6), store(6), exchange(6)), (Ok(()), refused(6), refused(6)));
    assert_eq!((load(3), store(3), exchange(3)), (Ok(()), Ok(()), Ok(())));
    assert_eq!((load(7), store(7)), (Ok(()), Ok(())));
    // A span with a part that is protected is refused as a whole, and where that begins.
    let mut span = vec![0; 8192];
    let outcome = lab.other.act(|side| side.load(frame(3).at(PAGE_SIZE - 1), &mut span));
    assert_eq!((outcome, &span), (refused(4), &vec![0; 8192]));

    // For us nothing changes.
    let window = lab.manager.vmap(&frames(&[4, 5, 6]), Permission::ReadWrite, Claim::Reserve).unwrap();
    let mut seen = vec![0; 3 * 4096];
    window.read(0, &mut seen).unwrap();
    assert!(seen == before, "what was refused has changed nothing");
    window.write(0, &[7]).unwrap();
    none.unprotect().unwrap();
    assert_eq!((load(4), store(5)), (Ok(()), Ok(())));
    assert_eq!(store(6), refused(6));
    drop(read);
    assert_eq!((load(6), store(6), exchange(6)), (Ok(()), Ok(()), Ok(())));
    drop(window);
}

#[test]
fn an_agent_cannot_change_a_record_while_it_is_protected() {
    let lab = Lab::new();
    let at = frame(9).start();
    lab.poke(at, &[0; 64]);
    let mut turns = 0_u8;
    lab.other.set_agent(move |side: &OtherSide<'_>| {
        turns = turns.wrapping_add(1);
        let _ = side.store(at, &[turns; 64]);
    });
    let pointer = lab.ptr::<[u8; 64]>(&frames(&[9]), 0, 1);
    assert!(pointer.read_at(0).unwrap().windows(2).any(|pair| pair[0] != pair[1]), "torn while it may");
    for access in [OtherAccess::Read, OtherAccess::None] {
        let protection = lab.manager.protect(run(9, 1), access).unwrap();
        let first = pointer.read_at(0).unwrap();
        assert_eq!(pointer.read_at(0), Ok(first));
        assert!(first.windows(2).all(|pair| pair[0] == pair[1]));
        drop(protection);
        assert_ne!(pointer.read_at(0), Ok(first));
    }
    lab.other.dismiss_agent();
}

#[test]
fn nobody_protects_what_is_protected_already() {
    let lab = Lab::new();
    let protection = lab.manager.protect(run(4, 4), OtherAccess::Read).unwrap();
    let reserved = Some(PhysError::Reserved(PhysRange::of_frames(run(4, 4))));
    for (first, count) in [(4, 4), (3, 2), (7, 9), (5, 1), (0, 64)] {
        assert_eq!(lab.manager.protect(run(first, count), OtherAccess::None).err(), reserved);
        lab.manager.check_invariants();
    }
    assert!(
        lab.other.act(|side| side.load(frame(5).start(), &mut [0])).is_ok(),
        "what was refused has changed nothing"
    );
    drop(lab.manager.protect(run(3, 1), OtherAccess::None).unwrap());
    drop(lab.manager.protect(run(8, 1), OtherAccess::None).unwrap());
    // Reservations are among us, protections are against the other world.
    let window = lab.manager.vmap(&frames(&[5]), Permission::ReadWrite, Claim::Reserve).unwrap();
    drop((window, protection));
}

#[test]
fn a_protection_that_the_platform_refuses_protects_nothing() {
    let lab = Lab::new();
    for access in [OtherAccess::None, OtherAccess::Read] {
        lab.manager.provider().protect.fail_once(0);
        assert_eq!(lab.manager.protect(run(4, 4), access).err(), Some(super::BROKEN));
        assert!(lab.other.act(|side| side.store(frame(5).start(), &[0])).is_ok());
        lab.check_idle();
    }
}

#[test]
fn memory_that_vanishes_stays_protected_and_is_gone_for_both() {
    let lab = Lab::new();
    let at = frame(5).start();
    lab.other.act(|side| side.take_away(frame(5)));
    let protection = lab.manager.protect(run(5, 1), OtherAccess::Read).unwrap();
    assert!(lab.other.act(|side| side.load(at, &mut [0])).is_err());
    assert!(lab.ptr::<u8>(&frames(&[5]), 0, 1).read_at(0).is_err());
    lab.other.act(|side| side.give_back(frame(5)));
    assert!(lab.other.act(|side| side.load(at, &mut [0])).is_ok());
    assert!(lab.other.act(|side| side.store(at, &[0])).is_err());
    drop(protection);
    assert!(lab.other.act(|side| side.store(at, &[0])).is_ok());
}
