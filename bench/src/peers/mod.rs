//! The maps that are compared: pagewarden's, and what others use or what comes to mind.
//!
//! Each is written as one who likes it would write it: one descent where one is enough, edits in place where only
//! bounds change. None knows of the workload.

mod btree;
mod indexed;
mod ours;
mod rb;
mod sorted;

pub use btree::BTree;
pub use indexed::IndexedBTree;
pub use ours::Ours;
pub use rb::RedBlack;
pub use sorted::SortedVec;
