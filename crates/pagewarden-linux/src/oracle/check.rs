//! The whole test: programs from a seed on, compared, for some time or for some calls; of each kind of difference one
//! program is shrunk and printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::c_source::c_source;
use super::compare::Difference;
use super::generate::{World, generate_in};
use super::program::Program;
use super::shrink::shrink;

/// Candidates tried for one differing program.
const SHRINK_TRIES: usize = 300;
/// Programs of the first round, when nobody knows yet how long one takes.
const FIRST_ROUND: usize = 20;
/// Most programs between two looks at the differences.
const LARGEST_ROUND: usize = 1000;
/// How long a round is to take, so that whoever watches sees it go on.
const ROUND_TIME: Duration = Duration::from_millis(700);

/// Compares programs: those that differ, each with its index.
pub type Compare<'a> = &'a dyn Fn(&[Program]) -> io::Result<Vec<(usize, Difference)>>;

/// Told how far a check has come; says whether it goes on.
pub type Watch<'a> = &'a mut dyn FnMut(&Progress) -> Verdict;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The seed of the first program; the next has the next.
    pub seed: u64,
    /// When there is enough.
    pub budget: Budget,
    /// Steps of a program.
    pub steps: usize,
    /// What addresses programs name.
    pub world: World,
    /// So many kinds of difference end the check.
    pub most: usize,
}

/// When a check ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    /// After this many calls, the last program being made whole.
    Calls(u64),
    /// After this time; shrinking a difference may take longer.
    Time(Duration),
}

/// Whether a check goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As it would.
    GoOn,
    /// It ends with what it has; a difference that was being shrunk stays as it is.
    Stop,
}

/// What a check is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Another round of programs was compared.
    Comparing,
    /// A differing program is being shrunk; it has this many steps by now.
    Shrinking(usize),
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Calls compared.
    pub calls: u64,
    /// Programs compared.
    pub programs: u64,
    /// Kinds of difference found.
    pub differences: usize,
    /// Since the start.
    pub elapsed: Duration,
    /// What it is at.
    pub stage: Stage,
}

/// What came of a [`Check`].
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Calls compared.
    pub calls: u64,
    /// Programs compared.
    pub programs: u64,
    /// What differed, by kind.
    pub findings: BTreeMap<String, Finding>,
}

/// A kind of difference.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How many programs show it first of all.
    pub programs: usize,
    /// The seed of the first of them.
    pub seed: u64,
    /// Its steps before it was shrunk.
    pub steps: usize,
    /// The shrunk program, and what both sides printed.
    pub difference: Difference,
}

/// Runs `check`, a round of programs at a time.
///
/// # Errors
/// As `compare`; the message says for which seeds.
pub fn run(check: &Check, compare: Compare<'_>, watch: Watch<'_>) -> io::Result<Outcomes> {
    let mut run =
        Run { check, compare, watch, outcomes: Outcomes::default(), start: Instant::now(), stopped: Verdict::GoOn };
    let mut seed = check.seed;
    let mut size = FIRST_ROUND;
    while run.goes_on() {
        let begin = Instant::now();
        let programs = run.programs(seed, size);
        run.round(seed, &programs)?;
        seed = seed.wrapping_add(programs.len() as u64);
        size = next_size(size, begin.elapsed());
        run.report(Stage::Comparing);
    }
    Ok(run.outcomes)
}

/// How many programs make a round of [`ROUND_TIME`], if `size` took `time`; at most twice as many.
fn next_size(size: usize, time: Duration) -> usize {
    let wanted = size as u128 * ROUND_TIME.as_micros() / time.as_micros().max(1);
    usize::try_from(wanted).unwrap_or(LARGEST_ROUND).clamp(1, size * 2).min(LARGEST_ROUND)
}

struct Run<'a> {
    check: &'a Check,
    compare: Compare<'a>,
    watch: Watch<'a>,
    outcomes: Outcomes,
    start: Instant,
    stopped: Verdict,
}

