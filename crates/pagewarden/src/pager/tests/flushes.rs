//! Every flush is needed: each of these makes both processors remember pages, changes what is there, and finds that
//! nothing old is remembered. With any one of the flushes left out, something is.

use alloc::string::String;
use alloc::vec::Vec;

use super::{READ, RW, World, map_file, mprotect, munmap, page, private};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::ledger::Limits;
use crate::linux::{MapFlags, MremapRequest, OpenFile, RemapFlags, Request};
use crate::machine::Machine;
use crate::manager::Access;
use crate::pager::AddressSpace;

type Space = AddressSpace<Machine>;

/// Pages of each mapping.
const PAGES: u64 = 4;

struct Scene {
    world: World,
    spaces: Vec<Space>,
    file: OpenFile,
}

impl Scene {
    /// A space with private memory at page 0, a shared map of a file at page 8 and a private one at page 16, all of it
    /// touched by both processors: even pages stored to, odd ones read.
    fn new() -> Self {
        let world = World::new(256);
        let file = world.memfd(PAGES);
        let space = world.space();
        space.call(&private(0, PAGES, RW)).unwrap();
        space.call(&map_file(8, PAGES, RW, MapFlags::SHARED, &file)).unwrap();
        space.call(&map_file(16, PAGES, RW, MapFlags::PRIVATE, &file)).unwrap();
        let scene = Self { world, spaces: Vec::from([space]), file };
        scene.touch_all(0);
        scene
    }

    fn touch_all(&self, space: usize) {
        for first in [0, 8, 16] {
            for number in first..first + PAGES {
                let access = if number % 2 == 0 { Access::Write } else { Access::Read };
                (0..2).for_each(|processor| self.touch(space, processor, number, access));
            }
        }
    }

    /// Touches a page, if it can be.
    fn touch(&self, space: usize, processor: usize, number: u64, access: Access) {
        let space = &self.spaces[space];
        self.world.run(processor, space.root());
        for _ in 0..8 {
            let address = VirtAddr::new(page(number));
            let done = match access {
                Access::Write => self.world.machine.store(processor, address, &[1]),
                _ => self.world.machine.load(processor, address, &mut [0]),
            };
            if done.is_ok() || space.fault(address, access).is_err() {
                return;
            }
        }
        panic!("page {number} faults for ever");
    }

    fn call(&self, request: &Request) {
        self.spaces[0].call(request).unwrap();
    }

    fn advise(&self, first: u64, advice: i32) {
        self.call(&Request::Madvise { addr: page(first), len: PAGES * PAGE_SIZE, advice });
    }

    fn fork(&mut self) {
        let account = self.world.ledger.root().child(Limits::UNLIMITED);
        self.spaces.push(self.spaces[0].fork(&account).unwrap());
    }

    fn stale(&self) -> Option<String> {
        let tables: Vec<_> = self.spaces.iter().map(|space| space.tables()).collect();
        let tables: Vec<_> = tables.iter().map(|tables| &**tables).collect();
        self.world.stale(&tables)
    }
}

fn remap(from: u64, to: u64, flags: RemapFlags) -> Request {
    let bytes = PAGES * PAGE_SIZE;
    let (addr, new_addr) = (page(from), page(to));
    Request::Mremap(MremapRequest { addr, old_len: bytes, new_len: bytes, flags, new_addr })
}

type Change = fn(&mut Scene);

const CHANGES: &[(&str, Change)] = &[
    ("a store to a page that was read", |scene| scene.touch(0, 1, 1, Access::Write)),
    ("a store to a file's page that was read", |scene| scene.touch(0, 1, 17, Access::Write)),
    ("unmap of private memory", |scene| scene.call(&munmap(0, PAGES))),
    ("unmap of a file", |scene| scene.call(&munmap(8, PAGES))),
    ("unmap of everything", |scene| scene.call(&munmap(0, 32))),
    ("no rights", |scene| scene.call(&mprotect(0, PAGES, 0))),
    ("no right to store", |scene| scene.call(&mprotect(8, PAGES, READ))),
    ("another map in place", |scene| scene.call(&private(16, PAGES, RW))),
    ("a move", |scene| scene.call(&remap(0, 24, RemapFlags::MAY_MOVE | RemapFlags::FIXED))),
    ("a move onto another map", |scene| scene.call(&remap(0, 8, RemapFlags::MAY_MOVE | RemapFlags::FIXED))),
    ("DONTNEED", |scene| scene.advise(0, 4)),
    ("DONTNEED of a file", |scene| scene.advise(16, 4)),
    ("REMOVE", |scene| scene.advise(8, 9)),
    ("guards", |scene| scene.advise(0, 102)),
    ("a smaller file", |scene| scene.world.pager.resize(&scene.file.object, PAGE_SIZE).unwrap()),
    ("a fork", Scene::fork),
    ("a store after a fork", |scene| {
        scene.fork();
        scene.touch(0, 0, 0, Access::Read);
        scene.touch(0, 1, 0, Access::Write);
    }),
    ("pages given up", |scene| scene.advise(0, 8)),
];

/// Where processors change spaces, by which they forget by themselves.
const MORE_CHANGES: &[(&str, Change)] = &[
    ("pages given up and taken back", |scene| {
        scene.advise(0, 8);
        scene.world.pager.reclaim(u64::MAX);
    }),
    ("stores on both sides of a fork", |scene| {
        scene.fork();
        scene.touch_all(0);
        scene.touch_all(1);
        scene.touch_all(0);
    }),
    ("a parent that ends", |scene| {
        scene.fork();
        scene.touch_all(1);
        scene.touch_all(0);
        drop(scene.spaces.swap_remove(0));
    }),
];

#[test]
fn nothing_old_is_remembered() {
    for (name, change) in CHANGES.iter().chain(MORE_CHANGES) {
        let mut scene = Scene::new();
        change(&mut scene);
        assert_eq!(scene.stale(), None, "{name}");
        scene.spaces.iter().for_each(AddressSpace::check_invariants);
        let Scene { world, spaces, file } = scene;
        drop((spaces, file));
        assert_eq!(world.stale(&[]), None, "{name}");
        world.check_empty();
    }
}

#[test]
fn every_flush_that_is_left_out_shows() {
    for (name, change) in CHANGES {
        let mut left_out = 0;
        loop {
            let mut scene = Scene::new();
            scene.world.machine.flush_point().fail_once(left_out);
            change(&mut scene);
            if scene.world.machine.flush_point().disarm() == 0 {
                break;
            }
            assert!(scene.stale().is_some(), "{name}: flush {left_out} is not missed");
            left_out += 1;
        }
        assert!(left_out > 0, "{name}: no flush at all");
    }
}
