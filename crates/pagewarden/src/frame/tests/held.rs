//! Magazines that one user has alone, and frames that are held alone.

use alloc::vec::Vec;

use super::usable;
use crate::addr::PageCount;
use crate::frame::records::{State, Tag};
use crate::frame::{FrameError, FrameNumber, FrameUse, Frames, FramesConfig, Released};
use crate::ledger::{Limits, Resource, ResourceLedger};

use FrameUse::{Anonymous, Object, Table};

const CONFIG: FramesConfig = FramesConfig { processors: 2, magazine_frames: 8, zeroed_frames: 2 };

fn frames() -> Frames {
    Frames::new(&usable(&[(1, 65)]), CONFIG).unwrap()
}

#[test]
fn a_frame_held_alone_has_no_references() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let mut alone = frames.magazine(0).unwrap();
    let held = alone.allocate(&owner, Object).unwrap();
    let number = held.number();
    assert_eq!((held.used_as(), frames.references(number), frames.used_as(number)), (Object, 0, None));
    assert_eq!(frames.release(0, number), Err(FrameError::NotAllocated));
    assert_eq!(frames.share(number), Err(FrameError::NotAllocated));
    assert_eq!(held.publish(), Ok(number));
    assert_eq!((frames.references(number), frames.used_as(number)), (1, Some(Object)));
    assert_eq!((frames.share(number), alone.release_shared(number)), (Ok(2), Ok(Released::StillUsed)));
    drop(alone);
    assert_eq!(ledger.root().used(Resource::Frames), 1);
    frames.check_invariants();
    assert_eq!(frames.release(1, number), Ok(Released::Last));
    assert_eq!((ledger.root().used(Resource::Frames), frames.available()), (0, 64));
    frames.check_invariants();
}

#[test]
fn a_run_held_alone_is_free_again_or_published() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Resource::Frames, 40));
    let frames = frames();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let hold = |pages| frames.hold_run(PageCount::new(pages), PageCount::new(1), &owner, Anonymous);
    let held = hold(32).unwrap();
    let run = held.run();
    assert_eq!((run.frames().get(), frames.available(), ledger.root().used(Resource::Frames)), (32, 32, 32));
    assert_eq!((frames.references(run.first()), frames.release_run(run)), (0, Err(FrameError::NotAllocated)));
    frames.check_invariants();
    assert!(matches!(hold(9), Err(FrameError::OverLimit(_))));
    drop(held);
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (64, 0));
    let run = hold(32).unwrap().publish().unwrap();
    assert!(run.iter().all(|frame| frames.references(frame) == 1));
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (32, 32));
    frames.check_invariants();
    frames.release_run(run).unwrap();
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (64, 0));
    drop(owner);
    assert_eq!(frames.owners().count(), 0, "nobody keeps the owner");
    frames.check_invariants();
}

#[test]
fn a_magazine_keeps_the_last_2_mib_at_hand() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = Frames::new(&usable(&[(512, 1536)]), CONFIG).unwrap();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let other = frames.add_owner(&ledger.root().child(Limits::UNLIMITED.with(Resource::Frames, 600))).unwrap();
    let mut alone = frames.magazine(0).unwrap();
    let first = alone.hold_large(&owner, Anonymous).unwrap();
    let run = first.run();
    assert_eq!((run.frames().get(), run.first().get() % 512), (512, 0));
    alone.release_run(first).unwrap();
    assert_eq!(ledger.root().used(Resource::Frames), 512, "it stays paid for");
    let again = alone.hold_large(&owner, Anonymous).unwrap();
    assert_eq!((again.run(), ledger.root().used(Resource::Frames)), (run, 512));
    alone.release_run(again).unwrap();
    let of_other = alone.hold_large(&other, Object).unwrap();
    assert_eq!((ledger.root().used(Resource::Frames), other.account().used(Resource::Frames)), (512, 512));
    alone.release_run(of_other).unwrap();
    assert_eq!(ledger.root().used(Resource::Frames), 0, "close to a limit nothing stays paid for");
    let last = alone.hold_large(&owner, Anonymous).unwrap();
    alone.release_run(last).unwrap();
    let all: Vec<_> = core::iter::from_fn(|| alone.allocate(&owner, Anonymous).ok()).collect();
    assert_eq!(all.len(), 1024, "what is kept is found when nothing else is left");
    drop((all, alone));
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (1024, 0));
    frames.check_invariants();
    let mut alone = frames.magazine(1).unwrap();
    let held = alone.hold_large(&owner, Anonymous).unwrap();
    let foreign = Frames::new(&usable(&[(512, 1536)]), CONFIG).unwrap();
    assert_eq!(foreign.magazine(0).unwrap().release_run(held), Err(FrameError::NotOurs));
    let held = alone.hold_large(&owner, Anonymous).unwrap();
    alone.release_run(held).unwrap();
    drop(alone);
    assert_eq!((frames.available(), ledger.root().used(Resource::Frames)), (1024, 0));
    frames.check_invariants();
}

