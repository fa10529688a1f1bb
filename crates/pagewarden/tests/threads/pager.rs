//! Guests on the software machine, a thread each: in one space and in several that share pages and tables.
//!
//! Each has an area of its own and knows what every byte of it must be, whatever the others do to the tables; one more
//! thread forks, protects, gives up and takes back all the time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../support/world.rs"]
pub(crate) mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use pagewarden::linux::Request;
use pagewarden::machine::guest::{Area, Guest};
use pagewarden::machine::{MachineConfig, PageFault};
use pagewarden::manager::Access;
use pagewarden::pager::Fault;
use pagewarden::{PAGE_SIZE, PageCount, PageRange, Prot, VirtAddr};

use world::{BASE, Space, World, private};

const GUESTS: usize = 3;
/// Pages of each guest's area; so many that areas lie in several tables.
const PAGES: u64 = 400;
const STEPS: u64 = 3000;
const RW: Prot = Prot::READ.union(Prot::WRITE);

/// A machine, and a space with an area for each guest.
fn start() -> (World, Space) {
    let config = MachineConfig { frames: 8192, processors: GUESTS + 1, ..MachineConfig::default() };
    let world = World::new(config);
    let space = world.space();
    space.call(&private(0, PAGES * GUESTS as u64)).unwrap();
    (world, space)
}

fn area(guest: usize) -> Area {
    let first = BASE / PAGE_SIZE + guest as u64 * PAGES;
    Area { range: PageRange::from_pages(first, PageCount::new(PAGES)).unwrap(), allowed: RW }
}

/// Every other fault takes the pages around with it, those of other guests too.
fn handler(space: &Space) -> impl FnMut(PageFault) -> Result<(), Fault> {
    let mut faults = 0_u64;
    move |fault| {
        faults += 1;
        let window = PageRange::from_pages(fault.address.page_number() & !15, PageCount::new(16)).unwrap();
        match faults % 2 {
            0 => space.fault(fault.address, fault.access),
            _ => space.fault_around(fault.address, fault.access, window),
        }
    }
}

/// Runs a guest in `space` on the processor of its number.
fn run(world: &World, space: &Space, mut guest: Guest<'_>, processor: usize) {
    world.machine.activate(processor, space.root());
    guest.move_to(processor);
    guest.run(STEPS, &mut handler(space)).unwrap();
    guest.verify(&mut handler(space)).unwrap();
}

#[test]
fn guests_of_one_space_beside_calls_and_forks() {
    let (world, space) = start();
    let is_done = AtomicBool::new(false);
    let running = AtomicU64::new(GUESTS as u64);
    thread::scope(|scope| {
        for number in 0..GUESTS {
            let (world, space, running, is_done) = (&world, &space, &running, &is_done);
            scope.spawn(move || {
                let mut guest = Guest::new(&world.machine, number, number as u64);
                guest.map(area(number));
                run(world, space, guest, number);
                if running.fetch_sub(1, Ordering::AcqRel) == 1 {
                    is_done.store(true, Ordering::Release);
                }
            });
        }
        let all = (BASE, GUESTS as u64 * PAGES * PAGE_SIZE);
        let mut rounds = 0_u64;
        while !is_done.load(Ordering::Acquire) {
            rounds += 1;
            match rounds % 4 {
                0 => drop(world.fork(&space)),
                // Nothing is taken away that is in use: a page that becomes readable and writable again faults once.
                1 => drop(space.call(&Request::Mprotect { addr: all.0, len: all.1, prot: RW.bits().into() })),
                2 => drop(world.pager.reclaim(1)),
                _ => space.check_invariants(),
            }
        }
        assert!(rounds > 0);
    });
    space.check_invariants();
    drop(space);
    world.check_empty();
}

#[test]
fn families_share_what_nobody_has_stored_to() {
    let (world, parent) = start();
    let mut first = Guest::new(&world.machine, 0, 9);
    first.map(area(0));
    world.machine.activate(0, parent.root());
    first.run(STEPS, &mut handler(&parent)).unwrap();
    let spaces = [world.fork(&parent), world.fork(&parent)];
    let grandchild = world.fork(&spaces[0]);
    thread::scope(|scope| {
        for (processor, space) in [&spaces[0], &spaces[1], &grandchild].into_iter().enumerate() {
            let guest = first.fork(processor, processor as u64 + 20);
            let world = &world;
            scope.spawn(move || run(world, space, guest, processor));
        }
        // The parent goes before its children are done.
        drop(parent);
    });
    for space in [&spaces[0], &spaces[1], &grandchild] {
        space.check_invariants();
        let missing = space.fault(VirtAddr::new(BASE - PAGE_SIZE), Access::Read);
        assert!(missing.is_err());
    }
    drop((spaces, grandchild));
    world.check_empty();
}
