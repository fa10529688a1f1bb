//! Programs in cages, run by the built command.
#![cfg(feature = "cage")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Writes what argument 1 names, a file of the directory /data, to standard output, and ends with its length.
const CAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "pagewarden" "sbrk" (func $sbrk (param i32) (result i32)))
  (memory 2)
  (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
  (func (export "_start") (local $fresh i32)
    ;; What is read into was never touched.
    (local.set $fresh (call $sbrk (i32.const 65536)))
    (call $check (call $args_get (i32.const 0x2000) (i32.const 0x3000)))
    (call $check (call $path_open (i32.const 3) (i32.const 0) (i32.load (i32.const 0x2004)) (i32.const 4) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0x2100)))
    (i32.store (i32.const 0x2200) (local.get $fresh))
    (i32.store (i32.const 0x2204) (i32.const 1000))
    (call $check (call $fd_read (i32.load (i32.const 0x2100)) (i32.const 0x2200) (i32.const 1) (i32.const 0x2204)))
    (call $check (call $fd_write (i32.const 1) (i32.const 0x2200) (i32.const 1) (i32.const 0x2300)))
    (call $exit (i32.load (i32.const 0x2204)))))"#;

/// Ends with a status.
const EXIT: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory 1)
  (func (export "_start") (call $exit (i32.const STATUS))))"#;

/// Stores to a page that can only be read.
const POKE: &str = r#"(module
  (import "pagewarden" "mmap" (func $mmap (param i32 i32 i32 i32 i32 i64) (result i32)))
  (memory 1)
  (func $poke (param i32) (i32.store offset=16 (local.get 0) (i32.const 1)))
  (func $main (export "_start")
    (call $poke (call $mmap (i32.const 0x40000000) (i32.const 4096) (i32.const 1) (i32.const 0x22) (i32.const -1)
      (i64.const 0)))))"#;

/// Maps 48 MiB, and a page more that it stores to; a child maps 64 MiB besides and divides by zero.
const FAMILY: &str = r#"(module
  (import "pagewarden" "mmap" (func $mmap (param i32 i32 i32 i32 i32 i64) (result i32)))
  (import "pagewarden" "clone" (func $clone (param i32 i32) (result i32)))
  (import "pagewarden" "wait" (func $wait (param i32) (result i32)))
  (memory 1)
  (table funcref (elem $child))
  (func $map (param $bytes i32) (result i32)
    (call $mmap (i32.const 0) (local.get $bytes) (i32.const 3) (i32.const 0x22) (i32.const -1) (i64.const 0)))
  (func $child (param i32) (result i32)
    (drop (call $map (i32.const 0x4000000)))
    (i32.div_u (i32.const 1) (i32.const 0)))
  (func (export "_start")
    (drop (call $map (i32.const 0x3000000)))
    (i32.store (call $map (i32.const 65536)) (i32.const 5))
    (drop (call $clone (i32.const 0) (i32.const 0)))
    (drop (call $wait (i32.const 0)))))"#;

fn program(text: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("prog.wat"), text).unwrap();
    (dir, "prog.wat".to_owned())
}

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewarden"));
    for variable in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(variable);
    }
    command.args(["cage", "run"]).args(words).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_program_reads_the_files_of_its_directories_and_writes_to_standard_output() {
    let (dir, name) = program(CAT);
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/file"), "as it is\n").unwrap();
    let ended = run(dir.path(), &["--dir", "data::/data", "--", &name, "file", "--report"]);
    assert_eq!((ended.status.code(), stdout(&ended), stderr(&ended)), (Some(9), "as it is\n", ""));
    // ENOENT and EBADF of WASI.
    assert_eq!(run(dir.path(), &["--dir", "data", &name, "none"]).status.code(), Some(44));
    assert_eq!(run(dir.path(), &[&name, "file"]).status.code(), Some(8));
}

#[test]
fn a_run_ends_with_the_status_of_its_program() {
    for (status, told) in [("0", 0), ("7", 7), ("125", 125), ("200", 200), ("255", 255), ("256", 0), ("-1", 255)] {
        let (dir, name) = program(&EXIT.replace("STATUS", status));
        let ended = run(dir.path(), &[&name]);
        assert_eq!((ended.status.code(), stderr(&ended)), (Some(told), ""), "{status}");
    }
}

