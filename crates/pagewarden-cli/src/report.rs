//! `--report` and `--report-json`: what a run mapped, committed and was refused.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Write};

use nix::sys::signal::Signal;
use pagewarden_linux::{Exit, ProcessReport, Report};

use crate::size::{count, duration, human, percent};
use crate::style::{BAD, Column, FAINT, GOOD, HEAD, NOTABLE, elide, paint, shown, table};

/// Most processes in the table; all of them are in the JSON.
const PROCESSES_MAX: usize = 20;
/// The width where there is no terminal to ask.
const WIDTH_DEFAULT: usize = 100;
/// Columns of the bar that shows how much of the limit was used.
const BAR_WIDTH: u64 = 24;
/// Blanks before everything under a title.
const INDENT: u16 = 2;
/// No column of names is narrower.
const NAME_WIDTH_MIN: usize = 10;

/// The report as JSON: the fields of [`Report`], sizes in bytes.
pub(crate) fn write_json(mut out: impl Write, report: &Report) -> io::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The report for people: sums, processes, calls, refusals.
pub(crate) fn render(report: &Report, exit: Exit, width: Option<usize>) -> String {
    let width = width.unwrap_or(WIDTH_DEFAULT);
    let mut text = title(report, exit, width);
    text.push_str(&sums(report));
    if !report.processes.is_empty() {
        text.push_str(&processes(report, width));
    }
    text.push_str(&calls(report));
    text.push_str(&refusals(report));
    text
}

fn title(report: &Report, exit: Exit, width: usize) -> String {
    let ending = match exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("killed by {}", signal_name(signal)),
    };
    let style = if exit == Exit::Code(0) { HEAD } else { BAD };
    let program = report.processes.first().map_or_else(String::new, |process| name(&process.program) + ": ");
    let rest = format!("{ending}, {}", duration(report.seconds));
    let room = width.saturating_sub("pagewarden report: ".len() + rest.len()).max(NAME_WIDTH_MIN);
    format!("{} {}{}\n", paint(HEAD, "pagewarden report:"), elide(&program, room), paint(style, rest))
}

fn sums(report: &Report) -> String {
    let usage = &report.usage;
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        text.push_str(format!("  {}{value}", paint(FAINT, format_args!("{label:<12}"))).trim_end());
        text.push('\n');
    };
    line("committed", committed(usage.committed_peak, report.commit_limit));
    line("reserved", human(usage.reserved_peak));
    if usage.locked_peak > 0 {
        line("locked", human(usage.locked_peak));
    }
    if let Some(largest) = report.processes.iter().max_by_key(|process| process.resident_peak) {
        let whose = if report.processes.len() > 1 {
            paint(FAINT, format_args!("  (the largest process, pid {})", largest.pid))
        } else {
            String::new()
        };
        line("resident", human(largest.resident_peak) + &whose);
    }
    line("regions", count(usage.regions_peak));
    let processes = u64::try_from(report.processes.len()).unwrap_or(u64::MAX);
    if processes > 1 {
        line("processes", format!("{}, {} at once", count(processes), count(report.processes_peak)));
    }
    line("calls", call_sum(report));
    text
}

/// The peak, and if there was a limit how near it came.
fn committed(peak: u64, limit: Option<u64>) -> String {
    let Some(limit) = limit else {
        return format!("{} {}", human(peak), paint(FAINT, " (no limit)"));
    };
    let share = percent(peak, limit).min(100);
    let style = match share {
        0..75 => GOOD,
        75..95 => NOTABLE,
        _ => BAD,
    };
    let full = share * BAR_WIDTH / 100;
    let bar = |letter: &str, columns: u64| letter.repeat(usize::try_from(columns).unwrap_or(0));
    format!(
        "{} of {}  {}{} {share}%",
        human(peak),
        human(limit),
        paint(style, bar("█", full)),
        paint(FAINT, bar("░", BAR_WIDTH - full))
    )
}

fn call_sum(report: &Report) -> String {
    let refused = report.processes.iter().map(refused_count).fold(0, u64::saturating_add);
    let mut text = format!("{} memory calls", count(report.calls));
    if report.seconds >= 0.001 && report.calls > 0 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people; precise to 53 bits")]
        let rate = report.calls as f64 / report.seconds;
        let _ = write!(text, ", {} a second", count_rate(rate));
    }
    match refused {
        0 => text + ", none refused",
        some => text + ", " + &paint(BAD, format_args!("{} refused", count(some))),
    }
}

/// Whole numbers; a rate below ten with one decimal.
fn count_rate(rate: f64) -> String {
    if rate < 10.0 {
        return format!("{rate:.1}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and the cast saturates")]
    let whole = rate.round() as u64;
    count(whole)
}

