//! Real programs: what their memory calls did to the maps of their processes is done again.

use std::hint::black_box;

use anyhow::Result;
use pagewarden::Region;

use crate::map::{Ability, Pages, RegionMap, able};
use crate::measure::{Figure, calibrate, timed};
use crate::trace::{Call, Edit, Program, programs};
use crate::vmmap::{Cell, Effort, Peer};

/// Where windows of gap searches begin.
const WINDOW_START: u64 = 16;
/// A replay is short, and there are many.
const SAMPLE_PART: f64 = 0.25;

/// A program to be replayed.
pub struct Replay {
    /// What tables call it.
    pub name: &'static str,
    /// What is done, in order.
    calls: Vec<Call>,
    /// Where each process searches for gaps: up to the highest page that a search found for it.
    windows: Vec<Pages>,
}

/// What one map showed when it was dropped: the process and the regions.
type Last = (usize, Vec<(Pages, Region)>);

impl Replay {
    fn new(program: Program) -> Self {
        let mut windows = vec![WINDOW_START..WINDOW_START + 1; program.processes()];
        for pair in program.calls.windows(2) {
            if let [Call { edit: Edit::Search { .. }, .. }, Call { process, edit: Edit::Replace { pages, .. } }] = pair
            {
                windows[*process].end = windows[*process].end.max(pages.end);
            }
        }
        for call in &program.calls {
            if let Edit::Fork { child } = call.edit {
                windows[child].end = windows[child].end.max(windows[call.process].end);
            }
        }
        Self { name: program.name, calls: program.calls, windows }
    }

    /// The recorded programs.
    ///
    /// # Errors
    /// If a record makes no sense.
    pub fn all() -> Result<Vec<Self>> {
        Ok(programs()?.into_iter().map(Self::new).collect())
    }

    /// How many edits and searches there are.
    pub const fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// How many processes have a map.
    pub const fn processes(&self) -> usize {
        self.windows.len()
    }

    fn able<M: RegionMap>(&self) -> Result<(), &'static str> {
        able::<M>(&[Ability::Merge, Ability::Protect, Ability::Gap, Ability::Visit])?;
        let forks = self.calls.iter().any(|call| matches!(call.edit, Edit::Fork { .. }));
        if forks { able::<M>(&[Ability::Fork]) } else { Ok(()) }
    }

    /// Does all of it; `last` is shown each map when it is dropped.
    fn run<M: RegionMap>(&self, mut last: impl FnMut(usize, &M)) {
        let mut maps: Vec<Option<M>> = (0..self.processes()).map(|_| None).collect();
        for Call { process, edit } in &self.calls {
            let process = *process;
            let map = maps[process].get_or_insert_with(M::new);
            match edit {
                Edit::Search { wanted } => {
                    black_box(map.find_gap(*wanted, self.windows[process].clone()));
                }
                Edit::Replace { pages, region } => map.replace(pages.clone(), region.clone()),
                Edit::Remove { pages } => map.remove(pages.clone()),
                Edit::Protect { pages, prot } => map.protect(pages.clone(), *prot),
                Edit::Visit { pages } => map.visit(pages.clone(), |pages, region| {
                    black_box((pages, region));
                    true
                }),
                Edit::Fork { child } => maps[*child] = map.fork(),
                Edit::Exec | Edit::Exit => {
                    last(process, map);
                    maps[process] = None;
                }
            }
        }
        maps.iter().enumerate().for_each(|(process, map)| map.iter().for_each(|map| last(process, map)));
    }

    /// What the maps showed in the end.
    fn outcome<M: RegionMap>(&self) -> Vec<Last> {
        let mut outcome = Vec::new();
        self.run::<M>(|process, map| {
            let mut regions = Vec::new();
            map.visit(0..crate::map::PAGES_END, |pages, region| {
                regions.push((pages, region.clone()));
                true
            });
            outcome.push((process, regions));
        });
        outcome
    }
}

