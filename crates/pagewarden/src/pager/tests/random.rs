//! Random requests and accesses, beside a platform that is an array of pages; frames may run out at any of them.

use alloc::sync::Arc;
use std::vec::Vec;

use proptest::prelude::*;

use super::{BASE, World};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::ledger::Limits;
use crate::linux::Request;
use crate::machine::Machine;
use crate::manager::tests::random::request;
use crate::manager::{Access, PageManager, Signal};
use crate::model::Platform;
use crate::page_table::EntryFlags;
use crate::pager::fault::Touch;
use crate::pager::{Fault, KernelSpace, SpacePager};
use crate::provider::{Maps, Op, PageManagementProvider};
use crate::vmmap::Vmmap;

/// Pages that requests name, and some more.
const WINDOW: u64 = 32;
/// Where the kernel has its pages.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// `MADV_FREE`, which keeps or drops: there is no saying what a page holds then.
const FREE: i32 = 8;
/// `MADV_COLLAPSE`, which nobody here knows how to do.
const COLLAPSE: i32 = 25;

/// The pager, and an array of pages that is told the same.
struct Twins {
    pager: SpacePager<Machine>,
    model: Platform,
}

impl PageManagementProvider for Twins {
    fn run(&mut self, op: &Op, maps: Maps<'_>) -> Result<(), Errno> {
        let outcome = self.pager.run(op, maps);
        if outcome.is_ok() || matches!(op, Op::Lock { .. }) {
            let modelled = self.model.run(op, maps);
            assert!(modelled.is_ok() || outcome.is_err(), "{op}");
        } else if let Some(lost) = self.pager.lost_range() {
            self.model.unmap(lost);
        }
        outcome
    }

    fn has_kept(&self, range: PageRange) -> bool {
        self.pager.has_kept(range)
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], map: &Vmmap) -> Result<(), Errno> {
        // Nobody knows what an answer holds that was only begun.
        let _ = (addr, bytes, map);
        Err(Errno::Fault)
    }
}

/// What a guest does.
#[derive(Clone, Debug)]
enum Step {
    Call(Request),
    Store(u64, u64),
    Load(u64),
    /// A page of the kernel's comes or goes.
    Kernel(usize),
    Fork,
    /// Goes on in another of the spaces.
    Switch(usize),
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => request().prop_filter_map("told apart by the model", told).prop_map(Step::Call),
        5 => (0..WINDOW, 1..u64::MAX).prop_map(|(page, word)| Step::Store(page, word)),
        2 => (0..WINDOW).prop_map(Step::Load),
        1 => (0..4_usize).prop_map(Step::Kernel),
        1 => Just(Step::Fork),
        1 => (0..4_usize).prop_map(Step::Switch),
        1 => Just(Step::End),
    ]
}

fn told(request: Request) -> Option<Request> {
    match &request {
        Request::Madvise { advice: FREE | COLLAPSE, .. } => None,
        Request::ProcessMadvise { .. } | Request::Mincore { .. } => None,
        _ => Some(request),
    }
}

type Space = PageManager<Twins>;

/// Handles a fault as [`AddressSpace`](super::AddressSpace) does, with a window around it if there is one.
fn fault(space: &mut Space, address: VirtAddr, access: Access, window: Option<PageRange>) -> Result<(), Fault> {
    space.fault(address, access)?;
    let entry = space.map().get(address).expect("a region where an access is allowed");
    let touch = Touch::new(&entry, address, access);
    if let Some(window) = window {
        space.provider().pager.tables().touch_around(&touch, window);
    }
    space.provider().pager.touch(&touch)
}

fn at(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE_SIZE)
}

struct Run {
    world: World,
    spaces: Vec<Space>,
    now: usize,
    kernel: Arc<KernelSpace<Machine>>,
    /// Which of its pages are mapped.
    of_kernel: [bool; 4],
    /// Shared pages are told to one model alone, so that nothing is known of them after a fork.
    has_forked: bool,
    /// Both processors have their turns, so that each may remember what the other has caused to change.
    turns: usize,
}

impl Run {
    fn new() -> Self {
        let world = World::new(512);
        let kernel = KernelSpace::new(&world.pager, world.ledger.root(), &[VirtAddr::new(KERNEL)]).unwrap();
        world.pager.set_kernel(&kernel).unwrap();
        let pager = SpacePager::new(&world.pager, world.ledger.root()).unwrap();
        let spaces = Vec::from([PageManager::new(world.config(), Twins { pager, model: Platform::default() })]);
        Self { world, spaces, now: 0, kernel, of_kernel: [false; 4], has_forked: false, turns: 0 }
    }

    fn space(&mut self) -> &mut Space {
        &mut self.spaces[self.now]
    }

