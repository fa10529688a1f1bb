//! Steps out of bytes: any bytes are a step, and most are one that comes to something where the model stands.

use std::vec::Vec;

use crate::cap::{Rights, TransferMode};
use crate::ledger::Resource;
use crate::model::capability::{
    Access, BUDGET, Call, Capability, Life, MayMove, Model, Name, Over, POOL, Page, Run, Step, Target, Where,
};
use crate::object::Placement;
use crate::prot::Prot;

/// What a step is made of.
pub(super) type Seed = [u8; 16];

/// The most processes, those included that have ended.
const PROCESSES_MAX: usize = 6;

/// Bytes that are taken one after the other.
struct Dice<'a> {
    model: &'a Model,
    by: usize,
    bytes: core::slice::Iter<'a, u8>,
}

/// Kinds of handles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Frames,
    Space,
    Memory,
}

fn is_of(capability: Option<Capability>, kind: Kind) -> bool {
    capability.is_some_and(|capability| match capability.target {
        Target::Frames => kind == Kind::Frames,
        Target::Space(_) => kind == Kind::Space,
        Target::Memory(_) => kind == Kind::Memory,
    })
}

impl Dice<'_> {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        u64::from(self.bytes.next().copied().unwrap_or(0)) % sides.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = self.roll(of.len() as u64);
        of[usize::try_from(index).unwrap()]
    }

    fn handle_of(&mut self, process: usize, is_meant: impl Fn(Option<Capability>) -> bool) -> Name {
        let handles = &self.model.processes[process].handles;
        let meant: Vec<usize> = (0..handles.len()).filter(|number| is_meant(handles[*number])).collect();
        let number = if meant.is_empty() { self.roll(handles.len() as u64) } else { self.pick(&meant) as u64 };
        Name::Given { process, number: usize::try_from(number).unwrap() }
    }

    /// A name that mostly is that of a live handle of this kind; else it is another's, stale, of another kind, or any
    /// word.
    fn name(&mut self, kind: Kind) -> Name {
        match self.roll(32) {
            0 => self.handle_of(self.by, |_| true),
            1 => self.handle_of(self.by, |capability| capability.is_none()),
            2 => {
                let other = usize::try_from(self.roll(self.model.processes.len() as u64)).unwrap();
                self.handle_of(other, |_| true)
            }
            3 => Name::Word((1 << 16) | (self.roll(256) << 40) | self.roll(4)),
            _ => self.handle_of(self.by, |capability| is_of(capability, kind)),
        }
    }

    /// Pages that mostly begin with one that `is_meant`.
    fn run(&mut self, is_meant: impl Fn(Page) -> bool) -> Run {
        let pages = self.model.pages();
        let meant: Vec<u64> = (0..pages).filter(|page| is_meant(self.model.page(self.by, *page))).collect();
        let how = self.roll(12);
        let first = if how == 0 || meant.is_empty() { self.roll(pages + 2) } else { self.pick(&meant) };
        let alike = (first..pages).take_while(|page| is_meant(self.model.page(self.by, *page))).count() as u64;
        let count = if how == 1 { 1 + self.roll(6) } else { 1 + self.roll(alike.min(6)) };
        Run::new(first, count)
    }

    fn place(&mut self, pages: u64) -> Where {
        let end = self.model.pages();
        match self.roll(10) {
            0..4 => Where::Anywhere,
            4 => Where::At(self.roll(end + 2)),
            _ => {
                let is_free =
                    |first: u64| (first..first + pages).all(|page| self.model.page(self.by, page) == Page::Free);
                let free: Vec<u64> = (0..=end.saturating_sub(pages)).filter(|first| is_free(*first)).collect();
                if free.is_empty() { Where::Anywhere } else { Where::At(self.pick(&free)) }
            }
        }
    }

    fn prot(&mut self) -> Prot {
        const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);
        let odd = Prot::from_bits_truncate(7);
        self.pick(&[READ_WRITE, Prot::READ, Prot::NONE, READ_WRITE, Prot::READ.union(Prot::EXEC), odd, Prot::WRITE])
    }

    fn held(&self, name: Name) -> Option<Capability> {
        match name {
            Name::Given { process, number } => self.model.processes[process].handles[number],
            Name::Word(_) => None,
        }
    }

    /// Rights for a new handle, mostly no more than an old one has.
    fn rights(&mut self, of: Name) -> Rights {
        let held = self.held(of).map_or(Rights::all(), |capability| capability.rights);
        let any = self.bytes.next().map_or(Rights::empty(), |byte| Rights::from_bits_truncate(u32::from(*byte)));
        match self.roll(12) {
            0 => any,
            1 => held & any,
            2 => held - Rights::MAP,
            3 => held - Rights::WRITE,
            4 => held - Rights::TRANSFER,
            _ => held,
        }
    }

    /// Rights for pages, mostly such that a handle gives.
    fn prot_for(&mut self, of: Name) -> Prot {
        let held = self.held(of).map_or(Rights::all(), |capability| capability.rights);
        let mut prot = self.prot();
        if self.roll(6) > 0 {
            for (right, needed) in
                [(Rights::WRITE, Prot::WRITE), (Rights::EXECUTE, Prot::EXEC), (Rights::READ, Prot::all())]
            {
                if !held.contains(right) {
                    prot -= needed;
                }
            }
        }
        prot
    }

    /// A part of the window of a handle, mostly inside.
    fn part(&mut self, of: Name) -> Run {
        let pages = match self.held(of) {
            Some(Capability { target: Target::Memory(memory), .. }) => memory.pages,
            _ => 4,
        };
        if self.roll(12) == 0 {
            return Run::new(self.roll(pages + 2), 1 + self.roll(pages + 1));
        }
        let first = self.roll(pages);
        Run::new(first, 1 + self.roll(pages - first))
    }

    fn pages(&mut self) -> u64 {
        match self.roll(16) {
            0 => 0,
            1 => 1 << 40,
            _ => 1 + self.roll(5),
        }
    }

    fn memory_call(&mut self) -> Call {
        let memory = self.name(Kind::Memory);
        match self.roll(18) {
            0 => Call::Info { memory },
            1..6 => {
                let part = self.part(memory);
                Call::Map { memory, part, prot: self.prot_for(memory), place: self.place(part.count) }
            }
            6..8 => {
                let memory = self.shown_by();
                Call::UnmapBorrowed { memory, range: self.shown(memory) }
            }
            8..10 => {
                let memory = self.shown_by();
                Call::ProtectBorrowed { memory, range: self.shown(memory), prot: self.prot_for(memory) }
            }
            10..12 => Call::Slice { memory, part: self.part(memory), rights: self.rights(memory) - Rights::RESIZE },
            12..14 => Call::Snapshot { memory, part: self.part(memory) },
            14 => Call::Slice { memory, part: self.part(memory), rights: self.rights(memory) },
            15 => Call::Read { memory, part: self.part(memory) },
            _ => Call::Write { memory, part: self.part(memory), byte: u8::try_from(self.roll(256)).unwrap() },
        }
    }

    /// A handle of whose pages some are mapped, if there is one.
    fn shown_by(&mut self) -> Name {
        let (model, by) = (self.model, self.by);
        let is_shown = |capability: Option<Capability>| {
            let memory = match capability.map(|capability| capability.target) {
                Some(Target::Memory(memory)) => memory,
                _ => return false,
            };
            model.processes[by]
                .pages
                .iter()
                .any(|page| matches!(page, Page::Borrowed { object, .. } if *object == memory.object))
        };
        if self.roll(8) == 0 { self.name(Kind::Memory) } else { self.handle_of(by, is_shown) }
    }

    /// Pages that mostly were borrowed by a handle like this.
    fn shown(&mut self, memory: Name) -> Run {
        let held = self.held(memory);
        let is_any = self.roll(4) == 0;
        self.run(|page| match (page, held) {
            (Page::Borrowed { .. }, _) if is_any => true,
            (Page::Borrowed { object, index, .. }, Some(Capability { target: Target::Memory(memory), .. })) => {
                memory.object == object && (memory.first..memory.first + memory.pages).contains(&index)
            }
            _ => false,
        })
    }

    /// Another size for an object that can have one, if the caller has such; else it gets one.
    fn resize_call(&mut self) -> Call {
        let can = |capability: Option<Capability>| {
            capability.is_some_and(|capability| capability.rights.contains(Rights::RESIZE))
        };
        if self.model.processes[self.by].handles.iter().any(|capability| can(*capability)) {
            return Call::Resize { memory: self.handle_of(self.by, can), pages: self.roll(7) };
        }
        match self.roll(4) {
            0 => Call::Resize { memory: self.name(Kind::Memory), pages: self.roll(7) },
            _ => self.resizable(),
        }
    }

    fn resizable(&mut self) -> Call {
        let frames = self.name(Kind::Frames);
        let capacity = self.roll(7);
        let pages = if self.roll(8) == 0 { self.pages() } else { self.roll(capacity + 1) };
        Call::AllocateResizable { frames, pages, capacity }
    }

    fn handle_call(&mut self) -> Call {
        let kind = self.pick(&[Kind::Memory, Kind::Memory, Kind::Memory, Kind::Frames, Kind::Space]);
        let handle = self.name(kind);
        match self.roll(9) {
            0..3 => Call::Duplicate { handle, rights: self.rights(handle) },
            3 => Call::Release { handle },
            4 => Call::Release { handle: self.handle_of(self.by, |held| is_of(held, Kind::Memory)) },
            _ => {
                let mode = self.pick(&[TransferMode::Copy, TransferMode::Move]);
                let alive: Vec<usize> = (0..self.model.processes.len())
                    .filter(|number| self.model.processes[*number].life != Life::Gone)
                    .collect();
                Call::Send { handle, mode, rights: self.rights(handle), to: self.pick(&alive) }
            }
        }
    }

    fn space_call(&mut self) -> Call {
        let space = self.name(Kind::Space);
        let is_committed = |page: Page| matches!(page, Page::Committed { .. });
        let is_reserved = |page: Page| matches!(page, Page::Reserved { .. });
        let has = |is_meant: fn(Page) -> bool| self.model.processes[self.by].pages.iter().any(|page| is_meant(*page));
        let (has_committed, has_reserved) = (has(is_committed), has(is_reserved));
        let kind = match self.roll(12) {
            // What there is nothing for is mostly left out.
            0..=4 if !has_reserved => 10,
            5..=8 if !has_committed && has_reserved => 0,
            5..=8 if !has_committed => 10,
            kind => kind,
        };
        match kind {
            0..5 => Call::Commit { space, range: self.run(is_reserved), prot: self.prot() },
            5..7 => Call::Decommit { space, range: self.run(is_committed) },
            7..9 => Call::Protect { space, range: self.run(is_committed), prot: self.prot() },
            9 => Call::UnmapReserved { space, range: self.run(|page| is_committed(page) || is_reserved(page)) },
            _ => {
                let pages = self.pages();
                Call::Reserve { space, pages, place: self.place(pages.min(6)) }
            }
        }
    }

    fn linux_call(&mut self) -> Call {
        let is_mapped = |page| !matches!(page, Page::Free | Page::Fixed { .. });
        match self.roll(12) {
            0..3 => {
                let over = self.pick(&[Over::Replaced, Over::Replaced, Over::Kept]);
                let range = if self.roll(2) == 0 { self.run(is_mapped) } else { self.run(|page| page == Page::Free) };
                Call::Mmap { range, prot: self.prot(), over }
            }
            3..5 => Call::Munmap { range: self.run(is_mapped) },
            5..8 => Call::Mprotect { range: self.run(is_mapped), prot: self.prot() },
            8 => {
                let may_move = self.pick(&[MayMove::Yes, MayMove::No]);
                Call::Resized { range: self.run(is_mapped), pages: self.roll(8), may_move }
            }
            9..11 => Call::Moved { range: self.run(is_mapped), to: self.roll(self.model.pages() + 1) },
            _ => Call::Discard { range: self.run(is_mapped) },
        }
    }

    fn touch(&mut self) -> Call {
        let kind = self.roll(8);
        // Stores that others see, and that snapshots must not, are the ones to be tried.
        let is_shown = self.roll(3) == 0;
        let is_meant = |page: Page| match page {
            Page::Borrowed { prot, .. } => prot.contains(Prot::WRITE) || !is_shown,
            page => page.prot() != Prot::NONE && !is_shown,
        };
        let page = self.run(is_meant).first;
        let byte = u8::try_from(self.roll(256)).unwrap();
        let access = match kind {
            0..5 => Access::Store(byte),
            5 => Access::Fetch,
            _ => Access::Load,
        };
        Call::Touch { page, access }
    }

    /// A limit is set where there is none, or goes.
    fn limit(&mut self) -> Call {
        if let Some((account, resource)) = self.model.first_limit() {
            return Call::Limit { account, resource, most: u64::MAX };
        }
        let account = 1 + usize::try_from(self.roll(self.model.accounts() as u64 - 1)).unwrap();
        let account = if self.roll(2) == 0 { BUDGET } else { account };
        let (account, resource) = match self.roll(5) {
            0 => (POOL, Resource::Frames),
            1 => (account, Resource::Virtual),
            2 => (account, Resource::Capabilities),
            _ => (account, Resource::Committed),
        };
        let used = self.model.used(account, resource).unwrap_or(0);
        let most = match self.roll(4) {
            0 => used.saturating_sub(self.roll(3)),
            _ => used + self.roll(12),
        };
        Call::Limit { account, resource, most }
    }

    fn life(&mut self) -> Call {
        let alive = self.model.processes.iter().filter(|process| process.life != Life::Gone).count();
        match self.roll(8) {
            0..3 if self.model.processes.len() < PROCESSES_MAX => Call::Fork,
            3 => Call::Exit,
            4..6 if alive > 2 => Call::End,
            6 if alive > 1 => Call::End,
            _ => self.limit(),
        }
    }

    fn allocate(&mut self) -> Call {
        let placement = match self.roll(4) {
            0 => Placement::Contiguous,
            1 => Placement::Scattered,
            _ => return self.resizable(),
        };
        Call::Allocate { frames: self.name(Kind::Frames), pages: self.pages(), placement }
    }
}

