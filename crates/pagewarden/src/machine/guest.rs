//! A guest: random loads, stores, fetches and exchanges, and a shadow memory that says what each must find.
//!
//! Whoever tests a pager says which areas there are and what may be done in them, and hands over how faults are handled.
//! The same seed gives the same program, as long as the areas are the same. The shadow is the guest's own: two guests
//! whose pages are shared do not know of each other's stores.
//!
//! An access that its area allows must succeed, after as many faults as it takes but for a fault loop, and find what
//! the shadow has. One that it forbids must be refused and change nothing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use super::numbers::Numbers;
use super::{Machine, PageFault, bytes_in_page, further};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::manager::Access;
use crate::prot::Prot;

/// An access may fault so often for each page that it touches; after that it would for ever.
pub const MAX_FAULTS: u64 = 8;

/// How long accesses are: mostly a word.
const LENGTHS: [u64; 9] = [1, 2, 4, 8, 8, 8, 8, 15, 64];
/// A few reach into a third page.
const LONGEST: u64 = PAGE_SIZE + 8;
/// The longest of [`LENGTHS`] but one: a buffer of this size does for nearly all accesses.
const PAGE_BYTES: usize = crate::addr::PAGE_LEN;

/// Pages that a guest uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// Where.
    pub range: PageRange,
    /// The accesses that must succeed; all others must be refused. To the letter: where what can be stored to can be
    /// loaded too, both are named.
    pub allowed: Prot,
}

/// What is wrong with the memory of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure<E> {
    /// The handler has refused an access that is allowed. The guest may go on: it knows which bytes are stored.
    Refused {
        /// The fault that the handler was called for.
        fault: PageFault,
        /// What it said.
        reason: E,
    },
    /// The handler finds nothing wrong, and the access faults again.
    FaultLoop(PageFault),
    /// A byte is not what was stored there.
    Wrong {
        /// Which.
        address: VirtAddr,
        /// What was stored, or 0.
        expected: u8,
        /// What was found.
        found: u8,
    },
    /// An access has succeeded that is not allowed.
    Allowed {
        /// Where it began.
        address: VirtAddr,
        /// What it was.
        access: Access,
    },
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { fault, reason } => write!(f, "refused: {fault}: {reason}"),
            Self::FaultLoop(fault) => write!(f, "faults for ever: {fault}"),
            Self::Wrong { address, expected, found } => {
                write!(f, "{found:#04x} at {address} and not {expected:#04x}")
            }
            Self::Allowed { address, access } => write!(f, "{access:?} at {address} is forbidden and was possible"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for Failure<E> {}

/// What memory must hold: the bytes that were stored, and 0 elsewhere.
#[derive(Clone, Default)]
pub struct Shadow(BTreeMap<u64, Box<[u8; PAGE_BYTES]>>);

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shadow({} pages)", self.0.len())
    }
}

impl Shadow {
    /// The bytes from `address` on.
    pub fn read(&self, address: VirtAddr, to: &mut [u8]) {
        let (mut address, mut rest) = (address, to);
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(bytes_in_page(address, rest.len()));
            match self.0.get(&address.page_number()) {
                Some(page) => part.copy_from_slice(&page[offset(address)..][..part.len()]),
                None => part.fill(0),
            }
            address = further(address, part.len());
            rest = after;
        }
    }

    /// From `address` on there are these bytes now.
    pub fn write(&mut self, address: VirtAddr, from: &[u8]) {
        let (mut address, mut rest) = (address, from);
        while !rest.is_empty() {
            let (part, after) = rest.split_at(bytes_in_page(address, rest.len()));
            let page = self.0.entry(address.page_number()).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[offset(address)..][..part.len()].copy_from_slice(part);
            address = further(address, part.len());
            rest = after;
        }
    }

    /// All of `range` is 0 now.
    pub fn clear(&mut self, range: PageRange) {
        self.0.retain(|page, _| !(range.first_page()..range.end_page()).contains(page));
    }
}

/// How far into its page `address` is.
fn offset(address: VirtAddr) -> usize {
    PAGE_BYTES - bytes_in_page(address, PAGE_BYTES)
}

/// How many accesses a guest has made at random.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Loads.
    pub loads: u64,
    /// Stores.
    pub stores: u64,
    /// Instruction fetches.
    pub fetches: u64,
    /// Words compared and exchanged, or not because they differed.
    pub exchanges: u64,
    /// Accesses that were forbidden and refused.
    pub refused: u64,
}

/// A program that runs on one processor of a machine, which must be active in the guest's space.
#[derive(Debug)]
pub struct Guest<'machine> {
    machine: &'machine Machine,
    processor: usize,
    numbers: Numbers,
    areas: Vec<Area>,
    shadow: Shadow,
    tally: Tally,
}

