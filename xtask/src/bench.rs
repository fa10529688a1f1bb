//! stub
use crate::BenchArgs;
use anyhow::Result;
pub(crate) fn run(_: &BenchArgs) -> Result<()> {
    Ok(())
}
