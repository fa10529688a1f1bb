//! Each error, at least once, with its number.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::{BROKEN, FRAMES, Lab, SPACE_FIRST, SPACE_PAGES, frame, frames, range, run, tables_limit};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::ledger::Limits;
use crate::machine::Ticks;
use crate::page_table::EntryFlags;
use crate::phys::{
    Claim, CopyFault, Mode, OtherAccess, PageTableWindows, Permission, PhysConstPtr, PhysError, PhysMutPtr, PhysRange,
    VmapManager, VmapProvider, WindowAccess, WindowProcessor, WordWidth,
};

fn has_number(error: PhysError, errno: Errno) {
    assert_eq!(error.errno(), errno, "{error}");
    assert_eq!(Errno::from(error), errno);
    assert!(!format!("{error}").is_empty());
}

fn check<T>(outcome: Result<T, PhysError>, error: PhysError, errno: Errno) {
    assert_eq!(outcome.err(), Some(error));
    has_number(error, errno);
}

#[test]
fn requests_that_make_no_sense_are_invalid() {
    let lab = Lab::new();
    let manager = &*lab.manager;
    check(manager.vmap(&[], Permission::Read, Claim::Reserve), PhysError::Invalid, Errno::Inval);
    check(PhysConstPtr::<u8, _>::new(manager, &[], 0, 0), PhysError::Invalid, Errno::Inval);
    check(PhysConstPtr::<u8, _>::contiguous(manager, frame(0).start(), 0), PhysError::Invalid, Errno::Inval);
    check(PhysConstPtr::<u8, _>::new(manager, &frames(&[0, 1]), PAGE_SIZE, 1), PhysError::Invalid, Errno::Inval);
    check(PhysConstPtr::<u8, _>::new(manager, &frames(&[0]), u64::MAX, 1), PhysError::Invalid, Errno::Inval);
    check(PhysRange::new(frame(0).start(), 0), PhysError::Invalid, Errno::Inval);
    check(manager.protect(run(0, 1), OtherAccess::Full), PhysError::Invalid, Errno::Inval);
}

#[test]
fn a_claim_must_be_of_the_same_manager_and_as_strong_as_the_window() {
    let (lab, other) = (Lab::new(), Lab::new());
    let page = [PhysRange::of_frame(frame(0))];
    let theirs = other.manager.reservations().try_reserve(&page, Mode::Exclusive).unwrap();
    let refused = lab.manager.vmap(&frames(&[0]), Permission::Read, Claim::Held(theirs));
    check(refused, PhysError::Invalid, Errno::Inval);
    let shared = lab.manager.reservations().try_reserve(&page, Mode::Shared).unwrap();
    let refused = lab.manager.vmap(&frames(&[0]), Permission::ReadWrite, Claim::Held(shared));
    check(refused, PhysError::Invalid, Errno::Inval);
}

#[test]
fn an_exchange_of_a_word_that_is_not_aligned_is_refused() {
    let lab = Lab::new();
    lab.fill(&frames(&[0, 1]));
    let before = lab.peek(frame(0).start(), 16);
    for offset in 1..8 {
        let words = lab.ptr::<u64>(&frames(&[0, 1]), offset, 1);
        check(words.compare_exchange_at(0, 0, 1), PhysError::Unaligned, Errno::Inval);
        let halves = lab.ptr::<u32>(&frames(&[0, 1]), offset, 1);
        let exchanged = halves.compare_exchange_at(0, 0, 1);
        assert_eq!(exchanged.err(), (offset != 4).then_some(PhysError::Unaligned));
    }
    // Between two pages.
    check(lab.ptr::<u64>(&frames(&[0, 1]), 4092, 1).compare_exchange_at(0, 0, 1), PhysError::Unaligned, Errno::Inval);
    assert_eq!(lab.peek(frame(0).start(), 16), before);
}

