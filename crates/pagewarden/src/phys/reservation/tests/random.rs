//! Random requests, compared with a list that is searched from end to end.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::super::range_set::RangeSet;
use super::super::tree::Tree;
use super::{go_together, range, registry};
use crate::phys::{Mode, PhysError, PhysRange};

#[derive(Clone, Debug)]
enum Step {
    Take(Vec<PhysRange>, Mode),
    /// One of those that are there, counted round.
    Release(usize),
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => proptest::strategy::Just(Mode::Shared), 2 => proptest::strategy::Just(Mode::Exclusive)]
}

/// A range in `places` bytes.
fn ranges(places: u64, longest: u64) -> impl Strategy<Value = PhysRange> {
    (0..places, 1..=longest).prop_map(|(start, bytes)| range(start, start + bytes))
}

fn steps(places: u64, longest: u64, count: usize) -> impl Strategy<Value = Vec<Step>> {
    let request = prop_oneof![
        4 => vec(ranges(places, longest), 1..2),
        1 => vec(ranges(places, longest), 1..5),
    ];
    let step = prop_oneof![
        3 => (request, mode()).prop_map(|(ranges, mode)| Step::Take(ranges, mode)),
        1 => any::<usize>().prop_map(Step::Release),
    ];
    vec(step, 1..count)
}

fn share(ranges: &[PhysRange], other: PhysRange) -> bool {
    ranges.iter().any(|range| range.intersects(other))
}

fn run(steps: Vec<Step>) -> Result<(), proptest::test_runner::TestCaseError> {
    let registry = registry();
    let mut guards = Vec::new();
    for step in steps {
        let (wanted, mode) = match step {
            Step::Take(wanted, mode) => (wanted, mode),
            Step::Release(which) => {
                if !guards.is_empty() {
                    drop(guards.swap_remove(which % guards.len()));
                }
                registry.check_invariants();
                continue;
            }
        };
        let live = || {
            let ranges = |guard: &super::super::Reservation<'_, _>| {
                let mode = guard.mode();
                guard.ranges().iter().map(move |range| (*range, mode)).collect::<Vec<_>>()
            };
            guards.iter().flat_map(ranges)
        };
        let named_twice = (1..wanted.len()).any(|second| share(&wanted[..second], wanted[second]));
        let mut in_the_way = live().filter(|(held, other)| share(&wanted, *held) && !go_together(*other, mode));
        let outcome = registry.try_reserve(&wanted, mode);
        match &outcome {
            Ok(guard) => {
                prop_assert!(!named_twice && in_the_way.next().is_none());
                prop_assert_eq!(guard.ranges().len(), wanted.len());
            }
            Err(PhysError::Reserved(other)) => {
                prop_assert!(!named_twice && in_the_way.any(|(held, _)| held == *other), "{} is not in the way", other);
            }
            Err(refusal) => prop_assert!(named_twice && matches!(refusal, PhysError::DuplicatePage(_)), "{}", refusal),
        }
        drop(in_the_way);
        guards.extend(outcome.ok());
        registry.check_invariants();
        prop_assert_eq!(registry.len(), guards.iter().map(|guard| guard.ranges().len()).sum::<usize>());
    }
    drop(guards);
    registry.check_invariants();
    prop_assert!(registry.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn requests_that_overlap_a_lot(steps in steps(40, 20, 200)) {
        run(steps)?;
    }

    #[test]
    fn requests_far_and_near(steps in steps(3000, 12, 600)) {
        run(steps)?;
    }

    #[test]
    fn a_tree_is_a_list_of_ranges(
        added in vec(prop_oneof![ranges(40, 40), ranges(2000, 20), ranges(2000, 2000)], 1..900),
        probes in vec((ranges(2000, 9), any::<usize>()), 900),
    ) {
        let (mut tree, mut list) = (Tree::new(), BTreeMap::<PhysRange, u32>::new());
        for (added, (probe, which)) in added.into_iter().zip(probes) {
            tree.insert(added).unwrap();
            *list.entry(added).or_default() += 1;
            let found = tree.overlapping(probe);
            prop_assert_eq!(found.is_some(), list.keys().any(|range| range.intersects(probe)));
            prop_assert!(found.is_none_or(|found| found.intersects(probe) && list.contains_key(&found)));
            if which % 3 == 0 {
                let removed = *list.keys().nth(which % list.len()).unwrap();
                prop_assert!(tree.remove(removed));
                let left = list[&removed] - 1;
                if left == 0 { list.remove(&removed) } else { list.insert(removed, left) };
            }
            prop_assert_eq!(tree.remove(probe), list.get(&probe).is_some_and(|count| *count > 0));
            if let Some(count) = list.get(&probe).copied() {
                if count == 1 { list.remove(&probe) } else { list.insert(probe, count - 1) };
            }
            prop_assert!(tree.check_invariants().into_iter().eq(list.iter().map(|(range, count)| (*range, *count))));
        }
    }

    #[test]
    fn ranges_of_a_set_are_apart(added in vec((ranges(4000, 6), any::<usize>()), 1..900)) {
        let (mut set, mut list) = (RangeSet::new(), Vec::<PhysRange>::new());
        for (added, which) in added {
            match set.insert(added) {
                Ok(()) => {
                    prop_assert!(!share(&list, added));
                    list.push(added);
                }
                Err(PhysError::Reserved(other)) => prop_assert!(list.contains(&other) && other.intersects(added)),
                Err(refusal) => prop_assert!(false, "{}", refusal),
            }
            if which % 4 == 0 && !list.is_empty() {
                let removed = list.swap_remove(which % list.len());
                prop_assert!(set.remove(removed) && !set.remove(removed));
            }
            prop_assert_eq!(set.check_invariants().len(), list.len());
            prop_assert_eq!(set.len(), list.len());
        }
    }
}
