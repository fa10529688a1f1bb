//! Plain pages, as most programs have them: mapped, written to, unmapped, and moved to where some were before.
//!
//! A platform may keep such places ready, or do without calls of the host: nobody must be able to tell.

use super::super::program::{Arg, Call, FileKind, PAGE, Step};
use super::Generator;
use super::places::window;

/// Of these is most of a program that is about plain pages that move.
const MOVES: &[(u64, Call)] = &[
    (36, Call::Mremap),
    (20, Call::Munmap),
    (15, Call::Mmap),
    (20, Call::Store),
    (9, Call::Load),
    (7, Call::Fork),
    (7, Call::Twin),
    (2, Call::Mincore),
];

impl Generator {
    /// A step on plain pages.
    pub(super) fn about_moves(&mut self) -> Step {
        if self.rng.chance(6) {
            return self.move_shared();
        }
        let call = self.rng.weighted(MOVES);
        match call {
            _ if self.plain.is_empty() => self.plain_mmap(),
            Call::Mmap => self.plain_mmap(),
            Call::Mremap if !self.left.is_empty() => self.move_to_left(),
            Call::Fork | Call::Twin => self.company(call),
            Call::Store | Call::Load => {
                let (addr, len) = self.part_of_plain();
                let byte = 1 + self.rng.below(255);
                Step::new(call, &[addr, Arg::Value(len.min(3 * PAGE)), Arg::Value(byte)])
            }
            Call::Mremap => self.over_plain(Call::Munmap),
            _ => self.over_plain(call),
        }
    }

    /// What programs mostly do: a few private anonymous pages.
    pub(super) fn plain_mmap(&mut self) -> Step {
        let pages = 1 + self.rng.below(12);
        let start = self.rng.below(48);
        let (addr, len) = (window(start * PAGE), pages * PAGE);
        self.note(addr, len);
        self.note_mapped(addr, len);
        self.note_plain(addr, len);
        let words = [addr, Arg::Value(len), Arg::Value(3), Arg::Value(0x32), Arg::File(FileKind::None)];
        Step::new(Call::Mmap, &words)
    }

    /// Moves plain pages to where some were before, or to others: as many, or more, or to a place beside.
    pub(super) fn move_to_left(&mut self) -> Step {
        let (addr, old) = self.part_of_plain();
        let (left, mapped) = (self.rng.pick(&self.left), self.rng.pick(&self.plain));
        let (start, end) = self.rng.weighted(&[(85, left), (15, mapped)]);
        let inside = self.rng.below((end - start).min(8));
        let before = start.saturating_sub(1 + self.rng.below(3));
        let target = window(PAGE * self.rng.weighted(&[(75, start), (15, start + inside), (10, before)]));
        let more = old + (1 + self.rng.below(4)) * PAGE;
        let less = old.saturating_sub(PAGE).max(PAGE);
        let new = self.rng.weighted(&[(65, old), (10, (end - start) * PAGE), (15, more), (10, less)]);
        let flags = self.rng.weighted(&[(88, 3), (6, 7), (6, 1)]);
        self.note(addr, old);
        self.note_left(addr, old);
        if flags & 2 != 0 {
            self.note(target, new);
            self.note_mapped(target, new);
            self.note_plain(target, new);
        } else {
            self.answers.push(self.next);
        }
        Step::new(Call::Mremap, &[addr, Arg::Value(old), Arg::Value(new), Arg::Value(flags), target])
    }

    /// Moves pages of which the later ones are shared with a child, or were: no two steps of these mean much alone.
    fn move_shared(&mut self) -> Step {
        let first = self.rng.below(32);
        let pages = 2 + self.rng.below(3);
        let to = first + pages + self.rng.below(4);
        let more = self.rng.weighted(&[(70, 0), (30, 2)]);
        let (here, there) = (window(first * PAGE), window(to * PAGE));
        let [old, new] = [pages, pages + more].map(|pages| Arg::Value(pages * PAGE));
        let all = Arg::Value((to + pages + more + 1 - first) * PAGE);
        let own = Arg::Value((1 + self.rng.below(pages - 1)) * PAGE);
        let stored = Arg::Value(pages.min(3) * PAGE);
        let byte = Arg::Value(1 + self.rng.below(127));
        let company = self.rng.pick(&[Call::Fork, Call::Twin]);
        let company = self.company(company);
        self.upcoming = vec![
            Step::new(Call::Load, &[there, stored]),
            Step::new(Call::Mremap, &[here, old, new, Arg::Value(3), there]),
            Step::new(Call::Store, &[here, own, byte]),
            Step::new(Call::Munmap, &[there, new]),
            company,
            Step::new(Call::Store, &[here, stored, Arg::Value(200)]),
        ];
        self.note(there, (pages + more) * PAGE);
        self.note_mapped(there, (pages + more) * PAGE);
        self.note_plain(there, (pages + more) * PAGE);
        self.note_left(here, pages * PAGE);
        Step::new(Call::Mmap, &[here, all, Arg::Value(3), Arg::Value(0x32), Arg::File(FileKind::None)])
    }

    /// Some pages of what may be plain, now and then all from there to another such place; a range if there are none.
    pub(super) fn part_of_plain(&mut self) -> (Arg, u64) {
        if self.plain.is_empty() {
            return self.range();
        }
        let (start, end) = self.rng.pick(&self.plain);
        let (other, other_end) = self.rng.pick(&self.plain);
        let (start, end) = if self.rng.chance(8) { (start.min(other), end.max(other_end)) } else { (start, end) };
        let skip = if self.rng.chance(75) { 0 } else { self.rng.below(end - start) };
        let rest = end - start - skip;
        let some = 1 + self.rng.below(rest);
        (window((start + skip) * PAGE), PAGE * self.rng.weighted(&[(60, rest), (40, some)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::program::Base;
    use super::super::generate;
    use super::*;

    /// The pages that two words of a step name in the window.
    fn pages_of(step: &Step, place: usize, len: usize) -> Option<(u64, u64)> {
        let (Arg::At(Base::Window, delta), Arg::Value(len)) = (step.args[place], step.args[len]) else { return None };
        let start = u64::try_from(delta).ok()?;
        Some((start / PAGE, start.checked_add(len)?.div_ceil(PAGE)))
    }

    #[test]
    fn pages_move_to_where_some_were_before() {
        let (mut unmapped, mut left, mut longer, mut back) = (0, 0, 0, 0);
        let programs = 300;
        for program in (0..programs).map(|seed| generate(seed, 40)) {
            let (mut gaps, mut moves) = (Vec::new(), Vec::new());
            for step in &program.steps {
                if step.call == Call::Munmap {
                    gaps.extend(pages_of(step, 0, 1));
                }
                if step.call != Call::Mremap || step.args[3] != Arg::Value(3) {
                    continue;
                }
                let (Some(from), Some(to)) = (pages_of(step, 0, 1), pages_of(step, 4, 2)) else { continue };
                unmapped += u64::from(gaps.iter().any(|gap| gap.0 == to.0));
                longer += u64::from(gaps.iter().any(|gap| gap.0 == to.0) && to.1 - to.0 > from.1 - from.0);
                left += u64::from(moves.iter().any(|&(old, _): &((u64, u64), (u64, u64))| old.0 == to.0));
                back += u64::from(moves.contains(&(to, from)));
                moves.push((from, to));
            }
        }
        assert!(unmapped > programs / 4, "onto unmapped pages: {unmapped}");
        assert!(left > programs / 4, "onto what was moved away: {left}");
        assert!(longer > programs / 20, "longer than before: {longer}");
        assert!(back > programs / 20, "there and back: {back}");
    }
}
