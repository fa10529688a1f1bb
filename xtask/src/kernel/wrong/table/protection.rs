//! Noticed by the checks of protection, images, and what a program finds.

use crate::kernel::wrong::Wrong;

pub(super) const WRONG: &[Wrong] = &[];
