//! The parts of the pager against their peers, what capabilities cost, and foreign memory: builds the bench crate and hands
//! over to it.

use std::process::Command;

use anyhow::{Result, ensure};

use super::vmmap::build;
use crate::PassedOn;

/// `cargo xtask bench pager`, `cargo xtask bench capabilities` and `cargo xtask bench phys`.
pub(crate) fn run(what: &str, args: &PassedOn) -> Result<()> {
    let status = Command::new(build(&["pagewarden-bench"])?).arg(what).args(&args.options).status()?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}
