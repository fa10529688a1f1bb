//! Which instructions become calls, and the imports that they become calls of.

use wasm_encoder::ValType;
use wasmparser::Operator;

/// The module that the imports are of.
pub(super) const IMPORT_MODULE: &str = "pagewarden:memory";

/// An import that stands for an instruction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum MemoryCall {
    /// `size() -> pages`, of 64 KiB.
    Size,
    /// `grow(pages) -> pages before, or -1`.
    Grow,
    /// `copy(to, from, bytes)`.
    Copy,
    /// `fill(to, byte, bytes)`.
    Fill,
    /// `init(to, from, bytes, segment)`, where `from` is an offset in the segment. That comes last because the others are on
    /// the stack when the instruction is reached.
    Init,
    /// `drop(segment)`.
    Drop,
}

impl MemoryCall {
    /// What `operator` becomes a call of, with the segment that it names.
    pub(super) const fn of(operator: &Operator<'_>) -> Option<(Self, Option<u32>)> {
        match operator {
            Operator::MemorySize { .. } => Some((Self::Size, None)),
            Operator::MemoryGrow { .. } => Some((Self::Grow, None)),
            Operator::MemoryCopy { .. } => Some((Self::Copy, None)),
            Operator::MemoryFill { .. } => Some((Self::Fill, None)),
            Operator::MemoryInit { data_index, .. } => Some((Self::Init, Some(*data_index))),
            Operator::DataDrop { data_index } => Some((Self::Drop, Some(*data_index))),
            _ => None,
        }
    }

    /// The import's name in [`IMPORT_MODULE`].
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Grow => "grow",
            Self::Copy => "copy",
            Self::Fill => "fill",
            Self::Init => "init",
            Self::Drop => "drop",
        }
    }

    /// The types of what it takes and what it gives.
    pub(super) const fn signature(self) -> (&'static [ValType], &'static [ValType]) {
        const I32: ValType = ValType::I32;
        match self {
            Self::Size => (&[], &[I32]),
            Self::Grow => (&[I32], &[I32]),
            Self::Copy | Self::Fill => (&[I32, I32, I32], &[]),
            Self::Init => (&[I32, I32, I32, I32], &[]),
            Self::Drop => (&[I32], &[]),
        }
    }
}
