//! What processors remember, and what makes them forget.

use std::collections::BTreeSet;
use std::vec::Vec;

use super::{ALL_LEVELS, HERE, Lab, RWX, frame};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::frame::FrameNumber;
use crate::machine::{FaultCode, Known, KnownKind, MachineConfig, Statistics};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, Level};
use crate::prot::Prot;

fn page(address: VirtAddr) -> PageRange {
    PageRange::from_len(address.page_down(), PAGE_SIZE).unwrap()
}

fn pages_on(address: VirtAddr, pages: u64) -> VirtAddr {
    address.checked_add(pages * PAGE_SIZE).unwrap()
}

/// A page that holds 1, known to processor 0, and its entry.
fn known_page(lab: &Lab) -> (FrameNumber, crate::addr::PhysAddr) {
    let root = lab.space(0);
    lab.mark(0, 1);
    lab.mark(1, 2);
    let place = lab.map(root, HERE, 0, RWX);
    assert_eq!(lab.load(0, HERE), Ok(1));
    (root, place)
}

#[test]
fn another_frame_is_not_seen_before_the_flush() {
    let lab = Lab::new();
    let (root, _) = known_page(&lab);
    lab.map(root, HERE, 1, RWX);
    assert_eq!(lab.load(0, HERE), Ok(1), "as before");
    lab.machine.flush(root, page(HERE));
    assert_eq!(lab.load(0, HERE), Ok(2));
}

#[test]
fn a_page_that_was_taken_out_can_be_used_until_the_flush() {
    let lab = Lab::new();
    let (root, place) = known_page(&lab);
    lab.set(place, Entry::EMPTY);
    assert_eq!(lab.load(0, HERE), Ok(1));
    lab.machine.flush_all(root);
    assert_eq!(lab.load(0, HERE).unwrap_err().code, FaultCode::USER);
}

#[test]
fn rights_that_are_taken_away_last_until_the_flush_and_those_added_are_there_at_once() {
    let lab = Lab::new();
    let (root, place) = known_page(&lab);
    lab.machine.store(0, HERE, &[1]).unwrap();
    lab.set(place, lab.entry(place).without(EntryFlags::WRITABLE));
    lab.machine.store(0, HERE, &[3]).unwrap();
    lab.machine.flush(root, page(HERE));
    let fault = lab.machine.store(0, HERE, &[4]).unwrap_err();
    assert_eq!(fault.code, FaultCode::PRESENT | FaultCode::WRITE | FaultCode::USER);
    assert_eq!(lab.load(0, HERE), Ok(3));
    lab.set(place, lab.entry(place).with(EntryFlags::WRITABLE));
    assert_eq!(lab.load(0, HERE), Ok(3), "known as read-only again");
    lab.machine.store(0, HERE, &[5]).unwrap();
}

#[test]
fn a_store_to_a_page_known_as_clean_walks_and_one_known_as_dirty_does_not() {
    let lab = Lab::new();
    let (root, place) = known_page(&lab);
    // Known as clean: the store sees what became of the entry.
    lab.set(place, lab.entry(place).without(EntryFlags::WRITABLE));
    lab.machine.store(0, HERE, &[1]).unwrap_err();
    lab.set(place, lab.entry(place).with(EntryFlags::WRITABLE));
    lab.machine.store(0, HERE, &[1]).unwrap();
    assert!(lab.entry(place).contains(EntryFlags::DIRTY));
    // The store that was refused has forgotten the page.
    lab.map(root, HERE, 1, EntryFlags::PRESENT | EntryFlags::USER);
    assert_eq!(lab.load(0, HERE), Ok(1));
    lab.machine.activate(0, root);
    assert_eq!(lab.load(0, HERE), Ok(2));
    lab.map(root, HERE, 0, EntryFlags::PRESENT | EntryFlags::USER);
    lab.machine.store(0, HERE, &[1]).unwrap_err();
    assert_eq!(lab.load(0, HERE), Ok(1));
    lab.map(root, HERE, 0, RWX);
    lab.machine.store(0, HERE, &[1]).unwrap();
    // Known as dirty: who cleans the page without a flush misses the next store.
    lab.set(place, lab.entry(place).without(EntryFlags::DIRTY));
    lab.machine.store(0, HERE, &[2]).unwrap();
    assert!(!lab.entry(place).contains(EntryFlags::DIRTY));
    lab.machine.flush(root, page(HERE));
    lab.machine.store(0, HERE, &[3]).unwrap();
    assert!(lab.entry(place).contains(EntryFlags::DIRTY));
}

