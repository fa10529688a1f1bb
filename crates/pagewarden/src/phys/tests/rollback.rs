//! What is left when the platform fails: nothing, or what it would not take back.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{BROKEN, Lab, Watched, frame, frames, run};
use crate::addr::PageRange;
use crate::frame::FrameNumber;
use crate::machine::other_world::OtherSide;
use crate::phys::{
    Claim, Mapping, Mode, OtherAccess, Permission, PhysConstPtr, PhysError, PhysMutPtr, PhysRange, WindowAccess,
};

/// Six pages in four runs.
const SCATTERED: [u64; 6] = [4, 5, 1, 9, 8, 6];
const RUNS: u64 = 5;

fn vmap(lab: &Lab) -> Result<Mapping<&super::Manager>, PhysError> {
    lab.manager.vmap(&frames(&SCATTERED), Permission::ReadWrite, Claim::Reserve)
}

/// The window that a request gets now, if all are free the first.
fn next_window(lab: &Lab) -> PageRange {
    let mapping = lab.manager.vmap(&frames(&[40]), Permission::Read, Claim::Beside).unwrap();
    mapping.window()
}

fn is_busy(lab: &Lab, number: u64) -> bool {
    let page = PhysRange::of_frame(frame(number));
    match lab.manager.reservations().try_reserve(&[page], Mode::Shared) {
        Ok(_) => false,
        Err(error) => {
            assert!(matches!(error, PhysError::Reserved(_)), "{error:?}");
            true
        }
    }
}

#[test]
fn a_window_is_shown_run_by_run() {
    let lab = Lab::new();
    drop(vmap(&lab).unwrap());
    assert_eq!(lab.manager.provider().map.operations(), RUNS);
}

#[test]
fn whichever_run_cannot_be_shown_nothing_is_left() {
    let lab = Lab::new();
    let first = next_window(&lab).first_page();
    let point = &lab.manager.provider().map;
    for operation in 0..RUNS {
        point.fail_once(operation);
        assert_eq!(vmap(&lab).err(), Some(BROKEN), "run {operation}");
        assert_eq!(point.disarm(), 1);
        lab.check_idle();
        assert_eq!(next_window(&lab).first_page(), first);
    }
    point.fail_once(RUNS);
    assert!(vmap(&lab).is_ok());
    assert_eq!(point.disarm(), 0);
}

#[test]
fn what_cannot_even_be_rolled_back_is_retained_with_its_reservation() {
    for operation in 0..RUNS {
        let lab = Lab::new();
        let Watched { map, unmap, .. } = lab.manager.provider();
        map.fail_once(operation);
        unmap.fail_since(0);
        assert_eq!(vmap(&lab).err(), Some(BROKEN), "run {operation}");
        map.disarm();
        lab.manager.check_invariants();
        assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 1));
        assert!(SCATTERED.iter().all(|number| is_busy(&lab, *number)) && !is_busy(&lab, 7));
        assert_eq!(vmap(&lab).err().map(PhysError::errno), Some(crate::Errno::Busy));

        // Its addresses are not used again, whatever is shown meanwhile.
        unmap.disarm();
        let retained = PageRange::from_pages(super::SPACE_FIRST + 1, crate::PageCount::new(6)).unwrap();
        assert!(!next_window(&lab).intersects(retained));
        unmap.fail_once(0);
        assert_eq!(lab.manager.retry_retained(), Err(BROKEN));
        lab.manager.check_invariants();
        assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 1));
        assert!(is_busy(&lab, 4));
        unmap.disarm();
        assert_eq!(lab.manager.retry_retained(), Ok(()));
        assert_eq!(next_window(&lab).first_page(), retained.first_page());
    }
}

