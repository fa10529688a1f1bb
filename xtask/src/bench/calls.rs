//! Memory calls in an arena against the host's own, and cages against Wasmtime: hands over to the benchmarks of the crates
//! that these are in.

use anyhow::{Context, Result, ensure};

use crate::PassedOn;
use crate::lab::cargo;

/// `cargo xtask bench calls`.
pub(crate) fn run(args: &PassedOn) -> Result<()> {
    hand_over("pagewarden-linux", "calls", args)
}

/// `cargo xtask bench cages`.
pub(crate) fn run_cages(args: &PassedOn) -> Result<()> {
    hand_over("pagewarden-cage", "cages", args)
}

fn hand_over(package: &str, bench: &str, args: &PassedOn) -> Result<()> {
    let status = cargo()
        .args(["bench", "--quiet", "--package", package, "--bench", bench, "--"])
        .args(&args.options)
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "a goal was missed, or the benchmark failed: {status}");
    Ok(())
}
