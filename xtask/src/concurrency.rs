//! The core's threads under loom and shuttle; its threads, and those of a Linux host, under ThreadSanitizer.
//!
//! All need flags for every crate that is built, so each has a target folder of its own.
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::cargo;
use crate::step::{Steps, Verdict};
use crate::{job, target};

/// What ThreadSanitizer is there for.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// `cargo xtask interleavings`.
pub(crate) fn run_interleavings() -> Result<()> {
    summarize("interleavings", interleavings)
}

/// `cargo xtask sanitizer`.
pub(crate) fn run_sanitizer() -> Result<()> {
    summarize("ThreadSanitizer", sanitizer)
}

fn summarize(name: &str, step: fn() -> Result<Verdict>) -> Result<()> {
    let mut steps = Steps::default();
    steps.run(name, step);
    steps.summary("steps")
}

/// Small cases of threads in every order, and larger ones in many.
pub(crate) fn interleavings() -> Result<Verdict> {
    for (name, checker) in [("interleavings", "loom"), ("many_orders", "shuttle")] {
        let mut command = test("pagewarden", name, checker);
        job::pass(command.arg("--release").env("RUSTFLAGS", format!("--cfg {checker}")))?;
    }
    Ok(Verdict::Passed)
}

/// Many threads in the machine's own orders, with every access watched. std must be built with the sanitizer as well,
/// or its locks are taken for races; that needs its source and an option that is not stable yet.
pub(crate) fn sanitizer() -> Result<Verdict> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        return Ok(Verdict::Skipped(format!("this is not {HOST}")));
    }
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("starting rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let library = sysroot.join("lib/rustlib/src/rust/library/Cargo.toml");
    if !library.exists() {
        return Ok(Verdict::Skipped("the source of std is not installed (rustup component add rust-src)".to_owned()));
    }
    let mut fetch = cargo();
    fetch.args(["fetch", "--quiet", "--locked", "--target", HOST, "--manifest-path"]).arg(library);
    let has_crates = fetch.env("RUSTC_BOOTSTRAP", "1").stderr(Stdio::null()).status()?.success();
    if !has_crates {
        return Ok(Verdict::Skipped("the crates that std is built from cannot be fetched".to_owned()));
    }
    for (package, name, filter) in [("pagewarden", "threads", ""), ("pagewarden-linux", "foreign", "threads::")] {
        let mut command = test(package, name, "sanitizer");
        command.args(["-Zbuild-std", "--target", HOST, "--", filter]);
        job::pass(command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=thread"))?;
    }
    Ok(Verdict::Passed)
}

fn test(package: &str, name: &str, folder: &str) -> Command {
    let mut command = cargo();
    command.args(["test", "--package", package, "--test", name, "--target-dir"]).arg(target().join(folder));
    command
}
