//! The measurement: every peer does every row at every size, in turn.

use anyhow::Result;

use crate::map::RegionMap;
use crate::measure::{Figure, Subject, calibrate, subject, timed};
use crate::peers;
use crate::work::{Layout, Row};

/// One of the maps that are compared.
pub struct Peer {
    /// What tables call it.
    pub name: &'static str,
    fill: fn(&Layout) -> Box<dyn Subject + '_>,
}

impl Peer {
    const fn of<M: RegionMap + 'static>() -> Self {
        Self { name: M::NAME, fill: subject::<M> }
    }
}

/// All peers; the first is pagewarden's.
pub const PEERS: &[Peer] = &[
    Peer::of::<peers::Ours>(),
    Peer::of::<peers::Ranges>(),
    Peer::of::<peers::LiteBoxRanges>(),
    Peer::of::<peers::Nodit>(),
    Peer::of::<peers::Areas>(),
    Peer::of::<peers::BTree>(),
    Peer::of::<peers::IndexedBTree>(),
    Peer::of::<peers::Persistent>(),
    Peer::of::<peers::RedBlack>(),
    Peer::of::<peers::SortedVec>(),
];

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    /// How often each peer does each row.
    pub passes: usize,
    /// Nanoseconds of each time.
    pub sample: f64,
}

/// A figure, or why there is none.
pub type Cell = Result<Figure, &'static str>;

/// What was measured at one size.
pub struct Measured {
    /// How many regions.
    pub regions: usize,
    /// The rows.
    pub rows: Vec<Row>,
    /// The peers, and a cell a row for each.
    pub peers: Vec<(&'static str, Vec<Cell>)>,
}

/// Measures `peers` with `regions` regions.
///
/// # Errors
/// If there is no clock.
pub fn measure(regions: usize, peers: &[&Peer], rows: &[Row], effort: Effort) -> Result<Measured> {
    let layout = Layout::new(regions);
    let mut subjects: Vec<_> = peers.iter().map(|peer| (peer.fill)(&layout)).collect();
    let mut cells: Vec<Vec<Cell>> = vec![Vec::new(); peers.len()];
    for &row in rows {
        let mut counts = Vec::new();
        for subject in &mut subjects {
            counts.push(match subject.able(row) {
                Ok(()) => Ok(calibrate(effort.sample, |count| subject.run(row, count))?),
                Err(reason) => Err(reason),
            });
        }
        let mut samples = vec![Vec::new(); subjects.len()];
        for _ in 0..effort.passes {
            for ((subject, count), samples) in subjects.iter_mut().zip(&counts).zip(&mut samples) {
                let Ok(count) = *count else { continue };
                // What ran before this has filled the caches with its own map.
                subject.run(row, count / 8);
                samples.push(timed(|| subject.run(row, count))? / count as f64);
            }
        }
        for ((cells, count), samples) in cells.iter_mut().zip(counts).zip(samples) {
            cells.push(count.map(|_| Figure::of(samples)));
        }
    }
    let names = peers.iter().map(|peer| peer.name);
    Ok(Measured { regions, rows: rows.to_vec(), peers: names.zip(cells).collect() })
}
