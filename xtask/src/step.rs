//! Steps of a long task: each with its time, and a summary in which nothing that did not run counts as passed.
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

/// How a step went.
pub(crate) enum Verdict {
    /// It ran and found nothing wrong.
    Passed,
    /// It could not run, and why.
    Skipped(String),
}

/// What has been done so far.
#[derive(Default)]
pub(crate) struct Steps {
    passed: usize,
    skipped: Vec<(String, String)>,
    failed: Vec<(String, Error)>,
    spent: Duration,
}

impl Steps {
    /// Runs a step and prints how it went. A failure is kept and also returned as false.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Verdict>) -> bool {
        let started = Instant::now();
        let verdict = step();
        let elapsed = started.elapsed();
        self.spent += elapsed;
        let seconds = elapsed.as_secs_f64();
        match verdict {
            Ok(Verdict::Passed) => {
                self.passed += 1;
                println!("  ok      {name} ({seconds:.1} s)");
            }
            Ok(Verdict::Skipped(reason)) => {
                println!("  SKIPPED {name}: {reason}");
                self.skipped.push((name.to_owned(), reason));
            }
            Err(error) => {
                println!("  FAILED  {name} ({seconds:.1} s): {error:#}");
                self.failed.push((name.to_owned(), error));
                return false;
            }
        }
        true
    }

    /// Adds what another task did, under its name.
    pub(crate) fn absorb(&mut self, name: &str, other: Self) {
        self.passed += other.passed;
        self.skipped.extend(other.skipped.into_iter().map(|(case, reason)| (format!("{name}: {case}"), reason)));
        self.failed.extend(other.failed.into_iter().map(|(case, error)| (format!("{name}: {case}"), error)));
        self.spent += other.spent;
    }

    /// Whether something failed.
    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Prints the sums; an error if a step failed or none passed.
    pub(crate) fn summary(self, unit: &str) -> Result<()> {
        let (passed, skipped, failed) = (self.passed, self.skipped.len(), self.failed.len());
        println!("\n{passed} {unit} passed, {failed} failed, {skipped} skipped in {:.0} s", self.spent.as_secs_f64());
        for (name, reason) in &self.skipped {
            println!("  skipped {name}: {reason}");
        }
        for (name, _) in &self.failed {
            println!("  failed  {name}");
        }
        if failed > 0 {
            let names: Vec<&str> = self.failed.iter().map(|(name, _)| name.as_str()).collect();
            bail!("failed: {}", names.join(", "));
        }
        if passed == 0 {
            bail!("nothing ran");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_summary() {
        let mut steps = Steps::default();
        assert!(steps.run("good", || Ok(Verdict::Passed)));
        assert!(!steps.run("bad", || bail!("broken")));
        assert!(steps.has_failed());
        assert_eq!(steps.summary("steps").unwrap_err().to_string(), "failed: bad");
    }

    #[test]
    fn skipped_is_not_passed() {
        let mut steps = Steps::default();
        assert!(steps.run("absent", || Ok(Verdict::Skipped("no such program".to_owned()))));
        assert!(!steps.has_failed());
        assert_eq!(steps.summary("steps").unwrap_err().to_string(), "nothing ran");
    }

    #[test]
    fn absorbed_failures_count() {
        let mut inner = Steps::default();
        inner.run("case", || bail!("broken"));
        let mut outer = Steps::default();
        outer.run("good", || Ok(Verdict::Passed));
        outer.absorb("programs", inner);
        assert_eq!(outer.summary("steps").unwrap_err().to_string(), "failed: programs: case");
    }
}
