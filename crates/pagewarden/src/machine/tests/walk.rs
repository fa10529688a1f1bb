//! Walks of tables: faults, rights, marks, large leaves, accesses over borders.

use super::{ALL_LEVELS, HERE, Lab, RWX, frame};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::machine::{FaultCode, PageFault};
use crate::manager::{Access, KeyRights};
use crate::mmu::PhysMem;
use crate::page_table::{Entry, EntryFlags, Level};
use crate::prot::ProtectionKey;

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];

/// The error code of an access to [`HERE`], whose entry at one level is changed from one that allows everything.
fn outcome(level: Level, access: Access, change: impl Fn(Entry) -> Entry) -> Result<(), FaultCode> {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.map(root, HERE, 0, RWX);
    let place = lab.place(root, HERE, level);
    lab.set(place, change(lab.entry(place)));
    let translated = lab.machine.translate(0, HERE, access).map(|_| ());
    translated.map_err(|PageFault { address, access: of, code }| {
        assert_eq!((address, of), (HERE, access));
        code
    })
}

#[test]
fn an_entry_that_is_not_present_ends_the_walk_on_each_level() {
    for level in ALL_LEVELS {
        for (access, bits) in ACCESSES.into_iter().zip([FaultCode::empty(), FaultCode::WRITE, FaultCode::FETCH]) {
            let absent = |entry: Entry| entry.without(EntryFlags::PRESENT);
            assert_eq!(outcome(level, access, absent), Err(FaultCode::USER | bits), "{level:?} {access:?}");
            assert_eq!(outcome(level, access, |entry| entry), Ok(()));
        }
    }
}

#[test]
fn each_level_can_take_a_right_away() {
    let denied = FaultCode::PRESENT | FaultCode::USER;
    for level in ALL_LEVELS {
        let read_only = |entry: Entry| entry.without(EntryFlags::WRITABLE);
        assert_eq!(outcome(level, Access::Write, read_only), Err(denied | FaultCode::WRITE), "{level:?}");
        assert_eq!(outcome(level, Access::Read, read_only), Ok(()));
        assert_eq!(outcome(level, Access::Execute, read_only), Ok(()));
        let data = |entry: Entry| entry.with(EntryFlags::NO_EXECUTE);
        assert_eq!(outcome(level, Access::Execute, data), Err(denied | FaultCode::FETCH), "{level:?}");
        assert_eq!(outcome(level, Access::Write, data), Ok(()));
        let supervisor = |entry: Entry| entry.without(EntryFlags::USER);
        assert_eq!(outcome(level, Access::Read, supervisor), Err(denied), "{level:?}");
        assert_eq!(outcome(level, Access::Write, supervisor), Err(denied | FaultCode::WRITE), "{level:?}");
        assert_eq!(outcome(level, Access::Execute, supervisor), Err(denied | FaultCode::FETCH), "{level:?}");
    }
}

#[test]
fn reserved_bits_end_the_walk_on_each_level() {
    let reserved = Err(FaultCode::PRESENT | FaultCode::RESERVED | FaultCode::USER);
    let with_bits = |bits: u64| move |entry: Entry| Entry::from_word(entry.word() | bits);
    for level in ALL_LEVELS {
        for bit in [46, 51] {
            assert_eq!(outcome(level, Access::Read, with_bits(1 << bit)), reserved, "bit {bit} at {level:?}");
        }
    }
    let huge = EntryFlags::HUGE.bits();
    assert_eq!(outcome(Level::Four, Access::Read, with_bits(huge)), reserved);
    // At level 1 the bit is another one.
    assert_eq!(outcome(Level::One, Access::Read, with_bits(huge)), Ok(()));
    for (level, bits) in [(Level::Two, [13, 20]), (Level::Three, [13, 29])] {
        let leaf =
            |bits: u64| move |entry: Entry| Entry::new(frame(0), entry.with(EntryFlags::HUGE).flags()).word() | bits;
        for bit in bits {
            let change = |entry: Entry| Entry::from_word(leaf(1 << bit)(entry));
            assert_eq!(outcome(level, Access::Read, change), reserved, "bit {bit} at {level:?}");
        }
        let memory_type = |entry: Entry| Entry::from_word(leaf(1 << 12)(entry));
        assert_eq!(outcome(level, Access::Read, memory_type), Ok(()));
    }
}

