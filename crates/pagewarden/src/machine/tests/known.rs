//! What processors remember, as it is shown.

use std::vec::Vec;

use super::{ALL_LEVELS, HERE, Lab, RWX, frame};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::machine::{Known, KnownKind, MachineConfig};
use crate::page_table::{Entry, EntryFlags, Level};
use crate::prot::Prot;

/// The first address of the span of `level` that holds `address`.
fn span_of(level: Level, address: VirtAddr) -> VirtAddr {
    VirtAddr::new(address.as_u64() & !(level.pages() * PAGE_SIZE - 1))
}

#[test]
fn each_thing_is_shown_as_it_was_read() {
    let lab = Lab::new();
    let root = lab.space(1);
    let page = |rights, is_dirty| KnownKind::Page { rights, is_dirty, is_global: false };
    let (next, large) = (HERE.checked_add(PAGE_SIZE).unwrap(), HERE.checked_add(PAGE_SIZE << 9).unwrap());
    let large = span_of(Level::Two, large);
    lab.map(root, HERE, 0, EntryFlags::PRESENT | EntryFlags::USER | EntryFlags::NO_EXECUTE);
    lab.map(root, next, 1, RWX);
    lab.set(lab.place(root, large, Level::Two), Entry::new(frame(0), RWX | EntryFlags::HUGE));
    for address in [HERE, next, large] {
        lab.load(1, address).unwrap();
    }
    lab.machine.store(1, next, &[1]).unwrap();
    let known = |start, level, frame, kind| Known { root, start, level, frame, kind };
    let mut expected = std::vec![
        known(HERE, Level::One, frame(Lab::FIRST_PAGE), page(Prot::READ, false)),
        known(next, Level::One, frame(Lab::FIRST_PAGE + 1), page(Prot::all(), true)),
        known(large, Level::Two, frame(0), page(Prot::all(), false)),
    ];
    expected.extend(ALL_LEVELS.into_iter().filter(|level| *level != Level::One).map(|level| {
        let table = lab.entry(lab.place(root, HERE, level)).frame();
        known(span_of(level, HERE), level, table, KnownKind::Table)
    }));
    let mut found: Vec<_> = lab.machine.known(1).collect();
    for list in [&mut found, &mut expected] {
        list.sort_by_key(|known| (known.level, known.start, known.kind == KnownKind::Table));
    }
    assert_eq!(found, expected);
    assert_eq!(lab.machine.known(0).next(), None, "it has read nothing");
}

#[test]
fn a_page_uses_all_of_its_frames_and_a_table_its_own() {
    let first = Level::Three.pages();
    let page = KnownKind::Page { rights: Prot::READ, is_dirty: false, is_global: false };
    for (level, kind, frames) in [
        (Level::One, page, 1),
        (Level::Two, page, 1 << 9),
        (Level::Three, page, 1 << 18),
        (Level::Two, KnownKind::Table, 1),
        (Level::Four, KnownKind::Table, 1),
    ] {
        let known = Known { root: frame(0), start: VirtAddr::new(0), level, frame: frame(first), kind };
        let uses = [first - 1, first, first + frames - 1, first + frames].map(|number| known.uses(frame(number)));
        assert_eq!(uses, [false, true, true, false], "{level:?} {kind:?}");
    }
}

#[test]
fn the_first_processor_that_knows_a_frame_is_named() {
    let lab = Lab::with(MachineConfig { processors: 3, ..MachineConfig::default() });
    let root = lab.space(1);
    lab.machine.activate(2, root);
    let leaf = lab.map(root, HERE, 0, RWX);
    let (page, table) = (frame(Lab::FIRST_PAGE), crate::frame::FrameNumber::containing(leaf));
    let who = || [root, table, page, frame(Lab::FIRST_PAGE + 1)].map(|frame| lab.machine.who_knows(frame));
    assert_eq!(who(), [Some(1), None, None, None], "it runs there and has read nothing");
    lab.load(2, HERE).unwrap();
    assert_eq!(who(), [Some(1), Some(2), Some(2), None]);
    lab.load(1, HERE).unwrap();
    assert_eq!(who(), [Some(1), Some(1), Some(1), None]);
    lab.machine.deactivate(1);
    assert_eq!(who(), [Some(2), Some(1), Some(1), None], "it keeps what it remembers");
    lab.machine.deactivate(2);
    lab.machine.activate(0, root);
    assert_eq!(who(), [Some(0), Some(1), Some(1), None]);
}
