//! Recorded memory calls of real programs, as edits of a map of regions.
