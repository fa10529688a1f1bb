//! Instructions that the map of regions takes, counted by valgrind: a gate that no noise of the machine moves.
//!
//! A row's count is what a run that does it some hundred times more takes above one that does it less often. Filling the
//! map is in both, and so is what the length of the arguments moves: they only differ in a digit. `bench/instructions.json` holds what the counts were when they were last recorded.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::vmmap::build;
use crate::lab::missing;
use crate::root;
use crate::step::Verdict;

/// Numbers of regions.
const SIZES: [u64; 2] = [1_000, 65_000];
/// How often a row is done in the shorter run; in the longer it is twice that, with as many digits.
const TIMES: u64 = 400;
/// A count may be this part away from the recorded one.
const TOLERANCE: f64 = 0.05;
const RECORD: &str = "bench/instructions.json";

/// Instructions a time, by row and size.
type Counts = BTreeMap<String, f64>;

/// How a count compares with the recorded one.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Within,
    Worse,
    Better,
}

/// `cargo xtask bench instructions`.
pub(crate) fn run() -> Result<()> {
    match check()? {
        Verdict::Passed => Ok(()),
        Verdict::Skipped(reason) => bail!("not compared: {reason}"),
    }
}

/// `cargo xtask bench instructions --record`.
pub(crate) fn record() -> Result<()> {
    ensure!(missing(&["valgrind"]).is_none(), "valgrind is not installed");
    let counts = count(&build(&["pagewarden-bench"])?)?;
    counts.iter().for_each(|(name, count)| println!("{count:>10.0}  {name}"));
    let text = serde_json::to_string_pretty(&json!({"with": conditions()?, "instructions": counts}))?;
    fs::write(root().join(RECORD), text + "\n").context(RECORD)?;
    println!("\nrecorded in {RECORD}");
    Ok(())
}

/// Compares the counts with the recorded ones; an error if one is worse.
pub(crate) fn check() -> Result<Verdict> {
    if missing(&["valgrind"]).is_some() {
        return Ok(Verdict::Skipped("valgrind is not installed".to_owned()));
    }
    let text = fs::read_to_string(root().join(RECORD)).context(RECORD)?;
    let record: Value = serde_json::from_str(&text).context(RECORD)?;
    let (recorded, here) = (record["with"].as_str().unwrap_or_default(), conditions()?);
    if recorded != here {
        return Ok(Verdict::Skipped(format!("the counts were recorded with {recorded}, and this is {here}")));
    }
    let recorded: Counts = serde_json::from_value(record["instructions"].clone()).context(RECORD)?;
    let counts = count(&build(&["pagewarden-bench"])?)?;
    println!("          {:>10} {:>10}   instructions a time", "recorded", "now");
    for (name, now) in &counts {
        let before = recorded.get(name).map_or("-".to_owned(), |count| format!("{count:.0}"));
        println!("          {before:>10} {now:>10.0}   {name}");
    }
    compare(&recorded, &counts)
}

fn compare(recorded: &Counts, counts: &Counts) -> Result<Verdict> {
    ensure!(
        recorded.keys().eq(counts.keys()),
        "other rows are recorded than there are; record them anew with `cargo xtask bench instructions --record`"
    );
    let of = |wanted: Change| {
        let is = |(name, now): &(&String, &f64)| change(recorded[*name], **now) == wanted;
        counts.iter().filter(is).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("; ")
    };
    let (worse, better) = (of(Change::Worse), of(Change::Better));
    if !better.is_empty() {
        println!("          better than recorded: {better}");
        println!("          record it anew: cargo xtask bench instructions --record");
    }
    ensure!(worse.is_empty(), "more than {:.0} % more instructions than recorded: {worse}", TOLERANCE * 100.0);
    Ok(Verdict::Passed)
}

fn change(recorded: f64, now: f64) -> Change {
    // A few instructions more are no loss, however short the row is.
    let slack = (recorded * TOLERANCE).max(3.0);
    match now - recorded {
        more if more > slack => Change::Worse,
        more if more < -slack => Change::Better,
        _ => Change::Within,
    }
}

