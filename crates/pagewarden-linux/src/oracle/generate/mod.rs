//! Programs from a seed: the same seed gives the same program, on every machine.
//!
//! Uniform arguments would nearly all be refused at once. So addresses are drawn close to the edges that earlier
//! steps have made, lengths mostly reach from edge to edge, and flag words are mostly sensible with now and then
//! a bit too many.

mod memory;
mod moves;
mod places;
mod rng;

pub use rng::Rng;

use super::program::{Arg, Base, Call, FileKind, MAX_STEPS, PAGE, PR_GET_MDWE, PR_SET_MDWE, Program, Step};
use memory::RETURN;
use places::{ODD_ADDRESSES, ODD_ENCLOSED, ODD_LENGTHS, ODD_NARROW, ODD_NARROW_LENGTHS};

const CALLS: &[(u64, Call)] = &[
    (230, Call::Mmap),
    (70, Call::Munmap),
    (110, Call::Mprotect),
    (12, Call::PkeyMprotect),
    (4, Call::PkeyAlloc),
    (4, Call::PkeyFree),
    (45, Call::Mseal),
    (4, Call::Mdwe),
    (110, Call::Mremap),
    (50, Call::Brk),
    (100, Call::Madvise),
    (30, Call::ProcessMadvise),
    (35, Call::RemapPages),
    (4, Call::Seal),
    (25, Call::Mlock),
    (20, Call::Mlock2),
    (20, Call::Munlock),
    (4, Call::Mlockall),
    (4, Call::Munlockall),
    (15, Call::Msync),
    (20, Call::Mincore),
    (8, Call::NameAnonymous),
    (20, Call::Shmat),
    (15, Call::Shmdt),
    (10, Call::Limit),
    (70, Call::Write),
    (40, Call::Read),
    (15, Call::State),
    (10, Call::Fork),
    (8, Call::Twin),
    (5, Call::Vfork),
    (40, Call::Thread),
    (2, Call::Storm),
    (16, Call::Resize),
    (8, Call::Allocate),
    (5, Call::NewMemfd),
    (14, Call::FileWrite),
    (8, Call::FileRead),
    (14, Call::Load),
    (14, Call::Store),
    (12, Call::CopyOut),
    (12, Call::CopyIn),
    (5, Call::VmRead),
    (8, Call::Execute),
];

/// More than this may not be promised by a small host.
const LARGE: u64 = 1 << 32;
/// The end of a guest's address space.
const TASK_END: u64 = 0x7fff_ffff_f000;
/// `MAP_HUGETLB`.
const HUGE_TLB: u64 = 0x4_0000;
/// `MAP_NORESERVE`.
const NO_RESERVE: u64 = 0x4000;

/// What addresses programs name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum World {
    /// The whole address space.
    #[default]
    Whole,
    /// The range of an arena, and what lies beyond all addresses.
    Enclosed,
    /// What 32 bits can name, for addresses and lengths.
    Narrow,
}

struct Generator {
    rng: Rng,
    /// Plain pages are what the program is about.
    moves: bool,
    /// Steps that were drawn already, the next last.
    upcoming: Vec<Step>,
    /// Addresses where something changes, or beyond everything.
    odd: &'static [u64],
    /// Lengths that reach far, or further than anything.
    odd_lengths: &'static [u64],
    /// Page indexes in the window at which something has been made to begin or end.
    edges: Vec<u64>,
    /// Ranges of pages in the window that a step has asked to be mapped.
    mapped: Vec<(u64, u64)>,
    /// Of those, what may hold plain pages.
    plain: Vec<(u64, u64)>,
    /// Ranges of pages in the window that a step has asked to be unmapped, or moved away.
    left: Vec<(u64, u64)>,
    /// Where something shared may have been mapped.
    shared: Vec<(Arg, u64)>,
    /// Steps whose answer may be an address.
    answers: Vec<u16>,
    next: u16,
    /// Where a step has written a return instruction.
    returns: Vec<Arg>,
}

/// The program of `seed`, with `steps` steps (at most [`MAX_STEPS`]); its last step records the state.
pub fn generate(seed: u64, steps: usize) -> Program {
    generate_in(World::Whole, seed, steps)
}

