//! Files: pages that are read, written back, and given up when frames run out.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::Mutex;

use super::{DEVICE_AFTER, READ, RW, World, map_file, munmap, page, private};
use crate::addr::{PAGE_SIZE, PageCount, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::linux::{MapFlags, OpenFile, Request, SyncFlags};
use crate::machine::{FailPoint, Machine};
use crate::manager::{Signal, SignalCode};
use crate::mmu::PhysMem;
use crate::object::{FileId, ObjectKind, ObjectSource, PageBytes, PageSource, Placement};
use crate::pager::{AddressSpace, Fault};

/// A file in memory that fails on command.
#[derive(Debug)]
struct Disk {
    pages: Mutex<Vec<PageBytes>>,
    read: FailPoint,
    written: FailPoint,
}

impl Disk {
    /// `pages` pages, each full of its number plus 1.
    fn new(pages: u8) -> Arc<Self> {
        let pages = (1..=pages).map(|byte| [byte; 4096]).collect();
        Arc::new(Self { pages: Mutex::new(pages), read: FailPoint::new("read"), written: FailPoint::new("write") })
    }

    fn byte(&self, index: usize) -> u8 {
        self.pages.lock().unwrap()[index][0]
    }
}

impl PageSource for Disk {
    fn read_page(&self, index: u64, page: &mut PageBytes) -> Result<(), Errno> {
        self.read.pass().map_err(|_| Errno::Io)?;
        *page = self.pages.lock().unwrap()[usize::try_from(index).unwrap()];
        Ok(())
    }

    fn write_page(&self, index: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.written.pass().map_err(|_| Errno::Io)?;
        self.pages.lock().unwrap()[usize::try_from(index).unwrap()][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.pages.lock().unwrap().len() as u64 * PAGE_SIZE
    }
}

fn open(world: &World, disk: &Arc<Disk>) -> OpenFile {
    let source = ObjectSource::File(disk.clone());
    let kind = ObjectKind::File(FileId { device: 1, inode: 9 });
    world.open(world.pager.new_object(kind, "/file", source).unwrap())
}

fn sync(space: &AddressSpace<Machine>, first: u64, pages: u64) -> Result<u64, Errno> {
    let request = Request::Msync { addr: page(first), len: pages * PAGE_SIZE, flags: SyncFlags::SYNC.bits() };
    space.call(&request).map_err(|refusal| refusal.errno)
}

const BUS: Fault = Fault::Signal(crate::manager::FaultSignal {
    signal: Signal::Bus,
    code: SignalCode::AdrErr,
    address: VirtAddr::new(super::BASE),
});

#[test]
fn pages_are_read_and_written_back_once_they_are_dirty() {
    let world = World::new(256);
    let disk = Disk::new(4);
    let file = open(&world, &disk);
    let space = world.space();
    space.call(&map_file(0, 4, RW, MapFlags::SHARED, &file)).unwrap();
    assert_eq!([0, 3].map(|at| world.load(&space, page(at)).unwrap()), [1, 4]);
    world.store(&space, page(1), 20).unwrap();
    for byte in [20, 21, 22] {
        world.store(&space, page(1), byte).unwrap();
        sync(&space, 0, 4).unwrap();
        assert_eq!((disk.byte(1), world.stale(&[&space.tables()])), (byte, None));
    }
    assert_eq!(disk.written.operations(), 3, "clean pages are left alone");
    world.store(&space, page(2), 30).unwrap();
    space.call(&munmap(2, 1)).unwrap();
    sync(&space, 0, 2).unwrap();
    assert_eq!(disk.byte(2), 3, "not asked for");
    let other = world.space();
    other.call(&map_file(0, 4, READ, MapFlags::SHARED, &file)).unwrap();
    sync(&other, 0, 4).unwrap();
    assert_eq!(disk.byte(2), 30, "a page that nobody shows any more is dirty all the same");
    drop((space, other, file));
    world.check_empty();
}

#[test]
fn a_source_that_fails_is_asked_again_and_loses_nothing() {
    let world = World::new(256);
    let disk = Disk::new(2);
    let file = open(&world, &disk);
    let space = world.space();
    space.call(&map_file(0, 2, RW, MapFlags::SHARED, &file)).unwrap();
    let before = world.pager.frames().available();
    disk.read.fail_once(0);
    assert_eq!(world.load(&space, page(0)), Err(BUS));
    assert!(before - world.pager.frames().available() <= 3, "tables at most");
    space.check_invariants();
    assert_eq!(world.load(&space, page(0)), Ok(1));
    world.store(&space, page(0), 9).unwrap();
    world.store(&space, page(1), 8).unwrap();
    disk.written.fail_once(0);
    assert_eq!(sync(&space, 0, 2), Err(Errno::Io));
    assert_eq!([disk.byte(0), disk.byte(1)], [1, 8], "the others are written");
    sync(&space, 0, 2).unwrap();
    assert_eq!(disk.byte(0), 9);
    drop((space, file));
    world.check_empty();
}

#[test]
fn frames_that_nobody_would_miss_are_given_back() {
    let world = World::new(44);
    let disk = Disk::new(24);
    let file = open(&world, &disk);
    let space = world.space();
    space.call(&map_file(0, 24, RW, MapFlags::SHARED, &file)).unwrap();
    for number in 0..24 {
        assert_eq!(world.load(&space, page(number)), Ok(number.to_le_bytes()[0] + 1));
    }
    world.store(&space, page(5), 99).unwrap();
    space.call(&private(40, 40, RW)).unwrap();
    let stored = (40..80).take_while(|number| world.store(&space, page(*number), 7).is_ok()).count();
    assert!(stored > 30, "{stored} pages after the file's were given up");
    assert_eq!(world.store(&space, page(79), 7), Err(Fault::OutOfMemory));
    space.check_invariants();
    assert_eq!(world.stale(&[&space.tables()]), None);
    space.call(&munmap(60, 20)).unwrap();
    assert_eq!([4, 5].map(|at| world.load(&space, page(at)).unwrap()), [5, 99], "read again, and kept");
    space.call(&Request::Madvise { addr: page(40), len: 20 * PAGE_SIZE, advice: 8 }).unwrap();
    world.store(&space, page(41), 8).unwrap();
    assert!(world.pager.reclaim(u64::MAX) > 18);
    assert_eq!([40, 41].map(|at| world.load(&space, page(at)).unwrap()), [0, 8], "what was stored since stays");
    drop((space, file));
    world.check_empty();
}

#[test]
fn locked_pages_of_a_file_stay() {
    let world = World::new(64);
    let disk = Disk::new(4);
    let file = open(&world, &disk);
    let space = world.space();
    space.call(&map_file(0, 4, READ, MapFlags::SHARED, &file)).unwrap();
    space.call(&Request::Mlock { addr: page(1), len: PAGE_SIZE, flags: 0 }).unwrap();
    for number in 0..4 {
        world.load(&space, page(number)).unwrap();
    }
    let reads = disk.read.operations();
    assert_eq!(world.pager.reclaim(u64::MAX), 3);
    world.load(&space, page(1)).unwrap();
    assert_eq!(disk.read.operations(), reads, "the locked page was read again");
    space.call(&Request::Munlock { addr: page(1), len: PAGE_SIZE }).unwrap();
    assert_eq!(world.pager.reclaim(u64::MAX), 1);
    drop((space, file));
    world.check_empty();
}

#[test]
fn device_memory_is_shown_as_it_is_and_never_copied() {
    let world = World::new(64);
    let frames = FrameRange::new(FrameNumber::new(64 + DEVICE_AFTER).unwrap(), PageCount::new(2)).unwrap();
    // The machine has memory there that no memory map speaks of.
    let machine = &world.machine;
    assert_eq!(machine.frames(), frames.end());
    machine.write(frames.first().start(), &[5]);
    let kind = ObjectKind::Device(FileId { device: 1, inode: 3 });
    let file = world.open(world.pager.new_object(kind, "/dev/mem", ObjectSource::Physical(frames)).unwrap());
    let space = world.space();
    space.call(&map_file(0, 2, RW, MapFlags::SHARED, &file)).unwrap();
    assert_eq!(space.call(&map_file(8, 2, RW, MapFlags::PRIVATE, &file)).unwrap_err().errno, Errno::Inval);
    assert_eq!(world.load(&space, page(0)), Ok(5));
    world.store(&space, page(1), 6).unwrap();
    let child = space.fork(&world.ledger.root().child(crate::ledger::Limits::UNLIMITED)).unwrap();
    world.store(&child, page(0), 7).unwrap();
    assert_eq!(world.load(&space, page(0)), Ok(7));
    let mut byte = [0];
    machine.read(frames.first().start(), &mut byte);
    assert_eq!(byte, [7]);
    assert_eq!(world.pager.write(&file.object, PAGE_SIZE, &[8]), Ok(1));
    assert_eq!(world.load(&child, page(1)), Ok(8));
    assert_eq!(world.pager.write(&file.object, 2 * PAGE_SIZE, &[8]), Err(Errno::Inval), "a device has its size");
    drop((space, child, file));
    world.check_empty();
}

#[test]
fn a_fixed_set_of_frames_is_there_from_the_beginning() {
    let world = World::new(128);
    for placement in [Placement::Scattered, Placement::Contiguous] {
        let source = ObjectSource::Frames { pages: PageCount::new(8), placement };
        let before = world.pager.frames().available();
        let object = world.pager.new_object(ObjectKind::Memfd(FileId { device: 1, inode: 4 }), "frames", source);
        let file = world.open(object.unwrap());
        assert_eq!(before - world.pager.frames().available(), 8);
        assert_eq!(world.pager.resize(&file.object, 0), Err(Errno::Inval));
        let space = world.space();
        space.call(&map_file(0, 8, RW, MapFlags::SHARED, &file)).unwrap();
        assert_eq!(world.load(&space, page(7)), Ok(0));
        world.store(&space, page(7), 1).unwrap();
        let mut bytes = vec![0; 2];
        assert_eq!(world.pager.read(&file.object, 7 * PAGE_SIZE, &mut bytes), Ok(2));
        assert_eq!(bytes, [1, 0]);
    }
    world.check_empty();
}