impl Run<'_> {
    fn goes_on(&self) -> bool {
        let is_left = match self.check.budget {
            Budget::Calls(calls) => self.outcomes.calls < calls,
            Budget::Time(time) => self.start.elapsed() < time,
        };
        is_left && self.stopped == Verdict::GoOn && self.outcomes.findings.len() < self.check.most
    }

    /// The programs from `seed` on: `size` of them, or fewer if they make all the calls that are left.
    fn programs(&self, mut seed: u64, size: usize) -> Vec<Program> {
        let left = match self.check.budget {
            Budget::Calls(calls) => calls - self.outcomes.calls,
            Budget::Time(_) => u64::MAX,
        };
        let mut programs = Vec::with_capacity(size);
        let mut calls = 0;
        while programs.len() < size && calls < left {
            let program = generate_in(self.check.world, seed, self.check.steps);
            calls += program.calls() as u64;
            programs.push(program);
            seed = seed.wrapping_add(1);
        }
        programs
    }

    fn round(&mut self, first: u64, programs: &[Program]) -> io::Result<()> {
        let differences = (self.compare)(programs).map_err(|error| {
            let last = first.wrapping_add(programs.len() as u64 - 1);
            io::Error::new(error.kind(), format!("programs of the seeds {first} to {last}: {error}"))
        })?;
        self.outcomes.calls += programs.iter().map(|program| program.calls() as u64).sum::<u64>();
        self.outcomes.programs += programs.len() as u64;
        for (index, difference) in differences {
            let kind = difference.kind();
            if let Some(known) = self.outcomes.findings.get_mut(&kind) {
                known.programs += 1;
            } else if self.outcomes.findings.len() < self.check.most {
                let steps = difference.program.steps.len();
                let seed = first.wrapping_add(index as u64);
                let difference = self.smaller(difference)?;
                self.outcomes.findings.insert(kind, Finding { programs: 1, seed, steps, difference });
            }
        }
        Ok(())
    }

    fn report(&mut self, stage: Stage) {
        let (watch, outcomes) = (&mut self.watch, &self.outcomes);
        let verdict = watch(&Progress {
            calls: outcomes.calls,
            programs: outcomes.programs,
            differences: outcomes.findings.len(),
            elapsed: self.start.elapsed(),
            stage,
        });
        if verdict == Verdict::Stop {
            self.stopped = Verdict::Stop;
        }
    }

    /// A smaller program that differs too, or `difference` itself if its program alone does not.
    fn smaller(&mut self, difference: Difference) -> io::Result<Difference> {
        let kind = difference.kind();
        let mut failed = None;
        let small = shrink(&difference.program, SHRINK_TRIES, &mut |candidate| {
            self.report(Stage::Shrinking(candidate.steps.len()));
            if self.stopped == Verdict::Stop || failed.is_some() {
                return false;
            }
            match (self.compare)(std::slice::from_ref(candidate)) {
                Ok(differences) => differences.iter().any(|(_, candidate)| candidate.kind() == kind),
                Err(error) => {
                    // A guest that hangs differs, but each such candidate costs the whole timeout.
                    failed.get_or_insert(error);
                    false
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let small = (self.compare)(&[small])?.pop();
        Ok(small.map_or(difference, |(_, small)| small))
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, Finding { programs, seed, steps, difference }) in &self.findings {
            let left = difference.program.steps.len();
            writeln!(f, "{kind}: {programs} programs, the first with seed {seed}, {steps} steps shrunk to {left}")?;
            writeln!(f, "{difference}")?;
        }
        let shortest = self.findings.values().min_by_key(|finding| finding.difference.program.steps.len());
        if let Some(Finding { difference, .. }) = shortest {
            writeln!(f, "the shortest as text:\n{}", difference.program)?;
            writeln!(f, "as C:\n{}", c_source(&difference.program))?;
        }
        writeln!(f, "{} calls of {} programs compared", self.calls, self.programs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::compare::Transcript;
    use crate::oracle::program::Call;

    fn check(budget: Budget) -> Check {
        Check { seed: u64::MAX - 5, budget, steps: 40, world: World::Enclosed, most: 2 }
    }

    /// Two sides that differ wherever memory is locked.
    fn differing(programs: &[Program]) -> io::Result<Vec<(usize, Difference)>> {
        let locks = |program: &Program| program.steps.iter().position(|step| step.call == Call::Mlock);
        let difference = |(index, program): (usize, &Program)| {
            let at = locks(program)?;
            let transcript = |answer: &str| Transcript { lines: vec![format!("{at} {answer}")] };
            let (left, right) = (transcript("= 0x0"), transcript("! EPERM"));
            Some((index, Difference { program: program.clone(), left, right }))
        };
        Ok(programs.iter().enumerate().filter_map(difference).collect())
    }

    #[test]
    fn calls_end_a_check_and_are_counted() {
        let mut last = (0, 0);
        let watch = &mut |progress: &Progress| {
            assert!((progress.calls, progress.programs) >= last, "progress goes back");
            last = (progress.calls, progress.programs);
            Verdict::GoOn
        };
        let seen = std::cell::Cell::new(0);
        let compare = |programs: &[Program]| {
            seen.set(seen.get() + programs.iter().map(|program| program.calls() as u64).sum::<u64>());
            Ok(Vec::new())
        };
        let outcomes = run(&check(Budget::Calls(20_000)), &compare, watch).unwrap();
        assert!((20_000..20_100).contains(&outcomes.calls), "{}", outcomes.calls);
        assert_eq!((last, seen.get()), ((outcomes.calls, outcomes.programs), outcomes.calls));
        let one = run(&check(Budget::Calls(1)), &compare, &mut |_| Verdict::GoOn).unwrap();
        assert_eq!(one.programs, 1);
    }

    #[test]
    fn time_ends_a_check() {
        let slow = |_: &[Program]| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(Vec::new())
        };
        let begin = Instant::now();
        let outcomes = run(&check(Budget::Time(Duration::from_millis(100))), &slow, &mut |_| Verdict::GoOn).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(100));
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(outcomes.programs >= FIRST_ROUND as u64);
    }

    #[test]
    fn whoever_watches_can_stop_it() {
        let mut rounds = 0;
        let watch = &mut |progress: &Progress| {
            assert_eq!(progress.stage, Stage::Comparing);
            rounds += 1;
            if rounds == 3 { Verdict::Stop } else { Verdict::GoOn }
        };
        run(&check(Budget::Calls(u64::MAX)), &|_| Ok(Vec::new()), watch).unwrap();
        assert_eq!(rounds, 3);
    }

    #[test]
    fn a_difference_is_shrunk_and_keeps_the_seed_that_shows_it() {
        let outcomes = run(&check(Budget::Calls(3000)), &differing, &mut |_| Verdict::GoOn).unwrap();
        let finding = &outcomes.findings["mlock = / ! EPERM"];
        assert_eq!(finding.difference.program.steps.len(), 1);
        assert!(finding.programs > 1);
        assert_eq!(differing(&[generate_in(World::Enclosed, finding.seed, 40)]).unwrap().len(), 1);
    }

    #[test]
    fn a_stop_ends_the_shrinking_too() {
        let mut looks = 0;
        let watch = &mut |progress: &Progress| match progress.stage {
            Stage::Shrinking(_) => {
                looks += 1;
                if looks > 3 { Verdict::Stop } else { Verdict::GoOn }
            }
            Stage::Comparing => Verdict::GoOn,
        };
        let calls = std::cell::Cell::new(0);
        let compare = |programs: &[Program]| {
            calls.set(calls.get() + 1);
            differing(programs)
        };
        let outcomes = run(&check(Budget::Calls(3000)), &compare, watch).unwrap();
        assert_eq!(outcomes.findings.len(), 1);
        assert!(calls.get() < 10, "{} comparisons", calls.get());
    }

    #[test]
    fn a_failure_tells_the_seeds() {
        let failing = |_: &[Program]| Err(io::Error::other("no guest"));
        let error = run(&Check { seed: 7, ..check(Budget::Calls(1)) }, &failing, &mut |_| Verdict::GoOn).unwrap_err();
        assert_eq!(error.to_string(), "programs of the seeds 7 to 7: no guest");
    }

    #[test]
    fn rounds_grow_until_they_take_their_time() {
        assert_eq!(next_size(20, Duration::from_millis(7)), 40);
        assert_eq!(next_size(100, Duration::from_millis(700)), 100);
        assert_eq!(next_size(100, Duration::from_secs(70)), 1);
        assert_eq!(next_size(1000, Duration::ZERO), LARGEST_ROUND);
    }
}
