//! Random steps on two tables, some of them half done, against lists.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::proptest;

use super::{Binding, NO_PAGES, NO_SLOT, Thing, used};
use crate::addr::PageCount;
use crate::cap::{
    CapError, CapTable, Handle, HandleInfo, HandleState, Interface, Reservation, ReservedTransfer, Rights, Transfer,
    TransferMode,
};
use crate::ledger::{Limits, Resource, ResourceLedger};

/// Tables, and places in lists of handles and of what is half done, which are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u64, Rights, Binding),
    Release(usize, usize),
    Duplicate(usize, usize, Rights),
    Reserve(usize, u64),
    Offer(usize, usize, TransferMode, Rights),
    /// Fills a reservation, takes an offer to a table, commits what is reserved.
    GoOn(usize, usize),
    GiveUp(usize),
    Close(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let table = || 0_usize..2;
    let pages = || prop_oneof![Just(0), 0_u64..9];
    // Most have most rights, or little would ever be sent.
    let rights = || prop_oneof![Just(Rights::all()), any::<u32>().prop_map(Rights::from_bits_truncate)];
    let binding = prop_oneof![4 => Just(Binding::Free), 1 => Just(Binding::Bound)];
    let mode = prop_oneof![1 => Just(TransferMode::Copy), 2 => Just(TransferMode::Move)];
    prop_oneof![
        8 => (table(), pages(), rights(), binding).prop_map(|(to, pages, has, binding)| Step::Insert(to, pages, has, binding)),
        4 => (table(), any::<usize>()).prop_map(|(of, at)| Step::Release(of, at)),
        4 => (table(), any::<usize>(), rights()).prop_map(|(of, at, rights)| Step::Duplicate(of, at, rights)),
        2 => (table(), pages()).prop_map(|(to, pages)| Step::Reserve(to, pages)),
        8 => (table(), any::<usize>(), mode, rights()).prop_map(|(of, at, mode, rights)| Step::Offer(of, at, mode, rights)),
        12 => (any::<usize>(), table()).prop_map(|(at, to)| Step::GoOn(at, to)),
        3 => any::<usize>().prop_map(Step::GiveUp),
        1 => table().prop_map(Step::Close),
    ]
}

const SLOTS: [u64; 3] = [8, 8, 12];
const PAGES: [u64; 3] = [24, 24, 32];

/// What a live handle should be.
#[derive(Clone, Debug)]
struct Expected {
    handle: Handle,
    object: usize,
    rights: Rights,
    state: HandleState,
}

#[derive(Default)]
struct List {
    entries: Vec<Expected>,
    is_closed: bool,
}

