//! Owners, charges and references.

use alloc::vec::Vec;
use std::thread;

use super::{frame, run, usable};
use crate::addr::PageCount;
use crate::error::Errno;
use crate::frame::records::{Records, State, Tag};
use crate::frame::{FrameError, FrameUse, Frames, FramesConfig, Released};
use crate::ledger::{Account, Limits, OverLimit, Resource, ResourceLedger};

use FrameUse::{Anonymous, Object, Table};

fn frames(config: FramesConfig) -> Frames {
    Frames::new(&usable(&[(1, 65), (512, 1536)]), config).unwrap()
}

fn used(account: &Account) -> (u64, u64) {
    (account.used(Resource::Frames), account.used(Resource::TableFrames))
}

#[test]
fn a_frame_is_charged_as_what_it_is_used_for() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let account = ledger.root().child(Limits::UNLIMITED);
    let frames = frames(FramesConfig::default());
    let owner = frames.add_owner(&account).unwrap();
    let taken = [Anonymous, Object, Table].map(|used_as| (used_as, frames.allocate(0, &owner, used_as).unwrap()));
    assert_eq!((used(&account), used(ledger.root())), ((2, 1), (2, 1)));
    assert_eq!(frames.available(), frames.total() - 3);
    for (used_as, frame) in taken {
        assert_eq!((frames.used_as(frame), frames.references(frame)), (Some(used_as), 1));
        assert_eq!(frames.release(0, frame), Ok(Released::Last));
        assert_eq!((frames.used_as(frame), frames.references(frame)), (None, 0));
    }
    assert_eq!((used(&account), frames.available()), ((0, 0), frames.total()));
    frames.check_invariants();
}

#[test]
fn the_last_reference_frees_the_frame() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames(FramesConfig::default());
    let owner = frames.add_owner(ledger.root()).unwrap();
    let frame = frames.allocate(0, &owner, Anonymous).unwrap();
    assert_eq!((frames.share(frame), frames.share(frame)), (Ok(2), Ok(3)));
    for left in [2, 1] {
        assert_eq!(frames.release(7, frame), Ok(Released::StillUsed));
        assert_eq!((frames.references(frame), ledger.root().used(Resource::Frames)), (left, 1));
    }
    assert_eq!(frames.release(0, frame), Ok(Released::Last));
    assert_eq!(ledger.root().used(Resource::Frames), 0);
    frames.check_invariants();
}

#[test]
fn what_is_free_or_foreign_is_neither_shared_nor_released() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames(FramesConfig::default());
    let owner = frames.add_owner(ledger.root()).unwrap();
    let taken = frames.allocate(0, &owner, Anonymous).unwrap();
    frames.release(0, taken).unwrap();
    for (number, wrong) in [
        (taken.get(), FrameError::NotAllocated),
        (600, FrameError::NotAllocated),
        (0, FrameError::NotOurs),
        (65, FrameError::NotOurs),
        (1536, FrameError::NotOurs),
        (1 << 39, FrameError::NotOurs),
    ] {
        assert_eq!(frames.release(0, frame(number)), Err(wrong), "{number:#x}");
        assert_eq!(frames.share(frame(number)), Err(wrong), "{number:#x}");
        assert_eq!(wrong.errno(), Errno::Inval);
    }
    assert_eq!((used(ledger.root()), frames.available()), ((0, 0), frames.total()));
    frames.check_invariants();
}

#[test]
fn references_that_cannot_be_counted_are_refused() {
    let records = Records::new(&usable(&[(1, 9)])).unwrap();
    records.start(frame(3), State::shared(Tag::new(5, Object)).with_references(u32::MAX - 1)).unwrap();
    assert_eq!(records.share(frame(3)), Ok(u32::MAX));
    assert_eq!(records.share(frame(3)), Err(FrameError::TooManyReferences));
    let state = records.release(frame(3)).unwrap();
    assert_eq!((state.references(), state.tag().owner(), state.tag().used_as()), (u32::MAX, 5, Some(Object)));
    assert_eq!(FrameError::TooManyReferences.errno(), Errno::Busy);
}

#[test]
fn a_limit_is_kept_and_a_refusal_leaves_no_trace() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Resource::Frames, 5));
    for magazine_frames in [0, 4, 256] {
        let frames = frames(FramesConfig { magazine_frames, ..FramesConfig::default() });
        let owner = frames.add_owner(&ledger.root().child(Limits::UNLIMITED)).unwrap();
        let taken: Vec<_> = (0..5).map(|_| frames.allocate(0, &owner, Anonymous).unwrap()).collect();
        let over = |amount| FrameError::OverLimit(OverLimit { resource: Resource::Frames, amount });
        assert_eq!(frames.allocate(0, &owner, Object), Err(over(1)));
        let huge = PageCount::new(512);
        assert_eq!(frames.allocate_run(huge, huge, &owner, Object), Err(over(512)));
        assert_eq!(over(1).errno(), Errno::NoMem);
        assert_eq!((used(ledger.root()), frames.available()), ((5, 0), frames.total() - 5));
        let table = frames.allocate(0, &owner, Table).unwrap();
        for frame in taken.into_iter().chain([table]) {
            frames.release(0, frame).unwrap();
        }
        assert_eq!((used(ledger.root()), frames.available()), ((0, 0), frames.total()));
        frames.check_invariants();
    }
}

