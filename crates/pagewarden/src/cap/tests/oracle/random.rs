//! Random steps of several processes.

use alloc::collections::BTreeMap;
use alloc::format;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::{ProptestConfig, any, prop};
use proptest::{prop_assert, proptest};

use super::steps::{Seed, decode, fixed_seeds};
use super::{Given, Scope, World};
use crate::cap::Rights;

/// Spaces of 28 pages, with the fixed ones in the lower of two tables.
const SCOPE: Scope = Scope { pages: 28, fixed: [5, 12], frames: 768 };
const BOUND: Rights = Rights::MAP.union(Rights::TRANSFER);

pub(super) fn world() -> World {
    let mut world = World::new(SCOPE);
    world.add_process(&[Given::Frames(Rights::TRANSFER), Given::Space(BOUND)]);
    world.add_process(&[Given::Frames(Rights::empty())]);
    world
}

pub(super) fn seeds(count: usize) -> impl proptest::strategy::Strategy<Value = Vec<Seed>> {
    prop::collection::vec(any::<Seed>(), 1..count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// Pages are touched by the steps alone, so that most are as the calls have left them.
    #[test]
    fn processes_are_what_the_model_says(seeds in seeds(120)) {
        let mut world = world();
        for seed in &seeds {
            let step = decode(seed, &world.model);
            world.step(&step);
            world.check();
        }
        world.touch_all();
        world.check();
        prop_assert!(world.model.processes.len() >= 2);
        world.end();
    }

    /// All pages are touched after each step, so that all are present whenever something is done with them.
    #[test]
    fn pages_hold_what_the_model_says(seeds in seeds(60)) {
        let mut world = world();
        for seed in &seeds {
            let step = decode(seed, &world.model);
            world.step(&step);
            world.touch_all();
            world.check();
        }
        world.end();
    }
}

/// The model alone says whether the steps are worth taking.
#[test]
fn random_steps_are_of_all_kinds_and_come_to_both_ends() {
    let mut outcomes = BTreeMap::<String, [u64; 2]>::new();
    let start = world().model;
    for seeds in fixed_seeds(6000).chunks(100) {
        let mut model = start.clone();
        for seed in seeds {
            let step = decode(seed, &model);
            let (next, answer) = model.after(&step);
            let name = format!("{:?}", step.call);
            let kind = name.split([' ', '{']).next().unwrap().into();
            outcomes.entry(kind).or_default()[usize::from(answer.is_err())] += 1;
            model = next;
        }
    }
    assert_eq!(outcomes.len(), 30, "kinds of calls: {outcomes:?}");
    for (kind, [done, refused]) in outcomes {
        let is_always_done = matches!(kind.as_str(), "End" | "Exit" | "Limit");
        assert!(done >= 10 && (refused >= 1 || is_always_done), "{kind}: {done} done, {refused} refused");
    }
}
