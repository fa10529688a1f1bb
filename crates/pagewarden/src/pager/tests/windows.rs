//! Pages that live as long as a window or a mapping reaches them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{BASE, RW, World, munmap, object_pages, page, private};
use crate::addr::{PAGE_SIZE, PageCount};
use crate::error::Errno;
use crate::ledger::{Account, Limits, Resource};
use crate::linux::proc_text::{Landmarks, write_maps};
use crate::linux::{
    FileTraits, MapFlags, MapSource, MmapRequest, MremapRequest, OpenFile, RemapFlags, RemapPagesRequest, Request,
};
use crate::machine::Machine;
use crate::object::{Extent, FileId, MemoryObject, ObjectKind, ObjectSource, Placement, Window};
use crate::pager::AddressSpace;

/// An object that is held, and who pays for it.
pub(super) struct Held {
    pub(super) object: Arc<MemoryObject>,
    pub(super) window: Option<Window<Machine>>,
    pub(super) account: Account,
}

pub(super) fn frames(pages: u64, placement: Placement) -> ObjectSource {
    ObjectSource::Frames { pages: PageCount::new(pages), placement }
}

pub(super) fn anonymous(pages: u64) -> ObjectSource {
    ObjectSource::Anonymous { bytes: pages * PAGE_SIZE }
}

impl World {
    pub(super) fn held(&self, source: ObjectSource) -> Held {
        let account = self.ledger.root().child(Limits::UNLIMITED);
        let (object, window) = self.pager.new_held(&account, source, PageCount::new(0)).unwrap();
        Held { object, window: Some(window), account }
    }
}

impl Held {
    /// Frames that are paid.
    pub(super) fn frames(&self) -> u64 {
        self.account.used(Resource::Frames)
    }

    /// Maps `pages` pages from page `index` on at `first`.
    pub(super) fn map(&self, first: u64, pages: u64, index: u64) -> Request {
        map_object(&self.object, first, pages, index)
    }
}

pub(super) fn map_object(object: &Arc<MemoryObject>, first: u64, pages: u64, index: u64) -> Request {
    let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
    let source = MapSource::File(OpenFile { object: object.clone(), traits });
    let (addr, len, offset) = (page(first), pages * PAGE_SIZE, index * PAGE_SIZE);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    Request::Mmap(MmapRequest { addr, len, prot: RW, flags, source, offset })
}

fn mremap(from: u64, old: u64, new: u64, flags: RemapFlags, to: u64) -> Request {
    let (addr, old_len, new_len) = (page(from), old * PAGE_SIZE, new * PAGE_SIZE);
    Request::Mremap(MremapRequest { addr, old_len, new_len, flags, new_addr: page(to) })
}

fn moved(from: u64, old: u64, new: u64, to: u64) -> Request {
    mremap(from, old, new, RemapFlags::MAY_MOVE | RemapFlags::FIXED, to)
}

/// Stores the number of each page plus 1 in it.
fn fill(world: &World, held: &Held, pages: u8) {
    for index in 0..pages {
        assert_eq!(world.pager.write(&held.object, u64::from(index) * PAGE_SIZE, &[index + 1]), Ok(1));
    }
}

fn check(world: &World, spaces: &[&AddressSpace<Machine>]) {
    spaces.iter().for_each(|space| space.check_invariants());
    let tables: Vec<_> = spaces.iter().map(|space| space.tables()).collect();
    let tables: Vec<_> = tables.iter().map(|tables| &**tables).collect();
    assert_eq!(world.stale(&tables), None);
    world.pager.frames().check_invariants();
}

#[test]
fn a_page_that_is_mapped_outlives_the_last_handle_and_no_other_does() {
    let world = World::new(128);
    for source in [frames(8, Placement::Scattered), frames(8, Placement::Contiguous), anonymous(8)] {
        let before = world.pager.frames().available();
        let mut held = world.held(source);
        assert_eq!((held.frames(), before - world.pager.frames().available()), (8, 8), "there from the beginning");
        assert_eq!(*held.object.kind(), ObjectKind::Capability);
        fill(&world, &held, 8);
        let space = world.space();
        space.call(&held.map(0, 1, 3)).unwrap();
        assert_eq!(world.load(&space, page(0)), Ok(4));
        world.store(&space, page(0), 40).unwrap();
        held.window = None;
        assert_eq!(held.frames(), 1);
        check(&world, &[&space]);
        assert_eq!(world.load(&space, page(0)), Ok(40));
        space.call(&munmap(0, 1)).unwrap();
        assert_eq!(held.frames(), 0);
        check(&world, &[&space]);
        assert_eq!(world.pager.write(&held.object, 0, &[1]), Err(Errno::Inval), "nobody reaches it");
        assert_eq!(held.frames(), 0, "and so it does not come back");
        drop(space);
        assert_eq!(world.pager.frames().available(), before);
    }
    world.check_empty();
}

