//! The parts of the pager against their peers, and what capabilities cost: builds the bench crate and hands over to it.

use std::process::Command;

use anyhow::{Result, ensure};

use super::vmmap::build;
use crate::PassedOn;

/// `cargo xtask bench pager` and `cargo xtask bench capabilities`.
pub(crate) fn run(what: &str, args: &PassedOn) -> Result<()> {
    let status = Command::new(build(&["pagewarden-bench"])?).arg(what).args(&args.options).status()?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}
