//! An agent that changes a record at every step between two states, both of them valid.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Lab, frame, frames};
use crate::machine::other_world::OtherSide;
use crate::phys::{Claim, PhysConstPtr};

/// What the other world says is in a buffer of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Record {
    len: u32,
    checksum: u32,
    payload: [u8; 8],
}

impl Record {
    fn new(len: u8, byte: u8) -> Self {
        let mut payload = [0; 8];
        payload[..usize::from(len)].fill(byte);
        let mut record = Self { len: len.into(), checksum: 0, payload };
        record.checksum = record.sum();
        record
    }

    fn sum(&self) -> u32 {
        self.payload.iter().fold(self.len, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()))
    }

    fn is_valid(&self) -> bool {
        self.len <= 8 && self.checksum == self.sum()
    }
}

/// A record that is the one or the other, and another at each step, `turns` times.
fn flipping(turns: u64) -> (Lab, [Record; 2]) {
    let lab = Lab::new();
    let records = [Record::new(2, 0x11), Record::new(8, 0x77)];
    let at = frame(0).start();
    lab.poke(at, records[0].as_bytes());
    let mut turn = 0;
    lab.other.set_agent(move |side: &OtherSide<'_>| {
        turn += 1;
        if turn <= turns {
            side.store(at, records[usize::from(turn % 2 == 1)].as_bytes()).unwrap();
        }
    });
    (lab, records)
}

fn words(record: &Record) -> [u64; 2] {
    [0, 8].map(|at| u64::from_le_bytes(record.as_bytes()[at..at + 8].try_into().unwrap()))
}

#[test]
fn a_word_is_never_torn() {
    let (lab, records) = flipping(u64::MAX);
    let [one, two] = records.map(|record| words(&record));
    let pointer = PhysConstPtr::<u64, _>::new(&*lab.manager, &frames(&[0]), 0, 2).unwrap();
    let mut seen = [0; 4];
    for round in 0..100 {
        let (index, word) = (round / 3 % 2, pointer.read_at(round / 3 % 2).unwrap());
        assert!([one[index], two[index]].contains(&word), "{word:#x}");
        seen[2 * index + usize::from(word == one[index])] += 1;
    }
    assert!(seen.iter().all(|times| *times > 5), "{seen:?}");
    let halves = PhysConstPtr::<u32, _>::new(&*lab.manager, &frames(&[0]), 0, 4).unwrap();
    for round in 0..100 {
        assert!(records.map(|record| record.len).contains(&halves.read_at(0).unwrap()), "{round}");
    }
    lab.other.dismiss_agent();
}

#[test]
fn a_copy_is_a_mixture_of_words_and_its_check_finds_that() {
    let (lab, records) = flipping(u64::MAX);
    let pointer = PhysConstPtr::<Record, _>::new(&*lab.manager, &frames(&[0]), 0, 1).unwrap();
    let (first, second) = (pointer.read_at(0).unwrap(), pointer.read_at(0).unwrap());
    for mixture in [first, second] {
        let [low, high] = words(&mixture);
        assert!(records.iter().any(|record| words(record)[0] == low));
        assert!(records.iter().any(|record| words(record)[1] == high));
        assert!(!mixture.is_valid(), "each word is of another record: {mixture:?}");
    }
    lab.other.dismiss_agent();
}

#[test]
fn what_was_checked_is_what_is_used() {
    // Until the agent is tired, no copy is whole; whoever takes one that is must find it unchanged however much later.
    for turns in [1, 2, 3, 4, 101, 202] {
        let (lab, records) = flipping(turns);
        let mut pointer = PhysConstPtr::<Record, _>::new(&*lab.manager, &frames(&[0]), 0, 1).unwrap();
        pointer.map(Claim::Beside).unwrap();
        let copy = loop {
            let copy = pointer.read_at(0).unwrap();
            if copy.is_valid() {
                break copy;
            }
        };
        assert!(records.contains(&copy));
        lab.poke(frame(0).start(), &[0xff; 16]);
        assert!(pointer.read_at(0).unwrap().len > 8, "it has changed there");
        assert!(copy.is_valid() && records.contains(&copy), "and not here");
        let used = &copy.payload[..copy.len as usize];
        assert!(used.iter().all(|byte| *byte == used[0]));
        drop(pointer);
    }
}

#[test]
fn who_fetches_twice_checks_one_record_and_uses_another() {
    let (lab, records) = flipping(u64::MAX);
    let at = PhysConstPtr::<u32, _>::new(&*lab.manager, &frames(&[0]), 0, 4).unwrap();
    let mut betrayed = 0;
    for _ in 0..10 {
        let checked = at.read_at(0).unwrap();
        assert!(checked <= 8);
        let used = at.read_at(0).unwrap();
        assert!(records.iter().any(|record| record.len == used));
        betrayed += u32::from(checked == 2 && used == 8);
        // An odd number of steps, so that the next round begins with the other record.
        at.read_at(1).unwrap();
    }
    assert_eq!(betrayed, 5, "a buffer of two bytes would be overrun");
    lab.other.dismiss_agent();
}
