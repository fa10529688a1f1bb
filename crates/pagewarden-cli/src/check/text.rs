//! What a check prints: how far it is, each difference in words, and the line at the end.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::time::Duration;

use pagewarden_linux::oracle::c_source::c_source;
use pagewarden_linux::oracle::check::{Budget, Finding, Outcomes, Progress, Stage};
use pagewarden_linux::oracle::{Difference, Side};

use crate::args::CheckPlatform;
use crate::size::{count, duration};
use crate::style::{BAD, FAINT, GOOD, HEAD, NOTABLE, paint, shown};

/// What the last line says besides figures.
pub(super) struct Ending {
    pub(super) platform: CheckPlatform,
    pub(super) seed: u64,
    pub(super) elapsed: Duration,
    pub(super) is_interrupted: bool,
}

/// The line while it runs, without colours.
pub(super) fn progress(progress: &Progress, platform: CheckPlatform, budget: Budget) -> String {
    let Progress { calls, programs, differences, elapsed, stage } = *progress;
    let rate = u128::from(calls) * 1000 / elapsed.as_millis().max(1);
    let mut line = format!(
        "{}: {} calls of {} programs compared, {} calls/s",
        platform.name(),
        count(calls),
        count(programs),
        count(u64::try_from(rate).unwrap_or(u64::MAX))
    );
    if differences > 0 {
        let _ = write!(line, ", {}", kinds(differences));
    }
    match stage {
        Stage::Shrinking(steps) => drop(write!(line, ", shrinking a difference: {steps} steps")),
        Stage::Comparing => drop(write!(line, ", {} left", left(budget, calls, elapsed, rate))),
    }
    line
}

fn left(budget: Budget, calls: u64, elapsed: Duration, rate: u128) -> String {
    let seconds = match budget {
        Budget::Time(time) => time.saturating_sub(elapsed).as_secs(),
        Budget::Calls(wanted) => {
            u64::try_from(u128::from(wanted.saturating_sub(calls)) / rate.max(1)).unwrap_or(u64::MAX)
        }
    };
    if seconds < 60 { format!("{seconds} s") } else { duration(Duration::from_secs(seconds).as_secs_f64()) }
}

fn kinds(number: usize) -> String {
    match number {
        1 => "1 kind of difference".to_owned(),
        number => format!("{number} kinds of difference"),
    }
}

/// All findings, then the line at the end.
pub(super) fn render(outcomes: &Outcomes, ending: &Ending) -> String {
    let mut text = String::new();
    for (number, finding) in (1..).zip(outcomes.findings.values()) {
        text.push_str(&render_finding(number, finding, ending.platform));
        text.push('\n');
    }
    let verdict = match outcomes.findings.len() {
        0 => paint(GOOD, "no difference"),
        number => paint(BAD, kinds(number)),
    };
    let interrupted = if ending.is_interrupted { ", interrupted" } else { "" };
    let _ = writeln!(
        text,
        "{} calls of {} programs compared on the {} platform in {}{interrupted}: {verdict} (seed {})",
        count(outcomes.calls),
        count(outcomes.programs),
        ending.platform.name(),
        duration(ending.elapsed.as_secs_f64()),
        ending.seed
    );
    text
}

fn render_finding(number: u32, finding: &Finding, platform: CheckPlatform) -> String {
    let Finding { programs, seed, steps, difference } = finding;
    let sides = platform.sides();
    let mut text = format!("{}\n", paint(HEAD, format!("difference {number}: {}", in_words(difference, sides))));
    let _ = writeln!(
        text,
        "found in {}; the first is that of seed {seed}, its {steps} steps made {}\n",
        if *programs == 1 { "1 program".to_owned() } else { format!("{} programs", count(*programs as u64)) },
        difference.program.steps.len()
    );
    text.push_str(&render_lines(difference, sides));
    let _ = writeln!(text, "\n{}\n\n{}", paint(HEAD, "as C:"), c_source(&difference.program));
    let _ = writeln!(
        text,
        "{} pagewarden check --platform {} --seed {seed} --calls 1",
        paint(HEAD, "to repeat it:"),
        platform.name()
    );
    text
}

