//! What processes with capabilities see, as a page-state machine that is too simple to be wrong: arrays of pages, lists of
//! handles, objects that are arrays of one byte a page. It knows nothing of regions, tables of pages, frames that are
//! shared, or locks.
//!
//! ```text
//! call                pages of the space                    objects, handles
//! reserve             Free -> Reserved
//! commit              Reserved -> Committed, zeros
//! decommit            Committed -> Reserved, data lost
//! protect             Committed -> Committed, data kept
//! unmap               Reserved, Committed -> Free
//! map                 Free -> Borrowed
//! unmap_borrowed      Borrowed of this object -> Free       pages that nobody reaches go
//! protect_borrowed    Borrowed of this object -> Borrowed
//! release, exit                                             handles go, then pages that nobody reaches
//! Linux's calls       any but Fixed -> any but Fixed
//! ```
//!
//! What a state costs is computed from it each time (`accounts.rs`); a call costs what the states after it cost more than
//! those before it. Every call is a function from a model and its arguments to a model and an answer. Where several
//! things are wrong with a call, the answer has them all: which one is told is not the model's affair. That nothing
//! changes then is.
//!
//! Owned elsewhere: what is real (whoever compares). Addresses are page numbers in one window of the space, which is all
//! of the space: so where something goes that may go anywhere is known too.

mod access;
mod accounts;
mod call;
mod canon;
mod handles;
mod linux;
mod space;

use alloc::vec;
use alloc::vec::Vec;

use crate::cap::Rights;
use crate::error::Errno;
use crate::ledger::{Limits, Resource};
use crate::prot::Prot;

pub(crate) use access::Access;
pub(crate) use call::{Answer, Call, Denial, MayMove, Name, Over, Run, STALE, Step, Value, Where};
pub(crate) use handles::{Capability, Target};

/// What a page of a space is. A byte stands for what a page holds; `None` for one that was never stored to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Page {
    /// Nothing.
    Free,
    /// Addresses that are kept free. Linux's mprotect may have made them readable; then they are zeros.
    Reserved { prot: Prot },
    /// Memory in a reservation, out of reach without rights.
    Committed { prot: Prot, byte: Option<u8> },
    /// A page of an object.
    Borrowed { object: usize, index: u64, prot: Prot, prot_max: Prot },
    /// What plain mmap made; it is charged once it has been writable.
    Linux { prot: Prot, is_charged: bool, byte: Option<u8> },
    /// Shared with whoever runs the process.
    Fixed { prot: Prot, byte: u8 },
}

impl Page {
    /// What may be done with it.
    pub(crate) const fn prot(self) -> Prot {
        match self {
            Self::Free => Prot::NONE,
            Self::Reserved { prot }
            | Self::Committed { prot, .. }
            | Self::Borrowed { prot, .. }
            | Self::Linux { prot, .. }
            | Self::Fixed { prot, .. } => prot,
        }
    }

    /// Whether a page like this and the next, `next`, are one region.
    pub(crate) fn continues_as(self, next: Self) -> bool {
        let shape = |page: Self| match page {
            Self::Committed { prot, .. } => Self::Committed { prot, byte: None },
            Self::Linux { prot, is_charged, .. } => Self::Linux { prot, is_charged, byte: None },
            other => other,
        };
        match (self, next) {
            (Self::Free, _) | (Self::Fixed { .. }, _) => false,
            (Self::Borrowed { object, index, prot, prot_max }, next) => {
                next == Self::Borrowed { object, index: index + 1, prot, prot_max }
            }
            (page, next) => shape(page) == shape(next),
        }
    }
}

/// Whether a process can make calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Life {
    Running,
    /// Its handles are gone, its space is there.
    Exited,
    /// All of it is gone.
    Gone,
}

/// A process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Process {
    pub(crate) account: usize,
    pub(crate) life: Life,
    pub(crate) pages: Vec<Page>,
    /// All that were ever given out, in that order.
    pub(crate) handles: Vec<Option<Capability>>,
    /// Private pages may be shared with another process: what frames they take cannot be said.
    pub(crate) has_forked: bool,
}

