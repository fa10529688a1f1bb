//! Loads and stores through a window that stays, against memcpy and the guest memory of `vm-memory`.
//!
//! All have the same memfd. Only pagewarden's accesses, by a pointer or by the adapter for `vm-memory`, survive that
//! it is cut meanwhile.

use std::hint::black_box;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::uio::pread;
use pagewarden::PAGE_SIZE;
use pagewarden::phys::{Claim, PhysMutPtr};
use pagewarden_vm_memory::{FaultSafe, WindowMemory, map_regions};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{Manager, manager};
use crate::pager::contest::{Contestant, Stopwatch};
use crate::pager::raw::{HostMapping, HostObject};
use crate::random::Random;

/// Bytes of the memory.
const BYTES: usize = 1 << 20;
const PAGE: usize = 4096;
/// Where in a page everybody's own bytes begin, as large allocations of the C library do. `rep movsb` and `memcpy` care.
const SKEW: usize = 16;
/// So many of those who take part are pagewarden's.
pub const OURS: usize = 2;
/// Who copies by nothing but `memcpy`.
pub const MEMCPY: &str = "memcpy";
/// A read of a word takes at most so many nanoseconds.
pub const WORD_READ: f64 = 30.0;
/// Longer accesses take at most so many times what `memcpy` does.
pub const LONG: f64 = 1.2;

/// What is done with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Read,
    Write,
    /// From one place of the memory to another.
    Copy,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    act: Act,
    len: usize,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self { act: Act::Read, len: 8 },
        Self { act: Act::Write, len: 8 },
        Self { act: Act::Read, len: PAGE },
        Self { act: Act::Write, len: PAGE },
        Self { act: Act::Read, len: BYTES },
        Self { act: Act::Write, len: BYTES },
        Self { act: Act::Copy, len: PAGE },
    ];

    /// What tables and options call it.
    pub fn name(self) -> String {
        let act = match self.act {
            Act::Read => "read",
            Act::Write => "write",
            Act::Copy => "copy from place to place,",
        };
        match self.len {
            8 => format!("{act} 8 bytes"),
            len => format!("{act} {} KiB", len >> 10),
        }
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        match self.len {
            8 => 1 << 12,
            PAGE => 1 << 6,
            _ => 1,
        }
    }

    /// The row of which a word is read.
    pub fn is_word_read(self) -> bool {
        self == Self { act: Act::Read, len: 8 }
    }

    /// Those whose time is that of the bytes.
    pub fn is_long(self) -> bool {
        self.act != Act::Copy && self.len >= PAGE
    }

    /// Where the accesses of a turn are: words anywhere, pages in random order.
    fn places(self) -> Vec<usize> {
        let mut random = Random::new(self.len as u64);
        (0..self.operations()).map(|_| random.index(BYTES / self.len) * self.len).collect()
    }
}

/// A way to the memory. Places are within it.
trait Memory {
    const NAME: &'static str;

    fn read_word(&self, at: usize) -> Result<u64>;
    fn write_word(&self, at: usize, word: u64) -> Result<()>;
    fn read(&self, at: usize, to: &mut [u8]) -> Result<()>;
    fn write(&self, at: usize, from: &[u8]) -> Result<()>;
    /// Of a page at most.
    fn copy(&self, from: usize, to: usize, len: usize) -> Result<()>;
}

/// Pointers with windows that stay.
struct Pointers {
    words: PhysMutPtr<u64, Manager>,
    bytes: PhysMutPtr<u8, Manager>,
}

impl Pointers {
    fn new(object: &HostObject) -> Result<Self> {
        let (manager, frames) = manager(object, BYTES as u64 / PAGE_SIZE)?;
        let start = frames.first().start();
        let failed = |error| anyhow!("a window: {error}");
        let mut words = PhysMutPtr::contiguous(manager.clone(), start, BYTES / 8).map_err(failed)?;
        let mut bytes = PhysMutPtr::contiguous(manager, start, BYTES).map_err(failed)?;
        words.map(Claim::Beside).map_err(failed)?;
        bytes.map(Claim::Beside).map_err(failed)?;
        Ok(Self { words, bytes })
    }
}

impl Memory for Pointers {
    const NAME: &'static str = "pagewarden";

