//! A reader overtaken between two of its loads.

use super::*;
use crate::page_table::Mapped;

/// The memory of a world in which something happens before one of the loads.
struct Racing<'a> {
    world: &'a World,
    loads: AtomicI64,
    event: Mutex<&'a mut (dyn FnMut() + Send)>,
}

impl PhysMem for Racing<'_> {
    fn load(&self, address: PhysAddr) -> u64 {
        if self.loads.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.event.lock().unwrap()();
        }
        self.world.load(address)
    }

    fn store(&self, _: PhysAddr, _: u64) {
        unreachable!("it only reads");
    }

    fn compare_exchange(&self, _: PhysAddr, _: u64, _: u64) -> Result<(), u64> {
        unreachable!("it only reads")
    }

    fn read(&self, _: PhysAddr, _: &mut [u8]) {}

    fn write(&self, _: PhysAddr, _: &[u8]) {}

    fn zero(&self, _: FrameNumber) {}

    fn copy(&self, _: FrameNumber, _: FrameNumber) {}
}

impl Mmu for Racing<'_> {
    fn flush(&self, _: FrameNumber, _: PageRange) {}

    fn flush_all(&self, _: FrameNumber) {}
}

/// Another thread of the space copies the tables that it shares, and the other space then stores into the old ones, or
/// goes and frees them. The reader sees what its own space shows.
fn overtaken(loads: i64, goes: EntryFlags) {
    let world = World::new();
    world.is_strict.store(false, Ordering::Relaxed);
    let tables = world.tables();
    let mut mine = Root::new(&world).unwrap();
    (0..3).for_each(|page| tables.map(&mut mine, at(page), world.new_frames(1, 1), RW).unwrap());
    let shown = tables.query(&mine, at(1)).leaf().unwrap().frame();
    let mut other = Root::new(&world).unwrap();
    let mut gather = Gather::new(tables, &mine);
    tables.fork(&mut mine, &mut other, &mut gather, &mut ShareAll).unwrap();
    drop(gather);
    let mut other = Some(other);
    let mut event = || {
        let other = other.take().unwrap();
        tables.slot(&mine, at(0)).unwrap();
        let slot = tables.slot(&other, at(1)).unwrap();
        let (current, mut gather) = (tables.load(&slot), Gather::new(tables, &other));
        tables.install(&other, &slot, current, Entry::new(world.new_frames(1, 1), RW)).unwrap();
        gather.leaf(pages(1, 1), current, Level::One);
        drop(gather);
        if !goes.is_empty() {
            tables.destroy(other);
        }
    };
    let racing = Racing { world: &world, loads: AtomicI64::new(loads), event: Mutex::new(&mut event) };
    let reader = PageTable::new(&racing, &world);
    let found = reader.query(&mine, at(1));
    assert!(matches!(found, Mapped::Leaf { entry, .. } if entry.frame() == shown), "load {loads}: {found:?}");
}

#[test]
fn a_reader_that_is_overtaken_looks_again() {
    for loads in 0..12 {
        overtaken(loads, EntryFlags::empty());
        overtaken(loads, EntryFlags::PRESENT);
    }
}

/// Another thread of the space makes a table exclusive that it was the last to show, and stores. Whoever sees the store
/// sees that it was allowed, too.
#[test]
fn a_reader_that_sees_a_store_sees_that_it_was_allowed() {
    for loads in 0..12 {
        let world = World::new();
        world.is_strict.store(false, Ordering::Relaxed);
        let tables = world.tables();
        let mut mine = Root::new(&world).unwrap();
        tables.map(&mut mine, at(1), world.new_frames(1, 1), RW).unwrap();
        let mut other = Root::new(&world).unwrap();
        let mut gather = Gather::new(tables, &mine);
        tables.fork(&mut mine, &mut other, &mut gather, &mut ShareAll).unwrap();
        drop(gather);
        tables.destroy(other);
        let stored = EntryFlags::SOFT_2;
        let mut event = || {
            let slot = tables.slot(&mine, at(1)).unwrap();
            let current = tables.load(&slot);
            tables.install(&mine, &slot, current, current.with(stored | EntryFlags::WRITABLE)).unwrap();
        };
        let racing = Racing { world: &world, loads: AtomicI64::new(loads), event: Mutex::new(&mut event) };
        let found = PageTable::new(&racing, &world).query(&mine, at(1));
        let Mapped::Leaf { entry, above_writable, .. } = found else { panic!("load {loads}: {found:?}") };
        assert!(above_writable || !entry.contains(stored), "load {loads}: {found:?}");
    }
}
