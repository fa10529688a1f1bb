//! Single cases: what costs what, and what is refused.

use super::spaces::Spaces;
use super::*;
use crate::frame::FrameRange;
use crate::page_table::{Mapped, Move, Share};

/// 16 GiB of 2 MiB leaves and a page of 4 KiB in each GiB are forked by one entry.
#[test]
fn a_fork_costs_an_entry_whatever_is_below() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    let gib = 1 << 18;
    for index in 0..16 {
        spaces.map_run(0, pages(index * gib, 1024), RW | EntryFlags::HUGE).unwrap();
        spaces.map(0, index * gib + 1024, RW).unwrap();
    }
    let tables = world.state.lock().unwrap().tables.len();
    let mut asked = 0;
    spaces
        .fork(0, &mut |_| {
            asked += 1;
            Share::All
        })
        .unwrap();
    assert_eq!(asked, 1);
    assert_eq!(world.state.lock().unwrap().tables.len(), tables + 1, "but for the root, no table is new");
    assert_eq!(world.flushes.load(Ordering::Relaxed), 1);
    // A store copies the tables on its way and no others.
    spaces.fault(1, 3 * gib + 1024).unwrap();
    assert_eq!(world.state.lock().unwrap().tables.len(), tables + 4);
    // The parent finds one reference on each of its way, and copies nothing.
    spaces.fault(0, 3 * gib + 1024).unwrap();
    assert_eq!(world.state.lock().unwrap().tables.len(), tables + 4);
    spaces.check();
    spaces.check_references();
    spaces.finish();
}

/// A table that was shared and is exclusive again does not let through what its tables below copied meanwhile.
#[test]
fn what_is_below_a_table_that_was_shared_stays_protected() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    (0..4).for_each(|page| spaces.map(0, page, RW).unwrap());
    spaces.fork(0, &mut |_| Share::All).unwrap();
    spaces.fault(1, 0).unwrap();
    spaces.check();
    spaces.fault(0, 0).unwrap();
    spaces.check();
    let page = world.tables().query(&spaces.all[0].root, at(1));
    let Mapped::Leaf { entry, above_writable, .. } = page else { panic!("{page:?}") };
    assert!(above_writable && !entry.contains(EntryFlags::WRITABLE), "both spaces show it");
    spaces.destroy(1);
    spaces.check();
    spaces.finish();
}

/// Tables that span a move as a whole move by one entry, even where they are shared.
#[test]
fn whole_tables_move_by_one_entry() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    spaces.map_run(0, pages(1024, 1024), RW).unwrap();
    spaces.fork(0, &mut |span| if span.pages().get() > 512 { Share::Inside } else { Share::All }).unwrap();
    let before: Vec<_> = world.state.lock().unwrap().tables.keys().copied().collect();
    spaces.relocate(1, Move { from: pages(1024, 1024), to: pages(8192, 1024) }, EntryFlags::empty()).unwrap();
    let after: Vec<_> = world.state.lock().unwrap().tables.keys().copied().collect();
    assert_eq!(before, after);
    spaces.check();
    spaces.check_references();
    // With a change to each they have to be this space's own.
    spaces.relocate(1, Move { from: pages(8192, 1024), to: pages(1024, 1024) }, EntryFlags::SOFT_3).unwrap();
    assert_eq!(world.state.lock().unwrap().tables.len(), before.len() + 2);
    spaces.check();
    spaces.finish();
}

/// Sixty-four TiB with a page at either end: neither a fork nor a walk looks at what is not there.
#[test]
fn holes_are_passed_over() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    let last = (1 << 34) - 1;
    spaces.map(0, 0, RW).unwrap();
    spaces.map(0, last, RW).unwrap();
    spaces.relocate(0, Move { from: pages(0, 1 << 34), to: pages(1 << 34, 1 << 34) }, EntryFlags::SOFT_3).unwrap();
    spaces.protect(0, pages(1 << 34, 1 << 34), RO).unwrap();
    spaces.fork(0, &mut |_| Share::Inside).unwrap();
    spaces.harvest(1, pages(0, 1 << 35));
    spaces.check();
    spaces.clear(1, pages(0, 1 << 35)).unwrap();
    assert_eq!(world.tables().check_invariants(&spaces.all[1].root).tables, 1);
    spaces.finish();
}

