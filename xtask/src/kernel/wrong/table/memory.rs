//! Noticed by the checks of reservations, quotas, and no frames left.

use crate::kernel::wrong::Wrong;

pub(super) const WRONG: &[Wrong] = &[];
