//! The bounded memory against a map that is not bounded.

use std::collections::BTreeMap;

use crate::machine::cache::Cache;
use crate::machine::numbers::Numbers;
use crate::page_table::Level;

const LEVELS: [Level; 4] = [Level::One, Level::Two, Level::Three, Level::Four];

#[test]
fn it_finds_what_was_put_in_and_not_taken_out_or_nothing() {
    for (seed, capacity) in (0..).zip([0, 1, 2, 3, 4, 5, 16, 64]) {
        let (mut cache, mut model, mut numbers) = (Cache::new(capacity), BTreeMap::new(), Numbers::new(seed));
        let mut found = 0;
        for step in 0..5000 {
            // Few pages, spread over a few spans of each level.
            let mut page =
                || numbers.below(3) << 27 | numbers.below(3) << 18 | numbers.below(3) << 9 | numbers.below(6);
            let (page, other) = (page(), page());
            let level = numbers.pick(&LEVELS);
            let (first, last) = (page.min(other), page.max(other));
            match numbers.below(40) {
                0..20 => {
                    cache.insert(level, page, step);
                    model.insert((level, page >> level.page_shift()), step);
                }
                20 => {
                    let last = if numbers.below(2) == 0 { first } else { last };
                    cache.remove(first, last, |value| value % 2 == 0);
                    model.retain(|(level, number), value| {
                        let shift = level.page_shift();
                        !(first >> shift..=last >> shift).contains(number) || *value % 2 != 0
                    });
                }
                21 => {
                    cache.retain(|value| value % 3 != 0);
                    model.retain(|_, value| *value % 3 != 0);
                }
                _ => {
                    let value = cache.find(level, page);
                    let expected = model.get(&(level, page >> level.page_shift()));
                    assert!(value.is_none() || value == expected, "{value:?} and not {expected:?}");
                    found += u64::from(value.is_some());
                }
            }
            assert!(cache.iter().count() <= capacity);
            for (level, page, value) in cache.iter() {
                assert_eq!(model.get(&(level, page >> level.page_shift())), Some(value));
            }
        }
        assert_eq!(found > 20, capacity > 0, "{found} found with {capacity}");
    }
}

#[test]
fn nothing_stays_for_ever_in_a_set_that_is_full() {
    let mut cache = Cache::new(4);
    (0..100).for_each(|page| cache.insert(Level::One, page, page));
    assert_eq!(cache.iter().count(), 4);
    assert!(cache.iter().all(|(_, page, _)| page > 50));
}
