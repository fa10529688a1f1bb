//! Addresses, page counts and page ranges: aligned and checked by construction.
//!
//! Everything else in the crate speaks of memory in these types, so that an unaligned or empty range
//! cannot be written down. Arithmetic that a guest can drive past the end of the address space returns
//! `Option`.

use core::fmt;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// The same as the length of a slice.
pub(crate) const PAGE_LEN: usize = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// `len` rounded up to a multiple of `to`, a power of two, as the kernel rounds (`PAGE_ALIGN`): a sum that wraps
/// becomes 0.
pub(crate) const fn round_up(len: u64, to: u64) -> u64 {
    len.wrapping_add(to - 1) & !(to - 1)
}

/// Page numbers are below this: the last page of the 64-bit space is never part of a range, so that the
/// end of every range is an address.
const PAGE_NUMBER_MAX: u64 = u64::MAX >> PAGE_SHIFT;

/// A virtual address: any 64-bit number, with no promise that something is mapped there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// The address `address`.
    #[inline]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The first byte of page `number`; `None` past the end of the address space.
    #[inline]
    pub const fn from_page_number(number: u64) -> Option<Self> {
        if number > PAGE_NUMBER_MAX { None } else { Some(Self(number << PAGE_SHIFT)) }
    }

    /// The address as a number.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether this is the first byte of a page.
    #[inline]
    pub const fn is_page_aligned(self) -> bool {
        self.0 & (PAGE_SIZE - 1) == 0
    }

    /// The number of the page that holds this byte.
    #[inline]
    pub const fn page_number(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }

    /// The first byte of the page that holds this byte.
    #[inline]
    #[must_use]
    pub const fn page_down(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// This address, or the start of the next page if it is inside one; `None` if there is no next page.
    pub const fn page_up(self) -> Option<Self> {
        match self.0.checked_add(PAGE_SIZE - 1) {
            Some(sum) => Some(Self(sum & !(PAGE_SIZE - 1))),
            None => None,
        }
    }

    /// The address `bytes` further up, if there is one.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::LowerHex for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// A physical address: any number below 2^52, the most that x86-64 has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// Physical addresses have this many bits.
    pub const BITS: u32 = 52;

    /// The address `address`, if it is one.
    #[inline]
    pub const fn new(address: u64) -> Option<Self> {
        if address >> Self::BITS == 0 { Some(Self(address)) } else { None }
    }

    /// The address as a number.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The address `bytes` further up, if there is one.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phys {:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PageCount(u64);

impl PageCount {
    /// No page.
    pub const ZERO: Self = Self(0);

    /// `pages` pages.
    #[inline]
    pub const fn new(pages: u64) -> Self {
        Self(pages)
    }

    /// The pages needed to hold `bytes`.
    pub const fn from_bytes_up(bytes: u64) -> Self {
        Self(bytes.div_ceil(PAGE_SIZE))
    }

    /// The whole pages in `bytes`.
    pub const fn from_bytes_down(bytes: u64) -> Self {
        Self(bytes >> PAGE_SHIFT)
    }

    /// The count as a number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The bytes in these pages; saturates at the end of the address space.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(PAGE_SIZE)
    }
}

/// A half-open range of whole pages with at least one page in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    /// First page number.
    first: u64,
    /// The page number after the last; `first < end <= PAGE_NUMBER_MAX`.
    end: u64,
}

impl PageRange {
    /// `start..end`, if both are page aligned and `start < end`.
    #[inline]
    pub const fn new(start: VirtAddr, end: VirtAddr) -> Option<Self> {
        if !start.is_page_aligned() || !end.is_page_aligned() || start.0 >= end.0 {
            return None;
        }
        Some(Self { first: start.page_number(), end: end.page_number() })
    }

    /// `pages` pages from page number `first`, if there is at least one and they all exist.
    #[inline]
    pub const fn from_pages(first: u64, pages: PageCount) -> Option<Self> {
        match first.checked_add(pages.0) {
            Some(end) if pages.0 > 0 && end <= PAGE_NUMBER_MAX => Some(Self { first, end }),
            _ => None,
        }
    }

    /// The page numbered `number`, which is not the last of all.
    #[inline]
    pub(crate) const fn of_page(number: u64) -> Self {
        Self::up_to_last(number, 1)
    }

