//! Eight threads of a traced guest make memory calls at once, under a commit limit: what they wrote stays, the maps
//! agree after each call, no budget is lost, and nobody hangs.

use std::path::Path;
use std::process::Command;

use pagewarden_linux::{Exit, RunOptions, Verify, run};

const MIB: u64 = 1 << 20;

#[test]
fn many_threads_make_memory_calls_at_once() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stress.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stress-guest");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program).arg(source);
    assert!(gcc.status().is_ok_and(|status| status.success()), "gcc");
    for verify in [Verify::EachCall, Verify::Off] {
        let rounds = if verify == Verify::Off { "120" } else { "40" };
        let mut options = RunOptions { program: program.clone().into(), verify, ..RunOptions::default() };
        options.args = vec![rounds.into()];
        options.commit_limit = Some(8 * MIB);
        let outcome = run(&options, None).expect("the guest runs");
        assert_eq!(outcome.difference, None);
        assert_eq!(outcome.exit, Exit::Code(0), "a guest that hangs is killed by its alarm");
        let report = outcome.report;
        assert!(
            report.calls > 3000 && report.processes.len() > 10,
            "{} calls, {} processes",
            report.calls,
            report.processes.len()
        );
        assert!(report.usage.committed_peak <= 8 * MIB);
    }
}