#[test]
fn a_mapping_that_cannot_be_taken_away_is_retained_by_drop_and_by_unmap() {
    let lab = Lab::new();
    lab.poke(frame(4).start(), b"there");
    let unmap = &lab.manager.provider().unmap;
    for is_dropped in [true, false] {
        let mapping = vmap(&lab).unwrap();
        let window = mapping.window();
        unmap.fail_once(0);
        if is_dropped {
            drop(mapping);
        } else {
            assert_eq!(mapping.unmap(), Err(BROKEN));
        }
        unmap.disarm();
        lab.manager.check_invariants();
        assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 1));
        assert!(is_busy(&lab, 6));
        assert!(!next_window(&lab).intersects(window));
        assert_eq!(lab.manager.retry_retained(), Ok(()));
        lab.check_idle();
    }
}

#[test]
fn a_pointer_with_a_window_that_stays_retains_it_too() {
    let lab = Lab::new();
    let unmap = &lab.manager.provider().unmap;
    let mut pointer = lab.ptr::<u64>(&frames(&SCATTERED), 0, 6 * 512);
    pointer.map(Claim::Reserve).unwrap();
    unmap.fail_since(0);
    assert_eq!(pointer.unmap(), Err(BROKEN));
    assert!(pointer.mapping().is_none());
    assert_eq!(pointer.unmap(), Ok(()), "the manager sees to it now");
    assert_eq!(pointer.map(Claim::Reserve).map_err(PhysError::errno), Err(crate::Errno::Busy));
    pointer.map(Claim::Beside).unwrap();
    drop(pointer);
    lab.manager.check_invariants();
    assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 2));
    assert_eq!(lab.manager.retry_retained(), Err(BROKEN));
    assert_eq!(lab.manager.retained(), 2);
    unmap.fail_once(0);
    assert_eq!(lab.manager.retry_retained(), Err(BROKEN), "the second could be taken back");
    assert_eq!(lab.manager.retained(), 1);
    assert_eq!(lab.manager.retry_retained(), Ok(()));
}

#[test]
fn an_access_without_a_window_says_that_its_own_could_not_be_taken_away() {
    let lab = Lab::new();
    lab.poke(frame(4).start(), &7_u64.to_le_bytes());
    let unmap = &lab.manager.provider().unmap;
    let pointer = lab.ptr::<u64>(&frames(&SCATTERED), 0, 512);
    unmap.fail_once(0);
    assert_eq!(pointer.write_at(0, 9), Err(BROKEN));
    assert_eq!(lab.peek(frame(4).start(), 8), 9_u64.to_le_bytes(), "it was stored all the same");
    assert_eq!(lab.manager.retained(), 1);
    assert!(!is_busy(&lab, 4), "nothing was reserved");
    lab.manager.retry_retained().unwrap();
    // The copy itself is what matters more.
    lab.other.act(|side| side.take_away(frame(4)));
    unmap.fail_once(0);
    assert!(matches!(pointer.read_at(0), Err(PhysError::CopyFault(_))));
    lab.other.act(|side| side.give_back(frame(4)));
    lab.manager.retry_retained().unwrap();
    let source = PhysConstPtr::<u64, _>::new(&*lab.manager, &frames(&[20]), 0, 2).unwrap();
    for operation in 0..2 {
        unmap.fail_once(operation);
        assert_eq!(pointer.copy_from(0, &source, 0, 2), Err(BROKEN));
        lab.manager.retry_retained().unwrap();
    }
}

#[test]
fn a_copy_whose_second_window_cannot_be_had_leaves_none() {
    let lab = Lab::new();
    let target = lab.ptr::<u8>(&frames(&SCATTERED), 0, 4096);
    let source = PhysMutPtr::<u8, _>::new(&*lab.manager, &frames(&[20]), 0, 4096).unwrap();
    for operation in 0..2 {
        lab.manager.provider().map.fail_once(operation);
        assert_eq!(target.copy_from(0, &source, 0, 4096), Err(BROKEN));
        lab.check_idle();
    }
}

