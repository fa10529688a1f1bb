//! What processors can do with windows, and that they know none that is gone.

use alloc::sync::Arc;

use super::{EmptyInTheEnd, FRAMES, Lab, frame, frames, run};
use crate::addr::{PAGE_LEN, PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::machine::Ticks;
use crate::machine::other_world::OtherWorld;
use crate::mmu::Mmu;
use crate::pager::tests::World;
use crate::phys::{Claim, CopyFault, Permission, VmapManager, VmapProvider, WindowAccess, WordWidth};

/// The first page of the upper half of what processors translate.
const UPPER_HALF: u64 = 0xf_fff8_0000_0000;
const NOTHING: Result<(), CopyFault> = Err(CopyFault { copied: 0 });

#[test]
fn an_address_of_a_window_that_is_gone_faults() {
    let lab = Lab::new();
    lab.fill(&frames(&[3, 1]));
    let provider = lab.manager.provider();
    let mapping = lab.manager.vmap(&frames(&[3, 1]), Permission::ReadWrite, Claim::Reserve).unwrap();
    let [first, second] = [0, PAGE_SIZE].map(|offset| VirtAddr::new(mapping.window().start().as_u64() + offset));
    for at in [first, second] {
        assert_eq!(provider.store(at, &[1; 8]), Ok(()));
    }
    assert_eq!(provider.load(mapping.window().end(), &mut [0]), NOTHING, "the page behind it");
    drop(mapping);
    for at in [first, second] {
        assert_eq!(provider.load(at, &mut [0; 8]), NOTHING);
        assert_eq!(provider.store(at, &[2; 8]), NOTHING);
        assert!(provider.compare_exchange(at, WordWidth::Eight, 0, 1).is_err());
    }
    assert_eq!(lab.peek(frame(3).start(), 8), [1; 8]);
}

#[test]
fn nobody_executes_what_a_window_shows() {
    let lab = Lab::new();
    let machine = &lab.world.0.machine;
    for permission in [Permission::Read, Permission::ReadWrite] {
        let mapping = lab.manager.vmap(&frames(&[3]), permission, Claim::Beside).unwrap();
        let at = mapping.window().start();
        assert_eq!(machine.load(0, at, &mut [0]), Ok(()));
        assert!(machine.fetch(0, at, &mut [0]).is_err());
    }
}

#[test]
fn a_window_shows_its_own_pages_and_not_those_that_were_there_before() {
    let lab = Lab::new();
    for number in 0..8 {
        lab.poke(frame(number).start(), &[u8::try_from(number).unwrap()]);
    }
    let mut windows = [None; 8];
    for number in 0..8 {
        let permission = if number % 2 == 0 { Permission::ReadWrite } else { Permission::Read };
        let mapping = lab.manager.vmap(&frames(&[number]), permission, Claim::Reserve).unwrap();
        let mut byte = [0xff];
        mapping.read(0, &mut byte).unwrap();
        assert_eq!(u64::from(byte[0]), number);
        let stored = lab.manager.provider().store(mapping.window().start(), &byte);
        assert_eq!(stored.is_ok(), permission == Permission::ReadWrite);
        windows[usize::try_from(number).unwrap()] = Some(mapping.window());
    }
    assert!(windows.iter().all(|window| *window == windows[0]), "all at the same addresses");
}

#[test]
fn without_a_flush_the_test_would_see_it() {
    let lab = Lab::new();
    lab.fill(&frames(&[3]));
    let provider = lab.manager.provider();
    let mapping = lab.manager.vmap(&frames(&[3]), Permission::ReadWrite, Claim::Reserve).unwrap();
    let at = mapping.window().start();
    provider.store(at, &[1; 8]).unwrap();
    lab.world.0.machine.flush_point().fail_since(0);
    drop(mapping);
    assert!(lab.world.0.machine.flush_point().disarm() > 0);
    assert_eq!(provider.load(at, &mut [0; 8]), Ok(()), "known from before");
    lab.world.0.machine.flush_all(provider.windows.root());
    assert_eq!(provider.load(at, &mut [0; 8]), NOTHING);
}

#[test]
fn windows_may_lie_where_kernels_have_theirs() {
    let world = EmptyInTheEnd(World::new(64));
    let other = Arc::new(OtherWorld::new(&world.0.machine, run(0, FRAMES)));
    let space = PageRange::from_pages(UPPER_HALF, PageCount::new(16)).unwrap();
    let windows = other.windows(&world.0.pager, world.0.ledger.root(), space, 0).unwrap();
    let manager = VmapManager::new(windows, Ticks::new());
    let mapping = manager.vmap(&frames(&[3, 1]), Permission::ReadWrite, Claim::Reserve).unwrap();
    assert!(mapping.window().first_page() >= UPPER_HALF);
    mapping.write(PAGE_LEN - 2, b"both").unwrap();
    let mut bytes = [0; 2];
    other.act(|side| side.load(frame(1).start(), &mut bytes)).unwrap();
    assert_eq!(&bytes, b"th");
    let at = mapping.window().start();
    drop(mapping);
    assert_eq!(manager.provider().load(at, &mut [0]), NOTHING);
}

#[test]
fn accesses_outside_of_the_window_space_reach_nothing() {
    let lab = Lab::new();
    lab.fill(&frames(&[3]));
    let provider = lab.manager.provider();
    let space = provider.window_space();
    let last = PageRange::of_page(space.end_page() - 1);
    let window = PageRange::from_pages(last.first_page(), PageCount::new(1)).unwrap();
    provider
        .map(window, crate::frame::FrameRange::new(frame(3), PageCount::new(1)).unwrap(), Permission::ReadWrite)
        .unwrap();
    let byte = VirtAddr::new(last.end().as_u64() - 1);
    assert_eq!(provider.load(byte, &mut [0]), Ok(()));
    let steps = lab.other.steps();
    assert_eq!(provider.load(byte, &mut [0; 2]), NOTHING, "not even the first byte");
    assert_eq!(provider.store(byte, &[0; 2]), NOTHING);
    for address in [0, space.start().as_u64() - 8, space.end().as_u64(), 1 << 47, u64::MAX - 7] {
        let address = VirtAddr::new(address);
        assert_eq!(provider.load(address, &mut [0; 16]), NOTHING);
        assert_eq!(provider.store(address, &[0; 16]), NOTHING);
        for width in [WordWidth::Four, WordWidth::Eight] {
            assert_eq!(provider.compare_exchange(address, width, 0, 0), Err(CopyFault { copied: 0 }));
        }
    }
    assert_eq!(lab.other.steps(), steps, "they do not even reach the processor");
    assert!(
        provider.compare_exchange(VirtAddr::new(byte.as_u64() - 4), WordWidth::Four, 0, 0).is_err(),
        "inside a word"
    );
    provider.unmap(window).unwrap();
}