#[test]
fn pages_go_with_the_last_of_the_windows_that_have_them() {
    let world = World::new(64);
    let mut held = world.held(frames(10, Placement::Scattered));
    let hold = |first, pages| world.pager.hold_window(&held.object, object_pages(first, pages)).unwrap();
    let (low, high, twice) = (hold(0, 6), hold(4, 4), hold(4, 4));
    assert_eq!((low.pages().first(), high.pages()), (0, object_pages(4, 4)));
    held.window = None;
    assert_eq!(held.frames(), 8, "pages 8 and 9 are gone");
    drop(high);
    assert_eq!(held.frames(), 8, "held by a window of the same pages");
    drop(low);
    assert_eq!(held.frames(), 4);
    let inner = world.pager.hold_window(&held.object, object_pages(5, 1)).unwrap();
    drop(twice);
    assert_eq!(held.frames(), 1);
    drop(inner);
    assert_eq!(held.frames(), 0);
    drop(held);
    world.check_empty();
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let world = World::new(64);
    let held = world.held(anonymous(2));
    let memfd = world.memfd(2);
    assert_eq!(world.pager.hold_window(&memfd.object, object_pages(0, 1)).unwrap_err(), Errno::Inval);
    let refused = |source, capacity| {
        let account = world.ledger.root();
        world.pager.new_held(account, source, PageCount::new(capacity)).unwrap_err()
    };
    // At once: a loop over so many would not end.
    for pages in [65, 1 << 40, 1 << 50, u64::MAX] {
        assert_eq!(refused(frames(pages, Placement::Scattered), 0), Errno::NoMem);
        assert_eq!(refused(frames(pages, Placement::Contiguous), 0), Errno::NoMem);
        assert_eq!(refused(ObjectSource::Anonymous { bytes: pages.saturating_mul(PAGE_SIZE) }, 0), Errno::NoMem);
    }
    assert_eq!(refused(anonymous(0), 0), Errno::Inval);
    assert_eq!(refused(anonymous(1), 1 << 52), Errno::Inval);
    assert_eq!(world.pager.resize(&held.object, i64::MAX.cast_unsigned()), Err(Errno::NoMem));
    assert_eq!(held.frames(), 2);
    drop((held, memfd));
    world.check_empty();
}

#[test]
fn pages_go_when_mappings_are_replaced_moved_and_shrunk() {
    let world = World::new(128);
    let mut held = world.held(frames(8, Placement::Scattered));
    fill(&world, &held, 8);
    let space = world.space();
    space.call(&held.map(0, 8, 0)).unwrap();
    for index in 0..8 {
        world.load(&space, page(index)).unwrap();
    }
    held.window = None;
    assert_eq!(held.frames(), 8);
    space.call(&private(1, 1, RW)).unwrap();
    assert_eq!(held.frames(), 7, "replaced");
    space.call(&moved(2, 4, 4, 20)).unwrap();
    assert_eq!(held.frames(), 7, "moved with all their pages");
    check(&world, &[&space]);
    space.call(&moved(20, 4, 2, 30)).unwrap();
    assert_eq!(held.frames(), 5, "shrunk while it moved");
    assert_eq!([30, 31].map(|at| world.load(&space, page(at)).unwrap()), [3, 4]);
    space.call(&moved(30, 2, 2, 0)).unwrap();
    assert_eq!(held.frames(), 4, "what was at the target is gone");
    assert_eq!([0, 1, 6, 7].map(|at| world.load(&space, page(at)).unwrap()), [3, 4, 7, 8]);
    space.call(&mremap(0, 0, 2, RemapFlags::MAY_MOVE | RemapFlags::FIXED, 40)).unwrap();
    space.call(&munmap(0, 2)).unwrap();
    assert_eq!(held.frames(), 4, "shown twice");
    space.call(&mremap(40, 2, 1, RemapFlags::empty(), 0)).unwrap();
    assert_eq!(held.frames(), 3);
    check(&world, &[&space]);
    let dont_unmap = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP | RemapFlags::FIXED;
    space.call(&mremap(6, 2, 2, dont_unmap, 50)).unwrap();
    space.call(&munmap(50, 2)).unwrap();
    assert_eq!((held.frames(), world.load(&space, page(7))), (3, Ok(8)), "what stays mapped shows them still");
    check(&world, &[&space]);
    space.call(&munmap(0, 100)).unwrap();
    assert_eq!(held.frames(), 0);
    drop((space, held));
    world.check_empty();
}

