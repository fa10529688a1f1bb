//! The table of docs/linux.md, row by row: each is bound to a case or a test that shows what it says.
//!
//! A case is a short program of memory calls with the answers that it must get. It runs on the host kernel and
//! under pagewarden. `-> ANSWER` after a step holds for both; `-> NATIVE | OURS` says where they differ. A case
//! without any `|` must also leave the same regions and contents on both sides.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod cases;
mod document;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cases::{Case, Kind};
use pagewarden_linux::oracle::{Program, Runner, Side, Transcript};

/// What the cases print on each of `sides`. The files that they map lie in the same place for all.
fn run<const N: usize>(sides: [Side; N], cases: &[Case]) -> [Vec<Transcript>; N] {
    let directory = tempfile::tempdir().unwrap();
    let guest = vec![env!("CARGO_BIN_EXE_memcalls").into()];
    let runner = Runner { guest, directory: directory.path().to_owned(), timeout: Duration::from_secs(120) };
    let programs: Vec<Program> = cases.iter().map(|case| case.program.clone()).collect();
    sides.map(|side| runner.run(side, &programs).unwrap())
}

/// What is wrong with a case, a line for each step.
fn complaints(case: &Case, native: &Transcript, ours: &Transcript) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, expected) in case.expected.iter().enumerate() {
        for (side, transcript, answer) in [("the host", native, &expected.native), ("pagewarden", ours, &expected.ours)]
        {
            let found = cases::answer(transcript, index).unwrap_or("nothing");
            if let Some(answer) = answer
                && found != answer
            {
                wrong.push(format!("{} step {index}: {side} answers {found}, expected {answer}", case.name));
            }
        }
    }
    if case.kind() == Kind::Same && native != ours {
        wrong.push(format!("{}: the two sides differ\n{native:#?}\n{ours:#?}", case.name));
    }
    wrong
}

#[test]
fn cases_are_answered_as_they_say() {
    let cases = cases::all();
    let [native, ours] = run([Side::Native, Side::Traced], &cases);
    let wrong: Vec<String> = cases
        .iter()
        .zip(native.iter().zip(&ours))
        .flat_map(|(case, (native, ours))| complaints(case, native, ours))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_answer_is_noticed() {
    let mut cases = vec![cases::parse("case x\nmmap w+0x1001 0x1000 0x3 0x32 none 0x0 -> ! EINVAL\n").remove(0)];
    let [native] = run([Side::Native], &cases);
    assert_eq!(complaints(&cases[0], &native[0], &native[0]), Vec::<String>::new());
    cases[0].expected[0].ours = Some("! ENOMEM".into());
    assert_eq!(complaints(&cases[0], &native[0], &native[0]).len(), 1);
}

#[test]
fn every_row_is_bound_to_a_case_or_a_test() {
    let cases = cases::all();
    let tests = document::tests_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").as_path());
    let rows = document::rows();
    let wrong: Vec<String> = rows.iter().flat_map(|row| row.complaints(&cases, &tests)).collect();
    assert!(wrong.is_empty(), "docs/linux.md:\n{}", wrong.join("\n"));
    assert!(rows.len() >= 60, "only {} rows found", rows.len());
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| row.shown_by.iter().map(String::as_str)).collect();
    let orphans: Vec<&str> = cases.iter().map(|case| case.name.as_str()).filter(|name| !named.contains(name)).collect();
    assert!(orphans.is_empty(), "cases that no row of docs/linux.md names: {orphans:?}");
}

#[test]
fn a_row_without_a_test_is_noticed() {
    let cases = cases::parse("case good\nread w+0x0 -> *\n\ncase other\nread w+0x0 -> = 0x0 | ! EPERM\n");
    let tests = BTreeSet::from(["real_test".to_owned()]);
    let complaints = |line: &str| document::Row::parse("mmap", line).unwrap().complaints(&cases, &tests).len();
    assert_eq!(complaints("| | a flag | same | `good` |"), 0);
    assert_eq!(complaints("| | a flag | refused (`EPERM`) | `other`, `real_test` |"), 0);
    assert_eq!(complaints("| | a flag | same | |"), 1, "no test");
    assert_eq!(complaints("| | a flag | same | `missing` |"), 1, "a test that is not there");
    assert_eq!(complaints("| | a flag | same | `other` |"), 1, "a case that shows a refusal");
    assert_eq!(complaints("| | a flag | differs: so | `good` |"), 1, "a case that shows no difference");
    assert_eq!(complaints("| | a flag | perhaps | `real_test` |"), 1, "no verdict");
}
