//! The machine and the model side by side, and everything that can be compared.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::{format, vec};
use std::string::String;
use std::vec::Vec;

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::cap::{
    FixedPlaces, FrameAllocatorCap, Handle, HandleState, Interface, MemoryCap, Process, Rights, VirtualMemory,
};
use crate::ledger::{Account, Limits, Resource};
use crate::machine::{Machine, MachineConfig};
use crate::manager::{self, Break, Layout, SpaceConfig};
use crate::model::capability::{
    Access, Answer, BUDGET, Call, Capability, Denial, Life, Model, Name, POOL, Page, ROOT, Run, Step, Target, Value,
};
use crate::object::MemoryObject;
use crate::pager::Fault;
use crate::pager::tests as pager;
use crate::region::{Region, RegionFlags};
use crate::vmmap::Direction;

/// Processors for each process, which take turns: what one remembers the other may have caused to change.
const PROCESSORS: usize = 2;
/// Processes that have processors of their own.
const PROCESSES: usize = 4;

/// Where a space begins. Pages from 14 on have a table of their own: where nothing in it is fixed or an object's, a child
/// shares it.
const BASE: u64 = (2 << 20) - 14 * PAGE_SIZE;
/// Invariants take much longer to look at than everything else.
const INVARIANTS_EVERY: usize = 4;

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Pages of a space.
    pub(super) pages: u64,
    /// Where its capability set and its ring are.
    pub(super) fixed: [u64; 2],
    /// Frames of the machine.
    pub(super) frames: u64,
}

/// What a process is given besides its space.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given {
    Frames(Rights),
    Space(Rights),
}

/// The machine, and what the model says of it.
pub(super) struct World {
    pub(super) real: pager::World,
    pub(super) model: Model,
    scope: Scope,
    /// Those of the model, in its order.
    accounts: Vec<Account>,
    pub(super) processes: Vec<Option<Process<Machine>>>,
    /// All handles that were ever given out, as the model counts them.
    pub(super) handles: Vec<Vec<Handle>>,
    /// What the objects of the model turned out to be when they were first seen mapped.
    objects: BTreeMap<usize, Weak<MemoryObject>>,
    turns: usize,
    checks: usize,
}

impl World {
    /// Nobody, and no limits.
    pub(super) fn new(scope: Scope) -> Self {
        let processors = PROCESSORS * PROCESSES;
        let config = MachineConfig { frames: scope.frames, processors, ..MachineConfig::default() };
        let real = pager::World::on(Machine::new(config), scope.frames);
        let accounts = new_accounts(&real);
        let model = Model::new(scope.pages, scope.fixed);
        let (processes, handles, objects) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { real, model, scope, accounts, processes, handles, objects, turns: 0, checks: 0 }
    }

    fn config(&self, account: Account) -> SpaceConfig {
        let end = VirtAddr::new(BASE + self.scope.pages * PAGE_SIZE);
        let start = VirtAddr::new(BASE);
        // All that there is of the space is the window that the model has.
        let layout = Layout {
            task_end: end,
            mmap_base: end,
            bottom_up_base: start,
            direction: Direction::TopDown,
            min_addr: start,
            min_fixed_addr: start,
        };
        SpaceConfig { brk: Break::default(), ..SpaceConfig::new(layout, account) }
    }

    /// A process more, on both sides.
    pub(super) fn add_process(&mut self, given: &[Given]) -> usize {
        let number = self.processes.len();
        let account = self.accounts[BUDGET].child(Limits::UNLIMITED);
        let [capability_set, ring] = self.scope.fixed.map(|page| VirtAddr::new(address(page)));
        let places = FixedPlaces { capability_set, ring };
        let process = Process::new(&self.real.pager, self.config(account.clone()), places).unwrap();
        let mut handles = vec![process.memory()];
        let mut modelled = Vec::new();
        for one in given {
            let name = *b"given\0\0\0";
            let (handle, target) = match one {
                Given::Frames(rights) => {
                    let frames = FrameAllocatorCap::new(&self.real.pager, self.accounts[POOL].clone());
                    (process.give(Arc::new(frames), *rights, name), (Target::Frames, *rights))
                }
                Given::Space(rights) => {
                    let space = VirtualMemory::new(Arc::clone(process.space()));
                    (process.give(Arc::new(space), *rights, name), (Target::Space(number), *rights))
                }
            };
            handles.push(handle.unwrap());
            modelled.push(target);
        }
        self.note_process(process, account, handles);
        self.model.add_process(&modelled)
    }