#[test]
fn what_is_out_of_bounds_or_overflows_is_told_apart() {
    let lab = Lab::new();
    let manager = &*lab.manager;
    let two = lab.ptr::<u64>(&frames(&[0]), 0, 2);
    check(two.read_at(2), PhysError::OutOfBounds, Errno::Fault);
    check(two.write_at(2, 0), PhysError::OutOfBounds, Errno::Fault);
    check(two.read_slice_at(1, &mut [0; 2]), PhysError::OutOfBounds, Errno::Fault);
    check(two.compare_exchange_at(2, 0, 0), PhysError::OutOfBounds, Errno::Fault);
    check(two.read_at(usize::MAX), PhysError::Overflow, Errno::Overflow);
    check(two.write_at(usize::MAX / 8 + 1, 0), PhysError::Overflow, Errno::Overflow);
    check(two.copy_from(0, &two, 0, usize::MAX / 4), PhysError::Overflow, Errno::Overflow);
    check(two.copy_from(0, &two, 1, 2), PhysError::OutOfBounds, Errno::Fault);
    check(two.copy_from(1, &two, 0, 2), PhysError::OutOfBounds, Errno::Fault);
    let bytes = lab.ptr::<u8>(&frames(&[0]), 0, 4096);
    check(bytes.write_slice_at(usize::MAX, &[0]), PhysError::Overflow, Errno::Overflow);
    check(bytes.read_slice_at(usize::MAX, &mut []), PhysError::OutOfBounds, Errno::Fault);

    check(PhysConstPtr::<u64, _>::new(manager, &frames(&[0]), 0, usize::MAX), PhysError::Overflow, Errno::Overflow);
    check(PhysConstPtr::<u8, _>::new(manager, &frames(&[0]), 1, usize::MAX), PhysError::Overflow, Errno::Overflow);
    check(PhysConstPtr::<u8, _>::new(manager, &frames(&[0]), 1, 4096), PhysError::OutOfBounds, Errno::Fault);
    let mapping = manager.vmap(&frames(&[0]), Permission::Read, Claim::Beside).unwrap();
    check(mapping.read(4096, &mut [0]), PhysError::OutOfBounds, Errno::Fault);
    check(mapping.read(usize::MAX, &mut [0]), PhysError::Overflow, Errno::Overflow);
    assert_eq!(mapping.read(4096, &mut []), Ok(()));
    drop(mapping);
}

#[test]
fn the_end_of_physical_memory_is_no_wrap() {
    let lab = Lab::new();
    let manager = &*lab.manager;
    let last = FrameNumber::new(FrameNumber::END - 1).unwrap();
    let byte = last.at(PAGE_SIZE - 1);
    check(PhysConstPtr::<u8, _>::contiguous(manager, byte, 1), PhysError::Owned(last), Errno::Perm);
    check(PhysConstPtr::<u8, _>::contiguous(manager, byte, 2), PhysError::Overflow, Errno::Overflow);
    check(PhysMutPtr::<u64, _>::contiguous(manager, byte, 1), PhysError::Overflow, Errno::Overflow);
    check(PhysConstPtr::<u8, _>::contiguous(manager, byte, usize::MAX), PhysError::Overflow, Errno::Overflow);
    check(PhysConstPtr::<u8, _>::new(manager, &[last], 4095, 1), PhysError::Owned(last), Errno::Perm);
    check(manager.vmap(&[last], Permission::Read, Claim::Reserve), PhysError::Owned(last), Errno::Perm);
    // All of it: too much to write the frames down before it is known that they are foreign.
    let zero = PhysAddr::new(0).unwrap();
    let all = PhysConstPtr::<u8, _>::contiguous(manager, zero, 1 << PhysAddr::BITS);
    check(all, PhysError::Owned(FrameNumber::new(0).unwrap()), Errno::Perm);
    let ends = manager.reservations().try_reserve(&[range(byte, 1)], Mode::Exclusive).unwrap();
    check(
        manager.reservations().try_reserve(&[PhysRange::of_frame(last)], Mode::Shared),
        PhysError::Reserved(range(byte, 1)),
        Errno::Busy,
    );
    drop(ends);
}

#[test]
fn a_page_that_is_named_twice_is_refused_wherever_it_stands() {
    let lab = Lab::new();
    let twice = PhysError::DuplicatePage(frame(3));
    for list in [&[3, 3][..], &[3, 4, 3], &[1, 3, 2, 3], &[9, 3, 8, 3, 1]] {
        check(lab.manager.vmap(&frames(list), Permission::Read, Claim::Reserve), twice, Errno::Inval);
        check(PhysMutPtr::<u8, _>::new(&*lab.manager, &frames(list), 0, 1), twice, Errno::Inval);
    }
}

