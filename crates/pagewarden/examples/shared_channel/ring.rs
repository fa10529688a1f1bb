//! A ring of records in one memory object that two processes show: the sender stores a record and calls with its number,
//! the receiver copies it out and calls back with the same.
//!
//! ```text
//! page 0         the sender's: layout of the ring, how many records it has put in    the receiver may load
//! page 1         the receiver's: how many it has taken out                           the sender may load
//! pages 2..      the records, one slot each, reused in turn                          the receiver may load
//! ```
//!
//! Neither side believes what the other has stored: the layout is agreed on beforehand and only compared, a number that
//! is not between what it was and the size of the ring ends the channel, and a record is copied out before anybody
//! looks at it. Each page can be stored to by one side alone: the receiver has two slices of the object, one of them
//! without the right to write.

use pagewarden::cap::{Handle, Mapping, Process, Rights, TransferMode};
use pagewarden::machine::Machine;
use pagewarden::manager::Place;
use pagewarden::object::{ObjectPages, Placement};
use pagewarden::{PAGE_SIZE, PageCount, Prot};

use super::common::{Outcome, World};

/// Says what the object is.
const MAGIC: u64 = u64::from_le_bytes(*b"pwring01");
/// Slots of the ring.
pub(crate) const SLOTS: u64 = 4;
/// Bytes in a slot: a length, and as much as fits.
const SLOT_BYTES: u64 = PAGE_SIZE;
/// The most bytes that a record has.
pub(crate) const RECORD_MAX: usize = 4096 - 8;
const PAGES: u64 = 2 + SLOTS;
const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

fn pages(first: u64, count: u64) -> Outcome<ObjectPages> {
    ObjectPages::new(first, PageCount::new(count)).ok_or_else(|| "no pages".into())
}

/// All `count` pages of what a handle is for, wherever there is room.
fn mapping(count: u64, prot: Prot) -> Outcome<Mapping> {
    Ok(Mapping { part: pages(0, count)?, prot, place: Place::Anywhere })
}

/// One side's view of the ring.
struct View<'a> {
    world: &'a World,
    process: &'a Process<Machine>,
}

impl View<'_> {
    fn load(&self, at: u64) -> Outcome<u64> {
        let mut bytes = [0; 8];
        self.world.load(self.process, at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn store(&self, at: u64, word: u64) -> Outcome<()> {
        self.world.store(self.process, at, &word.to_le_bytes())
    }
}

/// Words of page 0, in the order of their places.
fn layout() -> [u64; 3] {
    [MAGIC, SLOTS, SLOT_BYTES]
}

/// Where the sender says how many records it has put in.
const PUT: u64 = 64;

/// The side that puts records in.
pub(crate) struct Sender<'a> {
    view: View<'a>,
    start: u64,
    put: u64,
}

/// The side that takes records out.
pub(crate) struct Receiver<'a> {
    view: View<'a>,
    /// Where it sees the sender's page and the records.
    records: u64,
    /// Where its own page is.
    own: u64,
    taken: u64,
}

impl<'a> Sender<'a> {
    /// Allocates the object, lays the ring out, and hands `receiver` what it needs: two handles.
    pub(crate) fn new(
        world: &'a World,
        (process, frames): (&'a Process<Machine>, Handle),
        receiver: &Process<Machine>,
    ) -> Outcome<(Self, [Handle; 2])> {
        let object = process.allocate(frames, PageCount::new(PAGES), Placement::Scattered)?;
        let start = process.map(object, mapping(PAGES, READ_WRITE)?)?.start().as_u64();
        let view = View { world, process };
        for (at, word) in (start..).step_by(8).zip(layout()) {
            view.store(at, word)?;
        }
        let look = Rights::READ | Rights::MAP;
        let all = process.slice(object, pages(0, PAGES)?, look | Rights::TRANSFER)?;
        let own = process.slice(object, pages(1, 1)?, look | Rights::WRITE | Rights::TRANSFER)?;
        let handles = [
            process.send(all, TransferMode::Move, look, receiver)?,
            process.send(own, TransferMode::Move, look | Rights::WRITE, receiver)?,
        ];
        // What is mapped stays; nobody needs the handle any more.
        process.table().release(object)?;
        Ok((Self { view, start, put: 0 }, handles))
    }

    /// Puts a record in; its number is all that has to be told. `None` if the ring is full.
    pub(crate) fn send(&mut self, record: &[u8]) -> Outcome<Option<u64>> {
        let taken = self.view.load(self.start + PAGE_SIZE)?;
        if taken > self.put || self.put - taken > SLOTS {
            return Err("the receiver says that it took what was never there".into());
        }
        if self.put - taken == SLOTS {
            return Ok(None);
        }
        if record.len() > RECORD_MAX {
            return Err("the record is too long".into());
        }
        let slot = self.start + 2 * PAGE_SIZE + self.put % SLOTS * SLOT_BYTES;
        self.view.world.store(self.view.process, slot + 8, record)?;
        self.view.store(slot, record.len() as u64)?;
        self.put += 1;
        self.view.store(self.start + PUT, self.put)?;
        Ok(Some(self.put))
    }
}

impl<'a> Receiver<'a> {
    /// Maps what the sender has handed over, and looks whether it is what was agreed on.
    pub(crate) fn new(world: &'a World, process: &'a Process<Machine>, [all, own]: [Handle; 2]) -> Outcome<Self> {
        let records = process.map(all, mapping(PAGES, Prot::READ)?)?.start().as_u64();
        let own = process.map(own, mapping(1, READ_WRITE)?)?.start().as_u64();
        let view = View { world, process };
        for (at, word) in (records..).step_by(8).zip(layout()) {
            if view.load(at)? != word {
                return Err("this is no such ring".into());
            }
        }
        Ok(Self { view, records, own, taken: 0 })
    }

    /// Takes out the record of which it was told `number`.
    pub(crate) fn receive(&mut self, number: u64) -> Outcome<Vec<u8>> {
        let put = self.view.load(self.records + PUT)?;
        let is_there = put >= self.taken && put - self.taken <= SLOTS && number == self.taken + 1 && number <= put;
        if !is_there {
            return Err("the sender says that there is what cannot be there".into());
        }
        let slot = self.records + 2 * PAGE_SIZE + self.taken % SLOTS * SLOT_BYTES;
        let len = usize::try_from(self.view.load(slot)?).ok().filter(|len| *len <= RECORD_MAX);
        let mut record = vec![0; len.ok_or("a record that is longer than its slot")?];
        self.view.world.load(self.view.process, slot + 8, &mut record)?;
        self.taken += 1;
        self.view.store(self.own, self.taken)?;
        Ok(record)
    }
}