    pub(super) fn note_process(&mut self, process: Process<Machine>, account: Account, handles: Vec<Handle>) {
        self.processes.push(Some(process));
        self.accounts.push(account);
        self.handles.push(handles);
    }

    pub(super) fn account(&self, number: usize) -> &Account {
        &self.accounts[number]
    }

    pub(super) fn process(&self, number: usize) -> &Process<Machine> {
        self.processes[number].as_ref().unwrap_or_else(|| panic!("process {number} is gone"))
    }

    /// Does a step on both sides, and compares what they answer.
    pub(super) fn step(&mut self, step: &Step) {
        let (next, expected) = self.model.after(step);
        let answer = self.perform(step);
        compare(step, &expected, answer);
        self.model = next;
    }

    /// An access of a guest, by one of the processors of its process, with faults handled.
    pub(super) fn access(&mut self, by: usize, page: u64, access: Access) -> Result<u8, Fault> {
        self.turns += 1;
        let processor = by % PROCESSES * PROCESSORS + self.turns % PROCESSORS;
        let space = Arc::clone(self.process(by).space());
        self.real.run(processor, space.root());
        let (machine, at) = (&self.real.machine, VirtAddr::new(address(page)));
        let mut byte = [0];
        for _ in 0..8 {
            let (done, kind) = match access {
                Access::Load => (machine.load(processor, at, &mut byte), manager::Access::Read),
                Access::Fetch => (machine.fetch(processor, at, &mut byte), manager::Access::Execute),
                Access::Store(new) => (machine.store(processor, at, &[new]), manager::Access::Write),
            };
            match done {
                Ok(()) => return Ok(byte[0]),
                Err(fault) => space.fault(fault.address, kind)?,
            }
        }
        panic!("page {page} faults for ever");
    }

    /// No processor runs in the space of a process that is about to go.
    pub(super) fn leave(&self, number: usize) {
        let root = self.process(number).space().root();
        for processor in 0..self.real.machine.processors() {
            if self.real.machine.active(processor) == Some(root) {
                self.real.machine.deactivate(processor);
            }
        }
    }

    /// Compares everything that can be seen without touching a page; at times everybody looks at himself too.
    pub(super) fn check(&mut self) {
        let model = self.model.clone();
        if let Some(difference) = self.difference(&model) {
            panic!("{difference}");
        }
        self.checks += 1;
        if self.checks.is_multiple_of(INVARIANTS_EVERY) {
            self.check_invariants();
        }
    }

    fn check_invariants(&self) {
        self.processes.iter().flatten().for_each(Process::check_invariants);
        self.real.pager.frames().check_invariants();
    }

    /// The first thing in which `model` is not what is real.
    pub(super) fn difference(&mut self, model: &Model) -> Option<String> {
        for number in 0..model.processes.len() {
            if model.processes[number].life == Life::Gone {
                continue;
            }
            for page in 0..self.scope.pages {
                let (shape, real) = (shape(model.page(number, page)), self.real_page(model, number, page));
                if shape != real {
                    return Some(format!("page {page} of process {number}: model {shape:?}, real {real:?}"));
                }
            }
            let (expected, real) = (self.model_handles(model, number), self.real_handles(number));
            if expected != real {
                return Some(format!("handles of process {number}: model {expected:?}, real {real:?}"));
            }
        }
        self.ledger_difference(model)
    }

