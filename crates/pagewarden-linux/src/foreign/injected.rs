//! Host calls of a window space that fail on command, and what holds afterwards: what the host says is mapped, what can
//! be read, and whose addresses stay whose.

use std::cell::Cell;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{CopyFault, Permission, PhysError, VmapProvider, WindowAccess};
use pagewarden::{Errno, PAGE_SIZE, PageCount, PageRange, VirtAddr};

use super::{ForeignMemory, ForeignOptions, ForeignRegion};
use crate::proc_maps::{self, MapsEntry};

/// What is there after a host call has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    /// Everything.
    Nothing,
    /// What the call was to replace is unmapped.
    Target,
}

thread_local! {
    /// The lowest bit says whether the next host call fails.
    static FAILING: Cell<u64> = const { Cell::new(0) };
    static LOSS: Cell<Loss> = const { Cell::new(Loss::Nothing) };
}

/// Fails if it is this call's turn.
pub(super) fn before(start: u64, bytes: u64, flags: i32) -> Result<(), Errno> {
    let failing = FAILING.get();
    FAILING.set(failing >> 1);
    if failing & 1 == 0 {
        return Ok(());
    }
    if LOSS.get() == Loss::Target && flags & libc::MAP_FIXED != 0 {
        super::space::unmap(start, bytes);
    }
    Err(Errno::NoMem)
}

/// Lets the calls whose bits are set in `failing` fail; the next is bit 0.
fn arm(failing: u64, loss: Loss) {
    FAILING.set(failing);
    LOSS.set(loss);
}

/// Whether calls were left that would have failed.
fn disarm() -> bool {
    FAILING.replace(0) != 0
}

const PAGES: u64 = 16;