enum HalfDone<'a> {
    Reserved(usize, u64, Reservation<'a>),
    Offered(Offer, Transfer<'a>),
    Accepted(Offer, usize, ReservedTransfer<'a>),
}

#[derive(Clone, Debug)]
struct Offer {
    from: usize,
    handle: Handle,
    object: usize,
    rights: Rights,
    mode: TransferMode,
}

struct Object {
    weak: Weak<Thing>,
    pages: u64,
    binding: Binding,
}

struct Run<'a> {
    tables: &'a [CapTable; 2],
    lists: [List; 2],
    objects: Vec<Object>,
    half_done: Vec<HalfDone<'a>>,
    handles: Vec<Handle>,
}

impl<'a> Run<'a> {
    /// Whether the transfer pays for what it has taken out of a table that was closed since.
    fn keeps(&self, offer: &Offer) -> bool {
        offer.mode == TransferMode::Move && self.lists[offer.from].is_closed
    }

    /// Slots and pages that each table should hold, if `offer` is half done besides the others.
    fn use_beside(&self, offer: Option<&Offer>) -> [(u64, u64); 2] {
        let mut sums = [(0, 0); 2];
        let offered = self.half_done.iter().filter_map(|half| match half {
            HalfDone::Offered(offer, _) | HalfDone::Accepted(offer, _, _) => Some(offer),
            HalfDone::Reserved(..) => None,
        });
        let kept = offered.chain(offer).filter(|offer| self.keeps(offer));
        let kept: Vec<_> = kept.map(|offer| (offer.from, self.objects[offer.object].pages)).collect();
        let mut add = |at: usize, pages| sums[at] = (sums[at].0 + 1, sums[at].1 + pages);
        for (at, list) in self.lists.iter().enumerate() {
            list.entries.iter().for_each(|entry| add(at, self.objects[entry.object].pages));
        }
        for half in &self.half_done {
            match half {
                HalfDone::Reserved(to, pages, _) => add(*to, *pages),
                HalfDone::Accepted(offer, to, _) => add(*to, self.objects[offer.object].pages),
                HalfDone::Offered(..) => {}
            }
        }
        kept.into_iter().for_each(|(at, pages)| add(at, pages));
        sums
    }

    /// What a new slot with so many pages should be answered.
    fn room(&self, table: usize, pages: u64) -> Result<(), CapError> {
        self.room_beside(None, table, pages)
    }

    fn room_beside(&self, offer: Option<&Offer>, table: usize, pages: u64) -> Result<(), CapError> {
        let sums = self.use_beside(offer);
        let (slots, held) = (sums[0].0 + sums[1].0, sums[0].1 + sums[1].1);
        if sums[table].0 + 1 > SLOTS[table] || slots + 1 > SLOTS[2] {
            return Err(NO_SLOT);
        }
        if pages > 0 && (sums[table].1 + pages > PAGES[table] || held + pages > PAGES[2]) {
            return Err(NO_PAGES);
        }
        if self.lists[table].is_closed { Err(CapError::Closed) } else { Ok(()) }
    }

    fn find(&self, table: usize, handle: Handle) -> Result<Expected, CapError> {
        let list = &self.lists[table];
        if list.is_closed {
            return Err(CapError::Closed);
        }
        let entry = list.entries.iter().find(|entry| entry.handle == handle).ok_or(CapError::BadHandle)?;
        if entry.state == HandleState::InTransit { Err(CapError::InTransit) } else { Ok(entry.clone()) }
    }

    /// A handle of the table, mostly; or any that was ever given out.
    fn handle(&self, table: usize, at: usize) -> Option<Handle> {
        let own = &self.lists[table].entries;
        if !at.is_multiple_of(4) && !own.is_empty() {
            return Some(own[at / 4 % own.len()].handle);
        }
        self.handles.get((at / 4).checked_rem(self.handles.len())?).copied()
    }

    fn add(&mut self, table: usize, handle: Handle, object: usize, rights: Rights) {
        assert!(!self.handles.contains(&handle), "a handle is given out once");
        self.handles.push(handle);
        self.lists[table].entries.push(Expected { handle, object, rights, state: HandleState::Live });
    }

    fn new_object(&mut self, pages: u64, binding: Binding) -> (Arc<Thing>, usize) {
        let object = Arc::new(Thing { pages, binding, ends: Arc::default() });
        self.objects.push(Object { weak: Arc::downgrade(&object), pages, binding });
        (object, self.objects.len() - 1)
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Insert(to, pages, rights, binding) => self.insert(to, pages, rights, binding),
            Step::Release(of, at) => self.handle(of, at).into_iter().for_each(|handle| self.release(of, handle)),
            Step::Duplicate(of, at, rights) => {
                self.handle(of, at).into_iter().for_each(|handle| self.duplicate(of, handle, rights));
            }
            Step::Reserve(to, pages) => {
                let reserved = self.tables[to].reserve(PageCount::new(pages));
                assert_eq!(reserved.as_ref().map(drop).map_err(|error| *error), self.room(to, pages));
                self.half_done.extend(reserved.map(|reservation| HalfDone::Reserved(to, pages, reservation)));
            }
            Step::Offer(of, at, mode, rights) => {
                self.handle(of, at).into_iter().for_each(|handle| self.offer(of, handle, mode, rights));
            }
            Step::GoOn(at, to) => {
                if let Some(at) = at.checked_rem(self.half_done.len()) {
                    let half = self.half_done.swap_remove(at);
                    self.go_on(half, to);
                }
            }
            Step::GiveUp(at) => {
                if let Some(at) = at.checked_rem(self.half_done.len()) {
                    let half = self.half_done.swap_remove(at);
                    self.give_up(half);
                }
            }
            Step::Close(table) => {
                self.tables[table].close();
                self.lists[table] = List { entries: Vec::new(), is_closed: true };
            }
        }
    }

    fn insert(&mut self, to: usize, pages: u64, rights: Rights, binding: Binding) {
        let room = self.room(to, pages);
        let (object, number) = self.new_object(pages, binding);
        let inserted = self.tables[to].insert(object, rights);
        assert_eq!(inserted.map(drop), room);
        if let Ok(handle) = inserted {
            self.add(to, handle, number, rights);
        }
    }

    fn release(&mut self, of: usize, handle: Handle) {
        assert_eq!(self.tables[of].release(handle), self.find(of, handle).map(drop));
        self.forget(of, handle, HandleState::Live);
    }

    fn forget(&mut self, of: usize, handle: Handle, state: HandleState) {
        self.lists[of].entries.retain(|entry| entry.handle != handle || entry.state != state);
    }

    fn duplicate(&mut self, of: usize, handle: Handle, rights: Rights) {
        let expected = self.find(of, handle).and_then(|entry| {
            if !entry.rights.contains(rights) {
                return Err(CapError::Rights);
            }
            self.room(of, self.objects[entry.object].pages).map(|()| entry.object)
        });
        let duplicated = self.tables[of].duplicate(handle, rights);
        assert_eq!(duplicated.map(drop), expected.map(drop));
        if let (Ok(duplicate), Ok(object)) = (duplicated, expected) {
            self.add(of, duplicate, object, rights);
        }
    }

    fn offer(&mut self, from: usize, handle: Handle, mode: TransferMode, rights: Rights) {
        let expected = self.find(from, handle).and_then(|entry| {
            if !entry.rights.contains(Rights::TRANSFER) {
                return Err(CapError::Rights);
            }
            if self.objects[entry.object].binding == Binding::Bound {
                return Err(CapError::Bound);
            }
            if entry.rights.contains(rights) { Ok(entry.object) } else { Err(CapError::Rights) }
        });
        let offered = self.tables[from].offer(handle, mode, rights);
        assert_eq!(offered.as_ref().map(drop).map_err(|error| *error), expected.map(drop));
        if let (Ok(transfer), Ok(object)) = (offered, expected) {
            self.half_done.push(HalfDone::Offered(Offer { from, handle, object, rights, mode }, transfer));
            if mode == TransferMode::Move {
                self.set_state(from, handle, HandleState::InTransit);
            }
        }
    }

    fn set_state(&mut self, table: usize, handle: Handle, state: HandleState) {
        let entries = &mut self.lists[table].entries;
        entries.iter_mut().filter(|entry| entry.handle == handle).for_each(|entry| entry.state = state);
    }

    /// The next step of what is half done.
    fn go_on(&mut self, half: HalfDone<'a>, to: usize) {
        match half {
            HalfDone::Reserved(to, pages, reservation) => {
                let (object, number) = self.new_object(pages, Binding::Free);
                let handle = reservation.fill(object, Rights::all());
                if self.lists[to].is_closed {
                    self.handles.push(handle);
                } else {
                    self.add(to, handle, number, Rights::all());
                }
            }
            HalfDone::Offered(offer, transfer) => {
                let room = self.room_beside(Some(&offer), to, self.objects[offer.object].pages);
                let tables = self.tables;
                let reserved = transfer.reserve(&tables[to]);
                assert_eq!(reserved.as_ref().map(drop).map_err(|error| *error), room);
                match reserved {
                    Ok(reserved) => self.half_done.push(HalfDone::Accepted(offer, to, reserved)),
                    Err(_) => self.roll_back(&offer),
                }
            }
            HalfDone::Accepted(offer, to, reserved) => match reserved.commit() {
                Ok(handle) => {
                    assert!(!self.lists[to].is_closed);
                    if offer.mode == TransferMode::Move {
                        self.forget(offer.from, offer.handle, HandleState::InTransit);
                    }
                    self.add(to, handle, offer.object, offer.rights);
                }
                Err(error) => {
                    assert_eq!((error, self.lists[to].is_closed), (CapError::Closed, true));
                    self.roll_back(&offer);
                }
            },
        }
    }

    fn give_up(&mut self, half: HalfDone<'a>) {
        match half {
            HalfDone::Reserved(_, _, reservation) => drop(reservation),
            HalfDone::Offered(offer, transfer) => {
                drop(transfer);
                self.roll_back(&offer);
            }
            HalfDone::Accepted(offer, _, transfer) => {
                drop(transfer);
                self.roll_back(&offer);
            }
        }
    }

    fn roll_back(&mut self, offer: &Offer) {
        if offer.mode == TransferMode::Move {
            self.set_state(offer.from, offer.handle, HandleState::Live);
        }
    }

    fn check(&self, ledger: &ResourceLedger) {
        let sums = self.use_beside(None);
        for (at, table) in self.tables.iter().enumerate() {
            table.check_invariants();
            assert_eq!(used(table.account()), sums[at], "table {at}");
            self.check_handles(at, table);
        }
        assert_eq!(used(ledger.root()), (sums[0].0 + sums[1].0, sums[0].1 + sums[1].1));
        for (number, object) in self.objects.iter().enumerate() {
            let held = self.lists.iter().flat_map(|list| &list.entries).filter(|entry| entry.object == number).count();
            let offered = self.half_done.iter().map(|half| match half {
                HalfDone::Offered(offer, _) | HalfDone::Accepted(offer, _, _) if offer.object == number => {
                    1 + usize::from(self.keeps(offer))
                }
                _ => 0,
            });
            assert_eq!(object.weak.strong_count(), held + offered.sum::<usize>(), "object {number}");
        }
    }

    /// The table's handles are those of the list, and none that was ever given out finds anything else.
    fn check_handles(&self, at: usize, table: &CapTable) {
        let mut expected: Vec<HandleInfo> = Vec::new();
        for entry in &self.lists[at].entries {
            let Expected { handle, rights, state, .. } = *entry;
            expected.push(HandleInfo { handle, interface: Thing::ID, rights, state });
        }
        expected.sort_by_key(|info| info.handle.index());
        let held = table.read();
        assert!(held.handles().eq(expected), "table {at}");
        for handle in &self.handles {
            let found = held.get::<Thing>(*handle, Rights::empty());
            let found = found.map(|(object, rights)| (core::ptr::from_ref(object), rights));
            let expected = self.find(at, *handle);
            assert_eq!(found, expected.map(|entry| (self.objects[entry.object].weak.as_ptr(), entry.rights)));
        }
    }
}

fn limits(at: usize) -> Limits {
    Limits::UNLIMITED.with(Resource::Capabilities, SLOTS[at]).with(Resource::Committed, PAGES[at])
}

/// The objects that were made; nothing is half done any more.
fn run_on(tables: &[CapTable; 2], ledger: &ResourceLedger, steps: &[Step]) -> Vec<Object> {
    let mut run =
        Run { tables, lists: Default::default(), objects: Vec::new(), half_done: Vec::new(), handles: Vec::new() };
    for step in steps {
        run.apply(step);
        run.check(ledger);
    }
    run.objects
}

fn run(steps: &[Step]) {
    let ledger = ResourceLedger::new(limits(2));
    let tables = [0, 1].map(|at| CapTable::new(ledger.root().child(limits(at))));
    let objects = run_on(&tables, &ledger, steps);
    drop(tables);
    assert_eq!(used(ledger.root()), (0, 0));
    assert!(objects.iter().all(|object| object.weak.strong_count() == 0));
}

proptest! {
    #[test]
    fn two_tables_do_what_two_lists_do(steps in vec(step(), 1..120)) {
        run(&steps);
    }
}
