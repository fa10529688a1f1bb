//! Calls by handle: objects, windows on them, and handles themselves.

use alloc::vec;
use alloc::vec::Vec;

use super::{Answer, Cell, Denial, Life, Model, Name, Object, Page, Run, Value, Where, index};
use crate::cap::{Rights, TransferMode};
use crate::error::Errno;
use crate::prot::Prot;

/// No machine has so many frames; nobody makes an array of more.
const FRAMES_MAX: u64 = 1 << 10;

/// What a handle is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Target {
    /// The pool of frames.
    Frames,
    /// The space of a process.
    Space(usize),
    /// A window on an object.
    Memory(Memory),
}

/// Pages `first..first + pages` of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Memory {
    pub(crate) object: usize,
    pub(crate) first: u64,
    pub(crate) pages: u64,
    /// The object can have any size up to the window's.
    pub(crate) is_resizable: bool,
}

impl Memory {
    pub(super) const fn has(self, object: usize, at: u64) -> bool {
        self.object == object && self.first <= at && at < self.first + self.pages
    }

    /// Pages `part` of the window, as a window; they may lie outside.
    const fn part(self, part: Run) -> Self {
        Self { first: self.first + part.first, pages: part.count, is_resizable: false, ..self }
    }

    /// What is wrong with a part that is not one of the window.
    fn not_inside(self, part: Run) -> Vec<Denial> {
        if part.end() > self.pages { vec![Denial::Errno(Errno::Inval)] } else { Vec::new() }
    }
}

/// What a handle stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Capability {
    pub(crate) target: Target,
    pub(crate) rights: Rights,
}

/// What a handle with `rights` lets be done with mapped pages.
fn prot_of(rights: Rights) -> Prot {
    let of = |right, prot| if rights.contains(right) { prot } else { Prot::NONE };
    match rights.contains(Rights::READ) {
        true => Prot::READ | of(Rights::WRITE, Prot::WRITE) | of(Rights::EXECUTE, Prot::EXEC),
        false => Prot::NONE,
    }
}

/// What is wrong with `prot` for a handle with `rights`: a page that can be stored to or run can be loaded from.
fn wrong_prot(rights: Rights, prot: Prot) -> Vec<Denial> {
    let needed = if prot == Prot::NONE { prot } else { prot | Prot::READ };
    if prot_of(rights).contains(needed) { Vec::new() } else { vec![Denial::Rights] }
}

impl Model {
    /// What a name stands for in the caller's table.
    pub(super) fn look_up(&self, by: usize, name: Name) -> Result<Capability, Denial> {
        if self.processes[by].life != Life::Running {
            return Err(Denial::Closed);
        }
        match name {
            Name::Given { process, number } if process == by => {
                self.processes[by].handles.get(number).copied().flatten().ok_or(Denial::BadHandle)
            }
            _ => Err(Denial::BadHandle),
        }
    }

    /// The window that a name stands for, and all rights of the handle.
    fn memory(&self, by: usize, name: Name, needed: Rights) -> Result<(Memory, Rights), Denial> {
        let Capability { target, rights } = self.look_up(by, name)?;
        let Target::Memory(memory) = target else { return Err(Denial::WrongType) };
        if rights.contains(needed) { Ok((memory, rights)) } else { Err(Denial::Rights) }
    }

    fn size(&self, object: usize) -> u64 {
        self.objects[object].cells.len() as u64
    }

    /// How many pages of a window there are.
    fn present(&self, memory: Memory) -> u64 {
        self.size(memory.object).saturating_sub(memory.first).min(memory.pages)
    }

    fn new_cell(&mut self) -> Cell {
        self.next_frame += 1;
        Cell { byte: 0, frame: Some(self.next_frame) }
    }

    pub(super) fn allocate(&self, by: usize, frames: Name, (pages, capacity): (u64, Option<u64>)) -> (Self, Answer) {
        match self.look_up(by, frames) {
            Ok(Capability { target: Target::Frames, .. }) => {}
            Ok(_) => return self.refuse(vec![Denial::WrongType]),
            Err(denial) => return self.refuse(vec![denial]),
        }
        let window = capacity.unwrap_or(pages);
        let mut wrong = Vec::new();
        if window == 0 || pages > window {
            wrong.push(Denial::Errno(Errno::Inval));
        }
        if pages > FRAMES_MAX {
            wrong.push(Denial::Errno(Errno::NoMem));
        }
        let memory = Memory { object: self.objects.len(), first: 0, pages: window, is_resizable: capacity.is_some() };
        let mut rights = Rights::all();
        rights.set(Rights::RESIZE, capacity.is_some());
        let mut next = self.with_handle(by, Capability { target: Target::Memory(memory), rights });
        let cells = (0..pages.min(FRAMES_MAX)).map(|_| Some(next.new_cell())).collect();
        next.objects.push(Object { cells });
        self.settle(next, wrong, Value::Handle)
    }