    #[inline]
    fn read_word(&self, at: usize) -> Result<u64> {
        Ok(self.words.read_at(at / 8)?)
    }

    #[inline]
    fn write_word(&self, at: usize, word: u64) -> Result<()> {
        Ok(self.words.write_at(at / 8, word)?)
    }

    fn read(&self, at: usize, to: &mut [u8]) -> Result<()> {
        Ok(self.bytes.read_slice_at(at, to)?)
    }

    fn write(&self, at: usize, from: &[u8]) -> Result<()> {
        Ok(self.bytes.write_slice_at(at, from)?)
    }

    fn copy(&self, from: usize, to: usize, len: usize) -> Result<()> {
        Ok(self.bytes.copy_from(to, &self.bytes, from, len)?)
    }
}

/// The adapter for `vm-memory`.
struct Adapter(WindowMemory);

impl Adapter {
    fn new(object: &HostObject) -> Result<Self> {
        let (manager, frames) = manager(object, BYTES as u64 / PAGE_SIZE)?;
        let frames: Vec<_> = frames.iter().collect();
        Ok(Self(map_regions(&manager, &[(GuestAddress(0), &frames)])?))
    }

    fn bytes(&self) -> FaultSafe<&WindowMemory> {
        FaultSafe::new(&self.0)
    }
}

impl Memory for Adapter {
    const NAME: &'static str = "its adapter";

    #[inline]
    fn read_word(&self, at: usize) -> Result<u64> {
        Ok(self.bytes().read_obj(GuestAddress(at as u64))?)
    }

    #[inline]
    fn write_word(&self, at: usize, word: u64) -> Result<()> {
        Ok(self.bytes().write_obj(word, GuestAddress(at as u64))?)
    }

    fn read(&self, at: usize, to: &mut [u8]) -> Result<()> {
        Ok(self.bytes().read_slice(to, GuestAddress(at as u64))?)
    }

    fn write(&self, at: usize, from: &[u8]) -> Result<()> {
        Ok(self.bytes().write_slice(from, GuestAddress(at as u64))?)
    }

    fn copy(&self, from: usize, to: usize, len: usize) -> Result<()> {
        let mut page = [0; PAGE];
        let bytes = page.get_mut(..len).context("more than a page")?;
        self.read(from, bytes)?;
        self.write(to, bytes)
    }
}

impl Memory for HostMapping<'_> {
    const NAME: &'static str = MEMCPY;

    #[inline]
    fn read_word(&self, at: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        HostMapping::read(self, at, &mut bytes);
        Ok(u64::from_ne_bytes(bytes))
    }

    #[inline]
    fn write_word(&self, at: usize, word: u64) -> Result<()> {
        HostMapping::write(self, at, &word.to_ne_bytes());
        Ok(())
    }

    fn read(&self, at: usize, to: &mut [u8]) -> Result<()> {
        HostMapping::read(self, at, to);
        Ok(())
    }

    fn write(&self, at: usize, from: &[u8]) -> Result<()> {
        HostMapping::write(self, at, from);
        Ok(())
    }

    fn copy(&self, from: usize, to: usize, len: usize) -> Result<()> {
        HostMapping::copy(self, from, to, len);
        Ok(())
    }
}

/// What `vm-memory` maps itself.
struct Mapped(GuestMemoryMmap);

impl Mapped {
    fn new(object: &HostObject) -> Result<Self> {
        let file = FileOffset::new(object.file().try_clone()?.into(), 0);
        Ok(Self(GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), BYTES, Some(file))])?))
    }
}

impl Memory for Mapped {
    const NAME: &'static str = "vm-memory";

    #[inline]
    fn read_word(&self, at: usize) -> Result<u64> {
        Ok(self.0.read_obj(GuestAddress(at as u64))?)
    }

    #[inline]
    fn write_word(&self, at: usize, word: u64) -> Result<()> {
        Ok(self.0.write_obj(word, GuestAddress(at as u64))?)
    }

    fn read(&self, at: usize, to: &mut [u8]) -> Result<()> {
        Ok(self.0.read_slice(to, GuestAddress(at as u64))?)
    }

    fn write(&self, at: usize, from: &[u8]) -> Result<()> {
        Ok(self.0.write_slice(from, GuestAddress(at as u64))?)
    }

