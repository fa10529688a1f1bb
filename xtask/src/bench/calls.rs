//! Memory calls in an arena against the host's own: hands over to the benchmark of `pagewarden-linux`, which is where
//! unsafe code may be.

use anyhow::{Context, Result, ensure};

use crate::PassedOn;
use crate::lab::cargo;

/// `cargo xtask bench calls`.
pub(crate) fn run(args: &PassedOn) -> Result<()> {
    let status = cargo()
        .args(["bench", "--quiet", "--package", "pagewarden-linux", "--bench", "calls", "--"])
        .args(&args.options)
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "a goal was missed, or the benchmark failed: {status}");
    Ok(())
}
