//! The maps that are compared: pagewarden's, and what others use or what comes to mind.
//!
//! Each is written as one who likes it would write it: one descent where one is enough, edits in place where only
//! bounds change. None knows of the workload.

mod arceos;
mod btree;
mod indexed;
mod nodits;
mod ordmap;
mod ours;
mod rangemaps;
mod rb;
mod sorted;

pub use arceos::Areas;
pub use btree::BTree;
pub use indexed::IndexedBTree;
pub use nodits::Nodit;
pub use ordmap::Persistent;
pub use ours::Ours;
pub use rangemaps::{LiteBoxRanges, Ranges};
pub use rb::RedBlack;
pub use sorted::SortedVec;
