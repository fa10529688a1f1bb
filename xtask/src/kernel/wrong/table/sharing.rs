//! Noticed by the checks of memory objects, records, bad pointers, the other world, and the end.

use crate::kernel::wrong::Wrong;

pub(super) const WRONG: &[Wrong] = &[];
