//! Threads that fault, look and fork at once.

use std::sync::RwLock;
use std::thread;

use super::random::Random;
use super::*;
use crate::page_table::Mapped;

/// Pages of the spaces, in two tables of level 1.
const FIRST: u64 = 500;
const COUNT: u64 = 40;

/// A store to `page`: what the tables allow is done, what they do not gets a frame of its own. The entry's `mark`
/// says which space has stored last.
fn store(world: &World, root: &Root, page: u64, mark: EntryFlags) {
    let tables = world.tables();
    let mut gather = Gather::new(tables, root);
    let slot = tables.slot(root, at(page)).unwrap();
    let mut current = tables.load(&slot);
    // Each thread puts a frame of its own there, as often as it takes.
    let frame = world.thread_frame();
    while let Err(found) = tables.install(root, &slot, current, Entry::new(frame, RW | mark)) {
        current = found;
    }
    if !current.is_empty() {
        gather.leaf(pages(page, 1), current, Level::One);
    }
}

/// What a space shows was put there by itself or by the space that both come from.
fn look(world: &World, root: &Root, mark: EntryFlags, foreign: EntryFlags) {
    let tables = world.tables();
    for page in FIRST..FIRST + COUNT {
        if let Mapped::Leaf { entry, above_writable, .. } = tables.query(root, at(page)) {
            assert!(!entry.contains(foreign), "page {page} shows {entry:?}, which {mark:?} cannot see");
            assert!(above_writable || !entry.contains(mark), "what this space stored is in its own tables");
        }
    }
    let mut last = 0;
    tables.entries(root, pages(0, 1 << 20), &mut |span, entry, _| {
        assert!(last < span.first_page() && !entry.contains(foreign));
        last = span.first_page();
    });
    assert_eq!(last, FIRST + COUNT - 1, "nothing is left out");
}

/// Two spaces that share all tables are stored to and read by two threads each, and one of them goes meanwhile.
#[test]
fn spaces_part_while_threads_are_at_work_in_both() {
    for seed in 0..60 {
        let world = World::new();
        world.is_strict.store(false, Ordering::Relaxed);
        let mut parent = Root::new(&world).unwrap();
        for page in FIRST..FIRST + COUNT {
            world.tables().map(&mut parent, at(page), world.new_frames(1, 1), RW).unwrap();
        }
        let mut child = Root::new(&world).unwrap();
        let mut gather = Gather::new(world.tables(), &parent);
        world.tables().fork(&mut parent, &mut child, &mut gather, &mut ShareAll).unwrap();
        drop(gather);
        let (left, right) = (EntryFlags::SOFT_2, EntryFlags::SOFT_3);
        let roots = [parent, child].map(|root| RwLock::new(Some(root)));
        let marks = [(left, right), (right, left)];
        thread::scope(|scope| {
            for (number, (root, (mark, foreign))) in roots.iter().zip(marks).enumerate() {
                let world = &world;
                for half in 0..2 {
                    let mut random = Random::new(seed * 4 + half + 2 * number as u64);
                    scope.spawn(move || {
                        for _ in 0..12 {
                            let page = FIRST + random.below(COUNT);
                            let guard = root.read().unwrap();
                            let Some(root) = guard.as_ref() else { return };
                            store(world, root, page, mark);
                            look(world, root, mark, foreign);
                        }
                        if half == 0 && seed % 2 == number as u64 {
                            let root = root.write().unwrap().take();
                            root.into_iter().for_each(|root| world.tables().destroy(root));
                        }
                    });
                }
            }
        });
        for root in roots.into_iter().filter_map(|root| root.into_inner().unwrap()) {
            world.tables().check_invariants(&root);
            world.check_references(&[root.frame()]);
            world.tables().destroy(root);
        }
        world.check_references(&[]);
    }
}