#[test]
fn pages_that_are_shown_anew_in_their_own_place_stay() {
    let world = World::new(128);
    let mut held = world.held(anonymous(4));
    fill(&world, &held, 4);
    let space = world.space();
    space.call(&held.map(0, 4, 0)).unwrap();
    held.window = None;
    space.call(&held.map(0, 4, 0)).unwrap();
    assert_eq!((held.frames(), world.load(&space, page(3))), (4, Ok(4)), "mapped over itself");
    space.call(&held.map(0, 3, 1)).unwrap();
    assert_eq!(held.frames(), 3, "the first page is shown no more");
    assert_eq!([0, 1, 2, 3].map(|at| world.load(&space, page(at)).unwrap()), [2, 3, 4, 4]);
    let (addr, len) = (page(0), PAGE_SIZE);
    let request = RemapPagesRequest { addr, len, prot: 0, page_offset: 2, flags: MapFlags::empty() };
    space.call(&Request::RemapPages(request)).unwrap();
    assert_eq!((held.frames(), world.load(&space, page(0))), (2, Ok(3)));
    check(&world, &[&space]);
    drop((space, held));
    world.check_empty();
}

#[test]
fn a_space_that_ends_and_a_child_reach_pages_like_any_mapping() {
    let world = World::new(128);
    let mut held = world.held(anonymous(4));
    fill(&world, &held, 4);
    let space = world.space();
    space.call(&held.map(0, 4, 0)).unwrap();
    (0..4).for_each(|index| world.store(&space, page(index), 9).unwrap());
    let child = space.fork(&world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    held.window = None;
    child.call(&munmap(1, 2)).unwrap();
    assert_eq!(held.frames(), 4);
    check(&world, &[&space, &child]);
    (0..2).for_each(|processor| world.machine.deactivate(processor));
    drop(space);
    assert_eq!(held.frames(), 2);
    assert_eq!([0, 3].map(|at| world.load(&child, page(at)).unwrap()), [9, 9]);
    check(&world, &[&child]);
    (0..2).for_each(|processor| world.machine.deactivate(processor));
    drop(child);
    assert_eq!(held.frames(), 0);
    drop(held);
    world.check_empty();
}

#[test]
fn an_object_that_is_held_grows_at_once_or_not_at_all() {
    let world = World::new(64);
    let account = world.ledger.root().child(Limits::UNLIMITED);
    let (object, window) = world.pager.new_held(&account, anonymous(2), PageCount::new(8)).unwrap();
    let held = Held { object, window: Some(window), account };
    let pager = &world.pager;
    assert_eq!(held.frames(), 2, "what there may be later is not there yet");
    assert_eq!(pager.write(&held.object, 2 * PAGE_SIZE - 1, &[1, 2]), Ok(1), "writing does not make it grow");
    assert_eq!(pager.write(&held.object, 2 * PAGE_SIZE, &[1]), Err(Errno::Inval));
    for failing in 0..4 {
        world.frame_taken.fail_since(failing);
        assert_eq!(pager.resize(&held.object, 6 * PAGE_SIZE), Err(Errno::NoMem));
        assert_eq!((held.frames(), pager.size(&held.object)), (2, Ok(2 * PAGE_SIZE)));
    }
    world.frame_taken.disarm();
    held.account.set_limit(Resource::Frames, 5);
    assert_eq!(pager.resize(&held.object, 6 * PAGE_SIZE), Err(Errno::NoMem));
    assert_eq!(held.frames(), 2);
    pager.resize(&held.object, 5 * PAGE_SIZE).unwrap();
    let space = world.space();
    space.call(&held.map(0, 8, 0)).unwrap();
    assert_eq!([1, 4].map(|at| world.load(&space, page(at)).unwrap()), [0, 0]);
    assert!(world.load(&space, page(5)).is_err(), "beyond the end");
    world.store(&space, page(4), 7).unwrap();
    pager.resize(&held.object, 3 * PAGE_SIZE).unwrap();
    assert_eq!(held.frames(), 3);
    assert!(world.load(&space, page(4)).is_err());
    pager.resize(&held.object, 5 * PAGE_SIZE).unwrap();
    assert_eq!((held.frames(), world.load(&space, page(4))), (5, Ok(0)));
    check(&world, &[&space]);
    let fixed = world.held(frames(1, Placement::Scattered));
    assert_eq!(pager.resize(&fixed.object, 0), Err(Errno::Inval));
    drop((space, held, fixed));
    world.check_empty();
}

#[test]
fn pages_beyond_every_window_come_when_somebody_reaches_them() {
    let world = World::new(64);
    let mut held = world.held(anonymous(2));
    world.pager.resize(&held.object, 6 * PAGE_SIZE).unwrap();
    assert_eq!(held.frames(), 2, "nobody reaches the others");
    let nowhere = world.pager.allocate(&held.object, (4 * PAGE_SIZE, PAGE_SIZE), Extent::Stays);
    assert_eq!((nowhere, held.frames()), (Err(Errno::Inval), 2));
    let space = world.space();
    space.call(&held.map(0, 6, 0)).unwrap();
    world.store(&space, page(5), 1).unwrap();
    assert_eq!(held.frames(), 3);
    held.window = None;
    check(&world, &[&space]);
    space.call(&munmap(0, 5)).unwrap();
    assert_eq!((held.frames(), world.load(&space, page(5))), (1, Ok(1)));
    drop((space, held));
    world.check_empty();
}

#[test]
fn a_frame_that_is_missing_when_an_object_is_made_leaves_nothing() {
    let world = World::new(64);
    let before = world.pager.frames().available();
    let account = world.ledger.root().child(Limits::UNLIMITED);
    let make = |source| world.pager.new_held(&account, source, PageCount::new(0)).map(drop);
    for source in [frames(6, Placement::Scattered), frames(6, Placement::Contiguous), anonymous(6)] {
        let takes = if matches!(source, ObjectSource::Frames { placement: Placement::Contiguous, .. }) { 1 } else { 6 };
        for failing in 0..takes {
            world.frame_taken.fail_since(failing);
            assert_eq!(make(source.clone()), Err(Errno::NoMem), "without frame {failing}");
            assert_eq!((world.pager.frames().available(), account.used(Resource::Frames)), (before, 0));
        }
        world.frame_taken.disarm();
        account.set_limit(Resource::Frames, 5);
        assert_eq!(make(source.clone()), Err(Errno::NoMem));
        assert_eq!((world.pager.frames().available(), account.used(Resource::Frames)), (before, 0));
        account.set_limit(Resource::Frames, 6);
        assert_eq!(make(source), Ok(()));
    }
    world.check_empty();
}

#[test]
fn objects_that_nobody_holds_by_handles_keep_their_pages() {
    let world = World::new(64);
    let kind = ObjectKind::Memfd(FileId { device: 1, inode: 4 });
    let object = world.pager.new_object(kind, "frames", frames(3, Placement::Scattered)).unwrap();
    let before = world.pager.frames().available();
    let space = world.space();
    space.call(&map_object(&object, 0, 3, 0)).unwrap();
    world.store(&space, page(1), 5).unwrap();
    drop(space);
    assert_eq!(world.pager.frames().available(), before);
    let mut byte = [0];
    assert_eq!((world.pager.read(&object, PAGE_SIZE, &mut byte), byte), (Ok(1), [5]));
    drop(object);
    world.check_empty();
}

#[test]
fn the_text_of_proc_names_an_object_that_is_held() {
    let world = World::new(64);
    let held = world.held(anonymous(1));
    let space = world.space();
    space.call(&held.map(0, 1, 0)).unwrap();
    let mut text = alloc::string::String::new();
    space.with_manager(|manager| {
        write_maps(&mut text, manager.map(), &Landmarks::default()).unwrap();
    });
    let line = alloc::format!("{:08x}-{:08x} rw-s 00000000 00:00 0 ", BASE, BASE + PAGE_SIZE);
    assert!(text.starts_with(&line) && text.ends_with(" [memory object]\n"), "{text}");
}
