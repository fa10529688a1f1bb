//! The tables of the pager's parts, of capabilities and of foreign memory: a line a row, a column for everybody who takes
//! part, and ratios.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::table::{markdown, ratio};
use super::{Environment, Goal, duration};
use crate::capabilities::{handles, objects};
use crate::measure::Figure;
use crate::pager::contest::{Contestant, Outcome, Pace, hold};
use crate::pager::frames::Row as FrameRow;
use crate::pager::spaces::{self, FaultRow, ForkRow};
use crate::pager::tables::Row as TableRow;
use crate::pager::{frames, tables};
use crate::phys::{accesses, reservations, windows};

/// A pair takes at most so many nanoseconds.
const PAIR: f64 = 15.0;
/// A fork of much takes at most so many times one of little.
const FORK: f64 = 2.0;

/// What is compared in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Frames: the first columns are pagewarden's, the first of all the one that stands against the peers.
    Frames,
    /// Page tables: the first column is pagewarden's.
    Tables,
    /// Faults: the second column is what a fault cannot do without.
    Faults,
    /// Forks: the last column is the largest, the first the smallest.
    Forks,
    /// Charges and handles: all columns are pagewarden's.
    Handles,
    /// Objects in spaces: the first column is pagewarden's.
    Objects,
    /// Accesses to foreign memory: the first columns are pagewarden's, and the first of all stands against the peers.
    Accesses,
    /// Windows that come and go: the first column is pagewarden's.
    Windows,
    /// Reservations: the first column is pagewarden's.
    Reservations,
}

/// What was measured of one part.
pub struct Table {
    kind: Kind,
    /// Who took part.
    names: Vec<&'static str>,
    /// What came of each row.
    pub rows: Vec<Outcome>,
}

/// Measures the rows of a part that are wanted.
pub type Part = fn(&dyn Fn(&str) -> bool, Pace) -> Result<Table>;

/// Frames, page tables, faults, forks.
pub const PARTS: [Part; 4] = [
    |wanted, pace| {
        let rows = FrameRow::ALL.map(|row| (row, row.name(), row.operations()));
        measure(Kind::Frames, &rows, (wanted, pace), frames::all)
    },
    |wanted, pace| {
        let rows: Vec<_> = TableRow::all().map(|row| (row, row.name(), row.operations())).collect();
        measure(Kind::Tables, &rows, (wanted, pace), tables::all)
    },
    |wanted, pace| {
        let rows = FaultRow::ALL.map(|row| (row, row.name().to_owned(), row.operations()));
        measure(Kind::Faults, &rows, (wanted, pace), spaces::faults)
    },
    |wanted, pace| {
        let rows = ForkRow::ALL.map(|row| (row, row.name().to_owned(), 1));
        measure(Kind::Forks, &rows, (wanted, pace), || spaces::forks(&spaces::SIZES))
    },
];

/// Charges and handles, objects in spaces.
pub const CAPABILITIES: [Part; 2] = [
    |wanted, pace| {
        let rows = handles::Row::ALL.map(|row| (row, row.name().to_owned(), row.operations()));
        measure(Kind::Handles, &rows, (wanted, pace), handles::all)
    },
    |wanted, pace| {
        let rows = objects::Row::ALL.map(|row| (row, row.name().to_owned(), row.operations()));
        measure(Kind::Objects, &rows, (wanted, pace), objects::all)
    },
];

/// Accesses to foreign memory, windows, reservations.
pub const PHYS: [Part; 3] = [
    |wanted, pace| {
        let rows = accesses::Row::ALL.map(|row| (row, row.name(), row.operations()));
        measure(Kind::Accesses, &rows, (wanted, pace), accesses::all)
    },
    |wanted, pace| {
        let rows = windows::Row::ALL.map(|row| (row, row.name().to_owned(), row.operations()));
        measure(Kind::Windows, &rows, (wanted, pace), windows::all)
    },
    |wanted, pace| {
        let rows = reservations::Row::ALL.map(|row| (row, row.name(), row.operations()));
        measure(Kind::Reservations, &rows, (wanted, pace), reservations::all)
    },
];

