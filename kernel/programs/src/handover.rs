//! What a parent and the child that it hands memory to agree on.

/// How many pages there are.
pub const COUNT: u64 = 4;
/// What the parent fills them with.
pub const PARENTS: u64 = 1;
/// What the child fills them with.
pub const CHILDS: u64 = 2;