fn refused_count(process: &ProcessReport) -> u64 {
    process.refused.iter().map(|refused| refused.count).fold(0, u64::saturating_add)
}

/// The processes that committed most, as wide as `width` allows.
fn processes(report: &Report, width: usize) -> String {
    let mut largest: Vec<&ProcessReport> = report.processes.iter().collect();
    // Stable: of equals, the one that started first stands first.
    largest.sort_by_key(|process| std::cmp::Reverse(process.usage.committed_peak));
    let left_out = largest.len().saturating_sub(PROCESSES_MAX);
    largest.truncate(PROCESSES_MAX);
    let with_locked = report.processes.iter().any(|process| process.usage.locked_peak > 0);
    let mut columns = vec![
        Column::Right("PID"),
        Column::Left("PROGRAM"),
        Column::Left("EXIT"),
        Column::Right("COMMITTED"),
        Column::Right("RESERVED"),
        Column::Right("RESIDENT"),
    ];
    if with_locked {
        columns.push(Column::Right("LOCKED"));
    }
    columns.extend([Column::Right("CALLS"), Column::Right("REFUSED")]);
    let rows = |name_width: usize| {
        let row = |process: &&ProcessReport| {
            let mut row = vec![
                process.pid.to_string(),
                elide(&name(&process.program), name_width),
                ending(process.exit),
                human(process.usage.committed_peak),
                human(process.usage.reserved_peak),
                human(process.resident_peak),
            ];
            if with_locked {
                row.push(human(process.usage.locked_peak));
            }
            row.push(count(process.calls.values().copied().fold(0, u64::saturating_add)));
            row.push(count(refused_count(process)));
            row
        };
        largest.iter().map(row).collect::<Vec<_>>()
    };
    let name_width = name_room(&columns, &rows(0), width);
    let title = if left_out > 0 { "Processes that committed most, peaks of each" } else { "Processes, peaks of each" };
    let mut text = section(title) + &table(&columns, INDENT, rows(name_width));
    if left_out > 0 {
        let more = format!("  and {} more: --report-json has them all", count(u64::try_from(left_out).unwrap_or(0)));
        text.push_str(&paint(FAINT, more));
        text.push('\n');
    }
    text
}

/// What the other columns leave for the program's name, which is the second.
fn name_room(columns: &[Column], rows: &[Vec<String>], width: usize) -> usize {
    let others: usize = (0..columns.len())
        .filter(|index| *index != 1)
        .map(|index| {
            let (Column::Left(head) | Column::Right(head)) = columns[index];
            rows.iter().map(|row| row[index].len()).fold(head.len(), usize::max)
        })
        .sum();
    width.saturating_sub(others + 2 * columns.len()).max(NAME_WIDTH_MIN)
}

fn ending(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::Code(code)) => code.to_string(),
        Some(Exit::Signal(signal)) => signal_name(signal),
        None => "-".to_owned(),
    }
}

pub(crate) fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

fn name(program: &str) -> String {
    shown(OsStr::new(program))
}

/// The calls of all processes by name, the most frequent first.
fn calls(report: &Report) -> String {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for process in &report.processes {
        for (call, times) in &process.calls {
            let sum = &mut sums.entry(call).or_default().0;
            *sum = sum.saturating_add(*times);
        }
        for refused in &process.refused {
            let sum = &mut sums.entry(&refused.call).or_default().1;
            *sum = sum.saturating_add(refused.count);
        }
    }
    if sums.is_empty() {
        return String::new();
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (times, _))| std::cmp::Reverse(*times));
    let rows = sums.into_iter().map(|(call, (times, refused))| vec![name(call), count(times), count(refused)]);
    section("Calls") + &table(&[Column::Left("CALL"), Column::Right("COUNT"), Column::Right("REFUSED")], INDENT, rows)
}

/// What was refused, and why; the most frequent first.
fn refusals(report: &Report) -> String {
    let mut sums: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for refused in report.processes.iter().flat_map(|process| &process.refused) {
        let sum = sums.entry((&refused.call, &refused.errno, &refused.reason)).or_default();
        *sum = sum.saturating_add(refused.count);
    }
    if sums.is_empty() {
        return String::new();
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    let rows = sums
        .into_iter()
        .map(|((call, errno, reason), times)| vec![name(call), count(times), name(errno), name(reason)]);
    let columns = [Column::Left("CALL"), Column::Right("COUNT"), Column::Left("ANSWER"), Column::Left("WHY")];
    section("Refused") + &table(&columns, INDENT, rows)
}

fn section(title: &str) -> String {
    format!("\n{}\n", paint(HEAD, title))
}

#[cfg(test)]
mod tests;