/// Both halves have places, the hole between them and the last page have none.
#[test]
fn pages_without_a_place_are_refused() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    let frame = FrameNumber::new(DATA).unwrap();
    let (lower_end, upper) = (1 << 35, (1 << 52) - (1 << 35));
    let tables = world.tables();
    for page in [lower_end, upper - 1, (1 << 52) - 1] {
        let space = &mut spaces.all[0];
        assert_eq!(tables.map(&mut space.root, at(page), frame, RW), Err(Errno::Inval));
        assert_eq!(tables.slot(&space.root, at(page)).map(|_| ()), Err(Errno::Inval));
        assert_eq!(tables.query(&space.root, at(page)), Mapped::Nothing(Level::Four));
    }
    let across = [pages(lower_end - 1, 2), pages(upper - 1, 2), pages(0, (1 << 52) - 1)];
    for range in across {
        let space = &mut spaces.all[0];
        let frames = FrameRange::new(frame, range.pages());
        if let Some(frames) = frames {
            assert_eq!(tables.map_run(&mut space.root, range.start(), frames, RW), Err(Errno::Inval));
        }
        assert_eq!(tables.make_exclusive(&mut space.root, range), Err(Errno::Inval));
    }
    for page in [0, lower_end - 1, upper, (1 << 52) - 2] {
        spaces.map(0, page, RW).unwrap();
        spaces.fault(0, page).unwrap();
    }
    spaces.check();
    // Without asking whether it can be done, what has places goes.
    let mut gather = Gather::new(tables, &spaces.all[0].root);
    tables.clear(&mut spaces.all[0].root, pages(0, (1 << 52) - 1), &mut gather);
    drop(gather);
    spaces.all[0].model.clear();
    spaces.check();
    spaces.finish();
}

/// A page twice, and large leaves where a small one is in the way.
#[test]
fn nothing_is_mapped_over() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    spaces.map_run(0, pages(512, 512), RW | EntryFlags::HUGE).unwrap();
    let flushes = world.flushes.load(Ordering::Relaxed);
    assert_eq!(spaces.map(0, 700, RW), Err(Errno::Exist));
    assert_eq!(spaces.map_run(0, pages(0, 513), RW), Err(Errno::Exist));
    assert_eq!(world.tables().check_invariants(&spaces.all[0].root).leaves, 1, "nothing was split for it");
    assert_eq!(world.flushes.load(Ordering::Relaxed), flushes);
    assert_eq!(spaces.unmap(0, 511), Ok(()));
    spaces.unmap(0, 700).unwrap();
    assert_eq!(world.tables().check_invariants(&spaces.all[0].root).leaves, 511);
    spaces.map(0, 700, RW).unwrap();
    assert!(!spaces.promote(0, 700), "the frames do not follow each other");
    spaces.check();
    spaces.finish();
}

/// Large leaves that reach out of a range are split at both edges, in a space without shared tables too.
#[test]
fn the_edges_of_a_range_cut_large_leaves() {
    let world = World::new();
    for clears in [false, true] {
        let mut spaces = Spaces::new(&world);
        spaces.map_run(0, pages(512, 3 * 512), RW | EntryFlags::HUGE).unwrap();
        let part = pages(600, 1000);
        if clears {
            spaces.clear(0, part).unwrap()
        } else {
            spaces.protect(0, part, RO).unwrap()
        }
        let left = if clears { 3 * 512 - 1000 } else { 2 * 512 + 1 };
        assert_eq!(world.tables().check_invariants(&spaces.all[0].root).leaves, left);
        spaces.check();
        spaces.finish();
    }
}

