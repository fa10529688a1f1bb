//! What cages cost: forks against copies, lives against those of Wasmtime's own instances, computation against Wasmtime's
//! speed, and how much memory many of them take.
//!
//! Both sides of a row run in turn within one run. Times are processor time of the thread, but where many threads would
//! share the work.

mod compute;
mod crowd;
mod fork;
mod lives;
mod table;

use std::process::ExitCode;

use nix::time::{ClockId, clock_gettime};
use pagewarden_cage::{Cage, CageOptions, Cages, Program, Setup};
use table::Table;
use wasmtime::Val;

/// Work on pages.
const PAGES: &str = include_str!("pages.wat");
/// Work without calls.
const COMPUTE: &str = include_str!("compute.wat");

/// What a benchmark adds to the table.
type Part = fn(&mut Table);

const PARTS: [(&str, Part); 4] =
    [("fork", fork::measure), ("crowd", crowd::measure), ("lives", lives::measure), ("compute", compute::measure)];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str()));
    let mut table = Table::default();
    PARTS.iter().filter(|(name, _)| is_wanted(name)).for_each(|(_, measure)| measure(&mut table));
    table.print();
    if table.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cages without limits, and the program that works on pages.
fn cages() -> (Cages, Program) {
    let cages = Cages::new(&CageOptions { processes_max: 8192, ..CageOptions::default() }).expect("cages");
    let program = cages.load(PAGES.as_bytes(), "pages").expect("a program");
    (cages, program)
}

fn start(cages: &Cages, program: &Program) -> Cage {
    cages.start(program, Setup::default()).expect("a cage")
}

/// The one number that an export returns, or 0 if it returns none.
fn call(cage: &mut Cage, export: &str, args: &[u32]) -> u32 {
    let args: Vec<Val> = args.iter().map(|arg| Val::I32(arg.cast_signed())).collect();
    let results = cage.call(export, &args).expect(export);
    results.first().map_or(0, |value| value.unwrap_i32().cast_unsigned())
}

/// Nanoseconds that this thread has run.
fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

/// What `act` gives, and the nanoseconds that it took.
fn timed<T>(act: impl FnOnce() -> T) -> (T, f64) {
    let before = thread_time();
    let given = act();
    (given, thread_time() - before)
}

/// The middle one.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
