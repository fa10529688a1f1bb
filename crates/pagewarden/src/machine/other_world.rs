//! Another world in the machine: memory that is not the pager's, an agent that changes it, and windows of ours on it.
//!
//! What is written over [`phys`](crate::phys) runs on it as beside a real guest or device, and a test decides what the
//! other world does, and when.
//!
//! # What is modelled
//! - Foreign memory is a run of frames of the machine that no pager has.
//! - Windows are pages of user code in tables of their own, and a processor runs with these tables: rights, remembered
//!   translations and flushes are the machine's.
//! - Accesses go in steps. A step is 1, 2, 4 or 8 bytes that are aligned, the most that address and rest allow, or one
//!   exchange of a word. No step is torn; before each, the agent has a turn and may do whatever it is able to.
//! - The platform says per frame what the other world may do ([`OtherAccess`]). Accesses that it may not make change
//!   nothing, and tell it so.
//! - A frame may vanish, for both worlds: our step on it faults, as if memory had been unplugged. What it held is there
//!   again when it is given back.
//!
//! # What is not modelled
//! Steps that others see in another order than that of the program, and caches. The agent acts between two steps of ours
//! and not beside them; who wants both at once has threads call [`OtherWorld::act`].
//!
//! # Locks
//! One, around all that the other world does: so when the platform has taken a right away, no access under way
//! has it any more. It is held with no other of the machine. Whoever acts under it must not use a window, as this would
//! give the agent its next turn: on one thread that never ends.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use super::{Machine, Ticks, bytes_in_page, further};
use crate::addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};
use crate::error::Errno;
use crate::frame::{FrameNumber, FrameRange};
use crate::ledger::Account;
use crate::manager::Access;
use crate::mmu::PhysMem;
use crate::page_table::EntryFlags;
use crate::pager::Pager;
use crate::phys::{CopyFault, OtherAccess, PageTableWindows, PhysError, WindowAccess, WindowProcessor, WordWidth};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

bitflags::bitflags! {
    /// What is said of a foreign frame.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct State: u32 {
        /// The other world may load.
        const LOAD = 1;
        /// The other world may store.
        const STORE = 2;
        /// It is nobody's for now.
        const GONE = 4;
    }
}

/// Somebody of the other world. It has a turn before each step of ours.
pub trait Agent: Send {
    /// Does what it likes to. See [the module](self) for what it must not.
    fn turn(&mut self, side: &OtherSide<'_>);
}

impl<F: FnMut(&OtherSide<'_>) + Send> Agent for F {
    fn turn(&mut self, side: &OtherSide<'_>) {
        self(side);
    }
}

/// An access of the other world that it may not make; nothing was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The first byte that is out of its reach.
    pub at: u64,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the other world may not do that at {:#x}", self.at)
    }
}

impl core::error::Error for Refused {}

/// Memory of another world, and who changes it.
pub struct OtherWorld {
    machine: Arc<Machine>,
    frames: FrameRange,
    /// [`State`] of each frame.
    states: Box<[AtomicU32]>,
    /// Held by whoever acts in the other world.
    agent: Mutex<Option<Box<dyn Agent>>>,
    steps: AtomicU64,
}

impl fmt::Debug for OtherWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtherWorld({:?}, {} steps)", self.frames, self.steps())
    }
}

impl OtherWorld {
    /// A world whose memory is `frames`, which no pager of ours has. Nobody acts in it yet.
    ///
    /// # Panics
    /// If the machine has no such frames.
    pub fn new(machine: &Arc<Machine>, frames: FrameRange) -> Self {
        assert!(frames.end() <= machine.frames(), "{frames:?} of a machine with {} frames", machine.frames());
        Self {
            machine: machine.clone(),
            frames,
            states: frames.iter().map(|_| AtomicU32::new((State::LOAD | State::STORE).bits())).collect(),
            agent: Mutex::new(None),
            steps: AtomicU64::new(0),
        }
    }

    /// Its memory.
    pub const fn frames(&self) -> FrameRange {
        self.frames
    }

    /// A window space at `space`, and `processor` runs with its tables from now on.
    ///
    /// # Errors
    /// As [`PageTableWindows::new`].
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn windows(
        self: &Arc<Self>,
        pager: &Arc<Pager<Machine>>,
        account: &Account,
        space: PageRange,
        processor: usize,
    ) -> Result<PageTableWindows<Machine, OurProcessor>, PhysError> {
        let windows = PageTableWindows::new(pager, account, space, self.processor(processor))?;
        self.machine.activate(processor, windows.root());
        Ok(windows)
    }

