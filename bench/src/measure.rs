//! The clock, and how often to do something before it is read.

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};

use crate::map::{self, RegionMap};
use crate::work::{Layout, Row};

/// A map that is filled and ready, whatever its type.
pub trait Subject {
    /// What tables call it.
    fn name(&self) -> &'static str;

    /// # Errors
    /// Why it cannot do `row`.
    fn able(&self, row: Row) -> Result<(), &'static str>;

    /// Does `row` `count` times.
    fn run(&mut self, row: Row, count: usize);
}

struct Filled<'a, M> {
    map: M,
    layout: &'a Layout,
}

/// A map of type `M` of the regions of `layout`.
pub fn subject<M: RegionMap + 'static>(layout: &Layout) -> Box<dyn Subject + '_> {
    Box::new(Filled { map: layout.fill::<M>(), layout })
}

impl<M: RegionMap> Subject for Filled<'_, M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn able(&self, row: Row) -> Result<(), &'static str> {
        map::able::<M>(row.needs())
    }

    fn run(&mut self, row: Row, count: usize) {
        row.run(&mut self.map, self.layout, count);
    }
}

/// Nanoseconds that this thread has run.
///
/// # Errors
/// If there is no such clock.
pub fn thread_time() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// Nanoseconds that `act` takes.
///
/// # Errors
/// If there is no clock.
pub fn timed(act: impl FnOnce()) -> Result<f64> {
    let before = thread_time()?;
    act();
    Ok(thread_time()? - before)
}

/// How often `act` must be repeated to take `wanted` nanoseconds; at least once.
///
/// # Errors
/// If there is no clock.
pub fn calibrate(wanted: f64, mut act: impl FnMut(usize)) -> Result<usize> {
    let mut count = 1;
    loop {
        let took = timed(|| act(count))?;
        if took >= wanted / 8.0 || count >= 1 << 30 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is positive")]
            return Ok(((wanted / took.max(1.0) * count as f64) as usize).max(1));
        }
        count *= 2;
    }
}

/// What came of several passes, in nanoseconds for one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The least.
    pub best: f64,
    /// The middle one.
    pub median: f64,
}

impl Figure {
    /// The figure of `samples`, of which there is at least one.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let half = samples.len() / 2;
        let median =
            if samples.len() % 2 == 1 { samples[half] } else { f64::midpoint(samples[half - 1], samples[half]) };
        Self { best: samples[0], median }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(Figure::of(vec![3.0, 1.0, 2.0]), Figure { best: 1.0, median: 2.0 });
        assert_eq!(Figure::of(vec![4.0, 1.0, 2.0, 3.0]), Figure { best: 1.0, median: 2.5 });
    }

    #[test]
    fn calibration_comes_near() {
        let mut spun = 0_u64;
        let mut spin = |count: usize| (0..count * 100).for_each(|step| spun = std::hint::black_box(spun ^ step as u64));
        let count = calibrate(4e6, &mut spin).unwrap();
        let took = timed(|| spin(count)).unwrap();
        assert!((1e6..16e6).contains(&took), "{took}");
    }
}
