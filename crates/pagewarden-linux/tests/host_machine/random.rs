//! Random calls, loads and stores of a family of spaces, against a model of pages.
//!
//! The model knows rights and one word a page, and whom a page is shared with. Each access must succeed or be refused as it
//! says, and find what it has.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use pagewarden::VirtAddr;
use pagewarden::linux::{MremapRequest, RemapFlags, Request};
use pagewarden_linux::host_machine::{HostMemory, HostMemoryOptions, HostSpace};

use crate::support::{
    NONE, Numbers, PAGE, READ, READ_WRITE, fork, map_private, map_shared, mappings, memory_with, space, unmap,
};

const FIRST: u64 = 500;
const PAGES: u64 = 700;
const SPACES: usize = 4;

#[derive(Clone)]
enum Word {
    Private(u64),
    Shared(Rc<Cell<u64>>),
}

#[derive(Clone)]
struct PageModel {
    prot: u64,
    word: Word,
}

impl PageModel {
    fn value(&self) -> u64 {
        match &self.word {
            Word::Private(value) => *value,
            Word::Shared(cell) => cell.get(),
        }
    }

    fn set(&mut self, value: u64) {
        match &mut self.word {
            Word::Private(old) => *old = value,
            Word::Shared(cell) => cell.set(value),
        }
    }
}

/// A space and what it must be.
struct Guest {
    space: Arc<HostSpace>,
    pages: Vec<Option<PageModel>>,
}

/// Where the word of a page is.
fn place(page: u64) -> VirtAddr {
    VirtAddr::new(page * PAGE + 1000)
}

fn index(page: u64) -> usize {
    usize::try_from(page - FIRST).unwrap()
}

impl Guest {
    fn model(&mut self, first: u64, pages: u64) -> &mut [Option<PageModel>] {
        &mut self.pages[index(first)..index(first + pages)]
    }

    fn load(&self, page: u64) {
        let expected = self.pages[index(page)].as_ref().filter(|model| model.prot != NONE).map(PageModel::value);
        let mut found = [0; 8];
        let loaded = self.space.load(place(page), &mut found);
        assert_eq!(loaded.is_ok(), expected.is_some(), "a load of page {page}: {loaded:?}");
        assert!(expected.is_none_or(|expected| expected == u64::from_le_bytes(found)), "page {page}: {found:?}");
    }

    fn store(&mut self, page: u64, value: u64) {
        let stored = self.space.store(place(page), &value.to_le_bytes());
        let model = self.pages[index(page)].as_mut().filter(|model| model.prot == READ_WRITE);
        assert_eq!(stored.is_ok(), model.is_some(), "a store to page {page}: {stored:?}");
        if let Some(model) = model {
            model.set(value);
        }
    }

    fn copy(&mut self, page: u64, value: u64) {
        let written = self.space.write(place(page), &value.to_le_bytes()).is_ok();
        let model = self.pages[index(page)].as_mut().filter(|model| model.prot == READ_WRITE);
        assert_eq!(written, model.is_some(), "a copy to page {page}");
        if let Some(model) = model {
            model.set(value);
        }
    }

    fn map_private(&mut self, first: u64, pages: u64, prot: u64) {
        map_private(&self.space, first, pages, prot);
        self.model(first, pages).fill(Some(PageModel { prot, word: Word::Private(0) }));
    }

    fn map_shared(&mut self, first: u64, pages: u64, prot: u64) {
        map_shared(&self.space, first, pages, prot);
        self.model(first, pages).fill_with(|| Some(PageModel { prot, word: Word::Shared(Rc::default()) }));
    }

    fn protect(&mut self, first: u64, pages: u64, prot: u64) {
        let done = self.space.call(&Request::Mprotect { addr: first * PAGE, len: pages * PAGE, prot });
        let reached = self.model(first, pages).iter_mut().map_while(Option::as_mut);
        let changed = reached.map(|page| page.prot = prot).count();
        assert_eq!(done.is_ok(), changed as u64 == pages);
    }

    fn discard(&mut self, first: u64, pages: u64) {
        let advice = libc::MADV_DONTNEED;
        let done = self.space.call(&Request::Madvise { addr: first * PAGE, len: pages * PAGE, advice });
        let model = self.model(first, pages);
        assert_eq!(done.is_ok(), model.iter().all(Option::is_some));
        for page in model.iter_mut().flatten() {
            if matches!(page.word, Word::Private(_)) {
                page.set(0);
            }
        }
    }

    fn unmap(&mut self, first: u64, pages: u64) {
        unmap(&self.space, first, pages);
        self.model(first, pages).fill(None);
    }

