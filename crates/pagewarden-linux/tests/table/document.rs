//! The rows of docs/linux.md, and the tests that they may name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cases::{Case, Kind};

/// The heading of the tables whose rows are bound.
const HEADER: &str = "| call | flag or case | result | shown by |";

/// One row.
pub(crate) struct Row {
    what: String,
    kind: Option<Kind>,
    /// Cases and tests.
    pub(crate) shown_by: Vec<String>,
}

impl Row {
    /// Takes a line of a table apart; an empty first cell stands for `call`, that of the row above.
    pub(crate) fn parse(call: &str, line: &str) -> Option<Self> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        let [first, case, result, shown_by] = cells.as_slice() else {
            return Some(Self { what: line.to_owned(), kind: None, shown_by: Vec::new() });
        };
        let call = if first.is_empty() { call } else { first };
        let verdicts = [("same", Kind::Same), ("differs", Kind::Differs), ("refused", Kind::Refused)];
        let kind = verdicts.iter().find(|(word, _)| result.starts_with(word)).map(|(_, kind)| *kind);
        let shown_by = shown_by.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some(Self { what: format!("{call}, {case}"), kind, shown_by })
    }

    /// What is wrong with the row.
    pub(crate) fn complaints(&self, cases: &[Case], tests: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.kind.is_none() {
            wrong.push(format!("{}: neither same, nor differs, nor refused", self.what));
        }
        if self.shown_by.is_empty() {
            wrong.push(format!("{}: no case and no test", self.what));
        }
        for name in &self.shown_by {
            match cases.iter().find(|case| case.name == *name) {
                Some(case) if Some(case.kind()) != self.kind => {
                    wrong.push(format!("{}: case {name} shows {:?}", self.what, case.kind()));
                }
                None if !tests.contains(name) => wrong.push(format!("{}: no case or test {name}", self.what)),
                _ => {}
            }
        }
        wrong
    }
}

/// All rows of the document.
pub(crate) fn rows() -> Vec<Row> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/linux.md")).unwrap();
    let mut rows = Vec::new();
    let mut is_inside = false;
    let mut call = String::new();
    for line in text.lines() {
        if line == HEADER {
            is_inside = true;
        } else if !line.starts_with('|') {
            is_inside = false;
        } else if is_inside && !line.starts_with("|--") {
            let first = line.trim_start_matches('|').split('|').next().unwrap_or("").trim();
            if !first.is_empty() {
                first.clone_into(&mut call);
            }
            rows.extend(Row::parse(&call, line));
        }
    }
    rows
}

/// The names of all test functions below `root`'s crates and tools.
pub(crate) fn tests_in(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root.join("crates"), root.join("xtask/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(tests_of(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    names
}

/// The functions that follow `#[test]` or stand in a `proptest!`.
fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            names.extend(rest.split(['(', '<']).next().map(str::to_owned));
            is_test = false;
        } else if !line.starts_with("#[") {
            is_test = false;
        }
    }
    names
}
