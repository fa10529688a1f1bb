//! Which images are refused, and what others say of themselves.

use std::string::ToString;
use std::vec;

use super::elf::{DATA, Elf, GNU_STACK, INTERP, LOAD, Program, R, RODATA, TEXT, W, X};
use crate::{Image, ImageError};
use pagewarden::manager::Break;
use pagewarden::{Errno, VirtAddr};

type Change = fn(&mut Elf);

fn parse(change: impl FnOnce(&mut Elf)) -> Result<(), ImageError> {
    let mut elf = Elf::usual();
    change(&mut elf);
    Image::parse(&elf.to_bytes()).map(|_| ())
}

#[track_caller]
fn check(rows: &[(ImageError, Change)]) {
    for (row, (error, change)) in rows.iter().enumerate() {
        assert_eq!(parse(change), Err(*error), "row {row}");
    }
}

#[test]
fn files_that_are_no_executables_for_this_machine_are_refused() {
    check(&[
        (ImageError::NotElf, |elf| elf.ident[0] = 0x7e),
        (ImageError::NotElf, |elf| elf.ident[3] = b'G'),
        (ImageError::Class, |elf| elf.ident[4] = 1),
        (ImageError::Class, |elf| elf.ident[5] = 2),
        (ImageError::Version, |elf| elf.ident[6] = 0),
        (ImageError::Version, |elf| elf.version = 2),
        (ImageError::Machine, |elf| elf.machine = 3),
        (ImageError::Machine, |elf| elf.machine = 183),
        (ImageError::Type, |elf| elf.kind = 1),
        (ImageError::Type, |elf| elf.kind = 4),
        (ImageError::PositionIndependent, |elf| elf.kind = 3),
        (ImageError::Interpreter, |elf| elf.programs[6].kind = INTERP),
        (ImageError::Interpreter, |elf| elf.programs[0].kind = INTERP),
    ]);
    assert_eq!(Image::parse(b"").unwrap_err(), ImageError::NotElf);
    assert_eq!(Image::parse(b"#!/bin/sh\n").unwrap_err(), ImageError::NotElf);
    assert_eq!(Image::parse(b"\x7fELF").unwrap_err(), ImageError::Truncated);
}

#[test]
fn program_headers_that_are_not_as_they_should_be_are_refused() {
    check(&[
        (ImageError::HeaderSizes, |elf| elf.header_bytes = 52),
        (ImageError::HeaderSizes, |elf| elf.program_header_bytes = 32),
        (ImageError::HeaderSizes, |elf| elf.program_header_bytes = 0),
        (ImageError::HeaderSizes, |elf| elf.program_header_bytes = 57),
        (ImageError::NoSegment, |elf| elf.count = Some(0)),
        (ImageError::TooManyHeaders, |elf| elf.count = Some(65)),
        (ImageError::TooManyHeaders, |elf| elf.count = Some(0xffff)),
        (ImageError::HeadersOutside, |elf| elf.headers_at = 0x4081),
        (ImageError::HeadersOutside, |elf| elf.headers_at = 0x4080 - 7 * 56 + 1),
        (ImageError::HeadersOutside, |elf| elf.headers_at = u64::MAX),
        (ImageError::HeadersOutside, |elf| elf.headers_at = u64::MAX - 7 * 56 + 1),
    ]);
    let most = |elf: &mut Elf| elf.programs.resize(64, Program::new(0, 0, 0, 0, (0, 0)));
    assert_eq!(parse(most), Ok(()), "so many may be");
    assert_eq!(parse(|elf| elf.headers_at = 0x4080 - 7 * 56), Ok(()), "at the end of the file, in nobody's way");
    assert_eq!(parse(|elf| elf.headers_at = 0x1771), Ok(()), "aligned or not");
}