#[test]
fn a_module_runs_as_its_text_does() {
    let (dir, _) = program("");
    // (module (memory 1) (func (export "_start")))
    let bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    fs::write(dir.path().join("prog.wasm"), bytes).unwrap();
    let ended = run(dir.path(), &["prog.wasm"]);
    assert_eq!((ended.status.code(), stderr(&ended)), (Some(0), ""));
}

#[test]
fn a_stopped_program_is_told_with_its_address_region_functions_and_map() {
    let (dir, name) = program(POKE);
    let ended = run(dir.path(), &[&name]);
    assert_eq!((ended.status.code(), stdout(&ended)), (Some(139), ""));
    let text = stderr(&ended);
    let first = "pagewarden: process 1 ended by SIGSEGV: the mapping does not allow it: store at 0x40000010 in \
                 40000000-40001000 r--p ";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("\n   0: poke\n   1: main\n"), "{text}");
    assert!(text.contains("\n1: prog.wat, the manager's map at its end\n"), "{text}");
    assert!(text.contains("\n40000000-40001000  "), "{text}");
    let (dir, name) = program("(module (memory 1) (func (export \"_start\") (drop (i32.load (i32.const 8)))))");
    let ended = run(dir.path(), &[&name]);
    assert_eq!(ended.status.code(), Some(139));
    let first = "pagewarden: process 1 ended by SIGSEGV: nothing is mapped: load at 0x00000008\n";
    assert!(stderr(&ended).starts_with(first), "{}", stderr(&ended));
    let (dir, name) = program("(module (memory 1) (func $f (export \"_start\") (call $f)))");
    assert_eq!(run(dir.path(), &["--stack-size", "128K", &name]).status.code(), Some(139));
    let (dir, name) = program("(module (memory 1) (func (export \"_start\") unreachable))");
    assert_eq!(run(dir.path(), &[&name]).status.code(), Some(132));
}

