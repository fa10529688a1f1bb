//! Threads on a few frames, in every order of their steps.

use std::sync::Arc;

use pagewarden::frame::{
    ChunkAllocator, FrameAllocator, FrameError, FrameNumber, FrameRange, FrameUse, Frames, FramesConfig, MemoryKind,
    MemoryMap, Released,
};
use pagewarden::{Limits, PageCount, Resource, ResourceLedger};

use super::{both, orders};
use FrameUse::Anonymous;

fn map(frames: u64) -> MemoryMap {
    let mut map = MemoryMap::new();
    let first = FrameNumber::new(1).unwrap();
    map.add(FrameRange::new(first, PageCount::new(frames)).unwrap(), MemoryKind::Usable).unwrap();
    map
}

fn frames(count: u64, magazine_frames: usize) -> Arc<Frames> {
    let config = FramesConfig { processors: 1, magazine_frames, zeroed_frames: 0 };
    Arc::new(Frames::new(&map(count), config).unwrap())
}

fn ledger() -> ResourceLedger {
    ResourceLedger::new(Limits::UNLIMITED)
}

#[test]
fn two_allocations_do_not_get_one_frame() {
    orders(2, || {
        let (ledger, frames) = (ledger(), frames(2, 2));
        let owner = frames.add_owner(ledger.root()).unwrap();
        let (others, other_owner) = (Arc::clone(&frames), owner.clone());
        let (a, b) = both(
            move || others.allocate(0, &other_owner, Anonymous).unwrap(),
            || frames.allocate(0, &owner, Anonymous).unwrap(),
        );
        assert_ne!(a, b);
        assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (0, 2));
        frames.check_invariants();
    });
}

#[test]
fn a_frame_that_is_freed_meanwhile_is_got_or_not_but_never_lost() {
    for magazine_frames in [0, 2] {
        orders(2, move || {
            let (ledger, frames) = (ledger(), frames(1, magazine_frames));
            let owner = frames.add_owner(ledger.root()).unwrap();
            let frame = frames.allocate(0, &owner, Anonymous).unwrap();
            let others = Arc::clone(&frames);
            let (freed, got) = both(move || others.release(0, frame), || frames.allocate(0, &owner, Anonymous));
            assert_eq!(freed, Ok(Released::Last));
            let left = match got {
                Ok(again) => u64::from(again == frame),
                Err(refusal) => {
                    assert_eq!(refusal, FrameError::Exhausted);
                    0
                }
            };
            assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (1 - left, left));
            frames.check_invariants();
        });
    }
}

#[test]
fn a_reference_is_taken_before_the_last_one_goes_or_not_at_all() {
    orders(3, || {
        let (ledger, frames) = (ledger(), frames(1, 0));
        let owner = frames.add_owner(ledger.root()).unwrap();
        let frame = frames.allocate(0, &owner, Anonymous).unwrap();
        let others = Arc::clone(&frames);
        let (released, shared) = both(move || others.release(0, frame), || frames.share(frame));
        match shared {
            Ok(references) => {
                assert_eq!((references, released, frames.references(frame)), (2, Ok(Released::StillUsed), 1));
            }
            Err(refusal) => {
                assert_eq!((refusal, released), (FrameError::NotAllocated, Ok(Released::Last)));
                assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (1, 0));
            }
        }
        frames.check_invariants();
    });
}

#[test]
fn of_two_that_release_the_last_references_one_frees_the_frame() {
    for references in [1, 2] {
        orders(3, move || {
            let (ledger, frames) = (ledger(), frames(1, 0));
            let owner = frames.add_owner(ledger.root()).unwrap();
            let frame = frames.allocate(0, &owner, Anonymous).unwrap();
            if references == 2 {
                frames.share(frame).unwrap();
            }
            let others = Arc::clone(&frames);
            let (a, b) = both(move || others.release(0, frame), || frames.release(0, frame));
            let lasts = [a, b].iter().filter(|outcome| **outcome == Ok(Released::Last)).count();
            assert_eq!(lasts, 1, "{a:?} {b:?}");
            if references == 1 {
                assert!(a == Err(FrameError::NotAllocated) || b == Err(FrameError::NotAllocated), "freed twice");
            }
            assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (1, 0));
            frames.check_invariants();
        });
    }
}

#[test]
fn an_owner_that_goes_while_its_last_frame_is_freed_is_forgotten_once() {
    orders(3, || {
        let (ledger, frames) = (ledger(), frames(1, 0));
        let owner = frames.add_owner(&ledger.root().child(Limits::UNLIMITED)).unwrap();
        let frame = frames.allocate(0, &owner, Anonymous).unwrap();
        let others = Arc::clone(&frames);
        let (released, ()) = both(move || others.release(0, frame), || drop(owner));
        assert_eq!((released, ledger.root().used(Resource::Frames)), (Ok(Released::Last), 0));
        assert_eq!(format!("{frames:?}"), "1 of 1 frames free, 0 owners");
        frames.check_invariants();
    });
}

#[test]
fn a_run_and_single_frames_are_taken_apart() {
    orders(2, || {
        let allocator = Arc::new(ChunkAllocator::new(&map(3)).unwrap());
        let other = Arc::clone(&allocator);
        let (taken, run) = both(
            move || {
                let mut batch = [FrameNumber::new(0).unwrap(); 2];
                let taken = other.allocate(&mut batch);
                (taken, batch)
            },
            || allocator.allocate_run(PageCount::new(2), PageCount::new(1)),
        );
        let (count, batch) = taken;
        match run {
            Ok(run) => assert!(batch[..count].iter().all(|frame| !run.contains(*frame)) && count == 1),
            Err(refusal) => assert_eq!((refusal, count), (FrameError::Exhausted, 2)),
        }
        assert_eq!(allocator.available(), if run.is_ok() { 0 } else { 1 });
        allocator.check_invariants();
    });
}
