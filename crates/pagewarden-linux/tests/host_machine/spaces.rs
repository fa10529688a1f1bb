//! Spaces, reservations and threads.

use std::sync::Arc;

use pagewarden::VirtAddr;
use pagewarden::manager::{Access, FaultSignal, Signal, SignalCode, SpaceConfig};
use pagewarden::pager::Fault;
use pagewarden::{Limits, ResourceLedger};
use pagewarden_linux::host_machine::{HostSpace, Reservation, take_refused};

use crate::support::{
    BYTES, PAGE, READ, READ_WRITE, fork, layout, map_private, memory, protect, set_word, space, word,
};

#[test]
fn a_reservation_is_used_again_and_shows_nothing_of_before() {
    let memory = memory(64 << 20);
    let mut reservation = Some(Reservation::new(BYTES, 1 << 20).unwrap());
    let base = reservation.as_ref().unwrap().base();
    for round in 0..20 {
        let account = ResourceLedger::new(Limits::UNLIMITED).root().clone();
        let config = SpaceConfig::new(layout(), account);
        let one = HostSpace::new(&memory, reservation.take().unwrap(), config).unwrap();
        assert_eq!(one.base(), base);
        assert!(one.load(VirtAddr::new(16 * PAGE), &mut [0]).is_err(), "round {round}");
        map_private(&one, 16, 300, READ_WRITE);
        assert!((16..316).all(|page| word(&one, page) == 0));
        (16..316).for_each(|page| set_word(&one, page, round + 1));
        reservation = Some(Arc::into_inner(one).unwrap().into_reservation());
    }
    assert_eq!(memory.usage().frames, 1);
}

#[test]
fn a_thread_is_in_the_space_that_it_has_entered_last() {
    let memory = memory(64 << 20);
    let [outer, inner] = [space(&memory), space(&memory)];
    map_private(&outer, 16, 4, READ_WRITE);
    map_private(&inner, 16, 4, READ_WRITE);
    let (to_outer, to_inner) = ((&outer, 16), (&inner, 16));
    assert_eq!([try_store(to_outer, 1), try_store(to_inner, 1)], [false, false], "nowhere yet");
    let first = outer.enter();
    assert_eq!([try_store(to_outer, 1), try_store(to_inner, 1)], [true, false]);
    let second = inner.enter();
    assert_eq!([try_store((&outer, 17), 2), try_store(to_inner, 2)], [false, true]);
    drop(second);
    assert_eq!([try_store((&outer, 17), 3), try_store((&inner, 17), 3)], [true, false]);
    let second = inner.enter();
    // In this order too.
    drop(first);
    assert_eq!([try_store((&outer, 18), 4), try_store((&inner, 17), 4)], [false, true]);
    drop(second);
    assert_eq!([try_store((&outer, 18), 5), try_store((&inner, 18), 5)], [false, false]);
    assert_eq!([word(&outer, 16), word(&outer, 17), word(&outer, 18)], [1, 3, 0]);
    assert_eq!([word(&inner, 16), word(&inner, 17), word(&inner, 18)], [2, 4, 0]);
}

/// Stores a word at the start of a page without entering the space; whether it went through.
fn try_store((space, page): (&Arc<HostSpace>, usize), word: u64) -> bool {
    let place = space.base().wrapping_add(page * 4096).cast::<u64>();
    // SAFETY: the address is in a view, where a fault is resolved or finds its landing.
    unsafe { pagewarden_copy::store(place, word) }.is_ok()
}

#[test]
fn what_was_refused_is_told_once() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 16, 1, READ_WRITE);
    set_word(&space, 16, 1);
    protect(&space, 16, 1, READ);
    let _entered = space.enter();
    assert_eq!(take_refused(), None);
    for (offset, is_store, code) in [(16 * PAGE + 8, true, SignalCode::AccErr), (9 * PAGE, false, SignalCode::MapErr)] {
        let place = space.base().wrapping_add(usize::try_from(offset).unwrap()).cast::<u64>();
        let failed = if is_store {
            // SAFETY: the address is in the view, where a fault is resolved or finds its landing.
            unsafe { pagewarden_copy::store(place, 5) }
        } else {
            // SAFETY: as above.
            unsafe { pagewarden_copy::load(place) }.map(drop)
        };
        assert!(failed.is_err());
        let refused = take_refused().unwrap();
        let address = VirtAddr::new(offset);
        assert_eq!(refused.access, if is_store { Access::Write } else { Access::Read });
        assert_eq!(refused.address, address);
        assert_eq!(refused.fault, Fault::Signal(FaultSignal { signal: Signal::Segv, code, address }));
        assert_eq!(take_refused(), None);
    }
}

#[test]
fn threads_of_a_space_fault_beside_each_other() {
    let memory = memory(256 << 20);
    let space = space(&memory);
    map_private(&space, 16, 8192, READ_WRITE);
    for round in 1..=3 {
        let child = fork(&space);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let space = &space;
                scope.spawn(move || {
                    for page in (16..8208).filter(|page| page / 7 % 4 == thread) {
                        assert_eq!(word(space, page), (round - 1) * page);
                        set_word(space, page, round * page);
                    }
                });
            }
        });
        assert!((16..8208).all(|page| word(&child, page) == (round - 1) * page));
        assert!((16..8208).all(|page| word(&space, page) == round * page));
        space.check_invariants();
    }
}

#[test]
fn spaces_by_the_hundred_share_the_memory() {
    let memory = memory(256 << 20);
    let spaces: Vec<_> = (0..500).map(|_| space(&memory)).collect();
    for (number, space) in (0..).zip(&spaces) {
        map_private(space, 16, 16, READ_WRITE);
        map_private(space, 0xf_0000, 16, READ_WRITE);
        set_word(space, 20, number);
        set_word(space, 0xf_0003, number);
    }
    assert!((0..).zip(&spaces).all(|(number, space)| word(space, 20) == number && word(space, 0xf_0003) == number));
    let usage = memory.usage();
    assert!(usage.frames < 500 * 10 && usage.mappings <= 500 * 4, "{usage:?}");
}

#[test]
fn errno_is_the_guests() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 16, 16, READ_WRITE);
    let _entered = space.enter();
    // SAFETY: the calling thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { errno.write(77) };
    let place = space.base().wrapping_add(16 * 4096).cast::<u64>();
    // SAFETY: the address is in the view, where a fault is resolved.
    let stored = unsafe { pagewarden_copy::store(place, 5) };
    assert!(stored.is_ok());
    // SAFETY: as above.
    assert_eq!(unsafe { errno.read() }, 77);
}