    fn access(&mut self, page: u64, access: Access, bytes: &mut [u8; 8]) -> Result<(), Fault> {
        let machine = self.world.machine.clone();
        self.turns += 1;
        let processor = self.turns % 3 % 2;
        self.world.run(processor, self.spaces[self.now].provider().pager.tables().frame());
        let length = PageCount::new(self.turns as u64 % 5 * 4);
        let window = PageRange::from_pages(at(page & !(length.get().max(1) - 1)).page_number(), length);
        let space = self.space();
        for _ in 0..8 {
            let done = match access {
                Access::Write => machine.store(processor, at(page), bytes),
                _ => machine.load(processor, at(page), bytes),
            };
            let Err(missed) = done else { return Ok(()) };
            fault(space, missed.address, access, window)?;
        }
        panic!("page {page} faults for ever");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Call(request) => {
                let _ = self.space().call(request);
            }
            Step::Store(page, word) => {
                let is_shared = self.space().map().get(at(*page)).is_some_and(|entry| entry.region.is_shared());
                if is_shared && self.has_forked {
                    return;
                }
                if self.access(*page, Access::Write, &mut word.to_ne_bytes()).is_ok() {
                    let number = at(*page).page_number();
                    self.space().provider_mut().model.write(number, *word);
                }
            }
            Step::Load(page) => self.compare(*page),
            Step::Kernel(number) => self.change_kernel(*number),
            Step::Fork if self.spaces.len() < 4 => self.fork(),
            Step::Fork => {}
            Step::Switch(to) => self.now = to % self.spaces.len(),
            Step::End if self.spaces.len() > 1 => {
                (0..2).for_each(|processor| self.world.machine.deactivate(processor));
                let ended = self.spaces.swap_remove(self.now);
                ended.provider().pager.leave(ended.map());
                self.now = 0;
            }
            Step::End => {}
        }
    }

    /// Maps a page of the kernel's, or unmaps it; both processors see what they have, in whatever space they run.
    fn change_kernel(&mut self, number: usize) {
        let address = VirtAddr::new(KERNEL + number as u64 * PAGE_SIZE);
        let page = PageRange::from_len(address, PAGE_SIZE).unwrap();
        if self.of_kernel[number] {
            self.kernel.unmap(page).unwrap();
            self.of_kernel[number] = false;
        } else {
            let frame = FrameRange::new(FrameNumber::new(512 + number as u64).unwrap(), page.pages()).unwrap();
            let flags = EntryFlags::PRESENT | EntryFlags::USER | EntryFlags::GLOBAL;
            self.of_kernel[number] = self.kernel.map(address, frame, flags).is_ok();
        }
        for processor in 0..2 {
            self.world.run(processor, self.spaces[self.now].provider().pager.tables().frame());
            for (other, is_mapped) in self.of_kernel.iter().enumerate() {
                let address = VirtAddr::new(KERNEL + other as u64 * PAGE_SIZE);
                assert_eq!(self.world.machine.load(processor, address, &mut [0]).is_ok(), *is_mapped);
            }
        }
    }

    fn fork(&mut self) {
        let account = self.world.ledger.root().child(Limits::UNLIMITED);
        let space = &mut self.spaces[self.now];
        let pending = space.prepare_fork(account.clone()).unwrap();
        let Ok(pager) = space.provider().pager.fork(&account, space.map()) else { return };
        let model = space.provider().model.fork();
        self.spaces.push(pending.finish(Twins { pager, model }));
        self.has_forked = true;
    }

    /// Compares what a page holds with what the model says, if it can be read.
    fn compare(&mut self, page: u64) {
        let mut bytes = [0; 8];
        let is_shared = self.space().map().get(at(page)).is_some_and(|entry| entry.region.is_shared());
        let outcome = self.access(page, Access::Read, &mut bytes);
        let expected = self.space().provider().model.read(at(page).page_number());
        match outcome {
            Ok(()) if is_shared && self.has_forked => {}
            Ok(()) => assert_eq!(Some(u64::from_ne_bytes(bytes)), expected, "page {page} of space {}", self.now),
            Err(Fault::Signal(signal)) if signal.signal == Signal::Bus => {}
            Err(_) => {}
        }
    }

    fn check(&mut self) {
        for space in &self.spaces {
            space.check_invariants();
            space.provider().model.check(space.map());
            space.provider().pager.check_invariants(space.map());
        }
        self.kernel.check_invariants();
        let frames = self.world.pager.frames();
        frames.check_invariants();
        let spaces: Vec<_> = self.spaces.iter().map(|space| &**space.provider().pager.tables()).collect();
        assert_eq!(self.world.stale(&spaces), None);
    }

    fn compare_all(&mut self) {
        for now in 0..self.spaces.len() {
            self.now = now;
            (0..WINDOW).for_each(|page| self.compare(page));
        }
    }

    fn end(mut self) {
        for space in self.spaces.drain(..) {
            space.provider().pager.leave(space.map());
        }
        drop(self.kernel);
        self.world.check_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn pages_hold_what_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            run.check();
        }
        run.compare_all();
        run.end();
    }

    #[test]
    fn a_frame_that_is_missing_leaves_no_trace(
        steps in prop::collection::vec((step(), prop::option::of(0..6_u64)), 1..60),
    ) {
        let mut run = Run::new();
        for (step, fails) in &steps {
            if let Some(operation) = fails {
                run.world.frame_taken.fail_since(*operation);
            }
            run.step(step);
            run.world.frame_taken.disarm();
            run.check();
        }
        run.compare_all();
        run.check();
        run.end();
    }
}
