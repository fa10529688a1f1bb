//! All short sequences in a small world: a pool of three frames, two processes with two pages each, at most three handles
//! to memory, and a budget of committed pages that is reached.
//!
//! The states of the model that sequences of [`DEPTH`] calls lead to, from nothing at all and with fewer calls from
//! [what others begin with](starts), are found first. Then the machine is led from state to state until every call of
//! the alphabet has been made in each of them, those that are refused too; all that can be seen is compared. States are
//! taken for one where models are equal up to numbering ([`Model::canonical`]). That is sound as far as what the machine
//! does next depends on what the model says alone, and not on how it came there. The machine comes there in many ways,
//! few of them the shortest: what it keeps besides (frames that were used, entries that are remembered, slots that were
//! taken) is different each time.

use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use super::alphabet::{calls, starts};
use super::ghost::Ghost;
use super::{Given, Scope, World};
use crate::cap::Rights;
use crate::ledger::Resource;
use crate::model::capability::{BUDGET, Call, Model, Name, POOL, Run, STALE, Step};

/// How many calls one after the other.
const DEPTH: usize = 4;

const SCOPE: Scope = Scope { pages: 4, fixed: [2, 3], frames: 40 };
/// Frames of the pool.
const FRAMES: u64 = 3;
/// Committed pages of the budget.
const PAGES: u64 = 6;
/// Handles to memory, besides those for the two spaces and the pool.
const HANDLES: u64 = 3;

/// Makes a world what it is at the start.
fn begin(world: &mut World) {
    world.add_process(&[Given::Frames(Rights::empty())]);
    world.add_process(&[]);
    let limits = [
        (POOL, Resource::Frames, FRAMES),
        (BUDGET, Resource::Committed, PAGES),
        (BUDGET, Resource::Capabilities, HANDLES + 3),
    ];
    for (account, resource, most) in limits {
        world.step(&Step { by: 0, call: Call::Limit { account, resource, most } });
    }
}

/// What comes of a call in a state.
#[derive(Clone, Copy)]
enum Outcome {
    /// Nothing changes.
    Stays,
    Leads(usize),
}

/// A state that sequences of calls lead to.
struct State {
    model: Model,
    /// The calls that lead here, after those of a start.
    way: Vec<Step>,
    /// The calls that can be made, unless the state is too far away; first those that change nothing.
    calls: Vec<(Step, Outcome)>,
    /// How many of those calls have been made.
    made: usize,
}

/// All states and calls, by the model alone.
struct Graph {
    numbers: HashMap<Model, usize>,
    states: Vec<State>,
    /// Where sequences begin, and how many calls they have.
    starts: Vec<(usize, usize)>,
}

impl Graph {
    fn new(start: &Model) -> Self {
        let mut graph = Self { numbers: HashMap::new(), states: Vec::new(), starts: Vec::new() };
        // By how many calls are left; more first, so that each state is met with the most that there can be.
        let mut levels: Vec<Vec<usize>> = vec![Vec::new(); DEPTH + 1];
        for (way, left) in starts(DEPTH) {
            let model = way.iter().fold(start.canonical(), |model, step| model.after(step).0.canonical());
            let number = graph.number(model, &way).unwrap_or_else(|known| known);
            graph.starts.push((number, left));
            levels[left].push(number);
        }
        for left in (1..=DEPTH).rev() {
            for at in core::mem::take(&mut levels[left]) {
                let new = graph.expand(at);
                levels[left - 1].extend(new);
            }
        }
        graph
    }

    /// The number of a state: a new one, or the one that it has.
    fn number(&mut self, model: Model, way: &[Step]) -> Result<usize, usize> {
        if let Some(number) = self.numbers.get(&model) {
            return Err(*number);
        }
        let number = self.states.len();
        self.numbers.insert(model.clone(), number);
        self.states.push(State { model, way: way.to_vec(), calls: Vec::new(), made: 0 });
        Ok(number)
    }