#[test]
fn segments_that_are_not_in_the_file_are_refused() {
    check(&[
        (ImageError::SegmentOutside, |elf| elf.file_bytes -= 1),
        (ImageError::SegmentOutside, |elf| elf.programs[DATA].offset += 0x1000),
        (ImageError::SegmentOutside, |elf| elf.programs[DATA].offset = 0xffff_ffff_ffff_f080),
        (ImageError::SegmentOutside, |elf| elf.programs[RODATA].offset = 0x5010),
        (ImageError::SegmentOutside, |elf| {
            elf.programs[DATA].file_bytes = u64::MAX - 0x3000;
            elf.programs[DATA].memory_bytes = u64::MAX - 0x3000;
        }),
        (ImageError::MemoryTooSmall, |elf| elf.programs[RODATA].memory_bytes = 0x1f),
        (ImageError::MemoryTooSmall, |elf| elf.programs[TEXT].memory_bytes = 0),
    ]);
    let nowhere = |elf: &mut Elf| {
        elf.programs[RODATA].file_bytes = 0;
        elf.programs[RODATA].offset = 0xf_0010;
    };
    assert_eq!(parse(nowhere), Ok(()), "no bytes can be anywhere");
}

#[test]
fn segments_whose_addresses_no_program_may_have_are_refused() {
    check(&[
        (ImageError::Alignment, |elf| elf.programs[TEXT].align = 0x1800),
        (ImageError::Alignment, |elf| elf.programs[TEXT].align = 3),
        (ImageError::Alignment, |elf| elf.programs[TEXT].align = u64::MAX),
        (ImageError::NotCongruent, |elf| elf.programs[RODATA].address += 1),
        (ImageError::NotCongruent, |elf| elf.programs[RODATA].offset -= 0x800),
        (ImageError::BelowUserSpace, |elf| elf.programs[TEXT].address = 0),
        (ImageError::BelowUserSpace, |elf| elf.programs[TEXT].address = 0xf000),
        (ImageError::AboveUserSpace, |elf| elf.programs[DATA].address = 0x7fff_ffff_c080),
        (ImageError::AboveUserSpace, |elf| elf.programs[DATA].address = 0x8000_0000_0080),
        (ImageError::AboveUserSpace, |elf| elf.programs[DATA].address = 0xffff_8000_0000_0080),
        (ImageError::AboveUserSpace, |elf| elf.programs[DATA].address = 0xffff_ffff_ffff_c080),
        (ImageError::AboveUserSpace, |elf| elf.programs[DATA].memory_bytes = 1 << 63),
        (ImageError::Overflow, |elf| elf.programs[DATA].address = 0xffff_ffff_ffff_f080),
        (ImageError::Overflow, |elf| elf.programs[DATA].memory_bytes = u64::MAX),
    ]);
    for align in [0, 1, 1 << 63] {
        assert_eq!(parse(|elf| elf.programs[TEXT].align = align), Ok(()), "alignment {align:#x}");
    }
    let lowest = |elf: &mut Elf| (elf.programs[TEXT].address, elf.entry) = (0x1_0000, 0x1_0000);
    assert_eq!(parse(lowest), Ok(()));
    assert_eq!(parse(|elf| elf.programs[DATA].address = 0x7fff_ffff_b080), Ok(()), "up to the last page");
}

#[test]
fn segments_that_get_into_each_others_way_are_refused() {
    check(&[
        (ImageError::Overlap, |elf| elf.programs[TEXT].memory_bytes = 0x2001),
        (ImageError::Overlap, |elf| elf.programs[TEXT].memory_bytes = 0x10_0000),
        (ImageError::Overlap, |elf| elf.programs[RODATA].address = 0x40_1010),
        (ImageError::Overlap, |elf| elf.programs[DATA].address = 0x40_2080),
        (ImageError::Overlap, |elf| elf.programs[DATA].address = 0x40_1080),
        (ImageError::Unordered, |elf| elf.programs[DATA].address = 0x30_0080),
        (ImageError::Unordered, |elf| elf.programs.swap(TEXT, RODATA)),
    ]);
    assert_eq!(parse(|elf| elf.programs[TEXT].memory_bytes = 0x2000), Ok(()), "up to the next page");
    assert_eq!(parse(|elf| elf.programs.reverse()), Err(ImageError::Unordered));
}