/// The step that a seed stands for where the model stands.
pub(super) fn decode(seed: &Seed, model: &Model) -> Step {
    let mut dice = Dice { model, by: 0, bytes: seed.iter() };
    let class = dice.roll(34);
    let kind = match class {
        0..3 => Some(Kind::Frames),
        3..15 => Some(Kind::Memory),
        18..24 => Some(Kind::Space),
        _ => None,
    };
    let alive: Vec<usize> =
        (0..model.processes.len()).filter(|number| model.processes[*number].life != Life::Gone).collect();
    let has_kind = |number: &usize| {
        let mut handles = model.processes[*number].handles.iter();
        kind.is_none_or(|kind| handles.any(|capability| is_of(*capability, kind)))
    };
    let able: Vec<usize> = alive.iter().copied().filter(has_kind).collect();
    let is_any = dice.roll(16) == 0 || able.is_empty();
    dice.by = dice.pick(if is_any { &alive } else { &able });
    let call = match class {
        0..3 => dice.allocate(),
        3..13 => dice.memory_call(),
        13 | 14 => dice.resize_call(),
        15..18 => dice.handle_call(),
        18..24 => dice.space_call(),
        24..28 => dice.linux_call(),
        28..32 => dice.touch(),
        32 => dice.life(),
        _ => dice.limit(),
    };
    Step { by: dice.by, call }
}

/// Seeds that are the same each time, of steps of all kinds.
pub(super) fn fixed_seeds(count: usize) -> Vec<Seed> {
    let mut state = 1_u64;
    let byte = |state: &mut u64| {
        // xorshift64 (Marsaglia).
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()[4]
    };
    (0..count).map(|_| core::array::from_fn(|_| byte(&mut state))).collect()
}