    /// A processor of ours, for windows in whatever tables it runs with.
    pub fn processor(self: &Arc<Self>, processor: usize) -> OurProcessor {
        OurProcessor { world: self.clone(), processor }
    }

    /// Has `agent` act from now on, in the place of whoever did.
    pub fn set_agent(&self, agent: impl Agent + 'static) {
        *self.agent.lock() = Some(Box::new(agent));
    }

    /// Has nobody act any more.
    pub fn dismiss_agent(&self) {
        *self.agent.lock() = None;
    }

    /// Lets the caller act as the other world.
    pub fn act<T>(&self, act: impl FnOnce(&OtherSide<'_>) -> T) -> T {
        let _turn = self.agent.lock();
        act(&OtherSide(self))
    }

    /// How many steps of ours there were.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn turn(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        if let Some(agent) = &mut *self.agent.lock() {
            agent.turn(&OtherSide(self));
        }
    }

    /// What is said of a frame; `None` if it is not foreign.
    fn state(&self, frame: FrameNumber) -> Option<&AtomicU32> {
        let index = frame.get().checked_sub(self.frames.first().get())?;
        self.states.get(usize::try_from(index).ok()?)
    }

    fn has(&self, frame: FrameNumber, needed: State) -> bool {
        let state =
            self.state(frame).map_or(State::GONE, |state| State::from_bits_retain(state.load(Ordering::Acquire)));
        state.contains(needed) && !state.contains(State::GONE)
    }

    #[track_caller]
    fn change(&self, frame: FrameNumber, change: impl FnOnce(&AtomicU32)) {
        change(self.state(frame).unwrap_or_else(|| panic!("{frame} is not foreign")));
    }
}

/// What the other world can do, as long as somebody acts in it.
pub struct OtherSide<'w>(&'w OtherWorld);

impl fmt::Debug for OtherSide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtherSide({:?})", self.0.frames)
    }
}

impl OtherSide<'_> {
    /// Loads bytes.
    ///
    /// # Errors
    /// It may not load all of them.
    pub fn load(&self, from: PhysAddr, to: &mut [u8]) -> Result<(), Refused> {
        self.check(from, to.len(), State::LOAD)?;
        for (place, part) in parts(from, to.len()) {
            self.0.machine.read(place, &mut to[part]);
        }
        Ok(())
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// It may not store all of them.
    pub fn store(&self, to: PhysAddr, from: &[u8]) -> Result<(), Refused> {
        self.check(to, from.len(), State::STORE)?;
        for (place, part) in parts(to, from.len()) {
            self.0.machine.write(place, &from[part]);
        }
        Ok(())
    }

    /// Replaces the word at `at` by `new` if it is `current`.
    ///
    /// # Errors
    /// It may not load and store there.
    ///
    /// # Panics
    /// If `at` is no multiple of 8.
    pub fn compare_exchange(&self, at: PhysAddr, current: u64, new: u64) -> Result<Result<(), u64>, Refused> {
        self.check(at, size_of::<u64>(), State::LOAD | State::STORE)?;
        Ok(PhysMem::compare_exchange(&*self.0.machine, at, current, new))
    }

    /// Makes a frame vanish, until it is given back.
    ///
    /// # Panics
    /// If it is not foreign.
    #[track_caller]
    pub fn take_away(&self, frame: FrameNumber) {
        self.0.change(frame, |state| {
            state.fetch_or(State::GONE.bits(), Ordering::AcqRel);
        });
    }

    /// Gives a frame back that has vanished.
    ///
    /// # Panics
    /// If it is not foreign.
    #[track_caller]
    pub fn give_back(&self, frame: FrameNumber) {
        self.0.change(frame, |state| {
            state.fetch_and(!State::GONE.bits(), Ordering::AcqRel);
        });
    }

    fn check(&self, start: PhysAddr, len: usize, needed: State) -> Result<(), Refused> {
        let end = start.as_u64().saturating_add(len as u64);
        let mut frames = start.as_u64() / PAGE_SIZE..end.div_ceil(PAGE_SIZE);
        let can_reach = |number: &u64| FrameNumber::new(*number).is_some_and(|frame| self.0.has(frame, needed));
        match frames.find(|number| !can_reach(number)) {
            Some(number) if len > 0 => Err(Refused { at: start.as_u64().max(number * PAGE_SIZE) }),
            _ => Ok(()),
        }
    }
}

