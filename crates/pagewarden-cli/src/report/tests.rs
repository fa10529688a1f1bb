//! Tests of the report.

use pagewarden_linux::{RefusedCall, Usage};

use super::*;

fn usage(committed_mib: u64) -> Usage {
    Usage {
        reserved_peak: (committed_mib + 700) << 20,
        committed_peak: (committed_mib << 20) + 8192,
        locked_peak: 0,
        regions_peak: 40 + committed_mib,
    }
}

fn process(pid: i32, program: &str, committed_mib: u64) -> ProcessReport {
    ProcessReport {
        pid,
        parent: 1,
        program: program.to_owned(),
        exit: Some(Exit::Code(0)),
        usage: usage(committed_mib),
        resident_peak: committed_mib << 19,
        calls: [("mmap".to_owned(), 50 * committed_mib), ("munmap".to_owned(), 17), ("brk".to_owned(), 3)].into(),
        refused: Vec::new(),
        map_at_exit: None,
    }
}

fn report(processes: Vec<ProcessReport>) -> Report {
    Report {
        usage: usage(430),
        commit_limit: Some(512 << 20),
        processes_peak: 5,
        seconds: 12.42,
        calls: processes.iter().flat_map(|process| process.calls.values()).sum(),
        processes,
    }
}

/// A build in which a linker ran into the limit and a helper was killed.
fn build() -> Report {
    let mut processes = vec![
        process(41_000, "/usr/bin/make", 2),
        process(41_002, "/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus", 212),
        process(41_003, "/usr/bin/x86_64-linux-gnu-ld.bfd", 410),
        process(41_004, "sh", 1),
    ];
    processes[2].exit = Some(Exit::Code(1));
    processes[2].refused = vec![
        RefusedCall {
            call: "mmap".to_owned(),
            errno: "ENOMEM".to_owned(),
            reason: "commit limit".to_owned(),
            count: 1234,
        },
        RefusedCall {
            call: "mprotect".to_owned(),
            errno: "EACCES".to_owned(),
            reason: "W^X policy".to_owned(),
            count: 1,
        },
    ];
    processes[3].exit = Some(Exit::Signal(9));
    processes[3].refused = vec![RefusedCall { count: 2, ..processes[2].refused[0].clone() }];
    report(processes)
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn the_layout_at_80_columns() {
    let text = plain(&render(&build(), Exit::Code(2), Some(80)));
    assert_eq!(text, include_str!("golden/build_80.txt"));
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_run_without_limit_children_or_refusals() {
    let mut report = report(vec![process(7, "/usr/bin/true", 1)]);
    report.commit_limit = None;
    report.usage.locked_peak = 64 << 10;
    report.processes[0].usage.locked_peak = 64 << 10;
    let text = plain(&render(&report, Exit::Signal(11), None));
    assert_eq!(text, include_str!("golden/alone_100.txt"));
}

#[test]
fn of_many_processes_the_largest_are_shown() {
    let processes =
        (1..=214).map(|index| process(index, "/usr/bin/rustc", (u64::from(index.unsigned_abs()) * 37) % 215));
    let report = report(processes.collect());
    let text = plain(&render(&report, Exit::Code(0), Some(80)));
    let table = text.split("\n\n").nth(1).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "Processes that committed most, peaks of each");
    assert_eq!(lines.len(), 2 + PROCESSES_MAX + 1);
    assert!(lines[2].contains(" 214.0 MiB ") || lines[2].contains(" 214 MiB "), "{}", lines[2]);
    assert_eq!(lines[22], "  and 194 more: --report-json has them all");
    assert!(text.contains("  processes   214, 5 at once\n"));
}

#[test]
fn names_and_reasons_cannot_steer_the_terminal() {
    let mut report = build();
    report.processes[0].program = "/tmp/\x1b[2Jx".to_owned();
    report.processes[2].refused[0].reason = "odd\x1b]0;".to_owned();
    let text = render(&report, Exit::Code(0), Some(100));
    assert!(!text.contains("\x1b[2J") && !text.contains("\x1b]"));
    assert!(text.contains("\\033[2Jx"));
}

#[test]
fn sums_do_not_overflow() {
    let mut report = build();
    for process in &mut report.processes {
        process.calls.insert("mmap".to_owned(), u64::MAX);
        process.refused = vec![RefusedCall {
            call: "mmap".to_owned(),
            errno: "ENOMEM".to_owned(),
            reason: "commit limit".to_owned(),
            count: u64::MAX,
        }];
    }
    report.usage.committed_peak = u64::MAX;
    report.calls = u64::MAX;
    let text = plain(&render(&report, Exit::Code(0), Some(80)));
    assert!(text.contains("18,446,744,073,709,551,615 refused"), "{text}");
    assert!(text.contains("16.0 EiB of 512 MiB"), "{text}");
}

#[test]
fn the_bar_is_full_only_when_the_limit_was_reached() {
    let bar = |peak, limit| plain(&committed(peak, Some(limit)));
    assert_eq!(bar(0, 1024), format!("0 B of 1 KiB  {} 0%", "░".repeat(24)));
    assert_eq!(bar(1023, 1024), format!("1023 B of 1 KiB  {}░ 99%", "█".repeat(23)));
    assert_eq!(bar(1024, 1024), format!("1 KiB of 1 KiB  {} 100%", "█".repeat(24)));
}

#[test]
fn json_has_the_fields_by_their_names() {
    let mut out = Vec::new();
    write_json(&mut out, &build()).unwrap();
    assert_eq!(out.last(), Some(&b'\n'));
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["commit_limit"], 512 << 20);
    assert_eq!(json["usage"]["committed_peak"], (430 << 20) + 8192);
    assert_eq!(json["processes"][2]["exit"]["code"], 1);
    assert_eq!(json["processes"][3]["exit"]["signal"], 9);
    assert_eq!(json["processes"][2]["refused"][0]["count"], 1234);
    assert_eq!(json["processes"][1]["calls"]["mmap"], 10_600);
    assert_eq!(json["processes"][0]["map_at_exit"], serde_json::Value::Null);
}
