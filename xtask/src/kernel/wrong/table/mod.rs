//! The wrong kernels, by the part of the transcript that notices them.
mod faults;
mod memory;
mod other_world;
mod programs;
mod protection;
mod sharing;

use super::Wrong;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Wrong> {
    [protection::WRONG, programs::WRONG, faults::WRONG, memory::WRONG, sharing::WRONG, other_world::WRONG]
        .into_iter()
        .flatten()
}