#[test]
fn an_address_that_is_not_canonical_is_not_looked_up() {
    let lab = Lab::new();
    lab.space(0);
    for (address, is_canonical) in [
        (0x7fff_ffff_ffff, true),
        (0x8000_0000_0000, false),
        (u64::MAX >> 1, false),
        (0xffff_7fff_ffff_ffff, false),
        (0xffff_8000_0000_0000, true),
        (u64::MAX, true),
    ] {
        let fault = lab.machine.load(0, VirtAddr::new(address), &mut [0]).unwrap_err();
        let bits = if is_canonical { FaultCode::empty() } else { FaultCode::NOT_CANONICAL };
        assert_eq!(fault.code, FaultCode::USER | bits, "{address:#x}");
    }
}

#[test]
fn a_key_forbids_what_the_processor_says_and_never_a_fetch() {
    let key = ProtectionKey::new(5).unwrap();
    let (no_access, no_write) = (KeyRights::new(1 << 10), KeyRights::new(2 << 10));
    let lab = Lab::new();
    let root = lab.space(0);
    let place = lab.map(root, HERE, 0, RWX);
    lab.set(place, lab.entry(place).with_key(key));
    let denied = FaultCode::PRESENT | FaultCode::USER | FaultCode::KEY;
    let code = |access| lab.machine.translate(0, HERE, access).map(|_| ()).map_err(|fault| fault.code);
    // Each time without a flush: the rights of a key are not kept with the translation.
    assert_eq!(ACCESSES.map(code), [Ok(()); 3]);
    lab.machine.set_key_rights(0, no_access);
    assert_eq!(ACCESSES.map(code), [Err(denied), Err(denied | FaultCode::WRITE), Ok(())]);
    lab.machine.set_key_rights(0, no_write);
    assert_eq!(ACCESSES.map(code), [Ok(()), Err(denied | FaultCode::WRITE), Ok(())]);
    lab.machine.set_key_rights(0, KeyRights::new(!(3 << 10)));
    assert_eq!(ACCESSES.map(code), [Ok(()); 3]);
    // Both reasons are told.
    lab.machine.set_key_rights(0, no_write);
    lab.set(place, lab.entry(place).without(EntryFlags::WRITABLE));
    assert_eq!(code(Access::Write), Err(denied | FaultCode::WRITE));
    // Supervisor memory has no key.
    lab.set(place, lab.entry(place).without(EntryFlags::USER));
    assert_eq!(code(Access::Write), Err(FaultCode::PRESENT | FaultCode::USER | FaultCode::WRITE));
}

#[test]
fn entries_are_marked_when_they_are_used_and_not_before() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.map(root, HERE, 0, RWX.difference(EntryFlags::WRITABLE));
    let places = ALL_LEVELS.map(|level| lab.place(root, HERE, level));
    let marks = || {
        let of = |place| lab.entry(place).flags() & (EntryFlags::ACCESSED | EntryFlags::DIRTY);
        places.map(of)
    };
    let (none, a) = (EntryFlags::empty(), EntryFlags::ACCESSED);
    assert_eq!(marks(), [none; 4]);
    // A store that is refused has used the tables, and neither used nor changed the page.
    lab.machine.store(0, HERE, &[1]).unwrap_err();
    assert_eq!(marks(), [a, a, a, none]);
    lab.load(0, HERE).unwrap();
    assert_eq!(marks(), [a, a, a, a]);
    lab.set(places[3], lab.entry(places[3]).with(EntryFlags::WRITABLE));
    lab.machine.store(0, HERE, &[1]).unwrap();
    assert_eq!(marks(), [a, a, a, a | EntryFlags::DIRTY]);
}

#[test]
fn a_compare_and_exchange_is_a_store_even_if_it_fails() {
    let lab = Lab::new();
    let root = lab.space(0);
    let place = lab.map(root, HERE, 0, RWX);
    lab.mark(0, 7);
    assert_eq!(lab.machine.compare_exchange(0, HERE, 8, 9), Ok(Err(7)));
    assert!(lab.entry(place).contains(EntryFlags::DIRTY));
    assert_eq!(lab.machine.compare_exchange(0, HERE, 7, 9), Ok(Ok(())));
    assert_eq!(lab.load(0, HERE), Ok(9));
    lab.set(place, lab.entry(place).without(EntryFlags::WRITABLE));
    lab.machine.activate(0, root);
    assert!(lab.machine.compare_exchange(0, HERE, 1, 2).is_err());
}

