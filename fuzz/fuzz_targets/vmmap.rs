//! The map of regions against the page array, with steps from the fuzzer's bytes.
//!
//! The first byte says what space to start with; each twelve bytes after it are a step. An input that fails is a
//! failing case of the crate's property test too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagewarden::PageCount;
use pagewarden::model::{Step, World};

fuzz_target!(|input: &[u8]| {
    let Some((&space, steps)) = input.split_first() else { return };
    let guard = PageCount::new(u64::from(space % 6));
    let world = |size| World::new(guard, PageCount::new(size));
    let (steps, _) = steps.as_chunks::<{ Step::BYTES }>();
    let steps = steps.iter().copied();
    match space / 6 % 4 {
        0 | 1 => world(48).run(steps.map(Step::decode)),
        2 => world(1600).filled(1 + usize::from(space / 24 % 2)).run(steps.take(40).map(Step::decode)),
        _ => world(2400).run(steps.take(12).map(Step::decode_sweep)),
    }
});
