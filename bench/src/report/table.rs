//! Tables as Markdown.

use std::fmt::Write;

use super::Goal;
use crate::measure::Figure;
use crate::replay::Replayed;
use crate::vmmap::{Cell, Column, Measured};
use crate::work::Row;

/// `nanoseconds` with three digits and a unit.
pub fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 9.95 => format!("{small:.1} ns"),
        small if small < 999.5 => format!("{small:.0} ns"),
        some if some < 9_995.0 => format!("{:.2} us", some / 1e3),
        some if some < 99_950.0 => format!("{:.1} us", some / 1e3),
        some if some < 999_500.0 => format!("{:.0} us", some / 1e3),
        large => format!("{:.2} ms", large / 1e6),
    }
}

/// A Markdown table whose columns are as wide as their widest cell; all but the first are aligned to the right.
pub(super) fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(text, "| {cell:width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let _ = write!(text, "|{}{}", "-".repeat(width + 1), if column == 0 { "-" } else { ":" });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The first of `figures` against the best of the others.
pub(super) fn ratio(figures: &[Option<f64>]) -> String {
    let ours = figures.first().copied().flatten();
    let best = figures.iter().skip(1).flatten().copied().min_by(f64::total_cmp);
    ours.zip(best).map_or("-".to_owned(), |(ours, best)| format!("{:.2}", ours / best))
}

fn ratios(name: &str, measured: &Measured, pick: fn(&Figure) -> f64) -> Vec<String> {
    let cell = |column: &Column, at: usize| column.cells[at].as_ref().ok().map(pick);
    let figures = |at| measured.peers.iter().map(|column| cell(column, at)).collect::<Vec<_>>();
    let mut line = vec![name.to_owned()];
    line.extend((0..measured.rows.len()).map(|at| ratio(&figures(at))));
    line.push(ratio(&measured.peers.iter().map(|column| column.bytes).collect::<Vec<_>>()));
    line
}

/// The table of one size: a line a map, a column a row.
pub fn of_size(measured: &Measured) -> String {
    let mut head = vec![format!("{} regions", measured.regions)];
    head.extend(measured.rows.iter().map(|row| row.name().to_owned()));
    head.push("bytes a region".to_owned());
    let mut lines = vec![head];
    for column in &measured.peers {
        let mut line = vec![column.peer.to_owned()];
        let cell = |figure: Option<&Figure>| figure.map_or("-".to_owned(), |figure| duration(figure.best));
        line.extend(column.cells.iter().map(|figure| cell(figure.as_ref().ok())));
        line.push(column.bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")));
        lines.push(line);
    }
    lines.push(ratios("ours / best other", measured, |figure| figure.best));
    lines.push(ratios("the same of the medians", measured, |figure| figure.median));
    markdown(&lines)
}

/// Which maps left out which rows, and why: one line a reason.
pub fn left_out(measured: &Measured) -> String {
    let mut text = String::new();
    for column in &measured.peers {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for (row, cell) in measured.rows.iter().copied().map(Row::name).zip(&column.cells) {
            let Err(reason) = cell else { continue };
            match reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, rows)) => rows.push(row),
                None => reasons.push((reason, vec![row])),
            }
        }
        for (reason, rows) in reasons {
            let _ = writeln!(text, "- {} is left out of {}: {reason}.", column.peer, rows.join(", "));
        }
    }
    text
}