#[test]
fn a_table_that_was_taken_out_is_used_until_its_flush() {
    // The entry at `level` leads to another table, in which everything below `HERE` leads to page 1.
    for level in [Level::Four, Level::Three, Level::Two] {
        let lab = Lab::new();
        let (root, leaf) = known_page(&lab);
        let upper = lab.place(root, HERE, level);
        let old = lab.entry(upper);
        lab.set(upper, Entry::EMPTY);
        lab.map(root, HERE, 1, RWX);
        lab.map(root, pages_on(HERE, 1), 1, RWX);
        // Another page below the same entry, whose own translation is not known: its walk goes by the old table.
        let neighbour = lab.load(0, pages_on(HERE, 1));
        assert_eq!(neighbour.unwrap_err().code, FaultCode::USER, "the old table has nothing there: {level:?}");
        assert_eq!(lab.load(0, pages_on(HERE, 1)), Ok(2), "a fault makes it forget the tables");
        // Once more, with the flush of a page that is not below that entry, and then of one that is.
        lab.set(upper, old);
        lab.machine.activate(0, root);
        assert_eq!(lab.load(0, HERE), Ok(1));
        lab.set(upper, Entry::EMPTY);
        lab.map(root, HERE, 1, RWX);
        lab.map(root, pages_on(HERE, 1), 1, RWX);
        let old_table = FrameNumber::containing(leaf);
        lab.set(old_table.at((Level::One.index(HERE) + 1) * 8), Entry::new(frame(Lab::FIRST_PAGE), RWX));
        let elsewhere = VirtAddr::new(HERE.as_u64() ^ 1 << 46);
        lab.machine.flush(root, page(elsewhere));
        assert_eq!(lab.load(0, pages_on(HERE, 1)), Ok(1), "through the table that is gone: {level:?}");
        assert!(lab.machine.who_knows(old_table).is_some());
        lab.machine.flush(root, page(HERE));
        assert!(lab.machine.who_knows(old_table).is_none());
        assert_eq!(lab.load(0, HERE), Ok(2));
        assert_eq!(lab.load(0, pages_on(HERE, 1)), Ok(1), "the other page's translation was not flushed");
    }
}

#[test]
fn a_freed_table_that_was_not_flushed_shows_its_poison() {
    let lab = Lab::new();
    let (_, leaf) = known_page(&lab);
    lab.machine.poison(FrameNumber::containing(leaf));
    let fault = lab.load(0, pages_on(HERE, 1)).unwrap_err();
    assert_eq!(fault.code, FaultCode::PRESENT | FaultCode::RESERVED | FaultCode::USER);
}

#[test]
fn upper_entries_are_kept_with_the_rights_down_to_them() {
    let lab = Lab::new();
    let (root, _) = known_page(&lab);
    lab.map(root, pages_on(HERE, 1), 1, RWX);
    let upper = lab.place(root, HERE, Level::Three);
    lab.set(upper, lab.entry(upper).without(EntryFlags::WRITABLE));
    lab.machine.store(0, pages_on(HERE, 1), &[1]).unwrap();
    lab.machine.flush(root, page(HERE));
    lab.machine.store(0, HERE, &[1]).unwrap_err();
    // And the right that the lowest table known lacks is not found before a fault.
    assert_eq!(lab.load(0, HERE), Ok(1));
    lab.set(upper, lab.entry(upper).with(EntryFlags::WRITABLE));
    lab.machine.store(0, HERE, &[1]).unwrap_err();
    lab.machine.store(0, HERE, &[1]).unwrap();
}

#[test]
fn a_new_root_leaves_only_global_pages() {
    let lab = Lab::new();
    let root = lab.space(0);
    let other = lab.table();
    let global = pages_on(HERE, 1);
    lab.mark(0, 1);
    lab.mark(1, 2);
    lab.map(root, HERE, 0, RWX);
    lab.map(root, global, 1, RWX | EntryFlags::GLOBAL);
    assert_eq!((lab.load(0, HERE), lab.load(0, global)), (Ok(1), Ok(2)));
    lab.machine.activate(0, other);
    assert_eq!(lab.load(0, HERE).unwrap_err().code, FaultCode::USER);
    assert_eq!(lab.load(0, global), Ok(2), "as in the space before");
    let known: Vec<_> = lab.machine.known(0).collect();
    let kind = KnownKind::Page { rights: Prot::all(), is_dirty: false, is_global: true };
    let frame = frame(Lab::FIRST_PAGE + 1);
    assert_eq!(known, [Known { root, start: global, level: Level::One, frame, kind }]);
    // A flush of a space that has nothing to do with it does not help, one of its own does.
    lab.machine.flush(lab.table(), page(global));
    assert_eq!(lab.load(0, global), Ok(2));
    lab.machine.flush(root, page(global));
    assert!(lab.load(0, global).is_err());
    // So does one of the space that the processor runs in, wherever the page was read from.
    lab.machine.activate(0, root);
    assert_eq!(lab.load(0, global), Ok(2));
    lab.machine.activate(0, other);
    lab.machine.flush(other, page(global));
    assert!(lab.load(0, global).is_err());
}

