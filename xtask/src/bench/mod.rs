//! `cargo xtask bench`: what pagewarden costs, and how its map of regions does.

pub(crate) mod calls;
pub(crate) mod instructions;
pub(crate) mod run;
pub(crate) mod vmmap;
