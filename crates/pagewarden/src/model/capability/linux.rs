//! Linux's calls on the same pages, as far as they differ by what a page is. Those that Linux carries out half-way are
//! carried out region by region: pages that are alike are changed together or not at all.

use alloc::vec;
use alloc::vec::Vec;

use super::call::{MayMove, Over};
use super::{Answer, Denial, Model, Page, Run, Value, Where};
use crate::error::Errno;
use crate::prot::Prot;

/// A page and whether more of a region like it may be made.
const fn is_borrowed(page: Page) -> bool {
    matches!(page, Page::Borrowed { .. })
}

impl Model {
    /// `range` in runs of one region each; holes are runs too, and what is outside is a hole.
    fn regions(&self, by: usize, range: Run) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for page in range.pages() {
            let continues = |last: &Run| {
                let (before, now) = (self.page(by, last.end() - 1), self.page(by, page));
                before.continues_as(now) || (before, now) == (Page::Free, Page::Free)
            };
            match runs.last_mut().filter(|last| continues(last)) {
                Some(last) => last.count += 1,
                None => runs.push(Run::new(page, 1)),
            }
        }
        runs
    }

    fn has_fixed(&self, by: usize, range: Run) -> bool {
        range.pages().any(|page| matches!(self.page(by, page), Page::Fixed { .. }))
    }

    pub(super) fn mmap(&self, by: usize, range: Run, prot: Prot, over: Over) -> (Self, Answer) {
        if !self.is_inside(range) {
            return self.refuse_with(Errno::NoMem);
        }
        let mut wrong = Vec::new();
        if over == Over::Kept && range.pages().any(|page| self.page(by, page) != Page::Free) {
            wrong.push(Denial::Errno(Errno::Exist));
        }
        if self.has_fixed(by, range) {
            wrong.push(Denial::Errno(if over == Over::Kept { Errno::Exist } else { Errno::Perm }));
        }
        let mut next = self.clone();
        let new = Page::Linux { prot, is_charged: prot.contains(Prot::WRITE), byte: None };
        range.pages().for_each(|page| *next.page_mut(by, page) = new);
        self.settle(next, wrong, Value::Page(range.first))
    }

    pub(super) fn munmap(&self, by: usize, range: Run) -> (Self, Answer) {
        if !self.is_inside(range) {
            return self.refuse_with(Errno::Inval);
        }
        if self.has_fixed(by, range) {
            return self.refuse_with(Errno::Perm);
        }
        (self.without_pages(by, range), Ok(Value::Nothing))
    }

    fn without_pages(&self, by: usize, range: Run) -> Self {
        let mut next = self.clone();
        range.pages().for_each(|page| *next.page_mut(by, page) = Page::Free);
        next
    }

    pub(super) fn mprotect(&self, by: usize, range: Run, to: Prot) -> (Self, Answer) {
        let mut next = self.clone();
        for region in self.regions(by, range) {
            let mut changed = next.clone();
            for page in region.pages() {
                let wrong = match self.page(by, page) {
                    Page::Free => Some(Errno::NoMem),
                    Page::Fixed { prot, .. } => Some(if prot.contains(to) { Errno::Perm } else { Errno::Acces }),
                    Page::Borrowed { prot_max, .. } if !prot_max.contains(to) => Some(Errno::Acces),
                    _ => None,
                };
                if let Some(errno) = wrong {
                    return (next, Err(vec![Denial::Errno(errno)]));
                }
                let page = changed.page_mut(by, page);
                *page = protected(*page, to);
            }
            if !next.not_affordable(&changed).is_empty() {
                return (next, Err(vec![Denial::Errno(Errno::NoMem)]));
            }
            next = changed;
        }
        (next, Ok(Value::Nothing))
    }

    /// mremap(2) without an address: smaller, larger in place, or larger elsewhere.
    pub(super) fn mremap(&self, by: usize, range: Run, (pages, may_move): (u64, MayMove)) -> (Self, Answer) {
        let first = self.page(by, range.first);
        let wrong = match first {
            _ if pages == 0 => Some(Errno::Inval),
            Page::Free => Some(Errno::Fault),
            Page::Fixed { .. } => Some(Errno::Perm),
            _ => None,
        };
        if let Some(errno) = wrong {
            return self.refuse_with(errno);
        }
        if pages <= range.count {
            return self.shrunk(by, range, pages);
        }
        let is_one_region = self.is_one_to_linux(by, range);
        if !is_one_region || is_borrowed(first) {
            return self.refuse_with(Errno::Fault);
        }
        let last = match self.page(by, range.end() - 1) {
            Page::Committed { prot, .. } => Page::Committed { prot, byte: None },
            Page::Linux { prot, is_charged, .. } => Page::Linux { prot, is_charged, byte: None },
            other => other,
        };
        let added = Run::new(range.end(), pages - range.count);
        let is_free = added.pages().all(|page| self.page(by, page) == Page::Free) && self.is_inside(added);
        let mut next = self.clone();
        let start = if is_free {
            range.first
        } else if may_move == MayMove::No {
            return self.refuse_with(Errno::NoMem);
        } else {
            match self.find(by, pages, Where::Anywhere) {
                Ok(start) => {
                    next = self.moved(by, range, start);
                    start
                }
                Err(denial) => return self.refuse(vec![denial]),
            }
        };
        Run::new(start + range.count, added.count).pages().for_each(|page| *next.page_mut(by, page) = last);
        self.settle(next, Vec::new(), Value::Page(start))
    }

    fn shrunk(&self, by: usize, range: Run, pages: u64) -> (Self, Answer) {
        let value = Ok(Value::Page(range.first));
        if pages == range.count {
            return (self.clone(), value);
        }
        let tail = Run::new(range.first + pages, range.count - pages);
        let (next, unmapped) = self.munmap(by, tail);
        (next, unmapped.and(value))
    }

    /// Whether Linux has one region there: it does not see what is charged page by page.
    fn is_one_to_linux(&self, by: usize, range: Run) -> bool {
        let kind = |page| match self.page(by, page) {
            Page::Committed { prot, .. } => Page::Reserved { prot },
            Page::Linux { prot, .. } => Page::Linux { prot, is_charged: false, byte: None },
            other => other,
        };
        (range.first + 1..range.end()).all(|page| kind(page - 1).continues_as(kind(page)))
    }

    fn moved(&self, by: usize, from: Run, to: u64) -> Self {
        let mut next = self.without_pages(by, from);
        for at in 0..from.count {
            *next.page_mut(by, to + at) = self.page(by, from.first + at);
        }
        next
    }

    /// mremap(2) to an address, without a change of size: each region by itself, until one cannot be moved.
    pub(super) fn mremap_fixed(&self, by: usize, range: Run, to: u64) -> (Self, Answer) {
        let target = Run::new(to, range.count);
        let overlaps = range.end() > to && target.end() > range.first;
        if !self.is_inside(target) || overlaps {
            return self.refuse_with(Errno::Inval);
        }
        let mut next = self.clone();
        let mut answer = Err(vec![Denial::Errno(Errno::Fault)]);
        for region in self.regions(by, range) {
            let now = self.page(by, region.first);
            if now == Page::Free {
                if region.first == range.first {
                    break;
                }
                continue;
            }
            let start = to + (region.first - range.first);
            if matches!(now, Page::Fixed { .. }) || next.has_fixed(by, Run::new(start, region.count)) {
                answer = Err(vec![Denial::Errno(Errno::Perm)]);
                break;
            }
            next = next.moved(by, region, start);
            if region.first == range.first {
                answer = Ok(Value::Page(to));
            }
        }
        (next, answer)
    }

    /// What an `MREMAP_FIXED` that finds no frame may leave: what was there, or nothing where the first of the regions
    /// should have gone.
    pub(crate) fn after_failed_move(&self, by: usize, range: Run, to: u64) -> Vec<Self> {
        let mut all = vec![self.clone()];
        for region in self.regions(by, range) {
            let target = Run::new(to + (region.first - range.first), region.count);
            if !self.is_inside(target) || self.has_fixed(by, target) {
                break;
            }
            let mut next = all.last().map_or_else(|| self.clone(), |last| last.without_pages(by, target));
            next.drop_unreached();
            all.push(next);
        }
        all
    }

    pub(super) fn discard(&self, by: usize, range: Run) -> (Self, Answer) {
        let mut next = self.clone();
        let mut answer = Ok(Value::Nothing);
        for page in range.pages() {
            match self.page(by, page) {
                Page::Free => answer = Err(vec![Denial::Errno(Errno::NoMem)]),
                Page::Fixed { .. } => return (next, Err(vec![Denial::Errno(Errno::Perm)])),
                Page::Committed { prot, .. } => *next.page_mut(by, page) = Page::Committed { prot, byte: None },
                Page::Linux { prot, is_charged, .. } => {
                    *next.page_mut(by, page) = Page::Linux { prot, is_charged, byte: None };
                }
                Page::Reserved { .. } | Page::Borrowed { .. } => {}
            }
        }
        (next, answer)
    }
}

/// A page that mprotect(2) has given the rights `to`: private memory that becomes writable is charged from then on.
fn protected(page: Page, to: Prot) -> Page {
    match page {
        Page::Reserved { .. } if to.contains(Prot::WRITE) => Page::Committed { prot: to, byte: None },
        Page::Reserved { .. } => Page::Reserved { prot: to },
        Page::Committed { byte, .. } => Page::Committed { prot: to, byte },
        Page::Borrowed { object, index, prot_max, .. } => Page::Borrowed { object, index, prot: to, prot_max },
        Page::Linux { is_charged, byte, .. } => {
            Page::Linux { prot: to, is_charged: is_charged || to.contains(Prot::WRITE), byte }
        }
        Page::Free | Page::Fixed { .. } => page,
    }
}