impl<'machine> Guest<'machine> {
    /// A guest that has no memory yet.
    pub fn new(machine: &'machine Machine, processor: usize, seed: u64) -> Self {
        let numbers = Numbers::new(seed);
        Self { machine, processor, numbers, areas: Vec::new(), shadow: Shadow::default(), tally: Tally::default() }
    }

    /// A guest on `processor` that starts with the same memory and goes its own way.
    #[must_use]
    pub fn fork(&self, processor: usize, seed: u64) -> Self {
        let mut child = Guest::new(self.machine, processor, seed);
        child.areas.clone_from(&self.areas);
        child.shadow = self.shadow.clone();
        child
    }

    /// From now on the guest runs on `processor`.
    pub const fn move_to(&mut self, processor: usize) {
        self.processor = processor;
    }

    /// There is new memory, full of 0, in place of what was there.
    pub fn map(&mut self, area: Area) {
        self.unmap(area.range);
        self.areas.push(area);
    }

    /// There is no memory any more.
    pub fn unmap(&mut self, range: PageRange) {
        self.cut(range);
        self.shadow.clear(range);
    }

    /// Other accesses are allowed now to memory that is there already.
    pub fn protect(&mut self, area: Area) {
        self.cut(area.range);
        self.areas.push(area);
    }

    fn cut(&mut self, range: PageRange) {
        let rest = |area: &Area| {
            let rests = [area.range.below(range.start()), area.range.from(range.end())];
            rests.into_iter().flatten().map(|range| Area { range, ..*area }).collect::<Vec<_>>()
        };
        self.areas = self.areas.iter().flat_map(rest).collect();
    }

    /// The memory there is.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// What it must hold.
    pub const fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// What it must hold, for whoever else has written to it.
    pub const fn shadow_mut(&mut self) -> &mut Shadow {
        &mut self.shadow
    }

    /// How many accesses [`Self::step`] has made.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Makes `steps` accesses at random.
    ///
    /// # Errors
    /// The first that is not as it must be.
    pub fn run<E>(
        &mut self,
        steps: u64,
        handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        (0..steps).try_for_each(|_| self.step(handler))
    }

    /// Makes an access at random; none if there is no memory.
    ///
    /// # Errors
    /// It is not as it must be.
    pub fn step<E>(&mut self, handler: &mut impl FnMut(PageFault) -> Result<(), E>) -> Result<(), Failure<E>> {
        if self.areas.is_empty() {
            return Ok(());
        }
        let area = self.numbers.pick(&self.areas);
        let (address, len) = self.draw_span(area.range);
        let draw = self.numbers.below(100);
        let access = match draw {
            0..45 => Access::Read,
            45..95 => Access::Write,
            _ => Access::Execute,
        };
        if !area.allowed.contains(needed(access)) {
            return self.expect_refusal(address, access, handler);
        }
        match access {
            Access::Read => {
                self.tally.loads += 1;
                self.check(address, len, handler)
            }
            Access::Execute => {
                self.tally.fetches += 1;
                self.check_as(address, len, access, handler)
            }
            Access::Write if draw < 55 && area.allowed.contains(Prot::READ) => self.exchange(address, handler),
            Access::Write => {
                self.tally.stores += 1;
                let bytes = (0..len.div_ceil(8)).flat_map(|_| self.numbers.draw().to_le_bytes());
                let mut bytes: Vec<u8> = bytes.collect();
                bytes.truncate(len);
                self.store(address, &bytes, handler)
            }
        }
    }

    /// Some bytes of `range`, more often than not at a border of pages.
    fn draw_span(&mut self, range: PageRange) -> (VirtAddr, usize) {
        let len = if self.numbers.below(64) == 0 { LONGEST } else { self.numbers.pick(&LENGTHS) };
        let page = self.numbers.below(range.pages().get()) * PAGE_SIZE;
        let within = match self.numbers.below(8) {
            0 => 0,
            // So that it reaches over the next border, a long one over two.
            1 => PAGE_SIZE - 1 - self.numbers.below(((len - 1) % PAGE_SIZE).max(1)),
            2 => self.numbers.below(PAGE_SIZE),
            _ => self.numbers.below(PAGE_SIZE / 8) * 8,
        };
        let len = len.min(range.bytes() - page - within);
        let address = VirtAddr::new(range.start().as_u64() + page + within);
        (address, usize::try_from(len).unwrap_or(0))
    }