/// As [`generate()`], for a program that keeps to `world`.
pub fn generate_in(world: World, seed: u64, steps: usize) -> Program {
    let (odd, odd_lengths) = match world {
        World::Whole => (ODD_ADDRESSES, ODD_LENGTHS),
        World::Enclosed => (ODD_ENCLOSED, ODD_LENGTHS),
        World::Narrow => (ODD_NARROW, ODD_NARROW_LENGTHS),
    };
    let mut generator = Generator {
        rng: Rng::new(seed),
        moves: false,
        upcoming: Vec::new(),
        odd,
        odd_lengths,
        edges: vec![0, 16, 24],
        mapped: Vec::new(),
        plain: Vec::new(),
        left: Vec::new(),
        shared: Vec::new(),
        answers: Vec::new(),
        next: 0,
        returns: Vec::new(),
    };
    generator.moves = generator.rng.chance(12);
    let mut program = Program::default();
    let steps = steps.clamp(2, MAX_STEPS);
    if generator.rng.chance(25) {
        program.steps.push(Step::new(Call::DropCapabilities, &[]));
        generator.next = 1;
    }
    while program.steps.len() + 1 < steps {
        program.steps.push(generator.step());
        generator.next += 1;
    }
    program.steps.push(Step::new(Call::State, &[]));
    program
}

impl Generator {
    fn step(&mut self) -> Step {
        if let Some(step) = self.upcoming.pop() {
            return step;
        }
        if self.moves && self.rng.chance(70) {
            return self.about_moves();
        }
        let call = self.rng.weighted(CALLS);
        match call {
            Call::Mmap => self.mmap(),
            Call::Mremap => self.mremap(),
            Call::Shmat => self.shmat(),
            Call::Brk => self.brk(),
            Call::Mlockall => {
                let flags = self.rng.weighted(&[(30, 1), (20, 2), (20, 3), (10, 4), (10, 5), (10, 6), (5, 0), (5, 8)]);
                Step::new(call, &[Arg::Value(flags)])
            }
            Call::Limit => {
                let resource = self.rng.pick(&[libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK]);
                let small = self.rng.below(16) * PAGE;
                let some = self.rng.below(64) << 20;
                let bytes = self.rng.weighted(&[(10, 0), (20, small), (50, some), (5, 0x7ff), (15, u64::MAX)]);
                Step::new(call, &[Arg::Value(u64::from(resource)), Arg::Value(bytes)])
            }
            Call::Write => {
                let addr = self.touched();
                let is_return = self.rng.chance(25);
                let byte = if is_return { RETURN } else { 1 + self.rng.below(255) };
                if is_return {
                    self.returns.push(addr);
                }
                Step::new(call, &[addr, Arg::Value(byte)])
            }
            Call::Read => Step::new(call, &[self.touched()]),
            Call::Mseal => self.mseal(),
            Call::Mdwe => self.mdwe(),
            Call::PkeyAlloc => {
                let flags = self.rng.weighted(&[(90, 0), (10, 1)]);
                let rights = self.rng.weighted(&[(30, 0), (20, 1), (20, 2), (20, 3), (10, 4)]);
                Step::new(call, &[Arg::Value(flags), Arg::Value(rights)])
            }
            Call::PkeyFree => Step::new(call, &[Arg::Value(self.key())]),
            Call::PkeyMprotect => {
                let (addr, len) = self.range();
                let (prot, key) = (self.prot(), self.key());
                self.note(addr, len);
                Step::new(call, &[addr, Arg::Value(len), Arg::Value(prot), Arg::Value(key)])
            }
            Call::Shmdt => Step::new(call, &[self.attached()]),
            Call::RemapPages => self.remap_pages(),
            Call::ProcessMadvise => self.process_madvise(),
            Call::Seal => {
                // F_SEAL_FUTURE_WRITE, F_SEAL_WRITE, F_SEAL_EXEC.
                Step::new(call, &[Arg::Value(self.rng.weighted(&[(60, 0x10), (30, 8), (10, 0x20)]))])
            }
            Call::State | Call::Munlockall | Call::DropCapabilities => Step::new(call, &[]),
            Call::Fork | Call::Twin | Call::Vfork | Call::Thread | Call::Storm => self.company(call),
            Call::Resize | Call::Allocate | Call::NewMemfd | Call::FileWrite | Call::FileRead => self.on_file(call),
            Call::Load | Call::Store | Call::CopyOut | Call::CopyIn | Call::VmRead | Call::Execute => self.copy(call),
            _ => self.over_range(call),
        }
    }

    /// A call over a range, with at most one more word.
    fn over_range(&mut self, call: Call) -> Step {
        if self.rng.chance(if call == Call::Munmap { 40 } else { 5 }) {
            return self.over_plain(call);
        }
        let range = self.range();
        self.over(call, range)
    }

