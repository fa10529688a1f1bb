//! Which regions there may be, and what is left of them.

use std::sync::Arc;
use std::thread;

use pagewarden::phys::PhysError;
use pagewarden_vm_memory::{FaultSafe, MapError, WindowMemory, WindowRegion, map_regions};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryError,
    GuestRegionCollectionError,
};

use super::support::{Guest, PAGE, file, frame, frames, manager};

#[test]
fn regions_that_cannot_be_leave_no_window() {
    let manager = manager(&file(4), 4);
    let map = |regions: &[(u64, u64, u64)]| {
        let regions: Vec<_> = regions.iter().map(|(at, first, pages)| (*at, frames(*first, *pages))).collect();
        let regions: Vec<_> = regions.iter().map(|(at, frames)| (GuestAddress(*at), frames.as_slice())).collect();
        map_regions(&manager, &regions).map(|memory| memory.num_regions())
    };
    use GuestRegionCollectionError::{MemoryRegionOverlap, NoMemoryRegion, UnsortedMemoryRegions};
    assert!(matches!(map(&[]), Err(MapError::Layout(NoMemoryRegion))));
    assert!(matches!(map(&[(0, 0, 2), (0x1000, 2, 2)]), Err(MapError::Layout(MemoryRegionOverlap))));
    assert!(matches!(map(&[(0x2000, 0, 1), (0, 1, 1)]), Err(MapError::Layout(UnsortedMemoryRegions))));
    assert!(matches!(map(&[(0, 0, 2), (u64::MAX - 0xffe, 2, 1)]), Err(MapError::Overflow(0xffff_ffff_ffff_f001))));
    let stranger = map(&[(0, 0, 2), (0x4000, 3, 2)]);
    assert!(
        matches!(stranger, Err(MapError::Window { start: 0x4000, source: PhysError::Owned(other) }) if other == frame(4))
    );
    assert!(matches!(map(&[(0, 0, 0)]), Err(MapError::Window { start: 0, source: PhysError::Invalid })));
    assert_eq!(manager.live(), 0);
    assert_eq!(map(&[(0, 0, 2), (0x2000, 2, 2)]).unwrap(), 2);
    assert_eq!((manager.live(), manager.retained()), (0, 0));
}

#[test]
fn the_last_address_of_a_guest_is_one() {
    let guest = Guest::new(&[(0, 1), (u64::MAX - 0xfff, 1)]);
    let memory = FaultSafe::new(&guest.memory);
    memory.write_slice(b"end", GuestAddress(u64::MAX - 2)).unwrap();
    assert_eq!(guest.contents()[2 * PAGE - 3..], *b"end");
    let mut bytes = [0; 8];
    assert_eq!(memory.read(&mut bytes, GuestAddress(u64::MAX - 2)).unwrap(), 3, "what follows is not address 0");
    let beyond = memory.read_slice(&mut bytes, GuestAddress(u64::MAX - 2));
    assert!(matches!(beyond, Err(GuestMemoryError::PartialBuffer { expected: 8, completed: 3 })), "{beyond:?}");
}

#[test]
fn frames_come_in_any_order() {
    let file = file(3);
    let manager = manager(&file, 3);
    let backwards = [frame(2), frame(0), frame(1)];
    let region = WindowRegion::new(manager.clone(), GuestAddress(0), &backwards).unwrap();
    assert_eq!((region.mapping().frames(), manager.live()), (backwards.as_slice(), 1));
    let memory = WindowMemory::from_regions(vec![region]).unwrap();
    let mut bytes = vec![0; 3 * PAGE];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    let contents = super::support::pattern(3 * PAGE);
    assert!(bytes == [&contents[2 * PAGE..], &contents[..2 * PAGE]].concat());
}

#[test]
fn regions_come_and_go_while_a_device_runs() {
    let guest = Guest::new(&[(0, 1)]);
    let space = GuestMemoryAtomic::new(guest.memory.clone());
    let device = space.clone();
    let reads = |at: u64| {
        let device = device.clone();
        let read = move || FaultSafe::new(device.memory()).read_obj::<u8>(GuestAddress(at)).is_ok();
        thread::spawn(read).join().unwrap()
    };
    assert_eq!([reads(0), reads(0x5000)], [true, false]);
    let other = file(1);
    let other = WindowRegion::new(manager(&other, 1), GuestAddress(0x5000), &frames(0, 1)).unwrap();
    let larger = guest.memory.insert_region(Arc::new(other)).unwrap();
    space.lock().unwrap().replace(larger.clone());
    assert_eq!([reads(0), reads(0x5000)], [true, true]);
    let (smaller, removed) = larger.remove_region(GuestAddress(0), PAGE as u64).unwrap();
    space.lock().unwrap().replace(smaller);
    assert_eq!([reads(0), reads(0x5000)], [false, true]);
    assert_eq!(guest.manager.live(), 1, "who has the region has the window");
    drop((removed, larger, guest.memory));
    assert_eq!(guest.manager.live(), 0);
}