fn measure<R: Copy>(
    kind: Kind,
    rows: &[(R, String, usize)],
    (wanted, pace): (&dyn Fn(&str) -> bool, Pace),
    all: impl FnOnce() -> Result<Vec<Box<dyn Contestant<R>>>>,
) -> Result<Table> {
    let rows: Vec<_> = rows.iter().filter(|(_, name, _)| wanted(name)).collect();
    if rows.is_empty() {
        return Ok(Table { kind, names: Vec::new(), rows: Vec::new() });
    }
    let mut all = all()?;
    let names = all.iter().map(|one| one.name()).collect();
    let outcome = |(row, name, operations): &&(R, String, usize)| hold(&mut all, (*row, name), *operations, pace);
    Ok(Table { kind, names, rows: rows.iter().map(outcome).collect::<Result<_>>()? })
}

impl Table {
    /// How many columns are pagewarden's.
    const fn ours(&self) -> usize {
        match self.kind {
            Kind::Frames => frames::OURS,
            Kind::Accesses => accesses::OURS,
            Kind::Tables | Kind::Faults | Kind::Handles | Kind::Objects | Kind::Windows | Kind::Reservations => 1,
            Kind::Forks => 0,
        }
    }

    /// What ratios are of which columns.
    fn ratio_names(&self) -> Vec<String> {
        let names = match self.kind {
            Kind::Frames => ["magazine / best peer", "medians", "by number / best peer", "alone / best peer"].to_vec(),
            Kind::Tables => ["ours / best peer", "medians"].to_vec(),
            Kind::Faults => ["fault / memory", "medians"].to_vec(),
            Kind::Forks => ["largest / smallest", "medians"].to_vec(),
            Kind::Handles => Vec::new(),
            Kind::Objects | Kind::Windows => ["ours / host", "medians"].to_vec(),
            Kind::Accesses => ["pointer / best peer", "medians", "adapter / best peer"].to_vec(),
            Kind::Reservations => ["ours / map", "medians"].to_vec(),
        };
        names.into_iter().map(str::to_owned).collect()
    }

    /// Those of a row.
    fn ratios(&self, row: &Outcome) -> Vec<String> {
        if self.kind == Kind::Handles {
            return Vec::new();
        }
        let of = |column: usize, pick: fn(&Figure) -> f64| {
            let figures = row.figures(pick);
            if self.kind == Kind::Forks {
                return ratio(&[figures[figures.len() - 1], figures[0]]);
            }
            let peers = &figures[self.ours()..];
            ratio(&[&[figures[column]], peers].concat())
        };
        let best = |column| of(column, |figure| figure.best);
        let mut all = vec![best(0), of(0, |figure| figure.median)];
        all.extend((1..self.ours()).map(best));
        all
    }

    /// The table, and who left out what, and what must be known to read it.
    pub fn text(&self) -> String {
        let mut head = vec![self.title().to_owned()];
        head.extend(self.names.iter().map(|name| (*name).to_owned()));
        head.extend(self.ratio_names());
        let mut lines = vec![head];
        for row in &self.rows {
            let mut line = vec![row.row.clone()];
            line.extend(row.figures(|figure| figure.best).iter().map(|best| best.map_or("-".to_owned(), duration)));
            line.extend(self.ratios(row));
            lines.push(line);
        }
        let mut text = markdown(&lines) + "\n";
        for row in &self.rows {
            for (name, cell) in self.names.iter().zip(&row.cells) {
                if let Err(reason) = cell {
                    let _ = writeln!(text, "- {name} does not {}: {reason}.", row.row);
                }
            }
        }
        text + self.notes()
    }

