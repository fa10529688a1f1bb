//! The format of entries: x86-64 with four levels (Intel SDM volume 3, 5.5; AMD APM volume 2, 5.3).
//!
//! ```text
//! bit   0        1         2     5         6      7        8       9..=11    12..=51  52..=58   59..=62  63
//!       present  writable  user  accessed  dirty  huge     global  software  frame    software  key      no execute
//! ```
//!
//! An entry that is 0 is empty. One that is not 0 and not present is ours alone: the processor looks at no other
//! bit of it. What the software bits mean is the business of whoever owns the table ([`crate::pager`]).

use core::fmt;

use crate::addr::{PAGE_SHIFT, PhysAddr, VirtAddr};
use crate::frame::FrameNumber;
use crate::prot::{Prot, ProtectionKey};

bitflags::bitflags! {
    /// The bits of an entry besides its frame and its key.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct EntryFlags: u64 {
        /// The processor uses the entry.
        const PRESENT = 1 << 0;
        /// Stores are allowed, if all levels above say so too.
        const WRITABLE = 1 << 1;
        /// User code may use it, likewise.
        const USER = 1 << 2;
        /// Stores go to memory before they are done.
        const WRITE_THROUGH = 1 << 3;
        /// Not cached.
        const NO_CACHE = 1 << 4;
        /// Set by the processor when it uses the entry.
        const ACCESSED = 1 << 5;
        /// Set by the processor when it stores through the entry.
        const DIRTY = 1 << 6;
        /// On levels 2 and 3: the entry maps memory and not a table.
        const HUGE = 1 << 7;
        /// Kept over a change of the root table.
        const GLOBAL = 1 << 8;
        /// For software.
        const SOFT_0 = 1 << 9;
        /// For software.
        const SOFT_1 = 1 << 10;
        /// For software.
        const SOFT_2 = 1 << 11;
        /// For software.
        const SOFT_3 = 1 << 52;
        /// For software.
        const SOFT_4 = 1 << 53;
        /// No instruction is fetched from there.
        const NO_EXECUTE = 1 << 63;
    }
}

/// The level of a table: 1 holds pages, 4 is the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// Each entry a page (4 KiB).
    One = 1,
    /// Each entry a table of level 1, or 2 MiB.
    Two = 2,
    /// Each entry a table of level 2, or 1 GiB.
    Three = 3,
    /// Each entry a table of level 3.
    Four = 4,
}

impl Level {
    /// The root's.
    pub const ROOT: Self = Self::Four;

    /// The level below, if there is one.
    #[inline]
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::One => None,
            Self::Two => Some(Self::One),
            Self::Three => Some(Self::Two),
            Self::Four => Some(Self::Three),
        }
    }

    /// log2 of the pages that an entry of this level spans.
    #[inline]
    pub const fn page_shift(self) -> u32 {
        9 * (self as u32 - 1)
    }

    /// The pages that an entry of this level spans.
    #[inline]
    pub const fn pages(self) -> u64 {
        1 << self.page_shift()
    }

    /// Which entry of a table of this level `address` belongs to.
    #[inline]
    pub const fn index(self, address: VirtAddr) -> u64 {
        address.page_number() >> self.page_shift() & (Entry::PER_TABLE - 1)
    }
}

/// An entry of a page table, as a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry(u64);

impl Entry {
    /// Nothing.
    pub const EMPTY: Self = Self(0);
    /// Entries of a table.
    pub const PER_TABLE: u64 = 512;

    const FRAME: u64 = ((1 << PhysAddr::BITS) - 1) & !((1 << PAGE_SHIFT) - 1);
    const KEY_SHIFT: u32 = 59;
    const KEY: u64 = 0xf << Self::KEY_SHIFT;

    /// The entry that is written as `word`.
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As it is written.
    #[inline]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// An entry for `frame`.
    #[inline]
    pub fn new(frame: FrameNumber, flags: EntryFlags) -> Self {
        Self(frame.get() << PAGE_SHIFT | flags.bits())
    }

