//! `cargo xtask bench`: what pagewarden costs, and how its map of regions, its pager and its capabilities do.

pub(crate) mod calls;
pub(crate) mod instructions;
pub(crate) mod pager;
pub(crate) mod run;
pub(crate) mod vmmap;