/// The text without what is not the same twice.
fn without_times(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let Some(end) = line.strip_prefix("pagewarden report:").and_then(|rest| rest.rfind(", ")) {
            line.truncate("pagewarden report:".len() + end);
        }
        if let (Some(start), Some(end)) = (line.find(" memory calls, "), line.find(" a second")) {
            line.replace_range(start + " memory calls, ".len()..end, "N");
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[test]
fn a_report_has_all_processes_and_what_they_were_refused() {
    let (dir, name) = program(FAMILY);
    let ended = run(dir.path(), &["--commit-limit", "128M", "--report", &name]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let text = stderr(&ended);
    assert!(text.starts_with("pagewarden: process 2 ended by SIGFPE: arithmetic fault\n"), "{text}");
    let report = text.find("pagewarden report:").unwrap();
    assert_eq!(without_times(&text[report..]), include_str!("golden/cage_report_100.txt"));
}

#[test]
fn a_report_as_json_has_the_same_fields_as_that_of_a_run() {
    let (dir, name) = program(FAMILY);
    let ended = run(dir.path(), &["--report-json", "report.json", "--vmmap-at-exit", &name]);
    assert_eq!(ended.status.code(), Some(0));
    for pid in ["1", "2"] {
        assert!(stderr(&ended).contains(&format!("{pid}: prog.wat, the manager's map at its end\n")));
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["processes_peak"], 2);
    assert_eq!(report["calls"], 3);
    let [first, child] = report["processes"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!([&first["pid"], &first["parent"], &child["pid"], &child["parent"]], [1, 0, 2, 1]);
    assert_eq!([&first["exit"]["code"], &child["exit"]["signal"]], [0, 8]);
    assert_eq!(child["calls"]["mmap"], 1);
    assert!(first["usage"]["committed_peak"].as_u64().unwrap() >= 48 << 20);
    assert!(first["resident_peak"].as_u64().unwrap() < 1 << 20);
    assert!(first["map_at_exit"].as_str().unwrap().starts_with("00001000-"));
    let ended = run(dir.path(), &["--report-json", "-", &name]);
    assert!(stderr(&ended).starts_with("{\n  \"usage\": {"), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("\"map_at_exit\": null"));
}

#[test]
fn limits_of_a_process_and_of_their_number_hold() {
    let (dir, name) = program(FAMILY);
    let refused = |option: &str, value: &str| {
        run(dir.path(), &[option, value, "--report-json", "report.json", &name]);
        let report = fs::read_to_string(dir.path().join("report.json")).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let processes = report["processes"].as_array().unwrap();
        (processes.len(), processes.iter().filter(|process| process["refused"] != serde_json::json!([])).count())
    };
    assert_eq!(refused("--commit-limit", "1G"), (2, 0));
    assert_eq!(refused("--process-commit-limit", "64M"), (2, 1));
    assert_eq!(refused("--reserve-limit", "120M"), (2, 1));
    assert_eq!(refused("--processes-limit", "1"), (1, 0));
    assert_eq!(refused("--fork-charge", "none"), (2, 0));
}

#[test]
fn what_cannot_be_run_has_the_statuses_of_env() {
    let (dir, name) = program("(module (memory 1))");
    let missing = run(dir.path(), &["none.wasm"]);
    assert_eq!((missing.status.code(), stderr(&missing)), (Some(127), "pagewarden: none.wasm: not found\n"));
    let no_start = run(dir.path(), &[&name]);
    assert_eq!(no_start.status.code(), Some(126));
    assert_eq!(stderr(&no_start), "pagewarden: prog.wat: cannot be run: the program exports no function \"_start\"\n");
    for text in ["", "\0asm", "(module", "(module)", "(module (import \"env\" \"f\" (func)) (memory 1))"] {
        let (dir, name) = program(text);
        let ended = run(dir.path(), &[&name]);
        assert_eq!((ended.status.code(), stdout(&ended)), (Some(126), ""), "{text}");
        assert!(stderr(&ended).starts_with("pagewarden: prog.wat: cannot be run: "), "{}", stderr(&ended));
    }
}

#[test]
fn wrong_calls_and_bad_paths_are_found_before_the_program_starts() {
    let (dir, name) = program(&EXIT.replace("STATUS", "0"));
    for words in [
        &["--bogus", &name][..],
        &["--env", "X", &name],
        &["--commit-limit", "0", &name],
        &["--stack-size", "1", &name],
        &["--dir", "none", &name],
        &["--report-json", "none/file", &name],
        &[],
    ] {
        let refused = run(dir.path(), words);
        assert_eq!((refused.status.code(), stdout(&refused)), (Some(125), ""), "{words:?}: {}", stderr(&refused));
        assert!(!stderr(&refused).is_empty());
    }
    let refused = run(dir.path(), &["--dir", "none", &name]);
    let text = "pagewarden: cannot open the directory none: No such file or directory (os error 2)\n";
    assert_eq!(stderr(&refused), text);
    let full = run(dir.path(), &["--report-json", "/dev/full", &name]);
    assert_eq!(full.status.code(), Some(125));
    assert!(stderr(&full).starts_with("pagewarden: cannot write /dev/full: No space left on device"));
}

#[test]
fn help_tells_the_essentials() {
    let (dir, _) = program("");
    let help = run(dir.path(), &["--help"]);
    assert_eq!((help.status.code(), stderr(&help)), (Some(0), ""));
    for part in [
        "Usage: pagewarden cage run [OPTIONS] [--] PROGRAM [ARGS]...",
        "--commit-limit <SIZE>",
        "--reserve-limit <SIZE>",
        "--process-commit-limit <SIZE>",
        "--processes-limit <N>",
        "--fork-charge <RULE>",
        "--stack-size <SIZE>",
        "--dir <HOST[::GUEST]>",
        "--env <NAME=VALUE>",
        "--report",
        "--report-json <FILE>",
        "--vmmap-at-exit",
        "Exit status:",
        "Examples:",
        "126",
        "127",
        "139",
    ] {
        assert!(stdout(&help).contains(part), "{part} is missing");
    }
}
