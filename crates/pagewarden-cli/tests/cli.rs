//! The built command, seen from outside: what it prints where, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use serde_json::Value;

fn pagewarden(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewarden"));
    // Each of these changes what is printed, or how; CI makes a log count as a terminal with colours.
    for variable in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(variable);
    }
    command.args(words).env("TERM", "xterm").stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    pagewarden(words).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A process that does nothing; killed when the test is done with it.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let sleeper = Self(child);
        // Until it sleeps, its loader still changes the map.
        until(|| sleeper.file("wchan").contains("nanosleep") || sleeper.file("syscall").starts_with("230 "));
        sleeper
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap()
    }

    /// Bounds and rights of each region, as the kernel has them.
    fn regions(&self) -> Vec<(String, String)> {
        let pair = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            (words.next().unwrap(), words.next().unwrap())
        };
        self.file("maps").lines().map(pair).collect()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The words of each region's line: those between the column heads and the blank line.
fn region_lines(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(2).take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn vmmap_lists_what_the_kernel_lists() {
    let sleeper = Sleeper::new();
    let shown = output(&["vmmap", &sleeper.pid()]);
    assert!(shown.status.success());
    assert_eq!(stderr(&shown), "");
    let text = stdout(&shown);
    assert_eq!(text.lines().next(), Some(format!("{}: sleep 1000", sleeper.pid()).as_str()));
    let lines = region_lines(text);
    let listed: Vec<(String, String)> = lines.iter().map(|words| (words[0].to_owned(), words[5].to_owned())).collect();
    assert_eq!(listed, sleeper.regions());
    assert!(!text.contains('\x1b'), "colours without a terminal");
    assert!(lines.iter().any(|words| words[6..] == ["stack", "[stack]"]));
    assert!(lines.iter().any(|words| words[6] == "file" && words[7].ends_with("/sleep")));
    let total: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(total[..2], ["total", &sleeper.regions().len().to_string()]);
}

#[test]
fn vmmap_wide_has_more_columns() {
    let sleeper = Sleeper::new();
    let shown = output(&["vmmap", "--wide", &sleeper.pid()]);
    let head: Vec<&str> = stdout(&shown).lines().nth(1).unwrap().split_whitespace().collect();
    let expected =
        ["ADDRESS", "SIZE", "RESIDENT", "PSS", "PRIV", "DIRTY", "SWAP", "LOCKED", "PROT", "OFFSET", "KIND", "NAME"];
    assert_eq!(head, expected);
    assert_eq!(region_lines(stdout(&shown)).len(), sleeper.regions().len());
}

#[test]
fn vmmap_json_has_these_fields() {
    let sleeper = Sleeper::new();
    let shown = output(&["vmmap", "--json", &sleeper.pid()]);
    assert!(shown.status.success());
    let json: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&json), "command pid regions total totals");
    assert_eq!(json["command"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(json["pid"].to_string(), sleeper.pid());
    let regions = json["regions"].as_array().unwrap();
    assert_eq!(
        keys(&regions[0]),
        "anon_huge_pages anonymous deleted device end inode kind locked name offset private_clean private_dirty prot pss \
         resident shared_clean shared_dirty sharing size start swap vm_flags"
    );
    let hex = |value: &Value| u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
    for (region, (bounds, _)) in regions.iter().zip(sleeper.regions()) {
        let (start, end) = (hex(&region["start"]), hex(&region["end"]));
        assert_eq!(format!("{start:08x}-{end:08x}"), bounds);
        assert_eq!(region["size"], end - start);
    }
    assert_eq!(keys(&json["totals"][0]), "kind private_dirty regions resident size swap");
    assert_eq!(keys(&json["total"]), "private_dirty regions resident size swap");
    assert_eq!(json["total"]["regions"].to_string(), sleeper.regions().len().to_string());
}

#[test]
fn vmmap_fits_into_the_columns_it_is_given() {
    let sleeper = Sleeper::new();
    for columns in ["60", "72", "80", "92", "100"] {
        let shown = pagewarden(&["vmmap", &sleeper.pid()]).env("COLUMNS", columns).output().unwrap();
        let widest = stdout(&shown).lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.parse().unwrap(), "{widest} of {columns}:\n{}", stdout(&shown));
        assert_eq!(region_lines(stdout(&shown)).len(), sleeper.regions().len());
    }
}

