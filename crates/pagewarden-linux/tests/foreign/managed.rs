//! The core's manager and pointers on this platform.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use pagewarden::phys::{
    Claim, CopyFault, Mode, Permission, PhysConstPtr, PhysError, PhysMutPtr, PhysRange, VmapManager, VmapProvider,
};
use pagewarden::{PAGE_SIZE, PhysAddr};
use pagewarden_linux::foreign::{ForeignMemory, FutexEvents};

use crate::support::{FIRST, PAGE, byte_at, frame, options, patterned, region, world};

type Manager = VmapManager<ForeignMemory>;

fn manager(pages: u64) -> (std::fs::File, Manager) {
    let (file, memory) = world(pages);
    (file, VmapManager::new(memory, FutexEvents::new()))
}

#[test]
fn a_mapping_shows_frames_in_any_order() {
    let (one, two) = (patterned(4), patterned(4));
    let regions = vec![region(FIRST, 4, &one), region(FIRST + 100, 4, &two)];
    let manager = VmapManager::new(ForeignMemory::new(options(regions)).unwrap(), FutexEvents::new());
    let numbers = [FIRST + 2, FIRST + 3, FIRST, FIRST + 101];
    let mapping = manager.vmap(&numbers.map(frame), Permission::ReadWrite, Claim::Reserve).unwrap();
    for (page, index) in [2, 3, 0, 1].into_iter().enumerate() {
        let mut bytes = [0; 3];
        mapping.read(page * PAGE + 17, &mut bytes).unwrap();
        assert_eq!(bytes, [17, 18, 19].map(|offset| byte_at(index * PAGE + offset)), "page {page}");
    }
    mapping.write(4 * PAGE - 4, &[1, 2, 3, 4]).unwrap();
    let mut found = [0; 4];
    two.read_exact_at(&mut found, 2 * PAGE_SIZE - 4).unwrap();
    assert_eq!(found, [1, 2, 3, 4]);
    mapping.unmap().unwrap();
    assert_eq!((manager.live(), manager.retained()), (0, 0));
    manager.check_invariants();
}

#[test]
fn pointers_read_write_and_exchange_values() {
    let (file, manager) = manager(2);
    let start = PhysAddr::new(FIRST * PAGE_SIZE + PAGE_SIZE - 16).unwrap();
    let mut words = PhysMutPtr::<u64, _>::contiguous(&manager, start, 4).unwrap();
    words.write_slice_at(0, &[1, 2, 3, 4]).unwrap();
    assert_eq!(words.compare_exchange_at(2, 3, 33), Ok(3));
    words.map(Claim::Reserve).unwrap();
    assert_eq!(words.compare_exchange_at(2, 3, 34), Ok(33));
    assert_eq!([0, 1, 2, 3].map(|index| words.read_at(index).unwrap()), [1, 2, 33, 4]);
    let mut found = [0; 32];
    file.read_exact_at(&mut found, PAGE_SIZE - 16).unwrap();
    assert!(found.iter().step_by(8).eq(&[1, 2, 33, 4]));
}

#[test]
fn a_pointer_to_what_is_gone_says_so_and_works_again_when_it_is_back() {
    let (file, manager) = manager(2);
    let start = PhysAddr::new(FIRST * PAGE_SIZE).unwrap();
    let mut bytes = PhysConstPtr::<u8, _>::contiguous(&manager, start, 2 * PAGE).unwrap();
    bytes.map(Claim::Beside).unwrap();
    file.set_len(PAGE_SIZE).unwrap();
    let mut copy = vec![0; 2 * PAGE];
    let expected = PhysError::CopyFault(CopyFault { copied: PAGE });
    assert_eq!(bytes.read_slice_at(0, &mut copy), Err(expected));
    assert!(copy[..PAGE].iter().enumerate().all(|(index, byte)| *byte == byte_at(index)));
    file.set_len(2 * PAGE_SIZE).unwrap();
    assert_eq!(bytes.read_at(PAGE), Ok(0));
}

#[test]
fn waiting_for_a_reservation_ends_when_it_is_released() {
    let (_file, manager) = manager(1);
    let range = PhysRange::of_frame(frame(FIRST));
    let reservations = manager.reservations();
    let held = reservations.try_reserve(&[range], Mode::Exclusive).unwrap();
    assert!(reservations.try_reserve(&[range], Mode::Shared).is_err());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reservations.reserve(&[range], Mode::Shared, Duration::from_secs(60)).map(drop));
        std::thread::sleep(Duration::from_millis(20));
        drop(held);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn windows_do_not_touch_each_other() {
    let (_file, manager) = manager(2);
    let map = |number| manager.vmap(&[frame(number)], Permission::Read, Claim::Beside).unwrap();
    let mappings = [map(FIRST), map(FIRST + 1), map(FIRST)];
    for mapping in &mappings {
        assert!(manager.provider().window_space().contains_range(mapping.window()));
        let mut across = [0; 8];
        let behind = mapping.window().end().as_u64() - 4;
        let load = pagewarden::phys::WindowAccess::load;
        let loaded = load(manager.provider(), pagewarden::VirtAddr::new(behind), &mut across);
        assert_eq!(loaded, Err(CopyFault { copied: 4 }), "nothing is behind a window");
    }
}