    /// The same, mostly where plain pages may be.
    fn over_plain(&mut self, call: Call) -> Step {
        let range = self.part_of_plain();
        self.over(call, range)
    }

    fn over(&mut self, call: Call, (addr, len): (Arg, u64)) -> Step {
        let word = match call {
            Call::Mprotect => {
                let prot = self.prot();
                self.note(addr, len);
                self.rng.weighted(&[(90, prot), (5, prot | 0x100_0000), (4, prot | 0x200_0000), (1, prot | 0x300_0000)])
            }
            Call::Madvise => self.advice(),
            Call::Mlock2 => self.rng.weighted(&[(45, 0), (50, 1), (5, 2)]),
            Call::Msync => self.rng.weighted(&[(30, 1), (10, 4), (20, 2), (10, 3), (10, 5), (10, 6), (5, 0), (5, 8)]),
            _ => 0,
        };
        if call == Call::Munmap {
            self.note(addr, len);
            self.note_left(addr, len);
        }
        Step::new(call, &[addr, Arg::Value(len), Arg::Value(word)])
    }

    /// Mostly little: nothing takes a seal away again. Now and then in the heap or in what lies at an answer.
    fn mseal(&mut self) -> Step {
        let (place, len) = self.range();
        let below = i64::try_from((1 + self.rng.below(6)) * PAGE).unwrap_or(0);
        let at_answer = self.attached();
        let addr = self.rng.weighted(&[(70, place), (15, Arg::At(Base::Break, -below)), (15, at_answer)]);
        let small = (1 + self.rng.below(3)) * PAGE;
        let len = self.rng.weighted(&[(40, len), (60, small)]);
        let flags = self.rng.weighted(&[(97, 0), (2, 1), (1, 1 << 32)]);
        self.note(addr, len);
        // Later calls are to hit what is sealed.
        self.note_mapped(addr, len);
        Step::new(Call::Mseal, &[addr, Arg::Value(len), Arg::Value(flags)])
    }

    /// Mostly asks or is refused: what is set stays, and nothing becomes executable any more.
    fn mdwe(&mut self) -> Step {
        let set = (PR_SET_MDWE, self.rng.weighted(&[(25, 1), (25, 3), (20, 0), (10, 2), (10, 4), (10, 1 << 32)]));
        let get = (PR_GET_MDWE, self.rng.weighted(&[(95, 0), (5, 1)]));
        let (option, flags) = self.rng.weighted(&[(60, set), (40, get)]);
        let rest = self.rng.weighted(&[(95, 0), (5, 1)]);
        Step::new(Call::Mdwe, &[Arg::Value(option), Arg::Value(flags), Arg::Value(rest)])
    }

    /// A protection key: mostly none, the first, or the next that may have been given out.
    fn key(&mut self) -> u64 {
        let some = self.rng.below(17);
        let negative = (-1_i64).cast_unsigned();
        self.rng.weighted(&[(40, negative), (20, 0), (15, 1), (10, some), (10, 0xffff_ffff), (5, 1 << 32)])
    }

    fn mmap(&mut self) -> Step {
        if self.rng.chance(25) {
            return self.plain_mmap();
        }
        let anonymous = self.rng.chance(65);
        let placement = self.rng.weighted(&[(55, 0x10), (12, 0x10_0000), (2, 0x10_0010), (31, 0)]);
        let addr = if placement == 0 && self.rng.chance(60) { Arg::Value(0) } else { self.place() };
        let len = self.length(addr);
        let kind = self.rng.weighted(&[(60, 2), (25, 1), (6, 3), (4, 8), (1, 0), (1, 4), (1, 7), (1, 0xa), (1, 0xf)]);
        let mut flags = kind | placement;
        if anonymous {
            flags |= 0x20;
        }
        flags |= self.map_extras();
        let file = if anonymous && self.rng.chance(90) { FileKind::None } else { self.file() };
        let offset = self.offset(if anonymous { 95 } else { 50 });
        let prot = self.prot();
        if kind & 2 == 0 || kind == 3 {
            let place = if placement == 0 { self.chosen_place() } else { addr };
            self.note_shared(place, len);
        }
        if placement == 0 {
            self.answers.push(self.next);
        } else {
            self.note(addr, len);
            self.note_mapped(addr, len);
        }
        let words = [addr, Arg::Value(len), Arg::Value(prot), Arg::Value(flags), Arg::File(file), Arg::Value(offset)];
        Step::new(Call::Mmap, &words)
    }

