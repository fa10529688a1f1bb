//! What `pagewarden run` costs real programs, as ratios to the same programs without it.
//!
//! Both sides run in turn, several times, in one invocation; a ratio is taken in each round and the median of
//! the ratios is what counts. A figure of one side alone says more about the machine than about pagewarden.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::BenchArgs;
use crate::job::{Ended, Job};
use crate::lab::{Lab, Side, User, missing};

/// A row ends early when it has used this up, with [`FEWEST_ROUNDS`] at least.
const ROW_TIME: Duration = Duration::from_secs(20);
/// A row of short programs goes on until it has used this up: single runs of them scatter.
const SHORT_ROW: Duration = Duration::from_secs(3);
const FEWEST_ROUNDS: usize = 3;
/// Where pagewarden writes its report, in the folder of the case.
const REPORT: &str = "bench-report.json";

/// What a program's time is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// From its start to its end.
    Whole,
    /// It prints nanoseconds.
    PrintsNanoseconds,
    /// It prints microseconds, and starts the measured program itself: what follows is that program.
    Server(&'static [&'static str]),
}

/// A line of the table.
struct Row {
    name: &'static str,
    needs: &'static [&'static str],
    files: &'static [&'static str],
    prepare: &'static [&'static str],
    argv: &'static [&'static str],
    /// What the native side runs, if that is something else.
    native_argv: Option<&'static [&'static str]>,
    clock: Clock,
    /// Whether the second side is native as well, which shows the noise.
    both_native: bool,
}

const PLAIN: Row = Row {
    name: "",
    needs: &[],
    files: &[],
    prepare: &[],
    argv: &[],
    native_argv: None,
    clock: Clock::Whole,
    both_native: false,
};

const ROWS: &[Row] = &[
    Row {
        name: "python3 start-up, native both times (the noise)",
        needs: &["python3"],
        argv: &["python3", "-c", "pass"],
        both_native: true,
        ..PLAIN
    },
    Row { name: "python3 start-up", needs: &["python3"], argv: &["python3", "-c", "pass"], ..PLAIN },
    Row {
        name: "gcc -O2, three files",
        needs: &["gcc"],
        files: &["budget.c", "churn.c", "signals.c"],
        argv: &["gcc", "-O2", "-c", "budget.c", "churn.c", "signals.c"],
        ..PLAIN
    },
    Row {
        name: "git log -p, 1500 commits",
        needs: &["git", "bash"],
        files: &["history.sh"],
        prepare: &["bash", "history.sh"],
        argv: &["git", "-C", "history", "log", "-p"],
        ..PLAIN
    },
    Row {
        name: "redis-benchmark, unix socket",
        needs: &["redis-server", "redis-cli", "bash"],
        files: &["serve.sh"],
        argv: &["bash", "serve.sh"],
        clock: Clock::Server(&["redis-server"]),
        ..PLAIN
    },
    Row {
        name: "getppid in a loop, per call",
        needs: &["gcc"],
        files: &["loops.c"],
        prepare: &["gcc", "-O1", "-o", "loops", "loops.c"],
        argv: &["./loops", "getppid", "2000000"],
        clock: Clock::PrintsNanoseconds,
        ..PLAIN
    },
    Row {
        name: "getppid, against native under a filter that allows all",
        needs: &["gcc"],
        files: &["loops.c"],
        prepare: &["gcc", "-O1", "-o", "loops", "loops.c"],
        argv: &["./loops", "getppid", "2000000"],
        native_argv: Some(&["./loops", "filtered-getppid", "2000000"]),
        clock: Clock::PrintsNanoseconds,
        ..PLAIN
    },
    Row {
        name: "mmap and munmap in a loop, per pair (worst case)",
        needs: &["gcc"],
        files: &["loops.c"],
        prepare: &["gcc", "-O1", "-o", "loops", "loops.c"],
        argv: &["./loops", "map", "20000"],
        clock: Clock::PrintsNanoseconds,
        ..PLAIN
    },
];

/// One run of one side.
struct Sample {
    nanoseconds: f64,
    calls_per_second: Option<f64>,
}