#[test]
fn a_frame_that_is_dropped_is_free_again() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let mut alone = frames.magazine(0).unwrap();
    let [kept, dropped] = [0; 2].map(|_| alone.allocate(&owner, Table).unwrap());
    drop((alone, owner, dropped));
    assert_eq!((ledger.root().used(Resource::TableFrames), frames.available()), (1, 63));
    frames.check_invariants();
    drop(kept);
    assert_eq!((ledger.root().used(Resource::TableFrames), frames.available()), (0, 64));
    assert_eq!(frames.owners().count(), 0);
    frames.check_invariants();
}

#[test]
fn a_frame_goes_back_only_where_it_is_from() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let [ours, others] = [frames(), frames()];
    let owner = ours.add_owner(ledger.root()).unwrap();
    let held = ours.magazine(0).unwrap().allocate(&owner, Anonymous).unwrap();
    assert_eq!(others.magazine(0).unwrap().release(held), Err(FrameError::NotOurs));
    for frames in [&ours, &others] {
        assert_eq!(frames.available(), 64);
        frames.check_invariants();
    }
    assert_eq!(ledger.root().used(Resource::Frames), 0);
}

#[test]
fn a_magazine_has_one_user_and_others_pass_it_over() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let mut alone = frames.magazine(0).unwrap();
    assert!(frames.magazine(0).is_none() && frames.magazine(2).is_none() && frames.magazine(1).is_some());
    let held = alone.allocate(&owner, Anonymous).unwrap();
    assert_eq!(frames.available(), 63, "what is in the magazine is counted");
    let frame = frames.allocate(0, &owner, Anonymous).unwrap();
    frames.release(0, frame).unwrap();
    frames.drain();
    alone.release(held).unwrap();
    drop(alone);
    assert!(frames.magazine(0).is_some());
    frames.check_invariants();
}

#[test]
fn a_magazine_finds_the_last_frames() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = frames();
    let owner = frames.add_owner(ledger.root()).unwrap();
    let elsewhere = frames.allocate(1, &owner, Anonymous).unwrap();
    frames.release(1, elsewhere).unwrap();
    let mut alone = frames.magazine(0).unwrap();
    let all: Vec<_> = (0..64).map(|_| alone.allocate(&owner, Anonymous).unwrap()).collect();
    assert_eq!(alone.allocate(&owner, Anonymous).unwrap_err(), FrameError::Exhausted);
    assert_eq!(alone.allocate_shared(&owner, Table), Err(FrameError::Exhausted));
    for frame in all {
        alone.release(frame).unwrap();
    }
    drop(alone);
    assert_eq!((ledger.root().used(Resource::Frames), ledger.root().used(Resource::TableFrames)), (0, 0));
    assert_eq!(frames.available(), 64);
    frames.check_invariants();
}

#[test]
fn what_is_paid_ahead_is_bounded_and_given_back() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = Frames::new(&usable(&[(512, 2048)]), CONFIG).unwrap();
    let accounts = [0; 2].map(|_| ledger.root().child(Limits::UNLIMITED));
    let owners = [&accounts[0], &accounts[1]].map(|account| frames.add_owner(account).unwrap());
    let mut alone = frames.magazine(0).unwrap();
    let mut taken = Vec::new();
    for step in 0..1200_u64 {
        let owner = usize::from(step % 100 > 60);
        taken.push(alone.allocate(&owners[owner], Anonymous).unwrap());
        let used = accounts[0].used(Resource::Frames) + accounts[1].used(Resource::Frames);
        let count = taken.len() as u64;
        assert!((count..=count + 512).contains(&used), "{used} for {count}");
    }
    while let Some(frame) = taken.pop() {
        alone.release(frame).unwrap();
        let used = accounts[0].used(Resource::Frames) + accounts[1].used(Resource::Frames);
        let count = taken.len() as u64;
        assert!((count..=count + 512).contains(&used), "{used} for {count}");
    }
    drop(alone);
    assert_eq!(ledger.root().used(Resource::Frames), 0);
    frames.check_invariants();
}

#[test]
fn close_to_a_limit_nothing_is_paid_ahead() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Resource::Frames, 10));
    let frames = frames();
    let owners = [0; 2].map(|_| frames.add_owner(&ledger.root().child(Limits::UNLIMITED)).unwrap());
    let mut alone = [0, 1].map(|processor| frames.magazine(processor).unwrap());
    let mut taken = Vec::new();
    for step in 0..10 {
        taken.push(alone[step % 2].allocate(&owners[step % 2], Anonymous).unwrap());
        assert_eq!(ledger.root().used(Resource::Frames), taken.len() as u64);
    }
    for alone in &mut alone {
        assert!(matches!(alone.allocate(&owners[0], Anonymous), Err(FrameError::OverLimit(_))));
    }
    while let Some(frame) = taken.pop() {
        alone[taken.len() % 2].release(frame).unwrap();
        assert_eq!(ledger.root().used(Resource::Frames), taken.len() as u64);
    }
    drop(alone);
    assert_eq!((ledger.root().used(Resource::Frames), frames.available()), (0, 64));
    frames.check_invariants();
}

