//! Changes of what a view shows, as few host calls as can be.
//!
//! Changes of pages that follow each other, lowest first, are one host call if they are alike. The last call is made by
//! [`Changes::finish`].

use pagewarden::Errno;
use pagewarden::PAGE_SIZE;
use pagewarden::frame::FrameNumber;

use super::HostMachine;
use super::host::Shown;
use super::page::Page;
use super::view::View;

/// Changes under way.
pub(super) struct Changes<'v> {
    machine: &'v HostMachine,
    view: &'v View,
    pending: Option<Change>,
}

/// One that waits for those that it may be made with.
#[derive(Clone, Copy)]
struct Change {
    first: u64,
    pages: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To nothing.
    Hide,
    /// To what it is, without stores.
    Protect,
    /// To this, and what goes on from it.
    Show(Page),
}

impl<'v> Changes<'v> {
    pub(super) const fn new(machine: &'v HostMachine, view: &'v View) -> Self {
        Self { machine, view, pending: None }
    }

    /// Page `page`, which is `before`, is to be `after`.
    pub(super) fn push(&mut self, page: u64, before: Page, after: Page) -> Result<(), Errno> {
        if before == after {
            if let Some(last) = &mut self.pending
                && last.first + last.pages == page
                && last.changes_nothing_of(after)
            {
                last.pages += 1;
            }
            return Ok(());
        }
        let kind = if after == Page::NOTHING {
            Kind::Hide
        } else if after.is_less_than(before) {
            Kind::Protect
        } else {
            Kind::Show(after)
        };
        if let Some(last) = &mut self.pending
            && last.first + last.pages == page
            && last.goes_on_with(kind)
        {
            last.pages += 1;
            return Ok(());
        }
        self.finish()?;
        self.pending = Some(Change { first: page, pages: 1, kind });
        Ok(())
    }

    /// Counts mappings; an error if there are too many.
    pub(super) fn count(&self, before: usize, after: usize) -> Result<(), Errno> {
        if self.machine.count_mappings(before, after) { Ok(()) } else { Err(Errno::NoMem) }
    }

    /// Makes the last change.
    pub(super) fn finish(&mut self) -> Result<(), Errno> {
        let Some(Change { first, pages, kind }) = self.pending.take() else { return Ok(()) };
        match kind {
            Kind::Hide => self.view.show(first, pages, Shown::Nothing),
            Kind::Protect => self.view.protect(first, pages),
            Kind::Show(Page::ZEROS) => self.view.show(first, pages, Shown::Zeros),
            Kind::Show(page) => {
                let is_writable = page.is_writable();
                if is_writable {
                    for frame in (page.frame()..page.frame() + pages).filter_map(FrameNumber::new) {
                        self.machine.ram.mark_used(frame);
                    }
                }
                let (file, offset) = (self.machine.ram.file(), page.frame() * PAGE_SIZE);
                self.view.show(first, pages, Shown::File { file, offset, is_writable })
            }
        }
    }
}

impl Change {
    /// Whether it may go on over `page`, which stays as it is: what follows is then one change with what came before.
    fn changes_nothing_of(&self, page: Page) -> bool {
        match self.kind {
            Kind::Hide => page == Page::NOTHING,
            Kind::Protect => page != Page::NOTHING && !page.is_writable(),
            Kind::Show(_) => false,
        }
    }

    fn goes_on_with(&self, kind: Kind) -> bool {
        match (self.kind, kind) {
            (Kind::Show(Page::ZEROS), Kind::Show(Page::ZEROS)) => true,
            (Kind::Show(first), Kind::Show(next)) => {
                let is_alike = first.is_writable() == next.is_writable() && first.frame() != 0;
                is_alike && first.frame() + self.pages == next.frame()
            }
            (last, next) => last == next,
        }
    }
}
