//! Cases: their files, and what each expects.

use std::fs;
use std::path::Path;

use pagewarden_linux::oracle::text::parse_step;
use pagewarden_linux::oracle::{Call, Program, Step, Transcript};

/// What a case shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The two sides are the same in everything.
    Same,
    /// pagewarden answers an error where the host does something else.
    Refused,
    /// The sides differ otherwise.
    Differs,
}

/// What a step must answer on each side; nothing where anything will do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) native: Option<String>,
    pub(crate) ours: Option<String>,
}

/// A program with the answers that it must get.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) program: Program,
    /// For each step of the program but the last, which records the state.
    pub(crate) expected: Vec<Expected>,
}

impl Case {
    pub(crate) fn kind(&self) -> Kind {
        let differing = self.expected.iter().filter(|expected| expected.native != expected.ours);
        let mut kind = Kind::Same;
        for expected in differing {
            let is_error = expected.ours.as_ref().is_some_and(|answer| answer.starts_with('!'));
            kind = if is_error && kind != Kind::Differs { Kind::Refused } else { Kind::Differs };
        }
        kind
    }
}

/// The answer of step `index`, as it was printed.
pub(crate) fn answer(transcript: &Transcript, index: usize) -> Option<&str> {
    transcript.lines.iter().find_map(|line| line.strip_prefix(&format!("{index} ")))
}

/// The cases of all files.
pub(crate) fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/table/cases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|file| parse(&fs::read_to_string(file).unwrap())).collect()
}

/// The cases of one file.
pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("case ") {
            assert!(cases.iter().all(|case| case.name != name), "two cases are named {name}");
            cases.push(Case { name: name.to_owned(), program: Program::default(), expected: Vec::new() });
            continue;
        }
        let case = cases.last_mut().expect("a step before the first case");
        let (step, answers) = line.split_once(" -> ").unwrap_or_else(|| panic!("{}: {line}: no answer", case.name));
        case.program.steps.push(parse_step(step).unwrap_or_else(|error| panic!("{}: {line}: {error}", case.name)));
        case.expected.push(expected(answers));
    }
    for case in &mut cases {
        case.program.steps.push(Step::new(Call::State, &[]));
    }
    cases
}

fn expected(answers: &str) -> Expected {
    let (native, ours) = answers.split_once(" | ").unwrap_or((answers, answers));
    let one = |text: &str| (text.trim() != "*").then(|| text.trim().to_owned());
    Expected { native: one(native), ours: one(ours) }
}
