//! A builder of images.

use std::vec;
use std::vec::Vec;

pub(super) const LOAD: u32 = 1;
pub(super) const INTERP: u32 = 3;
pub(super) const NOTE: u32 = 4;
pub(super) const TLS: u32 = 7;
pub(super) const GNU_STACK: u32 = 0x6474_e551;
pub(super) const GNU_RELRO: u32 = 0x6474_e552;

pub(super) const X: u32 = 1;
pub(super) const W: u32 = 2;
pub(super) const R: u32 = 4;

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const PROGRAM_HEADER_BYTES: usize = 56;

/// A program header.
#[derive(Clone, Copy)]
pub(super) struct Program {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) align: u64,
}

impl Program {
    pub(super) fn new(kind: u32, flags: u32, offset: u64, address: u64, sizes: (u64, u64)) -> Self {
        Self { kind, flags, offset, address, file_bytes: sizes.0, memory_bytes: sizes.1, align: 0x1000 }
    }

    fn to_bytes(self) -> Vec<u8> {
        let words = [self.offset, self.address, self.address, self.file_bytes, self.memory_bytes, self.align];
        let mut bytes = [self.kind.to_le_bytes(), self.flags.to_le_bytes()].concat();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }
}

/// All of an image.
#[derive(Clone)]
pub(super) struct Elf {
    pub(super) ident: [u8; 16],
    pub(super) kind: u16,
    pub(super) machine: u16,
    pub(super) version: u32,
    pub(super) entry: u64,
    /// Where the header says that the program headers are; they are put at this place if it is a small one.
    pub(super) headers_at: u64,
    pub(super) header_bytes: u16,
    pub(super) program_header_bytes: u16,
    /// How many program headers there are said to be, if not as many as there are.
    pub(super) count: Option<u16>,
    pub(super) programs: Vec<Program>,
    pub(super) file_bytes: usize,
}

/// Index of a program header of [`Elf::usual`].
pub(super) const TEXT: usize = 1;
pub(super) const RODATA: usize = 2;
pub(super) const DATA: usize = 3;

impl Elf {
    /// Text with the headers, constants, data with zeros after it, and what else linkers put in.
    pub(super) fn usual() -> Self {
        let mut ident = [0; 16];
        ident[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        Self {
            ident,
            kind: 2,
            machine: 62,
            version: 1,
            entry: 0x40_1000,
            headers_at: 64,
            header_bytes: 64,
            program_header_bytes: 56,
            count: None,
            programs: vec![
                Program::new(GNU_STACK, R | W, 0, 0, (0, 0)),
                Program::new(LOAD, R | X, 0, 0x40_0000, (0x1234, 0x1234)),
                Program::new(LOAD, R, 0x2010, 0x40_2010, (0x20, 0x20)),
                Program::new(LOAD, R | W, 0x3080, 0x60_4080, (0x1000, 0x3000)),
                Program::new(TLS, R, 0x3080, 0x60_4080, (8, 16)),
                Program::new(NOTE, R, 0x2010, 0x40_2010, (16, 16)),
                Program::new(GNU_RELRO, R, 0x3080, 0x60_4080, (0x10, 0x10)),
            ],
            file_bytes: 0x4080,
        }
    }

    /// The file: headers, and bytes that tell by their value where they are.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..self.file_bytes).map(filling).collect();
        let count = self.count.unwrap_or_else(|| u16::try_from(self.programs.len()).unwrap());
        let header = [
            &self.ident[..],
            &self.kind.to_le_bytes(),
            &self.machine.to_le_bytes(),
            &self.version.to_le_bytes(),
            &self.entry.to_le_bytes(),
            &self.headers_at.to_le_bytes(),
            &[0; 12],
            &self.header_bytes.to_le_bytes(),
            &self.program_header_bytes.to_le_bytes(),
            &count.to_le_bytes(),
            &[0; 6],
        ]
        .concat();
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        let programs: Vec<u8> = self.programs.iter().flat_map(|program| program.to_bytes()).collect();
        let at = usize::try_from(self.headers_at).unwrap_or(usize::MAX);
        if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..programs.len())) {
            place.copy_from_slice(&programs);
        }
        bytes
    }
}

/// The byte of a file at `offset`, where no header is.
fn filling(offset: usize) -> u8 {
    u8::try_from(offset % 251).unwrap() | 1
}