    /// One that is not present, is not empty and keeps no frame: `flags` has software bits and no others.
    #[inline]
    pub const fn marker(flags: EntryFlags) -> Self {
        Self(flags.bits() & !EntryFlags::PRESENT.bits())
    }

    /// The flags that `prot` asks of a user page; [`Prot::NONE`] is not present.
    #[inline]
    pub fn flags_of(prot: Prot) -> EntryFlags {
        let mut flags = EntryFlags::USER;
        flags.set(EntryFlags::PRESENT, !prot.is_empty());
        flags.set(EntryFlags::WRITABLE, prot.contains(Prot::WRITE));
        flags.set(EntryFlags::NO_EXECUTE, !prot.contains(Prot::EXEC));
        flags
    }

    /// Whether nothing is there.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the processor uses it.
    #[inline]
    pub const fn is_present(self) -> bool {
        self.0 & EntryFlags::PRESENT.bits() != 0
    }

    /// Whether an entry of a table of `level` leads to another table.
    #[inline]
    pub fn is_table(self, level: Level) -> bool {
        level != Level::One && self.is_present() && !self.contains(EntryFlags::HUGE)
    }

    /// Its frame, or frame 0 where it has none.
    #[inline]
    pub fn frame(self) -> FrameNumber {
        FrameNumber::new((self.0 & Self::FRAME) >> PAGE_SHIFT).unwrap_or_else(|| unreachable!("52 bits of an address"))
    }

    /// Whether both have the same frame.
    #[inline]
    pub const fn shows_same(self, other: Self) -> bool {
        (self.0 ^ other.0) & Self::FRAME == 0
    }

    /// With another frame.
    #[inline]
    #[must_use]
    pub fn with_frame(self, frame: FrameNumber) -> Self {
        Self(self.0 & !Self::FRAME | frame.get() << PAGE_SHIFT)
    }

    /// Its flags.
    #[inline]
    pub const fn flags(self) -> EntryFlags {
        EntryFlags::from_bits_truncate(self.0)
    }

    /// Whether it has all of `flags`.
    #[inline]
    pub const fn contains(self, flags: EntryFlags) -> bool {
        self.0 & flags.bits() == flags.bits()
    }

    /// With `flags` too.
    #[inline]
    #[must_use]
    pub const fn with(self, flags: EntryFlags) -> Self {
        Self(self.0 | flags.bits())
    }

    /// Without `flags`.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: EntryFlags) -> Self {
        Self(self.0 & !flags.bits())
    }

    /// Its protection key.
    #[inline]
    pub fn key(self) -> ProtectionKey {
        ProtectionKey::new((self.0 >> Self::KEY_SHIFT & 0xf) as u8).unwrap_or_default()
    }

    /// With another protection key.
    #[must_use]
    pub const fn with_key(self, key: ProtectionKey) -> Self {
        Self(self.0 & !Self::KEY | (key.number() as u64) << Self::KEY_SHIFT)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("empty");
        }
        write!(f, "{:?} {:?}", self.frame(), self.flags())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_parts_apart() {
        let frame = FrameNumber::new(FrameNumber::END - 1).unwrap();
        let key = ProtectionKey::new(15).unwrap();
        let flags = EntryFlags::all();
        let entry = Entry::new(frame, flags).with_key(key);
        assert_eq!((entry.frame(), entry.flags(), entry.key()), (frame, flags, key));
        let bare = entry.without(flags).with_key(ProtectionKey::DEFAULT);
        assert_eq!((bare.frame(), bare.flags(), bare.key()), (frame, EntryFlags::empty(), ProtectionKey::DEFAULT));
    }

    #[test]
    fn levels_span_what_the_processor_says() {
        let address = VirtAddr::new(0x7fff_ffff_f000);
        assert_eq!([Level::One, Level::Two, Level::Three].map(|level| level.index(address)), [511; 3]);
        assert_eq!(Level::Four.index(address), 255);
        assert_eq!(Level::Two.pages() << PAGE_SHIFT, 2 << 20);
        assert_eq!(Level::Three.pages() << PAGE_SHIFT, 1 << 30);
    }
}