/// A page of an object that is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Cell {
    pub(crate) byte: u8,
    /// A snapshot has the frame of what it was made of until one of them is stored to. Frames count, nothing else asks.
    /// A snapshot of what lies beyond the end of an object has none until it is touched.
    frame: Option<u32>,
}

/// An object: the pages up to its size, those that nobody reaches left out.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Object {
    pub(crate) cells: Vec<Option<Cell>>,
}

/// An account: what is above it, and the most that it may hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Account {
    parent: Option<usize>,
    limits: [u64; LIMITED.len()],
}

impl Account {
    /// One without limits of its own.
    fn below(parent: Option<usize>) -> Self {
        Self { parent, limits: LIMITED.map(|resource| Limits::UNLIMITED.of(resource)) }
    }
}

/// What the model limits.
pub(crate) const LIMITED: [Resource; 4] =
    [Resource::Virtual, Resource::Committed, Resource::Capabilities, Resource::Frames];

/// The account above all others.
pub(crate) const ROOT: usize = 0;
/// Below the root; all others are below it.
pub(crate) const BUDGET: usize = 1;
/// Pays for the frames of objects.
pub(crate) const POOL: usize = 2;

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Model {
    pub(crate) processes: Vec<Process>,
    pub(crate) objects: Vec<Object>,
    accounts: Vec<Account>,
    next_frame: u32,
    /// Where the fixed pages of each process are: the capability set, the ring.
    fixed: [u64; 2],
    pages: u64,
}

impl Model {
    /// Nobody, in a world where spaces have `pages` pages and fixed pages at those two places of them.
    pub(crate) fn new(pages: u64, fixed: [u64; 2]) -> Self {
        let accounts = [None, Some(ROOT), Some(BUDGET)].map(Account::below).into();
        Self { processes: Vec::new(), objects: Vec::new(), accounts, next_frame: 0, fixed, pages }
    }

    /// A new process, with `given` besides the handle for its own space.
    pub(crate) fn add_process(&mut self, given: &[(Target, Rights)]) -> usize {
        let process = self.processes.len();
        let account = self.accounts.len();
        self.accounts.push(Account::below(Some(BUDGET)));
        let mut pages = vec![Page::Free; index(self.pages)];
        let count = u8::try_from(given.len() + 1).unwrap_or(u8::MAX);
        pages[index(self.fixed[0])] = Page::Fixed { prot: Prot::READ, byte: count };
        pages[index(self.fixed[1])] = Page::Fixed { prot: Prot::READ | Prot::WRITE, byte: 0 };
        let own = Capability { target: Target::Space(process), rights: Rights::MAP };
        let given = given.iter().map(|&(target, rights)| Some(Capability { target, rights }));
        let handles = core::iter::once(Some(own)).chain(given).collect();
        self.processes.push(Process { account, life: Life::Running, pages, handles, has_forked: false });
        process
    }

    /// Which pages of a space there are.
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// What a page is; nothing outside of the space.
    pub(crate) fn page(&self, process: usize, page: u64) -> Page {
        self.processes[process].pages.get(index(page)).copied().unwrap_or(Page::Free)
    }

    fn page_mut(&mut self, process: usize, page: u64) -> &mut Page {
        &mut self.processes[process].pages[index(page)]
    }

    /// Whether all of `run` lies in the space.
    fn is_inside(&self, run: Run) -> bool {
        run.end() <= self.pages
    }

    /// The model after a step, and what it answers.
    pub(crate) fn after(&self, step: &Step) -> (Self, Answer) {
        let (mut next, answer) = self.call(step.by, &step.call);
        next.drop_unreached();
        (next, answer)
    }

