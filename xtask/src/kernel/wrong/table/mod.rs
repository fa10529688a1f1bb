//! The wrong kernels, by the part of the transcript that notices them.
mod faults;
mod memory;
mod protection;
mod sharing;

use super::Wrong;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Wrong> {
    [protection::WRONG, faults::WRONG, memory::WRONG, sharing::WRONG].into_iter().flatten()
}