    /// `pages` pages, at least one, from number `first` on, which is not the last of all; without the last of all.
    #[inline]
    pub(crate) const fn up_to_last(first: u64, pages: u64) -> Self {
        debug_assert!(first < PAGE_NUMBER_MAX && pages > 0);
        let end = first.saturating_add(pages);
        Self { first, end: if end < PAGE_NUMBER_MAX { end } else { PAGE_NUMBER_MAX } }
    }

    /// The pages that hold the `bytes` bytes from the page-aligned `start`: the length is rounded up.
    pub const fn from_len(start: VirtAddr, bytes: u64) -> Option<Self> {
        if !start.is_page_aligned() {
            return None;
        }
        Self::from_pages(start.page_number(), PageCount::from_bytes_up(bytes))
    }

    /// The first byte.
    #[inline]
    pub const fn start(self) -> VirtAddr {
        VirtAddr(self.first << PAGE_SHIFT)
    }

    /// The byte after the last.
    #[inline]
    pub const fn end(self) -> VirtAddr {
        VirtAddr(self.end << PAGE_SHIFT)
    }

    /// The first page number.
    #[inline]
    pub const fn first_page(self) -> u64 {
        self.first
    }

    /// The page number after the last.
    #[inline]
    pub const fn end_page(self) -> u64 {
        self.end
    }

    /// How many pages there are: at least one.
    #[inline]
    pub const fn pages(self) -> PageCount {
        PageCount(self.end - self.first)
    }

    /// How many bytes there are: at least a page.
    #[inline]
    pub const fn bytes(self) -> u64 {
        (self.end - self.first) << PAGE_SHIFT
    }

    /// Whether `address` lies inside.
    pub const fn contains(self, address: VirtAddr) -> bool {
        self.first <= address.page_number() && address.page_number() < self.end
    }

    /// Whether all of `other` lies inside.
    #[inline]
    pub const fn contains_range(self, other: Self) -> bool {
        self.first <= other.first && other.end <= self.end
    }

    /// Whether the two share a page.
    pub const fn intersects(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }

    /// The pages that both have, if any.
    #[inline]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (first, end) = (self.first.max(other.first), self.end.min(other.end));
        (first < end).then_some(Self { first, end })
    }

    /// The part below `address`, if any; `address` must be page aligned.
    pub fn below(self, address: VirtAddr) -> Option<Self> {
        debug_assert!(address.is_page_aligned());
        let end = self.end.min(address.page_number());
        (self.first < end).then_some(Self { first: self.first, end })
    }

    /// The part from `address` on, if any; `address` must be page aligned.
    pub fn from(self, address: VirtAddr) -> Option<Self> {
        debug_assert!(address.is_page_aligned());
        let first = self.first.max(address.page_number());
        (first < self.end).then_some(Self { first, end: self.end })
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start(), self.end())
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start(), self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_aligned_and_not_empty() {
        let at = VirtAddr::new;
        assert!(PageRange::new(at(0x1000), at(0x1000)).is_none());
        assert!(PageRange::new(at(0x2000), at(0x1000)).is_none());
        assert!(PageRange::new(at(0x1001), at(0x3000)).is_none());
        assert!(PageRange::new(at(0x1000), at(0x2fff)).is_none());
        assert_eq!(PageRange::new(at(0x1000), at(0x3000)).unwrap().bytes(), 0x2000);
        assert!(PageRange::from_len(at(0x1000), 0).is_none());
        assert_eq!(PageRange::from_len(at(0x1000), 1).unwrap().pages(), PageCount::new(1));
    }

    #[test]
    fn nothing_reaches_past_the_end_of_the_address_space() {
        let last = VirtAddr::new(!(PAGE_SIZE - 1));
        assert!(PageRange::from_len(last, 1).is_none());
        assert!(PageRange::from_len(VirtAddr::new(0), u64::MAX).is_none());
        assert_eq!(VirtAddr::new(u64::MAX).page_up(), None);
        assert_eq!(PageCount::from_bytes_up(u64::MAX).get(), 1 << 52);
    }

    #[test]
    fn parts_of_a_range() {
        let range = PageRange::from_pages(4, PageCount::new(4)).unwrap();
        let at = |page| VirtAddr::from_page_number(page).unwrap();
        assert_eq!(range.below(at(4)), None);
        assert_eq!(range.below(at(6)).unwrap().pages().get(), 2);
        assert_eq!(range.from(at(8)), None);
        assert_eq!(range.from(at(0)), Some(range));
        assert!(range.contains(VirtAddr::new(0x7fff)));
        assert!(!range.contains(VirtAddr::new(0x8000)));
    }
}
