//! Images that are refused. Each is that of a program that runs, with one thing wrong.

use alloc::string::String;
use alloc::vec::Vec;

use pagewarden::Limits;
use pagewarden_kernel_loader::ImageError;

use super::expect;
use crate::machine::kernel;
use crate::memory::size;
use crate::process::{Process, SpawnError};
use crate::programs;
use crate::transcript::report;

/// Where things are in the header of a file.
mod header {
    pub(super) const CLASS: usize = 4;
    pub(super) const KIND: usize = 16;
    pub(super) const MACHINE: usize = 18;
    pub(super) const ENTRY: usize = 24;
    pub(super) const HEADERS: usize = 32;
    pub(super) const HEADER_COUNT: usize = 56;
}

/// Where things are in the header of a segment.
mod segment {
    pub(super) const BYTES: usize = 56;
    pub(super) const KIND: usize = 0;
    pub(super) const FLAGS: usize = 4;
    pub(super) const OFFSET: usize = 8;
    pub(super) const ADDRESS: usize = 16;
    pub(super) const MEMORY_BYTES: usize = 40;
}

/// An image that can be changed.
struct Patched(Vec<u8>);

impl Patched {
    fn word(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(word)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_word(&mut self, at: usize, word: u64) {
        self.put(at, &word.to_le_bytes());
    }

    /// Where the header of the segment numbered `number` is, of those that are loaded.
    fn segment(&self, number: usize) -> usize {
        const LOADED: [u8; 4] = [1, 0, 0, 0];
        let first = size(self.word(header::HEADERS));
        let all = (first..).step_by(segment::BYTES).take(usize::from(self.0[header::HEADER_COUNT]));
        let mut loaded = all.filter(|at| self.0[*at + segment::KIND..][..4] == LOADED);
        loaded.nth(number).expect("a program with so many segments")
    }

    fn put_in_segment(&mut self, number: usize, field: usize, word: u64) {
        self.put_word(self.segment(number) + field, word);
    }
}

type Change = fn(&mut Patched);

const REFUSED: [(ImageError, Change); 13] = [
    (ImageError::NotElf, |image| image.put(0, b"#!/bin/sh")),
    (ImageError::Truncated, |image| image.0.truncate(60)),
    (ImageError::Class, |image| image.put(header::CLASS, &[1])),
    (ImageError::Machine, |image| image.put(header::MACHINE, &[0xb7])),
    (ImageError::PositionIndependent, |image| image.put(header::KIND, &[3])),
    (ImageError::HeadersOutside, |image| image.put_word(header::HEADERS, u64::MAX - 8)),
    (ImageError::NoSegment, |image| image.put(header::HEADER_COUNT, &[0])),
    (ImageError::SegmentOutside, |image| image.put_in_segment(0, segment::OFFSET, 1 << 40)),
    (ImageError::MemoryTooSmall, |image| image.put_in_segment(0, segment::MEMORY_BYTES, 1)),
    (ImageError::AboveUserSpace, |image| {
        let address = image.segment(0) + segment::ADDRESS;
        let low = image.word(address) & 0xfff;
        image.put_word(address, 0xffff_8000_0000_0000 | low);
    }),
    (ImageError::Overlap, |image| {
        let first = image.word(image.segment(0) + segment::ADDRESS) & !0xfff;
        let second = image.segment(1) + segment::ADDRESS;
        image.put_word(second, first | image.word(second) & 0xfff);
    }),
    (ImageError::WritableAndExecutable, |image| {
        let at = image.segment(0) + segment::FLAGS;
        image.put(at, &[7, 0, 0, 0]);
    }),
    (ImageError::Entry, |image| image.put_word(header::ENTRY, 0x10_0000)),
];

pub(super) fn check() {
    let Some(good) = programs::image("hello") else {
        return report(format_args!("images that are wrong are refused"), Err("there is no program to change"));
    };
    for (wanted, change) in REFUSED {
        let mut image = Patched(good.to_vec());
        change(&mut image);
        report(format_args!("refused: {wanted}"), refused(&image.0, wanted));
    }
}

/// Whether an image is refused for `wanted`, and nothing is used afterwards that was not before.
fn refused(image: &[u8], wanted: ImageError) -> Result<(), String> {
    let before = kernel().books();
    let account = kernel().ledger.root().child(Limits::UNLIMITED);
    match Process::load("refused", image, account, Limits::UNLIMITED) {
        Ok(_) => Err(String::from("it was loaded")),
        Err(error) => {
            expect(SpawnError::Image(wanted), error)?;
            expect(before, kernel().books())
        }
    }
}