/// The replays of one map.
#[derive(Clone, Copy)]
pub struct Player {
    able: fn(&Replay) -> Result<(), &'static str>,
    run: fn(&Replay),
    outcome: fn(&Replay) -> Vec<Last>,
}

impl Player {
    /// Replays with maps of type `M`.
    pub const fn of<M: RegionMap>() -> Self {
        Self { able: Replay::able::<M>, run: |replay| replay.run::<M>(|_, _| ()), outcome: Replay::outcome::<M> }
    }
}

/// What was measured of one program.
pub struct Replayed {
    /// The program.
    pub name: &'static str,
    /// How many edits and searches it made.
    pub calls: usize,
    /// How many processes it had.
    pub processes: usize,
    /// A figure a map: nanoseconds for one of the calls.
    pub peers: Vec<(&'static str, Cell)>,
}

/// Replays `replay` into the map of each peer; the first one's maps are what those of the others must show too.
///
/// # Errors
/// If there is no clock.
pub fn measure(replay: &Replay, peers: &[&Peer], effort: Effort) -> Result<Replayed> {
    let wanted = peers.first().map(|peer| (peer.player.outcome)(replay));
    let mut counts: Vec<Result<usize, &'static str>> = Vec::new();
    for Peer { player, .. } in peers {
        counts.push(match (player.able)(replay) {
            Ok(()) if Some((player.outcome)(replay)) != wanted => Err("its maps show other regions in the end"),
            Ok(()) => {
                Ok(calibrate(effort.sample * SAMPLE_PART, |count| (0..count).for_each(|_| (player.run)(replay)))?)
            }
            Err(reason) => Err(reason),
        });
    }
    let mut samples = vec![Vec::new(); peers.len()];
    for _ in 0..effort.passes {
        for ((peer, count), samples) in peers.iter().zip(&counts).zip(&mut samples) {
            let Ok(count) = *count else { continue };
            let nanoseconds = timed(|| (0..count).for_each(|_| (peer.player.run)(replay)))?;
            samples.push(nanoseconds / count as f64 / replay.len() as f64);
        }
    }
    let cells = counts.into_iter().zip(samples).map(|(count, samples)| count.map(|_| Figure::of(samples)));
    Ok(Replayed {
        name: replay.name,
        calls: replay.len(),
        processes: replay.processes(),
        peers: peers.iter().map(|peer| peer.name).zip(cells).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmmap::PEERS;

    #[test]
    fn all_maps_show_the_same_in_the_end() {
        let replays = Replay::all().unwrap();
        assert_eq!(replays.len(), 16);
        for replay in &replays {
            let wanted = (PEERS[0].player.outcome)(replay);
            assert!(wanted.iter().any(|(_, regions)| regions.len() > 5), "{}: {wanted:?}", replay.name);
            for peer in PEERS {
                match (peer.player.able)(replay) {
                    Ok(()) => assert_eq!((peer.player.outcome)(replay), wanted, "{}, {}", replay.name, peer.name),
                    Err(_) => assert_eq!(peer.name, "ArceOS memory_set"),
                }
            }
        }
    }

    #[test]
    fn windows_hold_what_searches_found() {
        for replay in Replay::all().unwrap() {
            for call in &replay.calls {
                if let Edit::Fork { child } = call.edit {
                    let (child, parent) = (&replay.windows[child], &replay.windows[call.process]);
                    assert!(child.end >= parent.end, "{}: a child searches lower", replay.name);
                }
            }
            for pair in replay.calls.windows(2) {
                let [search, fill] = pair else { unreachable!() };
                if let (Edit::Search { wanted }, Edit::Replace { pages, .. }) = (&search.edit, &fill.edit) {
                    let window = &replay.windows[fill.process];
                    assert!(pages.end <= window.end && pages.start >= window.start, "{}", replay.name);
                    assert!(*wanted <= window.end - window.start, "{}", replay.name);
                }
            }
        }
    }
}