    fn ledger_difference(&self, model: &Model) -> Option<String> {
        for number in 0..model.accounts() {
            for resource in Resource::ALL {
                // The pager's own zero frame.
                let own = u64::from(number == ROOT && resource == Resource::Frames);
                let Some(expected) = model.used(number, resource) else { continue };
                let used = self.accounts[number].used(resource) - own;
                if used != expected {
                    return Some(format!("{resource:?} of account {number}: model {expected}, real {used}"));
                }
            }
        }
        None
    }

    /// What a page really is, in the words of the model, without what it holds.
    fn real_page(&mut self, model: &Model, number: usize, page: u64) -> Page {
        let at = VirtAddr::new(address(page));
        let region = self
            .process(number)
            .space()
            .with_manager(|manager| manager.map().get(at).map(|entry| entry.region.clone()));
        let Some(region) = region else { return Page::Free };
        let prot = region.prot;
        let reserved = RegionFlags::RESERVATION;
        let borrowed = RegionFlags::SHARED | RegionFlags::BORROWED | RegionFlags::DONT_EXPAND;
        match region.flags {
            flags if flags.contains(RegionFlags::FIXED) => Page::Fixed { prot, byte: 0 },
            flags if flags == borrowed => {
                let expected = match model.page(number, page) {
                    Page::Borrowed { object, .. } => Some(object),
                    _ => None,
                };
                let object = self.identify(&region, expected);
                Page::Borrowed { object, index: region.page_offset(at), prot, prot_max: region.prot_max }
            }
            flags if flags == reserved => Page::Reserved { prot },
            flags if flags == reserved | RegionFlags::COMMITTED => Page::Committed { prot, byte: None },
            flags if flags.is_empty() || flags == RegionFlags::COMMITTED => {
                Page::Linux { prot, is_charged: !flags.is_empty(), byte: None }
            }
            flags => panic!("page {page} of process {number} is {flags:?}"),
        }
    }

    /// The number that the model has for the object of a region. One that was never seen mapped is what the model says it
    /// is: it is held to that from then on.
    fn identify(&mut self, region: &Region, expected: Option<usize>) -> usize {
        let object = region.object().expect("an object that is borrowed from");
        let is_this = |known: &Weak<MemoryObject>| core::ptr::eq(known.as_ptr(), Arc::as_ptr(object));
        if let Some((known, _)) = self.objects.iter().find(|(_, known)| is_this(known)) {
            return *known;
        }
        match expected.filter(|number| !self.objects.contains_key(number)) {
            Some(number) => {
                self.objects.insert(number, Arc::downgrade(object));
                number
            }
            None => usize::MAX,
        }
    }

    fn model_handles(&self, model: &Model, number: usize) -> Vec<(Handle, u64, Rights, HandleState)> {
        let live = model.processes[number].handles.iter().zip(&self.handles[number]);
        let mut all: Vec<_> = live
            .filter_map(|(capability, handle)| {
                let capability = (*capability)?;
                let interface = match capability.target {
                    Target::Frames => FrameAllocatorCap::<Machine>::ID,
                    Target::Space(_) => VirtualMemory::<Machine>::ID,
                    Target::Memory(_) => MemoryCap::<Machine>::ID,
                };
                Some((*handle, interface.0, capability.rights, HandleState::Live))
            })
            .collect();
        all.sort_unstable_by_key(|(handle, ..)| *handle);
        all
    }

    fn real_handles(&self, number: usize) -> Vec<(Handle, u64, Rights, HandleState)> {
        let table = self.process(number).table().read();
        let mut all: Vec<_> =
            table.handles().map(|info| (info.handle, info.interface.0, info.rights, info.state)).collect();
        all.sort_unstable_by_key(|(handle, ..)| *handle);
        all
    }

    /// Loads and fetches from every page, and tries stores where there must be none.
    pub(super) fn touch_all(&mut self) {
        let model = self.model.clone();
        if let Some(difference) = self.touched_difference(&model) {
            panic!("{difference}");
        }
        for (by, page) in self.all_pages() {
            if !self.model.has_frame(by, page) {
                self.step(&touch(by, page, Access::Load));
            }
        }
    }

