//! The guest on a small pager that has fewer frames than the guest has pages, and flushes as it must, or does not.

use std::collections::{BTreeMap, VecDeque};
use std::vec;
use std::vec::Vec;

use super::{HERE, Lab, RWX, frame};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::frame::FrameNumber;
use crate::machine::guest::{Area, Failure, Guest, MAX_FAULTS, Tally};
use crate::machine::{FaultCode, MachineConfig, PageFault};
use crate::manager::Access;
use crate::mmu::{Mmu, PhysMem};
use crate::page_table::{Entry, EntryFlags, Level};
use crate::prot::Prot;

const PAGES: u64 = 24;
const FRAMES: u64 = 9;

fn area(first: u64, pages: u64, allowed: Prot) -> Area {
    let range = PageRange::from_pages(HERE.page_number() + first, PageCount::new(pages)).unwrap();
    Area { range, allowed }
}

/// Memory in which frames go from page to page, with the contents kept elsewhere meanwhile.
struct Swapping<'lab> {
    lab: &'lab Lab,
    root: FrameNumber,
    areas: Vec<Area>,
    resident: VecDeque<(u64, u64)>,
    stored: BTreeMap<u64, Vec<u8>>,
}

impl<'lab> Swapping<'lab> {
    fn new(lab: &'lab Lab, areas: &[Area]) -> Self {
        let (resident, stored) = (VecDeque::new(), BTreeMap::new());
        Self { lab, root: lab.space(0), areas: areas.to_vec(), resident, stored }
    }

    fn handle(&mut self, fault: PageFault) -> Result<(), &'static str> {
        assert!(!fault.code.contains(FaultCode::RESERVED), "{fault}");
        let mut areas = self.areas.iter();
        let area = *areas.find(|area| area.range.contains(fault.address)).ok_or("no area")?;
        if fault.code.contains(FaultCode::PRESENT) {
            return Err("denied");
        }
        let number = match u64::try_from(self.resident.len()).unwrap() {
            FRAMES => self.evict(),
            number => number,
        };
        let page = fault.address.page_number();
        let frame = frame(Lab::FIRST_PAGE + number);
        match self.stored.remove(&page) {
            Some(bytes) => PhysMem::write(&self.lab.machine, frame.start(), &bytes),
            None => self.lab.machine.zero(frame),
        }
        let mut flags = Entry::flags_of(area.allowed) & RWX.union(EntryFlags::NO_EXECUTE);
        flags.set(EntryFlags::USER, area.allowed.contains(Prot::READ));
        self.lab.map(self.root, fault.address.page_down(), number, flags);
        self.resident.push_back((page, number));
        Ok(())
    }

    /// Takes the frame of the page that has been there longest.
    fn evict(&mut self) -> u64 {
        let (page, number) = self.resident.pop_front().unwrap();
        let address = VirtAddr::from_page_number(page).unwrap();
        let place = self.lab.place(self.root, address, Level::One);
        let entry = self.lab.entry(place);
        self.lab.set(place, Entry::EMPTY);
        self.lab.machine.flush(self.root, PageRange::from_len(address, PAGE_SIZE).unwrap());
        let mut bytes = vec![0; 4096];
        PhysMem::read(&self.lab.machine, entry.frame().start(), &mut bytes);
        self.stored.insert(page, bytes);
        self.lab.machine.poison(entry.frame());
        number
    }
}

const AREAS: [(u64, u64, Prot); 3] =
    [(0, 16, Prot::all()), (16, 4, Prot::READ), (20, PAGES - 20, Prot::READ.union(Prot::WRITE))];

fn run(lab: &Lab, seed: u64, steps: u64) -> Result<Tally, Failure<&'static str>> {
    let areas = AREAS.map(|(first, pages, allowed)| area(first, pages, allowed));
    let mut pager = Swapping::new(lab, &areas);
    let mut guest = Guest::new(&lab.machine, 0, seed);
    areas.into_iter().for_each(|area| guest.map(area));
    guest.run(steps, &mut |fault| pager.handle(fault))?;
    guest.verify(&mut |fault| pager.handle(fault))?;
    Ok(guest.tally())
}

#[test]
fn memory_that_is_right_is_found_right() {
    for seed in 0..4 {
        let lab = Lab::new();
        let tally = run(&lab, seed, 2000).unwrap();
        let kinds = [tally.loads, tally.stores, tally.fetches, tally.exchanges, tally.refused];
        assert!(kinds.into_iter().all(|count| count > 20), "{tally:?}");
        assert_eq!(kinds.into_iter().sum::<u64>(), 2000);
        let plain = Lab::with(MachineConfig { tlb_entries: 0, table_entries: 0, ..MachineConfig::default() });
        assert_eq!(run(&plain, seed, 2000).unwrap(), tally, "what is remembered changes nothing");
        let hits = [&lab, &plain].map(|lab| lab.machine.statistics().hits);
        assert!(hits[0] > 300 && hits[1] == 0, "{hits:?}");
    }
}