#[test]
fn nothing_is_mapped_over_what_is_mapped() {
    let lab = Lab::new();
    let mut pointer = lab.ptr::<u8>(&frames(&[0]), 0, 1);
    pointer.map(Claim::Reserve).unwrap();
    check(pointer.map(Claim::Beside), PhysError::AlreadyMapped, Errno::Exist);
    let window = pointer.mapping().unwrap().window();
    let provider = lab.manager.provider();
    let both = PageRange::from_pages(window.first_page() - 1, PageCount::new(2)).unwrap();
    let refused = provider.map(both, run(4, 2), Permission::Read);
    check(refused, PhysError::AlreadyMapped, Errno::Exist);
    pointer.write_at(0, 7).unwrap();
    assert_eq!(lab.peek(frame(0).start(), 1), [7], "it still shows what it did");
    pointer.unmap().unwrap();
    pointer.unmap().unwrap();
}

#[test]
fn what_is_reserved_is_busy_and_in_the_end_the_time_is_over() {
    let lab = Lab::new();
    let half = range(frame(0).at(2048), 2048);
    let reserved = lab.manager.reservations().try_reserve(&[half], Mode::Exclusive).unwrap();
    let refused = lab.manager.vmap(&frames(&[1, 0]), Permission::Read, Claim::Reserve);
    check(refused, PhysError::Reserved(half), Errno::Busy);
    check(lab.ptr::<u8>(&frames(&[0]), 0, 4096).reserve(), PhysError::Reserved(half), Errno::Busy);
    let late = lab.manager.reservations().reserve(&[half], Mode::Shared, Duration::from_micros(5));
    check(late, PhysError::TimedOut(half), Errno::TimedOut);
    drop(reserved);
    let in_time = lab.manager.reservations().reserve(&[half], Mode::Shared, Duration::from_micros(5));
    assert!(in_time.is_ok(), "{in_time:?}");
    drop(in_time);
}

#[test]
fn memory_of_our_own_and_memory_that_is_nobodys_is_never_shown() {
    let lab = Lab::new();
    let ours = FrameNumber::new(1).unwrap();
    let (before, after) = (FrameNumber::new(frame(0).get() - 1).unwrap(), frame(FRAMES));
    for wrong in [ours, before, after] {
        let list = [frame(0), wrong];
        check(lab.manager.vmap(&list, Permission::Read, Claim::Reserve), PhysError::Owned(wrong), Errno::Perm);
        check(PhysConstPtr::<u8, _>::new(&*lab.manager, &list, 0, 1), PhysError::Owned(wrong), Errno::Perm);
        check(PhysMutPtr::<u8, _>::contiguous(&*lab.manager, wrong.start(), 1), PhysError::Owned(wrong), Errno::Perm);
        let one = FrameRange::new(wrong, PageCount::new(1)).unwrap();
        check(lab.manager.protect(one, OtherAccess::None), PhysError::Owned(wrong), Errno::Perm);
        check(lab.manager.validate_unowned(&list), PhysError::Owned(wrong), Errno::Perm);
    }
    assert_eq!(lab.manager.validate_unowned(&frames(&[0, FRAMES - 1])), Ok(()));
}

#[test]
fn windows_run_out_and_come_back() {
    let lab = Lab::new();
    let all: Vec<_> = run(0, FRAMES).iter().collect();
    // A page before and one behind.
    let most = usize::try_from(SPACE_PAGES - 2).unwrap();
    let vmap = |count: usize| lab.manager.vmap(&all[..count], Permission::Read, Claim::Reserve);
    check(vmap(most + 1), PhysError::WindowSpaceExhausted, Errno::NoMem);
    let mapping = vmap(most).unwrap();
    assert_eq!(mapping.window().first_page(), SPACE_FIRST + 1);
    check(vmap(1), PhysError::WindowSpaceExhausted, Errno::NoMem);
    lab.manager.check_invariants();
    drop(mapping);
    let mut singles = Vec::new();
    let error = loop {
        match vmap(1) {
            Ok(mapping) => singles.push(mapping),
            Err(error) => break error,
        }
        lab.manager.check_invariants();
    };
    check(Err::<(), _>(error), PhysError::WindowSpaceExhausted, Errno::NoMem);
    assert_eq!(singles.len() as u64, (SPACE_PAGES - 1) / 2, "each with an empty page behind it");
    drop(singles);
}