    fn call(&self, by: usize, call: &Call) -> (Self, Answer) {
        match *call {
            Call::Allocate { frames, pages, .. } => self.allocate(by, frames, (pages, None)),
            Call::AllocateResizable { frames, pages, capacity } => self.allocate(by, frames, (pages, Some(capacity))),
            Call::Info { memory } => self.info(by, memory),
            Call::Map { memory, part, prot, place } => self.map(by, memory, (part, prot), place),
            Call::UnmapBorrowed { memory, range } => self.unmap_borrowed(by, memory, range),
            Call::ProtectBorrowed { memory, range, prot } => self.protect_borrowed(by, memory, range, prot),
            Call::Slice { memory, part, rights } => self.slice(by, memory, part, rights),
            Call::Snapshot { memory, part } => self.snapshot(by, memory, part),
            Call::Resize { memory, pages } => self.resize(by, memory, pages),
            Call::Read { memory, part } => self.read(by, memory, part),
            Call::Write { memory, part, byte } => self.write(by, memory, part, byte),
            Call::Duplicate { handle, rights } => self.duplicate(by, handle, rights),
            Call::Release { handle } => self.release(by, handle),
            Call::Send { handle, mode, rights, to } => self.send(by, handle, (mode, rights), to),
            Call::Reserve { space, pages, place } => self.reserve(by, space, pages, place),
            Call::Commit { space, range, prot } => self.commit(by, space, range, prot),
            Call::Decommit { space, range } => self.decommit(by, space, range),
            Call::Protect { space, range, prot } => self.protect(by, space, range, prot),
            Call::UnmapReserved { space, range } => self.unmap_reserved(by, space, range),
            Call::Mmap { range, prot, over } => self.mmap(by, range, prot, over),
            Call::Munmap { range } => self.munmap(by, range),
            Call::Mprotect { range, prot } => self.mprotect(by, range, prot),
            Call::Resized { range, pages, may_move } => self.mremap(by, range, (pages, may_move)),
            Call::Moved { range, to } => self.mremap_fixed(by, range, to),
            Call::Discard { range } => self.discard(by, range),
            Call::Touch { page, access } => self.touch(by, page, access),
            Call::Fork => self.fork(by),
            Call::Exit => self.exit(by),
            Call::End => self.end(by),
            Call::Limit { account, resource, most } => self.limit(account, resource, most),
        }
    }

    /// `next`, if nothing is wrong and all that it costs more can be paid; else what is wrong, and nothing changes.
    fn settle(&self, next: Self, mut wrong: Vec<Denial>, value: Value) -> (Self, Answer) {
        wrong.extend(self.not_affordable(&next));
        if wrong.is_empty() { (next, Ok(value)) } else { self.refuse(wrong) }
    }

    fn refuse(&self, wrong: Vec<Denial>) -> (Self, Answer) {
        (self.clone(), Err(wrong))
    }

    fn refuse_with(&self, errno: Errno) -> (Self, Answer) {
        self.refuse(vec![Denial::Errno(errno)])
    }

    /// Pages of objects that no handle and no mapping reaches go.
    fn drop_unreached(&mut self) {
        for object in 0..self.objects.len() {
            for at in 0..self.objects[object].cells.len() {
                if !self.is_reached(object, at as u64) {
                    self.objects[object].cells[at] = None;
                }
            }
        }
    }

    /// Whether a handle or a mapping of anybody's reaches page `at` of an object.
    pub(crate) fn is_reached(&self, object: usize, at: u64) -> bool {
        let holds =
            |capability: &Capability| matches!(capability.target, Target::Memory(memory) if memory.has(object, at));
        let shows =
            |page: &Page| matches!(page, Page::Borrowed { object: of, index, .. } if (*of, *index) == (object, at));
        let reaches =
            |process: &Process| process.handles.iter().flatten().any(holds) || process.pages.iter().any(shows);
        self.processes.iter().any(reaches)
    }
}

/// A page number as an index; no window is so large that it matters.
fn index(page: u64) -> usize {
    usize::try_from(page).unwrap_or(usize::MAX)
}