    fn relocate(&mut self, from: u64, to: u64, pages: u64) {
        let (addr, len) = (from * PAGE, pages * PAGE);
        let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
        let call = MremapRequest { addr, old_len: len, new_len: len, flags, new_addr: to * PAGE };
        // Not all of it may be one region: then some of it may have moved.
        if self.space.call(&Request::Mremap(call)).is_err() {
            self.unmap(from, pages);
            self.unmap(to, pages);
            return;
        }
        let moved: Vec<_> = self.model(from, pages).iter_mut().map(Option::take).collect();
        // Where there was nothing, nothing is replaced.
        for (page, moved) in self.model(to, pages).iter_mut().zip(moved) {
            *page = moved.or_else(|| page.take());
        }
    }

    fn check(&self) {
        self.space.check_invariants();
        (FIRST..FIRST + PAGES).for_each(|page| self.load(page));
    }
}

fn step(guests: &mut Vec<Guest>, numbers: &mut Numbers) {
    let at = usize::try_from(numbers.below(guests.len() as u64)).unwrap();
    let count = guests.len();
    let guest = &mut guests[at];
    let page = FIRST + numbers.below(PAGES);
    let pages = (1 + numbers.below(48)).min(FIRST + PAGES - page);
    let prot = [NONE, READ, READ_WRITE, READ_WRITE][usize::try_from(numbers.below(4)).unwrap()];
    match numbers.below(64) {
        0..=17 => guest.load(page),
        18..=35 => guest.store(page, numbers.draw()),
        36..=38 => (page..page + pages).for_each(|page| guest.store(page, numbers.draw())),
        39..=40 => (page..page + pages).rev().for_each(|page| guest.store(page, numbers.draw())),
        41..=43 => (page..page + pages).for_each(|page| guest.load(page)),
        44..=45 => guest.copy(page, numbers.draw()),
        46..=50 => guest.map_private(page, pages, prot),
        51..=52 => guest.map_shared(page, pages, prot),
        53..=55 => guest.protect(page, pages, prot),
        56..=57 => guest.discard(page, pages),
        58 => guest.unmap(page, pages),
        59 => {
            let to = FIRST + numbers.below(PAGES - pages);
            if to + pages <= page || page + pages <= to {
                guest.relocate(page, to, pages);
            }
        }
        60..=61 if count < SPACES => {
            let child = Guest { space: fork(&guest.space), pages: guest.pages.clone() };
            guests.push(child);
        }
        62 if count > 1 => drop(guests.swap_remove(at)),
        63 => guest.check(),
        _ => {}
    }
}

fn run(memory: &Arc<HostMemory>, seed: u64, steps: u64, mappings_max: usize) {
    let mut numbers = Numbers::new(seed);
    let mut guests = vec![Guest { space: space(memory), pages: vec![None; usize::try_from(PAGES).unwrap()] }];
    guests[0].map_private(FIRST, PAGES, READ_WRITE);
    for _ in 0..steps {
        step(&mut guests, &mut numbers);
        let mappings = memory.usage().mappings;
        assert!(mappings <= mappings_max, "{mappings} mappings");
    }
    guests.iter().for_each(Guest::check);
    memory.pager().frames().check_invariants();
}

#[test]
fn a_family_of_spaces_finds_what_the_model_has() {
    let memory = memory_with(HostMemoryOptions { bytes: 128 << 20, mappings_max: None });
    for seed in 1..=4 {
        run(&memory, seed, 1200, usize::MAX);
    }
    assert_eq!(memory.usage().frames, 1, "the frame of zeros");
    assert_eq!(memory.usage().mappings, 0);
}

#[test]
fn few_mappings_of_the_host_make_guests_slower_and_nothing_else() {
    for mappings_max in [8, 20, 100] {
        let memory = memory_with(HostMemoryOptions { bytes: 128 << 20, mappings_max: Some(mappings_max) });
        run(&memory, 5, 500, mappings_max);
    }
}

#[test]
fn the_host_has_as_many_mappings_as_are_counted() {
    let memory = memory_with(HostMemoryOptions { bytes: 128 << 20, mappings_max: None });
    let mut numbers = Numbers::new(6);
    let mut guests = vec![Guest { space: space(&memory), pages: vec![None; usize::try_from(PAGES).unwrap()] }];
    guests[0].map_private(FIRST, PAGES, READ_WRITE);
    let mut seen = 0;
    for _ in 0..600 {
        step(&mut guests, &mut numbers);
        let counted: usize = guests.iter().map(|guest| mappings(&guest.space)).sum();
        assert_eq!(memory.usage().mappings, counted - guests.len());
        seen = seen.max(counted);
    }
    assert!(seen > 50, "{seen} mappings");
}
