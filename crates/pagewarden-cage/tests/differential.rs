//! Cages and the host kernel answer random programs of memory calls alike.
//!
//! `PAGEWARDEN_SEED`, `PAGEWARDEN_CALLS` and `PAGEWARDEN_DIFFERENCES` set the first seed, how many calls are compared at
//! least, and how many kinds of difference are shrunk before the test gives up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../../pagewarden-linux/tests/common/setting.rs"]
mod setting;

use std::time::Duration;

use pagewarden_linux::oracle::check::{Budget, Verdict};
use pagewarden_linux::oracle::text::parse_programs;
use pagewarden_linux::oracle::{Check, Runner, Side, World, check};
use setting::setting;

/// More than elsewhere: to set up cages takes as long as some hundred calls.
const STEPS: usize = 100;
const DEFAULT_CALLS: u64 = 50_000;

fn runner() -> (tempfile::TempDir, Runner) {
    let directory = tempfile::tempdir().unwrap();
    let guest = vec![env!("CARGO_BIN_EXE_memcalls_in_cages").into()];
    let runner = Runner { guest, directory: directory.path().to_owned(), timeout: Duration::from_secs(300) };
    (directory, runner)
}

fn agree(calls: u64, sides: [Side; 2]) {
    let (_directory, runner) = runner();
    let seed = setting("PAGEWARDEN_SEED", 1);
    let calls = setting("PAGEWARDEN_CALLS", calls);
    let most = usize::try_from(setting("PAGEWARDEN_DIFFERENCES", 1)).unwrap();
    let check = Check { seed, budget: Budget::Calls(calls), steps: STEPS, world: World::Narrow, most };
    let compare = |programs: &[_]| runner.differences(sides, programs);
    let outcomes = check::run(&check, &compare, &mut |_| Verdict::GoOn).unwrap();
    println!("from seed {seed} on: {outcomes}");
    assert!(outcomes.findings.is_empty(), "{} kinds of difference", outcomes.findings.len());
    assert!(outcomes.calls >= calls);
}

#[test]
fn the_host_beside_cages_answers_the_same_twice() {
    agree(DEFAULT_CALLS / 10, [Side::BesideCages; 2]);
}

/// Programs on which cages once differed, shrunk.
const ONCE_DIFFERED: &str = "\
mmap w+0x0 0x1000 0x4 0x2 rw 0x0
load w+0x0 0x1000
end
brk b+0x2000
limit 0x2 0x0
brk b-0x1000
end
madvise w+0x0 0x0 0x64
end
";

#[test]
fn what_once_differed_is_the_same_now() {
    let (_directory, runner) = runner();
    let programs = parse_programs(ONCE_DIFFERED).unwrap();
    let differences = runner.differences([Side::BesideCages, Side::Cages], &programs).unwrap();
    assert!(differences.is_empty(), "{}", differences[0].1);
}

#[test]
fn cages_answer_like_the_host() {
    agree(DEFAULT_CALLS, [Side::BesideCages, Side::Cages]);
}
