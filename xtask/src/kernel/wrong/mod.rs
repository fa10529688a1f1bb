//! Wrong kernels: each is the kernel with one fault, and the checks that have to notice it.
//!
//! Each is built in a copy of the sources, in one place and one target folder for all of them, so that only what differs is
//! built again. One that panics, hangs or resets the machine before a check has noticed the fault as well. Every check in
//! `kernel/transcript.txt` has a wrong kernel that it fails in, or it might as well not be there.
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::build::{Build, write_changed};
use super::{boot, transcript};
use crate::job::{Ended, Outcome};
use crate::root;
use table::all;

/// What the kernel is built from.
const SOURCES: &[&str] = &["Cargo.toml", "kernel", "crates/pagewarden", "crates/pagewarden-copy"];
/// A kernel that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(10);
/// So many checks that failed without being named are told.
const OTHERS: usize = 3;

/// A kernel with a fault.
struct Wrong {
    name: &'static str,
    /// In the repository.
    file: &'static str,
    /// Stands in the file once.
    text: &'static str,
    instead: &'static str,
    /// How the checks begin that must not pass, as they stand in `kernel/transcript.txt`.
    fails: &'static [&'static str],
}

impl Wrong {
    fn apply(&self, text: &str) -> Result<String> {
        let count = text.matches(self.text).count();
        ensure!(count == 1, "{}: its text stands {count} times in {}, not once", self.name, self.file);
        ensure!(self.text != self.instead, "{}: it changes nothing", self.name);
        Ok(text.replacen(self.text, self.instead, 1))
    }

    /// What is wrong with the entry itself.
    fn problems(&self, sources: &Path, expected: &str) -> Vec<String> {
        let read = fs::read_to_string(sources.join(self.file)).with_context(|| format!("{}: {}", self.name, self.file));
        let mut problems: Vec<String> =
            read.and_then(|text| self.apply(&text)).err().map(|error| format!("{error:#}")).into_iter().collect();
        if self.fails.is_empty() {
            problems.push(format!("{}: it names no check", self.name));
        }
        for check in self.fails {
            let count = transcript::passed(expected).filter(|listed| listed.starts_with(check)).count();
            if count != 1 {
                problems.push(format!("{}: {count} checks begin with \"{check}\", not one", self.name));
            }
        }
        problems
    }

    /// How a boot showed that the kernel is wrong; an error if it did not.
    fn noticed(&self, expected: &str, outcome: &Outcome) -> Result<String> {
        for check in self.fails {
            let passed = transcript::passed(&outcome.stdout).any(|line| transcript::after(check, line).is_some());
            ensure!(!passed, "\"{check}\" passes all the same{}", others(outcome));
        }
        ensure!(transcript::check(expected, outcome).is_err(), "its boot is as expected");
        let failed = |line: &&str| self.fails.iter().any(|check| transcript::after(check, line).is_some());
        if let Some(line) = transcript::failed(&outcome.stdout).find(failed) {
            return Ok(line.to_owned());
        }
        Ok(early_end(outcome).unwrap_or_else(|| "the check is not there".to_owned()))
    }

    /// Whether `check` has noticed a kernel that said this: it says so itself, or the entry names it. One that is merely
    /// not there may have been cut off by the failure of another.
    fn proves(&self, check: &str, said: &str) -> bool {
        self.fails.iter().any(|start| check.starts_with(start))
            || transcript::failed(said).any(|line| fails(check, line))
    }
}

/// What noticed a kernel besides the checks that should have: it helps who looks for the right ones.
fn others(outcome: &Outcome) -> String {
    let failed = transcript::failed(&outcome.stdout).take(OTHERS).map(str::to_owned);
    failed.chain(early_end(outcome)).map(|text| format!("\n            but: {text}")).collect()
}

/// How a boot ended that did not come to its end, and the last that the kernel said.
fn early_end(outcome: &Outcome) -> Option<String> {
    let came_to_its_end = matches!(outcome.ended, Ended::Code(boot::PASSED | boot::FAILED));
    let last = outcome.stdout.trim_end().lines().next_back().unwrap_or_default();
    (!came_to_its_end).then(|| format!("{}, after: {last}", boot::describe(outcome)))
}