#[test]
fn whichever_table_cannot_be_had_nothing_is_left() {
    let lab = Lab::new();
    let all: Vec<FrameNumber> = run(0, 30).iter().rev().collect();
    let taken = &lab.world.0.frame_taken;
    let mut refused = 0;
    loop {
        taken.fail_since(refused);
        let outcome = lab.manager.vmap(&all, Permission::ReadWrite, Claim::Reserve);
        if taken.disarm() == 0 {
            assert!(outcome.is_ok(), "{outcome:?}");
            break;
        }
        assert_eq!(outcome.err(), Some(PhysError::OutOfTableFrames), "table {refused}");
        lab.check_idle();
        refused += 1;
    }
    assert!(refused >= 5, "the window lies across a border of the third level");
}

#[test]
fn what_is_retained_shows_what_it_did_and_holds_back_nobody_else() {
    let lab = Lab::new();
    let list = frames(&SCATTERED);
    lab.fill(&list);
    lab.other.set_agent(|side: &OtherSide<'_>| side.store(frame(5).start(), b"!").unwrap());
    let mapping = vmap(&lab).unwrap();
    let second = mapping.window().first_page() + 1;
    lab.manager.provider().unmap.fail_once(0);
    drop(mapping);
    // Of this window the first page is gone, as far as the platform came.
    let mut byte = [0];
    let at = PageRange::of_page(second).start();
    assert_eq!(lab.manager.provider().load(at, &mut byte), Ok(()));
    assert_eq!(&byte, b"!");
    let other = lab.manager.vmap(&frames(&[30, 31]), Permission::ReadWrite, Claim::Reserve).unwrap();
    other.write(0, b"?").unwrap();
    drop(other);
    lab.other.dismiss_agent();
    lab.manager.retry_retained().unwrap();
    assert!(lab.manager.provider().load(at, &mut byte).is_err());
}

#[test]
fn a_protection_that_cannot_end_is_retained() {
    let lab = Lab::new();
    let protect = &lab.manager.provider().protect;
    for is_dropped in [true, false] {
        let protection = lab.manager.protect(run(2, 3), OtherAccess::None).unwrap();
        protect.fail_once(0);
        if is_dropped {
            drop(protection);
        } else {
            assert_eq!(protection.unprotect(), Err(BROKEN));
        }
        lab.manager.check_invariants();
        assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 1));
        assert!(lab.other.act(|side| side.load(frame(3).start(), &mut [0])).is_err(), "still kept out");
        let again = lab.manager.protect(run(4, 1), OtherAccess::Read);
        assert_eq!(again.err(), Some(PhysError::Reserved(PhysRange::of_frames(run(2, 3)))));
        protect.fail_once(0);
        assert_eq!(lab.manager.retry_retained(), Err(BROKEN));
        assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 1));
        assert_eq!(lab.manager.retry_retained(), Ok(()));
        assert!(lab.other.act(|side| side.load(frame(3).start(), &mut [0])).is_ok());
    }
}

#[test]
fn many_things_may_be_retained_at_once() {
    let lab = Lab::new();
    let Watched { unmap, protect, .. } = lab.manager.provider();
    let manager = Arc::clone(&lab.manager);
    let mappings: Vec<_> = (0..10)
        .map(|number| Mapping::new(Arc::clone(&manager), &frames(&[number]), Permission::Read, Claim::Reserve).unwrap())
        .collect();
    let protections: Vec<_> =
        (0..10).map(|number| manager.protect(run(number, 1), OtherAccess::Read).unwrap()).collect();
    assert_eq!(manager.live(), 20);
    unmap.fail_since(0);
    protect.fail_since(0);
    drop((mappings, protections));
    manager.check_invariants();
    assert_eq!((manager.live(), manager.retained()), (0, 20));
    // Every second of the windows can be taken back.
    for retained in [19, 18, 17] {
        unmap.fail_since(1);
        assert_eq!(manager.retry_retained(), Err(BROKEN));
        assert_eq!(manager.retained(), retained);
        manager.check_invariants();
    }
    unmap.disarm();
    protect.disarm();
    assert_eq!(manager.retry_retained(), Ok(()));
    drop(manager);
}
