//! The kernel's half: the same in every space, whenever it was made, and nobody's to change but the kernel's.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{RW, World, page, private};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange, FrameUse};
use crate::ledger::{Account, Limits, Resource};
use crate::machine::{FaultCode, Machine, PageFault};
use crate::manager::{Access, Signal};
use crate::mmu::PhysMem;
use crate::page_table::{Entry, EntryFlags, Level};
use crate::pager::{AddressSpace, Fault, KernelSpace};

type Space = AddressSpace<Machine>;

/// The first slot of the upper half, and the last.
const FIRST: u64 = 0xffff_8000_0000_0000;
const LAST: u64 = 0xffff_ff80_0000_0000;
/// Bytes of a slot.
const SLOT: u64 = 1 << 39;
/// What a page of a kernel is.
const OURS: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::GLOBAL);
/// One that the machine's processors can reach, who run user code alone.
const OPEN: EntryFlags = OURS.union(EntryFlags::USER);
/// What processors set.
const SET: EntryFlags = EntryFlags::ACCESSED.union(EntryFlags::DIRTY);

fn at(base: u64, number: u64) -> VirtAddr {
    VirtAddr::new(base + number * PAGE_SIZE)
}

fn pages(base: u64, number: u64, count: u64) -> PageRange {
    PageRange::from_len(at(base, number), count * PAGE_SIZE).unwrap()
}

/// A machine with a kernel that all spaces are below.
struct Lab {
    kernel: Arc<KernelSpace<Machine>>,
    account: Account,
    world: World,
}

impl Lab {
    fn new() -> Self {
        let world = World::new(256);
        let account = world.ledger.root().child(Limits::UNLIMITED);
        let kernel = KernelSpace::new(&world.pager, &account, &[at(FIRST, 0), at(LAST, 77)]).unwrap();
        world.pager.set_kernel(&kernel).unwrap();
        Self { kernel, account, world }
    }

    /// Frames of nobody's, filled with `byte`.
    fn frames(&self, first: u64, count: u64, byte: u8) -> FrameRange {
        let first = FrameNumber::new(256 + first).unwrap();
        let run = FrameRange::new(first, PageCount::new(count)).unwrap();
        run.iter().for_each(|frame| self.world.machine.write(frame.start(), &[byte; 8]));
        run
    }

    fn fork(&self, parent: &Space) -> Space {
        parent.fork(&self.world.ledger.root().child(Limits::UNLIMITED)).unwrap()
    }

    /// Loads a byte on a processor that runs in `space`.
    fn load(&self, processor: usize, space: &Space, address: VirtAddr) -> Result<u8, PageFault> {
        self.world.run(processor, space.root());
        let mut byte = [0];
        self.world.machine.load(processor, address, &mut byte).map(|()| byte[0])
    }

    fn fault(&self, space: &Space, address: VirtAddr) -> FaultCode {
        self.load(0, space, address).unwrap_err().code
    }

    fn table_frames(&self) -> u64 {
        self.account.used(Resource::TableFrames)
    }

    /// The leaves that there are: the first page of each, its frame, and the flags that processors do not set.
    fn leaves(&self) -> Vec<(u64, u64, EntryFlags)> {
        let mut leaves = Vec::new();
        for base in [FIRST, LAST] {
            let slot = PageRange::from_pages(base / PAGE_SIZE, PageCount::new(SLOT / PAGE_SIZE - 1)).unwrap();
            self.kernel.entries(slot, &mut |span, entry, level| {
                assert_eq!(span.pages().get(), level.pages());
                leaves.push((span.first_page(), entry.frame().get(), entry.flags() - SET));
            });
        }
        leaves
    }

    /// The upper half of a space's root is the kernel's.
    fn check_space(&self, space: &Space) {
        space.check_invariants();
        let entry = |root: FrameNumber, index: u64| {
            let word = PhysMem::load(&*self.world.machine, root.at(index * 8));
            Entry::from_word(word).without(EntryFlags::ACCESSED)
        };
        let used: Vec<_> = (256..512).filter(|index| !entry(space.root(), *index).is_empty()).collect();
        assert_eq!(used, [256, 511]);
        assert!((256..512).all(|index| entry(space.root(), index) == entry(self.kernel.root(), index)));
    }