    fn expect_refusal<E>(
        &mut self,
        address: VirtAddr,
        access: Access,
        handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        let (machine, processor) = (self.machine, self.processor);
        let outcome = retry(1, handler, || match access {
            Access::Read => machine.load(processor, address, &mut [0]),
            Access::Write => machine.store(processor, address, &[0]),
            Access::Execute => machine.fetch(processor, address, &mut [0]),
        });
        match outcome {
            Ok(()) => Err(Failure::Allowed { address, access }),
            Err(Failure::Refused { .. }) => {
                self.tally.refused += 1;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Loads `len` bytes and compares them with the shadow.
    ///
    /// # Errors
    /// They cannot be loaded, or one is wrong.
    pub fn check<E>(
        &self,
        address: VirtAddr,
        len: usize,
        handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        self.check_as(address, len, Access::Read, handler)
    }

    fn check_as<E>(
        &self,
        address: VirtAddr,
        len: usize,
        access: Access,
        handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        let mut small = [0; 2 * 64];
        let mut large = Vec::new();
        let both = if 2 * len <= small.len() {
            &mut small[..2 * len]
        } else {
            large.resize(2 * len, 0);
            &mut large[..]
        };
        let (found, expected) = both.split_at_mut(len);
        retry(pages_of(address, len), handler, || self.machine.read_as(self.processor, address, found, access))?;
        self.shadow.read(address, expected);
        if found == expected {
            return Ok(());
        }
        let different = expected.iter().zip(&*found).enumerate().find(|(_, (expected, found))| expected != found);
        different.map_or(Ok(()), |(at, (&expected, &found))| {
            Err(Failure::Wrong { address: further(address, at), expected, found })
        })
    }

    /// Stores bytes, and remembers that they are there.
    ///
    /// # Errors
    /// They cannot be stored; should that have happened at a later page than the first, it is known which are.
    pub fn store<E>(
        &mut self,
        address: VirtAddr,
        bytes: &[u8],
        handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        // Bytes that once got through stay, even if a later try ends at an earlier page.
        let mut stored = 0;
        let outcome = retry(pages_of(address, bytes.len()), handler, || {
            let outcome = self.machine.store(self.processor, address, bytes);
            let done = match outcome {
                Ok(()) => bytes.len() as u64,
                Err(fault) => fault.address.as_u64().wrapping_sub(address.as_u64()),
            };
            stored = stored.max(usize::try_from(done).unwrap_or(0));
            outcome
        });
        self.shadow.write(address, &bytes[..stored]);
        outcome
    }

    /// Exchanges the word around `address`, by a comparison that shall fail in half of all cases.
    fn exchange<E>(
        &mut self,
        address: VirtAddr,
        handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        self.tally.exchanges += 1;
        let address = VirtAddr::new(address.as_u64() & !7);
        let mut bytes = [0; 8];
        self.shadow.read(address, &mut bytes);
        let expected = u64::from_le_bytes(bytes);
        let new = self.numbers.draw();
        let current = if new & 1 == 0 { expected } else { !expected };
        let outcome = retry(1, handler, || self.machine.compare_exchange(self.processor, address, current, new))?;
        let found = outcome.err().unwrap_or(current);
        if found != expected {
            let pairs = expected.to_le_bytes().into_iter().zip(found.to_le_bytes());
            let different = pairs.enumerate().find(|(_, (expected, found))| expected != found);
            let (at, (expected, found)) = different.unwrap_or_default();
            return Err(Failure::Wrong { address: further(address, at), expected, found });
        }
        if outcome.is_ok() {
            self.shadow.write(address, &new.to_le_bytes());
        }
        Ok(())
    }

    /// Compares all that can be loaded with the shadow, pages that nobody has touched yet among it.
    ///
    /// # Errors
    /// The first difference.
    pub fn verify<E>(&self, handler: &mut impl FnMut(PageFault) -> Result<(), E>) -> Result<(), Failure<E>> {
        for area in self.areas.iter().filter(|area| area.allowed.contains(Prot::READ)) {
            for page in area.range.first_page()..area.range.end_page() {
                let address = VirtAddr::from_page_number(page).unwrap_or_default();
                self.check(address, PAGE_BYTES, handler)?;
            }
        }
        Ok(())
    }
}

/// The right that an access needs.
const fn needed(access: Access) -> Prot {
    match access {
        Access::Read => Prot::READ,
        Access::Write => Prot::WRITE,
        Access::Execute => Prot::EXEC,
    }
}

/// How many pages `len` bytes touch.
fn pages_of(address: VirtAddr, len: usize) -> u64 {
    ((offset(address) + len) as u64).div_ceil(PAGE_SIZE)
}

/// Makes an access to so many pages, again after each fault that the handler has handled.
fn retry<T, E>(
    pages: u64,
    handler: &mut impl FnMut(PageFault) -> Result<(), E>,
    mut act: impl FnMut() -> Result<T, PageFault>,
) -> Result<T, Failure<E>> {
    let mut faults = 0;
    loop {
        let fault = match act() {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        if faults == pages * MAX_FAULTS {
            return Err(Failure::FaultLoop(fault));
        }
        faults += 1;
        handler(fault).map_err(|reason| Failure::Refused { fault, reason })?;
    }
}
