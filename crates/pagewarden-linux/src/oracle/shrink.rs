//! Makes a differing program small: first fewer steps, then simpler arguments.

use super::program::{Arg, Base, PAGE, Program, Step};

/// The smallest program that was found for which `differs` still holds; it holds for `program`. At most `tries`
/// candidates are tried.
pub fn shrink(program: &Program, tries: usize, differs: &mut dyn FnMut(&Program) -> bool) -> Program {
    let mut search = Search { best: program.clone(), left: tries, differs };
    loop {
        let before = search.best.clone();
        search.fewer_steps();
        search.simpler_arguments();
        if search.best == before || search.left == 0 {
            return search.best;
        }
    }
}

struct Search<'a> {
    best: Program,
    left: usize,
    differs: &'a mut dyn FnMut(&Program) -> bool,
}

impl Search<'_> {
    /// Takes `candidate` if it differs too.
    fn attempt(&mut self, candidate: Program) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let taken = (self.differs)(&candidate);
        if taken {
            self.best = candidate;
        }
        taken
    }

    /// Delta debugging: takes out chunks of steps, halving the chunk until single steps are tried.
    fn fewer_steps(&mut self) {
        let mut chunk = self.best.steps.len().next_power_of_two();
        while chunk > 0 {
            let mut end = self.best.steps.len();
            while end > 0 {
                let start = end.saturating_sub(chunk);
                let candidate = self.best.without(|index| (start..end).contains(&index));
                if !candidate.steps.is_empty() || self.best.steps.is_empty() {
                    self.attempt(candidate);
                }
                end = start.min(self.best.steps.len());
            }
            chunk /= 2;
        }
    }

    fn simpler_arguments(&mut self) {
        for index in 0..self.best.steps.len() {
            for position in 0..self.best.steps[index].call.arity() {
                self.simpler_argument(index, position);
            }
        }
    }

    fn simpler_argument(&mut self, index: usize, position: usize) {
        // Each success may allow another; every simplification is smaller in the order of `simpler`, so this ends.
        while let Some(candidate) = simpler(self.best.steps[index].args[position])
            .into_iter()
            .find(|arg| self.attempt_argument(index, position, *arg))
        {
            debug_assert_eq!(self.best.steps[index].args[position], candidate);
        }
    }

    fn attempt_argument(&mut self, index: usize, position: usize, arg: Arg) -> bool {
        let mut candidate = self.best.clone();
        let Step { args, .. } = &mut candidate.steps[index];
        args[position] = arg;
        self.attempt(candidate)
    }
}

/// Arguments simpler than `arg`, the simplest first.
fn simpler(arg: Arg) -> Vec<Arg> {
    match arg {
        Arg::Value(value) => simpler_numbers(value).into_iter().map(Arg::Value).collect(),
        Arg::File(_) => Vec::new(),
        Arg::At(base, delta) => {
            let mut all: Vec<Arg> = simpler_numbers(delta.unsigned_abs())
                .into_iter()
                .filter_map(|magnitude| i64::try_from(magnitude).ok())
                .map(|magnitude| Arg::At(base, if delta < 0 { -magnitude } else { magnitude }))
                .collect();
            if base == Base::Break || matches!(base, Base::Answer(_)) {
                all.insert(0, Arg::At(Base::Window, 0));
            }
            all
        }
    }
}

/// Smaller numbers: zero, a page, a few pages, half, without the bytes beyond a page, without each bit.
fn simpler_numbers(value: u64) -> Vec<u64> {
    let mut all = vec![0, PAGE, 2 * PAGE, value / 2 / PAGE * PAGE, value / PAGE * PAGE, value.saturating_sub(PAGE)];
    all.extend((0..64).rev().map(|bit| 1 << bit).filter(|bit| value & bit != 0).map(|bit| value & !bit));
    all.retain(|simpler| *simpler < value);
    let mut seen = Vec::new();
    all.retain(|simpler| {
        !seen.contains(simpler) && {
            seen.push(*simpler);
            true
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::generate::generate;
    use crate::oracle::program::Call;

    #[test]
    fn one_guilty_step_is_left() {
        let guilty = Step::new(Call::Msync, &[Arg::At(Base::Window, 0x5000), Arg::Value(0x1_3001), Arg::Value(7)]);
        let mut program = generate(3, 60);
        program.steps.insert(30, guilty);
        let mut differs = |candidate: &Program| {
            candidate
                .steps
                .iter()
                .any(|step| step.call == Call::Msync && matches!(step.args[2], Arg::Value(flags) if flags & 3 == 3))
        };
        assert!(differs(&program));
        let small = shrink(&program, 10_000, &mut differs);
        let expected = Step::new(Call::Msync, &[Arg::At(Base::Window, 0), Arg::Value(0), Arg::Value(3)]);
        assert_eq!(small.steps, [expected]);
    }

    #[test]
    fn answers_that_matter_are_kept() {
        let maps = Step::new(Call::Mmap, &[]);
        let reads = Step::new(Call::Read, &[Arg::At(Base::Answer(1), 0x3000)]);
        let noise = Step::new(Call::Brk, &[]);
        let program = Program { steps: vec![noise, maps, noise, reads, noise] };
        let mut differs = |candidate: &Program| {
            candidate.steps.iter().any(|step| match step.args[0] {
                Arg::At(Base::Answer(of), _) => candidate.steps[usize::from(of)].call == Call::Mmap,
                _ => false,
            })
        };
        let small = shrink(&program, 1000, &mut differs);
        assert_eq!(small.steps, [maps, Step::new(Call::Read, &[Arg::At(Base::Answer(0), 0)])]);
    }

    #[test]
    fn tries_are_bounded() {
        let mut tries = 0;
        shrink(&generate(1, 200), 50, &mut |_| {
            tries += 1;
            true
        });
        assert!(tries <= 50);
    }
}