    /// What a processor knows of `spaces` and of the kernel's half that is not so any more.
    fn stale(&self, spaces: &[Space]) -> Option<String> {
        let tables: Vec<_> = spaces.iter().map(|space| space.tables()).collect();
        self.world.stale(&tables.iter().map(|tables| &**tables).collect::<Vec<_>>())
    }

    /// Nothing of the kernel is left, and it was the last to go.
    fn finish(self) {
        let Self { kernel, account, world } = self;
        kernel.check_invariants();
        drop(kernel);
        assert_eq!(account.used(Resource::TableFrames), 0);
        assert_eq!((0..2).flat_map(|processor| world.machine.known(processor)).next(), None);
        world.check_empty();
    }
}

#[test]
fn a_page_that_is_mapped_later_is_in_every_space() {
    let lab = Lab::new();
    let parent = lab.world.space();
    parent.call(&private(0, 2, RW)).unwrap();
    lab.world.store(&parent, page(0), 1).unwrap();
    let child = lab.fork(&parent);
    let (one, other) = (at(FIRST, 3), at(LAST, 9));
    assert_eq!(lab.fault(&child, one), FaultCode::USER, "nothing is there");
    lab.kernel.map(one, lab.frames(0, 2, 7), OPEN).unwrap();
    lab.kernel.map(other, lab.frames(2, 1, 8), OPEN).unwrap();
    let (late, grandchild) = (lab.world.space(), lab.fork(&child));
    for space in [&parent, &child, &late, &grandchild] {
        for processor in 0..2 {
            let found = [one, at(FIRST, 4), other].map(|address| lab.load(processor, space, address));
            assert_eq!(found, [Ok(7), Ok(7), Ok(8)]);
        }
        lab.check_space(space);
    }
    assert_eq!(lab.world.load(&child, page(0)), Ok(1));
    assert_eq!(
        lab.leaves().iter().map(|(page, ..)| *page).collect::<Vec<_>>(),
        [one.page_number(), one.page_number() + 1, other.page_number()]
    );
    drop((parent, child, late, grandchild));
    lab.finish();
}

#[test]
fn user_code_reaches_nothing_of_a_kernel_and_its_space_has_no_say_in_it() {
    let lab = Lab::new();
    let space = lab.world.space();
    let address = at(FIRST, 3);
    lab.kernel.map(address, lab.frames(0, 1, 7), OURS).unwrap();
    lab.world.run(0, space.root());
    let denied = FaultCode::PRESENT | FaultCode::USER;
    assert_eq!(lab.fault(&space, address), denied);
    let stored = lab.world.machine.store(0, address, &[1]).unwrap_err();
    assert_eq!(stored.code, denied | FaultCode::WRITE);
    lab.world.machine.fetch(0, address, &mut [0]).unwrap_err();
    for access in [Access::Read, Access::Write, Access::Execute] {
        let Err(Fault::Signal(signal)) = space.fault(address, access) else { panic!("a fault on a kernel's page") };
        assert_eq!(signal.signal, Signal::Segv);
    }
    assert!(space.copy_from_user(address, &mut [0]).is_err());
    assert!(space.copy_to_user(address, &[1]).is_err());
    assert_eq!(lab.fault(&space, address), denied, "as before");
    drop(space);
    lab.finish();
}

