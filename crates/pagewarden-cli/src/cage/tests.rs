//! Tests of what is printed.

use pagewarden::manager::Access;
use pagewarden_cage::{CageTrap, TrapKind};
use pagewarden_linux::ProcessReport;

use super::*;

const MAPS: &str = "\
00001000-00020000 rw-p 00000000 00:00 0 
00020000-00031000 rw-p 00000000 00:00 0                                  [heap]
fffdf000-fffef000 r--p 00000000 00:00 0 
";

fn trap() -> CageTrap {
    CageTrap {
        kind: TrapKind::Rights,
        address: Some(0xfffd_f010),
        access: Some(Access::Write),
        region: Some("fffdf000-fffef000 r--p 00000000 00:00 0".to_owned()),
        backtrace: "   0: poke\n   1: \u{1b}[2Jmain\n".to_owned(),
    }
}

fn recorded(trap: Option<CageTrap>) -> Recorded {
    let process = ProcessReport {
        pid: 2,
        parent: 1,
        program: "app.wasm".to_owned(),
        exit: Some(trap.as_ref().map_or(ReportedExit::Code(3), |trap| ReportedExit::Signal(trap.signal()))),
        usage: Usage::default(),
        resident_peak: 8192,
        calls: [("mmap".to_owned(), 1)].into(),
        refused: Vec::new(),
        map_at_exit: Some(MAPS.to_owned()),
    };
    Recorded { process, trap: trap.map(Box::new) }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

const QUIET: CageOutputArgs = CageOutputArgs { report: false, report_json: None, vmmap_at_exit: false };

#[test]
fn a_stop_is_told_with_the_address_the_functions_and_the_map() {
    let text = plain(&stop(&recorded(Some(trap())), &QUIET, Some(80)));
    assert_eq!(text, include_str!("golden/stop_80.txt"));
    assert_eq!(stop(&recorded(None), &QUIET, Some(80)), "");
}

#[test]
fn a_map_is_printed_once() {
    let with_maps = CageOutputArgs { vmmap_at_exit: true, ..QUIET };
    let stops = stop(&recorded(Some(trap())), &with_maps, Some(80));
    assert!(!stops.contains("the manager's map"), "{stops}");
    let report = Report {
        usage: Usage::default(),
        commit_limit: None,
        processes: vec![recorded(Some(trap())).process],
        processes_peak: 1,
        seconds: 1.0,
        calls: 1,
    };
    let exit = Exit { trap: None, code: 0x1_02, maps: MAPS.to_owned() };
    let outcome = Outcome { exit, report, stops, hint: Some("a hint") };
    let everything = CageOutputArgs { report: true, ..with_maps };
    let text = plain(&summary(&outcome, &everything, Some(80)));
    assert_eq!(text.matches("2: app.wasm, the manager's map at its end\n").count(), 1, "{text}");
    let places =
        ["map at its end", "process 2 ended by SIGSEGV", "report: app.wasm: exit status 2", "pagewarden: a hint\n"];
    let places = places.map(|part| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}")));
    assert!(places.is_sorted(), "{text}");
    assert_eq!(plain(&summary(&Outcome { stops: String::new(), hint: None, ..outcome }, &QUIET, Some(80))), "");
}

#[test]
fn failures_have_the_statuses_of_env() {
    let source = || io::Error::from_raw_os_error(1);
    let text = || "x".to_owned();
    assert_eq!(Failure::NotFound { program: text() }.status(), 127);
    assert_eq!(not_executable("x", source()).status(), 126);
    assert_eq!(Failure::Directory { dir: text(), source: source() }.status(), 125);
    assert_eq!(Failure::File { file: text(), source: source() }.status(), 125);
    assert_eq!(Failure::Cages(CageError::TooManyProcesses(1)).status(), 125);
}