    pub(super) fn info(&self, by: usize, memory: Name) -> (Self, Answer) {
        match self.memory(by, memory, Rights::empty()) {
            Ok((memory, rights)) => {
                let info = Value::Info { pages: memory.pages, size: self.present(memory), rights };
                (self.clone(), Ok(info))
            }
            Err(denial) => self.refuse(vec![denial]),
        }
    }

    pub(super) fn map(&self, by: usize, memory: Name, (part, prot): (Run, Prot), place: Where) -> (Self, Answer) {
        let (memory, rights) = match self.memory(by, memory, Rights::MAP) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let mut wrong = wrong_prot(rights, prot);
        wrong.extend(memory.not_inside(part));
        let first = match self.find(by, part.count, place) {
            Ok(first) => first,
            Err(denial) => {
                wrong.push(denial);
                return self.refuse(wrong);
            }
        };
        let mut next = self.clone();
        for at in 0..part.count {
            *next.page_mut(by, first + at) = Page::Borrowed {
                object: memory.object,
                index: memory.first + part.first + at,
                prot,
                prot_max: prot_of(rights),
            };
        }
        self.settle(next, wrong, Value::Page(first))
    }

    /// What is wrong with a call about `range`, if all of it has to be borrowed from `memory`.
    fn not_borrowed(&self, by: usize, memory: Memory, range: Run) -> Vec<Denial> {
        let wrong = |page| match self.page(by, page) {
            Page::Borrowed { object, index, .. } if memory.has(object, index) => None,
            Page::Fixed { .. } => Some(Denial::Errno(Errno::Perm)),
            _ => Some(Denial::Errno(Errno::Inval)),
        };
        range.pages().filter_map(wrong).collect()
    }

    pub(super) fn unmap_borrowed(&self, by: usize, memory: Name, range: Run) -> (Self, Answer) {
        let (memory, _) = match self.memory(by, memory, Rights::MAP) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let wrong = self.not_borrowed(by, memory, range);
        if !wrong.is_empty() {
            return self.refuse(wrong);
        }
        let mut next = self.clone();
        range.pages().for_each(|page| *next.page_mut(by, page) = Page::Free);
        self.settle(next, wrong, Value::Nothing)
    }

    pub(super) fn protect_borrowed(&self, by: usize, memory: Name, range: Run, to: Prot) -> (Self, Answer) {
        let (memory, rights) = match self.memory(by, memory, Rights::MAP) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let mut wrong = wrong_prot(rights, to);
        wrong.extend(self.not_borrowed(by, memory, range));
        if !wrong.is_empty() {
            return self.refuse(wrong);
        }
        let mut next = self.clone();
        for page in range.pages() {
            if let Page::Borrowed { prot, prot_max, .. } = next.page_mut(by, page) {
                *prot = to;
                *prot_max |= to;
            }
        }
        self.settle(next, wrong, Value::Nothing)
    }

    pub(super) fn slice(&self, by: usize, memory: Name, part: Run, rights: Rights) -> (Self, Answer) {
        let (memory, _) = match self.memory(by, memory, rights) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let mut wrong = memory.not_inside(part);
        if rights.contains(Rights::RESIZE) {
            wrong.push(Denial::Rights);
        }
        let target = Target::Memory(memory.part(part));
        let next = self.with_handle(by, Capability { target, rights });
        self.settle(next, wrong, Value::Handle)
    }

    pub(super) fn snapshot(&self, by: usize, memory: Name, part: Run) -> (Self, Answer) {
        let (memory, rights) = match self.memory(by, memory, Rights::READ) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let wrong = memory.not_inside(part);
        let of = memory.part(part);
        let window = Memory { object: self.objects.len(), first: 0, pages: part.count, is_resizable: false };
        let rights = (rights | Rights::WRITE) - Rights::EXECUTE - Rights::RESIZE;
        let mut next = self.with_handle(by, Capability { target: Target::Memory(window), rights });
        let cells = &self.objects[memory.object].cells;
        // What lies beyond the end is zeros in the copy.
        let nothing = Cell { byte: 0, frame: None };
        let copied = (of.first..of.first + part.count).map(|at| cells.get(index(at)).copied().unwrap_or(Some(nothing)));
        next.objects.push(Object { cells: copied.collect() });
        self.settle(next, wrong, Value::Handle)
    }

