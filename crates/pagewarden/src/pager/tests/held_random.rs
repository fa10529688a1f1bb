//! Objects that handles hold, their windows, snapshots and mappings, in any order beside a dumb model: a page of an
//! object is a byte and the number of the frame that it would have.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::windows::{anonymous, frames, map_object};
use super::{READ, RW, World, mprotect, munmap, object_pages, page};
use crate::addr::{PAGE_SIZE, PageCount, VirtAddr};
use crate::ledger::Limits;
use crate::linux::{MremapRequest, RemapFlags, Request};
use crate::machine::Machine;
use crate::manager::Access;
use crate::object::{MemoryObject, Placement, Window};
use crate::pager::{AddressSpace, Fault};

/// Pages that an object can have.
const PAGES: u64 = PAGES_LEN as u64;
const PAGES_LEN: usize = 6;
/// Pages of a space that are mapped and touched.
const PLACES: u64 = PLACES_LEN as u64;
const PLACES_LEN: usize = 12;
/// Objects that have a name at a time.
const OBJECTS: usize = 4;

/// What is done. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    New(u64),
    Snapshot(usize, u64, u64),
    Hold(usize, u64, u64),
    DropWindow(usize, usize),
    DropObject(usize),
    Map(usize, usize, u64, u64, u64),
    Unmap(usize, u64, u64),
    Move(usize, u64, u64),
    Protect(usize, u64, u64, u64),
    Store(usize, u64, u8),
    Load(usize, u64),
    CopyOut(usize, u64, u8),
    Write(usize, u64, u8),
    PunchPart(usize, u64),
    Punch(usize, u64, u64),
    Resize(usize, u64),
    Fork(usize),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (object, space, index, place) = (0..OBJECTS, 0..2_usize, 0..PAGES, 0..PLACES);
    let (pages, byte) = (1..=PAGES, 1..=255_u8);
    let rights = prop::sample::select(vec![0, READ, RW]);
    prop_oneof![
        1 => (0..=PAGES).prop_map(Step::New),
        4 => (object.clone(), index.clone(), pages.clone()).prop_map(|(o, i, n)| Step::Snapshot(o, i, n)),
        2 => (object.clone(), index.clone(), pages.clone()).prop_map(|(o, i, n)| Step::Hold(o, i, n)),
        2 => (object.clone(), 0..4_usize).prop_map(|(o, at)| Step::DropWindow(o, at)),
        1 => object.clone().prop_map(Step::DropObject),
        8 => (space.clone(), object.clone(), place.clone(), index.clone(), pages.clone())
            .prop_map(|(s, o, p, i, n)| Step::Map(s, o, p, i, n)),
        3 => (space.clone(), place.clone(), pages.clone()).prop_map(|(s, p, n)| Step::Unmap(s, p, n)),
        2 => (space.clone(), place.clone(), place.clone()).prop_map(|(s, p, to)| Step::Move(s, p, to)),
        3 => (space.clone(), place.clone(), pages.clone(), rights).prop_map(|(s, p, n, r)| Step::Protect(s, p, n, r)),
        14 => (space.clone(), place.clone(), byte.clone()).prop_map(|(s, p, b)| Step::Store(s, p, b)),
        4 => (space.clone(), place.clone()).prop_map(|(s, p)| Step::Load(s, p)),
        2 => (space.clone(), place, byte.clone()).prop_map(|(s, p, b)| Step::CopyOut(s, p, b)),
        3 => (object.clone(), index.clone(), byte).prop_map(|(o, i, b)| Step::Write(o, i, b)),
        1 => (object.clone(), index.clone()).prop_map(|(o, i)| Step::PunchPart(o, i)),
        1 => (object.clone(), index, pages.clone()).prop_map(|(o, i, n)| Step::Punch(o, i, n)),
        1 => (object, pages).prop_map(|(o, n)| Step::Resize(o, n)),
        1 => space.clone().prop_map(Step::Fork),
        1 => space.prop_map(Step::End),
    ]
}

