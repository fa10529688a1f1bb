//! Random requests beside a model that is an array of bytes and some lists, with an agent that writes at known steps.

mod model;

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use proptest::prelude::*;

use super::{Lab, Manager, frame, frames, run};
use crate::addr::{PAGE_LEN, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Limits;
use crate::machine::other_world::OtherSide;
use crate::phys::{
    Claim, Mapping, Mode, OtherAccess, Permission, PhysError, PhysMutPtr, PhysRange, Protection, Reservation,
    WindowAccess,
};
use model::{Claimed, End, Model, PAGES, SPACE};

/// Which pages, in which order.
type List = Vec<u64>;
/// A place and a length.
type Part = (usize, usize);

#[derive(Clone, Debug)]
enum Step {
    Vmap { list: List, permission: Permission, claim: Claimed, broken_run: u64, end: End },
    Unmap { which: usize, end: End },
    Read(usize, Part),
    Write(usize, Part, u8),
    Exchange { which: usize, at: usize, hits: u8 },
    Pointer { list: List, part: Part, byte: Option<u8> },
    Reserve(Part, Mode),
    Release(usize),
    Protect(Range<u64>, OtherAccess),
    Unprotect { which: usize, end: End },
    Retry,
    Agent(u64),
}

fn list() -> impl Strategy<Value = List> {
    prop::collection::vec(0..PAGES, 1..5)
}

fn part() -> impl Strategy<Value = Part> {
    let around_borders = (0..3_usize, 0..40_usize).prop_map(|(page, at)| (page * PAGE_LEN + at).saturating_sub(20));
    (prop_oneof![around_borders, 0..3 * PAGE_LEN], prop_oneof![3 => 0..40_usize, 1 => 0..2 * PAGE_LEN])
}

fn step() -> impl Strategy<Value = Step> {
    let permission = prop_oneof![Just(Permission::Read), Just(Permission::ReadWrite)];
    let claim = prop_oneof![Just(Claimed::Beside), Just(Claimed::Pages), Just(Claimed::Held)];
    let mode = prop_oneof![Just(Mode::Shared), Just(Mode::Exclusive)];
    let access = prop_oneof![Just(OtherAccess::None), Just(OtherAccess::Read)];
    let end = || prop_oneof![6 => Just(End::Clean), 1 => Just(End::Stuck)];
    let vmap = (list(), permission, claim, 0..12_u64, end())
        .prop_map(|(list, permission, claim, broken_run, end)| Step::Vmap { list, permission, claim, broken_run, end });
    prop_oneof![
        6 => vmap,
        4 => (any::<usize>(), end()).prop_map(|(which, end)| Step::Unmap { which, end }),
        4 => (any::<usize>(), part()).prop_map(|(which, part)| Step::Read(which, part)),
        4 => (any::<usize>(), part(), any::<u8>()).prop_map(|(which, part, byte)| Step::Write(which, part, byte)),
        2 => (any::<usize>(), 0..512_usize, 0..3_u8).prop_map(|(which, at, hits)| Step::Exchange { which, at, hits }),
        3 => (list(), part(), any::<Option<u8>>()).prop_map(|(list, part, byte)| Step::Pointer { list, part, byte }),
        2 => (part(), mode).prop_map(|(part, mode)| Step::Reserve(part, mode)),
        2 => any::<usize>().prop_map(Step::Release),
        2 => (0..PAGES, 1..3_u64, access).prop_map(|(first, count, access)| Step::Protect(first..first + count, access)),
        2 => (any::<usize>(), end()).prop_map(|(which, end)| Step::Unprotect { which, end }),
        1 => Just(Step::Retry),
        1 => (0..6_u64).prop_map(Step::Agent),
    ]
}

/// What the test has, with the key of each in the model.
struct Twins<'l> {
    lab: &'l Lab,
    manager: &'l Manager,
    model: Model,
    mappings: Vec<(u64, Mapping<&'l Manager>)>,
    protections: Vec<(u64, Protection<&'l Manager>)>,
    reservations: Vec<(u64, Reservation<'l, crate::machine::Ticks>)>,
}

/// Those of the errors that the model tells apart.
fn kind(error: PhysError) -> PhysError {
    match error {
        PhysError::Reserved(_) => PhysError::Reserved(PhysRange::of_frame(frame(0))),
        other => other,
    }
}

impl<'l> Twins<'l> {
    fn new(lab: &'l Lab) -> Self {
        let memory = lab.fill(&frames(&(0..PAGES).collect::<Vec<_>>()));
        let (mappings, protections, reservations) = (Vec::new(), Vec::new(), Vec::new());
        Self { lab, manager: &lab.manager, model: Model::new(memory), mappings, protections, reservations }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Vmap { list, permission, claim, broken_run, end } => {
                self.vmap(&list, permission, claim, (broken_run, end));
            }
            Step::Unmap { which, end } => self.unmap(which, end),
            Step::Read(which, part) => self.read(which, part),
            Step::Write(which, part, byte) => self.write(which, part, byte),
            Step::Exchange { which, at, hits } => self.exchange(which, at * 8, hits),
            Step::Pointer { list, part, byte } => self.pointer(&list, part, byte),
            Step::Reserve(part, mode) => self.reserve(part, mode),
            Step::Release(which) => {
                if let Some((key, _)) = take(&mut self.reservations, which) {
                    self.model.reserved.remove(&key);
                }
            }
            Step::Protect(pages, access) => self.protect(pages, access),
            Step::Unprotect { which, end } => self.unprotect(which, end),
            Step::Retry => {
                assert_eq!(self.manager.retry_retained(), Ok(()));
                self.model.retry();
            }
            Step::Agent(period) => {
                self.model.period = period;
                let mut agent = self.model.agent(self.lab.other.steps());
                self.lab.other.set_agent(move |side: &OtherSide<'_>| {
                    if let Some((page, offset, word)) = agent.next() {
                        let _ = side.store(frame(page).at(offset as u64), &word.to_le_bytes());
                    }
                });
            }
        }
    }

    fn vmap(&mut self, list: &[u64], permission: Permission, claim: Claimed, (broken, end): (u64, End)) {
        let provider = self.manager.provider();
        let expected = self.model.vmap(list, permission, claim, (broken, end));
        provider.map.fail_once(broken);
        if end == End::Stuck {
            provider.unmap.fail_once(0);
        }
        let list = frames(list);
        let outcome = match claim {
            Claimed::Beside => self.manager.vmap(&list, permission, Claim::Beside),
            Claimed::Pages => self.manager.vmap(&list, permission, Claim::Reserve),
            Claimed::Held => {
                let page = [PhysRange::of_frame(list[0])];
                let held = self.manager.reservations().try_reserve(&page, Mode::Exclusive);
                held.and_then(|held| self.manager.vmap(&list, permission, Claim::Held(held)))
            }
        };
        provider.map.disarm();
        provider.unmap.disarm();
        match (outcome, expected) {
            (Ok(mapping), Ok((key, first))) => {
                assert_eq!(mapping.window().first_page(), first, "the lowest addresses that are free");
                self.mappings.push((key, mapping));
            }
            (outcome, expected) => {
                assert_eq!(outcome.map(drop).map_err(kind), expected.map(drop).map_err(kind));
            }
        }
    }

    fn unmap(&mut self, which: usize, end: End) {
        let Some((key, mapping)) = take(&mut self.mappings, which) else { return };
        if end == End::Stuck {
            self.manager.provider().unmap.fail_once(0);
        }
        assert_eq!(mapping.unmap(), end.outcome());
        self.manager.provider().unmap.disarm();
        self.model.unmap(key, end);
    }

    fn read(&mut self, which: usize, (at, len): Part) {
        let Some((key, mapping)) = get(&self.mappings, which) else { return };
        let mut bytes = vec![0; len];
        let outcome = mapping.read(at, &mut bytes);
        let expected = self.model.read(&self.model.windows[key].list.clone(), (at, len));
        assert_eq!(outcome, expected.as_ref().map(drop).map_err(|error| *error));
        assert!(expected.is_err() || expected == Ok(bytes), "{len} bytes at {at}");
    }

    fn write(&mut self, which: usize, (at, len): Part, byte: u8) {
        let Some((key, mapping)) = get(&self.mappings, which) else { return };
        let window = self.model.windows[key].clone();
        let expected = match window.permission {
            Permission::Read if at + len <= window.list.len() * PAGE_LEN => Err(PhysError::ReadOnly),
            _ => self.model.write(&window.list, (at, len), byte),
        };
        assert_eq!(mapping.write(at, &vec![byte; len]), expected);
    }

    fn exchange(&mut self, which: usize, at: usize, hits: u8) {
        let Some((key, mapping)) = get(&self.mappings, which) else { return };
        let window = self.model.windows[key].clone();
        if at + 8 > window.list.len() * PAGE_LEN || window.permission == Permission::Read {
            return;
        }
        self.model.turn();
        let bytes = self.model.bytes(&window.list, at, 8);
        let found = u64::from_le_bytes(bytes.try_into().unwrap());
        let current = if hits > 0 { found } else { !found };
        assert_eq!(mapping.compare_exchange(at, current, 0x7777_u64), Ok(found));
        if hits > 0 {
            self.model.set_bytes(&window.list, at, &0x7777_u64.to_le_bytes());
        }
    }

    /// Reads or writes without a window that stays.
    fn pointer(&mut self, list: &[u64], (at, len): Part, byte: Option<u8>) {
        let offset = at % PAGE_LEN;
        let pointer = PhysMutPtr::<u8, _>::new(self.manager, &frames(list), offset as u64, len);
        let pointer = match (pointer, self.model.check(list, offset + len)) {
            (Ok(pointer), Ok(())) => pointer,
            (pointer, expected) => return assert_eq!(pointer.map(drop), expected),
        };
        let pages = (offset + len).div_ceil(PAGE_LEN) as u64;
        if len > 0 && self.model.place(pages).is_none() {
            assert_eq!(pointer.write_slice_at(0, &vec![0; len]), Err(PhysError::WindowSpaceExhausted));
        } else if let Some(byte) = byte {
            assert_eq!(pointer.write_slice_at(0, &vec![byte; len]), Ok(()));
            assert_eq!(self.model.write(list, (offset, len), byte), Ok(()));
        } else {
            let mut bytes = vec![0; len];
            assert_eq!(pointer.read_slice_at(0, &mut bytes), Ok(()));
            assert_eq!(self.model.read(list, (offset, len)), Ok(bytes));
        }
    }

    fn reserve(&mut self, (at, len): Part, mode: Mode) {
        let start = frame(0).start().checked_add(at as u64).unwrap();
        let Ok(range) = PhysRange::new(start, len as u64) else { return };
        let outcome = self.manager.reservations().try_reserve(&[range], mode);
        match (outcome, self.model.reserve(vec![range], mode)) {
            (Ok(reservation), Ok(key)) => self.reservations.push((key, reservation)),
            (outcome, expected) => assert_eq!(outcome.map(drop).map_err(kind), expected.map(drop).map_err(kind)),
        }
    }

    fn protect(&mut self, pages: Range<u64>, access: OtherAccess) {
        let outcome = self.manager.protect(run(pages.start, pages.end - pages.start), access);
        match (outcome, self.model.protect(pages)) {
            (Ok(protection), Some(key)) => self.protections.push((key, protection)),
            (outcome, key) => assert_eq!((outcome.map(drop).map_err(PhysError::errno), key), (Err(Errno::Busy), None)),
        }
    }

    fn unprotect(&mut self, which: usize, end: End) {
        let Some((key, protection)) = take(&mut self.protections, which) else { return };
        if end == End::Stuck {
            self.manager.provider().protect.fail_once(0);
        }
        assert_eq!(protection.unprotect(), end.outcome());
        self.manager.provider().protect.disarm();
        self.model.unprotect(key, end);
    }

    fn check(&mut self) {
        self.manager.check_invariants();
        assert_eq!(self.manager.live(), self.mappings.len() + self.protections.len());
        assert_eq!(self.manager.retained(), self.model.retained());
        for (key, mapping) in &self.mappings {
            let window = &self.model.windows[key];
            assert_eq!((mapping.window().first_page(), mapping.frames()), (window.first, &*frames(&window.list)));
        }
        for (_, mapping) in &self.mappings {
            for page in [mapping.window().first_page() - 1, mapping.window().end_page()] {
                let empty = PageRange::from_pages(page, crate::PageCount::new(1)).unwrap();
                self.model.turn();
                let loaded = self.manager.provider().load(VirtAddr::new(empty.start().as_u64()), &mut [0]);
                assert!(loaded.is_err() || !SPACE.contains(&page), "{empty} shows something");
            }
        }
        assert!(self.model.memory == self.lab.peek_all(), "foreign memory");
    }
}

fn get<T>(list: &[(u64, T)], which: usize) -> Option<(&u64, &T)> {
    let (key, one) = list.get(which.checked_rem(list.len())?)?;
    Some((key, one))
}

fn take<T>(list: &mut Vec<T>, which: usize) -> Option<T> {
    which.checked_rem(list.len()).map(|index| list.swap_remove(index))
}

impl Lab {
    /// What is in the pages that the model has, even where the other world cannot look.
    fn peek_all(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(PAGES).unwrap() * PAGE_LEN];
        for (page, bytes) in bytes.chunks_mut(PAGE_LEN).enumerate() {
            crate::mmu::PhysMem::read(&*self.world.0.machine, frame(page as u64).start(), bytes);
        }
        bytes
    }
}

proptest! {
    #[test]
    fn random_steps_do_what_the_model_says(steps in prop::collection::vec(step(), 1..50)) {
        let lab = Lab::with(SPACE.end - SPACE.start, Limits::UNLIMITED).unwrap();
        let mut twins = Twins::new(&lab);
        for step in steps {
            twins.run(step);
            twins.check();
        }
        drop(twins);
        lab.other.dismiss_agent();
        lab.manager.retry_retained().unwrap();
    }
}
