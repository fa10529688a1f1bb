//! Tables as Markdown.

use std::fmt::Write;

use crate::measure::Figure;
use crate::vmmap::{Cell, Measured};

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

/// A Markdown table; all columns but the first hold figures.
pub(super) fn markdown(head: &[String], lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "| {} |", head.join(" | "));
    let _ = writeln!(text, "|---|{}", "--:|".repeat(head.len().saturating_sub(1)));
    for line in lines {
        let _ = writeln!(text, "| {} |", line.join(" | "));
    }
    text
}

/// Ours against the best of the others in row `row`.
fn ratio(measured: &Measured, row: usize, pick: fn(&Figure) -> f64) -> Option<f64> {
    let figure = |(_, cells): &(&str, Vec<Cell>)| cells[row].as_ref().ok().map(pick);
    let (ours, others) = measured.peers.split_first()?;
    let best = others.iter().filter_map(figure).min_by(f64::total_cmp)?;
    Some(figure(ours)? / best)
}

/// The table of one size: a line a peer, a column a row.
pub fn of_size(measured: &Measured) -> String {
    let names = measured.rows.iter().map(|row| row.name().to_owned());
    let head: Vec<String> = std::iter::once(String::new()).chain(names).collect();
    let mut lines = Vec::new();
    for (name, cells) in &measured.peers {
        let cells = cells.iter().map(|cell| cell.as_ref().map_or("-".to_owned(), |figure| duration(figure.best)));
        lines.push(std::iter::once((*name).to_owned()).chain(cells).collect());
    }
    for (name, pick) in [
        ("ours / best other", (|figure| figure.best) as fn(&Figure) -> f64),
        ("the same of the medians", |figure| figure.median),
    ] {
        let ratios = (0..measured.rows.len())
            .map(|row| ratio(measured, row, pick).map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
        lines.push(std::iter::once(name.to_owned()).chain(ratios).collect());
    }
    markdown(&head, &lines)
}
