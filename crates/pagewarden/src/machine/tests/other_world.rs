//! Two worlds in one machine: who may do what, in which steps, and how time passes.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc;
use std::vec::Vec;

use super::frame;
use crate::addr::{PAGE_SIZE, PageCount, PageRange, PhysAddr, VirtAddr};
use crate::frame::FrameRange;
use crate::ledger::Limits;
use crate::machine::other_world::{OtherSide, OtherWorld, OurProcessor, Refused};
use crate::machine::{Machine, Ticks};
use crate::pager::tests::World;
use crate::phys::{
    CopyFault, EventCount, OtherAccess, PageTableWindows, Permission, VmapProvider, WindowAccess, WordWidth,
};

const FIRST: u64 = 0x80;
const FRAMES: u64 = 4;
/// Where all of it is shown.
const WINDOW: u64 = 0x10_0000;

type Windows = PageTableWindows<Machine, OurProcessor>;

fn foreign() -> FrameRange {
    FrameRange::new(frame(FIRST), PageCount::new(FRAMES)).unwrap()
}

/// Another world, all of which one window shows.
fn shown(permission: Permission) -> (Arc<OtherWorld>, Windows, World) {
    let world = World::new(64);
    let other = Arc::new(OtherWorld::new(&world.machine, foreign()));
    let account = world.ledger.root().child(Limits::UNLIMITED);
    let space = PageRange::from_pages(WINDOW / PAGE_SIZE, PageCount::new(FRAMES)).unwrap();
    let windows = other.windows(&world.pager, &account, space, 1).unwrap();
    assert_eq!(world.machine.active(1), Some(windows.root()));
    windows.map(space, foreign(), permission).unwrap();
    (other, windows, world)
}

fn at(offset: u64) -> VirtAddr {
    VirtAddr::new(WINDOW + offset)
}

fn place(offset: u64) -> PhysAddr {
    frame(FIRST).start().checked_add(offset).unwrap()
}

/// How many bytes a load has copied before each turn of the agent, which takes the memory away in one turn after another.
fn steps(offset: u64, len: usize) -> Vec<usize> {
    let (other, windows, _world) = shown(Permission::Read);
    let mut copied = Vec::new();
    loop {
        let mut left = copied.len();
        other.set_agent(move |side: &OtherSide<'_>| {
            if left == 0 {
                foreign().iter().for_each(|frame| side.take_away(frame));
            }
            left = left.wrapping_sub(1);
        });
        let outcome = windows.load(at(offset), &mut std::vec![0; len]);
        other.act(|side| foreign().iter().for_each(|frame| side.give_back(frame)));
        match outcome {
            Ok(()) => return copied,
            Err(fault) => copied.push(fault.copied),
        }
    }
}

#[test]
fn a_step_is_as_long_as_address_and_rest_allow() {
    assert_eq!(steps(0, 0), []);
    assert_eq!(steps(0, 1), [0]);
    assert_eq!(steps(2, 2), [0]);
    assert_eq!(steps(4, 4), [0]);
    assert_eq!(steps(8, 8), [0]);
    assert_eq!(steps(4, 8), [0, 4]);
    assert_eq!(steps(1, 8), [0, 1, 3, 7]);
    assert_eq!(steps(0, 15), [0, 8, 12, 14]);
    assert_eq!(steps(4093, 6), [0, 1, 3, 5]);
    assert_eq!(steps(4088, 16), [0, 8]);
}

#[test]
fn each_step_is_preceded_by_a_turn_and_an_exchange_is_one_step() {
    let (other, windows, _world) = shown(Permission::ReadWrite);
    let (turns, seen) = mpsc::channel();
    other.act(|side| side.store(place(0), &[0; 16]).unwrap());
    other.set_agent(move |side: &OtherSide<'_>| {
        let mut bytes = [0; 16];
        side.load(place(0), &mut bytes).unwrap();
        turns.send(bytes).unwrap();
    });
    windows.store(at(6), &[1; 7]).unwrap();
    let stored = |range: core::ops::Range<usize>| {
        let mut bytes = [0; 16];
        bytes[range].fill(1);
        bytes
    };
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [stored(0..0), stored(6..8), stored(6..12)]);
    windows.compare_exchange(at(8), WordWidth::Four, 0x0101_0101, 0).unwrap();
    windows.compare_exchange(at(8), WordWidth::Eight, 1, 2).unwrap();
    assert_eq!(seen.try_iter().count(), 2);
    assert_eq!(other.steps(), 5);
}