#[test]
fn tables_are_paid_for_and_end_with_the_budget() {
    check(Lab::with(SPACE_PAGES, tables_limit(0)).map(drop), PhysError::OutOfTableFrames, Errno::NoMem);
    for budget in 1..4 {
        let lab = Lab::with(SPACE_PAGES, tables_limit(budget)).unwrap();
        let refused = lab.manager.vmap(&frames(&[0]), Permission::Read, Claim::Reserve);
        check(refused, PhysError::OutOfTableFrames, Errno::NoMem);
    }
    let lab = Lab::with(SPACE_PAGES, tables_limit(4)).unwrap();
    lab.manager.vmap(&frames(&[0]), Permission::Read, Claim::Reserve).unwrap().unmap().unwrap();
}

#[test]
fn a_window_for_loads_takes_no_stores() {
    let lab = Lab::new();
    lab.poke(frame(0).start(), &[0; 8]);
    let mapping = lab.manager.vmap(&frames(&[0]), Permission::Read, Claim::Reserve).unwrap();
    check(mapping.write(0, &[1]), PhysError::ReadOnly, Errno::Acces);
    check(mapping.compare_exchange(0, 0_u64, 1), PhysError::ReadOnly, Errno::Acces);
    // Nor would the tables.
    let at = mapping.window().start();
    let provider = lab.manager.provider();
    assert_eq!(provider.store(at, &[1]), Err(CopyFault { copied: 0 }));
    assert_eq!(lab.peek(frame(0).start(), 8), [0; 8]);
    drop(mapping);
}

#[test]
fn memory_that_is_gone_is_a_fault() {
    let lab = Lab::new();
    lab.fill(&frames(&[0, 1]));
    lab.other.act(|side| side.take_away(frame(1)));
    let words = lab.ptr::<u64>(&frames(&[0, 1]), 4092, 1);
    check(words.read_at(0), PhysError::CopyFault(CopyFault { copied: 4 }), Errno::Fault);
    let gone = lab.ptr::<u64>(&frames(&[1]), 0, 1);
    check(gone.compare_exchange_at(0, 0, 1), PhysError::CopyFault(CopyFault { copied: 0 }), Errno::Fault);
    lab.other.act(|side| side.give_back(frame(1)));
    assert!(words.read_at(0).is_ok());
}

/// A platform without a say in what the other world does.
struct Powerless;

impl WindowAccess for Powerless {
    fn load(&self, _: VirtAddr, _: &mut [u8]) -> Result<(), CopyFault> {
        Err(CopyFault { copied: 0 })
    }

    fn store(&self, _: VirtAddr, _: &[u8]) -> Result<(), CopyFault> {
        Err(CopyFault { copied: 0 })
    }

    fn compare_exchange(&self, _: VirtAddr, _: WordWidth, _: u64, _: u64) -> Result<u64, CopyFault> {
        Err(CopyFault { copied: 0 })
    }
}

impl WindowProcessor for Powerless {
    type Events = Ticks;
    const LEAF: EntryFlags = EntryFlags::USER;

    fn is_foreign(&self, _: FrameNumber) -> bool {
        true
    }
}

#[test]
fn a_platform_that_cannot_protect_says_so_and_nothing_is_protected() {
    let lab = Lab::new();
    let account = lab.world.0.ledger.root().child(Limits::UNLIMITED);
    let space = lab.manager.provider().window_space();
    let windows = PageTableWindows::new(&lab.world.0.pager, &account, space, Powerless).unwrap();
    let manager = VmapManager::new(windows, Ticks::new());
    for _ in 0..2 {
        check(manager.protect(run(0, 1), OtherAccess::None), PhysError::Unsupported, Errno::OpNotSupp);
        manager.check_invariants();
        assert_eq!((manager.live(), manager.retained()), (0, 0));
    }
    // What belongs to our allocator is not foreign, whatever the platform says.
    let ours = FrameNumber::new(1).unwrap();
    check(manager.validate_unowned(&[frame(0), ours]), PhysError::Owned(ours), Errno::Perm);
    drop(manager);
}

#[test]
fn what_the_platform_says_is_passed_on() {
    let lab = Lab::new();
    lab.manager.provider().map.fail_once(0);
    check(lab.manager.vmap(&frames(&[0]), Permission::Read, Claim::Reserve), BROKEN, Errno::Fault);
    lab.manager.provider().protect.fail_once(0);
    check(lab.manager.protect(run(0, 1), OtherAccess::None), BROKEN, Errno::Fault);
    // Provoked by tests whose allocator runs out.
    has_number(PhysError::OutOfMemory, Errno::NoMem);
}
