//! Copies from one place of the other world to another, and copies that end early.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Lab, frame, frames};
use crate::addr::PAGE_LEN;
use crate::machine::other_world::OtherSide;
use crate::phys::{Claim, CopyFault, PhysConstPtr, PhysError};

const FROM: [u64; 3] = [20, 24, 21];
const TO: [u64; 3] = [33, 31, 30];

/// What both ends hold before, and what the target must hold after so many bytes were copied.
fn filled(lab: &Lab, (to, from): (usize, usize), len: usize) -> (Vec<u8>, Vec<u8>) {
    let source = lab.fill(&frames(&FROM));
    let mut target = lab.fill(&frames(&TO));
    target[to..to + len].copy_from_slice(&source[from..from + len]);
    (source, target)
}

#[test]
fn bytes_come_from_one_scattered_span_to_another_at_any_offset() {
    let lab = Lab::new();
    for (to, from) in [(0, 0), (0, 1), (7, 3), (4095, 1), (1, 4095), (4000, 4090)] {
        for len in [0, 1, 8, 512, 1023, 1024, 1025, 4096, 5000, 8191] {
            for is_cached in [false, true] {
                let (source, target) = filled(&lab, (to, from), len);
                let mut reader = PhysConstPtr::<u8, _>::new(&*lab.manager, &frames(&FROM), from as u64, len).unwrap();
                let mut writer = lab.ptr::<u8>(&frames(&TO), to as u64, len);
                if is_cached {
                    writer.map(Claim::Reserve).unwrap();
                    reader.map(Claim::Reserve).unwrap();
                }
                writer.copy_from(0, &reader, 0, len).unwrap();
                assert!(lab.peek_frames(&frames(&TO)) == target, "{len} from {from} to {to}");
                assert!(lab.peek_frames(&frames(&FROM)) == source);
            }
        }
    }
}

#[test]
fn indices_count_values_of_both_pointers() {
    let lab = Lab::new();
    let (source, target) = filled(&lab, (3 + 8 * 100, 5 + 8 * 200), 8 * 300);
    // The ends need not keep their manager in the same way.
    let reader = PhysConstPtr::<u64, _>::new(Arc::clone(&lab.manager), &frames(&FROM), 5, 1000).unwrap();
    lab.ptr::<u64>(&frames(&TO), 3, 1000).copy_from(100, &reader, 200, 300).unwrap();
    assert!(lab.peek_frames(&frames(&TO)) == target);
    assert!(lab.peek_frames(&frames(&FROM)) == source);
    drop(reader);
}

#[test]
fn memory_that_is_both_source_and_target_is_moved_down_or_stays() {
    let lab = Lab::new();
    let list = frames(&FROM);
    let pointer = lab.ptr::<u8>(&list, 0, 3 * PAGE_LEN);
    for (to, from, len) in [(0, 1, 9000), (100, 900, 8000), (5, 5, 9000), (0, 4096, 8192), (1, 5000, 7000)] {
        let mut expected = lab.fill(&list);
        expected.copy_within(from..from + len, to);
        pointer.copy_from(to, &pointer, from, len).unwrap();
        assert!(lab.peek_frames(&list) == expected, "{len} from {from} to {to}");
    }
    // Upwards a byte may be copied more than once; nothing comes from elsewhere, and nothing else is touched.
    let before = lab.fill(&list);
    pointer.copy_from(700, &pointer, 600, 5000).unwrap();
    let after = lab.peek_frames(&list);
    assert!(after[..700] == before[..700] && after[5700..] == before[5700..]);
    for (index, byte) in after.iter().enumerate().take(5700).skip(700) {
        let mut sources = (1..=index / 100).map(|steps| index - 100 * steps).take_while(|at| *at >= 600);
        assert!(sources.any(|at| before[at] == *byte), "{index}");
    }
}

/// Copies all of the source with some frame gone; so many bytes must be copied, and no others.
fn stops_after(lab: &Lab, gone: u64, offsets: (usize, usize), copied: usize) {
    let (to, from) = offsets;
    let len = 3 * PAGE_LEN - to.max(from);
    let (_, target) = filled(lab, offsets, copied);
    let reader = PhysConstPtr::<u8, _>::new(&*lab.manager, &frames(&FROM), from as u64, len).unwrap();
    let writer = lab.ptr::<u8>(&frames(&TO), to as u64, len);
    lab.other.act(|side| side.take_away(frame(gone)));
    let outcome = writer.copy_from(0, &reader, 0, len);
    lab.other.act(|side| side.give_back(frame(gone)));
    assert_eq!(outcome, Err(PhysError::CopyFault(CopyFault { copied })), "{gone} with {offsets:?}");
    assert!(lab.peek_frames(&frames(&TO)) == target, "{gone} with {offsets:?}");
    lab.manager.check_invariants();
    assert_eq!((lab.manager.live(), lab.manager.retained()), (0, 0));
}

#[test]
fn a_copy_that_faults_tells_how_many_bytes_have_arrived() {
    let lab = Lab::new();
    stops_after(&lab, FROM[0], (0, 0), 0);
    stops_after(&lab, TO[0], (0, 0), 0);
    stops_after(&lab, FROM[1], (0, 0), 4096);
    stops_after(&lab, TO[1], (0, 0), 4096);
    stops_after(&lab, TO[2], (96, 7), 8096);
    stops_after(&lab, FROM[2], (7, 96), 8096);
    stops_after(&lab, FROM[1], (0, 4095), 1);
}

#[test]
fn a_read_or_write_that_faults_has_copied_what_came_before() {
    let lab = Lab::new();
    let list = frames(&FROM);
    let before = lab.fill(&list);
    lab.other.act(|side| side.take_away(frame(FROM[1])));
    let pointer = lab.ptr::<u8>(&list, 4000, 200);
    let fault = Err(PhysError::CopyFault(CopyFault { copied: 96 }));
    let mut bytes = [0; 200];
    assert_eq!(pointer.read_slice_at(0, &mut bytes), fault);
    assert_eq!((&bytes[..96], &bytes[96..]), (&before[4000..4096], &[0; 104][..]));
    assert_eq!(pointer.write_slice_at(0, &[7; 200]), fault);
    lab.other.act(|side| side.give_back(frame(FROM[1])));
    let after = lab.peek_frames(&list);
    assert!(after[4000..4096] == [7; 96] && after[4096..] == before[4096..]);
}

#[test]
fn memory_may_vanish_between_any_two_steps() {
    let lab = Lab::new();
    let list = frames(&FROM);
    let before = lab.fill(&list);
    let pointer = lab.ptr::<u8>(&list, 4001, 200);
    // 7 bytes in 3 steps, then words up to the page, on which more follow.
    let after_steps = [0, 1, 3, 7, 15, 23, 31, 39, 47, 55, 63, 71, 79, 87, 95, 103];
    for (step, copied) in after_steps.into_iter().enumerate() {
        let mut steps = 0;
        let gone = if copied < 95 { frame(FROM[0]) } else { frame(FROM[1]) };
        lab.other.set_agent(move |side: &OtherSide<'_>| {
            if steps == step {
                side.take_away(gone);
            }
            steps += 1;
        });
        let mut bytes = [0; 200];
        let outcome = pointer.read_slice_at(0, &mut bytes);
        lab.other.dismiss_agent();
        lab.other.act(|side| side.give_back(gone));
        assert_eq!(outcome, Err(PhysError::CopyFault(CopyFault { copied })), "step {step}");
        assert!(bytes[..copied] == before[4001..4001 + copied]);
    }
}