#[test]
fn an_owner_is_known_until_its_last_frame_is_free() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames(FramesConfig::default());
    let owner = frames.add_owner(&ledger.root().child(Limits::UNLIMITED)).unwrap();
    let [a, b] = [0; 2].map(|_| frames.allocate(0, &owner, Anonymous).unwrap());
    let clone = owner.clone();
    drop(owner);
    frames.release(0, a).unwrap();
    drop(clone);
    assert_eq!((frames.owners().count(), used(ledger.root())), (1, (1, 0)));
    frames.check_invariants();
    // Its number is not somebody else's as long as a frame names it.
    let other_account = ledger.root().child(Limits::UNLIMITED);
    let other = frames.add_owner(&other_account).unwrap();
    frames.release(0, b).unwrap();
    assert_eq!((frames.owners().count(), used(ledger.root())), (1, (0, 0)));
    // Now it may be.
    let third = frames.add_owner(ledger.root()).unwrap();
    assert_eq!(third.record().tag(Anonymous).owner(), 0);
    let c = frames.allocate(0, &other, Anonymous).unwrap();
    assert_eq!(used(&other_account), (1, 0));
    frames.release(0, c).unwrap();
    drop((other, third));
    assert_eq!(frames.owners().count(), 0);
}

#[test]
fn an_owner_of_other_frames_is_refused() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let [ours, others] = [0; 2].map(|_| frames(FramesConfig::default()));
    let owner = others.add_owner(ledger.root()).unwrap();
    assert_eq!(ours.allocate(0, &owner, Anonymous), Err(FrameError::NotOurs));
    assert_eq!(ours.allocate_run(PageCount::new(2), PageCount::new(1), &owner, Anonymous), Err(FrameError::NotOurs));
    assert_eq!(ours.magazine(0).unwrap().allocate(&owner, Anonymous).unwrap_err(), FrameError::NotOurs);
    assert_eq!((used(ledger.root()), ours.available()), ((0, 0), ours.total()));
}

#[test]
fn a_run_is_charged_at_once_and_released_frame_by_frame() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames(FramesConfig { magazine_frames: 16, ..FramesConfig::default() });
    let owner = frames.add_owner(ledger.root()).unwrap();
    let whole = PageCount::new(512);
    let run_of_two = frames.allocate_run(PageCount::new(1024), whole, &owner, Object).unwrap();
    assert_eq!(run_of_two, run(512, 1536));
    assert_eq!(used(ledger.root()), (1024, 0));
    assert_eq!(frames.allocate_run(whole, whole, &owner, Object), Err(FrameError::Exhausted));
    assert_eq!(frames.allocate_run(PageCount::ZERO, whole, &owner, Object), Err(FrameError::InvalidRange));
    let most = PageCount::new(u64::MAX);
    assert_eq!(frames.allocate_run(most, whole, &owner, Object), Err(FrameError::Exhausted));
    assert_eq!(used(ledger.root()), (1024, 0));
    frames.share(frame(700)).unwrap();
    frames.release_run(run_of_two).unwrap();
    assert_eq!((used(ledger.root()), frames.references(frame(700))), ((1, 0), 1));
    assert_eq!(frames.release_run(run(699, 701)), Err(FrameError::NotAllocated));
    assert_eq!((used(ledger.root()), frames.available()), ((0, 0), frames.total()));
    frames.check_invariants();
    let again = frames.allocate_run(PageCount::new(1024), whole, &owner, Object).unwrap();
    again.iter().for_each(|frame| assert_eq!(frames.release(0, frame), Ok(Released::Last)));
    assert!(!frames.allocator().is_free(frame(1535)), "the last ones lie in a magazine");
    // They are fetched from there.
    assert_eq!(frames.allocate_run(PageCount::new(1024), whole, &owner, Object), Ok(again));
    // Frames of another owner among them, and one that is used for something else.
    let other = frames.add_owner(&ledger.root().child(Limits::UNLIMITED)).unwrap();
    let singles = [(&other, Object), (&owner, Object), (&owner, Table)];
    let singles = singles.map(|(owner, used_as)| frames.allocate(0, owner, used_as).unwrap());
    assert_eq!((used(ledger.root()), used(other.account())), ((1026, 1), (1, 0)));
    frames.release_run(again).unwrap();
    frames.release_run(run(singles[0].get(), singles[2].get() + 1)).unwrap();
    assert_eq!((used(ledger.root()), used(other.account())), ((0, 0), (0, 0)));
    frames.check_invariants();
}

#[test]
fn the_word_of_a_frame_is_0_when_it_is_allocated() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames(FramesConfig::default());
    let owner = frames.add_owner(ledger.root()).unwrap();
    for _ in 0..3 {
        let frame = frames.allocate(0, &owner, Table).unwrap();
        let word = frames.word(frame);
        assert_eq!(word.swap(7, crate::sync::Ordering::Relaxed), 0);
        frames.release(0, frame).unwrap();
    }
}

#[test]
fn threads_that_free_the_frames_of_a_dead_owner_give_everything_back() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames(FramesConfig { processors: 2, magazine_frames: 8, zeroed_frames: 0 });
    for _ in 0..20 {
        let account = ledger.root().child(Limits::UNLIMITED);
        let owner = frames.add_owner(&account).unwrap();
        let all: Vec<_> = (0..600).map(|_| frames.allocate(0, &owner, Anonymous).unwrap()).collect();
        for frame in &all {
            frames.share(*frame).unwrap();
        }
        drop(owner);
        let lasts: usize = thread::scope(|scope| {
            let work = |processor| {
                let (frames, all) = (&frames, &all);
                let free = move |frame: &_| frames.release(processor, *frame) == Ok(Released::Last);
                scope.spawn(move || all.iter().filter(|frame| free(frame)).count())
            };
            [0, 1].map(work).into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((lasts, used(&account), frames.owners().count()), (all.len(), (0, 0), 0));
        frames.check_invariants();
    }
}
