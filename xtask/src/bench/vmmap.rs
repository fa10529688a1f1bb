//! The map of regions against its peers: builds the bench crate and hands over to it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::cargo;
use crate::{PassedOn, target};

/// Builds programs of the bench crate; where the one that measures is.
pub(super) fn build(programs: &[&str]) -> Result<PathBuf> {
    let status = cargo()
        .args(["build", "--quiet", "--release", "--package", "pagewarden-bench"])
        .args(programs.iter().flat_map(|program| ["--bin", program]))
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the bench crate does not build");
    Ok(target().join("release/pagewarden-bench"))
}

/// `cargo xtask bench vmmap`.
pub(crate) fn run(args: &PassedOn) -> Result<()> {
    let status = Command::new(build(&["pagewarden-bench", "pagewarden-bench-bytes"])?)
        .arg("vmmap")
        .args(&args.options)
        .status()?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}