#[test]
fn spaces_that_come_and_go_leave_a_kernel_as_it_was() {
    let lab = Lab::new();
    lab.kernel.map(at(FIRST, 0), lab.frames(256, 700, 1), OPEN | EntryFlags::HUGE).unwrap();
    let count = || (lab.world.pager.frames().available(), lab.table_frames(), lab.leaves());
    let before = count();
    for _ in 0..3 {
        let parent = lab.world.space();
        parent.call(&private(0, 20, RW)).unwrap();
        (0..20).for_each(|number| lab.world.store(&parent, page(number), 1).unwrap());
        let child = lab.fork(&parent);
        lab.world.store(&child, page(3), 2).unwrap();
        assert_eq!(lab.load(0, &child, at(FIRST, 600)), Ok(1));
        drop(parent);
        let grandchild = lab.fork(&child);
        assert_eq!(lab.load(1, &grandchild, at(FIRST, 3)), Ok(1));
        [&child, &grandchild].into_iter().for_each(|space| lab.check_space(space));
        drop((child, grandchild));
        lab.kernel.check_invariants();
        assert_eq!(count(), before);
    }
    lab.finish();
}

#[test]
fn frames_stay_whose_they_are_whether_shown_or_not() {
    let lab = Lab::new();
    let frames = lab.world.pager.frames();
    let owner = frames.add_owner(&lab.account).unwrap();
    let held = frames.allocate(0, &owner, FrameUse::Anonymous).unwrap();
    let (of_held, references) = (FrameRange::new(held, PageCount::new(1)).unwrap(), frames.references(held));
    let free = frames.available();
    let all = FrameRange::new(FrameNumber::new(0).unwrap(), PageCount::new(256)).unwrap();
    lab.kernel.map(at(LAST, 0), of_held, OURS).unwrap();
    lab.kernel.map(at(FIRST, 0), all, OURS).unwrap();
    assert_eq!((frames.available(), lab.table_frames()), (free - 4, 11), "two tables more in each slot");
    lab.kernel.protect(pages(FIRST, 0, 256), EntryFlags::empty()).unwrap();
    assert_eq!(lab.leaves().iter().filter(|(.., flags)| flags.contains(EntryFlags::PRESENT)).count(), 1);
    for range in [pages(FIRST, 0, 256), pages(LAST, 0, 1)] {
        lab.kernel.unmap(range).unwrap();
    }
    assert_eq!((frames.available(), frames.references(held), lab.leaves().len()), (free, references, 0));
    frames.check_invariants();
    frames.release(0, held).unwrap();
    drop(owner);
    lab.finish();
}

#[test]
fn only_the_slots_that_were_asked_for_can_be_mapped_in() {
    let lab = Lab::new();
    let (one, two) = (lab.frames(0, 1, 1), lab.frames(0, 2, 1));
    let in_slot = SLOT / PAGE_SIZE;
    let places = [
        at(0, 1),
        at(1 << 46, 0),
        VirtAddr::new(0x8000_0000_0000),
        at(FIRST, 0).checked_add(SLOT).unwrap(),
        VirtAddr::new(LAST - PAGE_SIZE),
        at(FIRST, in_slot - 2),
        at(FIRST, in_slot - 1),
        at(LAST, in_slot - 2),
        at(LAST, in_slot - 1),
        VirtAddr::new(FIRST + 1),
    ];
    for place in places {
        assert_eq!(lab.kernel.map(place, one, OURS), Err(Errno::Inval), "{place}");
        let Some(range) = PageRange::from_len(place, PAGE_SIZE) else { continue };
        assert_eq!(lab.kernel.unmap(range), Err(Errno::Inval), "{place}");
        assert_eq!(lab.kernel.protect(range, OURS), Err(Errno::Inval), "{place}");
    }
    assert_eq!(lab.kernel.map(at(FIRST, in_slot - 3), two, OURS), Err(Errno::Inval), "beyond the end");
    assert_eq!(lab.kernel.unmap(pages(FIRST, 0, in_slot)), Err(Errno::Inval), "with what keeps the slot");
    for flags in [EntryFlags::empty(), OURS - EntryFlags::PRESENT, OURS | EntryFlags::SOFT_3, OURS | EntryFlags::SOFT_0]
    {
        assert_eq!(lab.kernel.map(at(FIRST, 0), one, flags), Err(Errno::Inval), "{flags:?}");
    }
    lab.kernel.map(at(FIRST, in_slot - 3), one, OURS).unwrap();
    lab.kernel.map(at(LAST, 5), one, OURS).unwrap();
    assert_eq!(lab.kernel.map(at(LAST, 4), two, OURS), Err(Errno::Exist));
    assert_eq!(lab.leaves().len(), 2, "all or nothing, and what keeps a slot is none");
    for base in [FIRST, LAST] {
        lab.kernel.unmap(pages(base, 0, in_slot - 2)).unwrap();
    }
    assert_eq!((lab.leaves().len(), lab.table_frames()), (0, 7), "a root, and three tables that keep each slot");
    lab.kernel.check_invariants();
    lab.finish();
}

