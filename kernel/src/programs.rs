//! The programs that are built into the image.

use alloc::sync::Arc;

use pagewarden::{Account, Limits};

use crate::process::{Process, SpawnError};

include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// The image of a program.
pub(crate) fn image(name: &str) -> Option<&'static [u8]> {
    PROGRAMS.iter().find(|(program, _)| *program == name).map(|(_, image)| *image)
}

/// A process for the program `name`, which does not run yet.
///
/// # Errors
/// There is none of this name; else as [`Process::load`].
pub(crate) fn load(name: &str, account: Account, limits: Limits) -> Result<Arc<Process>, SpawnError> {
    Process::load(name, image(name).ok_or(SpawnError::NoProgram)?, account, limits)
}
