//! Physical memory by bytes, words and frames.

use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use super::{HERE, beside, frame};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::machine::numbers::Numbers;
use crate::machine::{Machine, MachineConfig, POISON};
use crate::mmu::PhysMem;

fn machine() -> Machine {
    Machine::new(MachineConfig { frames: 4, ..MachineConfig::default() })
}

#[test]
fn bytes_at_any_offset_are_those_that_were_written() {
    let machine = machine();
    let mut model = vec![POISON; 4096];
    let mut numbers = Numbers::new(5);
    for _ in 0..500 {
        let start = numbers.index(4097);
        let longest = if numbers.below(4) == 0 { 4096 } else { 20 };
        let len = numbers.index(longest.min(4096 - start) + 1);
        let value = numbers.draw().to_le_bytes();
        let bytes: vec::Vec<u8> = (0..len).map(|index| value[index % 8] ^ u8::try_from(index % 251).unwrap()).collect();
        // An empty write at the very end of the frame is at the start of the next.
        machine.write(frame(1).start().checked_add(start as u64).unwrap(), &bytes);
        model[start..start + len].copy_from_slice(&bytes);
        let mut all = vec![0; 4096];
        machine.read(frame(1).start(), &mut all);
        assert!(all == model, "after {len} bytes at {start}");
        let (start, len) = (start.min(4090), len.min(6));
        let mut some = vec![0; len];
        machine.read(frame(1).at(start as u64), &mut some);
        assert_eq!(some, model[start..start + len]);
    }
    assert!(machine.is_poisoned(frame(0)) && machine.is_poisoned(frame(2)));
    machine.copy(frame(1), frame(2));
    let mut all = vec![0; 4096];
    machine.read(frame(2).start(), &mut all);
    assert!(all == model);
    machine.zero(frame(1));
    machine.read(frame(1).start(), &mut all);
    assert_eq!(all, vec![0; 4096]);
    assert!(machine.is_poisoned(frame(0)) && machine.is_poisoned(frame(3)));
}

#[test]
fn words_are_little_endian_and_exchanged_only_if_they_are_as_expected() {
    let machine = &machine() as &dyn PhysMem;
    let place = frame(3).at(4088);
    machine.write(place, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(machine.load(place), 0x0807_0605_0403_0201);
    assert_eq!(machine.compare_exchange(place, 1, 2), Err(0x0807_0605_0403_0201));
    assert_eq!(machine.compare_exchange(place, 0x0807_0605_0403_0201, 2), Ok(()));
    assert_eq!(machine.load(place), 2);
    machine.store(place, u64::MAX);
    assert_eq!(machine.load(place), u64::MAX);
}

#[test]
fn writers_of_bytes_in_one_word_do_not_disturb_each_other() {
    let machine = machine();
    let write = |offset, round: u64| {
        let (place, byte) = (frame(0).at(offset), round.to_le_bytes()[0]);
        machine.write(place, &[byte]);
        let mut found = [0];
        machine.read(place, &mut found);
        assert_eq!(found, [byte]);
    };
    let rounds = AtomicU64::new(0);
    let one = || write(1, rounds.fetch_add(1, Ordering::Relaxed));
    beside(one, |round| {
        write(6, !round);
        round > 100_000
    });
}

#[test]
#[should_panic(expected = "phys 0x4000 is outside of the 4 frames")]
fn a_word_outside_of_memory() {
    PhysMem::load(&machine(), PhysAddr::new(4 * PAGE_SIZE).unwrap());
}

#[test]
#[should_panic(expected = "0x123456789004 is inside a word")]
fn a_word_for_a_guest_that_is_not_aligned() {
    let _ = machine().compare_exchange(0, VirtAddr::new(HERE.as_u64() + 4), 1, 2);
}

#[test]
#[should_panic(expected = "too much memory")]
fn more_memory_than_processors_can_address() {
    Machine::new(MachineConfig { frames: u64::MAX, ..MachineConfig::default() });
}

#[test]
#[should_panic(expected = "is outside of the 4 frames")]
fn a_frame_outside_of_memory() {
    machine().copy(frame(0), frame(4));
}

#[test]
#[should_panic(expected = "is inside a word")]
fn a_word_that_is_not_aligned() {
    PhysMem::store(&machine(), frame(0).at(4), 1);
}

#[test]
#[should_panic(expected = "2 bytes at phys 0x1fff leave their frame")]
fn bytes_that_leave_their_frame() {
    machine().read(frame(1).at(4095), &mut [0; 2]);
}