#[test]
fn what_is_kept_goes_back_when_a_limit_comes_close() {
    // The second time more than enough has been kept, and given back, before.
    for (most, released_before) in [(300, 0), (1000, 500)] {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Resource::Frames, 4096));
        let frames = Frames::new(&usable(&[(512, 2048)]), CONFIG).unwrap();
        let owner = frames.add_owner(ledger.root()).unwrap();
        let mut alone = frames.magazine(0).unwrap();
        let mut taken: Vec<_> = (0..most).map(|_| alone.allocate(&owner, Anonymous).unwrap()).collect();
        for frame in taken.drain(..released_before) {
            alone.release(frame).unwrap();
        }
        let paid = ledger.root().used(Resource::Frames);
        let others = ledger.root().charge(Resource::Frames, 4096 - paid - 100).unwrap();
        let used = || ledger.root().used(Resource::Frames) - others.amount();
        let mut kept_most = 0;
        while let Some(frame) = taken.pop() {
            alone.release(frame).unwrap();
            let kept = used() - taken.len() as u64;
            assert!(used() == paid || kept == 0, "{kept} are kept");
            kept_most = kept_most.max(kept);
        }
        assert!((1..=384).contains(&kept_most), "{kept_most} after {paid} were paid");
        assert_eq!(used(), 0, "the last ones are not kept");
        drop(alone);
        assert_eq!(frames.available(), frames.total());
        frames.check_invariants();
    }
}

/// The number of a frame, of its owner and its use are told apart up to the last bit.
#[test]
fn the_last_frame_that_can_be_is_held_like_any_other() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = Frames::new(&usable(&[(FrameNumber::END - 1024, FrameNumber::END)]), CONFIG).unwrap();
    let owners: Vec<_> = (0..70).map(|_| frames.add_owner(ledger.root()).unwrap()).collect();
    let mut alone = frames.magazine(0).unwrap();
    for (at, owner) in owners.iter().enumerate() {
        let used_as = [Anonymous, Object, Table][at % 3];
        let held = alone.allocate(owner, used_as).unwrap();
        assert_eq!((held.used_as(), held.number().get() >= FrameNumber::END - 1024), (used_as, true));
        let run = alone.hold_large(owner, used_as).unwrap();
        assert!(run.run().first().get() >= FrameNumber::END - 1024);
        let count = |resource| ledger.root().used(resource) / 512;
        assert_eq!(count(used_as.resource()), 1);
        drop((held, run));
        assert_eq!((count(Resource::Frames), count(Resource::TableFrames)), (0, 0));
    }
    let tag = Tag::new(Tag::OWNERS_MAX - 1, Table);
    assert_eq!((tag.owner(), tag.used_as(), State::shared(tag).tag() == tag), (Tag::OWNERS_MAX - 1, Some(Table), true));
    drop(alone);
    assert_eq!(frames.available(), 1024);
    frames.check_invariants();
}

/// A magazine has used up what it paid ahead for an owner that is gone; another has the number of that owner by now.
#[test]
fn the_next_owner_of_a_number_is_not_taken_for_the_last() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = Frames::new(&usable(&[(512, 2560)]), CONFIG).unwrap();
    let accounts = [0; 2].map(|_| ledger.root().child(Limits::UNLIMITED));
    let mut alone = frames.magazine(0).unwrap();
    let first = frames.add_owner(&accounts[0]).unwrap();
    let large = alone.hold_large(&first, Anonymous).unwrap();
    alone.release_run(large).unwrap();
    let large = alone.hold_large(&first, Anonymous).unwrap();
    let mut held = Vec::new();
    while accounts[0].used(Resource::Frames) != 512 + held.len() as u64 || held.is_empty() {
        held.push(alone.allocate(&first, Anonymous).unwrap());
    }
    drop((first, held, large));
    assert_eq!((frames.owners().count(), accounts[0].used(Resource::Frames)), (0, 0));
    let second = frames.add_owner(&accounts[1]).unwrap();
    let frame = frames.allocate(1, &second, Anonymous).unwrap();
    let large = frames.hold_run(PageCount::new(512), PageCount::new(512), &second, Anonymous).unwrap();
    assert_eq!(alone.release_shared(frame), Ok(Released::Last));
    alone.release_run(large).unwrap();
    drop(alone);
    assert_eq!([0, 1].map(|at: usize| accounts[at].used(Resource::Frames)), [0, 0]);
    drop(second);
    assert_eq!(frames.owners().count(), 0);
    frames.check_invariants();
}