    /// Bits of mmap's flag word that are neither type nor placement: mostly none.
    fn map_extras(&mut self) -> u64 {
        let mut flags = 0;
        while self.rng.chance(28) {
            flags |= self.rng.weighted(&[
                (10, 0x40),
                (4, 0x80),
                (18, 0x100),
                (4, 0x800),
                (4, 0x1000),
                (10, 0x2000),
                (14, 0x4000),
                (14, 0x8000),
                (6, 0x1_0000),
                (10, 0x2_0000),
                (3, 0x4_0000),
                (3, 0x5404_0000),
                (5, 0x8_0000),
                (3, 0x400_0000),
                (2, 0x200_0000),
                (2, 1 << 31),
                (2, 1 << 40),
            ]);
        }
        // Linux lets the touch of a huge page fail that was never reserved; we refuse the mapping. See docs/linux.md.
        if flags & HUGE_TLB != 0 { flags & !NO_RESERVE } else { flags }
    }

    fn mremap(&mut self) -> Step {
        if !self.left.is_empty() && !self.plain.is_empty() && self.rng.chance(40) {
            return self.move_to_left();
        }
        let (addr, len) = self.range();
        let old = if self.rng.chance(8) { 0 } else { len };
        let new = match self.rng.below(10) {
            0..=1 => old,
            2..=4 => old.wrapping_add((1 + self.rng.below(4)) * PAGE),
            5..=6 => old.saturating_sub((1 + self.rng.below(3)) * PAGE),
            _ => self.length(addr),
        };
        let new = if self.rng.chance(25) { old } else { new };
        let flags =
            self.rng.weighted(&[(25, 0), (35, 1), (22, 3), (8, 5), (5, 7), (1, 2), (1, 4), (1, 6), (1, 8), (1, 11)]);
        // Linux 6.18 charges a shrinking move for what it cuts off, and refuses what no memory could hold.
        let old = if flags & 2 != 0 && (LARGE..TASK_END).contains(&old) { LARGE } else { old };
        let target = if flags & 6 == 0 { Arg::Value(0) } else { self.place() };
        if flags & 2 == 0 && flags & 1 != 0 {
            self.answers.push(self.next);
        }
        self.note(addr, old);
        if flags & 2 != 0 {
            self.note(target, new);
            self.note_mapped(target, new);
            self.note_left(addr, old);
        }
        Step::new(Call::Mremap, &[addr, Arg::Value(old), Arg::Value(new), Arg::Value(flags), target])
    }

    fn remap_pages(&mut self) -> Step {
        let (addr, len) = match self.shared.len() {
            0 => self.range(),
            _ if self.rng.chance(20) => self.range(),
            _ => self.part_of_shared(),
        };
        let page = self.rng.below(12);
        let far = self.rng.pick(&[1 << 31, 1 << 50, (1 << 51) - 2, (1 << 52) - 1, 1 << 63, u64::MAX, u64::MAX - 3]);
        let page = self.rng.weighted(&[(60, page), (30, 0), (10, far)]);
        let prot = self.rng.weighted(&[(94, 0), (3, 1), (3, 3)]);
        // MAP_NONBLOCK counts, MAP_PRIVATE, MAP_POPULATE and MAP_LOCKED do not.
        let flags = self.rng.weighted(&[(60, 0), (25, 0x1_0000), (5, 2), (5, 0x8000), (5, 0x2000)]);
        self.note(addr, len);
        Step::new(Call::RemapPages, &[addr, Arg::Value(len), Arg::Value(prot), Arg::Value(page), Arg::Value(flags)])
    }

    /// Both ranges, up to twice; see the interpreter for the word that says how.
    fn process_madvise(&mut self) -> Step {
        let advice = self.advice();
        let target = self.rng.weighted(&[(40, 0), (35, 1), (10, 2), (5, 3), (3, 4), (3, 5)]);
        let mut how = target | self.rng.weighted(&[(15, 1), (40, 2), (20, 3), (20, 4), (5, 0)]) << 4;
        for place in 0..4 {
            how |= self.rng.weighted(&[(45, 0), (40, 1), (8, 2), (7, 3)]) << (8 + 4 * place);
        }
        how |= self.rng.weighted(&[(92, 0), (2, 1), (2, 2), (2, 3), (2, 4)]) << 24;
        let ((a, a_len), (b, b_len)) = (self.range(), self.range());
        let words = [Arg::Value(advice), Arg::Value(how), a, Arg::Value(a_len), b, Arg::Value(b_len)];
        Step::new(Call::ProcessMadvise, &words)
    }