#[test]
fn a_flush_that_is_left_out_is_found() {
    // Not each: a store to a page known as clean, or a forbidden access, faults in time.
    for operation in [0, 3, 50] {
        let found = (0..8).filter(|seed| {
            let lab = Lab::new();
            lab.machine.flush_point().fail_once(operation);
            matches!(run(&lab, *seed, 2000), Err(Failure::Wrong { .. }))
        });
        let found = found.count();
        assert!(found > 0, "flush {operation} in {found}");
    }
}

#[test]
fn memory_that_nobody_zeroed_is_found() {
    let lab = Lab::new();
    let root = lab.space(0);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 1, Prot::READ));
    let mut handler = |fault: PageFault| {
        lab.map(root, fault.address.page_down(), 0, RWX);
        Ok::<(), ()>(())
    };
    let expected = Failure::Wrong { address: HERE, expected: 0, found: crate::machine::POISON };
    assert_eq!(guest.check(HERE, 8, &mut handler), Err(expected));
    assert_eq!(guest.verify(&mut handler), Err(expected));
    // What cannot be loaded is not compared, and what can to its last byte.
    lab.machine.zero(frame(Lab::FIRST_PAGE));
    guest.map(area(1, 1, Prot::WRITE));
    assert_eq!(guest.verify(&mut |_| Err("not there")), Ok(()));
    lab.machine.write(frame(Lab::FIRST_PAGE).at(PAGE_SIZE - 1), &[7]);
    let address = HERE.checked_add(PAGE_SIZE - 1).unwrap();
    let expected = Failure::Wrong { address, expected: 0, found: 7 };
    assert_eq!(guest.verify(&mut |_| Err("not there")), Err(expected));
}

#[test]
fn a_fault_that_does_not_end_is_an_error() {
    let lab = Lab::new();
    lab.space(0);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 2, Prot::READ));
    let mut calls = 0;
    let mut handler = |_| {
        calls += 1;
        Ok::<(), ()>(())
    };
    let last = HERE.checked_add(PAGE_SIZE - 1).unwrap();
    let code = FaultCode::USER;
    let fault = PageFault { address: last, access: Access::Read, code };
    assert_eq!(guest.check(last, 1, &mut handler), Err(Failure::FaultLoop(fault)));
    assert_eq!(calls, MAX_FAULTS);
    let mut calls = 0;
    let looped = guest.check(last, 2, &mut |_| {
        calls += 1;
        Ok::<(), ()>(())
    });
    assert_eq!((looped, calls), (Err(Failure::FaultLoop(fault)), 2 * MAX_FAULTS), "as often for each page");
    let mut forbidden = Guest::new(&lab.machine, 0, 1);
    forbidden.map(area(0, 2, Prot::NONE));
    let looped = forbidden.step(&mut |_| Ok::<(), ()>(()));
    assert!(matches!(looped, Err(Failure::FaultLoop(_))), "nobody has refused it: {looped:?}");
    let refused = guest.check(last, 2, &mut |_| Err("no"));
    assert_eq!(refused, Err(Failure::Refused { fault, reason: "no" }));
}

#[test]
fn an_access_that_is_forbidden_and_possible_is_found() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.machine.zero(frame(Lab::FIRST_PAGE));
    lab.map(root, HERE, 0, RWX);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 1, Prot::READ));
    let outcome = guest.run(100, &mut |_| Err("never"));
    assert!(matches!(outcome, Err(Failure::Allowed { .. })), "{outcome:?}");
}

#[test]
fn a_store_that_is_refused_half_way_is_known_by_halves() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.machine.zero(frame(Lab::FIRST_PAGE));
    let place = lab.map(root, HERE, 0, RWX);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 2, Prot::READ | Prot::WRITE));
    let start = HERE.checked_add(PAGE_SIZE - 2).unwrap();
    let refused = guest.store(start, &[1, 2, 3], &mut |_| Err("no memory"));
    assert!(matches!(refused, Err(Failure::Refused { reason: "no memory", .. })));
    let mut shadow = [9; 4];
    guest.shadow().read(start, &mut shadow);
    assert_eq!(shadow, [1, 2, 0, 0]);
    guest.check(start, 2, &mut |_| Err(())).unwrap();
    assert!(lab.entry(place).contains(EntryFlags::DIRTY));
}

