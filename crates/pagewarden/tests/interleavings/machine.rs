//! The software machine in every order that the steps of two threads can have (loom).

use std::sync::Arc;

use loom::thread;
use pagewarden::frame::FrameNumber;
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::page_table::{Entry, EntryFlags};
use pagewarden::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};

const HERE: VirtAddr = VirtAddr::new(0);

fn frame(number: u64) -> FrameNumber {
    FrameNumber::new(number).unwrap()
}

/// A machine all of whose processors run in a space in which page 0 is frame 4. Where its entry is.
fn machine(processors: usize) -> (Machine, PhysAddr) {
    let machine = Machine::new(MachineConfig { frames: 5, processors, tlb_entries: 4, table_entries: 4 });
    let rwx = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::USER;
    for number in 0..4 {
        machine.zero(frame(number));
        PhysMem::store(&machine, frame(number).start(), Entry::new(frame(number + 1), rwx).word());
    }
    (0..processors).for_each(|processor| machine.activate(processor, frame(0)));
    (machine, frame(3).start())
}

#[test]
fn an_entry_that_was_taken_out_stays_empty_and_its_frame_untouched() {
    loom::model(|| {
        let (machine, place) = machine(1);
        let machine = Arc::new(machine);
        let user = Arc::clone(&machine);
        let user = thread::spawn(move || user.store(0, HERE, &[1]).is_ok());
        PhysMem::store(&*machine, place, 0);
        machine.flush(frame(0), PageRange::from_len(HERE, PAGE_SIZE).unwrap());
        // Whoever was about to store has done so, or will not.
        machine.poison(frame(4));
        let _ = user.join().unwrap();
        assert_eq!(PhysMem::load(&*machine, place), 0);
        assert!(machine.is_poisoned(frame(4)));
    });
}

#[test]
fn marks_that_two_processors_make_in_one_entry_are_both_kept() {
    loom::model(|| {
        let (machine, place) = machine(2);
        let machine = Arc::new(machine);
        let user = Arc::clone(&machine);
        let user = thread::spawn(move || user.load(1, HERE, &mut [0]).unwrap());
        machine.store(0, HERE, &[1]).unwrap();
        user.join().unwrap();
        let entry = Entry::from_word(PhysMem::load(&*machine, place));
        assert!(entry.contains(EntryFlags::ACCESSED | EntryFlags::DIRTY), "a mark is lost");
    });
}