#[test]
fn slots_lie_in_the_upper_half_and_are_named_once() {
    let world = World::new(64);
    let new = |slots: &[u64]| {
        let slots: Vec<_> = slots.iter().map(|slot| VirtAddr::new(*slot)).collect();
        KernelSpace::new(&world.pager, world.ledger.root(), &slots).map(drop)
    };
    for slot in [0, 1 << 46, 0x7fff_ffff_f000, 0x8000_0000_0000, FIRST - 1] {
        assert_eq!(new(&[FIRST, slot]), Err(Errno::Inval), "{slot:#x}");
    }
    assert_eq!(new(&[FIRST, LAST, LAST + 5 * PAGE_SIZE]), Err(Errno::Exist));
    assert_eq!(new(&[]), Ok(()));
    assert_eq!(new(&[u64::MAX, FIRST]), Ok(()));
    world.check_empty();
}

#[test]
fn a_pager_has_one_kernel_and_for_as_long_as_a_space_needs_it() {
    let lab = Lab::new();
    let another = KernelSpace::new(&lab.world.pager, &lab.account, &[at(FIRST, 0)]).unwrap();
    assert_eq!(lab.world.pager.set_kernel(&another), Err(Errno::Busy));
    assert_eq!(lab.world.pager.set_kernel(&lab.kernel), Ok(()), "it is that already");
    let elsewhere = World::new(64);
    assert_eq!(elsewhere.pager.set_kernel(&lab.kernel), Err(Errno::Inval));
    drop((another, elsewhere));
    lab.kernel.map(at(FIRST, 0), lab.frames(0, 1, 4), OPEN).unwrap();
    let space = lab.world.space();
    let Lab { kernel, account, world } = lab;
    drop(kernel);
    world.run(0, space.root());
    let mut byte = [0];
    world.machine.load(0, at(FIRST, 0), &mut byte).unwrap();
    assert_eq!((byte, account.used(Resource::TableFrames)), ([4], 9));
    let child = space.fork(&account).unwrap();
    drop(space);
    world.run(1, child.root());
    world.machine.load(1, at(FIRST, 0), &mut byte).unwrap();
    drop(child);
    assert_eq!(AddressSpace::new(&world.pager, world.config()).map(drop), Err(Errno::Srch));
    world.check_empty();
}

type Change = fn(&Lab);

/// What a kernel does to pages that both processors know, in spaces of their own.
const CHANGES: &[(&str, Change)] = &[
    ("unmap of a page", |lab| lab.kernel.unmap(pages(FIRST, 1, 1)).unwrap()),
    ("unmap of all pages of a table", |lab| lab.kernel.unmap(pages(FIRST, 0, 20)).unwrap()),
    ("unmap of a large page", |lab| lab.kernel.unmap(pages(FIRST, 512, 512)).unwrap()),
    ("unmap of everything in a slot", |lab| lab.kernel.unmap(pages(FIRST, 0, 1 << 26)).unwrap()),
    ("no right to store", |lab| lab.kernel.protect(pages(FIRST, 0, 8), OPEN - EntryFlags::WRITABLE).unwrap()),
    ("not present", |lab| lab.kernel.protect(pages(LAST, 0, 1), EntryFlags::empty()).unwrap()),
];

