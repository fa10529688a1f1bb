//! The same work, done by pagewarden's map of regions and by its peers.
//!
//! Owns the peers behind one trait, the workloads and the measurement. Outside: the map itself, and what a whole
//! run of a program costs (`cargo xtask bench run`).

pub mod bytes;
pub mod capabilities;
pub mod check;
pub mod map;
pub mod measure;
pub mod pager;
pub mod peers;
pub mod phys;
pub mod random;
pub mod replay;
pub mod report;
pub mod trace;
pub mod vmmap;
pub mod work;
