//! A window, a pointer or a reservation for which there is no memory is refused, and leaves nothing.

use std::time::Duration;

use crate::allocator::{Ration, live_bytes, on_ration};
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{
    Claim, CopyFault, EventCount, Mapping, Mode, Permission, PhysError, PhysMutPtr, PhysRange, Reservation,
    VmapManager, VmapProvider, WindowAccess, WordWidth,
};
use pagewarden::{PAGE_SIZE, PageCount, PageRange, PhysAddr, VirtAddr};

/// More than any request needs at a time.
const ALLOCATIONS_MAX: usize = 100;
/// So many of each kind live in the end: enough for every list and tree to grow more than once.
const ROUNDS: u64 = 300;
/// Frames of one request, no two of which follow each other.
const SCATTERED: u64 = 5;

/// A platform that agrees to everything and has no memory.
struct Agreeing;

/// Time stands still.
struct Still;

type Manager = VmapManager<Agreeing>;

impl WindowAccess for Agreeing {
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

impl VmapProvider for Agreeing {
    type Events = Still;

    fn window_space(&self) -> PageRange {
        PageRange::from_pages(0x1000, PageCount::new(1 << 20)).unwrap()
    }

    fn is_foreign(&self, _: FrameNumber) -> bool {
        true
    }

    fn map(&self, _: PageRange, _: FrameRange, _: Permission) -> Result<(), PhysError> {
        Ok(())
    }

    fn unmap(&self, _: PageRange) -> Result<(), PhysError> {
        Ok(())
    }
}

impl EventCount for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn count(&self) -> u32 {
        0
    }

    fn wait(&self, _: u32, _: Duration) {}

    fn notify(&self) {}
}

/// Frames of request number `round`, highest first.
fn scattered(round: u64) -> Vec<FrameNumber> {
    let numbers = (0..SCATTERED).rev().map(|index| 2 * (round * SCATTERED + index));
    numbers.map(|number| FrameNumber::new(number).unwrap()).collect()
}

/// Bytes of request number `round` that nothing else reserves.
fn ranges(round: u64) -> Vec<PhysRange> {
    let far = (1 << 40) + round * SCATTERED * 2 * PAGE_SIZE;
    let start = |index| PhysAddr::new(far + 2 * index * PAGE_SIZE).unwrap();
    (0..SCATTERED).rev().map(|index| PhysRange::new(start(index), 8).unwrap()).collect()
}

/// Makes a request with 0, 1, 2, ... allocations until they suffice; each time before, nothing may change. How often
/// it was refused.
fn starve<T>(manager: &Manager, mut request: impl FnMut() -> Result<T, PhysError>) -> (T, u64) {
    let state = || (manager.live(), manager.retained(), manager.reservations().len());
    let before = state();
    for allocations in 0..ALLOCATIONS_MAX {
        let (result, refused) = on_ration(Ration { allocations, least_bytes: 0 }, &mut request);
        manager.check_invariants();
        match result {
            Ok(made) => {
                assert_eq!(refused, 0, "it went on without the memory that it asked for");
                return (made, allocations as u64);
            }
            Err(error) => {
                assert_eq!(error, PhysError::OutOfMemory);
                assert!(refused > 0, "it failed with memory for all that it asked for");
                assert_eq!(state(), before, "it failed and changed something");
            }
        }
    }
    panic!("it needs more than {ALLOCATIONS_MAX} allocations");
}

/// What lives until the end.
#[derive(Default)]
struct Living<'m> {
    mappings: Vec<Mapping<&'m Manager>>,
    pointers: Vec<PhysMutPtr<u64, &'m Manager>>,
    reservations: Vec<Reservation<'m, Still>>,
}

#[test]
fn windows_pointers_and_reservations_fail_as_a_whole() {
    let before = live_bytes();
    let manager = VmapManager::new(Agreeing, Still);
    let mut living = Living::default();
    let mut failures = [0; 5];
    for round in 0..ROUNDS {
        let (frames, bytes) = (scattered(round), ranges(round));
        let vmap = || manager.vmap(&frames, Permission::ReadWrite, Claim::Reserve);
        let (mapping, vmap) = starve(&manager, vmap);
        let start = PhysAddr::new((1 << 45) + round * 3 * PAGE_SIZE).unwrap();
        let (mut pointer, contiguous) = starve(&manager, || PhysMutPtr::contiguous(&manager, start, 600));
        let ((), map) = starve(&manager, || pointer.map(Claim::Reserve));
        let (held, reserve) = starve(&manager, || manager.reservations().try_reserve(&bytes, Mode::Shared));
        let wait = || manager.reservations().reserve(&bytes, Mode::Shared, Duration::ZERO);
        let (waited, wait) = starve(&manager, wait);
        for (sum, more) in failures.iter_mut().zip([vmap, contiguous, map, reserve, wait]) {
            *sum += more;
        }
        living.mappings.push(mapping);
        living.pointers.push(pointer);
        living.reservations.extend([held, waited]);
    }
    assert!(failures.iter().all(|failures| *failures >= ROUNDS), "{failures:?}: each needs memory of its own");
    drop(living);
    assert_eq!((manager.live(), manager.reservations().len()), (0, 0));
    manager.check_invariants();
    drop(manager);
    assert_eq!(live_bytes().wrapping_sub(before), 0, "bytes not freed");
}