/// Splitting and joining keep what processors have set.
#[test]
fn accessed_and_dirty_outlive_a_change_of_size() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    spaces.map_run(0, pages(512, 512), RW).unwrap();
    let mut page = 0;
    world.touch_all(spaces.all[0].root.frame(), &mut || {
        page += 1;
        (page == 7, true)
    });
    assert!(spaces.promote(0, 512));
    spaces.check();
    let tables = world.tables();
    let large = tables.query(&spaces.all[0].root, at(600)).leaf().unwrap();
    assert!(large.contains(EntryFlags::ACCESSED | EntryFlags::DIRTY | EntryFlags::HUGE));
    spaces.split(0, 600).unwrap();
    spaces.check();
    let small = tables.query(&spaces.all[0].root, at(600)).leaf().unwrap();
    assert!(small.contains(EntryFlags::ACCESSED | EntryFlags::DIRTY) && !small.contains(EntryFlags::HUGE));
    let mut told = 0;
    let mut gather = Gather::new(tables, &spaces.all[0].root);
    tables.harvest(&mut spaces.all[0].root, pages(600, 100), &mut gather, &mut |_, _| told += 1);
    tables.harvest(&mut spaces.all[0].root, pages(590, 20), &mut gather, &mut |_, _| told += 1);
    drop(gather);
    assert_eq!(told, 110);
    spaces.check();
    spaces.finish();
}

/// What processors set between a look at an entry and its replacement is neither lost nor in the way.
#[test]
fn what_processors_set_meanwhile_is_kept() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    spaces.map(0, 5, RW).unwrap();
    let root = spaces.all[0].root.frame();
    let mut gather = Gather::new(world.tables(), &spaces.all[0].root);
    world.tables().edit(&mut spaces.all[0].root, pages(5, 1), &mut gather, &mut |_, entry, _| {
        world.touch_all(root, &mut || (true, true));
        entry.without(EntryFlags::WRITABLE)
    });
    drop(gather);
    let entry = world.tables().query(&spaces.all[0].root, at(5)).leaf().unwrap();
    assert!(entry.contains(EntryFlags::DIRTY) && !entry.contains(EntryFlags::WRITABLE));
    spaces.check();
    spaces.finish();
}

/// A gather that is full flushes and goes on; many spans become one flush.
#[test]
fn a_gather_holds_any_number_of_things() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    (0..300).for_each(|page| spaces.map(0, 2 * page, RW).unwrap());
    (0..20).for_each(|page| spaces.map(0, (1 << 52) - 1000 + 2 * page, RW).unwrap());
    let root = spaces.all[0].root.frame();
    world.touch_all(root, &mut || (true, true));
    let before = world.flushes.load(Ordering::Relaxed);
    spaces.clear(0, pages(1, 590)).unwrap();
    spaces.check();
    spaces.clear(0, pages((1 << 52) - 999, 30)).unwrap();
    spaces.check();
    let flushes = world.flushes.load(Ordering::Relaxed) - before;
    assert!(flushes < 30, "{flushes} flushes");
    spaces.finish();
}

/// A table that nothing is left in goes, and tables that lie in a range as a whole are made exclusive to the last.
#[test]
fn tables_come_and_go_with_what_is_in_them() {
    let world = World::new();
    let mut spaces = Spaces::new(&world);
    spaces.map(0, 5, RW).unwrap();
    spaces.unmap(0, 5).unwrap();
    assert_eq!(world.tables().check_invariants(&spaces.all[0].root).tables, 1);
    (0..3).for_each(|index| spaces.map(0, index << 18, RW).unwrap());
    spaces.fork(0, &mut |_| Share::All).unwrap();
    spaces.edit(1, pages(0, 1 << 30), &mut |page| u8::from(page == 0)).unwrap();
    spaces.check();
    spaces.check_references();
    spaces.finish();
}
