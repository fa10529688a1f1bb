//! The whole test: programs from a seed on, compared; of each kind of difference one program is shrunk and printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::c_source::c_source;
use super::compare::Difference;
use super::generate::generate;
use super::program::Program;
use super::shrink::shrink;

/// Candidates tried for one differing program.
const SHRINK_TRIES: usize = 1000;
/// Programs run between two looks at the differences.
const ROUND: usize = 250;

/// Compares programs: those that differ, each with its index.
pub type Compare<'a> = &'a dyn Fn(&[Program]) -> io::Result<Vec<(usize, Difference)>>;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The seed of the first program; the next has the next.
    pub seed: u64,
    /// Programs are compared until they have made this many calls.
    pub calls: usize,
    /// Steps of a program.
    pub steps: usize,
    /// So many kinds of difference end the check.
    pub most: usize,
}

/// What came of a [`Check`].
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Calls compared.
    pub calls: usize,
    /// Programs compared.
    pub programs: usize,
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
/// As `compare`.
pub fn run(check: &Check, compare: Compare<'_>) -> io::Result<Outcomes> {
    let mut outcomes = Outcomes::default();
    let mut seed = check.seed;
    while outcomes.calls < check.calls && outcomes.findings.len() < check.most {
        let first = seed;
        let mut programs: Vec<Program> = Vec::new();
        while programs.len() < ROUND && outcomes.calls < check.calls {
            let program = generate(seed, check.steps);
            outcomes.calls += program.calls();
            programs.push(program);
            seed = seed.wrapping_add(1);
        }
        outcomes.programs += programs.len();
        for (index, difference) in compare(&programs)? {
            let kind = difference.kind();
            if let Some(known) = outcomes.findings.get_mut(&kind) {
                known.programs += 1;
            } else if outcomes.findings.len() < check.most {
                let steps = difference.program.steps.len();
                let seed = first.wrapping_add(index as u64);
                let difference = smaller(difference, compare)?;
                outcomes.findings.insert(kind, Finding { programs: 1, seed, steps, difference });
            }
        }
    }
    Ok(outcomes)
}

/// A smaller program that differs too, or `difference` itself if its program alone does not.
///
/// # Errors
/// As `compare`.
pub fn smaller(difference: Difference, compare: Compare<'_>) -> io::Result<Difference> {
    let kind = difference.kind();
    let mut failed = None;
    let small = shrink(&difference.program, SHRINK_TRIES, &mut |candidate| {
        match compare(std::slice::from_ref(candidate)) {
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
    let small = compare(&[small])?.pop();
    Ok(small.map_or(difference, |(_, small)| small))
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