#[test]
fn an_exchange_of_half_a_word_leaves_the_other_half() {
    let (other, windows, _world) = shown(Permission::ReadWrite);
    other.act(|side| side.store(place(0), &0x1111_2222_3333_4444_u64.to_le_bytes())).unwrap();
    let exchange = |offset, current, new| windows.compare_exchange(at(offset), WordWidth::Four, current, new);
    assert_eq!(exchange(0, 0x3333_4444, 0x5555_6666), Ok(0x3333_4444));
    assert_eq!(exchange(4, 0, 1), Ok(0x1111_2222));
    assert_eq!(exchange(4, 0x1111_2222, u64::MAX), Ok(0x1111_2222), "of what is given the low half counts");
    for inside in [1, 2, 3, 5] {
        assert_eq!(exchange(inside, 0, 0), Err(CopyFault { copied: 0 }));
        assert!(windows.compare_exchange(at(inside), WordWidth::Eight, 0, 0).is_err());
    }
    assert!(windows.compare_exchange(at(4), WordWidth::Eight, 0, 0).is_err());
    let mut bytes = [0; 8];
    other.act(|side| side.load(place(0), &mut bytes)).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), 0xffff_ffff_5555_6666);
}

#[test]
fn the_other_world_reaches_its_own_memory_and_nothing_else() {
    let (other, _windows, _world) = shown(Permission::ReadWrite);
    let end = FRAMES * PAGE_SIZE;
    let (before, behind) = (PhysAddr::new(place(0).as_u64() - 1).unwrap(), place(end));
    other.act(|side| {
        let mut all = std::vec![7; usize::try_from(end).unwrap()];
        side.store(place(0), &all).unwrap();
        all.fill(0);
        side.load(place(0), &mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
        assert_eq!(side.load(before, &mut [0; 2]), Err(Refused { at: before.as_u64() }));
        assert_eq!(side.store(place(end - 1), &[0; 2]), Err(Refused { at: behind.as_u64() }));
        assert_eq!(side.compare_exchange(behind, 0, 0), Err(Refused { at: behind.as_u64() }));
        let last = PhysAddr::new((1 << PhysAddr::BITS) - 1).unwrap();
        assert_eq!(side.store(last, &[0; 2]), Err(Refused { at: last.as_u64() }));
        assert_eq!(side.load(behind, &mut []), Ok(()));
        assert_eq!(side.load(place(end - 1), &mut all[..1]), Ok(()));
        assert_eq!(all[0], 7, "nothing was stored");
    });
}

#[test]
fn rights_are_per_frame_and_given_for_foreign_frames_alone() {
    let (other, windows, _world) = shown(Permission::ReadWrite);
    let one = |number, frames| FrameRange::new(frame(number), PageCount::new(frames)).unwrap();
    let may = |page: u64| {
        other.act(|side| {
            let place = place(page * PAGE_SIZE);
            (side.load(place, &mut [0]).is_ok(), side.store(place, &[0]).is_ok())
        })
    };
    windows.set_other_access(one(FIRST, 2), OtherAccess::Read).unwrap();
    windows.set_other_access(one(FIRST + 1, 1), OtherAccess::None).unwrap();
    assert_eq!([0, 1, 2].map(may), [(true, false), (false, false), (true, true)]);
    assert!(windows.set_other_access(one(FIRST - 1, 3), OtherAccess::Full).is_err());
    assert!(windows.set_other_access(one(FIRST, FRAMES + 1), OtherAccess::Full).is_err());
    assert_eq!([0, 1, 2].map(may), [(true, false), (false, false), (true, true)], "all or none");
    windows.set_other_access(foreign(), OtherAccess::Full).unwrap();
    assert_eq!([0, 1, 2].map(may), [(true, true); 3]);
}

#[test]
fn a_window_is_read_only_and_never_executable_as_its_tables_say() {
    let (other, windows, world) = shown(Permission::Read);
    other.act(|side| side.store(place(0), &[7; 8])).unwrap();
    assert_eq!(windows.load(at(0), &mut [0; 8]), Ok(()));
    assert_eq!(windows.store(at(0), &[0; 8]), Err(CopyFault { copied: 0 }));
    assert!(windows.compare_exchange(at(0), WordWidth::Eight, 0, 0).is_err());
    assert!(world.machine.fetch(1, at(0), &mut [0]).is_err());
}

#[test]
fn time_passes_when_somebody_waits() {
    let ticks = Ticks::new();
    let deadline = Duration::from_micros(3);
    assert_eq!((ticks.now(), ticks.count()), (Duration::ZERO, 0));
    for passed in [1, 2, 3, 3, 3] {
        ticks.wait(0, deadline);
        assert_eq!(ticks.now(), Duration::from_micros(passed), "no further than the deadline");
    }
    ticks.notify();
    assert_eq!(ticks.count(), 1);
    ticks.wait(0, Duration::MAX);
    assert_eq!(ticks.now(), deadline, "what has happened is not waited for");
    ticks.wait(1, Duration::MAX);
    assert_eq!(ticks.now(), Duration::from_micros(4));
}