    fn copy(&self, from: usize, to: usize, len: usize) -> Result<()> {
        let slice = |at: usize| self.0.get_slice(GuestAddress(at as u64), len);
        slice(from)?.copy_to_volatile_slice(slice(to)?);
        Ok(())
    }
}

/// Who accesses the memory, and with what.
struct Subject<M> {
    memory: M,
    places: Vec<usize>,
    /// Its own bytes are somewhere in there.
    bytes: Vec<u8>,
}

impl<M: Memory> Subject<M> {
    /// One that has shown that its accesses reach the memfd.
    fn new(memory: M, object: &HostObject) -> Result<Self> {
        let subject = Self { memory, places: Vec::new(), bytes: vec![0; BYTES + 2 * PAGE] };
        subject.check(object)?;
        Ok(subject)
    }

    fn check(&self, object: &HostObject) -> Result<()> {
        let mut random = Random::new(M::NAME.len() as u64);
        let fresh: Vec<u8> = (0..BYTES).map(|_| random.next().to_le_bytes()[0]).collect();
        self.memory.write(0, &fresh)?;
        let mut bytes = vec![0; BYTES];
        ensure!(pread(object.file(), &mut bytes, 0)? == BYTES && bytes == fresh, "{}: what is written", M::NAME);
        bytes.fill(0);
        self.memory.read(0, &mut bytes)?;
        ensure!(bytes == fresh, "{}: what is read", M::NAME);
        self.memory.write_word(16, 0x1234_5678_9abc_def0)?;
        self.memory.copy(16, PAGE + 24, 8)?;
        let copied = self.memory.read_word(PAGE + 24)?;
        let kept = self.memory.read_word(24)?.to_ne_bytes();
        ensure!(copied == 0x1234_5678_9abc_def0 && kept == fresh[24..32], "{}: words", M::NAME);
        Ok(())
    }

    fn act(&mut self, row: Row) -> Result<u64> {
        let memory = &self.memory;
        let mut places = self.places.iter().copied();
        let start = self.bytes.as_ptr().align_offset(PAGE) + SKEW;
        let bytes = &mut self.bytes[start..][..row.len];
        match (row.act, row.len) {
            (Act::Read, 8) => places.try_fold(0, |sum: u64, at| Ok(sum.wrapping_add(memory.read_word(at)?))),
            (Act::Write, 8) => places.try_for_each(|at| memory.write_word(at, black_box(7))).map(|()| 0),
            (Act::Read, _) => places.try_for_each(|at| memory.read(at, black_box(&mut *bytes))).map(|()| 0),
            (Act::Write, _) => places.try_for_each(|at| memory.write(at, black_box(&*bytes))).map(|()| 0),
            (Act::Copy, len) => places.try_for_each(|at| memory.copy(at, BYTES - len - at, len)).map(|()| 0),
        }
    }
}

impl<M: Memory> Contestant<Row> for Subject<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn prepare(&mut self, row: Row) {
        self.places = row.places();
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        black_box(watch.time(|| self.act(row))??);
        Ok(())
    }
}

/// Who takes part: pagewarden's two first.
///
/// # Errors
/// If there is no memory, or somebody does not do what is measured.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    let object: &'static _ = Box::leak(Box::new(HostObject::new(BYTES)?));
    Ok(vec![
        Box::new(Subject::new(Pointers::new(object)?, object)?),
        Box::new(Subject::new(Adapter::new(object)?, object)?),
        Box::new(Subject::new(object.map()?, object)?),
        Box::new(Subject::new(Mapped::new(object)?, object)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_reaches_the_same_bytes() {
        let mut all = all().unwrap();
        assert_eq!(all.iter().map(|one| one.name()).position(|name| name == MEMCPY), Some(OURS));
        let mut watch = Stopwatch::new().unwrap();
        for row in Row::ALL {
            for one in &mut all {
                one.prepare(row);
                one.turn(row, &mut watch).unwrap();
                assert!(watch.take() > 0.0, "{row:?} takes time");
            }
        }
        assert_eq!(Row::ALL.map(Row::is_long), [false, false, true, true, true, true, false]);
        assert_eq!(Row::ALL.iter().position(|row| row.is_word_read()), Some(0));
    }
}
