//! What the kernel says, against what it has to say.
//!
//! The expectation is a transcript in which `{}` may stand for a number. Headings and checks come in its order, none missing
//! and none besides. Other lines, such as information and what programs print, count where the expectation lists them.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail};

use super::boot::{self, PASSED};
use crate::job::{Ended, Outcome};
use crate::root;

/// Where the expectation is, in the repository.
pub(super) const FILE: &str = "kernel/transcript.txt";
/// So many lines are shown around a difference, and of the end of a boot that did not end well.
const AROUND: usize = 6;

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line<'a> {
    /// A check that passed.
    Passed(&'a str),
    /// A check that failed, and why.
    Failed(&'a str),
    /// What stands at the margin: names of groups, the first line and the last.
    Heading,
    Other,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        if let Some(text) = line.strip_prefix("  ok  ") {
            Self::Passed(text)
        } else if let Some(text) = line.strip_prefix("  FAILED  ") {
            Self::Failed(text)
        } else if line.starts_with(' ') {
            Self::Other
        } else {
            Self::Heading
        }
    }
}

/// What the kernel has to say.
pub(super) fn expected() -> Result<String> {
    fs::read_to_string(root().join(FILE)).with_context(|| format!("reading {FILE}, which --bless writes"))
}

/// Lines that say something.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

fn read_all(said: &str) -> impl Iterator<Item = Line<'_>> {
    lines(said).into_iter().map(Line::read)
}

/// The checks that passed.
pub(super) fn passed(said: &str) -> impl Iterator<Item = &str> {
    read_all(said).filter_map(|line| if let Line::Passed(text) = line { Some(text) } else { None })
}

/// The checks that failed, and why.
pub(super) fn failed(said: &str) -> impl Iterator<Item = &str> {
    read_all(said).filter_map(|line| if let Line::Failed(text) = line { Some(text) } else { None })
}

/// How many checks passed in a boot that was as it has to be; an error that says all that is wrong.
pub(super) fn check(expected: &str, outcome: &Outcome) -> Result<usize> {
    let mut problems = flaws(outcome);
    let (wanted, got) = (lines(expected), lines(&outcome.stdout));
    if let Some(difference) = Difference::find(&wanted, &got) {
        problems.push(difference.show(&wanted, &got));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(passed(&outcome.stdout).count())
}

/// What is wrong with a boot, whatever was expected of it.
fn flaws(outcome: &Outcome) -> Vec<String> {
    let mut problems = Vec::new();
    let got = lines(&outcome.stdout);
    if outcome.ended != Ended::Code(PASSED) {
        let last = got[got.len().saturating_sub(AROUND)..].join("\n  ");
        problems.push(format!("{}; its last lines:\n  {last}", boot::describe(outcome)));
    }
    problems.extend(failed(&outcome.stdout).map(|text| format!("failed: {text}")));
    let halt = format!("halt: {} checks, 0 failed", passed(&outcome.stdout).count());
    if got.last().is_none_or(|last| *last != halt) {
        problems.push(format!("the last line is not \"{halt}\""));
    }
    problems
}

/// The first place where a boot was not as expected: numbers of lines, or how many there are where one is missing.
#[derive(PartialEq, Eq, Debug)]
struct Difference {
    wanted: usize,
    got: usize,
}

impl Difference {
    fn find(wanted: &[&str], got: &[&str]) -> Option<Self> {
        let mut next = 0;
        for (number, line) in got.iter().enumerate() {
            if wanted.get(next).is_some_and(|pattern| matches(pattern, line)) {
                next += 1;
            } else if Line::read(line) != Line::Other {
                return Some(Self { wanted: next, got: number });
            }
        }
        (next < wanted.len()).then_some(Self { wanted: next, got: got.len() })
    }

    fn show(&self, wanted: &[&str], got: &[&str]) -> String {
        let mut text = format!("not as expected; - is {FILE}, + is what the kernel said:");
        let mut add = |sign: char, lines: &[&str]| {
            for line in lines {
                write!(text, "\n  {sign} {line}").ok();
            }
        };
        add(' ', &got[self.got.saturating_sub(AROUND)..self.got]);
        add('-', &wanted[self.wanted..wanted.len().min(self.wanted + AROUND)]);
        add('+', &got[self.got..got.len().min(self.got + AROUND)]);
        text
    }
}

/// Whether `line` is `pattern`, with a number at each `{}`.
fn matches(pattern: &str, line: &str) -> bool {
    after(pattern, line) == Some("")
}

/// What is left of `line` behind `pattern`, if it begins like that.
pub(super) fn after<'a>(pattern: &str, line: &'a str) -> Option<&'a str> {
    let mut parts = pattern.split("{}");
    let rest = line.strip_prefix(parts.next()?)?;
    parts.try_fold(rest, |rest, part| rest[number(rest)?..].strip_prefix(part))
}

/// The length of the number that `text` begins with: decimal, with or without a fraction, or hexadecimal.
fn number(text: &str) -> Option<usize> {
    let digits = |text: &str, is_digit: fn(&char) -> bool| text.chars().take_while(is_digit).count();
    if let Some(rest) = text.strip_prefix("0x") {
        let length = digits(rest, char::is_ascii_hexdigit);
        if length > 0 {
            return Some(2 + length);
        }
    }
    let whole = digits(text, char::is_ascii_digit);
    let fraction = text[whole..].strip_prefix('.').map_or(0, |rest| digits(rest, char::is_ascii_digit));
    (whole > 0).then_some(if fraction > 0 { whole + 1 + fraction } else { whole })
}

/// A new expectation from a boot that ended well. Where the old one had `{}`, or listed a line that it need not have, the
/// new one does too.
pub(super) fn bless(old: &str, outcome: &Outcome) -> Result<String> {
    let problems = flaws(outcome);
    if !problems.is_empty() {
        bail!("{FILE} stays as it is: {}", problems.join("\n"));
    }
    let mut old: Vec<Pieces<'_>> = lines(old).into_iter().map(Pieces::of).collect();
    let mut text = String::new();
    for line in lines(&outcome.stdout) {
        let new = Pieces::of(line);
        let kept = old.iter().position(|old| old.text == new.text).map(|place| old.remove(place));
        match kept {
            Some(kept) => text.push_str(&new.with_holes_of(&kept)),
            None if Line::read(line) == Line::Other => continue,
            None => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

/// A line taken apart: what stands between the numbers, and the numbers, or `{}`. There is one number fewer.
struct Pieces<'a> {
    text: Vec<&'a str>,
    numbers: Vec<&'a str>,
}

impl<'a> Pieces<'a> {
    fn of(line: &'a str) -> Self {
        let (mut text, mut numbers) = (Vec::new(), Vec::new());
        let (mut from, mut at) = (0, 0);
        while let Some(next) = line[at..].chars().next() {
            let length = if line[at..].starts_with("{}") { Some(2) } else { number(&line[at..]) };
            if let Some(length) = length {
                text.push(&line[from..at]);
                numbers.push(&line[at..at + length]);
                from = at + length;
            }
            at += length.unwrap_or(next.len_utf8());
        }
        text.push(&line[from..]);
        Self { text, numbers }
    }

    fn with_holes_of(&self, old: &Self) -> String {
        let numbers = self.numbers.iter().zip(&old.numbers).map(|(new, old)| if *old == "{}" { "{}" } else { *new });
        let mut line = String::new();
        for (text, number) in self.text.iter().zip(numbers.chain([""])) {
            line.push_str(text);
            line.push_str(number);
        }
        line
    }
}

#[cfg(test)]
mod tests;
