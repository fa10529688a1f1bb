//! Windows in the tables of a kernel: seen from every address space, by processors that run in any.

use alloc::sync::Arc;

use super::{EmptyInTheEnd, FRAMES, frame, frames, run};
use crate::addr::{PAGE_LEN, PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::ledger::{Limits, Resource};
use crate::machine::other_world::{OtherWorld, OurProcessor};
use crate::machine::{Machine, Ticks};
use crate::mmu::Mmu;
use crate::pager::tests::World;
use crate::pager::{AddressSpace, KernelSpace};
use crate::phys::{Claim, CopyFault, PageTableWindows, Permission, PhysError, VmapManager, WindowAccess};

/// The slot of windows.
const SLOT: u64 = 0xffff_c000_0000_0000;
/// So far into it windows begin: where a longer one needs several tables.
const FIRST: u64 = SLOT / PAGE_SIZE + 512 - 4;
const NOTHING: Result<(), CopyFault> = Err(CopyFault { copied: 0 });

type Windows = PageTableWindows<Machine, OurProcessor>;

/// Windows in a kernel that two address spaces are below, one made before them. A processor runs in each.
struct Lab {
    manager: VmapManager<Windows>,
    other: Arc<OtherWorld>,
    spaces: [AddressSpace<Machine>; 2],
    kernel: Arc<KernelSpace<Machine>>,
    world: EmptyInTheEnd,
}

impl Lab {
    fn new() -> Self {
        let world = EmptyInTheEnd(World::new(64));
        let account = world.0.ledger.root().child(Limits::UNLIMITED);
        let kernel = KernelSpace::new(&world.0.pager, &account, &[VirtAddr::new(SLOT)]).unwrap();
        world.0.pager.set_kernel(&kernel).unwrap();
        let early = world.0.space();
        let other = Arc::new(OtherWorld::new(&world.0.machine, run(0, FRAMES)));
        let windows = PageTableWindows::within(&kernel, space(FIRST, 32), other.processor(0)).unwrap();
        let spaces = [early, world.0.space()];
        for (processor, space) in spaces.iter().enumerate() {
            world.0.machine.activate(processor, space.root());
        }
        Self { manager: VmapManager::new(windows, Ticks::new()), other, spaces, kernel, world }
    }

    fn peek(&self, number: u64) -> [u8; 2] {
        let mut bytes = [0; 2];
        self.other.act(|side| side.load(frame(number).start(), &mut bytes)).unwrap();
        bytes
    }
}

fn space(first: u64, pages: u64) -> PageRange {
    PageRange::from_pages(first, PageCount::new(pages)).unwrap()
}

#[test]
fn a_window_in_a_kernel_is_in_every_space() {
    let lab = Lab::new();
    let machine = &lab.world.0.machine;
    let free = lab.world.0.pager.frames().available();
    let mapping = lab.manager.vmap(&frames(&[3, 1, 4, 1 + 8, 7]), Permission::ReadWrite, Claim::Reserve).unwrap();
    assert_eq!(lab.manager.provider().root(), lab.kernel.root());
    for (turn, text) in [b"both", b"once"].into_iter().enumerate() {
        machine.activate(0, lab.spaces[turn].root());
        machine.activate(1, lab.spaces[1 - turn].root());
        mapping.write(PAGE_LEN - 2, text).unwrap();
        assert_eq!(lab.peek(1), text[2..]);
        let mut bytes = [0; 4];
        let at = VirtAddr::new(mapping.window().start().as_u64() + PAGE_SIZE - 2);
        machine.load(1, at, &mut bytes).unwrap();
        assert_eq!(&bytes, text);
    }
    let window = mapping.window();
    drop(mapping);
    for page in window.first_page()..window.end_page() {
        let at = PageRange::of_page(page).start();
        assert_eq!(lab.manager.provider().load(at, &mut [0]), NOTHING);
        assert!(machine.load(1, at, &mut [0]).is_err(), "the other processor has forgotten it too");
    }
    assert_eq!(lab.world.0.pager.frames().available(), free, "tables of windows that are gone");
    lab.kernel.check_invariants();
    lab.spaces.iter().for_each(AddressSpace::check_invariants);
}

#[test]
fn without_a_flush_a_window_in_a_kernel_would_be_known_elsewhere() {
    let lab = Lab::new();
    let machine = &lab.world.0.machine;
    let mapping = lab.manager.vmap(&frames(&[3]), Permission::Read, Claim::Beside).unwrap();
    let window = mapping.window();
    machine.load(1, window.start(), &mut [0]).unwrap();
    machine.flush_point().fail_since(0);
    drop(mapping);
    assert!(machine.flush_point().disarm() > 0);
    assert_eq!(machine.load(1, window.start(), &mut [0]), Ok(()), "known from before");
    machine.flush(lab.kernel.root(), window);
    assert!(machine.load(1, window.start(), &mut [0]).is_err());
}

#[test]
fn windows_in_a_kernel_lie_where_it_has_a_place_for_them() {
    let lab = Lab::new();
    let slot = PAGE_SIZE << 27;
    let first = SLOT / PAGE_SIZE;
    let places = [
        space(16, 16),
        space(first - 1, 2),
        space((SLOT + slot) / PAGE_SIZE, 4),
        space((SLOT + slot) / PAGE_SIZE - 3, 2),
        space(first, 1 << 27),
    ];
    for place in places {
        let refused = PageTableWindows::within(&lab.kernel, place, lab.other.processor(0)).map(drop);
        assert_eq!(refused, Err(PhysError::Invalid), "{place}");
    }
    PageTableWindows::within(&lab.kernel, space(first, (1 << 27) - 2), lab.other.processor(0)).unwrap();
}

#[test]
fn windows_keep_the_tables_of_their_kernel() {
    let Lab { manager, other, spaces, kernel, world } = Lab::new();
    world.0.machine.activate(0, kernel.root());
    drop((spaces, kernel));
    assert_eq!(world.0.ledger.root().used(Resource::TableFrames), 4, "a root, and what keeps the slot");
    let mapping = manager.vmap(&frames(&[3]), Permission::ReadWrite, Claim::Reserve).unwrap();
    mapping.write(0, b"hi").unwrap();
    let mut bytes = [0; 2];
    other.act(|side| side.load(frame(3).start(), &mut bytes)).unwrap();
    assert_eq!(&bytes, b"hi");
    drop(mapping);
    drop((manager, other));
    drop(world);
}