/// The parts of a span, which exists, in each frame: where it is, and which of the bytes.
fn parts(start: PhysAddr, len: usize) -> impl Iterator<Item = (PhysAddr, Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let place = start.checked_add(done as u64).filter(|_| done < len)?;
        let part = done..done + bytes_in_page(VirtAddr::new(place.as_u64()), len - done);
        done = part.end;
        Some((place, part))
    })
}

/// A processor of ours that reaches windows on foreign memory.
#[derive(Debug)]
pub struct OurProcessor {
    world: Arc<OtherWorld>,
    processor: usize,
}

impl OurProcessor {
    /// Does `act` at the place that `address` leads to, after the agent's turn. `None` for a fault.
    fn step<T>(&self, address: VirtAddr, access: Access, act: impl FnOnce(PhysAddr) -> T) -> Option<T> {
        self.world.turn();
        let is_here = |place| self.world.has(FrameNumber::containing(place), State::empty());
        let act = |place| is_here(place).then(|| act(place));
        self.world.machine.reach(self.processor, address, access, act).ok().flatten()
    }

    /// Hands over each step of a copy: where it goes, and which of the bytes.
    fn copy(
        &self,
        start: VirtAddr,
        len: usize,
        access: Access,
        mut each: impl FnMut(PhysAddr, Range<usize>),
    ) -> Result<(), CopyFault> {
        let mut copied = 0;
        while copied < len {
            let address = further(start, copied);
            let part = copied..copied + step_bytes(address, len - copied);
            let end = part.end;
            self.step(address, access, |place| each(place, part)).ok_or(CopyFault { copied })?;
            copied = end;
        }
        Ok(())
    }
}

/// How long the step is that begins at `address`, with so many bytes left.
fn step_bytes(address: VirtAddr, left: usize) -> usize {
    [8, 4, 2].into_iter().find(|bytes| address.as_u64().is_multiple_of(*bytes as u64) && *bytes <= left).unwrap_or(1)
}

/// # Panics
/// If the processor runs in no space.
impl WindowAccess for OurProcessor {
    fn load(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        self.copy(from, to.len(), Access::Read, |place, part| self.world.machine.read(place, &mut to[part]))
    }

    fn store(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        self.copy(to, from.len(), Access::Write, |place, part| self.world.machine.write(place, &from[part]))
    }

    fn compare_exchange(&self, at: VirtAddr, width: WordWidth, current: u64, new: u64) -> Result<u64, CopyFault> {
        if !at.as_u64().is_multiple_of(width.bytes() as u64) {
            return Err(CopyFault { copied: 0 });
        }
        let machine = &*self.world.machine;
        let exchanged = self.step(at, Access::Write, |place| match width {
            WordWidth::Four => exchange_half(machine, place, current, new),
            WordWidth::Eight => match PhysMem::compare_exchange(machine, place, current, new) {
                Ok(()) => current,
                Err(found) => found,
            },
        });
        exchanged.ok_or(CopyFault { copied: 0 })
    }
}

/// Exchanges 4 of the 8 bytes that the machine exchanges at once; what was in them. The others stay whatever they are.
fn exchange_half(machine: &Machine, place: PhysAddr, current: u64, new: u64) -> u64 {
    const HALF: u64 = u32::MAX as u64;
    let shift = place.as_u64() % 8 * 8;
    let word = PhysAddr::new(place.as_u64() & !7).unwrap_or(place);
    let mut whole = PhysMem::load(machine, word);
    loop {
        let half = whole >> shift & HALF;
        if half != current & HALF {
            return half;
        }
        let wanted = whole & !(HALF << shift) | (new & HALF) << shift;
        match PhysMem::compare_exchange(machine, word, whole, wanted) {
            Ok(()) => return half,
            Err(now) => whole = now,
        }
    }
}

impl WindowProcessor for OurProcessor {
    type Events = Ticks;

    /// The machine has no accesses but those of user code.
    const LEAF: EntryFlags = EntryFlags::USER;

    fn is_foreign(&self, frame: FrameNumber) -> bool {
        self.world.frames.contains(frame)
    }

    fn set_other_access(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        if !frames.iter().all(|frame| self.is_foreign(frame)) {
            return Err(PhysError::Platform(Errno::Inval));
        }
        let allowed = match access {
            OtherAccess::None => State::empty(),
            OtherAccess::Read => State::LOAD,
            OtherAccess::Full => State::LOAD | State::STORE,
        };
        self.world.act(|_| {
            for state in frames.iter().filter_map(|frame| self.world.state(frame)) {
                state.fetch_and(State::GONE.bits(), Ordering::AcqRel);
                state.fetch_or(allowed.bits(), Ordering::AcqRel);
            }
        });
        Ok(())
    }
}