/// Two spaces that run on a processor each, which know small and large pages, global ones among them.
fn known_to_both() -> (Lab, [Space; 2]) {
    let lab = Lab::new();
    let spaces = [lab.world.space(), lab.world.space()];
    lab.kernel.map(at(FIRST, 0), lab.frames(0, 8, 1), OPEN).unwrap();
    lab.kernel.map(at(FIRST, 512), lab.frames(256, 512, 1), OPEN | EntryFlags::HUGE).unwrap();
    lab.kernel.map(at(LAST, 0), lab.frames(8, 1, 1), OPEN - EntryFlags::GLOBAL).unwrap();
    for (processor, space) in spaces.iter().enumerate() {
        lab.world.run(processor, space.root());
        for place in [at(FIRST, 0), at(FIRST, 1), at(FIRST, 7), at(FIRST, 600), at(LAST, 0)] {
            lab.world.machine.store(processor, place, &[2]).unwrap();
        }
    }
    assert_eq!(lab.stale(&spaces), None);
    (lab, spaces)
}

#[test]
fn every_processor_forgets_what_a_kernel_takes_away_whatever_space_it_runs_in() {
    for (name, change) in CHANGES {
        let (lab, spaces) = known_to_both();
        change(&lab);
        assert_eq!(lab.stale(&spaces), None, "{name}");
        // Global pages outlive a change of the space.
        (0..2).for_each(|processor| lab.world.machine.activate(processor, spaces[1 - processor].root()));
        assert_eq!(lab.stale(&spaces), None, "{name}");
        spaces.iter().for_each(|space| lab.check_space(space));
        drop(spaces);
        lab.finish();
    }
}

#[test]
fn every_flush_of_a_kernel_that_is_left_out_shows() {
    for (name, change) in CHANGES {
        let mut left_out = 0;
        loop {
            let (lab, spaces) = known_to_both();
            lab.world.machine.flush_point().fail_once(left_out);
            change(&lab);
            if lab.world.machine.flush_point().disarm() == 0 {
                break;
            }
            assert!(lab.stale(&spaces).is_some(), "{name}: flush {left_out} is not missed");
            left_out += 1;
        }
        assert!(left_out > 0, "{name}: no flush at all");
    }
}

#[test]
fn whichever_table_cannot_be_had_nothing_is_left() {
    for tables in 0..=7 {
        let world = World::new(64);
        let account = world.ledger.root().child(Limits::UNLIMITED.with(Resource::TableFrames, tables));
        let made = KernelSpace::new(&world.pager, &account, &[at(FIRST, 0), at(LAST, 0)]);
        assert_eq!(made.map(drop), if tables < 7 { Err(Errno::NoMem) } else { Ok(()) });
        world.check_empty();
    }
    let lab = Lab::new();
    let run = lab.frames(0, 8, 1);
    let tables = lab.table_frames();
    for allowed in 0..=3 {
        lab.account.set_limit(Resource::TableFrames, tables + allowed);
        let mapped = lab.kernel.map(at(FIRST, 508), run, OURS);
        let (outcome, more) = if allowed < 3 { (Err(Errno::NoMem), 0) } else { (Ok(()), 3) };
        assert_eq!((mapped, lab.table_frames()), (outcome, tables + more));
        lab.kernel.check_invariants();
    }
    lab.account.set_limit(Resource::TableFrames, u64::MAX);
    lab.kernel.map(at(LAST, 0), lab.frames(256, 512, 1), OURS | EntryFlags::HUGE).unwrap();
    lab.world.frame_taken.fail_since(0);
    assert_eq!(lab.kernel.unmap(pages(LAST, 3, 1)), Err(Errno::NoMem), "a large page is cut");
    assert_eq!(AddressSpace::new(&lab.world.pager, lab.world.config()).map(drop), Err(Errno::NoMem));
    lab.world.frame_taken.disarm();
    assert_eq!(lab.leaves().len(), 9);
    let mut levels = Vec::new();
    lab.kernel.entries(pages(LAST, 3, 1), &mut |_, _, level| levels.push(level));
    assert_eq!(levels, [Level::Two]);
    lab.finish();
}
