//! Pages that a program plays with: they come and go, change their rights, and are touched to see what happens.

use core::arch::asm;

use crate::PAGE;
use crate::linux::{self, Result, map, number, prot};

/// Pages that nothing but this refers to. What they hold is read and written in assembly, so that they may change, or go
/// away, whenever they like; who touches what is not there is killed.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    start: u64,
    count: u64,
}

impl Pages {
    /// New pages of this process's own.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn map(count: u64, prot: u64) -> Result<Self> {
        Self::anonymous(count, prot, map::PRIVATE)
    }

    /// New pages that children share, to be read and written.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn shared(count: u64) -> Result<Self> {
        Self::anonymous(count, prot::READ_WRITE, map::SHARED)
    }

    fn anonymous(count: u64, prot: u64, sharing: u64) -> Result<Self> {
        let arguments = [0, count * PAGE, prot, sharing | map::ANONYMOUS, u64::MAX, 0];
        // SAFETY: what it maps is new.
        let start = unsafe { linux::call(number::MMAP, arguments) }?;
        Ok(Self { start, count })
    }

    /// `count` pages at `start`.
    ///
    /// # Safety
    /// Nothing that Rust knows of is there, now and as long as this is used.
    pub const unsafe fn at(start: u64, count: u64) -> Self {
        Self { start, count }
    }

    /// Where page `page` starts, or the last one ends.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page(&self, page: u64) -> u64 {
        assert!(page <= self.count, "page {page} of {}", self.count);
        self.start + page * PAGE
    }

    /// Where they start.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    fn word(&self, offset: u64) -> u64 {
        assert!(offset.is_multiple_of(8) && offset < self.count * PAGE, "no word of {} pages: {offset}", self.count);
        self.start + offset
    }

    /// The word at `offset`.
    ///
    /// # Panics
    /// If there is none.
    pub fn load(&self, offset: u64) -> u64 {
        let address = self.word(offset);
        let word: u64;
        // SAFETY: a load from a page that no reference is into, or one that ends the process.
        unsafe { asm!("mov {word}, [{address}]", word = out(reg) word, address = in(reg) address, options(nostack)) };
        word
    }

    /// Stores a word at `offset`.
    ///
    /// # Panics
    /// If there is no place for it.
    pub fn store(&self, offset: u64, word: u64) {
        let address = self.word(offset);
        // SAFETY: a store to a page that no reference is into, or one that ends the process.
        unsafe { asm!("mov [{address}], {word}", word = in(reg) word, address = in(reg) address, options(nostack)) };
    }

    /// Fills all pages with words that tell their places, and `seed`.
    pub fn fill(&self, seed: u64) {
        for offset in self.offsets() {
            self.store(offset, pattern(seed, offset));
        }
    }

    /// Whether all pages hold what [`Self::fill`] has left.
    pub fn holds(&self, seed: u64) -> bool {
        self.offsets().all(|offset| self.load(offset) == pattern(seed, offset))
    }

    /// Whether all pages hold zeros. All are touched, whatever is in the first.
    pub fn is_zero(&self) -> bool {
        self.offsets().filter(|offset| self.load(*offset) != 0).count() == 0
    }

    fn offsets(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.count * PAGE).step_by(8)
    }

    /// Some of them.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn part(&self, first: u64, count: u64) -> Self {
        assert!(first.checked_add(count).is_some_and(|end| end <= self.count), "{first} + {count} of {}", self.count);
        Self { start: self.start + first * PAGE, count }
    }

    /// Changes what may be done with them.
    ///
    /// # Errors
    /// Those of mprotect(2).
    pub fn protect(&self, prot: u64) -> Result<u64> {
        // SAFETY: nothing but this refers to them.
        unsafe { linux::call(number::MPROTECT, [self.start, self.count * PAGE, prot, 0, 0, 0]) }
    }

    /// Gives advice on them.
    ///
    /// # Errors
    /// Those of madvise(2).
    pub fn advise(&self, advice: u64) -> Result<u64> {
        // SAFETY: nothing but this refers to them.
        unsafe { linux::call(number::MADVISE, [self.start, self.count * PAGE, advice, 0, 0, 0]) }
    }

    /// Gives them up.
    ///
    /// # Errors
    /// Those of munmap(2).
    pub fn unmap(&self) -> Result<u64> {
        // SAFETY: nothing but this refers to them.
        unsafe { linux::call(number::MUNMAP, [self.start, self.count * PAGE, 0, 0, 0, 0]) }
    }

    /// Puts new pages of this process's own where they were.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn map_again(&self, prot: u64) -> Result<u64> {
        let flags = map::PRIVATE | map::ANONYMOUS | map::FIXED;
        // SAFETY: nothing but this refers to them.
        unsafe { linux::call(number::MMAP, [self.start, self.count * PAGE, prot, flags, u64::MAX, 0]) }
    }
}

/// A word that occurs at one place alone.
const fn pattern(seed: u64, offset: u64) -> u64 {
    ((seed << 32) | (offset + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
