//! What a window shows, and what it refuses.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pagewarden::phys::{CopyFault, OtherAccess, Permission, PhysError, VmapProvider, WindowAccess, WordWidth};
use pagewarden::{Errno, PAGE_SIZE, PageCount, PageRange, VirtAddr};
use pagewarden_linux::foreign::{ForeignError, ForeignMemory, ForeignOptions, ForeignRegion};

use crate::support::{FIRST, PAGE, at, byte_at, file, frame, frames, options, patterned, region, shown, window, world};

const NOTHING: CopyFault = CopyFault { copied: 0 };

fn loaded<const N: usize>(memory: &ForeignMemory, from: VirtAddr) -> Result<[u8; N], CopyFault> {
    let mut bytes = [0; N];
    memory.load(from, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn what_is_written_is_in_the_file_and_what_is_in_the_file_is_read() {
    let (file, memory) = world(4);
    let shown = shown(&memory, FIRST, 4);
    let mut bytes = vec![0; 4 * PAGE];
    memory.load(shown.start(), &mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == byte_at(index)));
    memory.store(at(shown, PAGE - 2), b"across").unwrap();
    let mut found = [0; 8];
    file.read_exact_at(&mut found, PAGE_SIZE - 3).unwrap();
    assert_eq!((found[0], &found[1..7], found[7]), (byte_at(PAGE - 3), &b"across"[..], byte_at(PAGE + 4)));
    file.write_all_at(b"other", 2 * PAGE_SIZE + 7).unwrap();
    assert_eq!(loaded(&memory, at(shown, 2 * PAGE + 7)), Ok(*b"other"));
    assert_eq!(memory.load(at(shown, 4 * PAGE), &mut []), Ok(()), "no bytes are always there");
}

#[test]
fn words_are_exchanged_in_the_file() {
    let (file, memory) = world(1);
    let shown = shown(&memory, FIRST, 1);
    file.write_all_at(&[1, 0, 0, 0, 2, 0, 0, 0], 8).unwrap();
    let exchange = |offset, width, current, new| memory.compare_exchange(at(shown, offset), width, current, new);
    assert_eq!(exchange(8, WordWidth::Eight, 1, 9), Ok(2 << 32 | 1));
    assert_eq!(exchange(8, WordWidth::Eight, 2 << 32 | 1, 4 << 32 | 3), Ok(2 << 32 | 1));
    assert_eq!(exchange(12, WordWidth::Four, 4, 5), Ok(4));
    assert_eq!(exchange(12, WordWidth::Four, 4, 6), Ok(5));
    let mut found = [0; 16];
    file.read_exact_at(&mut found, 4).unwrap();
    assert_eq!(found[4..12], [3, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!((found[0], found[15]), (byte_at(4), byte_at(19)));
    for (offset, width) in [(9, WordWidth::Four), (10, WordWidth::Four), (12, WordWidth::Eight)] {
        assert_eq!(exchange(offset, width, 0, 0), Err(NOTHING), "a word across {offset} is not aligned");
    }
}

#[test]
fn windows_show_scattered_frames_of_regions_with_offsets() {
    let (one, two) = (patterned(8), patterned(8));
    let second = ForeignRegion { offset: 2 * PAGE_SIZE, ..region(FIRST + 8, 4, &two) };
    let memory = ForeignMemory::new(options(vec![second, region(FIRST, 8, &one)])).unwrap();
    // Across both regions, the second of which starts with the third page of its file.
    let both = window(&memory, 0, 4);
    memory.map(both, frames(FIRST + 6, 4), Permission::Read).unwrap();
    for (page, index) in [6, 7, 2, 3].into_iter().enumerate() {
        assert_eq!(loaded(&memory, at(both, page * PAGE + 5)), Ok([byte_at(index * PAGE + 5)]), "page {page}");
    }
    // Page by page, in another order.
    let scattered = window(&memory, 10, 3);
    for (page, number) in [5, 1, 11].into_iter().enumerate() {
        let part = window(&memory, 10 + page as u64, 1);
        memory.map(part, frames(FIRST + number, 1), Permission::Read).unwrap();
    }
    let mut bytes = vec![0; 3 * PAGE];
    memory.load(scattered.start(), &mut bytes).unwrap();
    assert_eq!([0, 1, 2].map(|page| bytes[page * PAGE]), [5, 1, 5].map(|index| byte_at(index * PAGE)));
}

#[test]
fn what_allows_loads_refuses_stores() {
    let file = patterned(4);
    let fixed = ForeignRegion { permission: Permission::Read, ..region(FIRST + 2, 2, &file) };
    let memory = ForeignMemory::new(options(vec![region(FIRST, 2, &file), fixed])).unwrap();
    let window = window(&memory, 0, 4);
    let refused = memory.map(window, frames(FIRST, 4), Permission::ReadWrite);
    assert_eq!(refused, Err(PhysError::Platform(Errno::Acces)));
    assert_eq!(loaded::<1>(&memory, window.start()), Err(NOTHING), "the first two pages are not there either");
    memory.map(window, frames(FIRST, 4), Permission::Read).unwrap();
    assert_eq!(memory.store(at(window, 8), &[1; 8]), Err(NOTHING));
    assert_eq!(memory.compare_exchange(at(window, 8), WordWidth::Eight, 0, 0), Err(NOTHING));
    assert_eq!(loaded(&memory, at(window, 8)), Ok([byte_at(8), byte_at(9)]));
}

#[test]
fn where_no_window_is_nothing_is_reached() {
    let (_file, memory) = world(4);
    let shown = shown(&memory, FIRST, 2);
    let behind = at(shown, 2 * PAGE);
    assert_eq!(loaded::<8>(&memory, behind), Err(NOTHING));
    assert_eq!(memory.store(behind, &[1]), Err(NOTHING));
    assert_eq!(memory.compare_exchange(behind, WordWidth::Four, 0, 1), Err(NOTHING));
    assert_eq!(loaded::<64>(&memory, at(shown, 2 * PAGE - 24)), Err(CopyFault { copied: 24 }));
    memory.unmap(shown).unwrap();
    assert_eq!(loaded::<8>(&memory, shown.start()), Err(NOTHING));
    assert_eq!(memory.unmap(shown), Ok(()), "what is not there is taken away as well");
}

#[test]
fn addresses_outside_of_the_space_are_never_accessed() {
    let (_file, memory) = world(1);
    let mut own = [7_u64; 4];
    let space = memory.window_space();
    let own_address = VirtAddr::new((&raw mut own).expose_provenance() as u64);
    let (before, last) = (space.start().as_u64() - 1, space.end().as_u64() - 1);
    for address in [own_address.as_u64(), 0, 8, before, last, last + 1, u64::MAX, u64::MAX - 7, 1 << 63] {
        let address = VirtAddr::new(address);
        assert_eq!(memory.store(address, &[1; 8]), Err(NOTHING), "{address}");
        assert_eq!(loaded::<8>(&memory, address), Err(NOTHING), "{address}");
        for width in [WordWidth::Four, WordWidth::Eight] {
            assert_eq!(memory.compare_exchange(address, width, 7, 1), Err(NOTHING), "{address}");
        }
        assert_eq!(memory.window_pointer(address, 8), None);
    }
    // SAFETY: a local that nobody else has.
    assert_eq!(unsafe { (&raw const own).read_volatile() }, [7; 4]);
    assert_eq!(memory.window_pointer(VirtAddr::new(last), 1).unwrap().addr() as u64, last);
    assert_eq!(memory.window_pointer(space.start(), 2).unwrap().addr() as u64, space.start().as_u64());
}

#[test]
fn windows_lie_in_the_space_and_are_as_long_as_what_they_show() {
    let (_file, memory) = world(4);
    let space = memory.window_space();
    let across = PageRange::from_pages(space.end_page() - 1, PageCount::new(2)).unwrap();
    let outside = PageRange::from_pages(space.end_page(), PageCount::new(2)).unwrap();
    for range in [across, outside] {
        assert_eq!(memory.map(range, frames(FIRST, 2), Permission::Read), Err(PhysError::Invalid));
        assert_eq!(memory.unmap(range), Err(PhysError::Invalid));
    }
    assert_eq!(memory.map(window(&memory, 0, 3), frames(FIRST, 2), Permission::Read), Err(PhysError::Invalid));
    assert_eq!(memory.set_other_access(frames(FIRST, 1), OtherAccess::None), Err(PhysError::Unsupported));
}

#[test]
fn our_own_frames_are_not_foreign() {
    let file = patterned(16);
    let owned = vec![frames(FIRST + 4, 2), frames(FIRST - 4, 5), frames(FIRST + 15, 9), frames(FIRST + 5, 3)];
    let options = ForeignOptions { owned, ..options(vec![region(FIRST, 16, &file)]) };
    let memory = ForeignMemory::new(options).unwrap();
    let foreign: Vec<u64> = (0..20).filter(|page| memory.is_foreign(frame(FIRST + page))).collect();
    assert_eq!(foreign, [1, 2, 3, 8, 9, 10, 11, 12, 13, 14]);
    let window = window(&memory, 0, 8);
    assert_eq!(
        memory.map(window, frames(FIRST + 1, 8), Permission::Read),
        Err(PhysError::Owned(frame(FIRST + 4))),
        "and are never shown"
    );
    assert_eq!(loaded::<1>(&memory, window.start()), Err(NOTHING));
    assert!(!memory.is_foreign(frame(0)) && !memory.is_foreign(frame(pagewarden::frame::FrameNumber::END - 1)));
}

#[test]
fn files_that_cannot_be_cut_into_windows_are_refused() {
    let file = file(4);
    let new = |regions| ForeignMemory::new(options(regions)).map(drop);
    let first = frame(FIRST);
    assert_eq!(
        new(vec![region(FIRST, 4, &file), region(FIRST + 3, 4, &file)]),
        Err(ForeignError::Overlap(frame(FIRST + 3)))
    );
    assert_eq!(new(vec![ForeignRegion { offset: 1, ..region(FIRST, 4, &file) }]), Err(ForeignError::Offset(first)));
    for offset in [u64::MAX - 4095, (i64::MAX as u64) - 4095] {
        assert_eq!(new(vec![ForeignRegion { offset, ..region(FIRST, 4, &file) }]), Err(ForeignError::Offset(first)));
    }
    let device = File::options().read(true).write(true).open("/dev/zero").unwrap();
    assert_eq!(new(vec![region(FIRST, 4, &device)]), Err(ForeignError::NotAFile(first)));
    for window_bytes in [0, ForeignMemory::MOST_WINDOW_BYTES + 1, u64::MAX] {
        let options = ForeignOptions { window_bytes, ..options(Vec::new()) };
        assert_eq!(ForeignMemory::new(options).map(drop), Err(ForeignError::Size));
    }
    let default = ForeignMemory::new(ForeignOptions::default()).unwrap();
    assert_eq!(default.window_space().bytes(), 64 << 30);
}

#[test]
fn huge_pages_are_refused() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let huge = match memfd_create(c"huge", MFdFlags::MFD_HUGETLB) {
        Ok(huge) => File::from(huge),
        // A host without them cannot give a file of them.
        Err(errno) => return assert!(matches!(errno, nix::Error::ENOSYS | nix::Error::ENODEV | nix::Error::EINVAL)),
    };
    let refused = ForeignMemory::new(options(vec![region(FIRST, 512, &huge)])).map(drop);
    assert_eq!(refused, Err(ForeignError::HugePages(frame(FIRST))));
}

#[test]
fn a_file_that_is_open_to_read_gives_windows_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    std::fs::write(&path, [5; 4 * PAGE]).unwrap();
    let memory = ForeignMemory::new(options(vec![region(FIRST, 4, &File::open(&path).unwrap())])).unwrap();
    let window = window(&memory, 0, 4);
    let refused = memory.map(window, frames(FIRST, 4), Permission::ReadWrite);
    assert_eq!(refused, Err(PhysError::Platform(Errno::Acces)));
    memory.map(window, frames(FIRST, 4), Permission::Read).unwrap();
    assert_eq!(loaded(&memory, at(window, 3 * PAGE)), Ok([5]));
}

#[test]
fn a_seal_against_writing_is_told() {
    let file =
        File::from(nix::sys::memfd::memfd_create(c"sealed", nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.set_len(PAGE_SIZE).unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_FUTURE_WRITE)).unwrap();
    let memory = ForeignMemory::new(options(vec![region(FIRST, 1, &file)])).unwrap();
    let window = window(&memory, 0, 1);
    let refused = memory.map(window, frames(FIRST, 1), Permission::ReadWrite);
    assert_eq!(refused, Err(PhysError::Platform(Errno::Perm)));
    memory.map(window, frames(FIRST, 1), Permission::Read).unwrap();
    assert_eq!(loaded(&memory, window.start()), Ok([0]));
}
