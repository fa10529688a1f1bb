//! The guest's side cuts the file: copies end with an error, slices find zeros, and nobody dies.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pagewarden_vm_memory::FaultSafe;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::support::{Access, Guest, PAGE, is_fault};

#[test]
fn copies_of_memory_that_is_gone_are_errors() {
    let guest = Guest::new(&[(0, 2), (0x8000, 1)]);
    guest.file.set_len(PAGE as u64).unwrap();
    let first = guest.memory.iter().next().unwrap();
    let memory = FaultSafe::new(&guest.memory);
    for access in Access::ALL {
        let all =
            [access.perform(first, MemoryRegionAddress(0x1000), 8), access.perform(&memory, GuestAddress(0x8000), 8)];
        for outcome in all {
            assert!(outcome.contains("IOError(Os { code: 14"), "{outcome}");
        }
    }
    let mut bytes = vec![0; 2 * PAGE];
    let across = first.read(&mut bytes, MemoryRegionAddress(0));
    assert!(across.is_err_and(|error| is_fault(&error)), "a part of the region is no success");
    assert_eq!(bytes[..PAGE], guest.contents()[..], "what was there has been copied");
    assert_eq!(guest.manager.provider().lost_pages(), 0);

    memory.write_slice(b"the rest is as good as before", GuestAddress(0x10)).unwrap();
    assert_eq!(guest.contents()[0x10..0x2d], *b"the rest is as good as before");
    guest.file.set_len(3 * PAGE as u64).unwrap();
    memory.write_slice(b"and so is what comes back", GuestAddress(0x8000)).unwrap();
    assert_eq!(guest.contents()[2 * PAGE..2 * PAGE + 25], *b"and so is what comes back");
}

#[test]
fn slices_of_memory_that_is_gone_show_zeros_and_are_counted() {
    let guest = Guest::new(&[(0, 3)]);
    guest.file.set_len(PAGE as u64).unwrap();
    let mut bytes = [1; 16];
    guest.memory.read_slice(&mut bytes, GuestAddress(0x1ff8)).unwrap();
    assert_eq!(bytes, [0; 16]);
    assert_eq!(guest.manager.provider().lost_pages(), 2);
    guest.memory.write_slice(&[7; 16], GuestAddress(0x1ff8)).unwrap();
    guest.file.set_len(3 * PAGE as u64).unwrap();
    let mut there = [1; 16];
    guest.file.read_exact_at(&mut there, 0x1ff8).unwrap();
    assert_eq!(there, [0; 16], "stores go nowhere");
    guest.memory.read_slice(&mut there, GuestAddress(0)).unwrap();
    assert_eq!(there, guest.contents()[..16]);
    assert_eq!(guest.manager.provider().lost_pages(), 2);
}

#[test]
fn slices_end_with_their_region() {
    let guest = Guest::new(&[(0, 2)]);
    let region = guest.memory.iter().next().unwrap();
    let slice = |at, len| region.get_slice(MemoryRegionAddress(at), len).map(|slice| slice.len()).ok();
    assert_eq!(
        [slice(0, 2 * PAGE), slice(1, 2 * PAGE), slice(0x2000, 0), slice(0x2001, 0)],
        [Some(2 * PAGE), None, Some(0), None]
    );
    assert_eq!([slice(u64::MAX, 1), slice(0, usize::MAX)], [None, None]);
    let last = region.get_slice(MemoryRegionAddress(0x1ffe), 2).unwrap();
    last.write_slice(&[1, 2], 0).unwrap();
    assert_eq!(guest.contents()[0x1ffd..], [super::support::pattern(2 * PAGE)[0x1ffd], 1, 2]);
    assert_eq!(region.as_volatile_slice().unwrap().len(), 2 * PAGE);
}

#[test]
fn a_file_that_is_cut_again_and_again_ends_nothing() {
    let guest = Guest::new(&[(0, 4)]);
    let is_over = AtomicBool::new(false);
    let mut outcomes = [0; 3];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                guest.file.set_len(0).unwrap();
                guest.file.set_len(4 * PAGE as u64).unwrap();
            }
        });
        // Nothing is asserted here: the other thread would never end.
        let memory = FaultSafe::new(&guest.memory);
        let mut bytes = vec![0; 4 * PAGE];
        for _ in 0..20_000 {
            let outcome = match memory.read_slice(&mut bytes, GuestAddress(0)) {
                Ok(()) => 0,
                Err(error) if is_fault(&error) => 1,
                Err(_) => 2,
            };
            outcomes[outcome] += 1;
        }
        for _ in 0..20_000 {
            outcomes[2] += usize::from(guest.memory.read_slice(&mut bytes, GuestAddress(0)).is_err());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(outcomes[0] > 0 && outcomes[0] + outcomes[1] == 20_000 && outcomes[2] == 0, "{outcomes:?}");
}