/// The first thing that differs.
fn in_words(difference: &Difference, sides: [Side; 2]) -> String {
    let lines = difference.aligned();
    let first_of = |mark: char| lines.iter().find(|line| line.0 == mark).map(|line| line.1);
    let (left, right) = (first_of('-'), first_of('+'));
    let Some(line) = left.or(right) else { return "nothing, when run once more".to_owned() };
    let [host, ours] = sides.map(Side::name);
    let Some(step) = step_of(difference, line) else {
        return match line.split(' ').next() {
            Some("map") => "the regions are not the same".to_owned(),
            Some("page") => "the contents of memory are not the same".to_owned(),
            Some("break") => "the break is not the same".to_owned(),
            _ => format!("{host} says '{}', {ours} '{}'", left.unwrap_or("nothing"), right.unwrap_or("nothing")),
        };
    };
    let name = difference.program.steps[step].call.name();
    let answer = |line: Option<&str>| line.map_or("nothing".to_owned(), |line| in_plain_words(answer_of(line)));
    format!("{name}: {host} answers {}, {ours} {}", answer(left), answer(right))
}

/// The step that a line of a transcript answers.
fn step_of(difference: &Difference, line: &str) -> Option<usize> {
    let index = line.split(' ').next()?.parse().ok()?;
    (index < difference.program.steps.len()).then_some(index)
}

fn answer_of(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, answer)| answer)
}

fn in_plain_words(answer: &str) -> String {
    let words: Vec<&str> = answer.split(' ').collect();
    match words[..] {
        ["=", value] => value.to_owned(),
        ["!", error] => error.to_owned(),
        ["fault", "signal", signal, "code", code, "at", address] => {
            let name = match signal {
                "7" => "SIGBUS",
                "11" => "SIGSEGV",
                other => other,
            };
            format!("{name} (code {code}) at {address}")
        }
        _ => answer.to_owned(),
    }
}

