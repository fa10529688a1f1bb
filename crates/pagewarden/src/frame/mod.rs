//! Frames: pages of physical memory.

mod number;

pub use number::{FrameNumber, FrameRange};
