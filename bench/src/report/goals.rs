//! What the map of regions is meant to reach, and whether it does.

use serde::Serialize;

use super::duration;
use crate::vmmap::{Measured, PEERS};
use crate::work::Row;

/// Goals are set for these sizes.
const SIZES: [usize; 3] = [1_000, 10_000, 65_000];
const LARGEST: usize = 65_000;

/// What a row is to reach.
#[derive(Clone, Copy)]
enum Aim {
    /// Faster than every peer.
    First,
    /// The same, but for the sorted array.
    FirstButForArray,
    /// At most so many times the best peer.
    NearBest(f64),
    /// At most so many times the standard library's map.
    NearBTree(f64),
}

const AIMS: [(Row, Aim); 10] = [
    (Row::LookUp, Aim::FirstButForArray),
    (Row::SplitMerge, Aim::First),
    (Row::GapWorst, Aim::First),
    (Row::ForkUpdate, Aim::First),
    (Row::InsertRemove, Aim::NearBest(1.15)),
    (Row::GapEasy, Aim::NearBest(1.15)),
    (Row::GapMiddle, Aim::NearBest(1.15)),
    (Row::GapInsertRemove, Aim::NearBest(1.15)),
    (Row::Fork, Aim::NearBest(1.15)),
    (Row::Iterate, Aim::NearBTree(1.5)),
];

/// One goal and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What is to be reached.
    pub goal: String,
    /// What was measured.
    pub figure: String,
    /// Whether it is reached.
    pub reached: bool,
}

impl Aim {
    fn text(self) -> String {
        match self {
            Self::First => "faster than every peer".to_owned(),
            Self::FirstButForArray => "faster than every peer but the sorted Vec".to_owned(),
            Self::NearBest(factor) => format!("at most {factor} x the best peer"),
            Self::NearBTree(factor) => format!("at most {factor} x BTreeMap"),
        }
    }

    fn counts(self, peer: &str) -> bool {
        match self {
            Self::First | Self::NearBest(_) => true,
            Self::FirstButForArray => peer != "sorted Vec",
            Self::NearBTree(_) => peer == "BTreeMap",
        }
    }

    fn is_reached(self, ratio: f64) -> bool {
        match self {
            Self::First | Self::FirstButForArray => ratio < 1.0,
            Self::NearBest(factor) | Self::NearBTree(factor) => ratio <= factor,
        }
    }

    fn judge(self, measured: &Measured, row: Row) -> Option<Goal> {
        let figures = measured.figures(row, |figure| figure.best);
        let ours = figures.iter().find(|(peer, _)| *peer == PEERS[0].name)?.1;
        let others = figures.iter().filter(|(peer, _)| *peer != PEERS[0].name && self.counts(peer));
        let (peer, best) = others.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        let ratio = ours / best;
        Some(Goal {
            goal: format!("{} regions, {}: {}", measured.regions, row.name(), self.text()),
            figure: format!("{ratio:.2} x ({} against {} of {peer})", duration(ours), duration(*best)),
            reached: self.is_reached(ratio),
        })
    }
}

/// A goal of so many nanoseconds.
fn at_most(measured: &Measured, row: Row, limit: f64) -> Option<Goal> {
    let figures = measured.figures(row, |figure| figure.best);
    let ours = figures.iter().find(|(peer, _)| *peer == PEERS[0].name)?.1;
    Some(Goal {
        goal: format!("{} regions, {}: at most {limit} ns", measured.regions, row.name()),
        figure: duration(ours),
        reached: ours <= limit,
    })
}

fn bytes(measured: &Measured) -> Option<Goal> {
    let bytes = measured.peers.first()?.bytes?;
    Some(Goal {
        goal: format!("{} regions: at most 64 bytes a region", measured.regions),
        figure: format!("{bytes:.1} bytes"),
        reached: bytes <= 64.0,
    })
}

/// The goals that `all` measurements allow to judge.
pub fn goals(all: &[Measured]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for measured in all {
        if SIZES.contains(&measured.regions) {
            goals.extend(AIMS.iter().filter_map(|(row, aim)| aim.judge(measured, *row)));
        }
        if measured.regions == LARGEST {
            let gaps = [Row::GapEasy, Row::GapMiddle, Row::GapWorst];
            goals.extend(gaps.into_iter().filter_map(|row| at_most(measured, row, 30.0)));
            goals.extend(bytes(measured));
        }
        goals.extend(at_most(measured, Row::Fork, 50.0));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figure;
    use crate::vmmap::Column;

    fn measured(row: Row, figures: &[(&'static str, f64)]) -> Measured {
        let column = |&(peer, best): &(&'static str, f64)| {
            let cells = vec![Ok(Figure { best, median: best })];
            Column { peer, cells, bytes: Some(best) }
        };
        Measured { regions: LARGEST, rows: vec![row], peers: figures.iter().map(column).collect() }
    }

    fn verdicts(row: Row, figures: &[(&'static str, f64)]) -> Vec<bool> {
        goals(&[measured(row, figures)]).iter().map(|goal| goal.reached).collect()
    }

    #[test]
    fn the_best_other_counts() {
        let bytes = true;
        let look_up = |ours| verdicts(Row::LookUp, &[("pagewarden", ours), ("sorted Vec", 5.0), ("BTreeMap", 9.0)]);
        assert_eq!([look_up(8.0), look_up(9.0)], [[true, bytes], [false, bytes]]);
        let split = |ours| verdicts(Row::SplitMerge, &[("pagewarden", ours), ("sorted Vec", 5.0), ("BTreeMap", 9.0)]);
        assert_eq!([split(4.0), split(6.0)], [[true, bytes], [false, bytes]]);
        let insert = |ours| verdicts(Row::InsertRemove, &[("pagewarden", ours), ("nodit", 30.0), ("BTreeMap", 20.0)]);
        assert_eq!([insert(22.0), insert(24.0)], [[true, bytes], [false, bytes]]);
        let walk = |ours| verdicts(Row::Iterate, &[("pagewarden", ours), ("nodit", 10.0), ("BTreeMap", 20.0)]);
        assert_eq!([walk(30.0), walk(31.0)], [[true, bytes], [false, bytes]]);
    }

    #[test]
    fn limits() {
        assert_eq!(verdicts(Row::GapEasy, &[("pagewarden", 30.0)]), [true, true]);
        assert_eq!(verdicts(Row::GapWorst, &[("pagewarden", 65.0)]), [false, false]);
        assert_eq!(verdicts(Row::Fork, &[("pagewarden", 50.0)]), [true, true]);
        assert_eq!(verdicts(Row::Fork, &[("pagewarden", 51.0)]), [true, false]);
    }
}