    fn all_pages(&self) -> Vec<(usize, u64)> {
        let alive = (0..self.processes.len()).filter(|by| self.processes[*by].is_some());
        alive.flat_map(|by| (0..self.scope.pages).map(move |page| (by, page))).collect()
    }

    /// The first access that does not do what `model` says, of those that change nothing that can be seen.
    pub(super) fn touched_difference(&mut self, model: &Model) -> Option<String> {
        for (by, page) in self.all_pages() {
            for access in [Access::Load, Access::Fetch, Access::Store(0xff)] {
                let expected = model.may_touch(by, page, access);
                let would_change = access == Access::Store(0xff) || !model.has_frame(by, page);
                if expected.is_ok() && would_change {
                    continue;
                }
                let real = self.access(by, page, access).map_err(Denial::from);
                if real != expected.map_err(Denial::Signal) {
                    return Some(format!("{access:?}, page {page} of process {by}: model {expected:?}, real {real:?}"));
                }
            }
        }
        self.held_difference(model)
    }

    /// The first handle whose window does not hold what `model` says.
    fn held_difference(&mut self, model: &Model) -> Option<String> {
        for (process, held) in model.processes.iter().enumerate() {
            for (number, capability) in held.handles.iter().enumerate() {
                let Some(Capability { target: Target::Memory(memory), .. }) = capability else { continue };
                let (part, name) = (Run::new(0, memory.pages), Name::Given { process, number });
                let steps = [Call::Info { memory: name }, Call::Read { memory: name, part }];
                for step in steps.map(|call| Step { by: process, call }) {
                    let (expected, real) = (model.after(&step).1, self.perform(&step));
                    if !is_alike(&expected, &real) {
                        return Some(format!("{step:?}: model {expected:?}, real {real:?}"));
                    }
                }
            }
        }
        None
    }

    /// Everybody goes, and nothing is left.
    pub(super) fn end(&mut self) {
        for number in 0..self.processes.len() {
            if self.processes[number].is_some() {
                self.step(&Step { by: number, call: Call::End });
                self.check();
            }
        }
        self.check_invariants();
        self.real.check_empty();
    }

    /// The world begins anew, on the same machine.
    pub(super) fn renew(&mut self) {
        self.end();
        self.accounts = new_accounts(&self.real);
        self.model = Model::new(self.scope.pages, self.scope.fixed);
        self.processes.clear();
        self.handles.clear();
        self.objects.clear();
    }
}

/// The root, a budget below it, a pool below that.
fn new_accounts(real: &pager::World) -> Vec<Account> {
    let budget = real.ledger.root().child(Limits::UNLIMITED);
    vec![real.ledger.root().clone(), budget.clone(), budget.child(Limits::UNLIMITED)]
}

pub(super) const fn address(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

pub(super) const fn touch(by: usize, page: u64, access: Access) -> Step {
    Step { by, call: Call::Touch { page, access } }
}

/// A page without what it holds.
const fn shape(page: Page) -> Page {
    match page {
        Page::Committed { prot, .. } => Page::Committed { prot, byte: None },
        Page::Linux { prot, is_charged, .. } => Page::Linux { prot, is_charged, byte: None },
        Page::Fixed { prot, .. } => Page::Fixed { prot, byte: 0 },
        other => other,
    }
}

/// Whether the real answer is the model's, or one of the reasons that it has.
fn is_alike(expected: &Answer, real: &Result<Value, Denial>) -> bool {
    match (expected, real) {
        (Ok(expected), Ok(real)) => expected == real,
        (Err(reasons), Err(denial)) => reasons.contains(denial),
        _ => false,
    }
}

/// Panics unless the answers are alike.
pub(super) fn compare(step: &Step, expected: &Answer, real: Result<Value, Denial>) {
    assert!(is_alike(expected, &real), "{step:?}: model {expected:?}, real {real:?}");
}