    pub(super) fn resize(&self, by: usize, memory: Name, pages: u64) -> (Self, Answer) {
        let (memory, _) = match self.memory(by, memory, Rights::RESIZE) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        if !memory.is_resizable || pages > memory.pages {
            return self.refuse_with(Errno::Inval);
        }
        let mut next = self.clone();
        next.objects[memory.object].cells.truncate(index(pages));
        while next.size(memory.object) < pages {
            let cell = next.new_cell();
            next.objects[memory.object].cells.push(Some(cell));
        }
        self.settle(next, Vec::new(), Value::Nothing)
    }

    pub(super) fn read(&self, by: usize, memory: Name, part: Run) -> (Self, Answer) {
        let (memory, _) = match self.memory(by, memory, Rights::READ) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        if part.end() > self.present(memory) {
            return self.refuse_with(Errno::Inval);
        }
        let byte = |at| self.objects[memory.object].cells[index(memory.first + at)].map_or(0, |cell| cell.byte);
        (self.clone(), Ok(Value::Bytes(part.pages().map(byte).collect())))
    }

    /// Pages before one that there is no frame for are written.
    pub(super) fn write(&self, by: usize, memory: Name, part: Run, byte: u8) -> (Self, Answer) {
        let (memory, _) = match self.memory(by, memory, Rights::WRITE) {
            Ok(found) => found,
            Err(denial) => return self.refuse(vec![denial]),
        };
        if part.end() > self.present(memory) {
            return self.refuse_with(Errno::Inval);
        }
        let mut next = self.clone();
        for at in part.pages() {
            match next.with_stored(memory.object, memory.first + at, byte) {
                Some(stored) => next = stored,
                None => return (next, Err(vec![Denial::Errno(Errno::NoMem)])),
            }
        }
        (next, Ok(Value::Nothing))
    }

    /// A byte stored to a page of an object, which has a frame of its own then; `None` if that cannot be had.
    pub(super) fn with_stored(&self, object: usize, at: u64, byte: u8) -> Option<Self> {
        let mut next = self.clone();
        let cell = self.objects[object].cells.get(index(at)).copied().flatten()?;
        let others = self.objects.iter().flat_map(|object| object.cells.iter().flatten());
        let have = others.filter(|other| other.frame == cell.frame).count();
        let cell = if cell.frame.is_none() || have > 1 { next.new_cell() } else { cell };
        next.objects[object].cells[index(at)] = Some(Cell { byte, ..cell });
        self.not_affordable(&next).is_empty().then_some(next)
    }

    /// The same, with the byte that is there: who loads from a page needs a frame for it too.
    pub(super) fn with_loaded(&self, object: usize, at: u64) -> Option<Self> {
        let cell = self.objects[object].cells.get(index(at)).copied().flatten()?;
        if cell.frame.is_some() { Some(self.clone()) } else { self.with_stored(object, at, cell.byte) }
    }

    pub(super) fn duplicate(&self, by: usize, handle: Name, rights: Rights) -> (Self, Answer) {
        match self.look_up(by, handle) {
            Ok(capability) => {
                let is_less = capability.rights.contains(rights);
                let wrong = if is_less { Vec::new() } else { vec![Denial::Rights] };
                let next = self.with_handle(by, Capability { rights, ..capability });
                self.settle(next, wrong, Value::Handle)
            }
            Err(denial) => self.refuse(vec![denial]),
        }
    }

    pub(super) fn release(&self, by: usize, handle: Name) -> (Self, Answer) {
        if let Err(denial) = self.look_up(by, handle) {
            return self.refuse(vec![denial]);
        }
        (self.without_handle(by, handle), Ok(Value::Nothing))
    }

    fn without_handle(&self, by: usize, handle: Name) -> Self {
        let mut next = self.clone();
        if let Name::Given { number, .. } = handle {
            next.processes[by].handles[number] = None;
        }
        next
    }

    /// The receiver pays before the sender does no more.
    pub(super) fn send(&self, by: usize, handle: Name, sent: (TransferMode, Rights), to: usize) -> (Self, Answer) {
        let capability = match self.look_up(by, handle) {
            Ok(capability) => capability,
            Err(denial) => return self.refuse(vec![denial]),
        };
        let (mode, rights) = sent;
        let mut wrong = Vec::new();
        if !capability.rights.contains(Rights::TRANSFER | rights) {
            wrong.push(Denial::Rights);
        }
        if matches!(capability.target, Target::Space(_)) {
            wrong.push(Denial::Bound);
        }
        if self.processes[to].life != Life::Running {
            wrong.push(Denial::Closed);
        }
        let (next, answer) =
            self.settle(self.with_handle(to, Capability { rights, ..capability }), wrong, Value::Handle);
        if answer.is_ok() && mode == TransferMode::Move {
            return (next.without_handle(by, handle), answer);
        }
        (next, answer)
    }
}
