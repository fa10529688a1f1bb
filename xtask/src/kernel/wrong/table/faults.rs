//! Noticed by the checks of faults, forks and threads.

use crate::kernel::wrong::Wrong;

pub(super) const WRONG: &[Wrong] = &[];
