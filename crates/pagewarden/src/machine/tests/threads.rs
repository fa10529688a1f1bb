//! Entries that change while a processor uses them, and flushes while it accesses memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{HERE, Lab, RWX, beside};
use crate::addr::{PAGE_SIZE, PageRange, PhysAddr};
use crate::machine::{Machine, MachineConfig};
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags};

/// A processor that remembers nothing, so that each access reads the entry; and where the entry of a page is.
fn forgetful() -> (Lab, PhysAddr) {
    let lab = Lab::with(MachineConfig { tlb_entries: 0, ..MachineConfig::default() });
    let root = lab.space(0);
    let place = lab.map(root, HERE, 0, RWX);
    (lab, place)
}

/// Changes an entry as nobody must lose it.
fn change(machine: &Machine, place: PhysAddr, to: impl Fn(Entry) -> Entry) {
    let is_changed = || {
        let entry = Entry::from_word(PhysMem::load(machine, place));
        PhysMem::compare_exchange(machine, place, entry.word(), to(entry).word()).is_ok()
    };
    while !is_changed() {}
}

fn wait_until(condition: impl Fn() -> bool) {
    // At first without giving the processor away: what is waited for may be over when it comes back.
    for tries in 0_u64.. {
        if condition() {
            return;
        }
        if tries > 20_000 {
            thread::yield_now();
        }
    }
}

#[test]
fn no_mark_appears_in_an_entry_that_was_taken_out() {
    let (lab, place) = forgetful();
    let (machine, entry) = (&lab.machine, lab.entry(place).word());
    let store = || {
        let _ = machine.store(0, HERE, &[1]);
    };
    beside(store, |stores| {
        PhysMem::store(machine, place, 0);
        // Only if it is still empty: what a processor has written meanwhile is seen, however late it came.
        assert_eq!(PhysMem::compare_exchange(machine, place, 0, entry), Ok(()));
        stores > 50_000
    });
}

#[test]
fn a_mark_and_a_change_of_the_same_entry_are_both_kept() {
    let (lab, place) = forgetful();
    let machine = &lab.machine;
    let soft = EntryFlags::SOFT_0 | EntryFlags::SOFT_1 | EntryFlags::SOFT_2;
    let marks = EntryFlags::ACCESSED | EntryFlags::DIRTY;
    // Counts in bits that processors ignore, and is the only one that changes them.
    let count = AtomicU64::new(0);
    let count_up = || {
        let before = count.load(Ordering::Relaxed);
        let after = (before + EntryFlags::SOFT_0.bits()) & soft.bits();
        change(machine, place, |entry| {
            assert_eq!((entry.flags() & soft).bits(), before, "a change is lost");
            Entry::from_word(entry.without(soft).word() | after)
        });
        count.store(after, Ordering::Relaxed);
    };
    beside(count_up, |changes| {
        change(machine, place, |entry| entry.without(marks));
        machine.store(0, HERE, &[1]).unwrap();
        assert!(Entry::from_word(PhysMem::load(machine, place)).contains(marks), "a mark is lost");
        changes > 50_000
    });
}

#[test]
fn no_access_is_under_way_after_a_flush() {
    let lab = Lab::new();
    let root = lab.space(0);
    let place = lab.map(root, HERE, 0, RWX);
    let (machine, entry) = (&lab.machine, lab.entry(place));
    let page = PageRange::from_len(HERE, PAGE_SIZE).unwrap();
    let (first, last) = (entry.frame().start(), entry.frame().at(PAGE_SIZE - 8));
    let (round, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let store = || {
        let now = round.load(Ordering::Acquire);
        if now != done.load(Ordering::Relaxed) {
            let _ = machine.store(0, HERE, &[1; 4096]);
            done.store(now, Ordering::Release);
        }
    };
    let mut now = 0;
    beside(store, |_| {
        now += 1;
        PhysMem::store(machine, first, 0);
        PhysMem::store(machine, place, entry.word());
        round.store(now, Ordering::Release);
        // Now it is on its way from the first word to the last.
        wait_until(|| PhysMem::load(machine, first) != 0);
        PhysMem::store(machine, place, 0);
        machine.flush(root, page);
        PhysMem::store(machine, last, 0);
        wait_until(|| done.load(Ordering::Acquire) == now);
        assert_eq!(PhysMem::load(machine, last), 0, "somebody writes to a frame that was taken away");
        now == 200
    });
}