#[test]
fn large_leaves_reach_all_of_their_memory() {
    // The places are beyond the memory, and nothing is accessed there.
    let gigabyte = Level::Three.pages();
    let lab = Lab::new();
    let root = lab.space(0);
    for (level, first) in [(Level::Two, gigabyte + 512), (Level::Three, gigabyte)] {
        let span = level.pages() * PAGE_SIZE;
        let start = VirtAddr::new(HERE.as_u64() / span * span + span);
        let place = lab.place(root, start, level);
        lab.set(place, Entry::new(frame(first), RWX | EntryFlags::HUGE));
        let at = |offset, access| {
            let place = lab.machine.translate(0, start.checked_add(offset).unwrap(), access);
            place.map(|place| place.as_u64())
        };
        for offset in [0, PAGE_SIZE + 8, span / 2 + 1, span - 8] {
            assert_eq!(at(offset, Access::Read), Ok(first * PAGE_SIZE + offset), "{level:?}");
        }
        assert_eq!(lab.entry(place).flags(), RWX | EntryFlags::HUGE | EntryFlags::ACCESSED);
        at(span - 1, Access::Write).unwrap();
        assert!(lab.entry(place).contains(EntryFlags::DIRTY));
        let walks = lab.machine.statistics().walks;
        at(span / 2, Access::Write).unwrap();
        assert_eq!(lab.machine.statistics().walks, walks, "one translation for all of it");
        at(span, Access::Read).unwrap_err();
        // The bit that selects a memory type is no part of the address.
        lab.set(place, Entry::from_word(lab.entry(place).word() | 1 << 12));
        lab.machine.activate(0, root);
        assert_eq!(at(8, Access::Read), Ok(first * PAGE_SIZE + 8));
    }
}

#[test]
fn an_access_over_a_border_is_made_page_by_page() {
    let lab = Lab::new();
    let root = lab.space(0);
    let next = HERE.checked_add(PAGE_SIZE).unwrap();
    lab.map(root, HERE, 3, RWX);
    let start = HERE.checked_add(PAGE_SIZE - 3).unwrap();
    let fault = lab.machine.store(0, start, &[1, 2, 3, 4, 5]).unwrap_err();
    assert_eq!(fault.address, next, "the first byte that is not there");
    let mut bytes = [0; 3];
    lab.machine.load(0, start, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3], "the first part stays");
    // Not the frame after the first one's.
    let place = lab.map(root, next, 1, RWX);
    lab.machine.store(0, start, &[6, 7, 8, 9, 10]).unwrap();
    let mut bytes = [0; 5];
    lab.machine.load(0, start, &mut bytes).unwrap();
    assert_eq!(bytes, [6, 7, 8, 9, 10]);
    let mut second = [0; 2];
    PhysMem::read(&lab.machine, lab.entry(place).frame().start(), &mut second);
    assert_eq!(second, [9, 10]);
    let mut code = [0; 5];
    lab.machine.fetch(0, start, &mut code).unwrap();
    assert_eq!(code, bytes);
    lab.set(place, lab.entry(place).with(EntryFlags::NO_EXECUTE));
    lab.machine.activate(0, root);
    assert_eq!(lab.machine.fetch(0, start, &mut code).unwrap_err().address, next);
    let mut long = std::vec![0; 3 * 4096];
    assert_eq!(lab.machine.load(0, start, &mut long).unwrap_err().address.as_u64(), next.as_u64() + PAGE_SIZE);
}

#[test]
fn a_poisoned_table_faults_as_nothing_else_does() {
    for level in ALL_LEVELS {
        let lab = Lab::new();
        let root = lab.space(0);
        let place = lab.place(root, HERE, level);
        lab.machine.poison(crate::frame::FrameNumber::containing(place));
        let fault = lab.load(0, HERE).unwrap_err();
        assert_eq!(fault.code, FaultCode::PRESENT | FaultCode::RESERVED | FaultCode::USER);
    }
}

#[test]
#[should_panic(expected = "outside of the 4096 frames")]
fn a_page_outside_of_memory_is_refused_with_the_reason() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.map(root, HERE, 0x10_0000, RWX);
    let _ = lab.load(0, HERE);
}

#[test]
#[should_panic(expected = "runs in a space")]
fn a_processor_that_runs_in_no_space_makes_no_access() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.map(root, HERE, 0, RWX);
    lab.load(0, HERE).unwrap();
    lab.machine.deactivate(0);
    let _ = lab.load(0, HERE);
}