/// The table of the programs: a line a program, a column a map, nanoseconds a call.
pub fn of_programs(all: &[Replayed]) -> String {
    let Some(first) = all.first() else { return String::new() };
    let mut head = vec!["program".to_owned(), "processes".to_owned(), "calls".to_owned()];
    head.extend(first.peers.iter().map(|(peer, _)| (*peer).to_owned()));
    head.push("ours / best other".to_owned());
    let mut lines = vec![head];
    let best = |cell: &Cell| cell.as_ref().ok().map(|figure| figure.best);
    let mut line = |name: &str, processes: usize, calls: usize, figures: &[Option<f64>]| {
        let mut line = vec![name.to_owned(), processes.to_string(), calls.to_string()];
        line.extend(figures.iter().map(|figure| figure.map_or("-".to_owned(), duration)));
        line.push(ratio(figures));
        lines.push(line);
    };
    for program in all {
        let figures: Vec<_> = program.peers.iter().map(|(_, cell)| best(cell)).collect();
        line(program.name, program.processes, program.calls, &figures);
    }
    let calls = all.iter().map(|program| program.calls).sum::<usize>();
    let time = |program: &Replayed, at: usize| best(&program.peers[at].1).map(|figure| figure * program.calls as f64);
    let sum = |at| all.iter().map(|program| time(program, at)).sum::<Option<f64>>();
    let figures: Vec<_> = (0..first.peers.len()).map(|at| sum(at).map(|sum| sum / calls as f64)).collect();
    line("all of them", all.iter().map(|program| program.processes).sum(), calls, &figures);
    markdown(&lines)
}

/// The table of the goals.
pub fn of_goals(goals: &[Goal]) -> String {
    let head = ["goal", "measured", "verdict"].map(str::to_owned).to_vec();
    let verdict = |goal: &Goal| if goal.reached { "reached" } else { "missed" }.to_owned();
    let line = |goal: &Goal| vec![goal.goal.clone(), goal.figure.clone(), verdict(goal)];
    markdown(&std::iter::once(head).chain(goals.iter().map(line)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let figures = [1.26, 12.6, 126.4, 1_264.0, 12_640.0, 126_400.0, 1_264_000.0, 12_640_000.0];
        let texts = ["1.3 ns", "13 ns", "126 ns", "1.26 us", "12.6 us", "126 us", "1.26 ms", "12.64 ms"];
        assert_eq!(figures.map(duration), texts);
        assert_eq!([9.97, 999.7, 9_997.0, 99_970.0].map(duration), ["10 ns", "1.00 us", "10.0 us", "100 us"]);
    }

    #[test]
    fn a_size() {
        let figure = |best| Ok(Figure { best, median: 2.0 * best });
        let peers = vec![
            Column { peer: "a", cells: vec![figure(10.0), figure(3.0)], bytes: Some(60.0) },
            Column { peer: "bc", cells: vec![figure(20.0), Err("it cannot")], bytes: Some(40.0) },
            Column { peer: "d", cells: vec![figure(40.0), figure(1.0)], bytes: None },
        ];
        let measured = Measured { regions: 7, rows: vec![Row::LookUp, Row::Fork], peers };
        assert_eq!(
            of_size(&measured),
            "\
| 7 regions               | look-up | clone + drop | bytes a region |
|-------------------------|--------:|-------------:|---------------:|
| a                       |   10 ns |       3.0 ns |             60 |
| bc                      |   20 ns |            - |             40 |
| d                       |   40 ns |       1.0 ns |              - |
| ours / best other       |    0.50 |         3.00 |           1.50 |
| the same of the medians |    0.50 |         3.00 |           1.50 |
"
        );
        assert_eq!(left_out(&measured), "- bc is left out of clone + drop: it cannot.\n");
    }
    #[test]
    fn programs() {
        let program = |name, calls, ours, other| {
            let cell = |best| Ok(Figure { best, median: best });
            let peers = vec![("a", cell(ours)), ("b", cell(other)), ("c", Err("it cannot"))];
            Replayed { name, calls, processes: 2, peers }
        };
        assert_eq!(
            of_programs(&[program("x", 100, 10.0, 20.0), program("y", 300, 50.0, 20.0)]),
            "\
| program     | processes | calls |     a |     b |   c | ours / best other |
|-------------|----------:|------:|------:|------:|----:|------------------:|
| x           |         2 |   100 | 10 ns | 20 ns |   - |              0.50 |
| y           |         2 |   300 | 50 ns | 20 ns |   - |              2.50 |
| all of them |         4 |   400 | 40 ns | 20 ns |   - |              2.00 |
"
        );
    }
}