#[test]
fn memory_that_is_writable_and_executable_is_refused() {
    check(&[
        (ImageError::WritableAndExecutable, |elf| elf.programs[TEXT].flags |= W),
        (ImageError::WritableAndExecutable, |elf| elf.programs[DATA].flags = W | X),
        (ImageError::ExecutableStack, |elf| elf.programs[0].flags |= X),
        (ImageError::ExecutableStack, |elf| elf.programs[6] = Program::new(GNU_STACK, X, 0, 0, (0, 0))),
    ]);
    assert_eq!(parse(|elf| elf.programs[TEXT].flags = X), Ok(()));
}

#[test]
fn images_that_cannot_start_are_refused() {
    check(&[
        (ImageError::NoSegment, |elf| elf.programs.retain(|program| program.kind != LOAD)),
        (ImageError::NoSegment, |elf| {
            elf.programs.iter_mut().for_each(|program| (program.file_bytes, program.memory_bytes) = (0, 0));
        }),
        (ImageError::Entry, |elf| elf.entry = 0),
        (ImageError::Entry, |elf| elf.entry = 0x3f_ffff),
        (ImageError::Entry, |elf| elf.entry = 0x40_1234),
        (ImageError::Entry, |elf| elf.entry = 0x40_2010),
        (ImageError::Entry, |elf| elf.entry = 0x60_4080),
        (ImageError::Entry, |elf| elf.programs[TEXT].flags = R),
    ]);
    assert_eq!(parse(|elf| elf.entry = 0x40_0000), Ok(()));
    assert_eq!(parse(|elf| elf.entry = 0x40_1233), Ok(()));
}

#[test]
fn an_error_says_what_is_wrong_and_is_enoexec() {
    assert_eq!(ImageError::Interpreter.to_string(), "needs an interpreter");
    assert_eq!(ImageError::NoSegment.to_string(), "no segment");
    assert_eq!(Errno::from(ImageError::Truncated).raw(), 8);
}

#[test]
fn an_image_says_where_it_starts_and_where_its_heap_and_headers_are() {
    let bytes = Elf::usual().to_bytes();
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.entry(), VirtAddr::new(0x40_1000));
    let end = VirtAddr::new(0x60_8000);
    assert_eq!(image.program_break(), end);
    assert_eq!(image.brk(), Break { start: end, current: end, data_bytes: 0x1000 });
    assert_eq!(image.program_headers(), Some(VirtAddr::new(0x40_0040)));
    assert_eq!((image.header_count(), image.header_bytes()), (7, 56));
}

#[test]
fn headers_are_in_memory_only_if_one_segment_has_them_all() {
    let headers = |headers_at: u64, text_bytes: u64| {
        let mut elf = Elf::usual();
        elf.headers_at = headers_at;
        elf.entry = 0x40_0000;
        elf.programs[TEXT].file_bytes = text_bytes;
        let bytes = elf.to_bytes();
        Image::parse(&bytes).unwrap().program_headers().map(VirtAddr::as_u64)
    };
    let end = 64 + 7 * 56;
    assert_eq!(headers(64, end), Some(0x40_0040));
    assert_eq!(headers(64, end - 1), None, "what lies beyond is not from the file");
    assert_eq!(headers(64, 64), None);
    assert_eq!(headers(0x3100, 64), Some(0x60_4100), "in another segment");
    assert_eq!(headers(0x307f, 64), None, "one byte before it");
}

#[test]
fn a_segment_without_memory_is_none() {
    let mut elf = Elf::usual();
    elf.programs = vec![elf.programs[TEXT], Program::new(LOAD, W | X, 1, 0, (0, 0))];
    let bytes = elf.to_bytes();
    assert_eq!(Image::parse(&bytes).unwrap().program_break(), VirtAddr::new(0x40_2000));
}
