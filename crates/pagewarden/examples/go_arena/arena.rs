//! The memory of a garbage-collected heap in the manner of Go's runtime, on a capability for virtual memory.
//!
//! ```text
//! runtime asks      of the capability    a page is then
//! sys_reserve       reserve              reserved: no memory, nothing paid but addresses
//! sys_map           commit               committed: zeros, paid
//! sys_unused        decommit             reserved
//! sys_used          commit               committed: zeros
//! sys_free          unmap                free
//! ```
//!
//! An arena is reserved whole and becomes memory as the heap grows, a chunk at a time. Spans are taken first fit. What
//! the collector frees stays committed until the scavenger gives it up; whoever takes it then gets zeros.

use std::sync::Arc;

use pagewarden::cap::{CapError, VirtualMemory};
use pagewarden::machine::Machine;
use pagewarden::manager::Place;
use pagewarden::{Errno, PAGE_SIZE, PageCount, PageRange, Prot};

/// What the heap grows by.
pub(crate) const CHUNK_PAGES: u64 = 64;

/// What the heap knows of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    /// Never used, or given up.
    Unused,
    /// Committed, in no span.
    Idle,
    InSpan,
}

/// An arena of a heap.
pub(crate) struct Arena {
    memory: Arc<VirtualMemory<Machine>>,
    range: PageRange,
    pages: Vec<Page>,
    /// Pages from here on have never been memory.
    grown: usize,
}

impl Arena {
    /// Reserves an arena of `pages` pages.
    pub(crate) fn sys_reserve(memory: Arc<VirtualMemory<Machine>>, pages: u64) -> Result<Self, CapError> {
        let range = memory.reserve(PageCount::new(pages), Place::Anywhere)?;
        let count = usize::try_from(pages).map_err(|_| Errno::NoMem)?;
        Ok(Self { memory, range, pages: vec![Page::Unused; count], grown: 0 })
    }

    /// A span of `count` pages.
    pub(crate) fn allocate(&mut self, count: u64) -> Result<PageRange, CapError> {
        let wanted = usize::try_from(count).map_err(|_| Errno::NoMem)?;
        loop {
            let span = (0..self.grown).find(|first| self.is_free(*first, wanted));
            if let Some(first) = span {
                self.sys_used(first..first + wanted)?;
                self.pages[first..first + wanted].fill(Page::InSpan);
                return self.range_of(first..first + wanted);
            }
            self.sys_map(wanted)?;
        }
    }

    /// Frees a span. Its memory stays for the next.
    pub(crate) fn free(&mut self, span: PageRange) {
        let first = self.index(span);
        let count = usize::try_from(span.pages().get()).unwrap_or(0);
        self.pages[first..first + count].fill(Page::Idle);
    }

    /// Gives up the memory of all pages that are in no span; how many.
    pub(crate) fn scavenge(&mut self) -> Result<u64, CapError> {
        let mut given_up = 0;
        for run in runs(&self.pages, Page::Idle) {
            self.sys_unused(run.clone())?;
            given_up += run.len() as u64;
        }
        Ok(given_up)
    }

    /// Gives up the arena.
    pub(crate) fn sys_free(self) -> Result<(), CapError> {
        self.memory.unmap(self.range)
    }

    /// More memory at the end of the heap, for a span of `wanted` pages.
    fn sys_map(&mut self, wanted: usize) -> Result<(), CapError> {
        let chunk = usize::try_from(CHUNK_PAGES).unwrap_or(wanted).max(wanted);
        let end = (self.grown + chunk).min(self.pages.len());
        if self.grown == end {
            return Err(Errno::NoMem.into());
        }
        let run = self.grown..end;
        self.memory.commit(self.range_of(run.clone())?, Prot::READ | Prot::WRITE)?;
        self.pages[run].fill(Page::Idle);
        self.grown = end;
        Ok(())
    }

    /// Makes pages memory again that had been given up.
    fn sys_used(&mut self, span: std::ops::Range<usize>) -> Result<(), CapError> {
        for run in runs(&self.pages[span.clone()], Page::Unused) {
            let run = span.start + run.start..span.start + run.end;
            self.memory.commit(self.range_of(run.clone())?, Prot::READ | Prot::WRITE)?;
            self.pages[run].fill(Page::Idle);
        }
        Ok(())
    }

    fn sys_unused(&mut self, run: std::ops::Range<usize>) -> Result<(), CapError> {
        self.memory.decommit(self.range_of(run.clone())?)?;
        self.pages[run].fill(Page::Unused);
        Ok(())
    }

    fn is_free(&self, first: usize, count: usize) -> bool {
        first + count <= self.grown && self.pages[first..first + count].iter().all(|page| *page != Page::InSpan)
    }

    fn index(&self, span: PageRange) -> usize {
        usize::try_from(span.first_page() - self.range.first_page()).unwrap_or(usize::MAX)
    }

    fn range_of(&self, pages: std::ops::Range<usize>) -> Result<PageRange, CapError> {
        let start = self.range.start().checked_add(pages.start as u64 * PAGE_SIZE);
        let range = start.and_then(|start| PageRange::from_len(start, pages.len() as u64 * PAGE_SIZE));
        range.ok_or_else(|| Errno::Inval.into())
    }
}

/// The runs of pages that are `wanted`.
fn runs(pages: &[Page], wanted: Page) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (index, _) in pages.iter().enumerate().filter(|(_, page)| **page == wanted) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}