#[test]
fn loading_the_same_root_again_forgets_too() {
    let lab = Lab::new();
    let (root, _) = known_page(&lab);
    lab.map(root, HERE, 1, RWX);
    lab.machine.activate(0, root);
    assert_eq!(lab.machine.known(0).count(), 0);
    assert_eq!(lab.load(0, HERE), Ok(2));
}

#[test]
fn a_flush_reaches_all_processors_of_its_space_and_no_other_pages() {
    let lab = Lab::with(MachineConfig { processors: 4, ..MachineConfig::default() });
    let (root, place) = known_page(&lab);
    let next = pages_on(HERE, 1);
    let next_place = lab.map(root, next, 0, RWX);
    let other = lab.space(3);
    lab.map(other, HERE, 0, RWX);
    lab.machine.activate(1, root);
    lab.machine.activate(2, root);
    for processor in 0..4 {
        assert_eq!(lab.load(processor, HERE), Ok(1));
    }
    for processor in 0..3 {
        assert_eq!(lab.load(processor, next), Ok(1));
    }
    // It runs in no space, and keeps what it knows of the last one.
    lab.machine.deactivate(2);
    assert_eq!((lab.machine.active(1), lab.machine.active(2)), (Some(root), None));
    lab.set(place, Entry::EMPTY);
    lab.set(next_place, Entry::EMPTY);
    lab.set(lab.place(other, HERE, Level::One), Entry::EMPTY);
    let knows = |processor, address| lab.machine.known(processor).any(|known| known.start == address);
    assert!((0..4).all(|processor| knows(processor, HERE)));
    lab.machine.flush(root, page(HERE));
    assert_eq!([0, 1, 2, 3].map(|processor| knows(processor, HERE)), [false, false, false, true]);
    assert_eq!([0, 1, 2].map(|processor| knows(processor, next)), [true; 3]);
    assert!(lab.load(0, HERE).is_err() && lab.load(1, HERE).is_err());
    assert_eq!((lab.load(1, next), lab.load(3, HERE)), (Ok(1), Ok(1)));
}

#[test]
fn a_flush_of_all_spares_the_upper_half() {
    let lab = Lab::new();
    let (root, place) = known_page(&lab);
    let upper = VirtAddr::new(0xffff_8000_0000_0000);
    lab.map(root, upper, 0, RWX);
    assert_eq!(lab.load(0, upper), Ok(1));
    let top = VirtAddr::new(0x7fff_ffff_f000);
    lab.map(root, top, 0, RWX | EntryFlags::GLOBAL);
    assert_eq!(lab.load(0, top), Ok(1));
    lab.machine.flush_all(root);
    let known: BTreeSet<_> = lab.machine.known(0).map(|known| known.start).collect();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [upper], "its page and its tables start there");
    lab.set(place, Entry::EMPTY);
    assert!(lab.load(0, HERE).is_err());
}

#[test]
fn a_flush_inside_a_large_page_forgets_it() {
    for level in [Level::Two, Level::Three] {
        let lab = Lab::new();
        let root = lab.space(0);
        let place = lab.place(root, HERE, level);
        lab.set(place, Entry::new(frame(0), RWX | EntryFlags::HUGE));
        let start = VirtAddr::new(HERE.as_u64() & !(level.pages() * PAGE_SIZE - 1));
        let inside = pages_on(start, 0x123);
        assert!(lab.load(0, start).is_ok());
        lab.set(place, Entry::EMPTY);
        assert!(lab.load(0, inside).is_ok());
        assert!(lab.machine.who_knows(frame(0x1ff)).is_some());
        lab.machine.flush(root, page(inside));
        assert!(lab.machine.who_knows(frame(0x1ff)).is_none());
        assert!(lab.load(0, start).is_err());
    }
}

