//! The whole test: programs from a seed on, run on both sides; differing ones shrunk and printed.

use std::fmt;
use std::io;

use super::c_source::c_source;
use super::compare::{Difference, Runner, Side};
use super::generate::generate;
use super::program::Program;
use super::shrink::shrink;

/// Candidates tried for one differing program.
const SHRINK_TRIES: usize = 3000;
/// Programs run between two looks at the differences.
const ROUND: usize = 250;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Who answers.
    pub sides: [Side; 2],
    /// The seed of the first program; the next has the next.
    pub seed: u64,
    /// Programs are compared until they have made this many calls.
    pub calls: usize,
    /// Steps of a program.
    pub steps: usize,
    /// So many differing programs end the check.
    pub most: usize,
}

/// What came of a [`Check`].
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Calls compared.
    pub calls: usize,
    /// Programs compared.
    pub programs: usize,
    /// What differed.
    pub findings: Vec<Finding>,
}

/// A differing program.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its seed.
    pub seed: u64,
    /// Its steps before it was shrunk.
    pub steps: usize,
    /// The shrunk program, and what both sides printed.
    pub difference: Difference,
}

/// Runs `check`, a batch of programs at a time.
///
/// # Errors
/// As [`Runner::run`].
pub fn run(runner: &Runner, check: &Check) -> io::Result<Outcomes> {
    let mut outcomes = Outcomes::default();
    let mut seed = check.seed;
    while outcomes.calls < check.calls && outcomes.findings.len() < check.most {
        let mut seeds = Vec::new();
        let mut programs: Vec<Program> = Vec::new();
        while programs.len() < ROUND && outcomes.calls < check.calls {
            let program = generate(seed, check.steps);
            outcomes.calls += program.calls();
            seeds.push(seed);
            programs.push(program);
            seed = seed.wrapping_add(1);
        }
        outcomes.programs += programs.len();
        for (index, difference) in runner.differences(check.sides, &programs)? {
            if outcomes.findings.len() < check.most {
                let steps = difference.program.steps.len();
                let difference = smaller(runner, check.sides, difference)?;
                outcomes.findings.push(Finding { seed: seeds[index], steps, difference });
            }
        }
    }
    Ok(outcomes)
}

/// A smaller program that differs too, or `difference` itself if its program alone does not.
///
/// # Errors
/// As [`Runner::run`].
pub fn smaller(runner: &Runner, sides: [Side; 2], difference: Difference) -> io::Result<Difference> {
    let mut failed = None;
    let small = shrink(&difference.program, SHRINK_TRIES, &mut |candidate| {
        match runner.differences(sides, std::slice::from_ref(candidate)) {
            Ok(differences) => !differences.is_empty(),
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
    let mut left = runner.differences(sides, &[small])?;
    Ok(left.pop().map_or(difference, |(_, small)| small))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, steps, difference } = self;
        writeln!(f, "seed {seed}: {steps} steps, shrunk to {}", difference.program.steps.len())?;
        write!(f, "{difference}")?;
        writeln!(f, "as text:\n{}", difference.program)?;
        writeln!(f, "as C:\n{}", c_source(&difference.program))
    }
}
