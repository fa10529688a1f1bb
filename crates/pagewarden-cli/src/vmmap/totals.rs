//! Sums by kind.

use pagewarden_linux::smaps::{Kind, Mapping};

use super::text::ROOMY_WIDTH_MIN;
use crate::size::{count, human, human_short};
use crate::style::{self, Column, HEAD, paint};

/// The sum of some regions. A figure is `None` if no region of them has it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Total {
    pub(super) regions: u64,
    pub(super) size: u64,
    pub(super) resident: Option<u64>,
    pub(super) private_dirty: Option<u64>,
    pub(super) swap: Option<u64>,
}

impl Total {
    fn add(mut self, mapping: &Mapping) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (one, other) => one.or(other),
        };
        self.regions += 1;
        self.size = self.size.saturating_add(mapping.size());
        self.resident = sum(self.resident, mapping.figures.resident());
        self.private_dirty = sum(self.private_dirty, mapping.figures.private_dirty);
        self.swap = sum(self.swap, mapping.figures.swap);
        self
    }
}

/// The sum of each kind that occurs, and of all.
pub(super) fn totals(mappings: &[Mapping]) -> (Vec<(Kind, Total)>, Total) {
    let by_kind = Kind::ALL.into_iter().map(|kind| {
        let of_kind = mappings.iter().filter(|mapping| mapping.kind() == kind);
        (kind, of_kind.fold(Total::default(), Total::add))
    });
    let all = mappings.iter().fold(Total::default(), Total::add);
    (by_kind.filter(|(_, total)| total.regions > 0).collect(), all)
}

/// The sums as a table; the last row is the whole.
pub(super) fn table(mappings: &[Mapping], width: Option<usize>) -> String {
    let (by_kind, all) = totals(mappings);
    let size = if width.is_none_or(|width| width >= ROOMY_WIDTH_MIN) { human } else { human_short };
    let mut columns = vec![Column::Left("KIND"), Column::Right("REGIONS"), Column::Right("SIZE")];
    let with_figures = all.resident.is_some();
    if with_figures {
        columns.extend([Column::Right("RESIDENT"), Column::Right("PRIV DIRTY"), Column::Right("SWAP")]);
    }
    let row = |name: &str, total: Total| {
        let mut row = vec![name.to_owned(), count(total.regions), size(total.size)];
        if with_figures {
            let figures = [total.resident, total.private_dirty, total.swap];
            row.extend(figures.map(|figure| figure.map_or_else(|| "-".to_owned(), size)));
        }
        row
    };
    let rows = by_kind.iter().map(|(kind, total)| row(kind.name(), *total));
    let text = style::table(&columns, 0, rows.chain([row("total", all)]));
    match text.trim_end().rsplit_once('\n') {
        Some((above, last)) => format!("{above}\n{}\n", paint(HEAD, last)),
        None => text,
    }
}
