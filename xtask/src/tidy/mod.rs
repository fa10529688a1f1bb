//! Rules of the repository that no compiler checks.
//!
//! Owns the rules and where they hold. [`source`] tells code from comments and strings, so that a word in a
//! sentence is not taken for code.
mod names;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::root;
use source::{Source, has_word, is_name};

/// Longer files are to be split.
const MAX_LINES: usize = 600;
/// Where unsafe code may be: two crates, where cages meet the runtime, signals and stacks, where windows become slices, what
/// the bench needs to give its peers memory of their own, the kernel itself and its programs.
const UNSAFE_PLACES: &[&str] = &[
    "crates/pagewarden-cage/src/memory.rs",
    "crates/pagewarden-cage/src/signals.rs",
    "crates/pagewarden-cage/src/stack.rs",
    "crates/pagewarden-copy/",
    "crates/pagewarden-linux/",
    "crates/pagewarden-vm-memory/src/region.rs",
    "bench/src/pager/raw/",
    "kernel/src/",
    "kernel/programs/src/",
];
/// Macros that stand for code that is not there yet, or for debugging.
const MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
/// Words that stand for work that is not done.
const MARKS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];

/// Checks every Rust file of the repository, and that the tests which pages speak of are there.
pub(crate) fn run() -> Result<()> {
    let files = read_all(".rs")?;
    let pages = read_all(".md")?;
    let mut problems: Vec<String> = files.iter().flat_map(|(name, text)| check(name, text)).collect();
    let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
    problems.extend(pages.iter().flat_map(|(name, text)| names::missing(name, text, &texts)));
    if files.is_empty() {
        bail!("there is no Rust file to check");
    }
    if !problems.is_empty() {
        bail!("{} problems in {} files\n{}", problems.len(), files.len(), problems.join("\n"));
    }
    println!("          {} files are tidy", files.len());
    Ok(())
}

/// Names and texts of the files whose names end like this.
fn read_all(ending: &str) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    collect(&root(), ending, &mut files)?;
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok((file.strip_prefix(root()).unwrap_or(&file).to_string_lossy().into_owned(), text))
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, ending: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, ending, files)?;
            }
        } else if name.ends_with(ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// What is wrong with one file.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let length = text.lines().count();
    if length > MAX_LINES {
        problems.push(format!("{name}: {length} lines, more than {MAX_LINES}"));
    }
    if !text.starts_with("//!") {
        problems.push(format!("{name}:1: does not open with //!"));
    }
    let source = Source::read(text);
    for (number, line) in (1..).zip(&source.lines) {
        let mut report = |what: &str| problems.push(format!("{name}:{number}: {what}"));
        for word in MACROS.iter().filter(|word| has_macro(&line.code, word)) {
            report(&format!("{word}!"));
        }
        for word in MARKS.iter().filter(|word| has_word(&line.code, word) || has_word(&line.comment, word)) {
            report(word);
        }
        if has_word(&line.code, "unsafe") && !UNSAFE_PLACES.iter().any(|place| name.starts_with(place)) {
            report("unsafe outside of its places");
        }
        if is_ignored(&line.code) {
            report("a test that is ignored");
        }
        if line.comment.contains("```ignore") {
            report("an example that is not compiled");
        }
    }
    problems
}

fn has_macro(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let after = code[at + word.len()..].trim_start();
        !code[..at].ends_with(is_name) && after.starts_with('!') && !after.starts_with("!=")
    })
}

/// `#[ignore]`, `#[ignore = "why"]`, and both behind `cfg_attr`.
fn is_ignored(code: &str) -> bool {
    code.split("#[").skip(1).any(|attribute| {
        let attribute = attribute.trim_start();
        has_word(attribute, "ignore") && (attribute.starts_with("ignore") || attribute.starts_with("cfg_attr"))
    })
}

#[cfg(test)]
mod tests;
