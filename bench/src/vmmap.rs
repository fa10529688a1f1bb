//! The measurement: every peer does every row at every size, in turn.

use anyhow::Result;

use crate::bytes::Bytes;
use crate::check::differential;
use crate::map::RegionMap;
use crate::measure::{Figure, Subject, calibrate, subject, timed};
use crate::peers;
use crate::replay::Player;
use crate::work::{Layout, Row};

/// Runs of the differential test before a measurement, and edits in each.
const CHECK_RUNS: u64 = 6;
const CHECK_STEPS: usize = 300;

/// One of the maps that are compared.
pub struct Peer {
    /// What tables call it.
    pub name: &'static str,
    fill: fn(&Layout) -> Box<dyn Subject + '_>,
    differential: fn(u64, usize) -> Result<(), String>,
    pub(crate) player: Player,
}

impl Peer {
    const fn of<M: RegionMap + 'static>() -> Self {
        Self { name: M::NAME, fill: subject::<M>, differential: differential::<M>, player: Player::of::<M>() }
    }

    /// A map of the regions of `layout`.
    pub fn fill<'a>(&self, layout: &'a Layout) -> Box<dyn Subject + 'a> {
        (self.fill)(layout)
    }

    /// The test that comes before a measurement.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self) -> Result<(), String> {
        (0..CHECK_RUNS).try_for_each(|seed| (self.differential)(seed, CHECK_STEPS))
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

/// What was measured of one map.
pub struct Column {
    /// The name of the map.
    pub peer: &'static str,
    /// A cell a row.
    pub cells: Vec<Cell>,
    /// Bytes a region, if they were counted.
    pub bytes: Option<f64>,
}

/// What was measured at one size.
pub struct Measured {
    /// How many regions.
    pub regions: usize,
    /// The rows.
    pub rows: Vec<Row>,
    /// The maps, pagewarden's first.
    pub peers: Vec<Column>,
}

impl Measured {
    /// Takes over what was counted for this size.
    #[must_use]
    pub fn with_bytes(mut self, counted: &[Bytes]) -> Self {
        for bytes in counted.iter().filter(|bytes| bytes.regions == self.regions) {
            if let Some(column) = self.peers.iter_mut().find(|column| column.peer == bytes.peer) {
                column.bytes = Some(bytes.live as f64 / bytes.regions as f64);
            }
        }
        self
    }

    /// What `pick` says of each map that has a figure for `row`, by the map's name.
    pub fn figures(&self, row: Row, pick: fn(&Figure) -> f64) -> Vec<(&'static str, f64)> {
        let Some(at) = self.rows.iter().position(|&measured| measured == row) else { return Vec::new() };
        let figure = |column: &Column| Some((column.peer, pick(column.cells[at].as_ref().ok()?)));
        self.peers.iter().filter_map(figure).collect()
    }
}

/// Measures `peers` with `regions` regions.
///
/// # Errors
/// If there is no clock.
pub fn measure(regions: usize, peers: &[&Peer], rows: &[Row], effort: Effort) -> Result<Measured> {
    let layout = Layout::new(regions);
    let mut subjects: Vec<_> = peers.iter().map(|peer| peer.fill(&layout)).collect();
    let mut cells: Vec<Vec<Cell>> = vec![Vec::new(); peers.len()];
    for &row in rows {
        for (cells, cell) in cells.iter_mut().zip(measure_row(&mut subjects, row, effort)?) {
            cells.push(cell);
        }
    }
    let columns = peers.iter().zip(cells).map(|(peer, cells)| Column { peer: peer.name, cells, bytes: None });
    Ok(Measured { regions, rows: rows.to_vec(), peers: columns.collect() })
}

fn measure_row(subjects: &mut [Box<dyn Subject + '_>], row: Row, effort: Effort) -> Result<Vec<Cell>> {
    let mut counts = Vec::new();
    for subject in subjects.iter_mut() {
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
    Ok(counts.into_iter().zip(samples).map(|(count, samples)| count.map(|_| Figure::of(samples))).collect())
}