/// What `words` print on a terminal of `columns` columns.
fn on_terminal(words: &[&str], columns: u16, variables: &[(&str, &str)]) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = pagewarden(words);
    command.envs(variables.iter().copied()).stdout(terminal.slave.try_clone().unwrap()).stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    // Our copies of the other end keep the terminal open.
    drop(command);
    let mut text = Vec::new();
    // A terminal that all have left answers EIO.
    let _ = File::from(terminal.master).read_to_end(&mut text);
    child.wait().unwrap();
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_gives_the_width_and_gets_colours() {
    let sleeper = Sleeper::new();
    let words = ["vmmap", &sleeper.pid()];
    let coloured = on_terminal(&words, 64, &[]);
    assert!(coloured.starts_with(&format!("\x1b[1m{}: sleep 1000\x1b[0m\n", sleeper.pid())), "{coloured:?}");
    let plain = on_terminal(&words, 64, &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b'));
    let widest = plain.lines().map(|line| line.chars().count()).max().unwrap();
    assert!((50..=64).contains(&widest), "{widest}:\n{plain}");
    assert!(!on_terminal(&words, 64, &[("TERM", "dumb")]).contains('\x1b'));
}

#[test]
fn vmmap_says_why_there_is_no_map() {
    let nobody = output(&["vmmap", "2147483647"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(stderr(&nobody), "pagewarden: there is no process 2147483647\n");
    assert_eq!(stdout(&nobody), "");

    let mut zombie = Command::new("true").spawn().unwrap();
    let pid = zombie.id().to_string();
    until(|| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z "));
    let shown = output(&["vmmap", "--json", &pid]);
    zombie.wait().unwrap();
    assert_eq!(shown.status.code(), Some(1));
    assert_eq!(
        stderr(&shown),
        format!("pagewarden: process {pid} is a zombie: it has ended, and its memory is gone\n")
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let sleeper = Sleeper::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = pagewarden(&["vmmap", &sleeper.pid()]).stdout(writer).output().unwrap();
    assert_eq!((ended.status.code(), stderr(&ended)), (Some(0), ""));
    let full = pagewarden(&["vmmap", &sleeper.pid()]).stdout(File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert_eq!(stderr(&full), "pagewarden: cannot write the map: No space left on device (os error 28)\n");
}

#[test]
fn wrong_calls_are_told_apart_from_the_program() {
    for words in [&[][..], &["bogus"], &["vmmap"], &["vmmap", "x"], &["vmmap", "0"], &["vmmap", "--bogus", "1"]] {
        let refused = output(words);
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        assert_eq!(stdout(&refused), "");
        assert!(stderr(&refused).contains("Usage:") || stderr(&refused).contains("--help"), "{words:?}");
    }
    for words in [
        &["check", "--seconds", "0"][..],
        &["check", "--seconds", "soon"],
        &["check", "--calls", "1", "--seconds", "1"],
        &["check", "--platform", "moon"],
        &["check", "prog"],
    ] {
        let refused = output(words);
        assert_eq!((refused.status.code(), stdout(&refused)), (Some(2), ""), "{words:?}");
        assert!(stderr(&refused).starts_with("error: "), "{words:?}");
    }
    for words in [
        &["run"][..],
        &["run", "--"],
        &["run", "--bogus", "true"],
        &["run", "--commit-limit", "0", "true"],
        &["run", "--commit-limit", "99999999999T", "true"],
        &["run", "--wx", "perhaps", "true"],
    ] {
        let refused = output(words);
        assert_eq!(refused.status.code(), Some(125), "{words:?}");
        assert_eq!(stdout(&refused), "");
        assert!(stderr(&refused).starts_with("error: "), "{words:?}");
    }
}

#[cfg(not(feature = "cage"))]
#[test]
fn without_cages_it_is_said_how_to_get_them() {
    for words in [&["cage"][..], &["cage", "run", "prog.wasm"], &["cage", "run", "--commit-limit", "1M", "prog.wasm"]] {
        let refused = output(words);
        assert_eq!((refused.status.code(), stdout(&refused)), (Some(2), ""), "{words:?}");
        assert!(stderr(&refused).starts_with("pagewarden: this build has no cages"), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("--features cage"));
    }
}

#[test]
fn help_goes_to_standard_output_and_tells_the_essentials() {
    let expectations: [(&[&str], &[&str]); 4] = [
        (&["--help"], &["run", "vmmap", "check", "Examples:"]),
        (
            &["check", "--help"],
            &[
                "--seconds <N>",
                "--calls <N>",
                "--seed <S>",
                "--platform <PLATFORM>",
                "--save <FILE>",
                "- traced:",
                "- arena:",
                "- machine:",
                "[default: 60]",
                "Exit status:",
                "Examples:",
            ],
        ),
        (
            &["run", "--help"],
            &[
                "Usage: pagewarden run [OPTIONS] [--] PROGRAM [ARGS]...",
                "Limits:",
                "Policy:",
                "Reports and checks:",
                "Exit status:",
                "Examples:",
                "--commit-limit <SIZE>",
                "--reserve-limit <SIZE>",
                "--lock-limit <SIZE>",
                "--map-limit <N>",
                "--wx <RULE>",
                "--fork-charge <RULE>",
                "--noreserve <RULE>",
                "--on-exit <RULE>",
                "--report",
                "--report-json <FILE>",
                "--trace <FILE>",
                "--verify",
                "--vmmap-at-exit",
                "123",
                "125",
                "126",
                "127",
            ],
        ),
        (&["vmmap", "--help"], &["--json", "--wide", "<PID>", "Kinds:", "Exit status:", "Examples:"]),
    ];
    for (words, parts) in expectations {
        let help = pagewarden(words).env("COLUMNS", "80").output().unwrap();
        assert!(help.status.success());
        assert_eq!(stderr(&help), "");
        for part in parts {
            assert!(stdout(&help).contains(part), "{words:?} says nothing of {part}");
        }
    }
}

fn run_status(words: &[&str]) -> ExitStatus {
    output(words).status
}

#[test]
fn a_run_ends_as_its_program_ends() {
    assert_eq!(run_status(&["run", "true"]).code(), Some(0));
    assert_eq!(run_status(&["run", "--", "sh", "-c", "exit 7"]).code(), Some(7));
    assert_eq!(run_status(&["run", "sh", "-c", "exit 255"]).code(), Some(255));
    for (name, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("PIPE", 13), ("INT", 2), ("ABRT", 6), ("40", 40)] {
        let status = run_status(&["run", "sh", "-c", &format!("kill -{name} $$")]);
        assert_eq!((status.signal(), status.core_dumped()), (Some(number), false), "{name}");
    }
}

#[test]
fn what_cannot_be_run_has_the_statuses_of_env() {
    let missing = output(&["run", "no-such-program-anywhere"]);
    assert_eq!(missing.status.code(), Some(127));
    assert_eq!(stderr(&missing), "pagewarden: no-such-program-anywhere: not found\n");
    let data = output(&["run", "/etc/passwd"]);
    assert_eq!(data.status.code(), Some(126));
    assert!(stderr(&data).starts_with("pagewarden: /etc/passwd: cannot be run: "), "{}", stderr(&data));
}

#[test]
fn input_and_output_belong_to_the_program() {
    let mut child = pagewarden(&["run", "--report", "cat", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"as it is\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(stdout(&ended), "as it is\n");
    assert!(stderr(&ended).contains("pagewarden report:"), "{}", stderr(&ended));
    assert!(!stderr(&ended).contains('\x1b'));
}

#[test]
fn options_of_the_program_are_its_own() {
    let ended = output(&["run", "printf", "%s,", "--report", "--", "-x"]);
    assert_eq!(stdout(&ended), "--report,--,-x,");
    assert!(!stderr(&ended).contains("pagewarden report:"));
}

#[test]
fn reports_go_to_the_files_that_were_named() {
    let folder = tempfile::tempdir().unwrap();
    let (json, trace) = (folder.path().join("report.json"), folder.path().join("trace.jsonl"));
    fs::write(&json, "old and longer than what follows ".repeat(1000)).unwrap();
    let ended =
        pagewarden(&["run", "--report-json"]).arg(&json).arg("--trace").arg(&trace).arg("true").output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    for field in ["usage", "commit_limit", "processes", "processes_peak", "seconds", "calls"] {
        assert!(report.get(field).is_some(), "{field}");
    }
    for line in fs::read_to_string(trace).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["args"].as_array().unwrap().iter().all(|word| word.as_str().unwrap().starts_with("0x")));
    }
    let on_stderr = output(&["run", "--report-json", "-", "sh", "-c", "exit 3"]);
    assert_eq!(on_stderr.status.code(), Some(3));
    assert_eq!(stdout(&on_stderr), "");
    assert!(stderr(&on_stderr).starts_with("{\n  \"usage\": {"), "{}", stderr(&on_stderr));
}

#[test]
fn a_bad_path_is_found_before_the_program_starts() {
    for option in ["--report-json", "--trace"] {
        let refused = output(&["run", option, "/no/such/folder/file", "echo", "started"]);
        assert_eq!(refused.status.code(), Some(125));
        assert_eq!(stdout(&refused), "");
        assert_eq!(
            stderr(&refused),
            "pagewarden: cannot write /no/such/folder/file: No such file or directory (os error 2)\n"
        );
    }
}

#[test]
fn a_report_that_cannot_be_written_spoils_only_success() {
    let full = |status: &str| output(&["run", "--report-json", "/dev/full", "sh", "-c", &format!("exit {status}")]);
    let success = full("0");
    assert_eq!(success.status.code(), Some(125));
    assert!(stderr(&success).starts_with("pagewarden: cannot write /dev/full: No space left on device"));
    assert_eq!(full("4").status.code(), Some(4));
}

#[test]
fn the_program_inherits_none_of_our_files() {
    let folder = tempfile::tempdir().unwrap();
    let listing = "for fd in /proc/self/fd/*; do readlink $fd; done";
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let ended = pagewarden(&["run", "--report-json"])
        .arg(folder.path().join("report"))
        .arg("--trace")
        .arg(folder.path().join("trace"))
        .args(["sh", "-c", listing])
        .stdin(null)
        .output()
        .unwrap();
    assert!(stdout(&ended).contains("/dev/null"), "{}", stdout(&ended));
    let prefix = folder.path().to_str().unwrap();
    assert!(!stdout(&ended).contains(prefix), "{}", stdout(&ended));
}

/// The figures of the line that a check without a difference ends with: calls and programs.
fn compared(line: &str) -> (u64, u64) {
    assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[1], words[2], words[4], words[5]), ("calls", "of", "programs", "compared"), "{line}");
    let number = |word: &str| word.replace(',', "").parse().unwrap();
    (number(words[0]), number(words[3]))
}

#[test]
fn a_check_compares_as_long_as_it_was_told_and_says_one_thing() {
    let begin = Instant::now();
    let done = output(&["check", "--seconds", "2", "--seed", "11"]);
    assert_eq!((done.status.code(), stderr(&done)), (Some(0), ""), "{}", stdout(&done));
    assert!(begin.elapsed() >= Duration::from_secs(2));
    let line = stdout(&done);
    let (calls, programs) = compared(line);
    assert!(calls > 500 && (10..calls / 20).contains(&programs), "{line}");
    assert!(line.contains(" compared on the traced platform in "), "{line}");
    assert!(line.ends_with(": no difference (seed 11)\n"), "{line}");
}

#[test]
fn a_check_of_the_arena_compares_more() {
    let done = output(&["check", "--calls", "3000", "--seed", "11", "--platform", "arena"]);
    assert_eq!((done.status.code(), stderr(&done)), (Some(0), ""), "{}", stdout(&done));
    let line = stdout(&done);
    assert!(compared(line).0 >= 3000 && line.contains(" compared on the arena platform in "), "{line}");
}

#[test]
fn a_check_of_the_machine_compares_too() {
    let done = output(&["check", "--calls", "1000", "--seed", "11", "--platform", "machine"]);
    assert_eq!((done.status.code(), stderr(&done)), (Some(0), ""), "{}", stdout(&done));
    let line = stdout(&done);
    assert!(compared(line).0 >= 1000 && line.contains(" compared on the machine platform in "), "{line}");
}

#[test]
fn a_check_of_some_calls_is_the_same_again() {
    let figures = |words: &[&str]| compared(stdout(&output(words)));
    let first = figures(&["check", "--calls", "300", "--seed", "4"]);
    assert!((300..350).contains(&first.0), "{first:?}");
    assert_eq!(figures(&["check", "--calls", "300", "--seed", "4"]), first);
    let drawn = output(&["check", "--calls", "1"]);
    let other = output(&["check", "--calls", "1"]);
    assert_ne!(stdout(&drawn).split(" (seed ").nth(1), stdout(&other).split(" (seed ").nth(1));
}

#[test]
fn an_interrupted_check_says_what_it_has() {
    let mut child = pagewarden(&["check", "--seconds", "600"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let begin = Instant::now();
    let status = child.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20), "it went on");
    let mut line = String::new();
    child.stdout.take().unwrap().read_to_string(&mut line).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(compared(&line).0 > 0 && line.contains(", interrupted: no difference"), "{line}");
}

#[test]
fn a_check_shows_on_a_terminal_how_far_it_is() {
    let text = on_terminal(&["check", "--seconds", "2"], 70, &[]);
    let shown: Vec<&str> = text.split('\r').filter(|line| line.ends_with("\x1b[K")).collect();
    assert!(shown.len() >= 2, "{text:?}");
    assert!(shown[0].starts_with("traced: ") && shown[0].contains(" calls of "), "{text:?}");
    assert!(shown.iter().all(|line| line.trim_end_matches("\x1b[K").chars().count() < 70), "{text:?}");
    assert!(!on_terminal(&["check", "--calls", "50"], 70, &[("TERM", "dumb")]).contains('\r'));
}

#[test]
fn a_check_that_cannot_run_says_why() {
    let refused = pagewarden(&["check", "--calls", "1"]).env("TMPDIR", "/no/such/folder").output().unwrap();
    assert_eq!((refused.status.code(), stdout(&refused)), (Some(2), ""));
    assert!(stderr(&refused).starts_with("pagewarden: cannot prepare the check: "), "{}", stderr(&refused));
}