/// What else than the code a count depends on: the compiler, and the C library, which copies memory as suits the
/// processor.
fn conditions() -> Result<String> {
    let first_line = |program: &str| -> Result<String> {
        let output = Command::new(program).arg("--version").output().with_context(|| format!("starting {program}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
    };
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    Ok(format!("{}; {}; {model}", first_line("rustc")?, first_line("ldd")?))
}

/// One run under valgrind: a row, how many regions, how often.
type Job = (String, u64, u64);

/// Counts all rows at all sizes, on as many processors as there are.
fn count(program: &Path) -> Result<Counts> {
    let rows = Command::new(program).args(["instructions", "--list"]).output()?;
    let rows: Vec<String> = String::from_utf8(rows.stdout)?.lines().map(str::to_owned).collect();
    ensure!(!rows.is_empty(), "the bench has no rows");
    let both = |row: &String, size| [TIMES, 2 * TIMES].map(|times| (row.clone(), size, times));
    let jobs: Vec<Job> = SIZES.iter().flat_map(|&size| rows.iter().flat_map(move |row| both(row, size))).collect();
    let queue = Mutex::new(jobs.into_iter());
    let next = || queue.lock().ok()?.next();
    let worker = || {
        let mut done = Vec::new();
        while let Some((row, size, times)) = next() {
            let total = total(program, &row, size, times)?;
            done.push(((row, size, times), total));
        }
        Ok(done)
    };
    let mut totals: BTreeMap<Job, u64> = BTreeMap::new();
    thread::scope(|scope| -> Result<()> {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let done: Result<Vec<(Job, u64)>> = worker.join().unwrap_or_else(|_| bail!("a worker panicked"));
            totals.extend(done?);
        }
        Ok(())
    })?;
    let mut counts = Counts::new();
    for ((row, size, times), &shorter) in totals.iter().filter(|((_, _, times), _)| *times == TIMES) {
        let longer = totals.get(&(row.clone(), *size, 2 * times)).context("a run without its longer one")?;
        let above = longer.checked_sub(shorter).context("a row took less than nothing")?;
        let count = above as f64 / *times as f64;
        counts.insert(format!("{row}, {size} regions"), (count * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// The instructions of one run.
fn total(program: &Path, row: &str, regions: u64, times: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["instructions", "--row", row, "--regions", &regions.to_string(), "--count", &times.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind: {}", text.trim());
    collected(&text)
}

/// What valgrind says at the end: `==PID== Collected : 5731078`.
fn collected(text: &str) -> Result<u64> {
    let figure = text.lines().find_map(|line| line.split_once("Collected :"));
    figure.context("valgrind counted nothing")?.1.trim().parse().context("what valgrind counted")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(figure: f64) -> Counts {
        BTreeMap::from([("a".to_owned(), figure), ("b".to_owned(), 500.0)])
    }

    #[test]
    fn more_instructions_fail() {
        assert!(matches!(compare(&counts(1000.0), &counts(1049.0)), Ok(Verdict::Passed)));
        assert!(matches!(compare(&counts(1000.0), &counts(700.0)), Ok(Verdict::Passed)));
        let worse = compare(&counts(1000.0), &counts(1051.0)).err().unwrap();
        assert_eq!(worse.to_string(), "more than 5 % more instructions than recorded: a");
        let missing = compare(&Counts::new(), &counts(1.0)).err().unwrap();
        assert!(missing.to_string().contains("other rows"));
    }

    #[test]
    fn changes() {
        let (worse, better, within) = (Change::Worse, Change::Better, Change::Within);
        assert_eq!([change(100.0, 106.0), change(100.0, 94.0), change(100.0, 105.0)], [worse, better, within]);
        assert_eq!([change(20.0, 23.0), change(20.0, 24.0)], [Change::Within, Change::Worse]);
    }

    #[test]
    fn the_end_of_valgrind() {
        assert_eq!(collected("==7== \n==7== Collected : 127191\n==7== \n").unwrap(), 127_191);
        assert!(collected("==7== Events    : Ir\n").is_err());
    }
}