#[test]
fn what_was_stored_stays_though_a_later_try_ends_earlier() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.machine.zero(frame(Lab::FIRST_PAGE));
    let place = lab.map(root, HERE, 0, RWX);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    let start = HERE.checked_add(PAGE_SIZE - 2).unwrap();
    let mut faults = Vec::new();
    let refused = guest.store(start, &[1, 2, 3], &mut |fault| {
        faults.push(fault.address);
        lab.set(place, Entry::EMPTY);
        lab.machine.flush_all(root);
        if faults.len() == 1 { Ok(()) } else { Err("no memory") }
    });
    assert!(matches!(refused, Err(Failure::Refused { reason: "no memory", .. })));
    assert_eq!(faults, [HERE.checked_add(PAGE_SIZE).unwrap(), start]);
    let mut shadow = [9; 3];
    guest.shadow().read(start, &mut shadow);
    assert_eq!(shadow, [1, 2, 0]);
}

#[test]
fn a_child_has_the_same_memory_and_goes_its_own_way() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.space(1);
    lab.machine.zero(frame(Lab::FIRST_PAGE));
    lab.map(root, HERE, 0, RWX);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 1, Prot::all()));
    guest.store(HERE, &[4, 4], &mut |_| Err(())).unwrap();
    let mut child = guest.fork(0, 2);
    assert_eq!(child.areas(), guest.areas());
    child.check(HERE, 8, &mut |_| Err(())).unwrap();
    child.store(HERE, &[5], &mut |_| Err(())).unwrap();
    let failure = Failure::Wrong { address: HERE, expected: 4, found: 5 };
    assert_eq!(guest.check(HERE, 1, &mut |_| Err(())), Err(failure));
    let tallies = [2, 2, 3].map(|seed| {
        let mut child = child.fork(0, seed);
        child.run(100, &mut |_| Err(())).unwrap();
        PhysMem::write(&lab.machine, frame(Lab::FIRST_PAGE).start(), &[5, 4]);
        lab.machine.write(frame(Lab::FIRST_PAGE).at(2), &[0; 4094]);
        child.tally()
    });
    assert!(tallies[0] == tallies[1] && tallies[0] != tallies[2], "{tallies:?}");
    // There is nothing in the space that the other processor runs in.
    assert!(child.fork(1, 2).check(HERE, 1, &mut |_| Err(())).is_err());
    child.check(HERE, 1, &mut |_| Err(())).unwrap();
    child.move_to(1);
    assert!(child.check(HERE, 1, &mut |_| Err(())).is_err());
}

/// What becomes of the first step of guests with one area.
fn first_steps(lab: &Lab, area: Area) -> impl Iterator<Item = (Guest<'_>, Result<(), Failure<&'static str>>)> {
    (0..400).map(move |seed| {
        lab.machine.zero(frame(Lab::FIRST_PAGE));
        // Wrong is one byte of each word.
        for offset in (3..PAGE_SIZE).step_by(8) {
            lab.machine.write(frame(Lab::FIRST_PAGE).at(offset), &[7]);
        }
        let mut guest = Guest::new(&lab.machine, 0, seed);
        guest.map(area);
        let outcome = guest.step(&mut |_| Err("not there"));
        (guest, outcome)
    })
}

#[test]
fn accesses_are_of_the_kind_that_is_counted() {
    let lab = Lab::new();
    lab.space(0);
    for allowed in [Prot::all(), Prot::WRITE] {
        let mut kinds = BTreeMap::new();
        for (guest, outcome) in first_steps(&lab, area(0, 1, allowed)) {
            let tally = guest.tally();
            let Err(Failure::Refused { fault, .. }) = outcome else {
                assert_eq!((outcome, tally.refused), (Ok(()), 1));
                continue;
            };
            let counted = [tally.loads, tally.stores, tally.exchanges, tally.fetches];
            *kinds.entry((std::format!("{:?}", fault.access), counted)).or_insert(0) += 1;
        }
        let kinds: Vec<_> = kinds.keys().map(|(access, counted)| (access.as_str(), *counted)).collect();
        let [fetch, load, exchange, store] =
            [("Execute", [0, 0, 0, 1]), ("Read", [1, 0, 0, 0]), ("Write", [0, 0, 1, 0]), ("Write", [0, 1, 0, 0])];
        let expected = if allowed == Prot::WRITE { vec![store] } else { vec![fetch, load, exchange, store] };
        assert_eq!(kinds, expected, "no exchange shows what must not be loaded");
    }
}

#[test]
fn an_exchange_that_finds_another_word_is_found() {
    let lab = Lab::new();
    let root = lab.space(0);
    lab.map(root, HERE, 0, RWX);
    let mut exchanges = first_steps(&lab, area(0, 1, Prot::all())).filter(|(guest, _)| guest.tally().exchanges == 1);
    let is_found = |(_, outcome)| match outcome {
        Err(Failure::Wrong { address, expected: 0, found: 7 }) => address.as_u64() % 8 == 3,
        _ => false,
    };
    assert!(exchanges.next().is_some() && exchanges.all(is_found));
}