    /// Finds what comes of all calls in a state; the states that were not known.
    fn expand(&mut self, at: usize) -> Vec<usize> {
        if !self.states[at].calls.is_empty() {
            return Vec::new();
        }
        let (model, mut way) = (self.states[at].model.clone(), self.states[at].way.clone());
        let (mut stays, mut leads, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for step in calls(&model) {
            let next = model.after(&step).0.canonical();
            if next == model {
                stays.push((step, Outcome::Stays));
                continue;
            }
            way.push(step);
            let to = self.number(next, &way).inspect(|to| new.push(*to)).unwrap_or_else(|known| known);
            way.pop();
            leads.push((step, Outcome::Leads(to)));
        }
        stays.extend(leads);
        self.states[at].calls = stays;
        new
    }

    fn next_call(&self, at: usize) -> Option<(Step, Outcome)> {
        let state = &self.states[at];
        state.calls.get(state.made).copied()
    }

    /// How many sequences there are, of at most as many calls as are made after each start.
    fn sequences(&self) -> u64 {
        let longest = self.starts.iter().map(|(_, left)| *left).max().unwrap_or(0);
        // So many of at most `left` calls begin in each state; where fewer are known of, nobody asks.
        let mut from = vec![vec![0_u64; self.states.len()]];
        for left in 1..=longest {
            let shorter = &from[left - 1];
            let count = |at: usize| {
                let goes_on = |outcome: &Outcome| match outcome {
                    Outcome::Stays => shorter[at],
                    Outcome::Leads(to) => shorter[*to],
                };
                self.states[at].calls.iter().map(|(_, outcome)| 1 + goes_on(outcome)).sum()
            };
            from.push((0..self.states.len()).map(count).collect());
        }
        self.starts.iter().map(|(start, left)| from[*left][*start]).sum()
    }
}

/// A canonical step in the words of a world in which handles were released before.
fn translated(step: &Step, world: &World) -> Step {
    let mut step = *step;
    if let Some(Name::Given { process, number }) = step.call.name_mut() {
        let handles = &world.model.processes[*process].handles;
        let is_live = *number != STALE;
        let fitting: Vec<usize> = (0..handles.len()).filter(|at| handles[*at].is_some() == is_live).collect();
        let chosen = if is_live { fitting.get(*number) } else { fitting.last() };
        match chosen {
            Some(chosen) => *number = *chosen,
            // There is none: the first of another's is as good.
            None => (*process, *number) = (1 - step.by, 0),
        }
    }
    step
}

/// A world that goes from state to state.
struct Tour {
    graph: Graph,
    world: World,
    ghost: Ghost,
    at: usize,
    /// No state before this one has calls left that have not been made.
    done: usize,
    worlds: usize,
    calls: u64,
}

impl Tour {
    /// Makes a call, and notes who was given what by it.
    fn go(&mut self, step: &Step) {
        let before = self.world.model.clone();
        self.world.step(step);
        self.ghost.note(&before, step, &self.world.model);
        self.calls += 1;
    }

    /// Compares all that can be seen, and asks what must hold whatever the model says.
    fn check(&mut self, step: &Step) {
        let model = self.world.model.clone();
        let difference = self.world.difference(&model).or_else(|| self.world.touched_difference(&model));
        if let Some(difference) = difference {
            panic!("after {:?}, {step:?}: {difference}", self.graph.states[self.at].way);
        }
        let (budget, pool) = (self.world.account(BUDGET), self.world.account(POOL));
        let (frames, committed) = (pool.used(Resource::Frames), budget.used(Resource::Committed));
        assert!(frames <= FRAMES, "{frames} frames of the pool after {step:?}");
        assert!(frames <= committed, "{frames} frames that are paid for as {committed} pages after {step:?}");
        assert!(committed <= PAGES, "{committed} pages after {step:?}");
        self.ghost.check(&self.world.model);
    }

    /// Makes calls of the state until none is left, or one has led where no call leads back from.
    fn visit(&mut self) {
        while let Some((step, outcome)) = self.graph.next_call(self.at) {
            self.graph.states[self.at].made += 1;
            let actual = translated(&step, &self.world);
            let before = self.world.model.clone();
            self.go(&actual);
            match outcome {
                // What changes nothing is looked at together.
                Outcome::Stays if matches!(self.graph.next_call(self.at), Some((_, Outcome::Stays))) => {}
                Outcome::Stays => self.check(&actual),
                Outcome::Leads(to) => {
                    self.check(&actual);
                    if !self.undo(&before, &actual) {
                        self.at = to;
                        return;
                    }
                }
            }
        }
    }

