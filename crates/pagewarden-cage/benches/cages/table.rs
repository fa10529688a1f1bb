//! What is printed: a row for each thing that was measured, with what it is compared to and what it is to reach.

/// What a figure is to reach.
pub(crate) enum Goal {
    /// At most so much.
    AtMost(f64),
    /// There is none: the row is there to compare others with.
    None,
}

struct Row {
    what: String,
    figure: f64,
    unit: &'static str,
    compared: String,
    goal: Goal,
}

impl Row {
    fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.figure <= most,
            Goal::None => true,
        }
    }
}

/// All rows.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Adds what was measured, and what it is to be compared with, in words.
    pub(crate) fn add(&mut self, what: impl Into<String>, figure: (f64, &'static str), compared: String, goal: Goal) {
        let (figure, unit) = figure;
        self.0.push(Row { what: what.into(), figure, unit, compared, goal });
    }

    pub(crate) fn is_met(&self) -> bool {
        self.0.iter().all(Row::is_met)
    }

    pub(crate) fn print(&self) {
        println!("| what | figure | compared with | goal |");
        println!("|---|--:|---|---|");
        for row in &self.0 {
            let verdict = if row.is_met() { "met" } else { "**missed**" };
            let goal = match row.goal {
                Goal::AtMost(most) => format!("{most} {}: {verdict}", row.unit),
                Goal::None => "-".to_owned(),
            };
            println!("| {} | {:.2} {} | {} | {goal} |", row.what, row.figure, row.unit, row.compared);
        }
    }
}