/// `cargo xtask bench run`.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let lab = Lab::new(&args.subject)?;
    println!("Linux {}, {} processors.", kernel().trim(), std::thread::available_parallelism()?);
    println!("`pagewarden run -- PROGRAM` against PROGRAM, in turn; ratios of each round.\n");
    println!("| Workload | native | pagewarden | ratio, median | min .. max | rounds | memory calls/s |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|part| name.contains(part.as_str()));
    let mut skipped = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        match missing(row.needs) {
            Some(program) => skipped.push(format!("{}: {program} is not installed", row.name)),
            None => {
                println!("{}", measure(&lab, row, usize::try_from(args.rounds)?).with_context(|| row.name.to_owned())?)
            }
        }
    }
    for row in skipped {
        println!("\nSkipped {row}.");
    }
    Ok(())
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// The row of the table.
fn measure(lab: &Lab, row: &Row, rounds: usize) -> Result<String> {
    lab.refresh(User::Same, row.files)?;
    if !row.prepare.is_empty() {
        lab.prepare(User::Same, row.prepare)?;
    }
    let warden = if row.both_native { Side::Native } else { Side::Warden(&["--report-json", REPORT]) };
    let started = Instant::now();
    let (mut native, mut under, mut ratios, mut calls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // One of each fills the caches and does not count.
    sample(lab, row, Side::Native)?;
    sample(lab, row, warden)?;
    loop {
        let first = sample(lab, row, Side::Native)?;
        let second = sample(lab, row, warden)?;
        native.push(first.nanoseconds);
        under.push(second.nanoseconds);
        ratios.push(second.nanoseconds / first.nanoseconds);
        calls.extend(second.calls_per_second);
        let (elapsed, done) = (started.elapsed(), ratios.len());
        if done >= rounds && elapsed > SHORT_ROW || done >= FEWEST_ROUNDS.min(rounds) && elapsed > ROW_TIME {
            break;
        }
    }
    let calls = if calls.is_empty() { "-".to_owned() } else { format!("{:.0}", median(&mut calls)) };
    let count = ratios.len();
    let middle = median(&mut ratios);
    let (low, high) = (ratios[0], ratios[count - 1]);
    let (native, under) = (time(median(&mut native)), time(median(&mut under)));
    Ok(format!("| {} | {native} | {under} | {middle:.2} | {low:.2} .. {high:.2} | {count} | {calls} |", row.name))
}

fn sample(lab: &Lab, row: &Row, side: Side<'_>) -> Result<Sample> {
    let report = lab.path(REPORT);
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut command = match row.clock {
        Clock::Server(server) => {
            let server = lab.command(side, User::Same, server)?;
            let mut outer = lab.command(Side::Native, User::Same, row.argv)?;
            outer.arg(server.get_program()).args(server.get_args());
            outer
        }
        Clock::Whole | Clock::PrintsNanoseconds => {
            let argv = row.native_argv.filter(|_| matches!(side, Side::Native)).unwrap_or(row.argv);
            lab.command(side, User::Same, argv)?
        }
    };
    let outcome = Job::start(&mut command)?.finish(Duration::from_secs(60))?;
    ensure!(outcome.ended == Ended::Code(0), "{}", outcome.describe());
    ensure!(outcome.survivors.is_empty(), "processes are left behind: {}", outcome.survivors.join("; "));
    let nanoseconds = match row.clock {
        Clock::Whole => outcome.elapsed.as_secs_f64() * 1e9,
        Clock::PrintsNanoseconds => outcome.stdout.trim().parse().context("no figure")?,
        Clock::Server(_) => 1e3 * outcome.stdout.trim().parse::<f64>().context("no figure")?,
    };
    let calls_per_second = if report.exists() { Some(calls_per_second(&fs::read_to_string(&report)?)?) } else { None };
    Ok(Sample { nanoseconds, calls_per_second })
}

fn calls_per_second(report: &str) -> Result<f64> {
    let report: Value = serde_json::from_str(report)?;
    let calls = report["calls"].as_f64().context("the report has no calls")?;
    let seconds = report["seconds"].as_f64().context("the report has no seconds")?;
    ensure!(seconds > 0.0, "the report says that it took {seconds} seconds");
    Ok(calls / seconds)
}

/// The middle one; sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 1e4 => format!("{small:.0} ns"),
        small if small < 1e6 => format!("{:.1} us", small / 1e3),
        large if large < 1e9 => format!("{:.1} ms", large / 1e6),
        large => format!("{:.2} s", large / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn figures() {
        assert_eq!(
            ["137 ns", "13.7 us", "13.7 ms", "1.37 s"],
            [137.0, 13_700.0, 13.7e6, 1.37e9].map(time).each_ref().map(String::as_str)
        );
        assert!((calls_per_second(r#"{"calls": 50, "seconds": 0.5}"#).unwrap() - 100.0).abs() < 1e-9);
        assert!(calls_per_second(r#"{"calls": 50}"#).is_err());
        assert!(calls_per_second(r#"{"calls": 0, "seconds": 0}"#).is_err());
    }
}