/// A file whose pages hold their numbers.
fn file() -> OwnedFd {
    let file = memfd_create(c"foreign", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut writer = File::from(file.try_clone().unwrap());
    for page in 1..=u8::try_from(PAGES).unwrap() {
        writer.write_all(&[page; 4096]).unwrap();
    }
    file
}

fn frames(first: u64, count: u64) -> FrameRange {
    FrameRange::new(FrameNumber::new(first).unwrap(), PageCount::new(count)).unwrap()
}

/// Three regions one behind the other, so that a window on all of it is three mappings.
fn memory() -> ForeignMemory {
    let region = |first: u64| ForeignRegion {
        frames: frames(first, 4),
        file: file(),
        offset: (first - 100) * PAGE_SIZE,
        permission: Permission::ReadWrite,
    };
    let regions = vec![region(100), region(104), region(108)];
    ForeignMemory::new(ForeignOptions { regions, window_bytes: 64 * PAGE_SIZE, ..ForeignOptions::default() }).unwrap()
}

/// A window in the middle of the space.
fn window(memory: &ForeignMemory) -> PageRange {
    PageRange::from_pages(memory.window_space().first_page() + 10, PageCount::new(12)).unwrap()
}

/// What is mapped in the space. Vacant pages of spaces that are neighbours are one mapping.
fn maps(memory: &ForeignMemory) -> Vec<MapsEntry> {
    let entries = proc_maps::read(std::process::id().cast_signed()).unwrap();
    let part = |entry: MapsEntry| {
        let range = entry.range.intersection(memory.window_space())?;
        Some(MapsEntry { range, ..entry })
    };
    entries.into_iter().filter_map(part).collect()
}

/// The first byte of page `page` of the window.
fn byte(memory: &ForeignMemory, page: u64) -> Result<u8, CopyFault> {
    let mut bytes = [0];
    let at = window(memory).start().as_u64() + page * PAGE_SIZE;
    memory.load(VirtAddr::new(at), &mut bytes)?;
    Ok(bytes[0])
}

fn show(memory: &ForeignMemory) -> Result<(), PhysError> {
    memory.map(window(memory), frames(100, 12), Permission::ReadWrite)
}

const GONE: Result<u8, CopyFault> = Err(CopyFault { copied: 0 });

#[test]
fn a_window_of_which_a_part_cannot_be_mapped_is_as_it_was() {
    for loss in [Loss::Nothing, Loss::Target] {
        let memory = memory();
        let before = maps(&memory);
        for call in 0..3 {
            arm(1 << call, loss);
            assert_eq!(show(&memory), Err(PhysError::Platform(Errno::NoMem)), "call {call}");
            assert!(!disarm());
            assert_eq!(maps(&memory), before, "call {call}, {loss:?}");
            assert_eq!(byte(&memory, 0), GONE);
        }
        assert_eq!(show(&memory), Ok(()));
        assert_eq!([0, 3, 4, 7, 8, 11].map(|page| byte(&memory, page).unwrap()), [1, 4, 5, 8, 9, 12]);
        assert_eq!(memory.unmap(window(&memory)), Ok(()));
        assert_eq!(maps(&memory), before);
    }
}

#[test]
fn a_window_that_cannot_be_unmapped_is_unmapped_by_the_next_call() {
    let memory = memory();
    let before = maps(&memory);
    show(&memory).unwrap();
    arm(1, Loss::Nothing);
    assert_eq!(memory.unmap(window(&memory)), Err(PhysError::Platform(Errno::NoMem)));
    assert_eq!(byte(&memory, 11), Ok(12));
    assert_eq!(memory.unmap(window(&memory)), Ok(()));
    assert_eq!(maps(&memory), before);
}

#[test]
fn the_hole_that_a_failed_call_leaves_is_closed() {
    let memory = memory();
    let before = maps(&memory);
    show(&memory).unwrap();
    arm(1, Loss::Target);
    assert_eq!(memory.unmap(window(&memory)), Err(PhysError::Platform(Errno::NoMem)));
    assert_eq!(maps(&memory), before);
    assert_eq!(show(&memory), Ok(()));
    assert_eq!(byte(&memory, 0), Ok(1));
}

#[test]
fn what_cannot_be_taken_back_stays_until_it_is_unmapped() {
    let memory = memory();
    let before = maps(&memory);
    // The third mapping, and what takes the other two back. Between them is the call that looks for a hole.
    arm(0b10100, Loss::Nothing);
    assert_eq!(show(&memory), Err(PhysError::Platform(Errno::NoMem)));
    assert!(!disarm());
    assert_eq!((byte(&memory, 0), byte(&memory, 7), byte(&memory, 8)), (Ok(1), Ok(8), GONE));
    assert_eq!(memory.unmap(window(&memory)), Ok(()));
    assert_eq!(maps(&memory), before);
}

#[test]
fn a_space_with_a_hole_is_given_up_and_the_hole_is_left_to_others() {
    let memory = memory();
    show(&memory).unwrap();
    let (space, hole) = (memory.window_space(), window(&memory));
    arm(0b11, Loss::Target);
    assert_eq!(memory.unmap(hole), Err(PhysError::Platform(Errno::NoMem)));
    assert!(maps(&memory).iter().all(|entry| !entry.range.intersects(hole)), "nothing is there");
    let stranger = super::space::tests::occupy(hole);
    assert_eq!(byte(&memory, 0), GONE, "it is not reached, though something is there");
    assert_eq!(memory.store(hole.start(), &[9]), Err(CopyFault { copied: 0 }));
    assert_eq!(memory.window_pointer(hole.start(), 1), None);
    assert_eq!(show(&memory), Err(PhysError::Platform(Errno::Io)));
    assert_eq!(memory.unmap(hole), Err(PhysError::Platform(Errno::Io)));
    assert!(!super::lost::replace(usize::try_from(hole.start().as_u64()).unwrap()), "nor is it replaced");
    drop(memory);
    assert!(stranger.is_untouched());
    super::space::unmap(space.start().as_u64(), space.bytes());
}

#[test]
fn a_space_goes_with_its_owner() {
    let memory = memory();
    show(&memory).unwrap();
    let space = memory.window_space();
    drop(memory);
    let entries = proc_maps::read(std::process::id().cast_signed()).unwrap();
    let is_there = |entry: &MapsEntry| entry.range.intersects(space) && entry.inode != 0;
    assert!(!entries.iter().any(is_there), "no window is left");
}
