//! Several threads on one manager, and a thread of the other world beside them.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::{Lab, frame, frames, run};
use crate::mmu::PhysMem;
use crate::phys::{Claim, OtherAccess, Permission};

const ROUNDS: u64 = 300;

#[test]
fn windows_of_several_threads_do_not_meet() {
    let lab = Lab::new();
    thread::scope(|scope| {
        for number in 0..3 {
            let lab = &lab;
            scope.spawn(move || {
                let list = frames(&[number, 10 + number * 2, 11 + number * 2]);
                for round in 0..ROUNDS {
                    let mapping = lab.manager.vmap(&list, Permission::ReadWrite, Claim::Reserve).unwrap();
                    let word = (number << 32 | round).to_le_bytes();
                    mapping.write(4092, &word).unwrap();
                    let mut seen = [0; 8];
                    mapping.read(4092, &mut seen).unwrap();
                    assert_eq!(seen, word, "nobody else writes there");
                    if round % 3 == 0 {
                        drop(lab.manager.protect(run(30 + number, 1), OtherAccess::None).unwrap());
                    }
                    if round % 50 == 0 {
                        lab.manager.check_invariants();
                    }
                }
            });
        }
    });
}

#[test]
fn when_a_protection_stands_no_store_of_the_other_world_is_under_way() {
    let lab = Lab::new();
    let (turns, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let byte = turns.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0];
                let _ = lab.other.act(|side| side.store(frame(7).start(), &[byte; 4096]));
                thread::yield_now();
            }
        });
        // The last byte that a store reaches; a step of ours would wait for the other world's turn.
        let last = || {
            let mut byte = [0];
            lab.world.0.machine.read(frame(7).at(4095), &mut byte);
            byte
        };
        let mut changed = 0;
        for _ in 0..4 * ROUNDS {
            let before = turns.load(Ordering::Relaxed);
            while turns.load(Ordering::Relaxed) < before + 2 {
                thread::yield_now();
            }
            let protection = lab.manager.protect(run(7, 1), OtherAccess::Read).unwrap();
            let first = last();
            changed += (0..100).filter(|_| last() != first).count();
            drop(protection);
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(changed, 0);
    });
}