/// A page of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Page {
    byte: u8,
    /// Which frame it has, if any.
    frame: Option<u32>,
}

struct Object {
    /// Gone when nobody names it any more; mappings may show it still.
    object: Option<Arc<MemoryObject>>,
    windows: Vec<Window<Machine>>,
    /// As many as it has now.
    size: u64,
    pages: [Page; PAGES_LEN],
    is_fixed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    object: usize,
    index: u64,
    prot: u64,
}

struct Space {
    space: AddressSpace<Machine>,
    places: [Option<Place>; PLACES_LEN],
}

struct Run {
    world: World,
    objects: Vec<Object>,
    spaces: Vec<Space>,
    frames: u32,
    turns: usize,
    /// Whether frames may have run out half-way, so that only contents are known.
    is_failing: bool,
}

fn at(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

impl Run {
    fn new() -> Self {
        let world = World::new(512);
        let spaces = (0..2).map(|_| Space { space: world.space(), places: [None; PLACES_LEN] }).collect();
        Self { world, objects: Vec::new(), spaces, frames: 0, turns: 0, is_failing: false }
    }

    fn new_frame(&mut self) -> Option<u32> {
        self.frames += 1;
        Some(self.frames)
    }

    /// The object that a step means: one of those that still have a name.
    fn named(&self, number: usize) -> Option<(usize, Arc<MemoryObject>)> {
        let named = self.objects.iter().enumerate().filter_map(|(at, object)| Some((at, object.object.clone()?)));
        let mut named: Vec<_> = named.collect();
        (!named.is_empty()).then(|| named.swap_remove(number % named.len()))
    }

    /// Makes place for another object with a name: the oldest one but `kept` loses its own.
    fn make_place(&mut self, kept: Option<usize>) {
        let has_name = |(at, object): &(usize, &mut Object)| object.object.is_some() && Some(*at) != kept;
        if self.objects.iter().filter(|object| object.object.is_some()).count() >= OBJECTS
            && let Some((_, oldest)) = self.objects.iter_mut().enumerate().find(has_name)
        {
            oldest.windows.clear();
            oldest.object = None;
        }
    }

    fn is_reached(&self, object: usize, index: u64) -> bool {
        let by_window = |window: &Window<Machine>| window.pages().contains(index);
        let shows = |place: &Place| place.object == object && place.index == index;
        self.objects[object].windows.iter().any(by_window)
            || self.spaces.iter().any(|space| space.places.iter().flatten().any(shows))
    }

    /// Pages that nobody reaches are gone.
    fn forget_unreached(&mut self) {
        for object in 0..self.objects.len() {
            for index in 0..PAGES {
                if !self.is_reached(object, index) {
                    self.objects[object].pages[at(index)] = Page::default();
                }
            }
        }
    }

    /// The model of a page that is touched, and stored to if there is a byte.
    fn touch(&mut self, object: usize, index: u64, byte: Option<u8>) {
        let frame = self.objects[object].pages[at(index)].frame;
        let others = self.objects.iter().enumerate().filter(|(number, _)| *number != object);
        let is_common = frame.is_some() && others.flat_map(|(_, object)| &object.pages).any(|page| page.frame == frame);
        let frame = if frame.is_none() || byte.is_some() && is_common { self.new_frame() } else { frame };
        let page = &mut self.objects[object].pages[at(index)];
        *page = Page { byte: byte.unwrap_or(page.byte), frame };
    }

    /// Accesses a page as a guest, on one processor or the other.
    fn access(&mut self, space: usize, place: u64, access: Access, byte: &mut u8) -> Result<(), Fault> {
        self.turns += 1;
        let processor = self.turns % 3 % 2;
        let space = &self.spaces[space].space;
        self.world.run(processor, space.root());
        let address = VirtAddr::new(page(place));
        for _ in 0..8 {
            let machine = &self.world.machine;
            let done = match access {
                Access::Write => machine.store(processor, address, &[*byte]),
                _ => machine.load(processor, address, core::slice::from_mut(byte)),
            };
            let Err(missed) = done else { return Ok(()) };
            space.fault(missed.address, access)?;
        }
        panic!("page {place} faults for ever");
    }

    /// What a place shows, if an access with these rights goes through.
    fn shown(&self, space: usize, place: u64, rights: u64) -> Option<Place> {
        let shown = self.spaces[space].places[at(place)]?;
        (shown.prot & rights == rights && shown.index < self.objects[shown.object].size).then_some(shown)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::New(pages) => self.make(pages),
            Step::Snapshot(object, first, pages) => self.snapshot(object, first, pages),
            Step::Hold(object, first, pages) => {
                let Some((number, object)) = self.named(object) else { return };
                let pages = pages.min(PAGES - first);
                // One that nobody reaches would be one that cannot be had, of a fixed set.
                if self.objects[number].is_fixed && !(first..first + pages).all(|index| self.is_reached(number, index))
                {
                    return;
                }
                let window = self.world.pager.hold_window(&object, object_pages(first, pages)).unwrap();
                self.objects[number].windows.push(window);
            }
            Step::DropWindow(object, at) => {
                let Some((number, _)) = self.named(object) else { return };
                let windows = &mut self.objects[number].windows;
                if !windows.is_empty() {
                    windows.swap_remove(at % windows.len());
                }
            }
            Step::DropObject(object) => {
                let Some((number, _)) = self.named(object) else { return };
                self.objects[number].windows.clear();
                self.objects[number].object = None;
            }
            Step::Write(..) | Step::PunchPart(..) | Step::Punch(..) | Step::Resize(..) => self.change_object(step),
            _ => self.step_in_space(step),
        }
    }

    fn make(&mut self, pages: u64) {
        self.make_place(None);
        let is_fixed = pages.is_multiple_of(2) && pages > 0;
        let placement = if pages == 2 { Placement::Contiguous } else { Placement::Scattered };
        let source = if is_fixed { frames(pages, placement) } else { anonymous(pages) };
        let capacity = PageCount::new(if is_fixed { 0 } else { PAGES });
        let Ok((object, window)) = self.world.pager.new_held(self.world.ledger.root(), source, capacity) else {
            assert!(self.is_failing);
            return;
        };
        let mut there = [Page::default(); PAGES_LEN];
        for page in there.iter_mut().take(at(pages)) {
            page.frame = self.new_frame();
        }
        self.objects.push(Object { object: Some(object), windows: vec![window], size: pages, pages: there, is_fixed });
    }

    fn snapshot(&mut self, object: usize, first: u64, pages: u64) {
        let Some((number, object)) = self.named(object) else { return };
        self.make_place(Some(number));
        let account = self.world.ledger.root();
        let (object, window) = self.world.pager.snapshot(&object, account, object_pages(first, pages)).unwrap();
        let mut there = [Page::default(); PAGES_LEN];
        let parent = &self.objects[number];
        for index in first..(first + pages).min(parent.size) {
            there[at(index - first)] = parent.pages[at(index)];
        }
        self.objects.push(Object {
            object: Some(object),
            windows: vec![window],
            size: pages,
            pages: there,
            is_fixed: false,
        });
    }

    fn change_object(&mut self, step: Step) {
        let pager = self.world.pager.clone();
        let (Step::Write(number, ..) | Step::PunchPart(number, _) | Step::Punch(number, ..) | Step::Resize(number, _)) =
            step
        else {
            return;
        };
        let Some((number, object)) = self.named(number) else { return };
        let (size, is_fixed) = (self.objects[number].size, self.objects[number].is_fixed);
        let is_there = |run: &Self, index: u64| run.objects[number].pages[at(index)].frame.is_some();
        match step {
            Step::Write(_, index, byte) => {
                let written = pager.write(&object, index * PAGE_SIZE, &[byte]).is_ok();
                let can_be = index < size && self.is_reached(number, index) && (!is_fixed || is_there(self, index));
                assert!(written == can_be || self.is_failing && can_be, "{step:?}");
                if written {
                    self.touch(number, index, Some(byte));
                }
            }
            Step::PunchPart(_, index) => {
                let punched = pager.punch(&object, index * PAGE_SIZE, 1).is_ok();
                assert!(punched != is_fixed || self.is_failing, "{step:?}");
                if punched && is_there(self, index) {
                    self.touch(number, index, Some(0));
                }
            }
            Step::Punch(_, index, pages) => {
                let pages = pages.min(PAGES - index);
                assert_eq!(pager.punch(&object, index * PAGE_SIZE, pages * PAGE_SIZE).is_ok(), !is_fixed);
                if !is_fixed {
                    self.objects[number].pages[at(index)..at(index + pages)].fill(Page::default());
                }
            }
            Step::Resize(_, pages) => {
                let resized = pager.resize(&object, pages * PAGE_SIZE).is_ok();
                assert!(resized != is_fixed || self.is_failing, "{step:?}");
                if resized {
                    self.objects[number].size = pages;
                    self.objects[number].pages[at(pages)..].fill(Page::default());
                    for index in size..pages {
                        if self.is_reached(number, index) {
                            self.touch(number, index, None);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn step_in_space(&mut self, step: Step) {
        match step {
            Step::Map(space, object, place, index, pages) => {
                let Some((number, object)) = self.named(object) else { return };
                let pages = pages.min(PAGES - index).min(PLACES - place);
                let reached = (index..index + pages).all(|index| self.is_reached(number, index));
                let range = at(place)..at(place + pages);
                let Space { space, places } = &mut self.spaces[space];
                // What a mapping that fails has replaced may be gone.
                let is_free = places[range.clone()].iter().all(Option::is_none);
                if self.objects[number].is_fixed && !reached || self.is_failing && !is_free {
                    return;
                }
                if space.call(&map_object(&object, place, pages, index)).is_ok() {
                    for (index, place) in (index..).zip(&mut places[range]) {
                        *place = Some(Place { object: number, index, prot: RW });
                    }
                }
            }
            Step::Unmap(space, place, pages) => {
                let pages = pages.min(PLACES - place);
                let Space { space, places } = &mut self.spaces[space];
                if space.call(&munmap(place, pages)).is_ok() {
                    places[at(place)..at(place + pages)].fill(None);
                }
            }
            Step::Move(space, place, to) => {
                let Space { space, places } = &mut self.spaces[space];
                if places[at(place)].is_none() || places[at(to)].is_some() {
                    return;
                }
                let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
                let (addr, old_len, new_len) = (page(place), PAGE_SIZE, PAGE_SIZE);
                if space
                    .call(&Request::Mremap(MremapRequest { addr, old_len, new_len, flags, new_addr: page(to) }))
                    .is_ok()
                {
                    places[at(to)] = places[at(place)].take();
                }
            }
            Step::Protect(space, place, pages, prot) => {
                let Space { space, places } = &mut self.spaces[space];
                let places = &mut places[at(place)..at((place + pages).min(PLACES))];
                if places.iter().all(Option::is_some) && space.call(&mprotect(place, places.len() as u64, prot)).is_ok()
                {
                    places.iter_mut().flatten().for_each(|place| place.prot = prot);
                }
            }
            Step::Store(space, place, byte) => {
                let shown = self.shown(space, place, RW);
                let stored = self.access(space, place, Access::Write, &mut { byte }).is_ok();
                self.note_store((stored, shown), byte);
            }
            Step::CopyOut(space, place, byte) => {
                let shown = self.shown(space, place, RW);
                let stored = self.spaces[space].space.copy_to_user(VirtAddr::new(page(place)), &[byte]).is_ok();
                self.note_store((stored, shown), byte);
            }
            Step::Load(space, place) => self.load(space, place),
            Step::Fork(space) => {
                let account = self.world.ledger.root().child(Limits::UNLIMITED);
                let Ok(child) = self.spaces[space].space.fork(&account) else { return };
                let places = self.spaces[space].places;
                self.replace(1 - space, Space { space: child, places });
            }
            Step::End(space) => {
                if let Ok(new) = AddressSpace::new(&self.world.pager, self.world.config()) {
                    self.replace(space, Space { space: new, places: [None; PLACES_LEN] });
                }
            }
            _ => {}
        }
    }

    fn replace(&mut self, number: usize, space: Space) {
        (0..2).for_each(|processor| self.world.machine.deactivate(processor));
        self.spaces[number] = space;
    }

    fn note_store(&mut self, (stored, shown): (bool, Option<Place>), byte: u8) {
        assert!(stored == shown.is_some() || self.is_failing && !stored, "stored: {stored}, to {shown:?}");
        if let Some(Place { object, index, .. }) = shown.filter(|_| stored) {
            self.touch(object, index, Some(byte));
        }
    }

    fn load(&mut self, space: usize, place: u64) {
        let mut byte = 0;
        let shown = self.shown(space, place, READ);
        let loaded = self.access(space, place, Access::Read, &mut byte).is_ok();
        assert!(loaded == shown.is_some() || self.is_failing && !loaded, "loaded: {loaded}, from {shown:?}");
        if let Some(Place { object, index, .. }) = shown.filter(|_| loaded) {
            assert_eq!(byte, self.objects[object].pages[at(index)].byte, "page {index} of object {object}");
            self.touch(object, index, None);
        }
    }

    fn check(&mut self) {
        self.forget_unreached();
        for (number, object) in self.objects.iter().enumerate() {
            let Some(named) = &object.object else { continue };
            for (index, page) in (0..object.size).zip(&object.pages) {
                let mut byte = [0];
                self.world.pager.read(named, index * PAGE_SIZE, &mut byte).unwrap();
                assert_eq!(byte[0], page.byte, "page {index} of object {number}");
            }
        }
        for space in &self.spaces {
            space.space.check_invariants();
        }
        let tables: Vec<_> = self.spaces.iter().map(|space| space.space.tables()).collect();
        let tables: Vec<_> = tables.iter().map(|tables| &**tables).collect();
        assert_eq!(self.world.stale(&tables), None);
        if !self.is_failing {
            let all = self.objects.iter().flat_map(|object| &object.pages).filter_map(|page| page.frame);
            let expected = all.collect::<BTreeSet<_>>().len();
            assert_eq!(self.world.object_frames(), expected, "frames of objects");
        }
        if self.objects.iter().all(|object| object.object.is_some()) {
            let objects: Vec<_> = self.objects.iter().filter_map(|object| object.object.as_ref()).collect();
            self.world.check_counts(&objects);
        }
    }

    /// All that is left shows what it must, and leaves nothing behind.
    fn end(mut self) {
        for (space, place) in (0..2).flat_map(|space| (0..PLACES).map(move |place| (space, place))) {
            self.load(space, place);
        }
        self.check();
        (0..2).for_each(|processor| self.world.machine.deactivate(processor));
        self.objects.clear();
        self.spaces.clear();
        self.world.check_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn objects_hold_what_the_model_says(steps in prop::collection::vec(step(), 1..100)) {
        let mut run = Run::new();
        run.step(Step::New(5));
        for step in steps {
            run.step(step);
            run.check();
        }
        run.end();
    }

    #[test]
    fn a_frame_that_objects_miss_leaves_no_trace(
        steps in prop::collection::vec((step(), prop::option::of(0..5_u64)), 1..80),
    ) {
        let mut run = Run::new();
        run.step(Step::New(5));
        run.is_failing = true;
        for (step, fails) in steps {
            if let Some(operation) = fails {
                run.world.frame_taken.fail_since(operation);
            }
            run.step(step);
            run.world.frame_taken.disarm();
            run.check();
        }
        run.end();
    }
}
