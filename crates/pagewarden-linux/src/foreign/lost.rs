//! Pages that went away under an access by pointer: the access goes on, on a page of zeroes that nobody else has.
//!
//! Code that is not ours cannot end an access with an error, and the signal would end the process whenever the other
//! one made its file shorter. What such code reads in that case is zeroes, and it can ask afterwards whether that has
//! happened.
//!
//! Owns the list of window spaces for the signal handler, which may neither lock nor allocate: places in it are made
//! once, are never freed, and have one word that says which space it is for, if any. So a place is seen with its old
//! space, or with its new one, and never with the start of one and the end of another.
//!
//! A space holds no page for the handler any more before it is unmapped or given up. Whoever accesses it by pointer then
//! breaks the promise that made the pointer useful.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewarden::{PAGE_SIZE, PageRange};

use super::space::{ZEROES, mmap};

/// Bits of a place's word for the number of pages; the number of the first page is above them.
const COUNT_BITS: u32 = 29;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

// Addresses of programs have 47 bits unless they ask for more, which window spaces never do.
const _: () = assert!(super::ForeignMemory::MOST_WINDOW_BYTES / PAGE_SIZE <= COUNT_MASK);

static PLACES: Place = Place::new();

/// A place in the list.
#[derive(Debug)]
struct Place {
    /// The space; 0 for none. One without pages holds its place and nothing else.
    space: AtomicU64,
    replaced: AtomicU64,
    next: OnceLock<&'static Self>,
}

/// A place that one window space has for as long as this lives.
#[derive(Debug)]
pub(super) struct LostPages {
    place: &'static Place,
}

impl Place {
    const fn new() -> Self {
        Self { space: AtomicU64::new(0), replaced: AtomicU64::new(0), next: OnceLock::new() }
    }

    fn holds(&self, page: u64) -> bool {
        let space = self.space.load(Ordering::Acquire);
        let first = space >> COUNT_BITS;
        space != 0 && first <= page && page - first < space & COUNT_MASK
    }
}

impl LostPages {
    /// Takes a place for `space`.
    pub(super) fn new(space: PageRange) -> Self {
        let word = space.first_page() << COUNT_BITS | space.pages().get();
        let mut place = &PLACES;
        while place.space.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            place = place.next.get_or_init(|| Box::leak(Box::new(Place::new())));
        }
        // Nobody can access the space by pointer yet.
        place.replaced.store(0, Ordering::Relaxed);
        Self { place }
    }

    /// How many pages were replaced in the space.
    pub(super) fn count(&self) -> u64 {
        self.place.replaced.load(Ordering::Acquire)
    }

    /// Replaces no page of the space any more.
    pub(super) fn stop(&self) {
        self.place.space.fetch_and(!COUNT_MASK, Ordering::AcqRel);
    }
}

impl Drop for LostPages {
    fn drop(&mut self) {
        self.place.space.store(0, Ordering::Release);
    }
}

/// Puts a page of zeroes in the place of the one at `address`, if that is in a window space. Says whether it has. For
/// signal handlers.
pub(crate) fn replace(address: usize) -> bool {
    let page = address as u64 / PAGE_SIZE;
    let mut next = Some(&PLACES);
    while let Some(place) = next {
        if place.holds(page) {
            let is_replaced = map_zeroes(page);
            place.replaced.fetch_add(u64::from(is_replaced), Ordering::AcqRel);
            return is_replaced;
        }
        next = place.next.get().copied();
    }
    false
}

fn map_zeroes(page: u64) -> bool {
    // SAFETY: the page lies in a window space, where nobody has references. The one who accesses it by pointer keeps the
    // space alive, and has no claim on what the page holds.
    unsafe { mmap(page * PAGE_SIZE, PAGE_SIZE, ZEROES) }.is_ok()
}