    const fn title(&self) -> &'static str {
        match self.kind {
            Kind::Frames => "frames, of 1 GiB",
            Kind::Tables => "page tables",
            Kind::Faults => "faults",
            Kind::Forks => "touched private memory",
            Kind::Handles => "charges and handles",
            Kind::Objects => "an object of 1 MiB",
            Kind::Accesses => "accesses, through a window that stays",
            Kind::Windows => "windows that come and go",
            Kind::Reservations => "reservations of a page",
        }
    }

    const fn notes(&self) -> &'static str {
        match self.kind {
            Kind::Frames => {
                "- Pagewarden's first two columns know of each frame who pays for it, by number also for what it is used and by how \
                 many; peers know whether it is free.\n"
            }
            Kind::Tables => {
                "- Nobody flushes: the tokens that callers get for pages are ignored, the flushes that pagewarden asks for \
                 after ranges are counted.\n\
                 - Pagewarden counts the entries of tables and frees tables that become empty. x86_64 counts nothing and frees \
                 tables on request, page_table_multiarch all at once at the end; neither is timed.\n\
                 - Pages are mapped as dirty (page_table_multiarch knows no such bit). While a page is clean a processor may be setting \
                 that bit: pagewarden keeps it by a compare-and-exchange, peers lose it.\n\
                 - 1 GiB: pagewarden and page_table_multiarch are given the range, x86_64 page after page.\n"
            }
            Kind::Faults => "- Without what a processor takes to raise a fault and to come back.\n",
            Kind::Forks => {
                "- Every page has a frame of its own, charged and counted, and tables are real; the zeros in the pages are \
                 not.\n- A parent has stored to memory of every GiB since the last fork.\n"
            }
            Kind::Handles => {
                "- Charges are of 3 pages; a process, its group and the root each have a limit. A charge that keeps the account may \
                 outlive it.\n\
                 - The table has 256 handles, looked up in random order; a number is loaded from each object.\n"
            }
            Kind::Objects => {
                "- The object's pages are there before. Pagewarden's touch is without what a processor takes to raise a fault and \
                 to come back.\n"
            }
            Kind::Accesses => {
                "- Pagewarden's accesses survive that the memfd is cut meanwhile, by a pointer or by the adapter for vm-memory; \
                 memcpy and vm-memory end in SIGBUS.\n\
                 - The other end of an access is one buffer, which is in the caches and begins 16 bytes into a page.\n\
                 - Copies from place to place go through memory of pagewarden's own; those of the peers do not.\n"
            }
            Kind::Windows => {
                "- Without a window that stays, each access makes one, which is a mmap, a fault and another mmap of the host; the \
                 host's own way is pread and pwrite.\n\
                 - 16 scattered pages: against 16 mmap and 16 munmap.\n"
            }
            Kind::Reservations => {
                "- Exclusive and mixed ones come and go between those that live, shared ones where others live. The map is a BTreeMap in \
                 a lock of std, which has a key put in and taken out and compares no ranges.\n\
                 - 16 later: each is released when sixteen more were taken. Otherwise it is the last one that was taken.\n"
            }
        }
    }

    /// What was aimed for, and whether it is reached.
    pub fn goals(&self) -> Vec<Goal> {
        match self.kind {
            Kind::Faults | Kind::Windows => Vec::new(),
            Kind::Accesses => self.access_goals(),
            Kind::Reservations => {
                reservations::Row::ALL.into_iter().filter_map(|row| self.limit_goal(&row.name(), row.goal()?)).collect()
            }
            Kind::Handles => {
                handles::Row::ALL.into_iter().filter_map(|row| self.limit_goal(row.name(), row.goal()?)).collect()
            }
            Kind::Objects => self.rows.iter().filter_map(|row| self.peer_goal(row)).collect(),
            Kind::Forks => {
                let forks = self.rows.iter().filter(|row| row.row.starts_with("fork"));
                forks.filter_map(|row| self.fork_goal(row)).collect()
            }
            Kind::Frames | Kind::Tables => {
                let pair = self.limit_goal(&FrameRow::Pair.name(), PAIR);
                pair.into_iter().chain(self.rows.iter().filter_map(|row| self.peer_goal(row))).collect()
            }
        }
    }

    /// A goal of at most so many nanoseconds, if the row was measured.
    fn limit_goal(&self, name: &str, most: f64) -> Option<Goal> {
        let row = self.rows.iter().find(|row| row.row == name)?;
        let best = row.figures(|figure| figure.best)[0]?;
        let (goal, figure) = (format!("{name}: at most {most} ns"), duration(best));
        Some(Goal { goal, figure, reached: best <= most })
    }

    fn access_goals(&self) -> Vec<Goal> {
        let all = accesses::Row::ALL.into_iter();
        let word = all.clone().filter(|row| row.is_word_read());
        let word = word.filter_map(|row| self.limit_goal(&row.name(), accesses::WORD_READ));
        let long = all.filter(|row| row.is_long()).filter_map(|row| self.memcpy_goal(&row.name()));
        word.chain(long).collect()
    }

    /// A goal of at most so many times what `memcpy` takes, if the row was measured.
    fn memcpy_goal(&self, name: &str) -> Option<Goal> {
        let (most, peer) = (accesses::LONG, accesses::MEMCPY);
        let figures = self.rows.iter().find(|row| row.row == name)?.figures(|figure| figure.best);
        let ours = figures[0]?;
        let peer_figure = figures[self.names.iter().position(|name| *name == peer)?]?;
        let ratio = ours / peer_figure;
        Some(Goal {
            goal: format!("{name}: at most {most} x {peer}"),
            figure: format!("{ratio:.2} x ({} against {})", duration(ours), duration(peer_figure)),
            reached: ratio <= most,
        })
    }

    fn fork_goal(&self, row: &Outcome) -> Option<Goal> {
        let figures = row.figures(|figure| figure.best);
        let ((first, smallest), (last, largest)) =
            (self.names.first().zip(*figures.first()?)?, self.names.last().zip(*figures.last()?)?);
        let ratio = largest / smallest;
        Some(Goal {
            goal: format!("{} of {last}: at most {FORK} x that of {first}", row.row),
            figure: format!("{ratio:.2} x ({} against {})", duration(largest), duration(smallest)),
            reached: ratio <= FORK,
        })
    }

    fn peer_goal(&self, row: &Outcome) -> Option<Goal> {
        let figures = row.figures(|figure| figure.best);
        let ours = figures[0]?;
        let peers = self.names.iter().zip(&figures).skip(self.ours());
        let peers = peers.filter_map(|(name, figure)| Some((name, (*figure)?)));
        let (peer, best) = peers.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        Some(Goal {
            goal: format!("{}: not slower than the best peer", row.row),
            figure: format!("{:.2} x ({} against {} of {peer})", ours / best, duration(ours), duration(best)),
            reached: ours <= best,
        })
    }
}

