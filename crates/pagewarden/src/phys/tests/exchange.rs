//! Words that are exchanged in one step, while the other world changes them too.

use alloc::sync::Arc;
use std::thread;

use super::{Lab, frame, frames};
use crate::machine::other_world::OtherSide;
use crate::phys::{Claim, Word};

#[test]
fn a_word_is_replaced_only_if_it_is_what_was_expected() {
    let lab = Lab::new();
    let at = frame(0).at(16);
    lab.poke(at, &0x1111_2222_3333_4444_u64.to_le_bytes());
    let mut word = lab.ptr::<u64>(&frames(&[0]), 16, 1);
    assert_eq!(word.compare_exchange_at(0, 5, 6), Ok(0x1111_2222_3333_4444));
    assert_eq!(word.compare_exchange_at(0, 0x1111_2222_3333_4444, 0xaaaa_bbbb_cccc_dddd), Ok(0x1111_2222_3333_4444));
    assert_eq!(lab.peek(at, 8), 0xaaaa_bbbb_cccc_dddd_u64.to_le_bytes());
    word.map(Claim::Reserve).unwrap();
    assert_eq!(word.compare_exchange_at(0, 0xaaaa_bbbb_cccc_dddd, 1), Ok(0xaaaa_bbbb_cccc_dddd));
    assert_eq!(word.read_at(0), Ok(1));
    drop(word);

    lab.poke(at, &0x1111_2222_3333_4444_u64.to_le_bytes());
    let halves = lab.ptr::<u32>(&frames(&[0]), 16, 2);
    assert_eq!(halves.compare_exchange_at(0, 0x1111_2222, 7), Ok(0x3333_4444), "the low half comes first");
    assert_eq!(halves.compare_exchange_at(0, 0x3333_4444, u32::MAX), Ok(0x3333_4444));
    assert_eq!(lab.peek(at, 8), 0x1111_2222_ffff_ffff_u64.to_le_bytes());
    assert_eq!(halves.compare_exchange_at(1, 0x1111_2222, 0), Ok(0x1111_2222));
    assert_eq!(lab.peek(at, 8), 0x0000_0000_ffff_ffff_u64.to_le_bytes());
}

/// Counts up by an exchange that is tried until it succeeds.
fn count_up<W: Word>(mut exchange: impl FnMut(W, W) -> W) {
    let mut seen = W::from_low_bits(0);
    loop {
        let next = W::from_low_bits(seen.into() + 1);
        let found = exchange(seen, next);
        if found == seen {
            return;
        }
        seen = found;
    }
}

#[test]
fn no_count_of_either_world_is_lost() {
    let lab = Lab::new();
    let at = frame(3).at(64);
    lab.poke(at, &[0; 8]);
    let mut turns = 0_u64;
    // In the end it leaves the word alone: as long as it does not, we may come too late each time.
    lab.other.set_agent(move |side: &OtherSide<'_>| {
        turns += 1;
        if !turns.is_multiple_of(3) && turns < 2000 {
            count_up(|seen, next| match side.compare_exchange(at, seen, next).unwrap() {
                Ok(()) => seen,
                Err(found) => found,
            });
        }
    });
    let word = lab.ptr::<u64>(&frames(&[3]), 64, 1);
    for _ in 0..700 {
        count_up(|seen, next| word.compare_exchange_at(0, seen, next).unwrap());
    }
    let steps = lab.other.steps();
    lab.other.dismiss_agent();
    assert!(steps > 1000, "some exchanges came too late");
    let agent = (1..=steps).filter(|turn| !turn.is_multiple_of(3) && *turn < 2000).count() as u64;
    assert_eq!(word.read_at(0), Ok(700 + agent));
}

#[test]
fn the_two_halves_of_a_word_are_exchanged_beside_each_other() {
    const COUNT: u32 = 20_000;
    let lab = Lab::new();
    lab.poke(frame(3).start(), &[0; 8]);
    // Whoever counts has one of it.
    let counting = Arc::new(());
    let others = thread::scope(|scope| {
        for half in 0..2 {
            let (lab, counting) = (&lab, Arc::clone(&counting));
            scope.spawn(move || {
                let mut words = lab.ptr::<u32>(&frames(&[3]), 0, 2);
                words.map(Claim::Beside).unwrap();
                for _ in 0..COUNT {
                    count_up(|seen, next| words.compare_exchange_at(half, seen, next).unwrap());
                }
                drop(counting);
            });
        }
        // The whole word, by the other world, as long as one of us is at it.
        let other = scope.spawn(|| {
            let mut counted = 0;
            while Arc::strong_count(&counting) > 1 {
                count_up(|seen, next| {
                    match lab.other.act(|side| side.compare_exchange(frame(3).start(), seen, next)).unwrap() {
                        Ok(()) => seen,
                        Err(found) => found,
                    }
                });
                counted += 1;
            }
            counted
        });
        other.join().unwrap()
    });
    let halves = lab.ptr::<u32>(&frames(&[3]), 0, 2);
    assert_eq!((halves.read_at(0), halves.read_at(1)), (Ok(COUNT + others), Ok(COUNT)));
}