#[test]
fn stores_change_the_memory_and_so_do_half_of_the_exchanges() {
    let lab = Lab::with(MachineConfig { tlb_entries: 0, ..MachineConfig::default() });
    let root = lab.space(0);
    lab.machine.zero(frame(Lab::FIRST_PAGE));
    lab.map(root, HERE, 0, RWX);
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 1, Prot::all()));
    let (mut exchanged, mut stored) = (0, 0);
    let content = |guest: &Guest<'_>| {
        let mut bytes = vec![0; 4096];
        guest.shadow().read(HERE, &mut bytes);
        bytes
    };
    for _ in 0..1000 {
        let (before, tally) = (content(&guest), guest.tally());
        guest.step(&mut |_| Err(())).unwrap();
        let is_changed = content(&guest) != before;
        exchanged += u64::from(is_changed && guest.tally().exchanges > tally.exchanges);
        stored += u64::from(is_changed && guest.tally().stores > tally.stores);
    }
    let Tally { exchanges, stores, .. } = guest.tally();
    assert!(exchanged > exchanges / 4 && exchanged < exchanges / 4 * 3, "{exchanged} of {exchanges}");
    assert!(stored > stores / 10 * 9, "{stored} of {stores} stores changed anything");
}

#[test]
fn accesses_reach_over_one_border_and_two() {
    let lab = Lab::with(MachineConfig { tlb_entries: 0, ..MachineConfig::default() });
    let root = lab.space(0);
    let places = [0, 1, 2].map(|number| {
        lab.machine.zero(frame(Lab::FIRST_PAGE + number));
        lab.map(root, HERE.checked_add(number * PAGE_SIZE).unwrap(), number, RWX)
    });
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 3, Prot::all()));
    // Accesses by how many pages they touch, and by which.
    let (mut touched, mut in_page) = ([0; 4], [0; 3]);
    for _ in 0..10_000 {
        places.iter().for_each(|place| lab.set(*place, lab.entry(*place).without(EntryFlags::ACCESSED)));
        guest.step(&mut |_| Err(())).unwrap();
        let is_touched = places.map(|place| lab.entry(place).contains(EntryFlags::ACCESSED));
        touched[is_touched.iter().filter(|is_touched| **is_touched).count()] += 1;
        for (count, is_touched) in in_page.iter_mut().zip(is_touched) {
            *count += u64::from(is_touched);
        }
    }
    assert!(in_page.into_iter().all(|count| count > 2000), "{in_page:?}");
    assert!(touched[0] == 0 && touched[2] > 500 && touched[3] > 2, "{touched:?}");
}

#[test]
fn without_memory_there_is_no_access() {
    let lab = Lab::new();
    let mut guest = Guest::new(&lab.machine, 0, 1);
    assert_eq!(guest.run(3, &mut |_| Err(())), Ok(()));
    assert_eq!(guest.tally(), Tally::default());
}

#[test]
fn a_failure_says_what_where_and_why() {
    let fault = PageFault { address: HERE, access: Access::Write, code: FaultCode::USER };
    let here = std::format!("{HERE}");
    let says = |failure: Failure<&str>, parts: &[&str]| {
        let text = std::format!("{failure}");
        assert!(text.contains(&here) && parts.iter().all(|part| text.contains(part)), "{text}");
    };
    says(Failure::Refused { fault, reason: "no memory" }, &["refused", "Write", "no memory"]);
    says(Failure::FaultLoop(fault), &["for ever", "Write"]);
    says(Failure::Wrong { address: HERE, expected: 0x12, found: 0x34 }, &["0x34 at", "not 0x12"]);
    says(Failure::Allowed { address: HERE, access: Access::Execute }, &["Execute", "forbidden"]);
}

#[test]
fn areas_are_cut_where_others_come() {
    let lab = Lab::new();
    let mut guest = Guest::new(&lab.machine, 0, 1);
    guest.map(area(0, 10, Prot::READ));
    guest.shadow_mut().write(HERE, &[1; 8 * 4096]);
    guest.protect(area(2, 2, Prot::WRITE));
    guest.map(area(3, 1, Prot::EXEC));
    guest.unmap(area(6, 1, Prot::NONE).range);
    let mut areas = guest.areas().to_vec();
    areas.sort_by_key(|area| area.range.first_page());
    let expected = [
        area(0, 2, Prot::READ),
        area(2, 1, Prot::WRITE),
        area(3, 1, Prot::EXEC),
        area(4, 2, Prot::READ),
        area(7, 3, Prot::READ),
    ];
    assert_eq!(areas, expected);
    let first = |page: u64| {
        let mut byte = [9];
        guest.shadow().read(HERE.checked_add(page * PAGE_SIZE).unwrap(), &mut byte);
        byte[0]
    };
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(first), [1, 1, 1, 0, 1, 1, 0, 1, 0]);
}
