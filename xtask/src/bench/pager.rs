//! The parts of the pager against their peers: builds the bench crate and hands over to it.

use std::process::Command;

use anyhow::{Result, ensure};

use super::vmmap::build;
use crate::PassedOn;

/// `cargo xtask bench pager`.
pub(crate) fn run(args: &PassedOn) -> Result<()> {
    let status = Command::new(build(&["pagewarden-bench"])?).arg("pager").args(&args.options).status()?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}
