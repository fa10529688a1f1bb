//! Turns: who takes part in a row does it again and again, in an order that is another each time.
//!
//! A turn is short, so that whatever else the machine does hits all alike; the least and the middle time of a turn are
//! what counts. Only what a row is about is timed, what comes before and after is not.

use anyhow::Result;

use crate::measure::{Figure, thread_time, timed};
use crate::random::Random;
use crate::vmmap::Cell;

/// Adds up what is timed, without what reading the clock takes.
pub struct Stopwatch {
    /// What it takes to time nothing.
    empty: f64,
    total: f64,
}

impl Stopwatch {
    /// A stopwatch that knows what the clock costs.
    ///
    /// # Errors
    /// If there is no clock.
    pub fn new() -> Result<Self> {
        let mut empty = f64::INFINITY;
        for _ in 0..1000 {
            empty = empty.min(timed(|| {})?);
        }
        Ok(Self { empty, total: 0.0 })
    }

    /// Does something that counts.
    ///
    /// # Errors
    /// If there is no clock.
    pub fn time<T>(&mut self, act: impl FnOnce() -> T) -> Result<T> {
        let before = thread_time()?;
        let made = act();
        self.total += (thread_time()? - before - self.empty).max(0.0);
        Ok(made)
    }

    /// What was timed so far, which is forgotten.
    pub const fn take(&mut self) -> f64 {
        std::mem::replace(&mut self.total, 0.0)
    }
}

/// Who takes part in rows of type `R`.
pub trait Contestant<R: Copy> {
    /// What tables call it.
    fn name(&self) -> &'static str;

    /// Whether it takes part in `row`.
    ///
    /// # Errors
    /// Why it does not.
    fn able(&self, row: R) -> Result<(), &'static str> {
        let _ = row;
        Ok(())
    }

    /// Comes before the first turn of `row`.
    fn prepare(&mut self, row: R) {
        let _ = row;
    }

    /// Does `row` once; `watch` counts what it is about.
    ///
    /// # Errors
    /// If there is no clock.
    fn turn(&mut self, row: R, watch: &mut Stopwatch) -> Result<()>;

    /// Comes after the last turn of `row`.
    fn finish(&mut self, row: R) {
        let _ = row;
    }
}

/// How often, and how long.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Turns that everybody has.
    pub turns: usize,
    /// Nanoseconds of a turn, timed or not; a row that takes longer is done once.
    pub length: f64,
}

/// What came of a row.
pub struct Outcome {
    /// What tables call it.
    pub row: String,
    /// A figure for one operation, or why there is none, of everybody in turn.
    pub cells: Vec<Cell>,
}

impl Outcome {
    /// The figures of those who took part, by their place.
    pub fn figures(&self, pick: fn(&Figure) -> f64) -> Vec<Option<f64>> {
        self.cells.iter().map(|cell| cell.as_ref().ok().map(pick)).collect()
    }
}

/// Has everybody do `row`, of so many operations.
///
/// # Errors
/// If there is no clock.
pub fn hold<R: Copy>(
    all: &mut [Box<dyn Contestant<R> + '_>],
    (row, name): (R, &str),
    operations: usize,
    pace: Pace,
) -> Result<Outcome> {
    let mut watch = Stopwatch::new()?;
    let able: Vec<_> = all.iter().map(|one| one.able(row)).collect();
    let mut counts = vec![0; all.len()];
    let mut samples = vec![Vec::new(); all.len()];
    let mut order: Vec<usize> = (0..all.len()).filter(|&at| able[at].is_ok()).collect();
    for &at in &order {
        all[at].prepare(row);
        all[at].turn(row, &mut watch)?;
        let before = thread_time()?;
        all[at].turn(row, &mut watch)?;
        let took = thread_time()? - before;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is positive")]
        let count = (pace.length / took.max(1.0)) as usize;
        counts[at] = count.max(1);
    }
    let mut random = Random::new(operations as u64);
    for _ in 0..pace.turns {
        random.shuffle(&mut order);
        for &at in &order {
            // What ran before this has filled the caches with its own.
            all[at].turn(row, &mut watch)?;
            watch.take();
            for _ in 0..counts[at] {
                all[at].turn(row, &mut watch)?;
            }
            samples[at].push(watch.take() / counts[at] as f64 / operations as f64);
        }
    }
    order.iter().for_each(|&at| all[at].finish(row));
    let cells = able.into_iter().zip(samples).map(|(able, samples)| able.map(|()| Figure::of(samples)));
    Ok(Outcome { row: name.to_owned(), cells: cells.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spins so long, timed, and as long untimed.
    struct Spinner {
        name: &'static str,
        rounds: usize,
        prepared: usize,
    }

    fn spin(rounds: usize) {
        (0..rounds).for_each(|round| _ = std::hint::black_box(round));
    }

    impl Contestant<u8> for Spinner {
        fn name(&self) -> &'static str {
            self.name
        }

        fn able(&self, row: u8) -> Result<(), &'static str> {
            if row == 1 && self.name == "slow" { Err("it is too slow") } else { Ok(()) }
        }

        fn prepare(&mut self, _: u8) {
            self.prepared += 1;
        }

        fn turn(&mut self, _: u8, watch: &mut Stopwatch) -> Result<()> {
            assert_eq!(self.prepared, 1);
            spin(self.rounds);
            watch.time(|| spin(self.rounds))
        }

        fn finish(&mut self, _: u8) {
            self.prepared -= 1;
        }
    }

    #[test]
    fn everybody_has_turns_and_only_what_is_timed_counts() {
        let spinner = |name, rounds| Box::new(Spinner { name, rounds, prepared: 0 }) as Box<dyn Contestant<u8>>;
        let mut all = [spinner("fast", 10_000), spinner("slow", 40_000)];
        let pace = Pace { turns: 5, length: 1e5 };
        let outcome = hold(&mut all, (0, "spin"), 10, pace).unwrap();
        let [Ok(fast), Ok(slow)] = outcome.cells[..] else { panic!("{:?}", outcome.cells) };
        assert!((2.0..8.0).contains(&(slow.best / fast.best)), "{fast:?} {slow:?}");
        let alone = timed(|| spin(10_000)).unwrap() / 10.0;
        assert!(fast.best < 1.5 * alone, "{fast:?} against {alone}");
        let outcome = hold(&mut all, (1, "spin"), 10, pace).unwrap();
        assert_eq!(outcome.figures(|figure| figure.best)[1], None);
        assert!(outcome.cells[0].is_ok() && outcome.cells[1] == Err("it is too slow"));
    }
}
