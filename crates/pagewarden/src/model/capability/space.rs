//! Calls on reservations, by the handle for the caller's space, and the life of processes.

use alloc::vec;
use alloc::vec::Vec;

use super::{Answer, Capability, Denial, Life, Model, Name, Page, Run, Target, Value, Where};
use crate::cap::Rights;
use crate::error::Errno;
use crate::prot::Prot;

impl Model {
    /// Where `pages` pages go: as high as they can, or where they are told to.
    pub(super) fn find(&self, by: usize, pages: u64, place: Where) -> Result<u64, Denial> {
        let is_free = |first: u64| (first..first + pages).all(|page| self.page(by, page) == Page::Free);
        let no_room = Denial::Errno(Errno::NoMem);
        let most = self.pages().checked_sub(pages).ok_or(no_room)?;
        match place {
            Where::Anywhere => (0..=most).rev().find(|first| is_free(*first)).ok_or(no_room),
            Where::At(first) if first > most => Err(no_room),
            Where::At(first) if is_free(first) => Ok(first),
            Where::At(_) => Err(Denial::Errno(Errno::Exist)),
        }
    }

    /// What is wrong with a handle that is to be for the caller's space.
    fn not_own_space(&self, by: usize, space: Name) -> Option<Denial> {
        match self.look_up(by, space) {
            Ok(Capability { target: Target::Space(_), rights }) if rights.contains(Rights::MAP) => None,
            Ok(Capability { target: Target::Space(_), .. }) => Some(Denial::Rights),
            Ok(_) => Some(Denial::WrongType),
            Err(denial) => Some(denial),
        }
    }

    pub(super) fn reserve(&self, by: usize, space: Name, pages: u64, place: Where) -> (Self, Answer) {
        if let Some(denial) = self.not_own_space(by, space) {
            return self.refuse(vec![denial]);
        }
        if pages == 0 {
            return self.refuse_with(Errno::Inval);
        }
        let first = match self.find(by, pages, place) {
            Ok(first) => first,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let mut next = self.clone();
        Run::new(first, pages).pages().for_each(|page| *next.page_mut(by, page) = Page::Reserved { prot: Prot::NONE });
        self.settle(next, Vec::new(), Value::Page(first))
    }

    /// Each page of `range` becomes what `change` says, or is wrong for a reason, and then none does.
    fn change(
        &self,
        by: usize,
        space: Name,
        range: Run,
        change: impl Fn(Page) -> Result<Page, Errno>,
    ) -> (Self, Answer) {
        if let Some(denial) = self.not_own_space(by, space) {
            return self.refuse(vec![denial]);
        }
        let (mut next, mut wrong) = (self.clone(), Vec::new());
        for page in range.pages() {
            let now = self.page(by, page);
            let changed = if matches!(now, Page::Fixed { .. }) { Err(Errno::Perm) } else { change(now) };
            match changed {
                Ok(changed) => *next.page_mut(by, page) = changed,
                Err(errno) => wrong.push(Denial::Errno(errno)),
            }
        }
        if wrong.is_empty() { self.settle(next, wrong, Value::Nothing) } else { self.refuse(wrong) }
    }

    pub(super) fn commit(&self, by: usize, space: Name, range: Run, prot: Prot) -> (Self, Answer) {
        self.change(by, space, range, |page| match page {
            Page::Reserved { .. } => Ok(Page::Committed { prot, byte: None }),
            Page::Committed { .. } => Err(Errno::Exist),
            _ => Err(Errno::Inval),
        })
    }

    pub(super) fn decommit(&self, by: usize, space: Name, range: Run) -> (Self, Answer) {
        self.change(by, space, range, |page| match page {
            Page::Committed { .. } => Ok(Page::Reserved { prot: Prot::NONE }),
            _ => Err(Errno::Inval),
        })
    }

    pub(super) fn protect(&self, by: usize, space: Name, range: Run, prot: Prot) -> (Self, Answer) {
        self.change(by, space, range, |page| match page {
            Page::Committed { byte, .. } => Ok(Page::Committed { prot, byte }),
            _ => Err(Errno::Inval),
        })
    }

    pub(super) fn unmap_reserved(&self, by: usize, space: Name, range: Run) -> (Self, Answer) {
        self.change(by, space, range, |page| match page {
            Page::Reserved { .. } | Page::Committed { .. } => Ok(Page::Free),
            _ => Err(Errno::Inval),
        })
    }

    /// The child has all pages but the fixed ones, which it has anew, and no handle but that for its space.
    pub(super) fn fork(&self, by: usize) -> (Self, Answer) {
        let mut next = self.clone();
        let child = next.add_process(&[]);
        for (page, now) in self.processes[by].pages.iter().enumerate() {
            if !matches!(now, Page::Fixed { .. }) {
                next.processes[child].pages[page] = *now;
            }
        }
        let (mut next, answer) = self.settle(next, Vec::new(), Value::Process);
        if answer.is_ok() {
            [by, child].into_iter().for_each(|process| next.processes[process].has_forked = true);
        }
        (next, answer)
    }

    pub(super) fn exit(&self, by: usize) -> (Self, Answer) {
        let mut next = self.clone();
        let process = &mut next.processes[by];
        process.life = Life::Exited;
        process.handles.iter_mut().for_each(|handle| *handle = None);
        (next, Ok(Value::Nothing))
    }

    pub(super) fn end(&self, by: usize) -> (Self, Answer) {
        let (mut next, answer) = self.exit(by);
        let process = &mut next.processes[by];
        process.life = Life::Gone;
        process.pages.iter_mut().for_each(|page| *page = Page::Free);
        (next, answer)
    }
}
