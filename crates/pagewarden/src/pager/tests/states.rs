//! Copy-on-write, exhaustively: every short sequence of what can happen to a page of up to three spaces.
//!
//! What each must show is known from the sequence alone; and there are exactly as many frames as different contents, so
//! that a copy that is not needed shows as well as one that is missing.

use alloc::vec::Vec;

use super::{RW, World, mprotect, page, private};
use crate::addr::PAGE_SIZE;
use crate::frame::{FrameNumber, FrameUse};
use crate::ledger::Limits;
use crate::linux::Request;
use crate::machine::Machine;
use crate::pager::AddressSpace;

/// Steps of a sequence.
const DEPTH: usize = 4;
/// `MADV_DONTNEED`.
const DISCARD: i32 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    Fork(usize),
    End(usize),
    Discard(usize),
    /// Takes all rights away and gives them back.
    Hide(usize),
}

const STEPS: [Step; 14] = [
    Step::Load(0),
    Step::Load(1),
    Step::Store(0),
    Step::Store(1),
    Step::Store(2),
    Step::Fork(0),
    Step::Fork(1),
    Step::End(0),
    Step::End(1),
    Step::End(2),
    Step::Discard(0),
    Step::Discard(1),
    Step::Hide(0),
    Step::Hide(1),
];

/// A space, and what its page holds: nothing, or a byte and which copy of it that is.
struct Space {
    space: AddressSpace<Machine>,
    holds: Option<(u8, u32)>,
}

struct Run {
    world: World,
    spaces: [Option<Space>; 3],
    stores: u32,
}

impl Run {
    fn new() -> Self {
        let world = World::new(64);
        let space = world.space();
        space.call(&private(0, 1, RW)).unwrap();
        Self { world, spaces: [Some(Space { space, holds: None }), None, None], stores: 0 }
    }

    /// Does a step; `false` if there is nothing to do it to.
    fn step(&mut self, step: Step) -> bool {
        let (Step::Load(at) | Step::Store(at) | Step::Fork(at) | Step::End(at) | Step::Discard(at) | Step::Hide(at)) =
            step;
        let Some(Space { space, holds }) = &mut self.spaces[at] else { return false };
        match step {
            Step::Load(_) => {
                assert_eq!(self.world.load(space, page(0)), Ok(holds.map_or(0, |(byte, _)| byte)));
            }
            Step::Store(_) => {
                self.stores += 1;
                let byte = self.stores.to_le_bytes()[0];
                self.world.store(space, page(0), byte).unwrap();
                *holds = Some((byte, self.stores));
            }
            Step::Discard(_) => {
                space.call(&Request::Madvise { addr: page(0), len: PAGE_SIZE, advice: DISCARD }).unwrap();
                *holds = None;
            }
            Step::Hide(_) => {
                space.call(&mprotect(0, 1, 0)).unwrap();
                space.call(&mprotect(0, 1, RW)).unwrap();
            }
            Step::Fork(_) => {
                let child = space.fork(&self.world.ledger.root().child(Limits::UNLIMITED)).unwrap();
                let child = Space { space: child, holds: *holds };
                let Some(place) = self.spaces.iter_mut().find(|place| place.is_none()) else { return false };
                *place = Some(child);
            }
            Step::End(_) => self.spaces[at] = None,
        }
        true
    }

    fn check(&self, steps: &[Step]) {
        let mut copies: Vec<u32> = self.alive().filter_map(|space| space.holds.map(|(_, copy)| copy)).collect();
        copies.sort_unstable();
        copies.dedup();
        let frames = self.world.pager.frames();
        let anonymous = (0..frames.total()).filter_map(FrameNumber::new);
        let anonymous = anonymous.filter(|frame| frames.used_as(*frame) == Some(FrameUse::Anonymous)).count();
        assert_eq!(anonymous, copies.len() + 1, "frames, with the zero frame, after {steps:?}");
        self.alive().for_each(|space| space.space.check_invariants());
    }

    fn alive(&self) -> impl Iterator<Item = &Space> {
        self.spaces.iter().flatten()
    }

    /// All that is left shows what it must, and leaves nothing behind.
    fn end(mut self) {
        for at in 0..3 {
            self.step(Step::Load(at));
        }
        self.spaces = [None, None, None];
        self.world.check_empty();
    }
}

#[test]
fn every_short_history_of_a_page() {
    let mut steps: Vec<usize> = Vec::new();
    let mut histories = 0;
    loop {
        let history: Vec<Step> = steps.iter().map(|index| STEPS[*index]).collect();
        let mut run = Run::new();
        // A history with a step that does nothing is the one without it.
        let fits = history.iter().all(|step| run.step(*step));
        if fits {
            histories += 1;
            run.check(&history);
            run.end();
        }
        if fits && steps.len() < DEPTH {
            steps.push(0);
            continue;
        }
        while let Some(last) = steps.last_mut() {
            *last += 1;
            if *last < STEPS.len() {
                break;
            }
            steps.pop();
        }
        if steps.is_empty() {
            break;
        }
    }
    assert!(histories > 1500, "{histories} histories");
}