/// Every step with what it answered, and what else differs.
fn render_lines(difference: &Difference, sides: [Side; 2]) -> String {
    let steps = &difference.program.steps;
    let steps: Vec<String> = steps.iter().map(|step| shown(OsStr::new(&step.to_string()))).collect();
    let width = steps.iter().map(String::len).max().unwrap_or(0);
    let [host, ours] = sides.map(Side::name);
    let name_width = host.len().max(ours.len());
    let mut text = String::new();
    let mut last_step = None;
    for (mark, line) in difference.aligned() {
        let step = step_of(difference, line);
        if let Some(step) = step {
            let answer = shown(OsStr::new(answer_of(line)));
            if mark == ' ' {
                let _ = writeln!(text, "  {step:>3}  {:width$}  {answer}", steps[step]);
                last_step = Some(step);
                continue;
            }
            if last_step != Some(step) {
                let _ = writeln!(text, "  {step:>3}  {}", steps[step]);
            }
            last_step = Some(step);
        } else if mark == ' ' && !line.starts_with("child") {
            continue;
        }
        let who = if mark == '-' { host } else { ours };
        let line = shown(OsStr::new(if step.is_some() { answer_of(line) } else { line }));
        let _ = match mark {
            ' ' => writeln!(text, "       {}", paint(FAINT, line)),
            _ => writeln!(text, "       {}  {line}", paint(NOTABLE, format!("{who:name_width$}"))),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pagewarden_linux::oracle::{Transcript, text::parse_programs};

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn difference(left: &[&str], right: &[&str]) -> Difference {
        let program =
            parse_programs("mmap w+0x0 0x1000 0x3 0x32 none 0x0\nmunmap w+0x0 0x0\nstate\n").unwrap().remove(0);
        let transcript = |lines: &[&str]| Transcript { lines: lines.iter().map(|line| (*line).to_owned()).collect() };
        Difference { program, left: transcript(left), right: transcript(right) }
    }

    fn ending() -> Ending {
        Ending { platform: CheckPlatform::Traced, seed: 77, elapsed: Duration::from_secs(600), is_interrupted: false }
    }

    const SIDES: [Side; 2] = [Side::Native, Side::Traced];

    #[test]
    fn agreement_is_one_line() {
        let outcomes = Outcomes { calls: 12_345_678, programs: 312_000, findings: BTreeMap::new() };
        let line = "12,345,678 calls of 312,000 programs compared on the traced platform in 10 min 00 s: no difference \
                    (seed 77)\n";
        assert_eq!(plain(&render(&outcomes, &ending())), line);
        let stopped = plain(&render(&outcomes, &Ending { is_interrupted: true, ..ending() }));
        assert!(stopped.contains("in 10 min 00 s, interrupted: no difference"), "{stopped}");
    }

    #[test]
    fn the_first_difference_is_put_into_words() {
        let words = |left: &[&str], right: &[&str]| in_words(&difference(left, right), SIDES);
        let same = "0 = 0x1000000000";
        assert_eq!(words(&[same, "1 ! EINVAL"], &[same, "1 = 0x0"]), "munmap: the host answers EINVAL, pagewarden 0x0");
        assert_eq!(
            words(&[same, "1 fault signal 11 code 2 at 0x5"], &[same, "1 = 0x0"]),
            "munmap: the host answers SIGSEGV (code 2) at 0x5, pagewarden 0x0"
        );
        assert_eq!(words(&[same, "map 1000-2000 rw-p 0 "], &[same]), "the regions are not the same");
        assert_eq!(words(&[same, "page 1000 05"], &[same, "page 1000 06"]), "the contents of memory are not the same");
        assert_eq!(words(&[same, "break = 0x1"], &[same, "break = 0x2"]), "the break is not the same");
        assert_eq!(words(&[same, "0x0"], &[same, "0x8b"]), "the host says '0x0', pagewarden '0x8b'");
    }

    #[test]
    fn steps_stand_with_both_answers() {
        let left = ["0 = 0x1000000000", "1 ! EINVAL", "map 1000-2000 rw-p 0 ", "map 3000-4000 rw-p 0 ", "0x0"];
        let right = ["0 = 0x1000000000", "1 = 0x0", "map 1000-2000 rw-p 0 ", "0x0"];
        let expected = "    0  mmap w+0x0 0x1000 0x3 0x32 none 0x0  = 0x1000000000
    1  munmap w+0x0 0x0
       the host    ! EINVAL
       pagewarden  = 0x0
       the host    map 3000-4000 rw-p 0 
";
        assert_eq!(plain(&render_lines(&difference(&left, &right), SIDES)), expected);
    }

    #[test]
    fn a_finding_says_how_to_see_it_again() {
        let difference = difference(&["1 ! EINVAL"], &["1 = 0x0"]);
        let finding = Finding { programs: 3, seed: 91, steps: 40, difference };
        let findings = BTreeMap::from([("munmap".to_owned(), finding)]);
        let text = plain(&render(&Outcomes { calls: 5, programs: 2, findings }, &ending()));
        for part in [
            "difference 1: munmap: the host answers EINVAL, pagewarden 0x0\n",
            "found in 3 programs; the first is that of seed 91, its 40 steps made 3\n",
            "int main(void) {",
            "to repeat it: pagewarden check --platform traced --seed 91 --calls 1\n",
            ": 1 kind of difference (seed 77)\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn progress_says_what_is_done_and_what_is_left() {
        let mut now = Progress {
            calls: 20_000,
            programs: 500,
            differences: 0,
            elapsed: Duration::from_secs(4),
            stage: Stage::Comparing,
        };
        let line = |now: &Progress, budget| progress(now, CheckPlatform::Traced, budget);
        let start = "traced: 20,000 calls of 500 programs compared, 5,000 calls/s";
        assert_eq!(line(&now, Budget::Time(Duration::from_secs(10))), format!("{start}, 6 s left"));
        assert_eq!(line(&now, Budget::Time(Duration::from_secs(600))), format!("{start}, 9 min 56 s left"));
        assert_eq!(line(&now, Budget::Calls(50_000)), format!("{start}, 6 s left"));
        now.differences = 2;
        now.stage = Stage::Shrinking(12);
        let shrinking = format!("{start}, 2 kinds of difference, shrinking a difference: 12 steps");
        assert_eq!(line(&now, Budget::Calls(50_000)), shrinking);
    }
}
