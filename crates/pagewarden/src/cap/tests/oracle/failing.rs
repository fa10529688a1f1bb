//! Every frame that a step takes is missing once. What is there then is what was there before, or, of the few calls that
//! say so, what a part of the call has left: and the step can be tried again.

use std::vec;
use std::vec::Vec;

use proptest::prelude::ProptestConfig;
use proptest::proptest;

use super::World;
use super::random::{seeds, world};
use super::steps::{decode, fixed_seeds};
use super::world::compare;
use crate::error::Errno;
use crate::model::capability::{Access, Call, Denial, Model, Page, Run, Step};

impl World {
    /// Does a step, again and again while there is a frame more that it can be refused. How often it was.
    fn step_without_frames(&mut self, step: &Step) -> usize {
        let mut failures = 0;
        for missing in 0.. {
            let (next, expected) = self.model.after(step);
            // One that is missing alone would be asked for again.
            self.real.frame_taken.fail_since(missing);
            let answer = self.perform(step);
            let has_failed = self.real.frame_taken.disarm() > 0;
            match answer {
                Err(denial) if has_failed => {
                    let is_told = matches!(denial, Denial::Errno(Errno::NoMem) | Denial::NoFrame);
                    let is_told = is_told || expected.is_err_and(|reasons| reasons.contains(&denial));
                    assert!(is_told, "{step:?}: {denial:?} for want of a frame");
                    self.settle(step);
                    failures += 1;
                }
                answer => {
                    // A frame that it could do without changes nothing.
                    compare(step, &expected, answer);
                    self.model = next;
                    self.check();
                    break;
                }
            }
        }
        failures
    }

    /// Finds out what a step has left for which there was no frame.
    fn settle(&mut self, step: &Step) {
        let mut differences = Vec::new();
        for model in left_by(step, &self.model) {
            let seen = self.difference(&model);
            match seen.or_else(|| self.touched_difference(&model)) {
                None => {
                    self.model = model;
                    return self.check();
                }
                Some(difference) => differences.push(difference),
            }
        }
        panic!("{step:?} without a frame: {differences:#?}");
    }
}

/// What a step may leave for which there is no frame.
fn left_by(step: &Step, model: &Model) -> Vec<Model> {
    let by = step.by;
    let after = |call| model.after(&Step { by, call }).0;
    match step.call {
        Call::Moved { range, to } => model.after_failed_move(by, range, to),
        // What is discarded cannot be brought back, and bytes that are written are.
        Call::Discard { range } => {
            let parts = (1..range.count).map(|count| after(Call::Discard { range: Run { count, ..range } }));
            core::iter::once(model.clone()).chain(parts).collect()
        }
        Call::Write { memory, part, byte } => {
            let parts = (1..part.count).map(|count| after(Call::Write { memory, part: Run { count, ..part }, byte }));
            core::iter::once(model.clone()).chain(parts).collect()
        }
        // A page of an object may have got its own frame when there is none for a table.
        Call::Touch { page, access } if matches!(model.page(by, page), Page::Borrowed { .. }) => {
            let kept = match (access, model.may_touch(by, page, Access::Load)) {
                (Access::Store(_), Ok(byte)) => Access::Store(byte),
                _ => Access::Load,
            };
            let touched = [Access::Load, kept].map(|access| after(Call::Touch { page, access }));
            core::iter::once(model.clone()).chain(touched).collect()
        }
        _ => vec![model.clone()],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_that_is_missing_leaves_no_trace(seeds in seeds(80)) {
        let mut world = world();
        for seed in &seeds {
            let step = decode(seed, &world.model);
            world.step_without_frames(&step);
        }
        world.touch_all();
        world.check();
        world.end();
    }
}

#[test]
fn steps_take_frames_that_can_be_missing() {
    let mut failures = 0;
    for seeds in fixed_seeds(800).chunks(80) {
        let mut world = world();
        for seed in seeds {
            let step = decode(seed, &world.model);
            failures += world.step_without_frames(&step);
        }
        world.end();
    }
    assert!(failures > 150, "{failures} calls were refused for want of a frame");
}
