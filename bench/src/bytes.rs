//! How much memory a map takes: what it asked of the allocator and did not give back.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The program that counts; it lies beside this one.
const COUNTER: &str = "pagewarden-bench-bytes";

/// What one filled map takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bytes {
    /// The name of the map.
    pub peer: String,
    /// How many regions it holds.
    pub regions: usize,
    /// Bytes on the heap, the map itself among them.
    pub live: usize,
}

/// Has the other program count for all maps with each of `sizes`.
///
/// # Errors
/// If it is not there or fails.
pub fn count(sizes: &[usize]) -> Result<Vec<Bytes>> {
    let program = std::env::current_exe()?.with_file_name(COUNTER);
    let mut command = Command::new(&program);
    let output = command.args(sizes.iter().map(usize::to_string)).output();
    let output = output.with_context(|| format!("starting {}, which is to be built as well", program.display()))?;
    ensure!(output.status.success(), "{COUNTER}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}