/// All of a measurement.
pub fn json(environment: &Environment, tables: &[Table], goals: &[Goal]) -> Value {
    let row = |table: &Table, row: &Outcome| {
        let cells = table.names.iter().zip(&row.cells).map(|(name, cell)| match cell {
            Ok(figure) => json!({"who": name, "best_ns": figure.best, "median_ns": figure.median}),
            Err(reason) => json!({"who": name, "left_out": reason}),
        });
        json!({"row": row.row, "figures": cells.collect::<Vec<_>>()})
    };
    let table = |table: &Table| {
        let rows = table.rows.iter().map(|one| row(table, one)).collect::<Vec<_>>();
        json!({"part": table.title(), "rows": rows})
    };
    json!({"environment": environment, "parts": tables.iter().map(table).collect::<Vec<_>>(), "goals": goals})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(row: &str, figures: &[f64]) -> Outcome {
        let cells = figures.iter().map(|&best| match best {
            0.0 => Err("it cannot"),
            best => Ok(Figure { best, median: 2.0 * best }),
        });
        Outcome { row: row.to_owned(), cells: cells.collect() }
    }

    fn verdicts(table: &Table) -> Vec<bool> {
        table.goals().iter().map(|goal| goal.reached).collect()
    }

    #[test]
    fn the_first_column_stands_against_the_best_peer() {
        let table = |ours: f64| Table {
            kind: Kind::Tables,
            names: vec!["ours", "a", "b"],
            rows: vec![outcome("map", &[ours, 20.0, 10.0]), outcome("query", &[5.0, 0.0, 6.0])],
        };
        assert_eq!([verdicts(&table(10.0)), verdicts(&table(10.1))], [[true, true], [false, true]]);
        let text = table(15.0).text();
        let cells = text.lines().nth(2).unwrap().split('|').map(str::trim).collect::<Vec<_>>();
        assert_eq!(cells, ["", "map", "15 ns", "20 ns", "10 ns", "1.50", "1.50", ""]);
        assert!(text.contains("- a does not query: it cannot.\n"), "{text}");
    }

    #[test]
    fn a_pair_has_a_limit_too() {
        let table = |pair| Table {
            kind: Kind::Frames,
            names: vec!["a magazine", "by number", "alone", "a", "b"],
            rows: vec![outcome(&FrameRow::Pair.name(), &[pair, 40.0, 30.0, 20.0, 0.0])],
        };
        assert_eq!(
            [15.0, 16.0, 21.0].map(|pair| verdicts(&table(pair))),
            [[true, true], [false, true], [false, false]]
        );
        let text = table(10.0).text();
        let ratios = text.lines().nth(2).unwrap().split('|').map(str::trim).skip(7).collect::<Vec<_>>();
        assert_eq!(ratios, ["0.50", "0.50", "2.00", "1.50", ""]);
    }

    #[test]
    fn some_rows_of_handles_have_limits() {
        let rows =
            |charge| vec![outcome("charge and release, three deep", &[charge]), outcome("handle look-up", &[10.0])];
        let table = |charge| Table { kind: Kind::Handles, names: vec!["ours"], rows: rows(charge) };
        assert_eq!([30.0, 30.1].map(|charge| verdicts(&table(charge))), [[true, true], [false, true]]);
        assert!(
            table(30.0).text().starts_with("| charges and handles            |  ours |\n"),
            "{}",
            table(30.0).text()
        );
    }

    #[test]
    fn accesses_are_compared_with_memcpy_and_reservations_with_a_limit() {
        let table = |ours: f64| Table {
            kind: Kind::Accesses,
            names: vec!["ours", "adapter", "memcpy", "other"],
            rows: vec![
                outcome("read 8 bytes", &[ours, 50.0, 1.0, 1.0]),
                outcome("write 8 bytes", &[90.0, 50.0, 1.0, 1.0]),
                outcome("write 4 KiB", &[ours, 90.0, 25.0, 1.0]),
            ],
        };
        assert_eq!([30.0, 30.1].map(|ours| verdicts(&table(ours))), [[true, true], [false, false]]);
        let text = table(50.0).text();
        let cells = text.lines().nth(2).unwrap().split('|').map(str::trim).skip(6).collect::<Vec<_>>();
        assert_eq!(cells, ["50.00", "50.00", "50.00", ""]);
        let table = |ours: f64| Table {
            kind: Kind::Reservations,
            names: vec!["ours", "map"],
            rows: reservations::Row::ALL.map(|row| outcome(&row.name(), &[ours, 1.0])).into(),
        };
        assert_eq!([100.0, 101.0].map(|ours| verdicts(&table(ours))), [[true; 3], [false; 3]]);
    }

    #[test]
    fn forks_are_compared_with_each_other() {
        let table = |largest| Table {
            kind: Kind::Forks,
            names: vec!["small", "middle", "large"],
            rows: vec![outcome("fork", &[10.0, 90.0, largest]), outcome("first store", &[10.0, 10.0, 90.0])],
        };
        assert_eq!([20.0, 20.1].map(|largest| verdicts(&table(largest))), [[true], [false]]);
    }
}