    fn shmat(&mut self) -> Step {
        let addr = if self.rng.chance(40) { Arg::Value(0) } else { self.place() };
        // SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC and a bit without a meaning.
        let mut flags = 0;
        while self.rng.chance(40) {
            flags |= self.rng.weighted(&[(10, 0x1000), (10, 0x2000), (10, 0x4000), (5, 0x8000), (2, 0x1_0000)]);
        }
        let place = if addr == Arg::Value(0) { self.chosen_place() } else { addr };
        self.note_shared(place, 8 * PAGE);
        if addr == Arg::Value(0) {
            self.answers.push(self.next);
        } else {
            self.note(addr, 8 * PAGE);
            self.note_mapped(addr, 8 * PAGE);
        }
        Step::new(Call::Shmat, &[addr, Arg::Value(flags)])
    }

    fn brk(&mut self) -> Step {
        let most = 1 + self.rng.below(16);
        let pages = self.signed_pages(most);
        let bytes = pages.wrapping_add_unsigned(self.rng.below(PAGE));
        let big = 1 << (21 + self.rng.below(22));
        self.answers.push(self.next);
        let odd = Arg::Value(self.rng.pick(self.odd));
        let choices = [
            (50, Arg::At(Base::Break, pages)),
            (15, Arg::At(Base::Break, bytes)),
            (10, Arg::At(Base::Break, 0)),
            (8, Arg::At(Base::Break, big)),
            (7, Arg::Value(0)),
            (10, odd),
        ];
        Step::new(Call::Brk, &[self.rng.weighted(&choices)])
    }

    fn signed_pages(&mut self, most: u64) -> i64 {
        let pages = i64::try_from(self.rng.below(most + 1) * PAGE).unwrap_or(0);
        if self.rng.chance(40) { -pages } else { pages }
    }

    fn advice(&mut self) -> u64 {
        let known = self.rng.below(26);
        let unknown = 26 + self.rng.below(5);
        let special = 100 + self.rng.below(4);
        let negative = (-1_i64).cast_unsigned();
        let guard = 102 + self.rng.below(2);
        self.rng.weighted(&[
            (50, known),
            (25, 4),
            (5, unknown),
            (4, special),
            (12, guard),
            (2, negative),
            (2, 0x1_0000_0004),
        ])
    }

    fn prot(&mut self) -> u64 {
        let odd = 1 << self.rng.below(40);
        let plain = self.rng.below(8);
        self.rng.weighted(&[
            (50, 3),
            (18, 1),
            (12, 0),
            (8, 7),
            (4, 5),
            (14, plain),
            (2, 8 | plain),
            (2, 3 | odd),
            (2, 0x10 | plain),
        ])
    }

    fn file(&mut self) -> FileKind {
        self.rng.weighted(&[
            (25, FileKind::ReadWrite),
            (18, FileKind::ReadOnly),
            (6, FileKind::WriteOnly),
            (28, FileKind::Memfd),
            (6, FileKind::Sealed),
            (12, FileKind::Sealable),
            (10, FileKind::Fresh),
            (10, FileKind::Zero),
            (3, FileKind::Directory),
            (3, FileKind::Pipe),
            (3, FileKind::Closed),
            (4, FileKind::None),
        ])
    }

    /// A file offset: zero by this weight.
    fn offset(&mut self, zero: u64) -> u64 {
        let pages = self.rng.below(20) * PAGE;
        let odd = self.rng.pick(&[1, 0x800, 1 << 32, 1 << 44, (1 << 63) - 0x1000, 1 << 63, !0xfff, !0x1fff, u64::MAX]);
        self.rng.weighted(&[(zero, 0), (30, pages), (5, odd)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_program() {
        assert_eq!(generate(7, 40), generate(7, 40));
        assert_ne!(generate(7, 40), generate(8, 40));
    }

    #[test]
    fn every_call_and_file_occurs() {
        let programs: Vec<Program> = (0..300).map(|seed| generate(seed, 40)).collect();
        let steps = || programs.iter().flat_map(|program| &program.steps);
        for call in Call::ALL {
            assert!(steps().any(|step| step.call == *call), "{} never occurs", call.name());
        }
        for kind in FileKind::ALL {
            assert!(steps().any(|step| step.args.contains(&Arg::File(*kind))), "{} never occurs", kind.name());
        }
    }

    #[test]
    fn answers_come_from_earlier_steps() {
        for seed in 0..300 {
            for (index, step) in generate(seed, 40).steps.iter().enumerate() {
                for arg in step.args {
                    if let Arg::At(Base::Answer(of), _) = arg {
                        assert!(usize::from(of) < index);
                    }
                }
            }
        }
    }
}
