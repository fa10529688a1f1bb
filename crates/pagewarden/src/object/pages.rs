//! Which pages of an object.

use core::fmt;

use crate::addr::{PAGE_SIZE, PageCount};

/// A run of pages of an object, at least one, counted from its start. All of them have byte offsets that a file can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ObjectPages {
    first: u64,
    /// After the last.
    end: u64,
}

impl ObjectPages {
    /// Page numbers of objects are below this: bytes of a file are counted without a sign bit (`MAX_LFS_FILESIZE`).
    pub const END: u64 = (i64::MAX as u64).div_ceil(PAGE_SIZE);

    /// `count` pages from page `first` on, if there is at least one and an object can have them.
    pub const fn new(first: u64, count: PageCount) -> Option<Self> {
        match first.checked_add(count.get()) {
            Some(end) if count.get() > 0 && end <= Self::END => Some(Self { first, end }),
            _ => None,
        }
    }

    /// The first page.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The page after the last.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many there are.
    pub const fn count(self) -> PageCount {
        PageCount::new(self.end - self.first)
    }

    /// Whether page `index` is one of them.
    pub const fn contains(self, index: u64) -> bool {
        self.first <= index && index < self.end
    }

    /// Pages `part` of these, counted from the first of these; `None` if they are not all here.
    pub fn part(self, part: Self) -> Option<Self> {
        let first = self.first.checked_add(part.first)?;
        Self::new(first, part.count()).filter(|pages| pages.end <= self.end)
    }
}

impl fmt::Display for ObjectPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages {}..{}", self.first, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> Option<ObjectPages> {
        ObjectPages::new(first, PageCount::new(count))
    }

    #[test]
    fn no_object_has_no_pages_or_too_many() {
        assert_eq!(pages(3, 0), None);
        assert_eq!(pages(u64::MAX, 1), None);
        assert_eq!(pages(ObjectPages::END, 1), None);
        assert_eq!(pages(ObjectPages::END - 1, 1).map(ObjectPages::end), Some(ObjectPages::END));
    }

    #[test]
    fn a_part_lies_inside() {
        let all = pages(4, 4).unwrap();
        assert_eq!(all.part(pages(1, 3).unwrap()), pages(5, 3));
        assert_eq!(all.part(pages(1, 4).unwrap()), None);
        assert_eq!(all.part(pages(ObjectPages::END - 1, 1).unwrap()), None);
    }
}