#[test]
fn what_is_remembered_is_bounded_and_what_gives_way_is_always_the_same() {
    let run = |tlb_entries, table_entries| {
        let lab = Lab::with(MachineConfig { tlb_entries, table_entries, ..MachineConfig::default() });
        let root = lab.space(0);
        // Each under a table of its own.
        let pages: Vec<_> = (0..64).map(|index| pages_on(HERE, index * Level::Two.pages())).collect();
        for (number, &address) in (0..).zip(&pages) {
            lab.mark(number, number);
            lab.map(root, address, number, RWX);
        }
        for (number, &address) in (0..).zip(&pages).chain((0..).zip(&pages)) {
            assert_eq!(lab.load(0, address), Ok(number));
            let known: Vec<_> = lab.machine.known(0).collect();
            let tables = known.iter().filter(|known| known.kind == KnownKind::Table).count();
            assert!(tables <= table_entries && known.len() - tables <= tlb_entries);
        }
        let known: Vec<_> = lab.machine.known(0).map(|known| (known.start, known.level)).collect();
        (known, lab.machine.statistics())
    };
    for (pages, tables) in [(0, 0), (1, 1), (3, 2), (4, 0), (16, 8), (1000, 1000)] {
        let (known, statistics) = run(pages, tables);
        assert_eq!((known.clone(), statistics), run(pages, tables));
        match pages {
            0 => assert_eq!(known, []),
            1000 => assert_eq!((statistics.walks, statistics.hits), (64, 64)),
            _ => assert!(statistics.walks > 64, "there is no room for all"),
        }
    }
}

#[test]
fn without_memory_of_its_own_a_processor_is_never_out_of_date() {
    let lab = Lab::with(MachineConfig { tlb_entries: 0, table_entries: 0, ..MachineConfig::default() });
    let (root, _) = known_page(&lab);
    lab.map(root, HERE, 1, RWX);
    assert_eq!(lab.load(0, HERE), Ok(2));
    for level in ALL_LEVELS {
        let place = lab.place(root, HERE, level);
        let entry = lab.entry(place);
        lab.set(place, Entry::EMPTY);
        assert!(lab.load(0, HERE).is_err());
        lab.set(place, entry);
        assert_eq!(lab.load(0, HERE), Ok(2));
    }
}

#[test]
fn a_flush_that_is_left_out_leaves_everything() {
    let lab = Lab::new();
    let (root, place) = known_page(&lab);
    lab.set(place, Entry::EMPTY);
    lab.machine.flush_point().fail_once(1);
    lab.machine.flush(lab.table(), page(HERE));
    lab.machine.flush(root, page(HERE));
    assert_eq!(lab.load(0, HERE), Ok(1));
    lab.machine.flush_point().fail_once(0);
    lab.machine.flush_all(root);
    assert_eq!(lab.load(0, HERE), Ok(1));
    lab.machine.flush(root, page(HERE));
    assert!(lab.load(0, HERE).is_err());
    assert_eq!(lab.machine.flush_point().disarm(), 1);
}

#[test]
fn what_the_machine_has_done_is_counted() {
    let lab = Lab::new();
    let (root, _) = known_page(&lab);
    lab.load(0, HERE).unwrap();
    lab.load(0, HERE).unwrap();
    lab.machine.load(0, VirtAddr::new(0), &mut [0]).unwrap_err();
    lab.machine.activate(1, root);
    lab.load(1, HERE).unwrap();
    lab.machine.flush(root, PageRange::from_pages(0, PageCount::new(7)).unwrap());
    lab.machine.flush_all(root);
    let expected = Statistics { walks: 3, hits: 2, faults: 1, flushes: 1, pages_flushed: 7, full_flushes: 1 };
    assert_eq!(lab.machine.statistics(), expected);
}

#[test]
fn memory_is_poisoned_until_somebody_writes_to_it() {
    let lab = Lab::new();
    let frame = frame(77);
    assert!(lab.machine.is_poisoned(frame));
    PhysMem::write(&lab.machine, frame.at(4095), &[0]);
    assert!(!lab.machine.is_poisoned(frame));
    lab.machine.poison(frame);
    assert!(lab.machine.is_poisoned(frame));
}

#[test]
fn a_flush_reaches_the_last_page_of_its_range_and_not_the_next() {
    let lab = Lab::new();
    let root = lab.space(0);
    let pages = [0, 1, 2, 3].map(|index| pages_on(HERE, index));
    for address in pages {
        lab.map(root, address, 0, RWX);
        lab.load(0, address).unwrap();
    }
    lab.machine.flush(root, PageRange::from_pages(HERE.page_number(), PageCount::new(3)).unwrap());
    let known = |address| lab.machine.known(0).any(|known| known.start == address);
    assert_eq!(pages.map(known), [false, false, false, true]);
}