    /// Goes back to where `step` was made, if a call can do that.
    fn undo(&mut self, before: &Model, step: &Step) -> bool {
        let canonical = &self.graph.states[self.at].model;
        let after = &self.world.model;
        let leads_back = |undo: &Step| after.after(undo).0.canonical() == *canonical;
        let found = undoing(before, step, after).into_iter().find(leads_back);
        if let Some(undo) = &found {
            self.go(undo);
            let model = self.world.model.clone();
            assert_eq!(self.world.difference(&model), None, "{undo:?}");
        }
        found.is_some()
    }

    /// Goes to a state where calls are still to be made: the next one, or one in a new world.
    fn move_on(&mut self) -> bool {
        let next = self.graph.states[self.at].calls.iter().find_map(|(step, outcome)| match outcome {
            Outcome::Leads(to) if self.graph.next_call(*to).is_some() => Some((*step, *to)),
            _ => None,
        });
        if let Some((step, to)) = next {
            self.go(&translated(&step, &self.world));
            self.at = to;
            return true;
        }
        while self.graph.next_call(self.done).is_none() {
            self.done += 1;
            if self.done == self.graph.states.len() {
                return false;
            }
        }
        self.world.renew();
        begin(&mut self.world);
        (self.ghost, self.worlds) = (Ghost::new(&self.world.model), self.worlds + 1);
        for step in self.graph.states[self.done].way.clone() {
            self.go(&translated(&step, &self.world));
        }
        self.at = self.done;
        true
    }
}

/// Calls that may lead back from `after`, where `step` has led.
fn undoing(before: &Model, step: &Step, after: &Model) -> Vec<Step> {
    let mut all = Vec::new();
    for process in 0..after.processes.len() {
        let count = after.processes[process].handles.len();
        if count > before.processes[process].handles.len() {
            let handle = Name::Given { process, number: count - 1 };
            all.push(Step { by: process, call: Call::Release { handle } });
        }
    }
    let changed: Vec<u64> = (0..2).filter(|page| before.page(step.by, *page) != after.page(step.by, *page)).collect();
    if let (Some(first), Some(last)) = (changed.first(), changed.last()) {
        let (range, prot) = (Run::new(*first, last - first + 1), before.page(step.by, *first).prot());
        let space = Name::Given { process: step.by, number: 0 };
        let calls = [
            Call::Munmap { range },
            Call::Mprotect { range, prot },
            Call::Discard { range },
            Call::Decommit { space, range },
            Call::Protect { space, range, prot },
        ];
        all.extend(calls.map(|call| Step { by: step.by, call }));
    }
    all
}

/// Some 50 million sequences of up to four calls, by 230 000 calls in 18 000 states: about 20 s where nothing else runs.
#[test]
fn no_short_sequence_yields_access_without_a_right_or_evades_the_ledger() {
    let mut world = World::new(SCOPE);
    begin(&mut world);
    let graph = Graph::new(&world.model);
    let ghost = Ghost::new(&world.model);
    let mut tour = Tour { graph, world, ghost, at: 0, done: 0, worlds: 1, calls: 0 };
    loop {
        tour.visit();
        if tour.graph.next_call(tour.at).is_none() && !tour.move_on() {
            break;
        }
    }
    let all: usize = tour.graph.states.iter().map(|state| state.calls.len()).sum();
    std::println!(
        "{} sequences of up to {DEPTH} calls: {} states, {all} calls in them, {} made in {} worlds",
        tour.graph.sequences(),
        tour.graph.states.len(),
        tour.calls,
        tour.worlds,
    );
    assert!(tour.graph.states.iter().all(|state| state.made == state.calls.len()));
    assert!(all > 100_000, "the graph is smaller than it was");
    tour.world.end();
}