/// Whether `line` says that `check` failed.
fn fails(check: &str, line: &str) -> bool {
    transcript::after(check, line).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// `cargo xtask kernel --wrong`: boots the wrong kernels of these names, or all.
pub(super) fn run(names: &[String]) -> Result<()> {
    let chosen = choose(names)?;
    let expected = transcript::expected()?;
    let problems: Vec<String> = all().flat_map(|wrong| wrong.problems(&root(), &expected)).collect();
    ensure!(problems.is_empty(), "wrong kernels that do not fit any more:\n{}", problems.join("\n"));
    let outcome = boot_copy(None)?;
    transcript::check(&expected, &outcome).context("the kernel is wrong as it is")?;
    let mut unproved: Vec<&str> = transcript::passed(&expected).collect();
    let missed = boot_all(&chosen, &expected, &mut unproved);
    println!("\n{} wrong kernels noticed, {} missed", chosen.len() - missed.len(), missed.len());
    ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    let (count, list) = (unproved.len(), unproved.join("\n  "));
    ensure!(count == 0 || !names.is_empty(), "{count} checks have no wrong kernel that they fail in:\n  {list}");
    Ok(())
}

/// The names of those that nothing noticed. Takes the checks that were seen to notice something off `unproved`.
fn boot_all(chosen: &[&Wrong], expected: &str, unproved: &mut Vec<&str>) -> Vec<&'static str> {
    let width = chosen.iter().map(|wrong| wrong.name.len()).max().unwrap_or(0);
    let mut missed = Vec::new();
    for wrong in chosen {
        let started = Instant::now();
        let noticed = boot_copy(Some(wrong)).and_then(|outcome| {
            let how = wrong.noticed(expected, &outcome)?;
            unproved.retain(|check| !wrong.proves(check, &outcome.stdout));
            Ok(how)
        });
        let seconds = started.elapsed().as_secs_f64();
        let (word, how) = match noticed {
            Ok(how) => ("noticed", how),
            Err(error) => {
                missed.push(wrong.name);
                ("MISSED ", format!("{error:#}"))
            }
        };
        println!("  {word} {:width$} {seconds:5.1} s  {how}", wrong.name);
    }
    missed
}

/// The wrong kernels of these names, or all.
fn choose(names: &[String]) -> Result<Vec<&'static Wrong>> {
    for name in names {
        ensure!(all().any(|wrong| wrong.name == name), "no wrong kernel is called {name}");
    }
    let chosen = all().filter(|wrong| names.is_empty() || names.iter().any(|name| name == wrong.name));
    Ok(chosen.collect())
}

/// Builds and boots the kernel, with a fault or as it is, in the copy of its sources.
fn boot_copy(wrong: Option<&Wrong>) -> Result<Outcome> {
    let folder = super::folder("kernel-wrong");
    let sources = folder.join("sources");
    let mut files = read(&root(), SOURCES)?;
    if let Some(wrong) = wrong {
        let file = files.get_mut(Path::new(wrong.file)).with_context(|| format!("{} is not copied", wrong.file))?;
        *file = wrong.apply(std::str::from_utf8(file)?)?.into_bytes();
    }
    write(&sources, &files)?;
    let build = Build {
        sources,
        target: folder.join("target"),
        environment: &[
            ("CARGO_INCREMENTAL", "1"),
            ("CARGO_TERM_QUIET", "true"),
            // Code with a fault may well be code that a lint is against.
            ("RUSTFLAGS", "--cap-lints=allow"),
        ],
    };
    boot::USUAL.boot(&build.image()?, LIMIT, |_| ())
}

/// The files below some places of a folder, by their path in it; none that a build has made.
fn list(folder: &Path, places: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        let full = folder.join(&path);
        if !full.is_dir() {
            files.push(path);
            continue;
        }
        for entry in fs::read_dir(&full)? {
            let name = entry?.file_name();
            if name != "target" {
                left.push(path.join(name));
            }
        }
    }
    Ok(files)
}

fn read(folder: &Path, places: &[&str]) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let read = |path: PathBuf| {
        let contents = fs::read(folder.join(&path)).with_context(|| format!("reading {}", path.display()))?;
        Ok((path, contents))
    };
    list(folder, places)?.into_iter().map(read).collect()
}

/// Makes a folder hold these files and no others. Those that are the same keep their time, by which cargo goes.
fn write(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    fs::create_dir_all(folder)?;
    for old in list(folder, &[""])? {
        if !files.contains_key(&old) {
            fs::remove_file(folder.join(old))?;
        }
    }
    for (path, contents) in files {
        let file = folder.join(path);
        fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        write_changed(&file, contents)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
