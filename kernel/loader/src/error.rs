//! What can be wrong with an image, and why a good one is not loaded.

use core::fmt;

use pagewarden::Errno;
use pagewarden::manager::Refusal;
use pagewarden::pager::CopyFault;

/// `ENOEXEC`.
const NOT_EXECUTABLE: Errno = Errno::from_raw(8);
/// `E2BIG`.
const TOO_LONG: Errno = Errno::from_raw(7);

macro_rules! image_errors {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why an image is not loaded.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ImageError {
            $($(#[$doc])* $name,)*
        }

        impl fmt::Display for ImageError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

image_errors! {
    /// It does not begin as ELF does.
    NotElf = "not an ELF image";
    /// It ends before its header does.
    Truncated = "the image ends inside of its header";
    /// Of 32 bits, or big-endian.
    Class = "not of 64 bits, little-endian";
    /// Of a version other than 1.
    Version = "not of ELF's version 1";
    /// Not for x86-64.
    Machine = "not for x86-64";
    /// Neither an executable nor position-independent.
    Type = "not an executable";
    /// Position-independent (`ET_DYN`): it would have to be relocated.
    PositionIndependent = "position-independent, which needs relocation";
    /// Its headers do not have the sizes that they have in ELF.
    HeaderSizes = "headers of the wrong sizes";
    /// More program headers than [`Image::HEADERS_MAX`](crate::Image::HEADERS_MAX).
    TooManyHeaders = "too many program headers";
    /// Program headers that are not in the file.
    HeadersOutside = "program headers outside of the file";
    /// It wants to be started by another program (`PT_INTERP`).
    Interpreter = "needs an interpreter";
    /// It wants a stack that can be executed (`PT_GNU_STACK`).
    ExecutableStack = "wants an executable stack";
    /// A segment's bytes are not in the file.
    SegmentOutside = "a segment outside of the file";
    /// A segment has more bytes than memory.
    MemoryTooSmall = "a segment with less memory than bytes";
    /// A segment's alignment is no power of two.
    Alignment = "a segment whose alignment is no power of two";
    /// A segment's address and offset differ modulo a page.
    NotCongruent = "a segment whose address and offset differ modulo a page";
    /// A segment begins below the lowest address that a program may map.
    BelowUserSpace = "a segment below the addresses of programs";
    /// A segment ends above the addresses of programs, be it in the upper half.
    AboveUserSpace = "a segment above the addresses of programs";
    /// A segment's end is no address.
    Overflow = "a segment whose end is no address";
    /// A segment can be written and executed.
    WritableAndExecutable = "a segment that is writable and executable";
    /// Two segments share a page.
    Overlap = "segments that share a page";
    /// Segments are not in the order of their addresses, as ELF has them.
    Unordered = "segments that are not in the order of their addresses";
    /// There is nothing to load.
    NoSegment = "no segment";
    /// The entry does not lie in an executable segment.
    Entry = "an entry outside of the executable segments";
}

impl core::error::Error for ImageError {}

impl From<ImageError> for Errno {
    /// `ENOEXEC`, whatever is wrong.
    fn from(_: ImageError) -> Self {
        NOT_EXECUTABLE
    }
}

/// Why a program is not in memory now. What there was of it is gone again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The space refuses memory, or the rights that it should have.
    Refused(Refusal),
    /// No memory for what should be in it.
    Copy(CopyFault),
    /// The arguments do not fit on the stack.
    TooLong,
    /// An argument with a zero inside, which a program would take for its end.
    ZeroInside,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "memory is refused: {refusal}"),
            Self::Copy(fault) => write!(f, "memory cannot be filled: {fault}"),
            Self::TooLong => f.write_str("the arguments are too long"),
            Self::ZeroInside => f.write_str("an argument has a zero inside"),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<Refusal> for LoadError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CopyFault> for LoadError {
    fn from(fault: CopyFault) -> Self {
        Self::Copy(fault)
    }
}

impl From<LoadError> for Errno {
    /// That of the call or the copy; `E2BIG` for arguments that are too long.
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Refused(refusal) => refusal.errno,
            LoadError::Copy(fault) => fault.into(),
            LoadError::TooLong => TOO_LONG,
            LoadError::ZeroInside => Self::Inval,
        }
    }
}
